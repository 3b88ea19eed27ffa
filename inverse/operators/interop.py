"""Operators of sigpy, deepinv, scipy and plain functions as ours, and ours as theirs."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg import flat_real
from inverse.operators.autograd import Function, linear
from inverse.operators.base import LinearOperator, Operator
from inverse.operators.foreign import Side, Wrapped, WrappedNonlinear, as_tensor, first_line, side
from inverse.operators.matrix import Matrix, SparseMatrix, checked_dtype, checked_shapes

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator


def from_sigpy(
    linop: Any, *, dtype: torch.dtype = torch.complex64, device: torch.device | str = "cpu"
) -> LinearOperator:
    """A `sigpy.linop.Linop` as an operator.

    Args:
        linop: the linop; its `H` is the adjoint and its `N` the gram.
        dtype: dtype of x, which sigpy leaves open; complex128 or float64 for double precision.
        device: "cpu" for linops over numpy arrays; a CUDA device for linops over CuPy arrays, shared without a copy.

    Returns:
        The operator. A batch is a loop, as a linop has no batch dimensions. Gradients are the adjoint.

    Raises:
        InputError: not a linop, or one that fails for zeros of this dtype.
    """
    from sigpy.linop import Linop

    if not isinstance(linop, Linop):
        raise InputError(f"from_sigpy: expected a sigpy.linop.Linop, got {type(linop).__name__}; see from_function.")
    image = side("from_sigpy", linop.ishape, dtype, device)
    name = f"sigpy.{linop.repr_str}"
    try:
        linops = linop, linop.H, linop.N
    except Exception as error:  # whatever a linop of one's own raises
        raise InputError(f"{name}: has no adjoint: {first_line(error)}; define _adjoint_linop.") from error
    apply, back, normal = (partial(_each_array, each) for each in linops)
    data = _side_of(_called(name, apply, torch.zeros((1, *image.shape), dtype=dtype, device=image.device)), image)
    gram = partial(linear, function=normal, adjoint=normal)
    return _with_gradients(name, image, data, apply, back, gram)


def from_deepinv(
    physics: Any,
    in_shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    channels: bool = True,
) -> Operator:
    """A `deepinv.physics.Physics` as an operator, without its noise.

    Args:
        physics: a LinearPhysics, whose `A_adjoint` is the adjoint, or any other Physics.
        in_shape: shape of x. Of a real x what deepinv takes, without batch: (channels, y, x). Of a complex x the
            shape without the axis of two channels that deepinv keeps real and imaginary parts in: (y, x).
        dtype: dtype of x; complex for MRI. The buffers of the physics are to be of its precision.
        device: where the physics is.
        channels: whether a complex x is given to the physics as two real channels, and taken back so; False: as
            complex numbers.

    Returns:
        A `LinearOperator` for a LinearPhysics, else a nonlinear one. Gradients are those of the physics. Not every
        `A_adjoint` is the adjoint to rounding: `inverse.testing.check_operator` tells.

    Raises:
        InputError: not a Physics, or one that fails for zeros of this shape and dtype.
    """
    LinearPhysics, Physics = _deepinv("from_deepinv")
    if not isinstance(physics, Physics):
        raise InputError(f"from_deepinv: expected a deepinv Physics, got {type(physics).__name__}; see from_function.")
    name = f"deepinv.{type(physics).__name__}"
    image = side("from_deepinv", in_shape, dtype, device)
    zeros = torch.zeros((1, *image.shape), dtype=dtype, device=image.device)
    pairs = channels and dtype.is_complex
    raw = _called(name, partial(_physics, physics.A, pairs, False), zeros)
    # Data that are complex numbers, or real by themselves, stay as they are.
    data_pairs = pairs and not raw.is_complex() and raw.ndim > 1 and raw.shape[1] == 2
    apply = partial(_physics, physics.A, pairs, data_pairs)
    data = _side_of(_called(name, apply, zeros), image)
    if not isinstance(physics, LinearPhysics):
        return WrappedNonlinear(name, image, data, apply)
    has_gram = getattr(physics.A_adjoint_A, "__func__", None) is not LinearPhysics.A_adjoint_A
    gram = partial(_physics, physics.A_adjoint_A, pairs, pairs) if has_gram else None
    return Wrapped(name, image, data, apply, partial(_physics, physics.A_adjoint, data_pairs, pairs), gram)


def from_scipy(
    matrix: Any,
    in_shape: Sequence[int] | None = None,
    out_shape: Sequence[int] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> LinearOperator:
    """A matrix (dense, sparse, or a scipy LinearOperator) as an operator.

    Args:
        matrix: scipy.sparse matrix or array; `scipy.sparse.linalg.LinearOperator`; a dense array of any package
            with `__dlpack__`. Dense and CSR arrays are shared, not copied, unless dtype or device change.
        in_shape: shape of x, flattened in C order into the columns; None: (columns,).
        out_shape: shape of y, flattened into the rows; None: (rows,).
        dtype: dtype of x and y; None: that of the matrix. A real matrix takes complex x too.
        device: where a matrix is put; None: where it is, sparse ones on the CPU. A LinearOperator computes with numpy
            on the CPU, and with another device x travels there and back.

    Returns:
        `Matrix`, `SparseMatrix`, or a wrapped LinearOperator; a batch is one product with several columns.

    Raises:
        InputError: neither a matrix nor a LinearOperator, shapes of other sizes, or a LinearOperator without adjoint.
    """
    from scipy import sparse

    if sparse.issparse(matrix):
        return SparseMatrix(matrix, in_shape, out_shape, dtype=dtype, device=device or "cpu")
    if isinstance(matrix, sparse.linalg.LinearOperator):
        return _from_linear_operator(matrix, in_shape, out_shape, dtype).to(device or "cpu")
    dense = as_tensor(matrix, "from_scipy: matrix")
    return Matrix(dense if device is None else dense.to(device), in_shape, out_shape, dtype=dtype)


def _from_linear_operator(
    matrix: ScipyLinearOperator,
    in_shape: Sequence[int] | None,
    out_shape: Sequence[int] | None,
    dtype: torch.dtype | None,
) -> LinearOperator:
    kind = as_tensor(np.empty(0, matrix.dtype)).dtype
    dtype = checked_dtype("from_scipy", matrix.shape, kind, dtype)
    shapes = checked_shapes("from_scipy", matrix.shape, in_shape, out_shape)
    image, data = (Side(shape, dtype, torch.device("cpu")) for shape in shapes)
    name = f"scipy.{type(matrix).__name__.lstrip('_')}"
    apply = partial(_columns, matrix.matmat, data.shape)
    back = partial(_columns, matrix.rmatmat, image.shape)
    for function, taken in ((apply, image), (back, data)):
        _called(name, function, torch.zeros((1, *taken.shape), dtype=dtype))
    return _with_gradients(name, image, data, apply, back)


def to_scipy(operator: LinearOperator) -> ScipyLinearOperator:
    """An operator as a `scipy.sparse.linalg.LinearOperator` over flattened numpy vectors, for scipy's solvers.

    Args:
        operator: the operator. If only one of x and y is complex, both become real vectors in which real and
            imaginary parts alternate.

    Returns:
        The LinearOperator, of the operator's precision; several columns are one call. Arrays are shared where numpy
        and torch can, with a device other than the CPU they travel there and back.

    Raises:
        InputError: a nonlinear operator; later, complex vectors for a real one.
    """
    from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator

    if not isinstance(operator, LinearOperator):
        raise InputError(f"to_scipy: expected a linear operator, got {operator!r}; linearise it first.")
    mixed = operator.in_dtype.is_complex != operator.out_dtype.is_complex
    sizes = [
        math.prod(shape) * (2 if mixed and dtype.is_complex else 1)
        for shape, dtype in ((operator.out_shape, operator.out_dtype), (operator.in_shape, operator.in_dtype))
    ]
    forward, back = partial(_vectors, operator, mixed), partial(_vectors, operator.H, mixed)
    return ScipyLinearOperator(
        tuple(sizes),
        matvec=forward,
        rmatvec=back,
        matmat=forward,
        rmatmat=back,
        dtype=_numpy_dtype(operator.in_dtype.to_real() if mixed else operator.in_dtype),
    )


def to_deepinv(operator: Operator) -> Any:
    """An operator as a `deepinv.physics.LinearPhysics`, or a `Physics` if it is nonlinear.

    Args:
        operator: the operator. Its complex images and data become real ones with an axis of two channels after the
            batch, as deepinv has them: (n, 2, y, x).

    Returns:
        The physics without noise; `A_adjoint_A` is the gram.

    Raises:
        InputError: deepinv does not import.
    """
    LinearPhysics, Physics = _deepinv("to_deepinv")
    image, data = operator.in_dtype.is_complex, operator.out_dtype.is_complex
    apply = partial(_channels, operator, image, data)
    if not isinstance(operator, LinearOperator):
        return Physics(A=apply)
    physics = LinearPhysics(
        A=apply,
        A_adjoint=partial(_channels, operator.H, data, image),
        img_size=(2, *operator.in_shape) if image else operator.in_shape,
    )
    physics.A_adjoint_A = partial(_channels, operator.gram, image, image)
    return physics


def _deepinv(where: str) -> tuple[Any, Any]:
    """deepinv's LinearPhysics and Physics."""
    try:
        from deepinv.physics import LinearPhysics, Physics
    except (ImportError, RuntimeError) as error:
        raise InputError(f"{where}: deepinv does not import ({first_line(error)}); install it.") from error
    return LinearPhysics, Physics


