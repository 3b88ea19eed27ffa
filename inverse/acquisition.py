"""A scan file made ready: readout cropped, noise level, coil maps and classical images."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inverse.data import Scan, acceleration, crop_image, crop_readout, espirit, estimate_noise, read
from inverse.data.coilmaps import MIN_CALIBRATION
from inverse.errors import InputError, check_positive
from inverse.linalg.cg import cg
from inverse.noise import estimate_noise as noise_of_residual
from inverse.noise import refine_noise
from inverse.operators.mri import MultiCoilMRI
from inverse.priors.base import Denoiser
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class Acquisition:
    """A scan made ready: readout cropped, unsampled lines known, noise level found.

    Attributes:
        scan: the file as read.
        kspace: (slices, coils, y, x) complex64, readout oversampling removed.
        mask: (x,) or (y, x) bool, True where a sample was taken.
        maps: (slices, coils, y, x) coil sensitivities.
        noise: standard deviation per real component, in the unit of the k-space.
        noise_estimated: False where the user gave it.
        noise_is_bound: True where the estimate may be up to twice too high: patterns without whole lines, see
            `inverse.data.noise`.
        size: (y, x) of the images that are written: those of the header, as in fastMRI's references.
        map_notes: what is to be known of the maps: where they are cropped away, images are 0.
    """

    scan: Scan
    kspace: Tensor
    mask: Tensor
    maps: Tensor
    noise: float
    noise_estimated: bool
    noise_is_bound: bool
    size: tuple[int, int]
    map_notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """The file."""
        return self.scan.path

    @property
    def slices(self) -> tuple[int, ...]:
        """Indices of the slices that were read."""
        return self.scan.slices

    @property
    def total_slices(self) -> int:
        """Number of slices in the file."""
        return self.scan.total_slices

    @property
    def data(self) -> Tensor:
        """The k-space."""
        return self.kspace

    def operator(self, index: int) -> MultiCoilMRI:
        """The scanner as seen by slice `index`."""
        return MultiCoilMRI(self.maps[index], self.mask)

    def finish(self, images: Tensor) -> Tensor:
        """Images (..., y, x) on the CPU, cropped to `size`."""
        return crop_image(images.cpu(), self.size)

    @functools.cached_property
    def zero_filled(self) -> Tensor:
        """Inverse transform of the samples, coils combined, (slices, *size)."""
        images = [self.operator(i).pinv(y[None])[0] for i, y in enumerate(self.kspace)]
        return self.finish(torch.stack(images))

    @functools.cached_property
    def sense(self) -> Tensor:
        """CG-SENSE images before the crop to `size`, on the device of the data."""
        return torch.stack([cg_sense(y, self.operator(i), self.noise) for i, y in enumerate(self.kspace)])

    @property
    def classical(self) -> Tensor:
        """CG-SENSE, (slices, *size)."""
        return self.finish(self.sense)

    @property
    def quick_images(self) -> list[tuple[str, Tensor]]:
        """Zero-filled and CG-SENSE images."""
        return [("Zero-filled", self.zero_filled), ("CG-SENSE", self.classical)]

    @property
    def reference(self) -> Tensor | None:
        """Reference of the file where it has the size of the images, (slices, *size)."""
        reference = self.scan.reference
        return reference if reference is not None and tuple(reference.shape[1:]) == self.size else None

    @property
    def reference_title(self) -> str:
        """How the reference combines coils."""
        return "root sum of squares" if self.scan.reference_kind == "rss" else "single coil"

    @property
    def window(self) -> None:
        """Grey from 0 to a high percentile: the signal has no unit."""
        return None

    @property
    def grid(self) -> tuple[tuple[float, float, float], np.ndarray | None]:
        """Voxel size (z, y, x) and affine of the slices that were read; an affine belongs to the reference's grid."""
        scan, first = self.scan, self.slices[0]
        step = self.slices[1] - first if len(self.slices) > 1 else 1
        z, y, x = scan.voxel_mm or (1.0, 1.0, 1.0)
        if scan.affine is None:
            return (z * abs(step), y, x), None
        affine = np.array(scan.affine, dtype=float)
        affine[:3, 3] += first * affine[:3, 2]
        affine[:3, 2] *= step
        return (z * abs(step), y, x), affine

    def export(self, images: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """The images as they are, the reconstruction as magnitude."""
        mean = images["mean"]
        return {"reconstruction": None if mean is None else mean.abs(), **images}

    def facts(self) -> list[tuple[str, str]]:
        """File, size, sampling and noise."""
        coils, y, x = self.kspace.shape[1:]
        factor = acceleration(self.mask)
        sampled = f"{factor:.1f}-fold undersampled" if factor > 1.005 else "fully sampled"
        sampled += "" if self.scan.mask_from_file else " (mask found from the zeros of k-space)"
        full = self.scan.kspace.shape[-2]
        readout = f", readout cropped from {full}" if full != y else ""
        counted = "1 coil" if coils == 1 else f"{coils} coils"
        source = "estimated" if self.noise_estimated else "as given"
        return [
            ("Scan", self.path.name if self.path else ""),
            ("", f"{chosen(self.slices, self.total_slices)}, {y} x {x}{readout}, {counted}, {sampled}"),
            ("Maps", "; ".join(self.map_notes)),
            ("Noise", f"{self.noise:.3g} per real component of k-space, {source}"),
        ]

    def scale(self, prior: Denoiser) -> float:
        """One scale for the volume, so that a slice of little signal is not blown up; 1 if the prior has no scale."""
        if prior.peak is None:
            return 1.0
        peak = float(np.percentile(self.sense.abs().cpu().numpy(), 99.9))
        if not peak > 0:
            raise InputError(f"{self.scan.path}: holds no signal where it was sampled; check the file.")
        return peak / prior.peak

    def settled(self, prior: Denoiser) -> Acquisition:
        """The same acquisition; a noise level that is only a bound is lowered to what the residual of pilot runs says.

        Args:
            prior: the prior, on the device of the data.
        """
        if not self.noise_is_bound:
            return self
        middle, scale = len(self.kspace) // 2, self.scale(prior)
        problem = Problem.build(self.operator(middle), self.kspace[middle : middle + 1] / scale, self.noise / scale)
        return replace(self, noise=refine_noise(problem, prior) * scale)


def chosen(slices: tuple[int, ...], total: int) -> str:
    """Which slices were read, for the terminal."""
    text = f"{len(slices)} slices" if len(slices) > 1 else f"slice {slices[0] + 1}"
    return text + (f" of {total}" if total > len(slices) else "")


def acquire(
    path: str | os.PathLike,
    *,
    slices: int | slice | Iterable[int] | None = None,
    noise: float | None = None,
    calibration: int = 24,
    device: torch.device | str = "cpu",
) -> Acquisition:
    """Read a file in fastMRI's layout and find all that a reconstruction needs.

    The noise is the smaller of two estimates, both upper bounds: from the air of the image, and from what no image can
    explain given the coil maps. Lines that are zero throughout the file count as not sampled, whatever its mask says.

    Args:
        path: the HDF5 file.
        slices: which slices, see `inverse.data.read`.
        noise: standard deviation per real component of k-space; None estimates it.
        calibration: longest side of the fully sampled centre that the coil maps are made from.
        device: where to compute.

    Raises:
        InputError: the file is not usable, or its noise or maps cannot be estimated.
    """
    if noise is not None:
        check_positive("noise", noise, zero=True)
    if calibration < MIN_CALIBRATION:
        raise InputError(f"maps calibration: expected at least {MIN_CALIBRATION} lines, got {calibration}; take more.")
    scan = read(path, slices=slices)
    y, x = scan.kspace.shape[-2:]
    rows, columns = scan.header.recon_size[:2] if scan.header else (y, x)
    lines = scan.mask.ndim == 1
    mask = scan.mask & (scan.kspace != 0).flatten(0, 2).any(0) if lines else scan.mask
    kspace = crop_readout(scan.kspace, rows) if lines and rows < y else scan.kspace
    kspace = (kspace * mask).to(device)
    if not kspace.any():
        raise InputError(f"{path}: kspace holds no signal where the mask samples it; check the file.")
    size = (min(rows, y), min(columns, x))
    try:
        estimate = espirit(kspace, calibration, mask=mask.to(device))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    mask, maps = mask.to(device), estimate.maps
    level = _noise(scan, mask.cpu(), kspace, maps, mask) if noise is None else float(noise)
    bound = noise is None and not lines
    return Acquisition(scan, kspace, mask, maps, level, noise is None, bound, size, tuple(estimate.notes))


def _noise(scan: Scan, sampled: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor) -> float:
    """The smaller of the noise of the air and of the noise that no image explains, middle slice for the latter."""
    found = []
    with contextlib.suppress(InputError):
        found.append(float(estimate_noise(scan.kspace, sampled).square().mean(1).sqrt().median()))
    middle = len(kspace) // 2
    with contextlib.suppress(InputError):
        found.append(noise_of_residual(kspace[middle : middle + 1], MultiCoilMRI(maps[middle], mask)))
    if not any(value > 0 for value in found):
        raise InputError(f"{scan.path}: the noise level cannot be estimated from this scan; give it with --noise.")
    return min(value for value in found if value > 0)


def cg_sense(y: Tensor, operator: MultiCoilMRI, noise: float) -> Tensor:
    """CG-SENSE: (A^H A + t I) x = A^H y by conjugate gradients, t = 8 noise^2 / mean power of the image.

    8 because most frequencies hold far less than the mean power; best or nearly so among 1, 4, 8, 16 and 32 on real
    brain scans at R = 4 and 8.

    Args:
        y: k-space (coils, y, x).
        operator: the scanner.
        noise: standard deviation per real component.

    Returns:
        The image (y, x).

    Reference: Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", Magnetic
    Resonance in Medicine 46, 2001.
    """
    start = operator.pinv(y[None])
    support = operator.support
    inside = start if support is None else start[:, support]
    power = float(inside.abs().square().mean()) / 2
    tikhonov = max(1e-3, min(1.0, 8 * noise**2 / power)) if power > 0 else 1.0
    system = functools.partial(_regularised, operator, tikhonov)
    return cg(system, operator.H(y[None]), rtol=1e-4, max_iterations=50).x[0]


def _regularised(operator: MultiCoilMRI, tikhonov: float, x: Tensor) -> Tensor:
    return operator.gram(x) + tikhonov * x
