"""Any differentiable function as an operator, its adjoint by autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg import inner, norm
from inverse.operators import autograd
from inverse.operators.autograd import Function
from inverse.operators.base import Operator
from inverse.operators.foreign import Side, Wrapped, WrappedNonlinear, first_line, side

# Relative error up to which a function counts as linear, by precision: rounding of long sums, far below a real fault.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-8}


def from_function(
    f: Callable[[Tensor], Tensor],
    in_shape: Sequence[int],
    *,
    adjoint: Callable[[Tensor], Tensor] | None = None,
    linear: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Operator:
    """A function as an operator.

    Args:
        f: x (*in_shape) -> y, without batch dimensions; a batch goes through `torch.vmap` where f allows it, else
            item by item. It leaves x as it is.
        in_shape: shape of x.
        adjoint: y -> A^H y of the shape of x; None: by autograd, for about the cost of f forwards and backwards.
        linear: False makes a nonlinear operator, whatever f is.
        dtype: dtype of x, float32, float64 or complex; f is called with it even if the operator is moved by `to`.
        device: where f computes.

    Returns:
        A `LinearOperator`, or a nonlinear one. It can be pickled where f can, which a lambda cannot.

    Raises:
        InputError: f fails on a random x, changes it, or gives no tensor; for linear=True also if f is not linear
            (over the complex numbers, where x and y are complex), has no gradient, or if the adjoint is not one.

    Notes:
        Costs about eight calls of f. The gradient of Re<f(x), y> in torch's convention for complex numbers is A^H y.
    """
    image = side("from_function", in_shape, dtype, device)
    generator = torch.Generator().manual_seed(0)
    x, z = torch.randn((2, *image.shape), generator=generator, dtype=dtype).to(image.device).unbind()
    y = _tried(f, x)
    name = f"function {getattr(f, '__name__', type(f).__name__)}"
    real = dtype.to_real()
    data = Side(tuple(y.shape), real.to_complex() if y.is_complex() else real, image.device)
    batched = partial(_mapped if _maps(f, x, z) else _looped, f)
    if not linear:
        return WrappedNonlinear(name, image, data, batched)
    _check_linear(f, x, z, y)
    if adjoint is None:
        back: Function = partial(_transposed, batched, image)
        apply = batched  # autograd sees through it, parameters of f included
    else:
        back = partial(_looped, adjoint)
        apply = partial(autograd.linear, function=batched, adjoint=back)
    _check_adjoint(back, x, y, torch.randn(y.shape, generator=generator, dtype=y.dtype).to(image.device))
    return Wrapped(name, image, data, apply, partial(autograd.linear, function=back, adjoint=batched))


def _looped(f: Function, x: Tensor) -> Tensor:
    return torch.stack([f(item) for item in x])


def _mapped(f: Function, x: Tensor) -> Tensor:
    y: Tensor = torch.vmap(f)(x)
    return y


def _maps(f: Function, x: Tensor, z: Tensor) -> bool:
    """Whether vmap can do f, without a warning that it loops itself, and gets the same."""
    both = torch.stack((x, z))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            together = _mapped(f, both)
    except Exception:  # it differs from version to version what vmap raises
        return False
    apart = _looped(f, both)
    return together.shape == apart.shape and _relative(together, apart) <= _TOLERANCE[x.dtype.to_real()]


def _transposed(f: Function, image: Side, y: Tensor) -> Tensor:
    """A^H y of a linear f: its gradient anywhere, here at 0."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros((len(y), *image.shape), dtype=image.dtype, device=image.device, requires_grad=True)
        # A tensor made in inference mode takes no part in autograd; its copy does.
        (gradient,) = torch.autograd.grad(f(x), x, y.clone() if y.is_inference() else y)
    return gradient


def _tried(f: Function, x: Tensor) -> Tensor:
    kept = x.clone()
    try:
        y = f(x)
    except Exception as error:  # whatever f raises
        raise InputError(
            f"from_function: f failed for {x.dtype} of shape {tuple(x.shape)}: {first_line(error)}; check in_shape."
        ) from error
    if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"from_function: expected f to give a tensor of floating numbers, got {got}; convert it.")
    if not torch.equal(x, kept):
        raise InputError("from_function: f changes its argument in place; let it work on x.clone().")
    return y.detach()


def _check_linear(f: Function, x: Tensor, z: Tensor, y: Tensor) -> None:
    a: complex = 0.7
    b: complex = -1.3
    if x.is_complex() and y.is_complex():
        a, b = 0.7 + 0.4j, -0.3 + 1.1j
    error = _relative(f(a * x + b * z), a * y + b * f(z))
    if not error <= _TOLERANCE[x.dtype.to_real()]:
        raise InputError(
            f"from_function: f is not linear: f(a x + b z) is off by {error:.1e}; give linear=False, or subtract f(0)."
        )


def _check_adjoint(back: Function, x: Tensor, y: Tensor, v: Tensor) -> None:
    try:
        hv = back(v[None])[0]
    except Exception as error:  # autograd where f has no gradient, or whatever a given adjoint raises
        raise InputError(
            f"from_function: no adjoint: {first_line(error)}; write f in torch operations, or give adjoint=."
        ) from error
    if tuple(hv.shape) != tuple(x.shape) or hv.dtype != x.dtype:
        raise InputError(
            f"from_function: adjoint: expected {x.dtype} {tuple(x.shape)}, got {hv.dtype} {tuple(hv.shape)}; reshape."
        )
    scale = float(norm(y, 0) * norm(v, 0))
    off = abs(float(inner(y, v, 0) - inner(x, hv, 0))) / scale if scale else 0.0
    if not off <= _TOLERANCE[x.dtype.to_real()]:
        raise InputError(
            f"from_function: <f(x), v> and <x, A^H v> differ by {off:.1e}; f hides a part from autograd (detach, "
            "numpy), or adjoint= is not its adjoint."
        )


def _relative(a: Tensor, b: Tensor) -> float:
    scale = max(float(norm(a, 0)), float(norm(b, 0)))
    return float(norm(a - b, 0)) / scale if scale else 0.0
