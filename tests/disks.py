"""Disks and balls: their exact line integrals, and where they are in an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.operators.ct import ConeBeam, FanBeam, ParallelBeam
from inverse.operators.ct.geometry import element_positions


def disk_integrals(
    geometry: ParallelBeam | FanBeam | ConeBeam,
    centre: Sequence[float],
    radius: float,
    value: float,
    axis: Sequence[float] = (0.0, 0.0),
) -> Tensor:
    """Length of every ray in a disk or ball times its value, float64; lengths in mm, axes (y, x) or (z, y, x)."""
    point, direction = geometry.rays()
    direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    shift = torch.tensor((0.0, *axis)[-len(centre) :], dtype=torch.float64)
    to_centre = torch.tensor(centre, dtype=torch.float64) - shift - point
    along = (to_centre * direction).sum(-1)
    apart = to_centre.square().sum(-1) - along.square()
    return 2 * value * (radius**2 - apart).clamp_min(0).sqrt()


def distances(shape: Sequence[int], pixel: float, centre: Sequence[float]) -> Tensor:
    """Distance of every pixel from a point, mm."""
    axes = [element_positions(n, pixel, -c) for n, c in zip(shape, centre, strict=True)]
    return sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")).sqrt()
