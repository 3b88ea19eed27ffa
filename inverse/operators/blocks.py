"""Block operators beside the stack: a row, [A, B], and a diagonal, one operator for each slice or time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.algebra import Stack, anywhere, checked_alike, filled
from inverse.operators.base import SVD, LinearOperator


class BlockRow(LinearOperator):
    """[A, B, ...]: y = A a + B b + ..., the parts a, b, ... of x joined along the first axis of x.

    Where the remaining axes differ every part of x is flattened and x has one axis. It is the adjoint of the stack
    of the adjoints. `join` makes x of its parts, `split` undoes it.
    """

    def __init__(self, operators: Sequence[LinearOperator]):
        operators = checked_alike("block_row", operators, ("out_shape", "in_dtype", "out_dtype", "device"))
        first = operators[0]
        column = Stack([operator.H for operator in operators])
        super().__init__(
            column.out_shape, first.out_shape, in_dtype=first.in_dtype, out_dtype=first.out_dtype, device=first.device
        )
        self._column = column

    @property
    def operators(self) -> list[LinearOperator]:
        """The operators of the row."""
        return [adjoint.H for adjoint in self._column._operators]

    def split(self, x: Tensor) -> list[Tensor]:
        """The parts of x (*batch, *in_shape), each (*batch, *in_shape of its operator)."""
        return self._column.split(x)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """x of its parts, each (*batch, *in_shape of its operator); the inverse of `split`."""
        operators = self.operators
        if len(parts) != len(operators):
            raise InputError(f"block_row: expected {len(operators)} parts, got {len(parts)}; give one for each.")
        parts = [a._checked("part", p, a.in_shape, a.in_dtype) for p, a in zip(parts, operators, strict=True)]
        return self._column._join(parts)

    def _apply(self, x: Tensor) -> Tensor:
        return self._column._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._column._apply(y)

    @property
    def weights(self) -> Tensor | None:
        """Measured where any of the parts is."""
        return anywhere([a.weights for a in self.operators], self.out_shape)

    @property
    def support(self) -> Tensor | None:
        """Those of the parts, joined."""
        supports = filled([a.support for a in self.operators], [a.in_shape for a in self.operators])
        return None if supports is None else self._column._join(supports)

    def __repr__(self) -> str:
        return f"block_row([{', '.join(map(repr, self.operators))}], {self.in_shape} -> {self.out_shape})"


class BlockDiagonal(LinearOperator):
    """One operator for each item of a leading axis: x (k, *in_shape) -> y (k, *out_shape), y[i] = A_i x[i].

    For masks, maps or geometries that change from slice to slice or in time.

    Args:
        operators: k operators of equal shapes and dtypes on one device.

    Raises:
        InputError: no operators, or operators that differ.
    """

    def __init__(self, operators: Sequence[LinearOperator]):
        kind = ("in_shape", "out_shape", "in_dtype", "out_dtype", "device")
        operators = checked_alike("block_diagonal", operators, kind)
        first = operators[0]
        super().__init__(
            (len(operators), *first.in_shape),
            (len(operators), *first.out_shape),
            in_dtype=first.in_dtype,
            out_dtype=first.out_dtype,
            device=first.device,
        )
        self.operators = operators

    def _apply(self, x: Tensor) -> Tensor:
        return _each([a._apply for a in self.operators], x, x.ndim - len(self.in_shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        return _each([a._adjoint for a in self.operators], y, y.ndim - len(self.out_shape))

    def _gram(self, x: Tensor) -> Tensor:
        return _each([a._gram for a in self.operators], x, x.ndim - len(self.in_shape))

    def _pinv(self, y: Tensor) -> Tensor:
        return _each([a._pinv for a in self.operators], y, y.ndim - len(self.out_shape))

    def norm(self) -> float:
        """Largest singular value, the largest of the norms of the operators."""
        return max(operator.norm() for operator in self.operators)

    @property
    def has_pinv(self) -> bool:
        """Whether all operators have one."""
        return all(operator.has_pinv for operator in self.operators)

    @property
    def svd(self) -> SVD | None:
        """Those of the operators, where all have one with coefficients of one shape."""
        svds = [svd for svd in (operator.svd for operator in self.operators) if svd is not None]
        if len(svds) < len(self.operators):
            return None
        zero = torch.zeros(self.in_shape[1:], dtype=self.in_dtype, device=self.device)
        shapes = {tuple(svd.Vh(zero).shape) for svd in svds}
        if len(shapes) > 1:
            return None
        (shape,) = shapes
        image, data, coefficients = len(self.in_shape), len(self.out_shape), len(shape) + 1
        return SVD(
            U=lambda z: _each([svd.U for svd in svds], z, z.ndim - coefficients),
            Uh=lambda y: _each([svd.Uh for svd in svds], y, y.ndim - data),
            s=torch.stack([svd.s.expand(shape) for svd in svds]),
            V=lambda z: _each([svd.V for svd in svds], z, z.ndim - coefficients),
            Vh=lambda x: _each([svd.Vh for svd in svds], x, x.ndim - image),
        )

    @property
    def weights(self) -> Tensor | None:
        """Those of the operators, one for each item."""
        weights = filled([a.weights for a in self.operators], [a.out_shape for a in self.operators])
        return None if weights is None else torch.stack(weights)

    @property
    def support(self) -> Tensor | None:
        """Those of the operators, one for each item."""
        supports = filled([a.support for a in self.operators], [a.in_shape for a in self.operators])
        return None if supports is None else torch.stack(supports)

    def __repr__(self) -> str:
        return f"block_diagonal([{', '.join(map(repr, self.operators))}], {self.in_shape} -> {self.out_shape})"


def block_row(operators: Sequence[LinearOperator]) -> BlockRow:
    """The sum of several measurements, each of its own part of x; see `BlockRow` for the shape of x."""
    return BlockRow(operators)


def block_diagonal(operators: Sequence[LinearOperator]) -> BlockDiagonal:
    """One operator for each slice or time; see `BlockDiagonal`."""
    return BlockDiagonal(operators)


def _each(functions: Sequence[Callable[[Tensor], Tensor]], x: Tensor, axis: int) -> Tensor:
    """Function i of item i along an axis that has only batch dimensions before it."""
    return torch.stack([f(item) for f, item in zip(functions, x.unbind(axis), strict=True)], dim=axis)
