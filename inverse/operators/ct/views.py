"""How much every ray counts in filtered back-projection: spacing of the angles, and lines measured twice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.operators.ct.geometry import ConeBeam, FanBeam, ParallelBeam

# Angles closer than this are the same view.
_SAME = 1e-6


def angular_gaps(angles: Sequence[float] | Tensor, period: float) -> tuple[Tensor, Tensor, float]:
    """Views in the order of their angles, and how far it is from each to the next on the circle.

    A gap of more than twice the next largest is a part that was not scanned. It counts as the next largest: views at
    its edges weigh no more than others.

    Args:
        angles: radians, any order, repeated ones allowed.
        period: circumference, pi where opposite views are the same lines, else 2 pi.

    Returns:
        order (views,) int64: of the view after the gap that was not scanned first;
        gaps (views,) float64: from view order[i] to the next, summing to the part scanned;
        missing: what was not scanned, 0 where there is no such gap.
    """
    t = torch.as_tensor(angles, dtype=torch.float64).remainder(period)
    order = t.argsort()
    gaps = torch.cat([t[order].diff(), (t[order[:1]] + period - t[order[-1:]])])
    last = int(gaps.argmax())
    order, gaps = order.roll(-1 - last), gaps.roll(-1 - last)
    others = gaps[:-1][gaps[:-1] > _SAME]
    missing = 0.0
    if len(others) and float(gaps[-1]) > 2 * float(others.max()):
        missing = float(gaps[-1])
        gaps[-1] = others.max()
    return order, gaps, missing


def angular_weights(angles: Sequence[float] | Tensor, period: float) -> Tensor:
    """Weights of the trapezoidal rule over the angles, in radians, in the order given; see `angular_gaps`."""
    order, gaps, _ = angular_gaps(angles, period)
    weights = torch.empty_like(gaps)
    weights[order] = (gaps + gaps.roll(1)) / 2
    return weights


def ray_weights(geometry: ParallelBeam | FanBeam | ConeBeam) -> Tensor:
    """Weight of every ray of the plane of the orbit: its share of the angles, and of the rays along the same line.

    Parallel rays are measured once in half a turn. Rays of a source are measured twice in a full turn and count half
    each; after less they get Parker's smooth weights, with the overscan (scanned - pi) / 2 in the place of half the
    fan angle. Rays outside of that angle get the weights of its edge: exact where the object lies within
    source_distance sin((scanned - pi) / 2) of the axis. After less than half a turn no line counts twice.

    Returns:
        (views, 1) or (views, columns) float64, in radians.

    Reference: Parker, "Optimal short scan convolution reconstruction for fanbeam CT", 1982; Silver, "A
    method for including redundant data in computed tomography", 2000 (overscan).
    """
    if isinstance(geometry, ParallelBeam):
        return angular_weights(geometry.angles, math.pi)[:, None]
    period = 2 * math.pi
    weights = angular_weights(geometry.angles, period)[:, None]
    order, _, missing = angular_gaps(geometry.angles, period)
    if not missing:
        return weights / 2
    overscan = (math.pi - missing) / 2
    if overscan <= 0:
        return weights
    angles = torch.tensor(geometry.angles, dtype=torch.float64)
    since = (angles - angles[order[0]]).remainder(period)[:, None]
    # An angle just below the first wraps to nearly a full turn: it is the first.
    since = torch.where(since > period - _SAME, 0.0, since)
    return weights * parker_weights(since, fan_angles(geometry), overscan)


def fan_angles(geometry: FanBeam | ConeBeam) -> Tensor:
    """Angle of the rays to every column from the central one, radians, float64 (columns,)."""
    gamma = geometry.positions / geometry.reach
    return gamma if isinstance(geometry, FanBeam) and geometry.curved else torch.atan(gamma)


def parker_weights(since: Tensor, gamma: Tensor, overscan: float) -> Tensor:
    """Parker's weights for a scan of pi + 2 overscan: those of the two rays of a line sum to 1.

    The ray at angle t and fan angle gamma runs along that at t + pi - 2 gamma and -gamma.

    Args:
        since: angle since the first view, radians, broadcasts with gamma.
        gamma: fan angle, radians.
        overscan: half of what was scanned beyond half a turn, radians.

    Returns:
        Weights in [0, 1].
    """
    gamma = gamma.clamp(-overscan, overscan)
    tiny = 1e-12  # at the edge of the fan a ramp has no width
    rising = since / (overscan + gamma).clamp_min(tiny)
    falling = (math.pi + 2 * overscan - since) / (overscan - gamma).clamp_min(tiny)
    return torch.sin(math.pi / 4 * torch.minimum(rising, falling).clamp(0, 2)).square()
