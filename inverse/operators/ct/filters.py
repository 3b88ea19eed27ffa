"""Ramp filters of filtered back-projection, made in the spatial domain so that the mean of an image is right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inverse.errors import InputError

WINDOWS = ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")


def ramp_kernel(half: int, spacing: float) -> Tensor:
    """Band-limited ramp at the offsets -half to half of a detector, in 1/mm^2 (or 1/rad^2).

    The samples of a truncated |f| in the frequency domain are another filter: its value at zero frequency is 0, which
    lowers the whole image of a finite detector. These are the samples of its exact impulse response.

    Args:
        half: number of elements to either side of the middle.
        spacing: distance of detector elements, mm or rad.

    Returns:
        (2 half + 1,) float64: 1/(4 spacing^2) in the middle, -1/(pi n spacing)^2 at odd n, 0 at even n.

    Reference: Kak and Slaney, "Principles of Computerized Tomographic Imaging", 1988, chapter 3, equation 61.
    """
    n = torch.arange(-half, half + 1, dtype=torch.float64)
    tail = -1 / (math.pi * spacing * torch.where(n == 0, 1.0, n)).square()
    kernel = torch.where(n.remainder(2) == 1, tail, 0.0)
    kernel[half] = 1 / (4 * spacing**2)
    return kernel


def window(name: str, length: int) -> Tensor:
    """Window on the ramp at the frequencies of a real FFT.

    Args:
        name: "ram-lak" (none), "shepp-logan", "cosine", "hamming" or "hann"; each but the first trades resolution for
            less noise, in this order.
        length: length of the FFT.

    Returns:
        (length // 2 + 1,) float64, 1 at zero frequency.

    Raises:
        InputError: an unknown name.
    """
    f = torch.arange(length // 2 + 1, dtype=torch.float64) / length  # cycles per element, up to 1/2
    if name == "ram-lak":
        return torch.ones_like(f)
    if name == "shepp-logan":
        return torch.sinc(f)
    if name == "cosine":
        return torch.cos(math.pi * f)
    if name == "hamming":
        return 0.54 + 0.46 * torch.cos(2 * math.pi * f)
    if name == "hann":
        return 0.5 + 0.5 * torch.cos(2 * math.pi * f)
    raise InputError(f"filter: expected one of {', '.join(WINDOWS)}, got '{name}'; choose one of them.")


def ramp_response(name: str, elements: int, spacing: float, *, equiangular: bool = False) -> Tensor:
    """Frequency response of a windowed ramp filter for a detector padded with zeros.

    Args:
        name: the window, see `window`.
        elements: number of detector elements.
        spacing: distance of detector elements: mm, or radians with `equiangular`.
        equiangular: weight the kernel by (angle / sin angle)^2, for elements at equal angles as seen from the source.

    Returns:
        (length // 2 + 1,) float64 real, in 1/mm (or 1/rad), with length = `padded_length(elements)`; the integral over
        the detector is included.

    Raises:
        InputError: an unknown window.

    Reference: Kak and Slaney, "Principles of Computerized Tomographic Imaging", 1988, equation 3.61 and
    section 3.4.1.
    """
    length = padded_length(elements)
    windowed = window(name, length)
    half = elements - 1  # what lies further apart never meets
    kernel = ramp_kernel(half, spacing)
    if equiangular:
        angle = torch.arange(-half, half + 1, dtype=torch.float64) * spacing
        kernel = kernel / torch.sinc(angle / math.pi).square()
    wrapped = torch.zeros(length, dtype=torch.float64)
    wrapped[torch.arange(-half, half + 1) % length] = kernel
    return torch.fft.rfft(wrapped).real * windowed * spacing


def padded_length(elements: int) -> int:
    """Power of two that holds a detector and as many zeros: no value is filtered into another end."""
    return 2 ** math.ceil(math.log2(max(2 * elements, 2)))


def apply_filter(y: Tensor, response: Tensor) -> Tensor:
    """Filter the rows of a sinogram.

    Args:
        y: (..., elements), real.
        response: what `ramp_response` gave for this number of elements.

    Returns:
        (..., elements), dtype of y.
    """
    elements, length = y.shape[-1], 2 * (response.shape[-1] - 1)
    if not y.numel():
        return y.clone()
    spectrum = torch.fft.rfft(y, n=length)
    spectrum = spectrum * response.to(y)
    return torch.fft.irfft(spectrum, n=length)[..., :elements].contiguous()
