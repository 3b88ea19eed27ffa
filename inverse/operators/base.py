"""What an operator is: shapes, dtypes, A(x), and for linear ones the adjoint, the gram, the norm and the algebra."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import torch
from torch import Tensor

from inverse.errors import InputError, check_trailing_shape
from inverse.linalg import largest_eigenvalue

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator

    from inverse.operators.noise import Noise

T = TypeVar("T")
SomeOperator = TypeVar("SomeOperator", bound="Operator")


@dataclass(frozen=True)
class SVD:
    """A = U diag(s) V^H as functions; U and V have orthonormal columns, s is real and broadcasts to the coefficients.

    Attributes:
        U: coefficients -> data.
        Uh: data -> coefficients.
        s: singular values, not sorted.
        V: coefficients -> image.
        Vh: image -> coefficients.
    """

    U: Callable[[Tensor], Tensor]
    Uh: Callable[[Tensor], Tensor]
    s: Tensor
    V: Callable[[Tensor], Tensor]
    Vh: Callable[[Tensor], Tensor]


class Operator:
    """What the scanner does: y = A(x), linear or not. A subclass implements `_apply`.

    Args:
        in_shape: shape of x without batch dimensions.
        out_shape: shape of y without batch dimensions.
        in_dtype: dtype of x.
        out_dtype: dtype of y; None: that of x.
        device: where the operator's tensors are.
    """

    linear = False

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        in_dtype: torch.dtype = torch.complex64,
        out_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ):
        self.in_shape = tuple(int(n) for n in in_shape)
        self.out_shape = tuple(int(n) for n in out_shape)
        self.in_dtype = in_dtype
        self.out_dtype = in_dtype if out_dtype is None else out_dtype
        self.device = torch.device(device)
        self._cache: dict[str, Any] = {}

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        """A(x).

        Args:
            x: (*batch, *in_shape), dtype `in_dtype`, on the operator's device; any number of batch dimensions.

        Returns:
            (*batch, *out_shape), dtype `out_dtype`.

        Raises:
            InputError: another shape, dtype or device.
        """
        return self._apply(self._checked("x", x, self.in_shape, self.in_dtype))

    def measure(self, x: Tensor, noise: Noise | float, generator: torch.Generator | None = None) -> Tensor:
        """Simulated data: A(x) with noise.

        Args:
            x: (*batch, *in_shape).
            noise: a model of `inverse.operators.noise`, or the standard deviation of Gaussian noise per real component.
            generator: source of the random numbers, on the operator's device; None: the global one.

        Returns:
            y (*batch, *out_shape), 0 where nothing is measured.
        """
        from inverse.operators.noise import Gaussian, Noise

        y = (noise if isinstance(noise, Noise) else Gaussian(noise)).draw(self(x), generator)
        return y if self.weights is None else torch.where(self.weights > 0, y, 0)

    def noise_of(self, y: Tensor) -> Noise | None:
        """The noise as the data themselves show it, e.g. rays through air; None where no part of them shows it.

        Args:
            y: the data (*batch, *out_shape).
        """
        return None

    def __matmul__(self, other: Operator) -> Operator:
        from inverse.operators.algebra import compose

        return compose(self, other) if isinstance(other, Operator) else NotImplemented

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(f"{type(self).__name__}: nonlinear: has no {what}; choose a sampler that takes gradients.")

    @property
    def H(self) -> LinearOperator:
        """Adjoint, of linear operators only; others raise InputError."""
        self._refuse("adjoint")

    def gram(self, x: Tensor) -> Tensor:
        """A^H A x, of linear operators only; others raise InputError."""
        self._refuse("gram")

    def pinv(self, y: Tensor) -> Tensor:
        """Direct inverse, of linear operators only; others raise InputError."""
        self._refuse("pinv")

    def norm(self) -> float:
        """Largest singular value, of linear operators only; others raise InputError."""
        self._refuse("norm")

    @property
    def weights(self) -> Tensor | None:
        """1 where a value of y was measured and 0 where not, real, broadcasts to out_shape; None: all measured."""
        return None

    @property
    def support(self) -> Tensor | None:
        """Where in the image the data say anything at all, bool of in_shape; None: everywhere."""
        return None

    @property
    def measurements(self) -> int:
        """Number m of measured real components: a measured complex value counts as two."""
        return self._cached("measurements", self._count_measurements)

    def _count_measurements(self) -> int:
        weights = self.weights
        count = math.prod(self.out_shape) if weights is None else int((weights > 0).expand(self.out_shape).sum())
        return count * (2 if self.out_dtype.is_complex else 1)

    def _cached(self, key: str, build: Callable[[], T]) -> T:
        """What is derived from the operator's own tensors: built on first use, dropped by `to` and by pickling."""
        if key not in self._cache:
            self._cache[key] = build()
        return self._cache[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def to(self: SomeOperator, target: torch.device | str | torch.dtype) -> SomeOperator:
        """The same operator on another device, or in another precision.

        Args:
            target: a device; or a floating dtype, whose precision is taken: float64 and complex128 mean the same.

        Returns:
            A new operator; this one is not changed.
        """
        other = copy.copy(self)
        for key, value in vars(other).items():
            setattr(other, key, _moved(value, target))
        if not isinstance(target, torch.dtype):
            # "cuda" becomes "cuda:0", so that comparing with a tensor's device works.
            other.device = torch.empty(0, device=target).device
        return other

    def __repr__(self) -> str:
        name = type(self).__name__
        kinds = str(self.in_dtype).removeprefix("torch."), str(self.out_dtype).removeprefix("torch.")
        return f"{name}({kinds[0]} {self.in_shape} -> {kinds[1]} {self.out_shape}, {self.device})"

    def _checked(self, name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Shape, dtype and device of an argument; never its values, which would wait for the device."""
        where = f"{type(self).__name__}: {name}"
        if not isinstance(x, Tensor):
            raise InputError(f"{where}: expected a torch.Tensor, got {type(x).__name__}; convert it (torch.as_tensor).")
        if tuple(x.shape[max(x.ndim - len(shape), 0) :]) != shape:
            check_trailing_shape(where, x, shape, f"{len(shape)} axes of {name}")
        if x.dtype != dtype:
            raise InputError(f"{where}: expected {dtype}, got {x.dtype}; convert it, or the operator by .to(dtype).")
        if x.device != self.device:
            raise InputError(f"{where}: expected a tensor on {self.device}, got {x.device}; move one of them by .to().")
        return x


class LinearOperator(Operator):
    """Linear y = A x with an adjoint exact to rounding. A subclass implements `_apply`, `_adjoint`, may do `_gram`.

    The three receive checked tensors with any number of batch dimensions and do not modify them. The adjoint is with
    respect to Re<a, b>, which for a complex-linear operator is the Hermitian one.
    """

    linear = True

    def _adjoint(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def _gram(self, x: Tensor) -> Tensor:
        return self._adjoint(self._apply(x))

    def _pinv(self, y: Tensor) -> Tensor:
        raise InputError(f"{type(self).__name__}: there is no direct inverse; use inverse.linalg.cg with gram.")

    @property
    def H(self) -> LinearOperator:
        """Adjoint A^H, an operator; A.H.H is A."""
        return self._cached("adjoint", lambda: Adjoint(self))

    def gram(self, x: Tensor) -> Tensor:
        """A^H A x by the fastest way the structure allows; x as for A(x)."""
        return self._gram(self._checked("x", x, self.in_shape, self.in_dtype))

    @property
    def matched(self) -> bool:
        """Whether A^H is exactly the adjoint of A; False only with projectors of other packages, and what holds one."""
        values = [item for value in vars(self).values() for item in (value if isinstance(value, list) else [value])]
        return all(part.matched for part in values if isinstance(part, LinearOperator))

    def norm(self) -> float:
        """Largest singular value, by Lanczos on the gram to a relative 1e-4; computed once."""
        return self._cached("norm", self._compute_norm)

    def _compute_norm(self) -> float:
        return math.sqrt(largest_eigenvalue(self._gram, self.in_shape, dtype=self.in_dtype, device=self.device))

    @property
    def has_pinv(self) -> bool:
        """Whether `pinv` exists."""
        return type(self)._pinv is not LinearOperator._pinv

    def pinv(self, y: Tensor) -> Tensor:
        """A good direct inverse: an image in the right units from y, exact only where the operator says so.

        Args:
            y: (*batch, *out_shape), dtype `out_dtype`.

        Returns:
            (*batch, *in_shape).

        Raises:
            InputError: the operator has none (ask `has_pinv`), or y does not fit.
        """
        return self._pinv(self._checked("y", y, self.out_shape, self.out_dtype))

    @property
    def svd(self) -> SVD | None:
        """Singular value decomposition as functions, or None where it is not cheap."""
        return None

    def restrict(self, index: Any) -> LinearOperator:
        """The operator of a part of the measurements.

        Args:
            index: what to keep along the first axis of y: a slice, integers or a bool tensor. Operators whose data
                keep their shape (masked k-space) take a mask instead and say so.

        Returns:
            An operator whose y is y[index].
        """
        from inverse.operators.algebra import Select

        return Select(self.out_shape, index, dtype=self.out_dtype, device=self.device) @ self

    def to_scipy(self) -> ScipyLinearOperator:
        """A as a scipy LinearOperator over flattened numpy vectors; see `inverse.operators.to_scipy`."""
        from inverse.operators.interop import to_scipy

        return to_scipy(self)

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...

    @overload
    def __matmul__(self, other: Operator) -> Operator: ...

    def __matmul__(self, other: Operator) -> Operator:
        return super().__matmul__(other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        from inverse.operators.algebra import Sum

        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + (-1) * other if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: complex) -> LinearOperator:
        from inverse.operators.algebra import Scaled

        return Scaled(factor, self) if isinstance(factor, int | float | complex) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return (-1) * self


class Adjoint(LinearOperator):
    """A^H of an operator that knows how to apply it; made by `A.H`."""

    def __init__(self, operator: LinearOperator):
        super().__init__(
            operator.out_shape,
            operator.in_shape,
            in_dtype=operator.out_dtype,
            out_dtype=operator.in_dtype,
            device=operator.device,
        )
        self._operator = operator

    @property
    def H(self) -> LinearOperator:
        """The operator itself."""
        # A moved or unpickled operator has lost its adjoint: this is it.
        self._operator._cache.setdefault("adjoint", self)
        return self._operator

    def _apply(self, x: Tensor) -> Tensor:
        return self._operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._operator._apply(y)

    def norm(self) -> float:
        """Largest singular value, that of the operator."""
        return self._operator.norm()

    @property
    def svd(self) -> SVD | None:
        """Decomposition of the operator with the roles of U and V exchanged."""
        svd = self._operator.svd
        return svd and SVD(U=svd.V, Uh=svd.Vh, s=svd.s, V=svd.U, Vh=svd.Uh)

    def __repr__(self) -> str:
        return f"{self._operator!r}.H"


def _moved(value: Any, target: torch.device | str | torch.dtype) -> Any:
    """Tensors, operators, containers of them and dtypes of the wanted precision; everything else as it is."""
    if isinstance(value, Operator):
        return value.to(target)
    if isinstance(value, list | tuple):
        make = getattr(type(value), "_make", type(value))  # a named tuple takes its items one by one
        return make(_moved(item, target) for item in value)
    if not isinstance(target, torch.dtype):
        return value.to(target) if isinstance(value, Tensor) else value
    if isinstance(value, torch.dtype) and (value.is_complex or value.is_floating_point):
        return target.to_complex() if value.is_complex else target.to_real()
    if isinstance(value, Tensor) and (value.is_complex() or value.is_floating_point()):
        return value.to(target.to_complex() if value.is_complex() else target.to_real())
    return value