def _channels(function: Function, pairs: bool, gives_pairs: bool, x: Tensor, **ignored: Any) -> Tensor:
    """function(x) with real and imaginary parts as two channels after the batch: `pairs` for x, `gives_pairs` for y."""
    y = function(torch.complex(x[:, 0].contiguous(), x[:, 1].contiguous()) if pairs else x)
    return torch.stack((y.real, y.imag), 1) if gives_pairs else y


def _physics(function: Function, pairs: bool, gives_pairs: bool, x: Tensor) -> Tensor:
    """The other way round: function(x) of a physics that has real and imaginary parts as channels, from complex x."""
    y = function(torch.stack((x.real, x.imag), 1) if pairs else x)
    return torch.complex(y[:, 0].contiguous(), y[:, 1].contiguous()) if gives_pairs else y


def _with_gradients(
    name: str, image: Side, data: Side, apply: Function, back: Function, gram: Function | None = None
) -> Wrapped:
    """An operator of functions that autograd cannot see through: each is the derivative of the other."""
    forward, adjoint = partial(linear, function=apply, adjoint=back), partial(linear, function=back, adjoint=apply)
    return Wrapped(name, image, data, forward, adjoint, gram)


def _called(name: str, function: Function, x: Tensor) -> Tensor:
    """function(x) of another package once, to know what it gives before any work is done."""
    try:
        y = function(x)
    except Exception as error:  # whatever another package raises
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise InputError(
            f"{name}: failed for {x.dtype} of shape {tuple(x.shape[1:])}: {first_line(cause)}; check shape and dtype."
        ) from error
    if not isinstance(y, Tensor) or len(y) != len(x):
        raise InputError(f"{name}: expected a tensor for a batch of {len(x)}, got {type(y).__name__}; wrap the parts.")
    return y


