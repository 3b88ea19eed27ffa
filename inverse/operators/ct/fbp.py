"""Filtered back-projection for parallel and fan beams, and that of Feldkamp, Davis and Kress for cone beams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inverse.operators.ct.backproject import backproject
from inverse.operators.ct.filters import apply_filter, ramp_response
from inverse.operators.ct.geometry import ConeBeam, FanBeam, ParallelBeam, element_positions
from inverse.operators.ct.views import fan_angles, ray_weights

if TYPE_CHECKING:
    from inverse.operators.ct.operator import CT


def fbp(operator: CT, y: Tensor, filter: str = "ram-lak") -> Tensor:
    """Filtered back-projection: an image in 1/mm from line integrals.

    Any list of angles: views are weighted by their distance to the next ones, so that irregular ones do not count
    double and views at the edge of a limited arc do not blow up. Lines that a source sees twice are shared (full
    scan: half each, less: Parker's weights). Detector offset and rotation axis are taken exactly; the object has to lie
    within the detector on both sides, in every view.

    Args:
        operator: the scan, for its geometry, pixel, shape and centre.
        y: line integrals (*batch, *operator.out_shape).
        filter: "ram-lak", "shepp-logan", "cosine", "hamming" or "hann": each but the first trades resolution for less
            noise, in this order.

    Returns:
        (*batch, *operator.in_shape), 1/mm, dtype of y. A disk of 20 mm radius comes out right to 0.1 % in its middle
        (180 views, 1 mm elements and pixels, whole or short scan, each of the beams), where no angle is missing.

    Raises:
        InputError: an unknown filter, or y does not fit.

    Reference: Kak and Slaney, "Principles of Computerized Tomographic Imaging", 1988, sections 3.3 and 3.4; Feldkamp,
    Davis and Kress, "Practical cone-beam algorithm", 1984.
    """
    y = operator._checked("y", y, operator.out_shape, operator.out_dtype)
    batch, shape = y.shape[: y.ndim - len(operator.out_shape)], operator.in_shape
    filtered = filter_views(operator.geometry, y.reshape(math.prod(batch), *operator.out_shape), filter)
    axis = (0.0, *operator.centre)[-len(shape) :]  # the orbit of a cone beam is in the middle of the volume
    axes = [element_positions(n, operator.pixel, -middle) for n, middle in zip(shape, axis, strict=True)]
    return backproject(operator.geometry, filtered, axes).reshape(*batch, *shape)


def filter_views(geometry: ParallelBeam | FanBeam | ConeBeam, y: Tensor, filter: str) -> Tensor:
    """Weigh every ray and filter along the detector.

    Args:
        geometry: the scan.
        y: line integrals (..., *geometry.shape).
        filter: see `fbp`.

    Returns:
        (..., *geometry.shape), ready for `backproject`.
    """
    weights, columns = ray_weights(geometry), geometry.shape[-1]
    if isinstance(geometry, ParallelBeam):
        return apply_filter(y * weights.to(y), ramp_response(filter, columns, geometry.spacing))
    if isinstance(geometry, FanBeam) and geometry.curved:
        response = ramp_response(filter, columns, geometry.spacing / geometry.reach, equiangular=True)
        return apply_filter(y * (weights * torch.cos(fan_angles(geometry))).to(y), response)
    # A flat detector is filtered as if it stood in the axis, where it is smaller.
    shrink = geometry.source_distance / geometry.reach
    if isinstance(geometry, ConeBeam):
        spacing, rows, weights = geometry.spacing[1], geometry.row_positions[:, None], weights[:, None]
    else:
        spacing, rows = geometry.spacing, torch.zeros((), dtype=torch.float64)
    cosine = geometry.reach / (geometry.reach**2 + geometry.positions.square() + rows.square()).sqrt()
    return apply_filter(y * (weights * cosine).to(y), ramp_response(filter, columns, spacing * shrink))
