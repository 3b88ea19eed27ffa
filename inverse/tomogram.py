"""A CT scan file made ready: geometry, rotation axis, photons and the image by filtered backprojection."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from inverse.acquisition import chosen
from inverse.data import WATER_ATTENUATION, Sinogram, read_sinogram, to_attenuation, to_hounsfield
from inverse.errors import InputError, check_positive
from inverse.operators import LinearOperator, Mask
from inverse.operators.ct import CT, FanBeam, ParallelBeam, fbp, find_centre
from inverse.operators.noise import PhotonCounts
from inverse.priors.base import Denoiser

WINDOW = (-500.0, 500.0)  # HU shown black and white
PLAUSIBLE = (0.3, 20.0)  # 99th percentile of the attenuation over that of water: from lungs to metal
LARGEST = 512  # pixels a side of an image whose size the file does not state


@dataclass(frozen=True)
class Tomogram:
    """A CT scan made ready.

    Attributes:
        sinogram: the file as read.
        scanner: line integrals of a slice.
        noise: the noise of its photons.
        noise_estimated: True where the photons were counted from rays through air.
        axis_found: True where the rotation axis was found from the data.
        axis_mm: where it falls on the detector, from its middle.
    """

    sinogram: Sinogram
    scanner: CT
    noise: PhotonCounts
    noise_estimated: bool
    axis_found: bool
    axis_mm: float

    @property
    def path(self) -> Path | None:
        """The file."""
        return self.sinogram.path

    @property
    def slices(self) -> tuple[int, ...]:
        """Indices of the slices that were read."""
        return self.sinogram.slices

    @property
    def total_slices(self) -> int:
        """Number of slices in the file."""
        return self.sinogram.total_slices

    @property
    def data(self) -> Tensor:
        """Line integrals (slices, views, detectors)."""
        return self.sinogram.data

    def operator(self, index: int) -> LinearOperator:
        """The scanner, without the rays of slice `index` that were not measured."""
        weights = self.sinogram.weights
        if weights is None or bool((weights[index] > 0).all()):
            return self.scanner
        return Mask(weights[index] > 0, dtype=self.scanner.out_dtype) @ self.scanner

    @functools.cached_property
    def fbp(self) -> Tensor:
        """Filtered backprojection with a Hann window, 1/mm, (slices, y, x)."""
        return fbp(self.scanner, self.data, "hann")

    @property
    def quick_images(self) -> list[tuple[str, Tensor]]:
        """Filtered backprojection."""
        return [("FBP", self.finish(self.fbp.clamp(min=0)))]

    @property
    def reference(self) -> Tensor | None:
        """Attenuation of the reference of the file where it has the size of the images."""
        reference = self.sinogram.reference_hu
        if reference is None or tuple(reference.shape[1:]) != self.scanner.in_shape:
            return None
        return to_attenuation(reference).clamp(min=0).cpu()

    @property
    def reference_title(self) -> str:
        """Where the reference comes from."""
        return "of the file"

    @property
    def window(self) -> tuple[float, float]:
        """Attenuation of -500 and 500 HU."""
        low, high = (float(to_attenuation(torch.tensor(value))) for value in WINDOW)
        return low, high

    @property
    def grid(self) -> tuple[tuple[float, float, float], None]:
        """Voxel size (z, y, x) in mm; the distance of slices is not known and written as 1."""
        return (1.0, self.scanner.pixel, self.scanner.pixel), None

    def scale(self, prior: Denoiser) -> float:
        """The unit of the prior, or what brings the 99.9th percentile of the FBP to that of the prior."""
        if prior.unit is not None or prior.peak is None:
            return prior.unit or 1.0
        peak = float(torch.quantile(self.fbp.flatten(1), 0.999, dim=1).max())
        if not peak > 0:
            raise InputError(f"{self.path}: nothing attenuates in this scan; check the flat field.")
        return peak / prior.peak

    def settled(self, prior: Denoiser) -> Tomogram:
        """This tomogram: the noise of photons needs no pilot runs."""
        return self

    def finish(self, images: Tensor) -> Tensor:
        """Images on the CPU, 1/mm."""
        return images.cpu()

    def export(self, images: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Reconstruction, samples and standard deviation in HU."""
        mean, std, samples = images["mean"], images["std"], images["samples"]
        return {
            "reconstruction": None if mean is None else to_hounsfield(mean),
            "std": None if std is None else to_hounsfield(std) + 1000,
            "samples": None if samples is None else to_hounsfield(samples),
        }

    def facts(self) -> list[tuple[str, str]]:
        """File, geometry, image and noise."""
        geometry = self.scanner.geometry
        beam = {"parallel": "parallel beam", "fan": "fan beam", "fan-curved": "fan beam, curved detector"}
        angles = self.sinogram.angles
        span = math.degrees(float(angles.max() - angles.min()))
        y, x = self.scanner.in_shape
        elements = f"{geometry.shape[1]} detector elements of {self.sinogram.spacing_mm:g} mm"
        if self.axis_found:
            elements += f", rotation axis found {self.axis_mm:.2f} mm from their middle"
        source = "estimated from rays through air" if self.noise_estimated else "as given"
        return [
            ("Scan", self.path.name if self.path else ""),
            ("", f"{chosen(self.slices, self.total_slices)}, {beam[self.sinogram.geometry]}, {len(angles)} views over "
                 f"{span:.0f} degrees, {elements}"),
            ("Image", f"{y} x {x} pixels of {self.scanner.pixel:.3g} mm"),
            ("Noise", f"{float(torch.as_tensor(self.noise.photons)):.3g} photons a ray, {source}"),
            ("Note", self._doubt()),
        ]  # fmt: skip

    def _doubt(self) -> str:
        """What is wrong with the attenuation, if it is not that of a person."""
        high = float(torch.quantile(self.fbp.flatten()[:: max(1, self.fbp.numel() // 1_000_000)], 0.99))
        share = high / WATER_ATTENUATION
        if PLAUSIBLE[0] <= share <= PLAUSIBLE[1]:
            return ""
        return f"the attenuation goes up to {share:.2g} times that of water: check the spacing in mm (--spacing)"


def is_sinogram(path: str | os.PathLike) -> bool:
    """Whether an HDF5 file holds projections rather than k-space; False for what is no HDF5 file at all."""
    import h5py

    try:
        with h5py.File(path) as file:
            return "kspace" not in file and any(name in file for name in ("sinogram", "counts", "exchange", "data"))
    except OSError:
        return False


def tomogram(
    path: str | os.PathLike,
    *,
    slices: int | slice | Iterable[int] | None = None,
    photons: float | None = None,
    spacing: float | None = None,
    pixel: float | None = None,
    device: torch.device | str = "cpu",
) -> Tomogram:
    """Read a CT scan and find all that a reconstruction needs.

    Args:
        path: an HDF5 file, see `inverse.data.read_sinogram` for the layouts.
        slices: which slices.
        photons: incident photons per ray; None takes the file's, or counts them from rays through air.
        spacing: distance of detector elements in mm, in the place of the file's.
        pixel: edge of a pixel in mm, in the place of the file's; None without one: the size of a detector element in
            the image.
        device: where to compute.

    Raises:
        InputError: the file is not usable, its noise or its rotation axis cannot be found.
    """
    sinogram = read_sinogram(path, slices=slices)
    for name, value in (("spacing", spacing), ("pixel", pixel)):
        if value is not None:
            check_positive(name, value)
    if spacing is not None:
        sinogram = replace(sinogram, spacing_mm=spacing, pixel_mm=None)
    level = photons if photons is not None else sinogram.photons
    try:
        found, offset = _offset(sinogram)
        scanner = _scanner(sinogram, offset, pixel, device)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    weights = None if sinogram.weights is None else sinogram.weights.to(device)
    sinogram = replace(sinogram, data=sinogram.data.to(device), weights=weights)
    noise = PhotonCounts(level) if level is not None else scanner.noise_of(sinogram.data)
    if noise is None:
        raise InputError(f"{path}: no rays through air to count the photons from; give them with --photons.")
    return Tomogram(sinogram, scanner, noise, level is None, found, -offset)


def _offset(sinogram: Sinogram) -> tuple[bool, float]:
    """Shift of the detector in mm, and whether it was found from the data."""
    if sinogram.offset_mm is not None or sinogram.geometry != "parallel":
        return False, sinogram.offset_mm or 0.0
    return True, find_centre(sinogram.data, sinogram.angles, sinogram.spacing_mm)


def _scanner(sinogram: Sinogram, offset: float, pixel: float | None, device: torch.device | str) -> CT:
    """The operator of a slice."""
    angles, detectors, element = sinogram.angles.tolist(), sinogram.data.shape[-1], sinogram.spacing_mm
    geometry: ParallelBeam | FanBeam
    if sinogram.geometry == "parallel":
        geometry = ParallelBeam(angles, detectors, element, offset)
    else:
        source, detector = sinogram.source_distance_mm, sinogram.detector_distance_mm
        assert source is not None and detector is not None  # a Sinogram of a fan beam has them
        curved = sinogram.geometry == "fan-curved"
        geometry = FanBeam(angles, detectors, element, source, detector, offset, curved=curved)
        element *= source / (source + detector)
    edge = pixel or sinogram.pixel_mm or element
    side = min(LARGEST, max(8, math.floor(detectors * element / edge)))
    return CT(geometry, sinogram.image_shape or (side, side), edge, device=device)
