"""Functions of a matrix times a vector against its eigenvalues; every sample on its own."""

import math

import pytest
import torch
from sampler_cases import randn, relative
from torch import Tensor

from inverse.linalg import cg, lanczos

DTYPES = [torch.float64, torch.complex128]


def matrix(dtype: torch.dtype, size: int = 12) -> Tensor:
    """Hermitian positive definite, eigenvalues 0.01 to 3."""
    vectors = torch.linalg.qr(randn(size, size, dtype=dtype)).Q
    return (vectors * torch.linspace(0.01, 3, size, dtype=torch.float64)) @ vectors.mH


def root(t: Tensor) -> Tensor:
    return t.clamp(min=0).sqrt()


def dense(function, a: Tensor, b: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return b @ ((vectors * function(values)) @ vectors.mH).mT


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [root, torch.exp, lambda t: 1 / (t + 0.2)], ids=["root", "exp", "inverse"])
def test_functions_are_those_of_the_eigenvalues(dtype, function):
    a, b = matrix(dtype), randn(3, 12, dtype=dtype, seed=1)
    found = lanczos(lambda v: v @ a.mT, b, function, rtol=1e-12, max_iterations=30)
    assert relative(found.x, dense(function, a, b)) < 1e-10  # condition 300, full orthogonalisation
    assert int(found.iterations.max()) <= 13  # as many as there are values, complex or not, and one to see no change


def test_the_solve_is_conjugate_gradients_without_loss_of_orthogonality():
    """Step by step the same iterates while rounding is small, and exact after as many steps as there are values."""
    a, b = matrix(torch.float64), randn(2, 12, dtype=torch.float64, seed=1)

    def solve(steps: int):
        return lanczos(lambda v: v @ a, b, lambda t: 1 / (t + 0.1), residual=True, rtol=1e-14, max_iterations=steps)

    for steps in range(1, 8):
        other = cg(lambda v: v @ a + 0.1 * v, b, rtol=0.0, max_iterations=steps)
        assert relative(solve(steps).x, other.x) < 1e-9
    ill = torch.diag(torch.logspace(-8, 0, 12, dtype=torch.float64))
    exact = lanczos(lambda v: v @ ill, b, lambda t: 1 / t, residual=True, rtol=1e-12, max_iterations=12)
    slow = cg(lambda v: v @ ill, b, rtol=0.0, max_iterations=12)
    residuals = [relative(x @ ill, b) for x in (exact.x, slow.x)]
    assert residuals[0] < 1e-7 < 1e-3 < residuals[1]  # condition 1e8


@pytest.mark.parametrize("rtol", [1e-1, 1e-3])
def test_the_solve_stops_at_the_residual_that_is_asked_for(rtol):
    a, b = matrix(torch.complex128), randn(4, 12, seed=1)
    found = lanczos(lambda v: v @ a.mT, b, lambda t: 1 / (t + 0.1), residual=True, rtol=rtol)
    residual = torch.linalg.vector_norm(b - found.x @ a.mT - 0.1 * found.x, dim=1)
    assert bool((residual <= rtol * (1 + 1e-9) * torch.linalg.vector_norm(b, dim=1)).all())
    fewer = lanczos(
        lambda v: v @ a.mT, b[:1], lambda t: 1 / (t + 0.1), residual=True, max_iterations=int(found.iterations[0]) - 1
    )
    residual = torch.linalg.vector_norm(b[:1] - fewer.x @ a.mT - 0.1 * fewer.x)
    assert float(residual) > rtol * float(torch.linalg.vector_norm(b[:1]))  # it does not stop later than it must


def test_weights_are_those_of_the_vectors_that_were_asked_for():
    a, b, seen = matrix(torch.complex128), randn(2, 12, seed=1), []

    def apply(v: Tensor) -> Tensor:
        seen.append(v.clone())
        return v @ a.mT

    found = lanczos(apply, b, root, rtol=1e-6)
    combined = sum(w[:, None] * v for w, v in zip(found.weights.unbind(-1), seen, strict=True))
    assert relative(combined, found.x) < 1e-12


def test_a_sample_does_not_depend_on_its_batch():
    a = torch.stack([torch.eye(12, dtype=torch.float64), matrix(torch.float64)])
    b = randn(2, 12, dtype=torch.float64, seed=1) * torch.tensor([[1.0], [1e6]])
    whole = lanczos(lambda v: torch.einsum("bij,bj->bi", a, v), b, root, rtol=torch.tensor([1e-1, 1e-8]))
    assert whole.iterations.tolist() == [1, int(whole.iterations[1])] and int(whole.iterations[1]) > 8
    for k in range(2):
        alone = lanczos(lambda v, k=k: v @ a[k], b[k : k + 1], root, rtol=(1e-1, 1e-8)[k])
        assert relative(alone.x, whole.x[k : k + 1]) < 1e-12
        assert int(alone.iterations) == int(whole.iterations[k])


def test_zero_stays_zero_and_what_is_not_finite_is_named():
    b = torch.stack([torch.zeros(5), torch.ones(5), torch.full((5,), math.nan), 2 * torch.ones(5)]).double()

    def apply(v: Tensor) -> Tensor:
        return torch.where(torch.arange(4)[:, None] == 3, math.inf, 2 * v)

    found = lanczos(apply, b, root)
    assert bool((found.x[0] == 0).all()) and relative(found.x[1], math.sqrt(2) * b[1]) < 1e-12
    assert bool(found.x[2:].isnan().all()) and found.iterations.tolist()[:2] == [0, 1]


def test_shapes_and_batches_are_the_callers():
    a, b = matrix(torch.float64), randn(2, 3, 4, 3, dtype=torch.float64, seed=1)
    for batch_dims in (0, 1, 2):
        found = lanczos(lambda v: 4.0 * v, b, root, batch_dims=batch_dims)
        assert found.x.shape == b.shape and found.iterations.shape == b.shape[:batch_dims]
        assert relative(found.x, 2 * b) < 1e-12
    none = lanczos(lambda v: v @ a, b.new_zeros(0, 12), root)
    assert none.x.shape == (0, 12)
