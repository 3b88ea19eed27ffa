"""Products with matrices along rows and columns, y = R x C^T, both kept as bands; with gram, SVD and inverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.operators.base import SVD, LinearOperator
from inverse.operators.parts import in_parts

# Rows of a band that are multiplied at once. Measured on a CPU core at 256 and 512: 16 to 64 are within a fifth.
BLOCK = 32
# Values that are worked on at once on a CPU: two megabytes stay in the cache, twice as fast as 8 planes of 512 x 512.
PIECE = 2**19
# Singular values below this part of the largest are no information but rounding, in units of the dtype's own.
_CUTOFF = 100


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, plane: Sequence[int], *, copies: int = 1) -> Tensor:
    """Apply a function of planes (k, y, x) -> (k, *plane) to (*batch, y, x), on a CPU a few planes at a time.

    Args:
        function: acts on every plane alone.
        x: (*batch, y, x).
        plane: shape of a plane of the result.
        copies: planes that the function holds at once for each one it is given.

    Returns:
        (*batch, *plane).
    """
    batch = x.shape[:-2]
    planes = x.reshape(math.prod(batch), *x.shape[-2:])
    if not len(planes):
        return x.new_zeros((*batch, *plane))
    size = PIECE // (copies * max(math.prod(x.shape[-2:]), math.prod(plane)))
    return in_parts(function, planes, size if x.device.type == "cpu" else len(planes)).reshape(*batch, *plane)


def on_real(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A real-linear function of planes applied to x; to real and imaginary part where x is complex."""
    if not x.is_complex():
        return function(x)
    real, imag = function(torch.stack((x.real, x.imag)).flatten(0, 1)).chunk(2)
    return torch.complex(real, imag)


class Bands:
    """A real matrix (m, n) that is mostly zero, as blocks of rows with the runs of columns they need.

    Args:
        matrix: the dense matrix.
    """

    def __init__(self, matrix: Tensor):
        self.rows = len(matrix)
        # On a device a launch costs more than the zeros.
        size = BLOCK if matrix.device.type == "cpu" else self.rows
        self._blocks = [
            [(a, b, part[:, a:b].contiguous()) for a, b in _runs((part != 0).any(0).tolist())]
            for part in matrix.split(size)
        ]

    def along_y(self, x: Tensor) -> Tensor:
        """M x for planes x (k, n, w): (k, m, w)."""
        parts = []
        for runs in self._blocks:
            part, *more = [torch.matmul(block, x[:, a:b]) for a, b, block in runs]
            parts.append(sum(more, start=part))
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def along_x(self, x: Tensor) -> Tensor:
        """x M^T for planes x (k, h, n): (k, h, m)."""
        lines = x.flatten(0, 1)
        parts = []
        for runs in self._blocks:
            part, *more = [lines[:, a:b] @ block.mT for a, b, block in runs]
            parts.append(sum(more, start=part))
        return (torch.cat(parts, 1) if len(parts) > 1 else parts[0]).reshape(*x.shape[:2], self.rows)


def _runs(used: Sequence[bool]) -> list[tuple[int, int]]:
    """Intervals [a, b) that hold all that is used; gaps shorter than a block are filled; never none."""
    runs: list[tuple[int, int]] = []
    for i, flag in enumerate(used):
        if flag and runs and i - runs[-1][1] < BLOCK:
            runs[-1] = (runs[-1][0], i + 1)
        elif flag:
            runs.append((i, i + 1))
    return runs or [(0, 1)]


class RowsAndColumns:
    """y = R x C^T for real or complex planes, with what follows from the decompositions of R and C.

    Args:
        rows: R, real (my, ny).
        columns: C, real (mx, nx).
    """

    def __init__(self, rows: Tensor, columns: Tensor):
        self._matrices = rows, columns
        self._forward = _Pair(rows, columns)
        self._backward = _Pair(rows.mT, columns.mT)
        self._square: _Pair | None = None
        self._factors: tuple[tuple[Tensor, Tensor, Tensor], ...] | None = None
        self._inverse: _Pair | None = None

    def apply(self, x: Tensor) -> Tensor:
        """R x C^T."""
        return self._forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """R^T y C."""
        return self._backward(y)

    def gram(self, x: Tensor) -> Tensor:
        """R^T R x C^T C, as two products in the place of four."""
        if self._square is None:
            rows, columns = self._matrices
            self._square = _Pair(rows.mT @ rows, columns.mT @ columns)
        return self._square(x)

    def pinv(self, y: Tensor) -> Tensor:
        """The inverse of Moore and Penrose, that of R times that of C."""
        if self._inverse is None:
            inverses = []
            for u, s, vh in self._decompose():
                keep = s > _CUTOFF * torch.finfo(s.dtype).eps * s.max()
                inverses.append(vh.mT @ (torch.where(keep, 1 / s, 0)[:, None] * u.mT))
            self._inverse = _Pair(*inverses)
        return self._inverse(y)

    def norm(self) -> float:
        """Largest singular value."""
        (_, s, _), (_, t, _) = self._decompose()
        return float(s.max() * t.max())

    def svd(self) -> SVD:
        """Kronecker product of the decompositions of R and C; coefficients are planes."""
        (u, s, vh), (a, t, bh) = self._decompose()

        def product(left: Tensor, right: Tensor) -> Callable[[Tensor], Tensor]:
            def function(x: Tensor) -> Tensor:
                shape = len(left), right.shape[1]
                return in_pieces(lambda planes: on_real(lambda v: left @ v @ right, planes), x, shape)

            return function

        return SVD(
            U=product(u, a.mT), Uh=product(u.mT, a), s=s[:, None] * t, V=product(vh.mT, bh), Vh=product(vh, bh.mT)
        )

    def _decompose(self) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        if self._factors is None:
            self._factors = tuple(
                tuple(part.to(matrix.dtype) for part in torch.linalg.svd(matrix.double(), full_matrices=False))
                for matrix in self._matrices
            )
        return self._factors


class _Pair:
    """Two bands, applied in the cheaper order: first along the axis that shrinks more."""

    def __init__(self, rows: Tensor, columns: Tensor):
        self._rows, self._columns = Bands(rows), Bands(columns)
        self._plane = len(rows), len(columns)
        self._y_first = len(rows) * columns.shape[1] <= len(columns) * rows.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        return in_pieces(lambda planes: on_real(self._real, planes), x, self._plane)

    def _real(self, x: Tensor) -> Tensor:
        if self._y_first:
            return self._columns.along_x(self._rows.along_y(x))
        return self._rows.along_y(self._columns.along_x(x))


class Separable(LinearOperator):
    """y = R x C^T over the last two axes; a subclass says which matrices."""

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """R (my, ny) and C (mx, nx), in any real dtype, on any device."""
        raise NotImplementedError

    @property
    def _products(self) -> RowsAndColumns:
        def build() -> RowsAndColumns:
            rows, columns = (matrix.to(self.device, self.in_dtype.to_real()) for matrix in self._matrices())
            return RowsAndColumns(rows, columns)

        return self._cached("products", build)

    def _apply(self, x: Tensor) -> Tensor:
        return self._products.apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._products.adjoint(y)

    def _gram(self, x: Tensor) -> Tensor:
        return self._products.gram(x)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._products.pinv(y)

    def _compute_norm(self) -> float:
        return self._products.norm()

    @property
    def svd(self) -> SVD:
        """By rows and columns; coefficients (..., k, l) with k and l the smaller of the sizes before and after."""
        return self._products.svd()
