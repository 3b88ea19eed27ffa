"""Joseph's method as numbers: for every ray the axis it steps along and where it crosses each line of pixels.

A ray steps along the image axis that it is closest to (of y and x). At step k it crosses line k of pixels at
p = alpha + beta k and takes (1 - f) of pixel floor(p) and f = p - floor(p) of the next; the image is 0 outside. The
sum is multiplied by the length of ray per step. Rays of one detector column of a panel share this path in the plane;
along z they are at (start + speed k) height + middle, interpolated in the same way.

Reference: Joseph, "An improved algorithm for reprojecting rays through pixel images", 1982.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inverse.operators.ct.geometry import ConeBeam
from inverse.operators.ct.projector import Scan

# Places are counted from one pixel before the image, so that they are not negative where a ray crosses it.
PAD = 1
Floats = NDArray[np.float64]
Counts = NDArray[np.int32]


@dataclass(frozen=True)
class Rays:
    """Rays that step along the same axis, in runs of neighbours of one view.

    Attributes:
        view, first, last: of every run: its view and its detector elements first ... last - 1, int64 (runs,).
        steps: pixels along the axis of the steps.
        across: pixels along the other axis.
    """

    view: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    steps: int
    across: int


@dataclass(frozen=True)
class Heights:
    """Where rays of a panel are along z at step k: middle + height (start + speed k), in pixels and with PAD.

    Attributes:
        start, speed: float64 (views, columns).
        height: of every row of the panel, float64 (rows,).
        middle: z of the source.
        pixels: number of pixels along z.
    """

    start: Floats
    speed: Floats
    height: Floats
    middle: float
    pixels: int


@dataclass(frozen=True)
class Paths:
    """All rays of a scan.

    Attributes:
        along_y, along_x: rays that step along y, and along x.
        alpha, beta: float64 (views, columns); alpha includes PAD.
        pixel: edge of a pixel, mm.
        heights: None in the plane.
    """

    along_y: Rays
    along_x: Rays
    alpha: Floats
    beta: Floats
    pixel: float
    heights: Heights | None

    def length(self, view: int) -> Floats:
        """Length of ray per step, mm, (columns,) or (columns, rows)."""
        square = 1 + self.beta[view] ** 2
        if self.heights is not None:
            square = square[:, None] + (self.heights.speed[view][:, None] * self.heights.height) ** 2
        return self.pixel * np.sqrt(square)


def paths(scan: Scan) -> Paths:
    """Where all rays of a scan cross the lines of pixels.

    Args:
        scan: geometry and image.

    Returns:
        Paths.
    """
    origin, direction = _plane_rays(scan)
    o, d = origin / scan.pixel, direction / scan.pixel
    size, centre = (torch.tensor(v, dtype=torch.float64) for v in (scan.shape[-2:], scan.centre))
    middle = (size - 1) / 2 + centre / scan.pixel
    along_x = d[..., 1].abs() > d[..., 0].abs()
    # The axis of the steps, and the other one.
    o_step, o_across = (torch.where(along_x, o[..., 1 - k], o[..., k]) for k in (0, 1))
    d_step, d_across = (torch.where(along_x, d[..., 1 - k], d[..., k]) for k in (0, 1))
    m_step, m_across = (torch.where(along_x, middle[1 - k], middle[k]) for k in (0, 1))
    beta = d_across / d_step
    alpha = m_across + o_across - beta * (m_step + o_step) + PAD
    heights = None
    if isinstance(scan.geometry, ConeBeam):
        nz = scan.shape[0]
        speed = 1 / d_step
        heights = Heights(
            start=(-(m_step + o_step) * speed).numpy(),
            speed=speed.numpy(),
            height=(scan.geometry.row_positions / scan.pixel).numpy(),
            middle=(nz - 1) / 2 + PAD,
            pixels=nz,
        )
    ny, nx = scan.shape[-2:]
    return Paths(
        along_y=Rays(*_runs(~along_x.numpy()), ny, nx),
        along_x=Rays(*_runs(along_x.numpy()), nx, ny),
        alpha=alpha.contiguous().numpy(),
        beta=beta.contiguous().numpy(),
        pixel=scan.pixel,
        heights=heights,
    )


def _plane_rays(scan: Scan) -> tuple[Tensor, Tensor]:
    """Origins and directions in the plane of the orbit, (y, x) in mm, both float64 (views, columns, 2)."""
    views = []
    for i in range(len(scan.geometry.angles)):  # one by one: the rays of a panel are many
        origin, direction = scan.geometry.rays(slice(i, i + 1))
        if len(scan.shape) == 3:
            origin, direction = origin[:, 0, :, 1:], direction[:, 0, :, 1:]
        views.append(torch.broadcast_tensors(origin, direction))
    origins, directions = zip(*views, strict=True)
    columns = scan.geometry.shape[-1]
    return tuple(torch.cat(v).expand(-1, columns, -1) for v in (origins, directions))  # type: ignore[return-value]


def _runs(member: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """View, first and last of all runs of True along the second axis."""
    padded = np.pad(member, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(padded, axis=1)
    view, first = np.nonzero(change == 1)
    _, last = np.nonzero(change == -1)
    return view.astype(np.int64), first.astype(np.int64), last.astype(np.int64)


def misses_image(scan: Scan) -> bool:
    """Whether no ray of the scan meets the image."""
    sizes, axes = scan.shape, len(scan.shape)
    middle = (0.0, *scan.centre)[-axes:]
    low = torch.tensor([-n / 2 * scan.pixel - c for n, c in zip(sizes, middle, strict=True)], dtype=torch.float64)
    high = low + torch.tensor(sizes, dtype=torch.float64) * scan.pixel
    for i in range(len(scan.geometry.angles)):
        origin, direction = scan.geometry.rays(slice(i, i + 1))
        # Where the ray is between the two planes of each axis; a ray parallel to them is there always or never.
        d = torch.where(direction.abs() < 1e-12, 1e-12, direction)
        a, b = (low - origin) / d, (high - origin) / d
        if bool((torch.minimum(a, b).amax(-1) < torch.maximum(a, b).amin(-1)).any()):
            return False
    return True


def reaches_source(scan: Scan, source_distance: float) -> bool:
    """Whether a corner of the image lies as far as the source or behind it in a view."""
    ny, nx = scan.shape[-2:]
    corners = torch.tensor(
        [[(i * ny / 2) * scan.pixel - scan.centre[0], (j * nx / 2) * scan.pixel - scan.centre[1]]
         for i in (-1, 1) for j in (-1, 1)], dtype=torch.float64
    )  # fmt: skip
    t = torch.tensor(scan.geometry.angles, dtype=torch.float64)
    towards_source = torch.stack([-torch.cos(t), torch.sin(t)], -1)
    return float((corners @ towards_source.T).max()) >= source_distance
