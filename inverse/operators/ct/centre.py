"""Where the rotation axis falls on the detector, from the data of a parallel scan alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor

# Slices of a scan share their axis; more than so many slices or views add time, not accuracy.
_SLICES = 16
_VIEWS = 256
_MIN_VIEWS = 8


def find_centre(sinogram: Tensor, angles: Sequence[float] | Tensor, spacing: float = 1.0) -> float:
    """Detector offset of a parallel scan, for `ParallelBeam(offset=...)`.

    Opposite views are mirror images about the axis, p(t + pi, u) = p(t, -u), and at the spatial frequency f the view
    of an object of radius r changes with the angle no faster than by the angular frequency 2 pi f r. With the axis at
    the origin, the spectrum of a view therefore has a real part that is a sum of the even angular frequencies up to
    2 pi f r, and an imaginary part that is a sum of the odd ones; with a wrong axis it is not. What least squares
    leave over, summed over the spatial frequencies, is searched over the middle three quarters of the detector, then
    refined to 0.001 elements. This is the double wedge of Vo et al. without its transform over equal angles: any list
    of angles will do, over less than half a turn too.

    The offset is ((detectors - 1) / 2 - c) spacing, with c the column, counted from 0, on which the axis falls; it is
    positive where c is left of the middle. Measured on phantoms that the detector sees whole: to 0.03 elements from
    16 views over half a turn, to 0.1 over 120 degrees. Data that are cut off at an edge shift it by several elements.

    Args:
        sinogram: line integrals (*batch, views, detectors), real; slices of one scan share their axis, at most 16 of
            them and 256 views are used, evenly taken.
        angles: angle of every view, radians, any order.
        spacing: distance of detector elements, mm.

    Returns:
        Offset in mm.

    Raises:
        InputError: fewer than 8 views, angles of another number, data that are constant or not finite.

    Reference: Vo, Drakopoulos, Atwood and Reinhard, "Reliable method for calculating the center of rotation in
    parallel-beam tomography", 2014, section 2.
    """
    t = _checked_angles(sinogram, angles)
    slices = sinogram.detach().reshape(-1, *sinogram.shape[-2:])
    slices = slices[_evenly(len(slices), _SLICES).to(slices.device)]
    views = _evenly(len(t), _VIEWS)
    excess = inconsistency(slices[:, views.to(slices.device)].to(torch.float64), t[views])
    detectors = sinogram.shape[-1]
    best = min(range(detectors // 8, detectors - detectors // 8), key=excess)
    column = _golden_section(excess, best - 1.0, best + 1.0, 1e-3)
    return ((detectors - 1) / 2 - column) * spacing


def inconsistency(slices: Tensor, angles: Tensor) -> Callable[[float], float]:
    """How much views contradict each other, as a function of the column of the axis; made once, cheap to call.

    Args:
        slices: (slices, views, detectors) float64.
        angles: (views,) float64, radians.

    Returns:
        Sum over the spatial frequencies of the norm of what no object of half the detector's width explains.
    """
    detectors = slices.shape[-1]
    length = 2 * detectors
    spectrum = torch.fft.rfft(slices, n=length).permute(2, 1, 0)  # (frequencies, views, slices)
    frequencies, terms = [], []
    for k in range(length // 2 + 1):
        f = k / length
        bandwidth = int(math.pi * f * detectors) + 1
        if bandwidth + 1 >= len(angles):
            break
        even, odd = (_harmonics(angles, parity, bandwidth).to(slices.device) for parity in (0, 1))
        real, imaginary = spectrum[k].real, spectrum[k].imag
        even_real, even_imaginary = (v - even @ (even.mT @ v) for v in (real, imaginary))
        odd_real, odd_imaginary = (v - odd @ (odd.mT @ v) for v in (real, imaginary))
        frequencies.append(f)
        terms.append(
            torch.stack(
                [
                    even_real.square().sum() + odd_imaginary.square().sum(),
                    even_imaginary.square().sum() + odd_real.square().sum(),
                    2 * ((odd_real * odd_imaginary).sum() - (even_real * even_imaginary).sum()),
                ]
            )
        )
    cos2, sin2, mixed = torch.stack(terms).cpu().unbind(1)
    turn = 2 * math.pi * torch.tensor(frequencies, dtype=torch.float64)

    def excess(column: float) -> float:
        # The shift to the origin multiplies by exp(i phase), which mixes real and imaginary parts.
        cos, sin = torch.cos(turn * column), torch.sin(turn * column)
        return float((cos.square() * cos2 + sin.square() * sin2 + cos * sin * mixed).clamp_min(0).sqrt().sum())

    return excess


def _harmonics(angles: Tensor, parity: int, bandwidth: int) -> Tensor:
    """Orthonormal basis (views, n) of the even or odd angular frequencies up to the bandwidth."""
    turn = torch.arange(parity, bandwidth + 1, 2, dtype=torch.float64) * angles.cpu()[:, None]
    columns = [torch.cos(turn), torch.sin(turn[:, 1 - parity :])]  # sin of frequency 0 is no column
    return torch.linalg.qr(torch.cat(columns, 1))[0]


def _evenly(count: int, limit: int) -> Tensor:
    """Indices of at most `limit` of `count` items."""
    return torch.linspace(0, count - 1, min(count, limit), dtype=torch.float64).round().long()


def _golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Minimum of a function with one valley between low and high."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > tolerance:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if function(left) < function(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _checked_angles(sinogram: Tensor, angles: Sequence[float] | Tensor) -> Tensor:
    """Angles as float64, after everything was checked."""
    check_tensor("sinogram", sinogram, complex_=False)
    t = torch.as_tensor(angles, dtype=torch.float64, device="cpu")
    if sinogram.ndim < 2 or t.ndim != 1 or sinogram.shape[-2] != len(t) or not sinogram.numel():
        raise InputError(
            f"sinogram: expected shape (*batch, views, detectors) and an angle for each view, got "
            f"{tuple(sinogram.shape)} and angles of shape {tuple(t.shape)}; give one angle for each view."
        )
    if len(t) < _MIN_VIEWS:
        raise InputError(
            f"angles: expected at least {_MIN_VIEWS} views to find the axis, got {len(t)}; set the offset."
        )
    check_tensor("angles", t)
    if not bool((sinogram != sinogram.flatten()[0]).any()):
        raise InputError("sinogram: all values are equal, nothing was measured; check the data.")
    return t
