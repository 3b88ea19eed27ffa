"""What every operator does with input that is wrong, and with input that is right but unusual."""

import functools
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from all_cases import ALL
from checks import check_one_line
from operator_cases import randn
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import Identity, LinearOperator, Operator

# Double precision; other strides make FFTs and sums of up to a few thousand terms round differently.
EXACT = 1e-12
# What else than a plain product takes part in a gradient or in an approximate gram rounds a few times more.
CLOSE = 1e-10


@functools.cache
def built(name: str) -> LinearOperator:
    return ALL[name]()


@pytest.fixture(params=ALL)
def operator(request) -> LinearOperator:
    return built(request.param)


Call = tuple[str, Callable[[Tensor], Tensor], tuple[int, ...], torch.dtype]


def calls(operator: LinearOperator) -> Iterator[Call]:
    """Everything that takes a tensor, with the shape and dtype that it wants."""
    image, data = (operator.in_shape, operator.in_dtype), (operator.out_shape, operator.out_dtype)
    yield "A", operator, *image
    yield "A.H", operator.H, *data
    yield "gram", operator.gram, *image
    if operator.has_pinv:
        yield "pinv", operator.pinv, *data


def relative(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    scale = max(float(norm(a.detach(), 0)), float(norm(b.detach(), 0)))
    return float(norm((a - b).detach(), 0)) / scale if scale else 0.0


def no_work(*_: object) -> Tensor:
    raise AssertionError("worked on input that is to be refused")


@pytest.mark.parametrize("name", ALL)
def test_wrong_input_is_refused_before_any_work(name):
    operator = ALL[name]()  # not the shared one: its methods are replaced
    wanted = list(calls(operator))
    for method in ("_apply", "_adjoint", "_gram", "_pinv"):
        setattr(operator, method, no_work)
    for name, call, shape, dtype in wanted:
        x = randn(*shape, dtype=dtype)
        other_kind = x.real.clone() if x.is_complex() else x.to(torch.complex128)
        longer = torch.cat([x, x], -1)
        fewer_axes = x.reshape(x.numel()).sum() if len(shape) == 1 else x[0]
        wrong_shape = [longer, longer[None], fewer_axes, x.new_zeros(0)]
        wrong_dtype = [
            other_kind,
            *(x.real.to(kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool)),
        ]
        single = x.to(torch.complex64 if x.is_complex() else torch.float32)
        for bad in (*wrong_shape, *wrong_dtype, single, x.to("meta"), x.numpy(), x.tolist(), None):
            message = check_one_line(lambda call=call, bad=bad: call(bad), "expected", "got")
            assert len(message) < 300, f"{name}: {message}"


def test_strides_do_not_matter(operator):
    for name, call, shape, dtype in calls(operator):
        x = randn(2, *shape, dtype=dtype)
        expected = call(x)
        reverse = list(range(x.ndim))[::-1]
        turned = x.permute(reverse).contiguous().permute(reverse)
        strided = torch.stack([x, 2 * x], -1)[..., 0]
        unusual = {"turned": turned, "strided": strided}
        if dtype.is_complex:
            unusual["lazily conjugated"] = x.conj().resolve_conj().conj()
        for what, same in unusual.items():
            assert torch.equal(same, x)
            assert relative(call(same), expected) < EXACT, f"{name}: {what}"
        repeated = x[:1].expand(3, *shape)
        assert relative(call(repeated), expected[:1].expand(3, *expected.shape[1:])) < EXACT, f"{name}: expanded"


def test_input_is_not_modified_or_given_back(operator):
    for name, call, shape, dtype in calls(operator):
        x = randn(2, *shape, dtype=dtype)
        kept, version = x.clone(), x._version
        y = call(x)
        assert x._version == version and torch.equal(x, kept), name
        y.zero_()  # a result that shares memory with x would take x along
        assert torch.equal(x, kept), f"{name}: the result is a view of the input"


def test_gradient_is_the_adjoint(operator):
    image, data = (operator.in_shape, operator.in_dtype), (operator.out_shape, operator.out_dtype)
    for name, call, back, (shape, dtype), (given, given_dtype) in (
        ("A", operator, operator.H, image, data),
        ("A.H", operator.H, operator, data, image),
        ("gram", operator.gram, operator.gram, image, image),
    ):
        x = randn(2, *shape, dtype=dtype).requires_grad_()
        v = randn(2, *given, dtype=given_dtype, seed=1).requires_grad_()
        (gradient,) = torch.autograd.grad(call(x), x, v, create_graph=True)
        assert relative(gradient, back(v)) < CLOSE, name
        # Once more: the gradient is linear in v, and its gradient is the operator again.
        (second,) = torch.autograd.grad(gradient, v, x.detach())
        assert relative(second, call(x)) < CLOSE, f"{name}: second derivative"


def test_any_number_of_batch_dimensions(operator):
    for name, call, shape, dtype in calls(operator):
        x = randn(2, 1, 3, *shape, dtype=dtype)
        y = call(x)
        flat = call(x.reshape(6, *shape))
        assert relative(y.reshape(flat.shape), flat) < EXACT, name
        assert relative(y[1, 0, 2], call(x[1, 0, 2])) < EXACT and relative(y[:1, :, 1], call(x[:1, :, 1])) < EXACT, name
        for empty in ((0,), (2, 0), (0, 3, 1)):
            z = call(x.new_zeros(*empty, *shape))
            assert z.shape == (*empty, *flat.shape[1:]) and z.dtype == y.dtype, name


def test_adjoint_of_the_adjoint_and_copies(operator):
    x, y = randn(*operator.in_shape, dtype=operator.in_dtype), randn(*operator.out_shape, dtype=operator.out_dtype)
    assert operator.H.H is operator and operator.H is operator.H
    operator.gram(x)  # whatever is cached must not travel
    for copy in (pickle.loads(pickle.dumps(operator)), operator.to("cpu"), operator.to(torch.float64)):
        assert copy is not operator and copy.H.H is copy
        assert repr(copy) == repr(operator)
        assert torch.equal(copy(x), operator(x)) and torch.equal(copy.H(y), operator.H(y))
    back = pickle.loads(pickle.dumps(operator.H))
    assert torch.equal(back(y), operator.H(y)) and back.H.H is back


def test_single_precision_is_a_copy(operator):
    single = operator.to(torch.float32)
    assert (single.in_dtype.to_real(), single.out_dtype.to_real()) == (torch.float32, torch.float32)
    assert operator.in_dtype.to_real() == torch.float64
    for (name, call, shape, dtype), (_, rounded, _, _) in zip(calls(operator), calls(single), strict=True):
        x = randn(2, *shape, dtype=dtype)
        y = rounded(x.to(torch.complex64 if dtype.is_complex else torch.float32))
        assert y.dtype == (torch.complex64 if call(x).is_complex() else torch.float32)
        # Rounding of single precision, a direct inverse that divides by small numbers more so.
        assert relative(y.to(call(x).dtype), call(x)) < (1e-3 if name == "pinv" else 1e-5), name
    check_one_line(lambda: single(randn(*operator.in_shape, dtype=operator.in_dtype)), "expected")


def test_repr_is_one_line_with_both_shapes(operator: Operator):
    for each in (operator, operator.H):
        line = repr(each)
        assert "\n" not in line and str(each.in_shape) in line and str(each.out_shape) in line


class GivesBack(Identity):
    def _apply(self, x: Tensor) -> Tensor:
        return x


class Detached(Identity):
    def _apply(self, x: Tensor) -> Tensor:
        return x.detach().clone()


class OneBatchAxis(Identity):
    def _apply(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True) if x.ndim > len(self.in_shape) + 1 else x.clone()


class IgnoresStrides(Identity):
    def _apply(self, x: Tensor) -> Tensor:
        return x.as_strided(x.shape, torch.empty(x.shape).stride()).clone()


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (GivesBack, test_input_is_not_modified_or_given_back),
        (Detached, test_gradient_is_the_adjoint),
        (OneBatchAxis, test_any_number_of_batch_dimensions),
        (IgnoresStrides, test_strides_do_not_matter),
    ],
)
def test_planted_fault_is_found(fault, check):
    with pytest.raises((AssertionError, RuntimeError)):
        check(fault((3, 4), dtype=torch.float64))
    check(Identity((3, 4), dtype=torch.float64))
