"""Operators made of operators: product, sum, multiple, stack, and the selection of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator, Operator

SAME_INPUT = ("in_shape", "in_dtype", "out_dtype", "device")


class _Chain(Operator):
    """x -> A(B(x)), linear or not."""

    def __init__(self, left: Operator, right: Operator):
        if left.in_shape != right.out_shape or left.in_dtype != right.out_dtype or left.device != right.device:
            raise InputError(f"A @ B: expected B's output as A's input, got {left!r} and {right!r}; align them.")
        super().__init__(
            right.in_shape, left.out_shape, in_dtype=right.in_dtype, out_dtype=left.out_dtype, device=left.device
        )
        self._left, self._right = left, right

    def _apply(self, x: Tensor) -> Tensor:
        return self._left._apply(self._right._apply(x))

    @property
    def weights(self) -> Tensor | None:
        """Those of the left factor, whose output the data are."""
        return self._left.weights

    @property
    def support(self) -> Tensor | None:
        """That of the right factor, whose input the image is."""
        return self._right.support

    def __repr__(self) -> str:
        return f"{self._left!r} @ {self._right!r}"


class Composition(_Chain, LinearOperator):
    """A @ B: x -> A(B(x)).

    `pinv` chains those of the factors: the inverse if one of them is unitary, an approximation otherwise.
    """

    _left: LinearOperator
    _right: LinearOperator

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._right._adjoint(self._left._adjoint(y))

    def _gram(self, x: Tensor) -> Tensor:
        return self._right._adjoint(self._left._gram(self._right._apply(x)))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._right._pinv(self._left._pinv(y))

    @property
    def has_pinv(self) -> bool:
        """Whether both factors have one."""
        return self._left.has_pinv and self._right.has_pinv


class NonlinearComposition(_Chain):
    """A @ B where A, B or both are nonlinear: x -> A(B(x)); gradients flow through both."""


class Sum(LinearOperator):
    """A + B: x -> A(x) + B(x)."""

    def __init__(self, first: LinearOperator, second: LinearOperator):
        checked_alike("A + B", [first, second], SAME_INPUT)
        if first.out_shape != second.out_shape:
            raise InputError(f"A + B: expected one out_shape, got {first.out_shape} and {second.out_shape}; use stack.")
        super().__init__(
            first.in_shape, first.out_shape, in_dtype=first.in_dtype, out_dtype=first.out_dtype, device=first.device
        )
        self._first, self._second = first, second

    def _apply(self, x: Tensor) -> Tensor:
        return self._first._apply(x) + self._second._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._first._adjoint(y) + self._second._adjoint(y)

    @property
    def weights(self) -> Tensor | None:
        """Measured where either is."""
        return anywhere([self._first.weights, self._second.weights], self.out_shape)

    @property
    def support(self) -> Tensor | None:
        """Where either sees something."""
        return anywhere([self._first.support, self._second.support], self.in_shape)

    def __repr__(self) -> str:
        return f"({self._first!r} + {self._second!r})"


class Around(LinearOperator):
    """An operator made of another one of the same shapes, whose pinv, weights and support it has if not said otherwise.

    Args:
        operator: A.
    """

    def __init__(self, operator: LinearOperator):
        super().__init__(
            operator.in_shape,
            operator.out_shape,
            in_dtype=operator.in_dtype,
            out_dtype=operator.out_dtype,
            device=operator.device,
        )
        self._operator = operator

    @property
    def has_pinv(self) -> bool:
        """Whether A has one."""
        return self._operator.has_pinv

    @property
    def weights(self) -> Tensor | None:
        """Those of A."""
        return self._operator.weights

    @property
    def support(self) -> Tensor | None:
        """That of A."""
        return self._operator.support

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._operator!r})"


class Scaled(Around):
    """c * A with a number c, real unless the output is complex."""

    def __init__(self, factor: complex, operator: LinearOperator):
        if isinstance(factor, complex) and not (operator.out_dtype.is_complex and operator.in_dtype.is_complex):
            raise InputError(f"c * A: expected a real number for {operator!r}, got {factor}; give its real part.")
        super().__init__(operator)
        self._factor = factor

    def _apply(self, x: Tensor) -> Tensor:
        return self._factor * self._operator._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._factor.conjugate() * self._operator._adjoint(y)

    def _gram(self, x: Tensor) -> Tensor:
        return abs(self._factor) ** 2 * self._operator._gram(x)

    def _pinv(self, y: Tensor) -> Tensor:
        if self._factor == 0:
            raise InputError("c * A: c = 0 has no inverse; use another factor.")
        return self._operator._pinv(y) / self._factor

    def norm(self) -> float:
        """Largest singular value, |c| times that of A."""
        return abs(self._factor) * self._operator.norm()

    @property
    def has_pinv(self) -> bool:
        """Whether A has one and c is not 0."""
        return self._operator.has_pinv and self._factor != 0

    @property
    def svd(self) -> SVD | None:
        """That of A with |c| in s and the phase of c in U."""
        svd = self._operator.svd
        if svd is None:
            return None
        phase = self._factor / abs(self._factor) if self._factor else 1
        return SVD(
            U=lambda z: phase * svd.U(z),
            Uh=lambda y: phase.conjugate() * svd.Uh(y),
            s=abs(self._factor) * svd.s,
            V=svd.V,
            Vh=svd.Vh,
        )

    def restrict(self, index: Any) -> LinearOperator:
        """c times the restricted A."""
        return self._factor * self._operator.restrict(index)

    def __repr__(self) -> str:
        return f"{self._factor} * {self._operator!r}"


class Stack(LinearOperator):
    """[A; B; ...]: several measurements of one image, joined along the first axis of y.

    Where the remaining axes differ every part of y is flattened and y has one axis; `split` undoes it.
    """

    def __init__(self, operators: Sequence[LinearOperator]):
        operators = checked_alike("stack", operators, SAME_INPUT)
        shapes = [operator.out_shape for operator in operators]
        self._flat = any(len(s) == 0 or s[1:] != shapes[0][1:] for s in shapes)
        self._rows = [math.prod(s) if self._flat else s[0] for s in shapes]
        first = operators[0]
        super().__init__(
            first.in_shape,
            (sum(self._rows), *(() if self._flat else shapes[0][1:])),
            in_dtype=first.in_dtype,
            out_dtype=first.out_dtype,
            device=first.device,
        )
        self._operators = operators

    def split(self, y: Tensor) -> list[Tensor]:
        """The parts of y (*batch, *out_shape), each (*batch, *out_shape of its operator)."""
        axis = y.ndim - len(self.out_shape)
        parts = y.split(self._rows, dim=axis)
        return [p.reshape(*y.shape[:axis], *a.out_shape) for p, a in zip(parts, self._operators, strict=True)]

    def _join(self, parts: list[Tensor]) -> Tensor:
        if self._flat:
            batches = [p.shape[: p.ndim - len(a.out_shape)] for p, a in zip(parts, self._operators, strict=True)]
            parts = [p.reshape(*b, n) for p, b, n in zip(parts, batches, self._rows, strict=True)]
        return torch.cat(parts, dim=-len(self.out_shape))

    def _apply(self, x: Tensor) -> Tensor:
        return self._join([operator._apply(x) for operator in self._operators])

    def _adjoint(self, y: Tensor) -> Tensor:
        start = torch.zeros((), dtype=self.in_dtype, device=self.device)
        return sum((a._adjoint(part) for a, part in zip(self._operators, self.split(y), strict=True)), start=start)

    def _gram(self, x: Tensor) -> Tensor:
        start = torch.zeros((), dtype=self.in_dtype, device=self.device)
        return sum((a._gram(x) for a in self._operators), start=start)

    @property
    def weights(self) -> Tensor | None:
        """Those of the parts, joined."""
        weights = filled([a.weights for a in self._operators], [a.out_shape for a in self._operators])
        return None if weights is None else self._join(weights)

    @property
    def support(self) -> Tensor | None:
        """Where any of the parts sees something."""
        return anywhere([a.support for a in self._operators], self.in_shape)

    def __repr__(self) -> str:
        return f"stack([{', '.join(map(repr, self._operators))}], {self.in_shape} -> {self.out_shape})"


class Select(LinearOperator):
    """y[index] along the first axis.

    Args:
        in_shape: shape before the selection.
        index: slice, sequence of integers (no repeats), integer tensor or bool tensor.
        dtype: dtype of both sides.
        device: where the index lives.
    """

    def __init__(self, in_shape: Sequence[int], index: Any, *, dtype: torch.dtype, device: torch.device | str = "cpu"):
        if not in_shape:
            raise InputError("restrict: expected measurements with an axis, got a scalar; reshape the operator.")
        if isinstance(index, int):
            index = [index]
        try:
            rows = torch.arange(in_shape[0])[index if isinstance(index, slice) else torch.as_tensor(index).cpu()]
        except (IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"restrict: expected a slice, integers or a bool tensor for {in_shape[0]} rows, got {index!r}: {error}."
            ) from error
        if rows.ndim != 1 or rows.unique().numel() != rows.numel():
            raise InputError(f"restrict: expected one axis of rows, each once, got {rows.tolist()}; remove repeats.")
        super().__init__(in_shape, (rows.numel(), *in_shape[1:]), in_dtype=dtype, device=device)
        self._index = rows.to(device)

    def _apply(self, x: Tensor) -> Tensor:
        return x.index_select(x.ndim - len(self.in_shape), self._index)

    def _adjoint(self, y: Tensor) -> Tensor:
        axis = y.ndim - len(self.out_shape)
        full = y.new_zeros(*y.shape[:axis], *self.in_shape)
        return full.index_copy(axis, self._index, y)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(y)


def stack(operators: Sequence[LinearOperator]) -> Stack:
    """Several measurements of one image as one operator; see `Stack` for the shape of y."""
    return Stack(operators)


def compose(left: Operator, right: Operator) -> Operator:
    """A @ B: linear if both are."""
    if isinstance(left, LinearOperator) and isinstance(right, LinearOperator):
        return Composition(left, right)
    return NonlinearComposition(left, right)


def anywhere(parts: Sequence[Tensor | None], shape: tuple[int, ...]) -> Tensor | None:
    """Weights or supports of a sum: where any of its parts has them; None is everywhere."""
    known = [part.expand(shape) for part in parts if part is not None]
    return torch.stack(known).amax(0) if len(known) == len(parts) else None


def filled(parts: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> list[Tensor] | None:
    """Weights or supports of parts side by side, each of its shape, 1 for None; None where all are."""
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    one = known.new_ones(())
    return [(one if part is None else part).expand(shape) for part, shape in zip(parts, shapes, strict=True)]


def checked_alike(where: str, operators: Sequence[LinearOperator], equal: Sequence[str]) -> list[LinearOperator]:
    """At least one linear operator, all with the first one's values of the attributes `equal`."""
    operators = list(operators)
    if not operators:
        raise InputError(f"{where}: expected at least one operator, got none; give a list of operators.")
    first = operators[0]
    for other in operators:
        if not isinstance(other, LinearOperator):
            raise InputError(f"{where}: expected linear operators, got {other!r}; give linear ones.")
        differ = [name for name in equal if getattr(other, name) != getattr(first, name)]
        if differ:
            raise InputError(f"{where}: expected equal {', '.join(differ)}, got {first!r} and {other!r}; align them.")
    return operators
