"""Pixel-driven back-projection: every pixel takes the value that lies behind it in each view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.operators.ct.geometry import ConeBeam, FanBeam, ParallelBeam, frame
from inverse.operators.ct.threads import in_threads

Beam = ParallelBeam | FanBeam | ConeBeam


def backproject(geometry: Beam, q: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """Sum over the views of the filtered values behind every pixel, linearly interpolated, 0 beyond the detector.

    Rays of a source are weighted by the distance L from the source along the central ray: (source_distance / L)^2 on
    a flat detector, source_distance / (distance of pixel and source)^2 on an arc. On a CPU the loops are compiled;
    elsewhere, and where a gradient is wanted, they are operations on whole images.

    Args:
        geometry: the scan.
        q: (batch, *geometry.shape), filtered and weighted, float32 or float64.
        axes: equally spaced coordinates of the pixels along (y, x) or (z, y, x), mm, from the rotation axis, float64.

    Returns:
        (batch, y, x) or (batch, z, y, x), dtype of q.
    """
    q = torch.nn.functional.pad(q, (1, 1, 1, 1) if isinstance(geometry, ConeBeam) else (1, 1))
    if q.device.type == "cpu" and not q.requires_grad:
        return _compiled(geometry, q, axes)
    return _vectorised(geometry, q, axes)


def _compiled(geometry: Beam, q: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """The loops of `gather`, lines of the image shared among threads."""
    from inverse.operators.ct import gather  # here, because numba takes a while to import

    y, x = axes[-2:]
    u, d = frame(geometry.angles)
    step = float(x[1] - x[0]) if len(x) > 1 else 0.0
    s = torch.stack([x[0] * u[:, 1], u[:, 0], step * u[:, 1]], 1)
    depth = torch.stack([x[0] * d[:, 1], d[:, 0], step * d[:, 1]], 1)
    factor = 1.0
    origin = 1 - float(geometry.positions[0]) / _spacing(geometry)
    if isinstance(geometry, ParallelBeam):
        kind, scale = gather.PARALLEL, 1 / geometry.spacing
    else:
        depth[:, 0] += geometry.source_distance
        kind, scale = gather.ARC, geometry.reach / _spacing(geometry)
        factor = geometry.source_distance
        if isinstance(geometry, ConeBeam) or not geometry.curved:
            kind, factor = gather.FLAT, geometry.source_distance**2
    rows, aside, ahead = y.numpy(), s.numpy(), depth.numpy()
    if not isinstance(geometry, ConeBeam):
        out = q.new_zeros(len(q), len(y), len(x))
        image, data = out.numpy(), q.contiguous().numpy()
        arguments = image, data, kind, rows, aside, ahead, scale, origin
        in_threads(lambda part: gather.gather_plane(*arguments, *part), len(y))
        return out.mul_(factor)
    z = axes[0]
    up = torch.stack([z[0], z[1] - z[0] if len(z) > 1 else torch.ones_like(z[0])]).numpy()
    scale_z = geometry.reach / geometry.spacing[0]
    origin_z = 1 - float(geometry.row_positions[0]) / geometry.spacing[0]
    out = q.new_zeros(len(q), len(y), len(x), len(z))
    image, data = out.numpy(), q.transpose(-1, -2).contiguous().numpy()
    panels = image, data, rows, up, aside, ahead, scale, origin, scale_z, origin_z
    in_threads(lambda part: gather.gather_cone(*panels, *part), len(y))
    return out.permute(0, 3, 1, 2).mul(factor)


def _vectorised(geometry: Beam, q: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """View after view, as operations on whole images."""
    y, x = (axis.to(q.device) for axis in axes[-2:])
    shape = tuple(len(axis) for axis in axes)
    out = q.new_zeros(q.shape[0], *shape)
    across, along = (v.tolist() for v in frame(geometry.angles))
    for view, (u, d) in enumerate(zip(across, along, strict=True)):
        s = y[:, None] * u[0] + x * u[1]
        column, near, weight = _behind(geometry, s, y[:, None] * d[0] + x * d[1])
        if isinstance(geometry, ConeBeam):
            value = _take_panel(geometry, q[:, view], column, near, axes[0].tolist())
        else:
            value = _take(q[:, view], *_split(column, q.shape[-1]))
        out = out + value * weight.to(q.dtype)
    return out


def _behind(geometry: Beam, s: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the ray through a pixel meets the detector, in elements; magnification there; weight of the distance."""
    first, spacing = float(geometry.positions[0]), _spacing(geometry)
    one = torch.ones((), device=s.device, dtype=s.dtype)
    if isinstance(geometry, ParallelBeam):
        return (s - first) / spacing, one, one
    source = geometry.source_distance
    distance = depth + source
    if isinstance(geometry, FanBeam) and geometry.curved:
        u = geometry.reach * torch.atan2(s, distance)
        return (u - first) / spacing, one, source / (s.square() + distance.square())
    near = geometry.reach / distance
    return (s * near - first) / spacing, near, (source / distance).square()


def _spacing(geometry: Beam) -> float:
    return geometry.spacing[1] if isinstance(geometry, ConeBeam) else geometry.spacing


def _split(place: Tensor, padded: int) -> tuple[Tensor, Tensor]:
    """Element below a place, counted in the padded detector, and the fraction above it."""
    place = (place + 1).clamp(0, padded - 1)
    below = place.long().clamp_max(padded - 2)
    return below, place - below


def _take(rows: Tensor, below: Tensor, fraction: Tensor) -> Tensor:
    """Values of the rows (batch, elements) at the places, linearly interpolated."""
    index = below.flatten()
    low, high = (rows.index_select(1, i).view(-1, *below.shape) for i in (index, index + 1))
    return torch.lerp(low, high, fraction.to(rows.dtype))


def _take_panel(geometry: ConeBeam, panel: Tensor, column: Tensor, near: Tensor, heights: Sequence[float]) -> Tensor:
    """Values of a padded panel (batch, rows, columns) behind the pixels (z, y, x)."""
    first, spacing = float(geometry.row_positions[0]), geometry.spacing[0]
    rows, width = panel.shape[-2:]
    left, across = _split(column, width)
    flat = panel.flatten(1)
    slices = []
    for z in heights:
        below, upward = _split((z * near - first) / spacing, rows)
        low, high = (_take(flat, (below + shift) * width + left, across) for shift in (0, 1))
        slices.append(torch.lerp(low, high, upward.to(panel.dtype)))
    return torch.stack(slices, 1)
