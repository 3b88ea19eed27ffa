"""Interpolation between a Cartesian k-space grid and arbitrary samples by a sparse matrix of kernel values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.sparse import csr_array
from torch import Tensor

from inverse.operators.parts import in_parts

# Bytes of the sparse matrix kept between calls; a larger one is made anew in every call, in parts of this size.
_MATRIX_BYTES = 256 * 2**20
# Bytes of grids worked on at once: on a CPU what keeps the product near the cache; a bound on memory on other devices
# and where the matrix is made anew for every group of grids.
_GRID_BYTES = 16 * 2**20
_GRID_BYTES_LARGE = 2**30
# Values gathered at once where there is no compiled sparse product (devices other than the CPU).
_GATHER_BYTES = 256 * 2**20
# The factor in front of the kernel's error exp(-pi W sqrt(1 - 1/s)), in the spectral norm: measured 3.0 to 4.8 for
# accuracies down to 1e-12 in two and three dimensions.
_ERROR_FACTOR = 5.0


class Kernel(NamedTuple):
    """Kaiser-Bessel kernel I0(beta sqrt(1 - (2u/W)^2)) exp(-beta), |u| <= W/2 in steps of the grid.

    Reference: Beatty, Nishimura and Pauly, "Rapid gridding reconstruction with a minimal oversampling ratio", IEEE
    TMI 24, 2005, Eq. (3) to (5); error from Fessler and Sutton, IEEE TSP 51, 2003, section IV.
    """

    width: int
    oversampling: float

    @classmethod
    def of(cls, accuracy: float) -> Kernel:
        """The narrowest kernel whose relative error is at most `accuracy`."""
        # A grid 1.5 times as fine is the fastest; the last digits of double precision need the flatter image of 2.
        oversampling = 1.5 if accuracy > 1e-8 else 2.0
        decay = math.pi * math.sqrt(1 - 1 / oversampling)
        return cls(max(2, math.ceil(math.log(_ERROR_FACTOR / accuracy) / decay)), oversampling)

    def grid_size(self, n: int) -> int:
        """Even length, good for FFTs, of the grid for an image axis of n pixels."""
        half = math.ceil(max(self.oversampling * n, self.width) / 2)
        return 2 * int(next_fast_len(half))

    def _beta(self, ratio: float) -> float:
        return math.pi * math.sqrt(max((self.width / ratio) ** 2 * (ratio - 0.5) ** 2 - 0.8, 0.0))

    def values(self, u: Tensor, ratio: float) -> Tensor:
        """Kernel at distances u (grid steps) for a grid `ratio` times as fine as needed."""
        beta = self._beta(ratio)
        root = (1 - (2 / self.width * u).square()).clamp_(min=0).sqrt()
        return torch.special.i0e(beta * root) * torch.exp(beta * (root - 1))

    def transform(self, n: int, size: int) -> Tensor:
        """Fourier transform of the kernel at the n pixels of an image axis, double precision."""
        beta = self._beta(size / n)
        r = torch.arange(n, dtype=torch.float64) - n // 2
        square = beta**2 - (math.pi * self.width / size * r).square()
        root = square.abs().sqrt()
        grow = -torch.expm1(-2 * root) * torch.exp(root - beta) / (2 * root)  # sinh(root) exp(-beta) / root
        wave = torch.sin(root) * math.exp(-beta) / root
        return self.width * torch.where(square > 0, grow, wave)


class Gridding:
    """Samples of the Fourier transform of images at arbitrary places, and the exact transpose of that.

    y_j = N^(-1/2) sum_x x[r] exp(-i k_j . r), r the pixel's offset from the centre n // 2: the image over the
    kernel's transform, an FFT on the finer grid, a sparse real matrix. The matrix is computed in double precision and
    rounded once, so that the error of single precision does not grow with the image.

    Args:
        trajectory: (samples, axes) float64, radians per pixel.
        shape: image shape, one number for each axis.
        accuracy: largest relative error wanted.
        dtype: complex dtype of images and samples.
    """

    def __init__(self, trajectory: Tensor, shape: Sequence[int], accuracy: float, dtype: torch.dtype):
        kernel = Kernel.of(accuracy)
        self._real = dtype.to_real()
        self._device = trajectory.device
        self._shape = tuple(shape)
        self._sizes = tuple(kernel.grid_size(n) for n in shape)
        self._taps = kernel.width ** len(self._shape)
        factor = torch.full((), math.prod(shape) ** -0.5, dtype=torch.float64)
        for n, size in zip(self._shape, self._sizes, strict=True):
            factor = factor.unsqueeze(-1) / kernel.transform(n, size)
        self._factor = factor.to(self._real).to(self._device)
        self._columns, self._values = self._lines(trajectory, kernel)
        self._stored = self.fits(len(trajectory), len(self._shape), accuracy, dtype)
        self._kept: list[tuple[Tensor, Tensor]] = list(self._blocks(_MATRIX_BYTES)) if self._stored else []

    @staticmethod
    def fits(samples: int, axes: int, accuracy: float, dtype: torch.dtype) -> bool:
        """Whether the matrix is small enough to be kept between calls."""
        return samples * Kernel.of(accuracy).width ** axes * (4 + dtype.to_real().itemsize) <= _MATRIX_BYTES

    def _lines(self, trajectory: Tensor, kernel: Kernel) -> tuple[list[Tensor], list[Tensor]]:
        """Grid indices and kernel values (samples, width) of every axis."""
        columns, values = [], []
        taps = torch.arange(kernel.width, device=self._device)
        for k, n, size in zip(trajectory.unbind(-1), self._shape, self._sizes, strict=True):
            u = k.unsqueeze(-1) * (size / (2 * math.pi))
            index = torch.ceil(u - kernel.width / 2) + taps
            # The image's centre is at size // 2 of the grid: a sign on every second sample.
            sign = 1 - 2 * torch.remainder(index, 2)
            values.append((kernel.values(index - u, size / n) * sign).to(self._real))
            columns.append(torch.remainder(index, size).to(torch.int32))
        return columns, values

    def _blocks(self, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Columns and values (samples, taps) of the matrix in parts of at most `limit` bytes."""
        rows = max(1, limit // (self._taps * (4 + self._real.itemsize)))
        for columns, values in zip(
            zip(*(c.split(rows) for c in self._columns), strict=True),
            zip(*(v.split(rows) for v in self._values), strict=True),
            strict=True,
        ):
            column, value = columns[0], values[0]
            for size, c, v in zip(self._sizes[1:], columns[1:], values[1:], strict=True):
                column = (column.unsqueeze(-1) * size + c.unsqueeze(-2)).flatten(1)
                value = (value.unsqueeze(-1) * v.unsqueeze(-2)).flatten(1)
            yield column, value

    def _parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        limit = _MATRIX_BYTES if self._device.type == "cpu" else _GATHER_BYTES
        return iter(self._kept) if self._stored else self._blocks(limit)

    def _at_once(self) -> int:
        """How many images or data have grids that fit the limits."""
        limit = _GRID_BYTES if self._stored and self._device.type == "cpu" else _GRID_BYTES_LARGE
        return limit // (2 * self._real.itemsize * math.prod(self._sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Images (transforms, *shape) -> samples (transforms, samples)."""
        if not x.numel():
            return x.new_zeros(len(x), len(self._columns[0]))
        return in_parts(self._interpolate, x, self._at_once())

    def adjoint(self, y: Tensor) -> Tensor:
        """Samples (transforms, samples) -> images (transforms, *shape)."""
        if not y.numel():
            return y.new_zeros(len(y), *self._shape)
        return in_parts(self._spread, y, self._at_once())

    def _interpolate(self, x: Tensor) -> Tensor:
        grid = turn(padded_fft(x * self._factor, self._sizes))
        table = torch.view_as_real(grid).view(-1, 2 * len(x))
        product = _product if self._device.type == "cpu" else gathered_product
        y = torch.cat([product(columns, values, table) for columns, values in self._parts()])
        return torch.view_as_complex(y.view(-1, len(x), 2)).mT.contiguous()

    def _spread(self, y: Tensor) -> Tensor:
        rows = torch.view_as_real(y.resolve_conj().mT.contiguous()).view(-1, 2 * len(y))
        product = _transposed_product if self._device.type == "cpu" else scattered_product
        table, start = rows.new_zeros(()), 0
        for columns, values in self._parts():
            part = product(columns, values, rows[start : start + len(columns)], math.prod(self._sizes))
            table = table + part if start else part
            start += len(columns)
        grid = torch.view_as_complex(table.view(*self._sizes, len(y), 2))
        return cropped_ifft(turn_back(grid), self._shape).mul_(self._factor)


def _matrix(columns: Tensor, values: Tensor, size: int) -> csr_array:
    """Rows of equal length as a sparse matrix that shares the tensors' memory."""
    samples, taps = columns.shape
    pointers = np.arange(samples + 1, dtype=np.int64 if columns.numel() >= 2**31 else np.int32) * taps
    return csr_array((values.flatten().numpy(), columns.flatten().numpy(), pointers), shape=(samples, size))


def _product(columns: Tensor, values: Tensor, table: Tensor) -> Tensor:
    return torch.from_numpy(_matrix(columns, values, len(table)) @ table.numpy())


def _transposed_product(columns: Tensor, values: Tensor, rows: Tensor, size: int) -> Tensor:
    return torch.from_numpy(_matrix(columns, values, size).T @ rows.numpy())


def gathered_product(columns: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """Sparse rows, given by columns and values (samples, taps), times a table (size, k), on any device."""
    count = max(1, _GATHER_BYTES // (columns.shape[1] * table.shape[1] * table.element_size()))
    parts = zip(columns.split(count), values.split(count), strict=True)
    return torch.cat([torch.einsum("st,stk->sk", v, table[c]) for c, v in parts])


def scattered_product(columns: Tensor, values: Tensor, rows: Tensor, size: int) -> Tensor:
    """The transpose of the same sparse matrix times rows (samples, k): a table (size, k), on any device."""
    count = max(1, _GATHER_BYTES // (columns.shape[1] * rows.shape[1] * rows.element_size()))
    table = rows.new_zeros(size, rows.shape[1])
    for c, v, r in zip(columns.split(count), values.split(count), rows.split(count), strict=True):
        table.index_add_(0, c.flatten(), (v.unsqueeze(-1) * r.unsqueeze(1)).flatten(0, 1))
    return table


def padded_fft(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """FFT on a larger grid: one axis after the other, the last first, each padded when its turn comes, so that no row
    of zeros is transformed and every transform runs along memory.

    Args:
        x: (transforms, *shape), complex, one to three axes.
        sizes: lengths of the grid, even; the pixel at n // 2 goes to size // 2.

    Returns:
        (*grid axes but the first, transforms, first grid axis), e.g. (x, transforms, y) or (y, x, transforms, z).
        Zero frequency first, not normalised.
    """
    for step, size in enumerate(reversed(sizes)):
        x = turn(x) if step else x
        before = size // 2 - x.shape[-1] // 2
        x = torch.fft.fft(torch.nn.functional.pad(x, (before, size - x.shape[-1] - before)))
    return x


def cropped_ifft(grid: Tensor, shape: Sequence[int]) -> Tensor:
    """Adjoint of `padded_fft`: not normalised, every axis cropped as soon as it is done."""
    for step, n in enumerate(shape):
        grid = turn_back(grid) if step else grid
        start = grid.shape[-1] // 2 - n // 2
        grid = torch.fft.ifft(grid, norm="forward")[..., start : start + n].contiguous()
    return grid


def turn(x: Tensor) -> Tensor:
    """The last axis first, written out; as the transpose of a matrix, several times faster than a permutation."""
    return x.flatten(0, -2).t().contiguous().view(x.shape[-1], *x.shape[:-1])


def turn_back(x: Tensor) -> Tensor:
    """The first axis last; the inverse of `turn`."""
    return x.flatten(1).t().contiguous().view(*x.shape[1:], x.shape[0])
