"""Lifted and block operators against loops and dense matrices, and operators that are not linear."""

import math

import pytest
import torch
from cases_lift import CASES
from checks import check_one_line
from operator_cases import coin, cropped_mri, mri, randn
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import CoilMaps, Fourier, Identity, LinearOperator, Mask, MultiCoilMRI, Operator, stack
from inverse.operators.algebra import NonlinearComposition
from inverse.operators.blocks import BlockDiagonal, BlockRow, block_diagonal, block_row
from inverse.operators.lift import Lifted, LiftedNonlinear, lift
from inverse.operators.noise import Gaussian
from inverse.testing import check_operator

EXACT = 1e-12  # double precision, sums of up to a few thousand terms
DOUBLE = torch.complex128


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def dense(operator: LinearOperator) -> Tensor:
    """Matrix of an operator, columns the images of unit vectors."""
    n = math.prod(operator.in_shape)
    units = torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)
    return operator(units).reshape(n, -1).mT


class Magnitude(Operator):
    """|x|, as of phase retrieval."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__(shape, shape, in_dtype=DOUBLE, out_dtype=torch.float64)

    def _apply(self, x: Tensor) -> Tensor:
        return x.abs()


@pytest.mark.parametrize("name", CASES)
def test_contract(name):
    operator = CASES[name]()
    report = check_operator(operator)
    assert {"batch", "linear", "adjoint", "gradient", "gram"} <= set(report.errors)
    matrix = dense(operator)
    assert relative(dense(operator.H), matrix.mH) < EXACT
    # norm() promises 1e-4 for its square.
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert abs(operator.norm() - exact) <= 1e-4 * exact


def test_lift_is_the_loop_over_slices():
    a = mri(3, (6, 7), (7,))
    lifted = lift(a, 4)
    x, y = randn(2, 4, 6, 7), randn(2, 4, 3, 6, 7)
    assert (lifted.in_shape, lifted.out_shape) == ((4, 6, 7), (4, 3, 6, 7))
    for whole, one, v in ((lifted, a, x), (lifted.H, a.H, y), (lifted.gram, a.gram, x), (lifted.pinv, a.pinv, y)):
        loop = torch.stack([torch.stack([one(item) for item in sample]) for sample in v])
        assert relative(whole(v), loop) < EXACT


def test_lift_is_one_call(monkeypatch):
    a = mri(3, (6, 7), (7,))
    shapes = []
    apply = a._apply
    monkeypatch.setattr(a, "_apply", lambda x: shapes.append(tuple(x.shape)) or apply(x))
    lift(a, 4)(randn(2, 4, 6, 7))
    assert shapes == [(2, 4, 6, 7)]


def test_lift_keeps_what_the_operator_knows():
    a = cropped_mri()
    lifted = lift(a, 3)
    assert lifted.norm() == a.norm() and lifted.measurements == 3 * a.measurements
    assert torch.equal(lifted.support, a.support.expand(3, 8, 6)) and torch.equal(lifted.weights, a.weights)
    kept = coin(6, 1, seed=3).expand(6, 6)
    part = lift(mri(3, (6, 6), (6,)), 2).restrict(kept)
    assert isinstance(part, Lifted) and isinstance(part.operator, MultiCoilMRI)
    x = randn(2, 6, 6)
    assert torch.equal(part(x), lift(mri(3, (6, 6), (6,)), 2)(x) * kept)
    assert lift(a, 3).svd is None and lift(Fourier((3, 4)), 2).svd is not None
    assert not lift(Identity((3,)).restrict([0]) + Identity((3,)).restrict([1]), 2).has_pinv


class Tells(Identity):
    """Data that show their own noise."""

    def noise_of(self, y: Tensor) -> Gaussian:
        return Gaussian(float(y.std()))


def test_noise_shown_by_the_data_is_that_of_all_slices():
    y = randn(2, 3, 4, dtype=torch.float32)
    assert lift(Tells((3, 4)), 2).noise_of(y).sigma == float(y.std())
    assert lift(Identity((3, 4)), 2).noise_of(y) is None


def test_block_diagonal_is_the_block_matrix():
    parts = [Mask(coin(5, 4, seed=i), dtype=torch.float64) for i in range(3)]
    operator = block_diagonal(parts)
    assert isinstance(operator, BlockDiagonal) and (operator.in_shape, operator.out_shape) == ((3, 5, 4), (3, 5, 4))
    assert torch.equal(dense(operator), torch.block_diag(*(dense(a) for a in parts)))
    assert torch.equal(operator.weights, torch.stack([a.weights for a in parts]))
    assert operator.measurements == sum(a.measurements for a in parts)
    assert operator.norm() == max(a.norm() for a in parts)
    assert torch.equal(operator.svd.s, operator.weights)
    scalars = block_diagonal([Identity((2, 3)), 3 * Identity((2, 3))]).svd  # s of each is one number
    assert scalars.s.shape == (2, 2, 3) and scalars.s[1].eq(3).all()
    mixed = block_diagonal([Fourier((3, 4)), Fourier((3, 4)) @ Fourier((3, 4))])
    assert mixed.svd is None and mixed.weights is None and mixed.support is None


def test_block_row_is_the_row_of_matrices():
    for a, b in (
        (mri(2, (6, 7), (7,)), mri(2, (6, 7), (6, 7), seed=5)),
        (mri(2, (6, 7), (7,)), Identity((2, 6, 7), dtype=DOUBLE)),  # other axes: flattened
    ):
        row = block_row([a, b])
        assert isinstance(row, BlockRow) and relative(dense(row), torch.cat((dense(a), dense(b)), 1)) < EXACT
        u, v = randn(2, *a.in_shape), randn(2, *b.in_shape, seed=1)
        x = row.join([u, v])
        assert x.shape == (2, *row.in_shape) and relative(row(x), a(u) + b(v)) < EXACT
        assert all(torch.equal(part, w) for part, w in zip(row.split(x), (u, v), strict=True))
        y = randn(2, *row.out_shape)
        assert all(torch.equal(part, w) for part, w in zip(row.split(row.H(y)), (a.H(y), b.H(y)), strict=True))


def test_block_row_measures_where_any_part_does():
    a, b = (Mask(coin(5, 4, seed=i), dtype=torch.float64) for i in range(2))
    assert torch.equal(block_row([a, b]).weights > 0, a.mask | b.mask)
    assert block_row([a, Identity((5, 4), dtype=torch.float64)]).weights is None
    row = block_row([cropped_mri(), MultiCoilMRI(randn(3, 8, 6), coin(6))])
    assert torch.equal(row.support, torch.cat((cropped_mri().support, torch.ones(8, 6, dtype=torch.bool))))


def test_nonlinear_operators_compose():
    magnitude, fourier = Magnitude((2, 5, 4)), Fourier((2, 5, 4), dtype=DOUBLE)
    mask = Mask(coin(5, 4), (2, 5, 4), dtype=torch.float64)
    maps = CoilMaps(randn(2, 5, 4))
    x = randn(3, 5, 4)
    for operator, expected in (
        (magnitude @ (fourier @ maps), fourier(maps(x)).abs()),
        (magnitude @ fourier @ maps, fourier(maps(x)).abs()),
        (mask @ magnitude @ fourier @ maps, mask(fourier(maps(x)).abs())),
    ):
        assert isinstance(operator, NonlinearComposition) and not operator.linear
        assert (operator.in_shape, operator.out_shape, operator.out_dtype) == ((5, 4), (2, 5, 4), torch.float64)
        assert relative(operator(x), expected) < EXACT and set(check_operator(operator).errors) == {"batch"}
        variable = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(operator, variable)
        assert "(5, 4)" in repr(operator) and "\n" not in repr(operator)
    measured = mask @ magnitude @ fourier
    assert torch.equal(measured.weights, mask.weights) and measured.to(torch.float32).in_dtype == torch.complex64
    assert (magnitude @ fourier @ maps).support is None
    assert isinstance(fourier @ maps, LinearOperator)


def test_nonlinear_operators_lift():
    operator = lift(Magnitude((5, 4)) @ Fourier((5, 4), dtype=DOUBLE), 3)
    assert isinstance(operator, LiftedNonlinear) and operator.out_shape == (3, 5, 4) and operator.weights is None
    x = randn(2, 3, 5, 4)
    assert relative(operator(x), Fourier((5, 4), dtype=DOUBLE)(x).abs()) < EXACT and operator.support is None
    assert set(check_operator(operator).errors) == {"batch"} and "(3, 5, 4)" in repr(operator)


@pytest.mark.parametrize("operator", [Magnitude((5, 4)), Magnitude((5, 4)) @ Fourier((5, 4), dtype=DOUBLE)])
def test_nonlinear_operators_have_no_adjoint(operator):
    x = randn(5, 4)
    for call in (lambda: operator.H, lambda: operator.gram(x), lambda: operator.pinv(x.real), operator.norm):
        check_one_line(call, "nonlinear: has no", "choose a sampler that takes gradients")
    check_one_line(lambda: operator.H, "has no adjoint")
    check_one_line(lambda: lift(operator, 2).H, "has no adjoint")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: lift(Identity((4,)), 0), ("positive number", "got 0")),
        (lambda: lift(Identity((4,)), 2.5), ("positive number", "2.5")),
        (lambda: lift(Identity((4,)), True), ("positive number",)),
        (lambda: lift(torch.ones(4), 2), ("expected an operator", "Tensor")),
        (lambda: Lifted(Magnitude((4,)), 2), ("linear operator", "lift()")),
        (lambda: block_diagonal([]), ("at least one",)),
        (lambda: block_diagonal([Identity((4,)), Identity((5,))]), ("equal in_shape, out_shape", "(5,)")),
        (lambda: block_diagonal([Identity((4,)), Identity((4,), dtype=torch.float64)]), ("equal in_dtype, out_dtype",)),
        (lambda: block_diagonal([Magnitude((4,))]), ("linear operators",)),
        (lambda: stack([Magnitude((4,))]), ("stack", "linear operators")),
        (lambda: stack([Identity((4,)), torch.ones(4)]), ("stack", "linear operators")),
        (lambda: block_row([]), ("at least one",)),
        (lambda: block_row([Identity((4,)), Identity((5,))]), ("out_shape", "(5,)")),
        (lambda: block_row([Identity((4,)), Identity((4,), dtype=torch.float64)]), ("equal in_dtype, out_dtype",)),
        (lambda: block_row([Magnitude((4,))]), ("linear operators",)),
        (lambda: block_row([Identity((4,)), Identity((4,))]).join([torch.ones(4), torch.ones(5)]), ("part", "(5,)")),
        (lambda: block_row([Identity((4,)), Identity((4,))]).join([torch.ones(4)]), ("2 parts", "got 1")),
        (lambda: Magnitude((4,)) @ Identity((4,)), ("A @ B",)),
    ],
)
def test_bad_construction_is_one_line(build, words):
    check_one_line(build, *words)


def test_operators_multiply_operators_only():
    with pytest.raises(TypeError):
        Magnitude((4,)) @ torch.ones(4)
    with pytest.raises(TypeError):
        Identity((4,)) @ torch.ones(4)
