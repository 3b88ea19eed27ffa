"""Sinograms: what a CT scan measured, from counts to line integrals, and files of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from inverse.data.atomic import atomic_write
from inverse.data.hdf5 import Slices, choose_slices, find_dataset, open_hdf5, read_images, store
from inverse.errors import InputError, check_positive, check_tensor

GEOMETRIES = ("parallel", "fan", "fan-curved")
_NUMBERS = ("spacing_mm", "offset_mm", "source_distance_mm", "detector_distance_mm", "pixel_mm", "photons")


@dataclass(frozen=True)
class Sinogram:
    """Slices of a CT scan in the plane, and where source and detector were.

    Attributes:
        data: line integrals (slices, views, detectors), real.
        angles: (views,) float64, radians.
        weights: inverse variance of every line integral, 0 where nothing was measured, shape of `data`; None: equal.
        geometry: "parallel", "fan" (straight detector) or "fan-curved" (an arc around the source).
        spacing_mm: distance of detector elements, mm; 1 where a file does not say, lengths are then in elements.
        offset_mm: shift of the detector along its axis, mm; None: not known.
        source_distance_mm: from the source to the rotation axis, fan beams only.
        detector_distance_mm: from the rotation axis to the detector, fan beams only.
        pixel_mm: edge of a pixel of the image, or None.
        image_shape: (y, x) of the image, or None.
        photons: incident photons per ray, or None.
        reference_hu: image that others reconstructed, (slices, y, x) in Hounsfield units, or None.
        slices: indices of the slices read.
        total_slices: number of slices in the file.
        path: the file.

    Raises:
        InputError: shapes that do not fit, values or numbers that are not finite, a fan beam without distances.
    """

    data: Tensor
    angles: Tensor
    weights: Tensor | None = None
    geometry: str = "parallel"
    spacing_mm: float = 1.0
    offset_mm: float | None = None
    source_distance_mm: float | None = None
    detector_distance_mm: float | None = None
    pixel_mm: float | None = None
    image_shape: tuple[int, int] | None = None
    photons: float | None = None
    reference_hu: Tensor | None = None
    slices: tuple[int, ...] = ()
    total_slices: int = 0
    path: Path | None = None

    def __post_init__(self) -> None:
        check_tensor("sinogram", self.data, complex_=False)
        if self.data.ndim != 3 or not self.data.numel():
            raise InputError(f"sinogram: expected (slices, views, detectors), got {tuple(self.data.shape)}; add axes.")
        check_tensor("angles", self.angles, complex_=False)
        if tuple(self.angles.shape) != self.data.shape[1:2]:
            raise InputError(
                f"angles: expected one for each of {self.data.shape[1]} views, got shape {tuple(self.angles.shape)}."
            )
        if self.weights is not None:
            check_tensor("weights", self.weights, complex_=False)
            if self.weights.shape != self.data.shape or bool((self.weights < 0).any()):
                raise InputError(f"weights: expected none negative in {tuple(self.data.shape)}, as the sinogram has.")
        self._check_numbers()
        reference = self.reference_hu
        if reference is not None:
            check_tensor("reference_hu", reference, complex_=False)
            if reference.ndim != 3 or len(reference) != len(self.data):
                raise InputError(f"reference_hu: expected ({len(self.data)}, y, x), got {tuple(reference.shape)}.")

    def _check_numbers(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise InputError(f"geometry: expected one of {', '.join(GEOMETRIES)}, got '{self.geometry}'.")
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is None and (self.geometry == "parallel" or not name.endswith("_distance_mm")):
                continue
            if name == "offset_mm" and not math.isfinite(value):
                raise InputError(f"offset_mm: expected a finite number in mm, got {value}.")
            if name != "offset_mm":
                check_positive(name, value, zero=name == "detector_distance_mm")
        if self.image_shape is not None and (len(self.image_shape) != 2 or min(self.image_shape) < 1):
            raise InputError(f"image_shape: expected (y, x), got {self.image_shape}.")


def line_integrals(counts: Tensor, flat: Tensor | float, dark: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Line integrals y = -log((counts - dark) / (flat - dark)), and how much each is worth.

    Dead elements (flat not above dark, or less than a thousandth of the median) and rays without counts get the weight
    0, and the value of the measured neighbours along the detector, linearly interpolated, so that a filter does not
    make streaks of them.

    Args:
        counts: (..., views, detectors), real.
        flat: what arrives without an object, broadcasts to `counts`; several shots are averaged before.
        dark: what the detector gives without a beam, broadcasts to `counts`.

    Returns:
        y and weights, both of the shape of counts, float32 or wider. Weights are counts - dark: for Poisson counts the
        inverse variance of y, for a detector's units proportional to it.

    Raises:
        InputError: complex values, shapes that do not broadcast, or nothing measured at all.

    Reference: Sauer and Bouman, "A local update strategy for iterative reconstruction from projections", 1993
    (weights).
    """
    if not isinstance(counts, Tensor) or counts.is_complex() or counts.ndim < 1:
        kind = f"{counts.dtype} of {tuple(counts.shape)}" if isinstance(counts, Tensor) else type(counts).__name__
        raise InputError(f"counts: expected a real tensor (..., views, detectors), got {kind}; convert it.")
    counts = counts if counts.is_floating_point() else counts.to(torch.float32)
    flat, dark = (torch.as_tensor(v, dtype=counts.dtype, device=counts.device) for v in (flat, dark))
    try:
        torch.broadcast_to(flat - dark, counts.shape)
    except RuntimeError:
        raise InputError(
            f"flat, dark: expected shapes that broadcast to {tuple(counts.shape)}, got {tuple(flat.shape)} and "
            f"{tuple(dark.shape)}; average the shots first."
        ) from None
    incident, passed = flat - dark, counts - dark
    alive = torch.isfinite(incident) & (incident > 0)
    if bool(alive.any()):
        alive &= incident > 1e-3 * incident[alive].median()
    measured = alive & torch.isfinite(passed) & (passed > 0)
    if not bool(measured.any()):
        raise InputError("counts: no ray has counts above dark and a flat field above dark; check the three.")
    y = torch.where(measured, -torch.log(passed / incident), 0.0)
    return _bridge(y, measured), torch.where(measured, passed, 0.0)


