"""Projector in torch operations, a block of rays at a time: for any device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inverse.operators.ct.joseph import PAD, Rays, paths
from inverse.operators.ct.projector import Scan

# Interpolations made at once, for all images together: what the caches hold on a CPU, a bound on memory elsewhere.
_SIZE = {"cpu": 2**18}
_SIZE_DEVICE = 2**25
_MARGIN = 2 * PAD + 1  # places that are clamped behind the image read pixel and next pixel of the padding


class _Block(NamedTuple):
    """Some rays: their number among all, place (rays, steps) of the first pixel of a pair, share of the second."""

    rays: Tensor
    place: Tensor
    share: Tensor


class BlockProjector:
    """Joseph's method by indexed reads and sums of whole tensors.

    Args:
        scan: geometry and image.
    """

    matched = True

    def __init__(self, scan: Scan):
        found = paths(scan)
        self._scan, self._paths = scan, found
        self._alpha, self._beta = (torch.from_numpy(v).flatten().to(scan.device) for v in (found.alpha, found.beta))
        columns = found.alpha.shape[1]
        self._sides = [(rays, _members(rays, columns).to(scan.device)) for rays in (found.along_y, found.along_x)]
        lengths = np.stack([found.length(v) for v in range(len(found.alpha))])
        self._length = torch.from_numpy(lengths).to(scan.device, scan.dtype).flatten(0, 1)

    @property
    def memory_bytes(self) -> int:
        """Memory kept between calls, bytes."""
        tensors = self._alpha, self._beta, self._length, *(members for _, members in self._sides)
        return sum(tensor.nbytes for tensor in tensors)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *image) -> (batch, *data)."""
        y = x.new_zeros(len(x), *self._length.shape)
        for rays, members in self._sides:
            lines = self._lines(rays, x, filled=True)
            for block in self._blocks(rays, members, len(x)):
                first, second = lines[:, block.place], lines[:, block.place + 1]
                share = block.share[..., None]
                mixed = first + share * (second - first)
                y[:, block.rays] = self._read(mixed, rays, block.rays)
        return self._as_data(y * self._length)

    def adjoint(self, y: Tensor) -> Tensor:
        """(batch, *data) -> (batch, *image)."""
        data = self._from_data(y) * self._length
        images = []
        for rays, members in self._sides:
            lines = self._lines(rays, y, filled=False)
            for block in self._blocks(rays, members, len(y)):
                mixed = self._spread(data[:, block.rays], rays, block.rays)
                share = block.share[..., None]
                second = share * mixed
                places = block.place.flatten()[:, None].expand(len(y), -1, lines.shape[-1])
                lines.scatter_add_(1, places, (mixed - second).flatten(1, 2))
                lines.scatter_add_(1, places + 1, second.flatten(1, 2))
            grid = lines.reshape(len(y), rays.steps, rays.across + _MARGIN, -1)[:, :, PAD : PAD + rays.across]
            images.append(grid if rays is self._paths.along_y else grid.transpose(1, 2))
        return self._as_image(images[0] + images[1])

    def _blocks(self, rays: Rays, members: Tensor, batch: int) -> Iterator[_Block]:
        limit = _SIZE.get(self._scan.device.type, _SIZE_DEVICE)
        depth = self._length[0].numel() + (self._scan.shape[0] if self._paths.heights else 0)
        k = torch.arange(rays.steps, device=members.device)
        for part in members.split(max(1, limit // (batch * rays.steps * depth))):
            p = (self._alpha[part, None] + self._beta[part, None] * k).clamp_(0, rays.across + PAD)
            j = p.long()
            yield _Block(part, j + k * (rays.across + _MARGIN), (p - j).to(self._scan.dtype))

    def _lines(self, rays: Rays, x: Tensor, *, filled: bool) -> Tensor:
        """Lines along the steps one after another, (batch, steps (across + margin), z or 1): those of x, or zeros."""
        nz = self._scan.shape[0] if self._paths.heights else 1
        lines = x.new_zeros(len(x), rays.steps, rays.across + _MARGIN, nz)
        if filled:
            grid = x.movedim(1, -1) if self._paths.heights else x[..., None]
            lines[:, :, PAD : PAD + rays.across] = grid if rays is self._paths.along_y else grid.transpose(1, 2)
        return lines.flatten(1, 2)

    def _rows(self, rays: Rays, members: Tensor) -> tuple[Tensor, Tensor]:
        """Voxel along z and share of the next, (rays, steps, rows)."""
        heights = self._paths.heights
        assert heights is not None
        device = members.device
        start, speed = (torch.from_numpy(v).flatten().to(device)[members, None] for v in (heights.start, heights.speed))
        magnification = start + speed * torch.arange(rays.steps, device=device)
        p = heights.middle + torch.from_numpy(heights.height).to(device) * magnification[..., None]
        p = p.clamp_(0, heights.pixels + PAD)
        j = p.long()
        return j, (p - j).to(self._scan.dtype)

    def _read(self, mixed: Tensor, rays: Rays, members: Tensor) -> Tensor:
        """Sum over the steps: (batch, rays, steps, z or 1) -> (batch, rays) or (batch, rays, rows)."""
        if self._paths.heights is None:
            return mixed.sum((-2, -1))
        index, share = self._rows(rays, members)
        padded = torch.nn.functional.pad(mixed, (PAD, PAD + 1))
        first, second = (padded.gather(-1, i.expand(len(mixed), *i.shape)) for i in (index, index + 1))
        return (first + share * (second - first)).sum(-2)

    def _spread(self, data: Tensor, rays: Rays, members: Tensor) -> Tensor:
        """Adjoint of `_read`."""
        if self._paths.heights is None:
            return data[..., None, None].expand(*data.shape, rays.steps, 1)
        index, share = (v.expand(len(data), *v.shape) for v in self._rows(rays, members))
        second = share * data[..., None, :]
        line = data.new_zeros(*index.shape[:-1], self._scan.shape[0] + _MARGIN)
        line.scatter_add_(-1, index, data[..., None, :] - second).scatter_add_(-1, index + 1, second)
        return line[..., PAD : PAD + self._scan.shape[0]]

    def _as_data(self, y: Tensor) -> Tensor:
        if self._paths.heights is None:
            return y.reshape(len(y), *self._scan.geometry.shape)
        views, rows, columns = self._scan.geometry.shape
        return y.reshape(len(y), views, columns, rows).transpose(2, 3).contiguous()

    def _from_data(self, y: Tensor) -> Tensor:
        return y.flatten(1) if self._paths.heights is None else y.transpose(2, 3).flatten(1, 2)

    def _as_image(self, grid: Tensor) -> Tensor:
        """(batch, y, x, z or 1) -> (batch, *image)."""
        return grid[..., 0] if self._paths.heights is None else grid.movedim(-1, 1).contiguous()


def _members(rays: Rays, columns: int) -> Tensor:
    """Numbers of all rays of some runs."""
    runs = zip(rays.view.tolist(), rays.first.tolist(), rays.last.tolist(), strict=True)
    parts = [torch.arange(v * columns + first, v * columns + last) for v, first, last in runs]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
