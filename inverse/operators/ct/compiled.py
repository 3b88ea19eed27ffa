"""Projectors on a CPU: compiled loops in the plane, with weights kept or computed at every call, and for cones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inverse.operators.ct import cone_kernels, kernels
from inverse.operators.ct.joseph import PAD, Rays, paths
from inverse.operators.ct.projector import Scan
from inverse.operators.ct.threads import in_threads
from inverse.operators.ct.vector import LANES

# Lines of pixels worked on at once: with their sums they fit the nearest cache up to about a thousand pixels.
LINES = 8


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

    def run(self, kernel: Callable[..., None], x: NDArray[Any], y: NDArray[Any], count: int) -> None:
        """Call a kernel of the plane on all of `count` pieces."""
        paths_ = self.rays.view, self.low, self.high, self.alpha, self.beta
        in_threads(lambda part: kernel(x, y, self.table, *paths_, self.kept, LINES, part), count)


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
        return _joined([self._forward(part) for part in _portions(x.numpy())])

    def adjoint(self, y: Tensor) -> Tensor:
        """(batch, views, detectors) -> (batch, y, x)."""
        return _joined([self._adjoint(part) for part in _portions(y.numpy() * self._length.numpy())])

    # In numpy, whose loops run on one thread: torch's would wait for a busy core at each of these small steps.

    def _forward(self, x: NDArray[Any]) -> NDArray[Any]:
        lanes = 1 if len(x) == 1 else LANES
        views, columns = self._length.shape
        y = np.zeros((views, columns * lanes), x.dtype)
        kernel = kernels.forward_plane if lanes == 1 else kernels.forward_plane_batch
        image = x.transpose(1, 2, 0)
        for side in self._sides:
            lines = np.zeros((side.rays.steps, side.rays.across + 2 * PAD, lanes), x.dtype)
            lines[:, PAD:-PAD, : len(x)] = image
            side.run(kernel, lines.reshape(side.rays.steps, -1), y, len(side.rays.view))
            # From the lines, where images lie side by side: much faster to transpose than x.
            image = lines[:, PAD:-PAD, : len(x)].transpose(1, 0, 2)
        return y.reshape(views, columns, lanes)[..., : len(x)].transpose(2, 0, 1) * self._length.numpy()

    def _adjoint(self, y: NDArray[Any]) -> NDArray[Any]:
        count = len(y)
        lanes = 1 if count == 1 else LANES
        data = np.zeros((*self._length.shape, lanes), y.dtype)
        data[..., :count] = y.transpose(1, 2, 0)
        data = data.reshape(len(self._length), -1)
        images = []
        for side in self._sides:
            shape = side.rays.steps, side.rays.across
            x = np.empty(shape if lanes == 1 else (*shape, LANES), y.dtype)
            side.run(kernels.adjoint_plane if lanes == 1 else kernels.adjoint_plane_batch, x, data, side.blocks)
            images.append(x.reshape(*shape, lanes)[..., :count])
        return (images[0] + images[1].transpose(1, 0, 2)).transpose(2, 0, 1)


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


def _portions(x: NDArray[Any]) -> list[NDArray[Any]]:
    """As many images at a time as the kernels take together, the last alone where one is left."""
    return [x[i : i + LANES] for i in range(0, len(x), LANES)]


def _joined(parts: list[NDArray[Any]]) -> Tensor:
    """The batch of all parts, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts)))
