"""A^H A of line masks as one small matrix per line of the image: for many samples of few or short lines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Limit on the table of matrices.
_TABLE_BYTES = 512 * 2**20


def blocks_pay(shape: tuple[int, ...], axis: int, coils: int, samples: int, dtype: torch.dtype) -> bool:
    """Whether a matrix per line beats FFTs on a CPU: several samples, many coils for the length of a line.

    Measured on a CPU core, per pixel, for lines of n pixels: blocks 1.43 n ns for every 8 samples or 0.45 n ns for
    each (matrix times vector), FFTs 4 ns for each coil and sample.

    Args:
        shape: shape of the image.
        axis: the undersampled axis.
        coils: number of coils.
        samples: images at once.
        dtype: dtype of the image.
    """
    n = shape[axis]
    if samples == 0 or math.prod(shape) * n * dtype.itemsize > _TABLE_BYTES:
        return False
    return n * min(1.43 * -(-samples // 8), 0.45 * samples) < 4 * coils * samples


def build_blocks(maps: Tensor, line: Tensor, axis: int) -> Tensor:
    """The matrices sum_c diag(conj s_c) T diag(s_c), T = F^H diag(line) F the circulant of the mask.

    Args:
        maps: (coils, *image).
        line: real mask along the axis, zero frequency first, (n,).
        axis: the undersampled axis, negative.

    Returns:
        (lines, n, n).
    """
    s = maps.movedim(axis, -1).flatten(1, -2).transpose(0, 1)
    unit = torch.eye(len(line), dtype=maps.dtype, device=maps.device)
    circulant = torch.fft.ifft(torch.fft.fft(unit, dim=0) * line[:, None], dim=0)
    return torch.bmm(s.mH, s).mul_(circulant)


def apply_blocks(blocks: Tensor, x: Tensor, axis: int) -> Tensor:
    """Every line of x times its matrix.

    Args:
        blocks: (lines, n, n).
        x: (samples, *image).
        axis: the undersampled axis, negative.
    """
    lines = x.movedim(axis, -1)
    flat = lines.reshape(len(x), *blocks.shape[:2])
    out = torch.bmm(blocks, flat.permute(1, 2, 0)).permute(2, 0, 1).reshape(lines.shape)
    return out.movedim(-1, axis).contiguous()
