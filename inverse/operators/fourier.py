"""Centred orthonormal Fourier transform without a shift or a factor per call."""

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
    """Factors (before, after), each of `shape`, with Fc x = after * fft(before * x) over all of its axes.

    The 1 / sqrt(n) of the orthonormal transform is in `after`. Computed in double, then rounded.
    """
    d, c = torch.ones((), dtype=torch.complex128, device=device), 1 / math.sqrt(math.prod(shape)) + 0j
    for n in shape:
        axis, factor = modulation(n, device=device)
        d, c = d.unsqueeze(-1) * axis, c * factor
    return d.to(dtype), (c * d).to(dtype)


def fft(x: Tensor, axes: tuple[int, ...] = AXES) -> Tensor:
    """Bare FFT F, zero frequency first, without a factor; also of a batch of 0, which some FFT libraries refuse.

    A factor would cost a pass through memory: on a CPU a sixth of the time of a 1-D transform.
    """
    return torch.fft.fftn(x, dim=axes) if x.numel() else x.clone()


def ifft(x: Tensor, axes: tuple[int, ...] = AXES) -> Tensor:
    """F^H, the adjoint of `fft`; the inverse up to a factor of the number of points."""
    return torch.fft.ifftn(x, dim=axes, norm="forward") if x.numel() else x.clone()


class Fourier(LinearOperator):
    """Centred orthonormal transform over the last axes, in 2-D y = fftshift(fft2(ifftshift(x))) / sqrt(n).

    Args:
        shape: shape of x and y, e.g. (y, x), (coils, y, x) or, with dims=3, (coils, z, y, x).
        dims: how many of the last axes are transformed, default 2.
        dtype: complex dtype, default complex64.
        device: where x lives.

    Raises:
        InputError: a real dtype, or fewer axes than are to be transformed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        dims: int = 2,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ):
        super().__init__(shape, shape, in_dtype=dtype, device=device)
        if not dtype.is_complex or not 1 <= dims <= len(self.in_shape):
            raise InputError(
                f"Fourier: expected a complex dtype and at least dims={dims} axes, 1 or more, got {dtype} and "
                f"{self.in_shape}; give the shape of one image."
            )
        self._axes = tuple(range(-dims, 0))

    @property
    def _factors(self) -> tuple[Tensor, Tensor]:
        shape = self.in_shape[self._axes[0] :]
        return self._cached("factors", lambda: centring(shape, self.in_dtype, self.device))

    def _apply(self, x: Tensor) -> Tensor:
        before, after = self._factors
        return fft(before * x, self._axes).mul_(after)

    def _adjoint(self, y: Tensor) -> Tensor:
        before, after = self._factors
        return ifft(after.conj() * y, self._axes).mul_(before.conj())

    def _gram(self, x: Tensor) -> Tensor:
        return x.clone()

    _pinv = _adjoint

    @property
    def svd(self) -> SVD:
        """All singular values 1."""
        s = torch.ones((), dtype=self.in_dtype.to_real(), device=self.device)
        return SVD(same, same, s, self._adjoint, self._apply)
