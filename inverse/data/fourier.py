"""Centred orthonormal Fourier transforms of arrays: zero frequency and middle of the image at n // 2."""

from __future__ import annotations

import torch
from torch import Tensor


def centred_fft(x: Tensor, *axes: int) -> Tensor:
    """From image to k-space along some axes."""
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)


def centred_ifft(x: Tensor, *axes: int) -> Tensor:
    """From k-space to image along some axes."""
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(x, axes), dim=axes, norm="ortho"), axes)
