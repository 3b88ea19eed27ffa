"""Operators that are a matrix, dense or sparse."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.autograd import linear
from inverse.operators.base import LinearOperator
from inverse.operators.foreign import as_tensor


class Matrix(LinearOperator):
    """y = M x for a dense matrix M; a real one takes complex x too.

    Args:
        matrix: (rows, columns), real or complex; kept, not copied.
        in_shape: shape of x with `columns` entries; None: (columns,).
        out_shape: shape of y with `rows` entries; None: (rows,).
        dtype: dtype of x and y; None: that of the matrix.

    Raises:
        InputError: not a matrix of floating numbers, shapes of other sizes, or a real dtype for a complex matrix.
    """

    def __init__(
        self,
        matrix: Tensor,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
    ):
        dtype = checked_dtype("Matrix", tuple(matrix.shape), matrix.dtype, dtype)
        super().__init__(
            *checked_shapes("Matrix", tuple(matrix.shape), in_shape, out_shape), in_dtype=dtype, device=matrix.device
        )
        self.matrix = matrix.to(dtype if matrix.is_complex() else dtype.to_real())

    def _apply(self, x: Tensor) -> Tensor:
        return _product(lambda v: v @ self.matrix.mT, x, self.in_shape, self.out_shape, self.matrix.is_complex())

    def _adjoint(self, y: Tensor) -> Tensor:
        matrix = self.matrix.conj()
        return _product(lambda v: v @ matrix, y, self.out_shape, self.in_shape, matrix.is_complex())


class SparseMatrix(LinearOperator):
    """y = M x for a sparse matrix M, kept by rows together with M^H; a real one takes complex x too.

    Args:
        matrix: scipy.sparse matrix or array (rows, columns); in CSR format it is kept without a copy.
        in_shape: shape of x with `columns` entries; None: (columns,).
        out_shape: shape of y with `rows` entries; None: (rows,).
        dtype: dtype of x and y; None: that of the matrix, float32 for integers.
        device: where the matrix is put.

    Raises:
        InputError: shapes of other sizes, or a real dtype for a complex matrix.
    """

    def __init__(
        self,
        matrix: Any,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ):
        rows = matrix.tocsr()
        if rows.dtype.kind in "biu":
            rows = rows.astype(np.float32)
        kind = as_tensor(rows.data[:0]).dtype
        dtype = checked_dtype("SparseMatrix", matrix.shape, kind, dtype)
        shapes = checked_shapes("SparseMatrix", matrix.shape, in_shape, out_shape)
        super().__init__(*shapes, in_dtype=dtype, device=device)
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
        values = dtype if kind.is_complex else dtype.to_real()
        self._rows = _parts(rows, values, device)
        self._columns = _parts(rows.conj().T.tocsr(), values, device)

    def _apply(self, x: Tensor) -> Tensor:
        product = partial(linear, function=self._forward, adjoint=self._backward)
        return _product(product, x, self.in_shape, self.out_shape, self._rows[2].is_complex())

    def _adjoint(self, y: Tensor) -> Tensor:
        product = partial(linear, function=self._backward, adjoint=self._forward)
        return _product(product, y, self.out_shape, self.in_shape, self._rows[2].is_complex())

    def _forward(self, rows: Tensor) -> Tensor:
        return _rowwise(self._cached("matrix", lambda: _csr(self._rows, self._columns)), rows)

    def _backward(self, rows: Tensor) -> Tensor:
        return _rowwise(self._cached("matrix of the adjoint", lambda: _csr(self._columns, self._rows)), rows)


def _product(
    product: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...], given: tuple[int, ...], complex_: bool
) -> Tensor:
    """x (*batch, *shape) -> (*batch, *given) by a product of rows (n, size); x as pairs of reals for a real matrix."""
    batch = x.shape[: x.ndim - len(shape)]
    size, count = math.prod(shape), math.prod(batch)
    rows = x.reshape(count, size)
    if not x.is_complex() or complex_:
        return product(rows).reshape(*batch, *given)
    pairs = product(torch.cat((rows.real, rows.imag)))
    return torch.complex(*pairs.chunk(2)).reshape(*batch, *given)


def _rowwise(matrix: Tensor, rows: Tensor) -> Tensor:
    """A sparse matrix times rows (n, size); a single row by the product with a vector, which is faster."""
    return (matrix @ rows[0])[None] if len(rows) == 1 else (matrix @ rows.mT.contiguous()).mT


Parts = tuple[Tensor, Tensor, Tensor]


def _parts(matrix: Any, dtype: torch.dtype, device: torch.device | str) -> Parts:
    """Starts of the rows, columns and values of a CSR matrix as plain tensors, which move and travel like any other."""
    starts, columns, values = (as_tensor(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data))
    return starts, columns, values.to(dtype)


def _csr(parts: Parts, other: Parts) -> Tensor:
    size = len(parts[0]) - 1, len(other[0]) - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls its CSR a beta version, once a process
        return torch.sparse_csr_tensor(*parts, size=size, check_invariants=False)


def checked_dtype(name: str, shape: tuple[int, ...], kind: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype that x and y of a matrix have; see `Matrix` for what is refused."""
    if len(shape) != 2 or 0 in shape or not (kind.is_floating_point or kind.is_complex):
        raise InputError(f"{name}: expected a matrix (rows, columns) of floating numbers, got {kind} {shape}; cast it.")
    dtype = kind if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype.is_complex):
        raise InputError(f"{name}: dtype: expected one of floating numbers, got {dtype}; give e.g. torch.float32.")
    if kind.is_complex and not dtype.is_complex:
        raise InputError(f"{name}: expected a complex dtype for a complex matrix, got {dtype}; give torch.complex64.")
    return dtype


def checked_shapes(
    name: str, shape: tuple[int, ...], in_shape: Sequence[int] | None, out_shape: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of x and y whose sizes are the columns and the rows."""
    rows, columns = shape
    image = (columns,) if in_shape is None else tuple(in_shape)
    data = (rows,) if out_shape is None else tuple(out_shape)
    for which, wanted, size in (("in_shape", image, columns), ("out_shape", data, rows)):
        if math.prod(wanted) != size:
            raise InputError(
                f"{name}: {which}: expected {size} entries for a matrix of {rows} x {columns}, got {wanted}; reshape."
            )
    return image, data
