"""Functions as operators: the adjoint by autograd is the matrix, and what is not linear is refused."""

import pytest
import torch
from cases_lift import blurred, item_by_item, running_sum, spectrum
from checks import check_one_line
from operator_cases import randn
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import Fourier, Operator
from inverse.operators.function import from_function
from inverse.testing import check_operator

EXACT = 1e-12  # double precision, sums of up to a few thousand terms
DOUBLE = torch.complex128


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


@pytest.mark.parametrize("dtype", [torch.float64, DOUBLE])
@pytest.mark.parametrize("f", [blurred, spectrum, item_by_item, torch.real, torch.conj_physical, torch.fft.rfft])
def test_function_adjoint_is_the_matrix(f, dtype):
    if (f is torch.fft.rfft and dtype.is_complex) or (f is torch.conj_physical and dtype.is_complex):
        check_one_line(lambda: from_function(f, (3, 4), dtype=dtype), "from_function")
        return
    operator = from_function(f, (3, 4), dtype=dtype)
    report = check_operator(operator)
    assert report.errors["gradient"] < EXACT and report.errors["adjoint"] < EXACT
    # The adjoint with respect to Re<a, b>, written out over the real basis.
    units = torch.eye(12, dtype=dtype).reshape(12, 3, 4)
    units = torch.cat((units, 1j * units)) if dtype.is_complex else units
    y = randn(*operator.out_shape, dtype=operator.out_dtype)
    columns = torch.stack([(f(unit).conj() * y).sum().real for unit in units]).reshape(-1, 3, 4)
    expected = torch.complex(*columns) if dtype.is_complex else columns[0]
    assert relative(operator.H(y), expected) < EXACT


def test_function_goes_through_vmap_where_it_can():
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(x.shape)
        return 2 * x

    operator = from_function(counted, (3,))
    calls.clear()
    operator(torch.ones(5, 3))
    assert len(calls) == 1
    assert relative(from_function(item_by_item, (3,))(torch.ones(5, 3)), 2 * torch.ones(5, 3)) == 0


def test_function_with_numpy_inside_takes_an_adjoint():
    operator = from_function(running_sum, (3, 5), adjoint=lambda y: y.flip(-1).cumsum(-1).flip(-1), dtype=torch.float64)
    assert check_operator(operator).errors["gradient"] < EXACT
    x = randn(2, 3, 5, dtype=torch.float64).requires_grad_()
    v = randn(2, 3, 5, dtype=torch.float64, seed=1)
    (gradient,) = torch.autograd.grad(operator(x), x, v)
    assert relative(gradient, v.flip(-1).cumsum(-1).flip(-1)) < EXACT


def test_function_adjoint_where_gradients_are_off():
    operator = from_function(spectrum, (3, 5), dtype=DOUBLE)
    y = randn(3, 3)
    expected = operator.H(y)
    with torch.no_grad():
        assert torch.equal(operator.H(y), expected)
    with torch.inference_mode():
        assert torch.equal(operator.H(y.clone()), expected)
    assert not expected.requires_grad


def offset(x: Tensor) -> Tensor:
    return x + 1


def in_place(x: Tensor) -> Tensor:
    return x.mul_(2)


def half_hidden(x: Tensor) -> Tensor:
    return x + 2 * x.detach()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: from_function(torch.abs, (3, 4)), ("not linear", "linear=False")),
        (lambda: from_function(offset, (3, 4)), ("not linear",)),
        (lambda: from_function(torch.conj_physical, (3,), dtype=DOUBLE), ("not linear",)),
        (lambda: from_function(in_place, (3,)), ("in place", "clone")),
        (lambda: from_function(running_sum, (3,)), ("no adjoint", "adjoint=")),
        (lambda: from_function(torch.Tensor.detach, (3,)), ("no adjoint",)),
        (lambda: from_function(half_hidden, (3,)), ("differ", "detach")),
        (lambda: from_function(running_sum, (3,), adjoint=lambda y: y), ("differ", "adjoint")),
        (lambda: from_function(torch.sum, (3,), adjoint=lambda y: y), ("adjoint", "got", "()")),
        (lambda: from_function(torch.linalg.inv, (3, 4)), ("f failed", "(3, 4)")),
        (lambda: from_function(lambda x: x.tolist(), (3,)), ("tensor", "list")),
        (lambda: from_function(lambda x: x > 0, (3,)), ("floating", "bool")),
        (lambda: from_function(blurred, (3, -4)), ("in_shape", "-4")),
        (lambda: from_function(blurred, None), ("in_shape", "None")),
        (lambda: from_function(blurred, (3, 4), dtype=torch.float16), ("dtype", "float16")),
    ],
)
def test_bad_input_is_one_line(build, words):
    check_one_line(build, *words)


def test_nonlinear_functions():
    operator = from_function(torch.abs, (3, 4), dtype=DOUBLE, linear=False)
    assert not operator.linear and operator.out_dtype == torch.float64 and "function abs" in repr(operator)
    assert set(check_operator(operator).errors) == {"batch"}
    assert torch.autograd.gradcheck(operator, randn(2, 3, 4).requires_grad_())
    check_one_line(lambda: operator.H, "no adjoint")
    assert isinstance(operator @ Fourier((3, 4), dtype=DOUBLE), Operator)
