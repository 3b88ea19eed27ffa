"""Linear operators that autograd cannot see through: their gradients are made by the adjoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inverse.operators.base import LinearOperator

Function = Callable[[Tensor], Tensor]


class Opaque(LinearOperator):
    """A linear operator computed outside of autograd; differentiable any number of times through its adjoint.

    A subclass implements `_forward` and `_backward`, may do `_normal`: A, A^H and A^H A of one batch axis, which may
    be empty.
    """

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _backward(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def _normal(self, x: Tensor) -> Tensor:
        return self._backward(self._forward(x))

    def _apply(self, x: Tensor) -> Tensor:
        return _batched(x, len(self.in_shape), self._forward, self._backward)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _batched(y, len(self.out_shape), self._backward, self._forward)

    def _gram(self, x: Tensor) -> Tensor:
        return _batched(x, len(self.in_shape), self._normal, self._normal)


def _batched(x: Tensor, axes: int, function: Function, adjoint: Function) -> Tensor:
    """`linear` for x (*batch, *shape) of any number of batch dimensions, `axes` the number of axes of the shape."""
    batch = x.shape[: x.ndim - axes]
    y = linear(x.reshape(math.prod(batch), *x.shape[x.ndim - axes :]), function, adjoint)
    return y.reshape(*batch, *y.shape[1:])


def linear(x: Tensor, function: Function, adjoint: Function) -> Tensor:
    """function(x) for a linear function that autograd cannot see through; its gradient is the adjoint, to any order.

    Args:
        x: (n, *shape), a batch of what the function takes.
        function: A of a batch.
        adjoint: A^H of a batch, with respect to Re<a, b>.
    """
    y: Tensor = _Linear.apply(x, function, adjoint)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, function: Function, adjoint: Function) -> Tensor:
        return function(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function, ctx.adjoint = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradients[0], ctx.adjoint, ctx.function), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        y: Tensor = _Linear.apply(tangents[0], ctx.function, ctx.adjoint)
        return y

    @staticmethod
    def vmap(info: Any, axes: tuple[Any, ...], x: Tensor, function: Function, adjoint: Function) -> tuple[Tensor, int]:
        x = x.movedim(axes[0], 0)
        y: Tensor = _Linear.apply(x.flatten(0, 1), function, adjoint)
        return y.unflatten(0, x.shape[:2]), 0
