"""Incident photons from rays that met nothing but air."""

from __future__ import annotations

import torch
from torch import Tensor

AIR = 0.02  # of the largest line integral: the mean over `WIDTH` elements of rays through air
WIDTH = 9
MIN_RAYS = 200
MEDIAN = 0.6745  # median of |n| for normal n of variance 1


def photons_of_air(y: Tensor) -> float | None:
    """Incident photons per ray, from the scatter of line integrals that should be 0.

    Where the mean of nine neighbouring elements is below 2 % of the largest line integral, differences of neighbours
    show the noise alone, with variance 2 / N0. Their median is taken, so that the rim of the object does not matter.

    Args:
        y: line integrals (*batch, ..., detectors).

    Returns:
        N0, common to all of y; None where fewer than 200 rays went through air or they have no noise.
    """
    rows = y.detach().reshape(-1, 1, y.shape[-1]).double()
    if rows.shape[-1] < WIDTH or not rows.numel():
        return None
    largest = torch.quantile(rows.flatten()[:: max(1, rows.numel() // 1_000_000)], 0.999)
    smooth = torch.nn.functional.avg_pool1d(rows, WIDTH, 1)[:, 0]
    middle = rows[:, 0, WIDTH // 2 : rows.shape[-1] - WIDTH // 2]
    steps = (middle[:, 1:] - middle[:, :-1])[
        (smooth[:, 1:].abs() < AIR * largest) & (smooth[:, :-1].abs() < AIR * largest)
    ]
    if len(steps) < MIN_RAYS:
        return None
    std = float(steps.abs().median()) / MEDIAN
    # Rounding in single precision is no noise.
    return 2 / std**2 if std > 1e-6 * float(largest) else None
