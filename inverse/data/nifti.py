"""Writing volumes as NIfTI, with the right orientation."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inverse.data.atomic import atomic_write
from inverse.errors import InputError, check_tensor


def write_nifti(
    path: str | os.PathLike,
    volume: Tensor,
    voxel_mm: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    affine: np.ndarray | None = None,
) -> None:
    """Write a volume (z, y, x), z to superior, y to anterior, x to the right (RAS+), as NIfTI-1 in float32.

    Args:
        path: file name ending in .nii or .nii.gz; replaced where it exists, never half-written.
        volume: real values, (z, y, x), or (y, x) for one slice.
        voxel_mm: voxel size (z, y, x) in mm; not used where an affine is given.
        affine: 4 x 4 matrix from voxel index (x, y, z) to mm in RAS+; None puts 0 mm at the centre voxel.

    Raises:
        InputError: complex or non-finite values, wrong shape, voxel size, affine or name, unwritable folder.
    """
    import nibabel  # here, because most runs write no NIfTI

    volume = torch.as_tensor(volume)
    if volume.is_complex():
        raise InputError("volume: NIfTI viewers expect real values, got complex ones; write volume.abs().")
    check_tensor("volume", volume)
    volume = volume[None] if volume.ndim == 2 else volume
    if volume.ndim != 3 or volume.numel() == 0:
        raise InputError(f"volume: expected shape (z, y, x), got {tuple(volume.shape)}.")
    if not str(path).endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: expected a name ending in .nii or .nii.gz; rename the output.")
    z, y, x = volume.shape
    matrix = _affine((z, y, x), voxel_mm) if affine is None else _check_affine(affine)
    data = np.ascontiguousarray(volume.detach().cpu().float().numpy().transpose(2, 1, 0))  # NIfTI wants (x, y, z)
    image = nibabel.Nifti1Image(data, matrix)
    image.header.set_xyzt_units("mm")
    # code 1: the scanner's coordinates; 2: aligned to something else, here the centre of the volume
    code = 2 if affine is None else 1
    image.set_sform(matrix, code=code)
    image.set_qform(matrix, code=code)
    with atomic_write(path) as temporary:
        nibabel.save(image, temporary)


def _affine(shape: tuple[int, int, int], voxel_mm: Sequence[float]) -> np.ndarray:
    steps = np.asarray(voxel_mm, dtype=float)
    if steps.shape != (3,) or not np.all(np.isfinite(steps) & (steps > 0)):
        raise InputError(f"voxel_mm: expected three positive numbers (z, y, x), got {tuple(np.ravel(voxel_mm))}.")
    matrix = np.diag([*steps[::-1], 1.0])
    matrix[:3, 3] = -steps[::-1] * (np.array(shape[::-1]) // 2)
    return matrix


def _check_affine(affine: np.ndarray) -> np.ndarray:
    matrix = np.asarray(affine, dtype=float)
    good = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.allclose(matrix[3], (0, 0, 0, 1))
    if not good or np.linalg.det(matrix[:3, :3]) == 0:
        raise InputError(f"affine: expected an invertible 4 x 4 matrix, last row (0, 0, 0, 1), got {matrix.tolist()}.")
    return matrix
