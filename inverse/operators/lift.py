"""One operator for all slices of a volume, or for all times of a series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator, Operator

if TYPE_CHECKING:
    from inverse.operators.noise import Noise


class _Lift(Operator):
    """One operator for every item of a leading axis, linear or not."""

    def __init__(self, operator: Operator, n: int):
        if not isinstance(operator, Operator):
            raise InputError(
                f"lift: expected an operator, got {type(operator).__name__}; give one of inverse.operators."
            )
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"lift: expected a positive number of slices, got {n!r}; give an integer.")
        super().__init__(
            (n, *operator.in_shape),
            (n, *operator.out_shape),
            in_dtype=operator.in_dtype,
            out_dtype=operator.out_dtype,
            device=operator.device,
        )
        self.operator = operator

    def _apply(self, x: Tensor) -> Tensor:
        return self.operator._apply(x)

    def noise_of(self, y: Tensor) -> Noise | None:
        """What the operator says of all items together."""
        return self.operator.noise_of(y)

    @property
    def weights(self) -> Tensor | None:
        """Those of the operator, which broadcast."""
        return self.operator.weights

    @property
    def support(self) -> Tensor | None:
        """That of the operator, for every item."""
        support = self.operator.support
        return None if support is None else support.expand(self.in_shape)

    def __repr__(self) -> str:
        return f"lift({self.operator!r}, {self.in_shape[0]}, {self.in_shape} -> {self.out_shape})"


class Lifted(_Lift, LinearOperator):
    """One operator for every item of a leading axis: x (n, *in_shape) -> y (n, *out_shape), as slices or times.

    The axis is one more batch dimension for the operator, so a volume is one call and no loop, and gram, pinv, svd,
    norm, weights and support are those of the operator.

    Args:
        operator: what acts on one item.
        n: length of the axis.

    Raises:
        InputError: n is not a positive integer, or the operator is nonlinear (see `lift`).
    """

    operator: LinearOperator

    def __init__(self, operator: LinearOperator, n: int):
        super().__init__(operator, n)
        if not isinstance(operator, LinearOperator):
            raise InputError(f"Lifted: expected a linear operator, got {operator!r}; use lift().")

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(y)

    def _gram(self, x: Tensor) -> Tensor:
        return self.operator._gram(x)

    def _pinv(self, y: Tensor) -> Tensor:
        return self.operator._pinv(y)

    def norm(self) -> float:
        """Largest singular value, that of the operator."""
        return self.operator.norm()

    @property
    def has_pinv(self) -> bool:
        """Whether the operator has one."""
        return self.operator.has_pinv

    @property
    def svd(self) -> SVD | None:
        """That of the operator; its singular values are the same for every item."""
        return self.operator.svd

    def restrict(self, index: Any) -> Lifted:
        """The same part of the measurements of every item: the lifted `operator.restrict(index)`."""
        return Lifted(self.operator.restrict(index), self.in_shape[0])


class LiftedNonlinear(_Lift):
    """`Lifted` for a nonlinear operator."""


def lift(operator: Operator, n: int) -> Operator:
    """An operator of one slice as an operator of a volume, or of one time as one of a series; the new axis is first.

    Args:
        operator: x (*in_shape) -> y (*out_shape), e.g. of a slice (y, x).
        n: number of slices or times.

    Returns:
        x (n, *in_shape) -> y (n, *out_shape), e.g. of a volume (z, y, x); `Lifted` for a linear operator.

    Raises:
        InputError: n is not a positive integer.
    """
    return Lifted(operator, n) if isinstance(operator, LinearOperator) else LiftedNonlinear(operator, n)
