"""Reading and writing k-space files in the HDF5 layout of fastMRI."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from inverse.data.atomic import atomic_write
from inverse.data.fourier import centred_fft, centred_ifft
from inverse.data.hdf5 import (
    Slices,
    check_finite,
    choose_slices,
    find_dataset,
    open_hdf5,
    read_images,
    read_slices,
    store,
)
from inverse.data.header import Header, format_header, parse_header
from inverse.errors import InputError, check_tensor


@dataclass(frozen=True)
class Scan:
    """What a fastMRI file holds, in one layout for single-coil and multi-coil files.

    Attributes:
        kspace: (slices, coils, y, x) complex64; y is the readout, zero frequency at N // 2.
        mask: (x,) or (y, x) bool, True where sampled.
        mask_from_file: False where the mask was found from the zeros of the k-space.
        header: sizes and fields of view, or None where the file does not state them.
        reference: (slices, y, x) float32 reconstruction of the fully sampled data, or None.
        reference_kind: "rss" or "esc" (fastMRI's single-coil emulation), or None.
        attributes: the file's attributes (max, norm, patient_id, acquisition, ...).
        voxel_mm: voxel size (z, y, x) in mm, or None.
        affine: 4 x 4 matrix from voxel index (x, y, z) to mm, RAS+, or None.
        slices: indices of the slices read.
        total_slices: number of slices in the file.
        path: the file.
    """

    kspace: Tensor
    mask: Tensor
    mask_from_file: bool
    header: Header | None = None
    reference: Tensor | None = None
    reference_kind: str | None = None
    attributes: dict = field(default_factory=dict)
    voxel_mm: tuple[float, float, float] | None = None
    affine: np.ndarray | None = None
    slices: tuple[int, ...] = ()
    total_slices: int = 0
    path: Path | None = None


def read(path: str | os.PathLike, *, slices: Slices = None) -> Scan:
    """Read a fastMRI file, or some of its slices; only those are held in memory.

    A three-dimensional k-space is a single-coil file (slices, y, x), unless its file says axes = "(coil, y, x)".

    Args:
        path: the HDF5 file.
        slices: which slices: one index, a slice object, indices, or None for all; negative counts from the end.

    Returns:
        The scan. The oversampled readout is still there: see `crop_readout`.

    Raises:
        InputError: no such file, not HDF5, truncated, no k-space, wrong shape or type, NaN or Inf, nothing sampled.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        return _read(path, file, slices)


def write(
    path: str | os.PathLike,
    kspace: Tensor,
    *,
    mask: Tensor | None = None,
    header: Header | None = None,
    reference: Tensor | None = None,
    attributes: Mapping[str, object] | None = None,
    affine: np.ndarray | None = None,
) -> None:
    """Write a file that `read` and fastMRI's own loaders read; nothing half-written stays behind.

    Args:
        path: the HDF5 file; replaced where it exists.
        kspace: (slices, coils, y, x), or (slices, y, x) for a single-coil file.
        mask: (x,) or (y, x), nonzero where sampled; k-space is set to exactly 0 elsewhere.
        header: sizes and fields of view; None takes the size of the k-space and voxels of 1 mm.
        reference: (slices, y, x) magnitude, stored as reconstruction_rss (single-coil: reconstruction_esc).
        attributes: further attributes; max and norm are computed from the reference where not given.
        affine: 4 x 4 matrix from voxel index (x, y, z) to mm, RAS+.

    Raises:
        InputError: shapes that do not fit, NaN or Inf, an unwritable folder.
    """
    check_tensor("kspace", kspace, complex_=True)
    if kspace.ndim not in (3, 4) or kspace.numel() == 0:
        raise InputError(f"kspace: expected shape (slices, coils, y, x) or (slices, y, x), got {tuple(kspace.shape)}.")
    y, x = kspace.shape[-2:]
    if mask is not None:
        mask = _check_mask("mask", torch.as_tensor(mask), (y, x))
        kspace = kspace * mask.to(kspace.device)
    size = (y, x, 1)
    fov_mm = (float(y), float(x), 1.0)
    header = header or Header(size, fov_mm, size, fov_mm, (0, x))
    attributes = dict(attributes or {})
    if reference is not None:
        check_tensor("reference", reference, complex_=False)
        if reference.ndim != 3 or reference.shape[0] != kspace.shape[0]:
            raise InputError(f"reference: expected shape ({kspace.shape[0]}, y, x), got {tuple(reference.shape)}.")
        attributes.setdefault("max", float(reference.max()))
        attributes.setdefault("norm", float(torch.linalg.vector_norm(reference)))
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        store(file, "kspace", kspace.to(torch.complex64))
        file["ismrmrd_header"] = format_header(header)
        if mask is not None:
            file["mask"] = mask.cpu().numpy()
        if reference is not None:
            store(file, "reconstruction_rss" if kspace.ndim == 4 else "reconstruction_esc", reference.float())
        if affine is not None:
            file["affine"] = np.asarray(affine, dtype=float)
        file.attrs.update(attributes)


def crop_readout(kspace: Tensor, size: int) -> Tensor:
    """Remove readout oversampling: inverse transform along y, crop around the centre, transform back.

    Exact where the object fits into the cropped field of view. The transforms are orthonormal, so the standard
    deviation of the noise per sample stays as it is.

    Args:
        kspace: (*batch, y, x) complex, fully sampled along y.
        size: points along y that stay, e.g. `scan.header.recon_size[0]`.

    Returns:
        (*batch, size, x), zero frequency at size // 2.

    Raises:
        InputError: not complex, or a size larger than there are points.
    """
    check_tensor("kspace", kspace, complex_=True)
    points = kspace.shape[-2] if kspace.ndim >= 2 else 0
    if not 1 <= size <= points:
        raise InputError(f"size: expected 1 to {points} readout points, got {size}; it is never padded.")
    if size == points:
        return kspace.clone()
    start = points // 2 - size // 2
    return centred_fft(centred_ifft(kspace, -2)[..., start : start + size, :], -2)


def crop_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """Centre part of an image, for comparison with fastMRI's references.

    Args:
        image: (*batch, y, x).
        size: (y, x) that stays, at most the size of the image.

    Raises:
        InputError: a size larger than the image.
    """
    y, x = size[:2]
    if not (1 <= y <= image.shape[-2] and 1 <= x <= image.shape[-1]):
        raise InputError(f"size: expected at most {tuple(image.shape[-2:])}, got {(y, x)}.")
    top, left = image.shape[-2] // 2 - y // 2, image.shape[-1] // 2 - x // 2
    return image[..., top : top + y, left : left + x]


def _read(path: Path, file: h5py.File, slices: Slices) -> Scan:
    dataset = find_dataset(path, file, "kspace", "give a file in fastMRI's layout")
    coils_first = str(file.attrs.get("axes", "")).startswith("(coil, y, x)")
    if dataset.dtype.kind != "c" or dataset.ndim not in (3, 4) or 0 in dataset.shape:
        raise InputError(
            f"{path}: expected complex kspace of shape (slices, coils, y, x) or (slices, y, x), "
            f"got {dataset.dtype} {dataset.shape}; convert the file."
        )
    total = 1 if coils_first and dataset.ndim == 3 else dataset.shape[0]
    chosen = choose_slices(path, slices, total)
    if coils_first and dataset.ndim == 3:
        kspace = torch.from_numpy(dataset[()].astype(np.complex64, copy=False))[None]
        check_finite(path, "kspace", kspace)
    else:
        kspace = read_slices(path, dataset, chosen, np.complex64)
        kspace = kspace if kspace.ndim == 4 else kspace.unsqueeze(1)
    mask, from_file = _find_mask(path, file, kspace)
    header = _read_header(file)
    reference, kind = _read_reference(path, file, chosen, total)
    attributes = {key: _plain(value) for key, value in file.attrs.items()}
    affine = file["affine"][()] if "affine" in file and file["affine"].shape == (4, 4) else None
    voxel = header.voxel_mm if header else None
    return Scan(kspace, mask, from_file, header, reference, kind, attributes, voxel, affine, chosen, total, path)


def _check_mask(name: str, mask: Tensor, shape: tuple[int, int]) -> Tensor:
    mask = mask.squeeze() if mask.ndim > 2 else mask
    if tuple(mask.shape) not in (shape, shape[-1:]):
        raise InputError(f"{name}: expected mask of shape ({shape[1]},) or {shape}, got {tuple(mask.shape)}.")
    mask = mask != 0
    if not mask.any():
        raise InputError(f"{name}: the mask is all zero, nothing was sampled; leave the mask out or repair it.")
    return mask


def _find_mask(path: Path, file: h5py.File, kspace: Tensor) -> tuple[Tensor, bool]:
    if isinstance(file.get("mask"), h5py.Dataset):
        mask = torch.from_numpy(np.asarray(file["mask"][()], dtype=np.float32))
        return _check_mask(str(path), mask, (kspace.shape[-2], kspace.shape[-1])), True
    sampled = torch.zeros(kspace.shape[-2:], dtype=torch.bool)
    for part in kspace.flatten(0, 1):
        sampled |= part != 0
    if not sampled.any():
        raise InputError(f"{path}: kspace is all zero, nothing was sampled; the file is empty.")
    lines, rows = sampled.any(0), sampled.any(1)
    # whole lines (as far as the readout was filled at all) make a mask of lines
    is_lines = bool((sampled == lines & rows[:, None]).all())
    return (lines if is_lines else sampled), False


def _read_header(file: h5py.File) -> Header | None:
    if "ismrmrd_header" not in file:
        return None
    text = file["ismrmrd_header"][()]
    text = text.flat[0] if isinstance(text, np.ndarray) and text.size else text
    return parse_header(text) if isinstance(text, (str, bytes)) else None


def _read_reference(
    path: Path, file: h5py.File, chosen: tuple[int, ...], total: int
) -> tuple[Tensor | None, str | None]:
    for kind in ("rss", "esc"):
        dataset = file.get(f"reconstruction_{kind}")
        if isinstance(dataset, h5py.Dataset):
            return read_images(path, dataset, chosen, total), kind
    return None, None


def _plain(value: Any) -> Any:
    """Attributes as plain Python values."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
