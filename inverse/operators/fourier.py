"""Centred orthonormal Fourier transform without a shift per call."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator
from inverse.operators.mask import same

AXES = (-2, -1)


def modulation(n: int, *, device: torch.device | str = "cpu") -> tuple[Tensor, complex]:
    """Diagonal d and constant c with Fc = c diag(d) F diag(d), Fc the centred transform of length n.

    With h = n // 2: d[k] = exp(2 pi i h k / n), c = exp(-2 pi i h^2 / n). For even n this is the checkerboard
    (-1)^k, for odd n a complex ramp. So the shifts cost nothing: d goes into what the data are multiplied by anyway.

    Args:
        n: length of the axis.
        device: where d is made.

    Returns:
        d, complex128 (n,), and c, both of modulus 1.
    """
    h = n // 2
    # Reduced modulo n in integers: the angle stays small and exact for long axes.
    k = torch.arange(n, device=device) * h % n
    angle = 2 * math.pi / n * k.to(torch.float64)
    return torch.polar(torch.ones_like(angle), angle), cmath.exp(-2j * math.pi * (h * h % n) / n)


def centring(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factors (before, after), each (y, x), with Fc x = after * fft2(before * x); computed in double, then rounded."""
    (dy, cy), (dx, cx) = (modulation(n, device=device) for n in shape)
    d = dy[:, None] * dx
    return d.to(dtype), (cy * cx * d).to(dtype)


def fft(x: Tensor, axes: tuple[int, ...] = AXES) -> Tensor:
    """Bare orthonormal FFT, zero frequency first; also of a batch of 0, which some FFT libraries refuse."""
    return torch.fft.fftn(x, dim=axes, norm="ortho") if x.numel() else x.clone()


def ifft(x: Tensor, axes: tuple[int, ...] = AXES) -> Tensor:
    """Inverse of `fft`."""
    return torch.fft.ifftn(x, dim=axes, norm="ortho") if x.numel() else x.clone()


class Fourier(LinearOperator):
    """Centred orthonormal 2-D transform over the last two axes, y = fftshift(fft2(ifftshift(x))) / sqrt(n).

    Args:
        shape: shape of x and y, e.g. (y, x) or (coils, y, x).
        dtype: complex dtype, default complex64.
        device: where x lives.
    """

    def __init__(
        self, shape: Sequence[int], *, dtype: torch.dtype = torch.complex64, device: torch.device | str = "cpu"
    ):
        super().__init__(shape, shape, in_dtype=dtype, device=device)
        if not dtype.is_complex or len(self.in_shape) < 2:
            raise InputError(f"Fourier: expected a complex dtype and (..., y, x), got {dtype} and {self.in_shape}.")

    @property
    def _factors(self) -> tuple[Tensor, Tensor]:
        return self._cached("factors", lambda: centring(self.in_shape[-2:], self.in_dtype, self.device))

    def _apply(self, x: Tensor) -> Tensor:
        before, after = self._factors
        return fft(before * x).mul_(after)

    def _adjoint(self, y: Tensor) -> Tensor:
        before, after = self._factors
        return ifft(after.conj() * y).mul_(before.conj())

    def _gram(self, x: Tensor) -> Tensor:
        return x.clone()

    _pinv = _adjoint

    @property
    def svd(self) -> SVD:
        """All singular values 1."""
        s = torch.ones((), dtype=self.in_dtype.to_real(), device=self.device)
        return SVD(same, same, s, self._adjoint, self._apply)
