"""Projectors on a CPU: compiled loops in the plane, with weights kept or computed at every call, and for cones."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inverse.operators.ct import cone_kernels, kernels
from inverse.operators.ct.joseph import PAD, Rays, paths
from inverse.operators.ct.projector import Scan
from inverse.operators.ct.vector import LANES

# Lines of pixels worked on at once: with their sums they fit the nearest cache up to about a thousand pixels.
LINES = 8


# Pieces that a thread takes one after another: one whose core is busy elsewhere delays the others by one piece at most.
PIECES = 8


def in_threads(work: Callable[[NDArray[np.int64]], Any], count: int) -> None:
    """Call work(first, last) on `count` pieces in runs, with as many threads as torch may use.

    The caller works too and does not wait for a thread that has not begun: torch's own threads go on spinning for a
    while after their work, on the very cores that these need.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        work(np.array([0, count]))
        return
    bounds = np.linspace(0, count, min(count, PIECES * threads) + 1).astype(np.int64)
    todo = iter([bounds[i : i + 2].copy() for i in range(len(bounds) - 1)])

    def take() -> None:
        for part in todo:
            work(part)

    others = [_pool(os.getpid()).submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        if not other.cancel():
            other.result()


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process, kept: starting them would cost as much as a small projection."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="projector")


class _Side:
    """Rays along one axis: which of them cross which line, and their weights where these are kept."""

    def __init__(self, rays: Rays, alpha: NDArray[np.float64], beta: NDArray[np.float64]):
        self.rays, self.alpha, self.beta = rays, alpha, beta
        self.low, self.high = kernels.crossings(alpha, beta, rays.view, rays.first, rays.last, rays.steps, rays.across)
        self.blocks = -(-rays.steps // LINES)
        self.pairs = int((self.high - self.low).sum(dtype=np.int64))
        self.kept = False
        self.table = np.empty(0, np.uint16), np.empty(0, np.float32), np.empty((0, 0), np.int64)

    def prepare(self, dtype: Any, keep: bool) -> None:
        """Make the table of weights, or an empty one."""
        size = self.pairs if keep else 0
        counts = np.zeros((self.blocks * LINES, len(self.rays.view)), np.int64)
        counts[: self.rays.steps] = (self.high - self.low).T
        blocks = counts.reshape(self.blocks, LINES, -1).sum(1)
        start = (np.cumsum(blocks) - blocks.ravel()).reshape(blocks.shape)
        self.kept, self.table = keep, (np.empty(size, np.uint16), np.empty(size, dtype), start)
        if keep:
            self._fill()

    def _fill(self) -> None:
        index, fraction, start = self.table
        runs = self.alpha, self.beta, self.rays.view, self.low, self.high, start

        def work(part: NDArray[np.int64]) -> None:
            for block in range(*part.tolist()):
                kernels.fill_table(index, fraction, *runs, LINES, block)

        in_threads(work, self.blocks)

    def run(self, kernel: Callable[..., None], x: Tensor, y: Tensor, count: int) -> None:
        """Call a kernel of the plane on equal parts of `count` pieces."""
        arrays = x.numpy(), y.numpy()
        paths_ = self.rays.view, self.low, self.high, self.alpha, self.beta
        in_threads(lambda part: kernel(*arrays, self.table, *paths_, self.kept, LINES, part), count)


class PlaneProjector:
    """Joseph's method in the plane.

    The matrix has pairs of neighbours in every row. A pair is kept as the place of its first pixel in the line (2
    bytes) and the share of the second (4 or 8): 3 bytes for an entry in single precision. One table serves both
    directions, so the adjoint is exact.

    Args:
        scan: geometry and image.
        limit: bytes that the table may take; where it does not fit, weights are computed at every call.
    """

    matched = True

    def __init__(self, scan: Scan, limit: float):
        found = paths(scan)
        self._scan = scan
        self._sides = [_Side(rays, found.alpha, found.beta) for rays in (found.along_y, found.along_x)]
        lengths = np.stack([found.length(v) for v in range(len(found.alpha))])
        self._length = torch.from_numpy(lengths).to(scan.dtype)
        self.table_bytes = sum(side.pairs for side in self._sides) * (2 + scan.dtype.itemsize)
        for side in self._sides:
            side.prepare(self._length.numpy().dtype, self.table_bytes <= limit)

    @property
    def memory_bytes(self) -> int:
        """Memory kept between calls, bytes."""
        arrays = [a for side in self._sides for a in (side.low, side.high, *side.table)]
        return sum(a.nbytes for a in arrays) + self._length.nbytes

    def forward(self, x: Tensor) -> Tensor:
        """(batch, y, x) -> (batch, views, detectors)."""
        return torch.cat([self._forward(part) for part in _portions(x)])

    def adjoint(self, y: Tensor) -> Tensor:
        """(batch, views, detectors) -> (batch, y, x)."""
        return torch.cat([self._adjoint(part) for part in _portions(y * self._length)])

    def _forward(self, x: Tensor) -> Tensor:
        lanes = 1 if len(x) == 1 else LANES
        views, columns = self._length.shape
        y = x.new_zeros(views, columns * lanes)
        kernel = kernels.forward_plane if lanes == 1 else kernels.forward_plane_batch
        image = x.permute(1, 2, 0)
        for side in self._sides:
            lines = x.new_zeros(side.rays.steps, side.rays.across + 2 * PAD, lanes)
            lines[:, PAD:-PAD, : len(x)] = image
            side.run(kernel, lines.reshape(side.rays.steps, -1), y, len(side.rays.view))
            # From the lines, where images lie side by side: much faster to transpose than x.
            image = lines[:, PAD:-PAD, : len(x)].transpose(0, 1)
        return y.reshape(views, columns, lanes)[..., : len(x)].permute(2, 0, 1) * self._length

    def _adjoint(self, y: Tensor) -> Tensor:
        count = len(y)
        lanes = 1 if count == 1 else LANES
        data = y.new_zeros(*self._length.shape, lanes)
        data[..., :count] = y.permute(1, 2, 0)
        data = data.reshape(len(self._length), -1)
        images = []
        for side in self._sides:
            shape = side.rays.steps, side.rays.across
            x = y.new_empty(shape if lanes == 1 else (*shape, LANES))
            side.run(kernels.adjoint_plane if lanes == 1 else kernels.adjoint_plane_batch, x, data, side.blocks)
            images.append(x.reshape(*shape, lanes)[..., :count])
        return (images[0] + images[1].transpose(0, 1)).permute(2, 0, 1)


class ConeProjector:
    """Joseph's method for panels; weights are computed at every call.

    Args:
        scan: geometry and image.
    """

    matched = True

    def __init__(self, scan: Scan):
        self._scan = scan
        self._paths = paths(scan)
        assert self._paths.heights is not None
        heights = self._paths.heights
        self._heights = heights.start, heights.speed, heights.height, heights.middle
        sides = (self._paths.along_y, self._paths.along_x)
        self._sides = [_Side(rays, self._paths.alpha, self._paths.beta) for rays in sides]

    @property
    def memory_bytes(self) -> int:
        """Memory kept between calls, bytes."""
        arrays = [a for side in self._sides for a in (side.low, side.high)]
        return sum(a.nbytes for a in (*arrays, self._paths.alpha, self._paths.beta, *self._heights[:2]))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, z, y, x) -> (batch, views, rows, columns)."""
        return torch.stack([self._forward(volume) for volume in x])

    def adjoint(self, y: Tensor) -> Tensor:
        """(batch, views, rows, columns) -> (batch, z, y, x)."""
        return torch.stack([self._adjoint(data) for data in y])

    def _forward(self, x: Tensor) -> Tensor:
        views, rows, columns = self._scan.geometry.shape
        y = x.new_zeros(views, columns, rows)
        lines = x.permute(1, 2, 0).contiguous().reshape(-1, len(x))
        for side in self._sides:
            self._run(cone_kernels.forward_cone, side, lines, y, len(side.rays.view))
        return self._times_length(y).transpose(1, 2).contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        nz, ny, nx = self._scan.shape
        data = self._times_length(y.transpose(1, 2).clone(memory_format=torch.contiguous_format))
        x = y.new_zeros(ny * nx, nz)
        for side in self._sides:
            self._run(cone_kernels.adjoint_cone, side, x, data, side.blocks)
        return x.reshape(ny, nx, nz).permute(2, 0, 1).contiguous()

    def _times_length(self, y: Tensor) -> Tensor:
        for v in range(len(y)):
            y[v] *= torch.from_numpy(self._paths.length(v)).to(y.dtype)
        return y

    def _run(self, kernel: Callable[..., None], side: _Side, x: Tensor, y: Tensor, count: int) -> None:
        nx = self._scan.shape[-1]
        strides = (nx, 1) if side.rays is self._paths.along_y else (1, nx)
        arrays = x.numpy(), y.numpy(), strides, side.rays.view, side.low, side.high, side.alpha, side.beta
        in_threads(lambda part: kernel(*arrays, self._heights, LINES, part), count)


def _portions(x: Tensor) -> list[Tensor]:
    """As many images at a time as the kernels take together, the last alone where one is left."""
    return list(x.split(LANES))