def read_sinogram(path: str | os.PathLike, *, slices: Slices = None) -> Sinogram:
    """Read a CT scan, or some of its slices; only those are held in memory.

    Three layouts of HDF5, told apart by what they hold:

    - Data Exchange, of synchrotrons: exchange/data (views, slices, detectors), exchange/data_white and data_dark
      (shots, slices, detectors), exchange/theta in degrees. Parallel beam.
    - the same at the root: data, white, dark, theta_deg.
    - this library's: `sinogram` (slices, views, detectors), line integrals, or `counts` of the same shape with the
      attribute photons; `angles` in radians; attributes geometry ("parallel", "fan", "fan-curved"), spacing_mm,
      offset_mm, source_distance_mm, detector_distance_mm, pixel_mm, image_shape (y, x), photons; and where there are
      any `weights` (shape of the sinogram) and `reconstruction_hu` (slices, y, x).

    Args:
        path: the HDF5 file.
        slices: which slices: one index, a slice object, indices, or None for all; negative counts from the end.

    Returns:
        The sinogram; raw counts are turned into line integrals and weights by `line_integrals`.

    Raises:
        InputError: no such file, not HDF5, truncated, none of the layouts, shapes that do not fit, NaN or Inf.
    """
    path = Path(path)
    try:
        with open_hdf5(path) as file:
            if "exchange" in file:
                return _read_raw(path, file, slices, "exchange/data", "exchange/theta", "exchange/data_")
            if "data" in file:
                return _read_raw(path, file, slices, "data", "theta_deg", "")
            return _read_own(path, file, slices)
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from error


def write_sinogram(path: str | os.PathLike, sinogram: Sinogram, *, counts: Tensor | None = None) -> None:
    """Write a file that `read_sinogram` reads; nothing half-written stays behind.

    Args:
        path: the HDF5 file; replaced where it exists.
        sinogram: what to write, in float32.
        counts: photon counts (slices, views, detectors) to write in the place of line integrals and weights; the
            sinogram's `photons` says what arrives without an object.

    Raises:
        InputError: counts of another shape or without `photons`, an unwritable folder.
    """
    if counts is not None and (counts.shape != sinogram.data.shape or sinogram.photons is None):
        raise InputError(
            f"counts: expected shape {tuple(sinogram.data.shape)} and photons set, got {tuple(counts.shape)} and "
            f"photons {sinogram.photons}; both belong to one scan."
        )
    values = {"counts": counts} if counts is not None else {"sinogram": sinogram.data, "weights": sinogram.weights}
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for name, value in {**values, "reconstruction_hu": sinogram.reference_hu}.items():
            if value is not None:
                store(file, name, value.float())
        file["angles"] = sinogram.angles.detach().cpu().numpy().astype(np.float64)
        for name in ("geometry", "image_shape", *_NUMBERS):
            if getattr(sinogram, name) is not None:
                file.attrs[name] = getattr(sinogram, name)


