"""Trajectories through k-space in radians per pixel, axes (y, x) or (z, y, x), double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive

# Between two spokes that come one after the other: 180 degrees over the golden ratio, 111.246 degrees.
GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2


def radial(spokes: int, samples: int, *, golden: bool = True, start: float = 0.0) -> Tensor:
    """Spokes through the centre of k-space.

    Args:
        spokes: number of spokes.
        samples: samples of a spoke from -pi to below pi in steps of 2 pi / samples, the centre at samples // 2;
            twice the image size is the usual readout oversampling.
        golden: each spoke turned by the golden angle, 111.246 degrees; False: evenly spread over 180 degrees.
        start: angle of the first spoke in radians, from the x axis towards y.

    Returns:
        float64 (spokes, samples, 2), (y, x).

    Raises:
        InputError: a number below 1.

    Reference: Winkelmann et al., "An optimal radial profile order based on the golden ratio for time-resolved MRI",
    IEEE TMI 26, 2007.
    """
    _check_counts(spokes=spokes, samples=samples)
    angle = start + torch.arange(spokes, dtype=torch.float64) * (GOLDEN_ANGLE if golden else math.pi / spokes)
    direction = torch.stack([torch.sin(angle), torch.cos(angle)], -1)
    return readout(samples)[:, None] * direction[:, None]


def golden_means(spokes: int, samples: int) -> Tensor:
    """Kooshball: spokes of three dimensions, spread evenly over the sphere after any number of them.

    Args:
        spokes: number of spokes.
        samples: samples of a spoke, as for `radial`.

    Returns:
        float64 (spokes, samples, 3), (z, y, x).

    Raises:
        InputError: a number below 1.

    Reference: Chan et al., "Temporal stability of adaptive 3D radial MRI using multidimensional golden means", MRM 61,
    2009, Eq. (2) and (3): the two-dimensional golden means 0.4656 and 0.6823.
    """
    _check_counts(spokes=spokes, samples=samples)
    # 1 / v and 1 / v^2 of the real root v of v^3 = v^2 + 1.
    first, second = 0.46557123187676802665, 0.68232780382801932737
    m = torch.arange(spokes, dtype=torch.float64)
    height = torch.remainder(m * first, 1)  # half of the sphere: a spoke has two ends
    angle = 2 * math.pi * torch.remainder(m * second, 1)
    radius = torch.sqrt(1 - height.square())
    direction = torch.stack([height, radius * torch.sin(angle), radius * torch.cos(angle)], -1)
    return readout(samples)[:, None] * direction[:, None]


def spiral(interleaves: int, samples: int, *, turns: float, variable_density: float = 1.0) -> Tensor:
    """Spirals from the centre to the edge of k-space, turned against each other by 360 degrees over their number.

    |k| = pi t^a and an angle of 2 pi turns t, t the time from 0 to 1: the arc between samples grows outwards.

    Args:
        interleaves: number of spirals.
        samples: samples of each.
        turns: how often each goes around. An image of n pixels is sampled fully by n / 2 turns over all interleaves.
        variable_density: the exponent a; 1 (default) for arms at equal distances, more for a denser centre.

    Returns:
        float64 (interleaves, samples, 2), (y, x).

    Raises:
        InputError: a number below 1, turns or variable_density not positive.
    """
    _check_counts(interleaves=interleaves, samples=samples)
    for name, value in (("turns", turns), ("variable_density", variable_density)):
        check_positive(name, value)
    # Root of time: about equal arcs between samples, as the slew rate of a real gradient would have it.
    t = torch.linspace(0, 1, samples, dtype=torch.float64).sqrt()
    start = torch.arange(interleaves, dtype=torch.float64)[:, None] * (2 * math.pi / interleaves)
    angle = start + 2 * math.pi * turns * t
    return (math.pi * t**variable_density)[:, None] * torch.stack([torch.sin(angle), torch.cos(angle)], -1)


def stack_of_stars(partitions: int, spokes: int, samples: int, *, golden: bool = True, turn: bool = False) -> Tensor:
    """Radial spokes in planes of k-space, one plane for each Cartesian step along z.

    Args:
        partitions: planes, kz = -pi ... below pi, kz = 0 at partitions // 2.
        spokes: spokes of each plane.
        samples: samples of a spoke, as for `radial`.
        golden: as for `radial`.
        turn: planes turned against each other, by the golden angle over their number; False: all planes alike.

    Returns:
        float64 (partitions, spokes, samples, 3), (z, y, x).

    Raises:
        InputError: a number below 1.
    """
    _check_counts(partitions=partitions, spokes=spokes, samples=samples)
    step = GOLDEN_ANGLE / partitions if turn else 0.0
    planes = torch.stack([radial(spokes, samples, golden=golden, start=i * step) for i in range(partitions)])
    z = readout(partitions)[:, None, None, None].expand(*planes.shape[:-1], 1)
    return torch.cat([z, planes], -1)


def cartesian(shape: Sequence[int]) -> Tensor:
    """All points of the Cartesian grid: what the centred Fourier transform of an image of `shape` samples.

    Args:
        shape: (y, x) or (z, y, x).

    Returns:
        float64 (*shape, axes).

    Raises:
        InputError: a number below 1.
    """
    for n in shape:
        _check_counts(shape=n)
    return torch.stack(torch.meshgrid(*(readout(n) for n in shape), indexing="ij"), -1)


def readout(samples: int) -> Tensor:
    """2 pi (i - samples // 2) / samples: evenly spaced, the centre of k-space at samples // 2."""
    return (torch.arange(samples, dtype=torch.float64) - samples // 2) * (2 * math.pi / samples)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise InputError(f"{name}: expected a whole number of at least 1, got {count!r}.")
