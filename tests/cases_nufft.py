"""Rows of the property tests: non-Cartesian MRI, small and in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from operator_cases import randn
from torch import Tensor

from inverse.data.trajectories import golden_means, radial, spiral, stack_of_stars
from inverse.operators.base import LinearOperator
from inverse.operators.noncartesian import NonCartesianMRI
from inverse.operators.nufft import NUFFT


def anywhere(*samples: int, axes: int = 2, seed: int = 0) -> Tensor:
    """Places drawn evenly from all of k-space."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(*samples, axes, generator=generator, dtype=torch.float64) - 1) * math.pi


def double(trajectory: Tensor, *shape: int) -> NUFFT:
    return NUFFT(trajectory, shape, dtype=torch.complex128)


def cropped(*shape: int) -> Tensor:
    maps = randn(*shape)
    maps[..., 0, :] = 0
    return maps


CASES: dict[str, Callable[[], LinearOperator]] = {
    "transform even": lambda: double(anywhere(13), 6, 8),
    "transform odd": lambda: double(anywhere(5, 4), 7, 5),
    "transform of one pixel": lambda: double(anywhere(3), 1, 1),
    "transform of one line": lambda: double(anywhere(4), 1, 5),
    "transform of one sample": lambda: double(anywhere(1), 5, 4),
    "transform of the origin, repeated": lambda: double(torch.zeros(2, 3, 2), 4, 3),
    "transform of a volume": lambda: double(anywhere(7, axes=3), 3, 4, 5),
    "radial": lambda: NonCartesianMRI(randn(3, 6, 7), radial(3, 8)),
    "radial with its density": lambda: NonCartesianMRI(randn(2, 6, 6), radial(3, 8), density=torch.rand(3, 8) + 0.1),
    "spiral": lambda: NonCartesianMRI(randn(2, 7, 6), spiral(2, 11, turns=1.5)),
    "cropped maps": lambda: NonCartesianMRI(cropped(2, 6, 5), radial(3, 8)),
    "one coil": lambda: NonCartesianMRI(randn(1, 5, 5), anywhere(9)),
    "kooshball": lambda: NonCartesianMRI(randn(2, 3, 4, 3), golden_means(3, 6)),
    "stack of stars": lambda: NonCartesianMRI(cropped(2, 3, 4, 4), stack_of_stars(2, 2, 6)),
}