def _bridge(y: Tensor, measured: Tensor) -> Tensor:
    """Values between measured elements, linearly interpolated along the last axis; the nearest one at its ends."""
    if bool(measured.all()):
        return y
    n = y.shape[-1]
    index = torch.arange(n, device=y.device).expand(y.shape)
    left = torch.where(measured, index, -1).cummax(-1).values
    right = torch.where(measured, index, n).flip(-1).cummin(-1).values.flip(-1)
    left, right = torch.where(left < 0, right, left), torch.where(right == n, left, right)
    left, right = (v.clamp(0, n - 1) for v in (left, right))  # rows without any: all 0 already
    share = (index - left) / (right - left).clamp_min(1)
    return torch.lerp(y.gather(-1, left), y.gather(-1, right), share.to(y.dtype))


def _read_raw(path: Path, file: h5py.File, slices: Slices, name: str, theta: str, prefix: str) -> Sinogram:
    """Counts (views, slices, detectors) with flat and dark fields."""
    data, degrees = _dataset(path, file, name), _dataset(path, file, theta)
    if data.ndim != 3 or 0 in data.shape:
        raise InputError(f"{path}: expected {name} of shape (views, slices, detectors), got {data.shape}.")
    chosen = choose_slices(path, slices, data.shape[1])
    fields = []
    for field in ("white", "dark"):
        dataset = _dataset(path, file, prefix + field)
        if dataset.shape[-2:] != data.shape[1:]:
            raise InputError(
                f"{path}: expected {prefix}{field} of shape (shots, {data.shape[1]}, {data.shape[2]}), "
                f"got {dataset.shape}; give the fields of this detector."
            )
        shots = np.stack([dataset[..., i, :] for i in chosen], -2)
        fields.append(torch.from_numpy(shots.astype(np.float32)).flatten(0, -3).mean(0) if shots.ndim > 2 else shots)
    counts = np.stack([data[:, i] for i in chosen]).astype(np.float32)
    flat, dark = (torch.as_tensor(field, dtype=torch.float32)[:, None] for field in fields)
    y, weights = line_integrals(torch.from_numpy(counts), flat, dark)
    angles = torch.from_numpy(np.asarray(degrees[()], dtype=np.float64))
    angles = angles if str(degrees.attrs.get("units", "")).startswith("rad") else torch.deg2rad(angles)
    spacing = float(file.attrs.get("spacing_mm", 1.0))
    return Sinogram(y, angles, weights, spacing_mm=spacing, slices=chosen, total_slices=data.shape[1], path=path)


def _read_own(path: Path, file: h5py.File, slices: Slices) -> Sinogram:
    name = "counts" if "counts" in file and "sinogram" not in file else "sinogram"
    dataset = _dataset(path, file, name)
    if dataset.ndim != 3 or 0 in dataset.shape:
        raise InputError(f"{path}: expected {name} of shape (slices, views, detectors), got {dataset.shape}.")
    total = dataset.shape[0]
    chosen = choose_slices(path, slices, total)
    parts: dict[str, Tensor | None] = {"weights": None, "reconstruction_hu": None}
    for part in parts:
        if part in file:
            parts[part] = read_images(path, _dataset(path, file, part), chosen, total)
    facts: dict[str, Any] = {key: float(file.attrs[key]) for key in _NUMBERS if key in file.attrs}
    if "image_shape" in file.attrs:
        facts["image_shape"] = tuple(int(n) for n in file.attrs["image_shape"])
    data = read_images(path, dataset, chosen, total)
    if name == "counts":
        if "photons" not in facts:
            raise InputError(f"{path}: expected the attribute photons beside counts; write what arrives unattenuated.")
        data, parts["weights"] = line_integrals(data, facts["photons"])
    kind = file.attrs.get("geometry", "parallel")
    return Sinogram(
        data,
        torch.from_numpy(np.asarray(_dataset(path, file, "angles")[()], dtype=np.float64)),
        parts["weights"],
        kind.decode() if isinstance(kind, bytes) else str(kind),
        reference_hu=parts["reconstruction_hu"],
        slices=chosen,
        total_slices=total,
        path=path,
        **facts,
    )


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    return find_dataset(path, file, name, "see read_sinogram for the layouts")
