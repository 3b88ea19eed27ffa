"""Singular value decomposition of circular convolutions, with real coefficients for real images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inverse.operators.base import SVD

AXES = (-2, -1)


def circulant_svd(transfer: Tensor, dtype: torch.dtype) -> SVD:
    """Decomposition of A = F^H diag(h) F; coefficients have the shape of the image, s = |h|.

    Complex images: V = F^H and U = F^H diag(h / |h|). Real images: V is the Hartley transform, Re F - Im F, which is
    real, orthonormal and its own inverse. Since h of a real kernel is Hermitian, A V is V times a rotation within each
    pair of frequencies k and -k, by the phase of h, and the length |h|: coefficients stay real.

    Args:
        transfer: h (..., y, x), double precision.
        dtype: dtype of the images.

    Reference: Bracewell, "Discrete Hartley transform", 1983, equations 1 and 8 (shift and convolution).
    """
    if not dtype.is_complex:
        # Exactly Hermitian: else the phase of an h that is only rounding spoils the rotation.
        transfer = (transfer + _reversed(transfer).conj()) / 2
    s = transfer.abs()
    phase = torch.where(s > 0, transfer / s, 1)
    s = s.to(dtype.to_real())
    if dtype.is_complex:
        phase = phase.to(dtype)
        conj = phase.conj().resolve_conj()
        return SVD(
            U=lambda c: _inverse(phase * c),
            Uh=lambda y: conj * _forward(y),
            s=s,
            V=_inverse,
            Vh=_forward,
        )
    cosine, sine = phase.real.to(dtype), phase.imag.to(dtype)

    def rotate(sign: int) -> Callable[[Tensor], Tensor]:
        return lambda c: cosine * c - sign * sine * _reversed(c)

    forth, back = rotate(1), rotate(-1)
    return SVD(U=lambda c: _hartley(forth(c)), Uh=lambda y: back(_hartley(y)), s=s, V=_hartley, Vh=_hartley)


def _forward(x: Tensor) -> Tensor:
    return torch.fft.fft2(x, norm="ortho") if x.numel() else x.clone()


def _inverse(x: Tensor) -> Tensor:
    return torch.fft.ifft2(x, norm="ortho") if x.numel() else x.clone()


def _hartley(x: Tensor) -> Tensor:
    spectrum = _forward(x)
    return spectrum.real - spectrum.imag if x.numel() else spectrum


def _reversed(x: Tensor) -> Tensor:
    """Values at the negative frequencies."""
    return x.flip(AXES).roll((1, 1), AXES)
