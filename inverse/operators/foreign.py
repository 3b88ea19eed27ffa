"""What stands behind operators of other packages: their functions, called at the border of ours."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.autograd import Function
from inverse.operators.base import LinearOperator, Operator


@dataclass(frozen=True)
class Side:
    """The images or the data of a foreign operator, which computes with this dtype on this device."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Wrapped(LinearOperator):
    """A linear operator of another package.

    Moved by `to` it takes and gives the other dtype or device and converts at the border: the foreign operator goes
    on computing in its own precision, where it is. It can be pickled where the foreign operator can.

    Args:
        name: what `repr` calls it.
        image: x as the foreign operator takes it.
        data: y as it gives it.
        apply: A of a batch, (n, *in_shape) -> (n, *out_shape); like the others never called with n = 0.
        adjoint: A^H of a batch.
        gram: A^H A of a batch; None: one after the other.
    """

    def __init__(
        self, name: str, image: Side, data: Side, apply: Function, adjoint: Function, gram: Function | None = None
    ):
        super().__init__(image.shape, data.shape, in_dtype=image.dtype, out_dtype=data.dtype, device=image.device)
        self._name, self._image, self._data = name, image, data
        self._functions = apply, adjoint, gram

    def _apply(self, x: Tensor) -> Tensor:
        return _cross(self._functions[0], x, self._image, self._data).to(self.device, self.out_dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _cross(self._functions[1], y, self._data, self._image).to(self.device, self.in_dtype)

    def _gram(self, x: Tensor) -> Tensor:
        gram = self._functions[2]
        if gram is None:
            return self._adjoint(self._apply(x))
        return _cross(gram, x, self._image, self._image).to(self.device, self.in_dtype)

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, self._name, 1)


class WrappedNonlinear(Operator):
    """A nonlinear operator of another package; see `Wrapped`."""

    def __init__(self, name: str, image: Side, data: Side, apply: Function):
        super().__init__(image.shape, data.shape, in_dtype=image.dtype, out_dtype=data.dtype, device=image.device)
        self._name, self._image, self._data, self._function = name, image, data, apply

    def _apply(self, x: Tensor) -> Tensor:
        return _cross(self._function, x, self._image, self._data).to(self.device, self.out_dtype)

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, self._name, 1)


def as_tensor(array: Any, name: str = "array") -> Tensor:
    """A tensor of an array of any package, sharing its memory where that is possible.

    Args:
        array: a tensor, a numpy array, or anything with `__dlpack__` (CuPy, JAX, ...).
        name: how the message calls it.

    Returns:
        A tensor on the array's device. Numpy arrays that torch cannot share are copied: read-only ones, those of
        negative strides or of the other byte order.

    Raises:
        InputError: no array, or one that does not fit into a tensor.
    """
    if isinstance(array, Tensor):
        return array
    try:
        if isinstance(array, np.ndarray):
            array = np.asarray(array, dtype=array.dtype.newbyteorder("="))
            shared = array.flags.writeable and all(stride >= 0 for stride in array.strides)
            return torch.from_numpy(array if shared else array.copy())
        if hasattr(array, "__dlpack__"):
            return torch.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name}: {first_line(error)}; convert it to an array of numbers that torch has.") from error
    raise InputError(f"{name}: expected a tensor or an array (__dlpack__), got {type(array).__name__}; convert it.")


def side(where: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Side:
    """The images of a foreign operator, from what the user says of them.

    Raises:
        InputError: a shape that is not a tuple of positive integers, or a dtype that is not one of floating numbers.
    """
    try:
        sizes = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise InputError(
            f"{where}: in_shape: expected positive integers, got {shape!r}; give e.g. (256, 256)."
        ) from None
    if any(n < 1 for n in sizes):
        raise InputError(f"{where}: in_shape: expected positive integers, got {shape!r}; give e.g. (256, 256).")
    if not isinstance(dtype, torch.dtype) or dtype.to_real() not in (torch.float32, torch.float64):
        raise InputError(f"{where}: dtype: expected float32, float64 or their complex kinds, got {dtype}; give one.")
    return Side(sizes, dtype, torch.empty(0, device=device).device)


def first_line(error: Exception) -> str:
    """What an exception of another package says, as one line."""
    return f"{type(error).__name__}: {error}".split("\n")[0].rstrip(".")


def _cross(function: Function, x: Tensor, taken: Side, given: Side) -> Tensor:
    """`function` of x (*batch, *shape) in the precision and on the device that it takes, batch as one axis."""
    batch = x.shape[: x.ndim - len(taken.shape)]
    if 0 in batch:  # few packages can
        return torch.zeros((*batch, *given.shape), dtype=given.dtype, device=given.device)
    y = function(x.reshape(-1, *taken.shape).to(taken.device, taken.dtype))
    if y.is_complex() and not given.dtype.is_complex:
        y = y.real  # A^H of real images: the adjoint is with respect to Re<a, b>
    return y.reshape(*batch, *given.shape)