def _side_of(y: Tensor, image: Side) -> Side:
    """The data side: shape and kind of what came out, in the precision of the image."""
    real = image.dtype.to_real()
    return Side(tuple(y.shape[1:]), real.to_complex() if y.is_complex() else real, image.device)


def _each_array(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    """A function of one array, item by item; numpy on the CPU, CuPy on CUDA."""
    x = x.detach().resolve_conj().resolve_neg()
    if x.device.type == "cuda":
        cupy = importlib.import_module("cupy")  # has no types and is rarely there
        arrays = [cupy.from_dlpack(item) for item in x]
    else:
        arrays = [item.numpy() for item in x]
    # Stacked, so that the result never shares memory with x.
    return torch.stack([as_tensor(function(array)) for array in arrays])


def _columns(function: Callable[[Any], Any], shape: tuple[int, ...], x: Tensor) -> Tensor:
    """A function of numpy columns (size, n) of a batch (n, *shape of x)."""
    array = x.detach().resolve_conj().resolve_neg().flatten(1).numpy()
    return as_tensor(np.ascontiguousarray(function(array.T).T)).reshape(len(x), *shape)


def _vectors(operator: LinearOperator, mixed: bool, vectors: Any) -> Any:
    """operator of numpy columns (size,) or (size, n)."""
    dtype = operator.in_dtype
    kind = _numpy_dtype(dtype.to_real() if mixed else dtype)
    if np.iscomplexobj(vectors) and kind.kind != "c":
        raise InputError(f"to_scipy: expected real vectors for {operator!r}, got {vectors.dtype}; give the parts.")
    rows = np.ascontiguousarray(vectors.reshape(len(vectors), -1).T, dtype=kind)
    x = as_tensor(rows).to(operator.device)
    if mixed and dtype.is_complex:
        x = torch.view_as_complex(x.reshape(len(x), -1, 2))
    y = operator(x.reshape(len(x), *operator.in_shape))
    flat = flat_real(y) if mixed else y.flatten(1)
    return flat.detach().resolve_conj().resolve_neg().cpu().numpy().T.reshape(-1, *vectors.shape[1:])


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype
