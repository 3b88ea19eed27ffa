"""Orthonormal transforms that diagonalise stationary covariances: FFT for complex images, DCT-II for real ones."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


class Modes:
    """Orthonormal transform of images (*batch, H, W) to modes and back, with the radius of each mode's frequency.

    Complex images: 2-D FFT, zero frequency first (a centring shift would cancel between forward and back). Real images:
    2-D DCT-II, free of the wrap-around that periodic boundaries bring.

    Args:
        shape: image size (H, W).
        dtype: dtype of the images.
        device: where they live.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device | str = "cpu"):
        self.complex = dtype.is_complex
        real = dtype.to_real()
        height, width = shape
        if self.complex:
            ky, kx = (torch.fft.fftfreq(n, dtype=real, device=device) for n in (height, width))
        else:
            ky, kx = (torch.arange(n, dtype=real, device=device) / (2 * n) for n in (height, width))
            self._rows, self._columns = (dct_matrix(n, real, str(device)) for n in (height, width))
        self.radius = torch.hypot(ky[:, None], kx[None, :])

    def spread(self, power: Tensor) -> Tensor:
        """Variance per pixel (H, W) of independent modes of the given power (H, W), over its mean.

        The diagonal of F^H diag(power) F. Waves spread evenly, cosines do not: a smooth field made of them varies up to
        twice as much at a border as inside, and four times in a corner.
        """
        if self.complex:
            return torch.ones_like(power)
        return _spread(self._rows, power, self._columns)

    def forward(self, x: Tensor) -> Tensor:
        """Modes of images (*batch, H, W)."""
        if self.complex:
            return torch.fft.fft2(x, norm="ortho")
        return self._rows @ x @ self._columns.mT

    def inverse(self, modes: Tensor) -> Tensor:
        """Images of modes (*batch, H, W)."""
        if self.complex:
            return torch.fft.ifft2(modes, norm="ortho")
        return self._rows.mT @ modes @ self._columns


class LearnedModes(Modes):
    """Modes along each axis of images of one size, instead of waves: x -> rows x columns^T.

    Args:
        rows: unitary (H, H), one mode of the image's columns per row, in the order of falling variance.
        columns: unitary (W, W), one mode of the image's rows per row.

    `radius` is that of the cosines which would stand in their places.
    """

    def __init__(self, rows: Tensor, columns: Tensor):
        self.complex = rows.is_complex()
        self.axes = self._rows, self._columns = rows, columns
        real = rows.dtype.to_real()
        ky, kx = (torch.arange(len(m), dtype=real, device=m.device) / (2 * len(m)) for m in (rows, columns))
        self.radius = torch.hypot(ky[:, None], kx[None, :])

    def spread(self, power: Tensor) -> Tensor:
        """Variance per pixel (H, W) of independent modes of the given power (H, W), over its mean."""
        return _spread(self._rows, power, self._columns)

    def forward(self, x: Tensor) -> Tensor:
        """Modes of images (*batch, H, W)."""
        return self._rows @ x @ self._columns.mT

    def inverse(self, modes: Tensor) -> Tensor:
        """Images of modes (*batch, H, W)."""
        return self._rows.mH @ modes @ self._columns.conj()


def _spread(rows: Tensor, power: Tensor, columns: Tensor) -> Tensor:
    spread = rows.abs().square().mT @ power @ columns.abs().square()
    return spread / spread.mean()


@lru_cache(maxsize=32)
def dct_matrix(n: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    """Orthonormal DCT-II matrix (n, n), rows are modes."""
    k, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    matrix = torch.cos(math.pi * k.double() * (2 * j + 1) / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.to(dtype=dtype, device=device)
