"""deepinv's own checks over every operator of ours, and its operators as ours."""

import warnings

import pytest
import torch
from all_cases import ALL
from checks import check_one_line
from operator_cases import coin, mri, randn
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import Identity, LinearOperator, MultiCoilMRI
from inverse.operators.function import from_function
from inverse.operators.interop import from_deepinv, to_deepinv
from inverse.testing import check_operator

# Beside a torch of another build torchvision lacks two operators that deepinv never calls.
library = torch.library.Library("torchvision", "FRAGMENT")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what deepinv imports warns about itself
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    deepinv = pytest.importorskip("deepinv")

EXACT = 1e-12  # double precision, sums of up to a few thousand terms
DOUBLE = torch.complex128


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def quiet(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deepinv warns of its own deprecations
        return call()


@pytest.mark.parametrize("name", ALL)
def test_deepinvs_checks_over_our_operators(name):
    operator: LinearOperator = ALL[name]().to(torch.float32)
    physics = quiet(lambda: to_deepinv(operator))
    x = randn(2, *physics.img_size, dtype=torch.float32)
    y = physics.A(x)
    with torch.random.fork_rng():  # deepinv draws from the global generator
        torch.manual_seed(0)
        # <A x, v> - <x, A^T v> in single precision for a white v, whose norm is the root of its size.
        error = float(quiet(lambda: physics.adjointness_test(x)).abs())
        assert error < 1e-5 * float(norm(y, 0)) * y.numel() ** 0.5
        largest = quiet(lambda: physics.compute_norm(x[:1], max_iter=1000, tol=1e-6, squared=False, verbose=False))
    assert relative(physics.A_adjoint_A(x), physics.A_adjoint(physics.A(x))) < 1e-5
    # Power iterations come from below and stop early where the two largest singular values are close.
    assert 0.99 * operator.norm() < float(largest) < 1.001 * operator.norm()


def test_deepinvs_check_finds_a_wrong_adjoint():
    right = to_deepinv(mri(3, (6, 7), (7,)).to(torch.float32))
    wrong = deepinv.physics.LinearPhysics(A=right.A, A_adjoint=lambda y: 1.01 * right.A_adjoint(y))
    x = randn(2, 2, 6, 7, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        error = float(quiet(lambda: wrong.adjointness_test(x)).abs())
    y = right.A(x)
    assert error > 1e-5 * float(norm(y, 0)) * y.numel() ** 0.5


def test_deepinv_physics_are_exact_here():
    physics = deepinv.physics
    kernel = torch.rand(1, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask, maps = coin(7, 6).double(), randn(1, 3, 7, 6)
    operators = [
        *(from_deepinv(physics.Blur(kernel, padding=p), (1, 8, 7), dtype=torch.float64) for p in ("valid", "circular")),
        from_deepinv(quiet(lambda: physics.MRI(mask=mask, img_size=(7, 6))), (7, 6), dtype=DOUBLE),
        from_deepinv(physics.MultiCoilMRI(mask=mask, coil_maps=maps, img_size=(7, 6)), (7, 6), dtype=DOUBLE),
    ]
    for operator in operators:
        report = check_operator(operator)
        assert report.errors["adjoint"] < EXACT and report.errors["gradient"] < EXACT
        assert check_operator(operator.to(torch.float32)).errors["adjoint"] < 1e-6  # single precision at the border
    ours = MultiCoilMRI(maps[0], mask)
    x = randn(2, 7, 6)
    assert operators[-1].out_shape == (3, 7, 6) and relative(operators[-1](x), ours(x)) < 1e-6


def test_deepinv_there_and_back():
    for operator in (mri(3, (6, 7), (7,)), Identity((1, 5, 4), dtype=torch.float64)):
        physics = to_deepinv(operator)
        back = from_deepinv(physics, operator.in_shape, dtype=operator.in_dtype)
        x = randn(2, *operator.in_shape, dtype=operator.in_dtype)
        assert torch.equal(back(x), operator(x)) and torch.equal(back.gram(x), operator.gram(x))
        assert "LinearPhysics" in repr(back) and check_operator(back).errors["adjoint"] < EXACT


def test_deepinv_nonlinear():
    physics = deepinv.physics
    nonlinear = from_deepinv(physics.Physics(A=lambda x, **_: x.abs().sqrt()), (1, 4, 4))
    assert not nonlinear.linear and set(check_operator(nonlinear).errors) == {"batch"}
    again = to_deepinv(from_function(torch.abs, (4, 4), dtype=torch.complex64, linear=False))
    x = randn(2, 2, 4, 4, dtype=torch.float32)
    assert (
        not isinstance(again, physics.LinearPhysics) and relative(again.A(x), torch.complex(*x.unbind(1)).abs()) < 1e-6
    )


def test_deepinv_bad_input():
    physics = deepinv.physics
    check_one_line(lambda: from_deepinv(torch.nn.Identity(), (1, 4, 4)), "deepinv Physics", "Identity")
    blur = physics.Blur(torch.ones(1, 1, 3, 3))
    check_one_line(lambda: from_deepinv(blur, (4,)), "deepinv.Blur", "failed", "(4,)")
    check_one_line(lambda: from_deepinv(blur, (1, 4, 4), dtype=torch.float64), "deepinv.Blur", "float64")
    check_one_line(lambda: from_deepinv(blur, None), "in_shape")
    both = quiet(lambda: blur.stack(physics.Blur(torch.ones(1, 1, 3, 3))))
    check_one_line(lambda: from_deepinv(both, (1, 4, 4)), "TensorList")
