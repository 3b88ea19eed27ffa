"""Errors of the library and the checks that raise them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class InputError(ValueError):
    """Bad input from the user: one line that says what was wrong, what is needed and what to do."""


class SamplingError(RuntimeError):
    """NaN or Inf appeared while sampling; the message names the step, the noise level and the part."""


def check_tensor(name: str, x: Tensor, *, complex_: bool | None = None) -> None:
    """Refuse anything that is not a finite tensor of the wanted kind.

    Args:
        name: how the message calls the argument.
        x: the tensor to check.
        complex_: True wants complex, False wants real, None takes both.

    Raises:
        InputError: wrong type, wrong kind of number, NaN or Inf.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: expected a torch.Tensor, got {type(x).__name__}; convert it with torch.as_tensor.")
    if complex_ is True and not x.is_complex():
        raise InputError(
            f"{name}: expected complex values, got {x.dtype}; give real and imaginary part as one complex tensor."
        )
    if complex_ is False and x.is_complex():
        raise InputError(f"{name}: expected real values, got {x.dtype}; give the magnitude or use a complex operator.")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise InputError(f"{name}: {bad} of {x.numel()} values are NaN or Inf; repair or mask them before the call.")


def check_trailing_shape(name: str, x: Tensor, shape: Sequence[int], meaning: str) -> None:
    """Refuse a tensor whose last dimensions differ from `shape`; any leading batch dimensions are allowed.

    Args:
        name: how the message calls the argument.
        x: the tensor to check, shape (*batch, *shape).
        shape: the wanted trailing shape.
        meaning: what the shape stands for, e.g. "(coils, y, x)".

    Raises:
        InputError: the trailing shape differs.
    """
    shape = tuple(shape)
    if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
        raise InputError(
            f"{name}: expected shape (*batch, {', '.join(map(str, shape))}) = (*batch, {meaning.strip('()')}), "
            f"got {tuple(x.shape)}; reshape or crop it."
        )


def check_positive(name: str, value: float, *, zero: bool = False) -> None:
    """Refuse a number that is not positive (or not finite).

    Args:
        name: how the message calls the argument.
        value: the number.
        zero: whether 0 is allowed.

    Raises:
        InputError: the number is out of range.
    """
    try:
        value = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected a number, got {value!r}.") from error
    if not (value > 0 or (zero and value == 0)) or value != value or value == float("inf"):
        raise InputError(f"{name}: expected a {'non-negative' if zero else 'positive'} finite number, got {value:g}.")
