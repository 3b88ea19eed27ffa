"""Operators whose data are weighted or mixed, so that their noise is white and of one level."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor
from inverse.operators.algebra import Around
from inverse.operators.base import LinearOperator


class Weighted(Around):
    """diag(w) A: every value of the data times a weight; weight 0 takes it out.

    Args:
        operator: A.
        factor: w, real, not negative, broadcasts to `operator.out_shape`.

    Raises:
        InputError: negative or complex weights, all of them 0, or a shape that does not broadcast.
    """

    def __init__(self, operator: LinearOperator, factor: Tensor):
        check_tensor("weights", factor, complex_=False)
        _check_device("weights", factor, operator)
        try:
            factor = factor.to(operator.out_dtype.to_real()).expand(operator.out_shape)
        except RuntimeError:
            raise InputError(
                f"weights: expected a shape that broadcasts to {operator.out_shape}, got {tuple(factor.shape)}."
            ) from None
        if bool((factor < 0).any()) or not bool((factor > 0).any()):
            raise InputError("weights: expected none below 0 and one above, got others; check the noise model.")
        super().__init__(operator)
        self._factor = factor

    def _apply(self, x: Tensor) -> Tensor:
        return self._operator._apply(x) * self._factor

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._operator._adjoint(y * self._factor)

    def _gram(self, x: Tensor) -> Tensor:
        return self._operator._adjoint(self._operator._apply(x) * self._factor.square())

    def _pinv(self, y: Tensor) -> Tensor:
        return self._operator._pinv(torch.where(self._factor > 0, y / self._factor, 0))

    @property
    def weights(self) -> Tensor:
        """Where A measures and w is not 0."""
        counted = (self._factor > 0).to(self._factor)
        return counted if self._operator.weights is None else counted * self._operator.weights


class Mixed(Around):
    """M A: a square matrix along the first axis of the data, e.g. over coils.

    Args:
        operator: A; its mask, if it has one, is the same for all channels.
        matrix: M (channels, channels).

    Raises:
        InputError: a matrix that does not fit the data.
    """

    def __init__(self, operator: LinearOperator, matrix: Tensor):
        check_tensor("matrix", matrix)
        _check_device("matrix", matrix, operator)
        channels = operator.out_shape[0] if operator.out_shape else 0
        if tuple(matrix.shape) != (channels, channels):
            raise InputError(f"matrix: expected ({channels}, {channels}) for {operator!r}, got {tuple(matrix.shape)}.")
        if matrix.is_complex() and not operator.out_dtype.is_complex:
            raise InputError(f"matrix: expected real values for {operator!r}, got {matrix.dtype}; take its real part.")
        super().__init__(operator)
        self._matrix = matrix.to(operator.out_dtype)

    def _mix(self, matrix: Tensor, y: Tensor) -> Tensor:
        axis = y.ndim - len(self.out_shape)
        return torch.tensordot(y, matrix, dims=([axis], [1])).movedim(-1, axis)

    def _apply(self, x: Tensor) -> Tensor:
        return self._mix(self._matrix, self._operator._apply(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._operator._adjoint(self._mix(self._matrix.mH, y))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._operator._pinv(self._mix(torch.linalg.inv(self._matrix), y))


def _check_device(name: str, x: Tensor, operator: LinearOperator) -> None:
    if x.device != operator.device:
        raise InputError(f"{name}: expected a tensor on {operator.device}, got {x.device}; move it by .to().")
