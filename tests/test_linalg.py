"""Inner products, conjugate gradients and the largest eigenvalue, against dense algebra and published numbers."""

import math

import pytest
import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg import Status, cg, from_channels, inner, largest_eigenvalue, norm, scale_samples, to_channels
from inverse.operators import MultiCoilMRI

EXACT = 1e-12  # double precision, sums of a few thousand terms


def randn(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def positive(n: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    """Hermitian matrix with eigenvalues in [1, ~6]."""
    a = randn(n, n, dtype=dtype, seed=seed) / math.sqrt(n)
    return a.mH @ a + torch.eye(n, dtype=dtype)


def times(matrix: Tensor):
    return lambda x: x @ matrix.mT


def mri(size: int = 32, coils: int = 4) -> MultiCoilMRI:
    """Smooth normalised maps and every fourth line, four lines in the centre."""
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    angles = 2 * math.pi * torch.arange(coils) / coils
    maps = torch.stack(
        [torch.exp(-((axis[:, None] - a.sin()) ** 2 + (axis - a.cos()) ** 2) / 2 + 1j * a) for a in angles]
    )
    mask = torch.zeros(size, dtype=torch.bool)
    mask[::4] = True
    mask[size // 2 - 2 : size // 2 + 2] = True
    return MultiCoilMRI(maps / maps.abs().square().sum(0).sqrt(), mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_inner_is_the_real_part_per_sample(dtype, batch):
    a, b = randn(*batch, 4, 5, dtype=dtype, seed=1), randn(*batch, 4, 5, dtype=dtype, seed=2)
    expected = (a.conj() * b).sum((-2, -1)).real
    value = inner(a, b, len(batch))
    assert value.shape == batch and not value.is_complex()
    assert torch.allclose(value, expected, rtol=EXACT, atol=EXACT)
    assert torch.allclose(norm(a, len(batch)), inner(a, a, len(batch)).sqrt(), rtol=EXACT)


def test_inner_of_a_conjugate_view():
    # A lazily conjugated tensor has no real view of its own.
    a, b = randn(2, 6, seed=1), randn(2, 6, seed=2)
    assert torch.allclose(inner(a.conj(), b), (a * b).sum(-1).real, rtol=EXACT)


def test_channels_there_and_back():
    x = randn(2, 3, 4, 5)
    channels = to_channels(x)
    assert channels.shape == (2, 3, 2, 4, 5) and torch.equal(channels[:, :, 1], x.imag)
    assert torch.equal(from_channels(channels), x)
    assert from_channels(channels[:0]).shape == (0, 3, 4, 5)
    with pytest.raises(InputError, match="complex"):
        to_channels(x.real)
    with pytest.raises(InputError, match="2, y, x"):
        from_channels(x.real)


def test_scale_samples():
    x = randn(3, 4, 5)
    factor = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.equal(scale_samples(factor, x)[2], 3 * x[2])
    assert torch.equal(scale_samples(2.0, x), 2 * x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("warm", [False, True])
def test_cg_solves_a_dense_system(dtype, warm):
    matrix, b = positive(20, dtype), randn(3, 20, dtype=dtype, seed=3)
    x0 = randn(3, 20, dtype=dtype, seed=4) if warm else None
    result = cg(times(matrix), b, x0, rtol=1e-13, max_iterations=60)
    expected = torch.linalg.solve(matrix, b.mT).mT
    # Condition number below 10: the residual's 1e-13 becomes at most 1e-12 in x.
    assert float(norm(result.x - expected, 0) / norm(expected, 0)) < 1e-12
    assert result.status is Status.CONVERGED and result.statuses == [Status.CONVERGED] * 3
    assert result.x.dtype == dtype and result.residual.dtype == torch.float64
    assert bool((result.residual <= 1e-13).all())


def test_cg_hermitian_on_mri_within_its_bound():
    # gamma = 25, kappa = 26: the bound alone allows 2.5e-7; wide smooth maps cluster the spectrum and give 1e-10.
    operator, gamma = mri(), 25.0
    truth, start = randn(32, 32, seed=5), randn(32, 32, seed=6)

    def system(x: Tensor) -> Tensor:
        return x + gamma * operator.gram(x)

    b = system(truth)

    def error(iterations: int) -> float:
        result = cg(system, b, start, batch_dims=0, rtol=0, max_iterations=iterations)
        return float(norm(result.x - truth, 0) / norm(start - truth, 0))

    assert error(40) < 1e-9
    # The bound 2 q^M holds in the norm of the system; sqrt(kappa) turns it into the Euclidean one.
    kappa = 1 + gamma * operator.norm() ** 2 * 1.001
    rate = (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)
    for iterations in (1, 5, 20):
        assert error(iterations) <= 2 * math.sqrt(kappa) * rate**iterations
    assert bilinear_cg(system, b, start, 40, truth) > 1e-3  # the fault that the test is for


def bilinear_cg(system, b: Tensor, x: Tensor, iterations: int, truth: Tensor) -> float:
    """CG with r^T r in the place of r^H r: relative error after some iterations."""
    start = norm(x - truth, 0)
    r = b - system(x)
    p, rr = r, (r * r).sum()
    for _ in range(iterations):
        q = system(p)
        alpha = rr / (p * q).sum()
        x, r = x + alpha * p, r - alpha * q
        rr, last = (r * r).sum(), rr
        p = r + rr / last * p
    return float(norm(x - truth, 0) / start)


@pytest.mark.parametrize("check_every", [1, 3, 100])
def test_cg_samples_do_not_see_each_other(check_every):
    # One sample scaled by 1e3, one that is solved at the start.
    matrix, b = positive(20), randn(4, 20, seed=7)
    b[1] *= 1e3
    x0 = randn(4, 20, seed=8)
    x0[2] = torch.linalg.solve(matrix, b[2])
    together = cg(times(matrix), b, x0, rtol=1e-4, max_iterations=50, check_every=check_every)
    order = torch.tensor([2, 0, 3, 1])
    permuted = cg(times(matrix), b[order], x0[order], rtol=1e-4, max_iterations=50)
    for i in range(4):
        alone = cg(times(matrix), b[i : i + 1], x0[i : i + 1], rtol=1e-4, max_iterations=50)
        place = int((order == i).nonzero())
        for other in (together.x[i], permuted.x[place]):
            assert float(norm(alone.x[0] - other, 0) / norm(other, 0)) < EXACT
        assert int(together.iterations[i]) == int(alone.iterations[0]) == int(permuted.iterations[place])
    assert int(together.iterations[2]) == 0 and torch.equal(together.x[2], x0[2])


def test_cg_consistent_data_need_no_iteration():
    # y = A D returns D without 0/0.
    operator = mri(16).to(torch.float32)
    image = randn(2, 16, 16, dtype=torch.complex64)
    b = image + 5 * operator.H(operator(image))
    result = cg(lambda x: x + 5 * operator.gram(x), b, image, rtol=1e-5)  # float32 rounding of the residual: 1e-7
    assert result.iterations.tolist() == [0, 0] and torch.equal(result.x, image)
    assert result.status is Status.CONVERGED and bool(torch.isfinite(result.residual).all())


def test_cg_zero_right_hand_side():
    result = cg(times(positive(6)), torch.zeros(2, 6, dtype=torch.complex128))
    assert not bool(result.x.any()) and result.residual.tolist() == [0, 0] and result.iterations.tolist() == [0, 0]
    warm = cg(times(positive(6)), torch.zeros(2, 6, dtype=torch.complex128), randn(2, 6), rtol=1e-10)
    assert warm.status is Status.CONVERGED and float(norm(warm.x, 0)) < 1e-8


def test_cg_applications_counted():
    matrix, calls = positive(8), []

    def apply(x: Tensor) -> Tensor:
        calls.append(1)
        return x @ matrix.mT

    b = randn(2, 8)
    cg(apply, b, rtol=0, max_iterations=3)
    assert len(calls) == 3
    cg(apply, b, torch.zeros_like(b), rtol=0, max_iterations=3)
    assert len(calls) == 7
    assert torch.equal(cg(apply, b, b, max_iterations=0).x, b)


def test_cg_says_how_it_ended():
    b = randn(3, 8)
    limited = cg(times(positive(8)), b, rtol=1e-12, max_iterations=2)
    assert limited.status is Status.MAX_ITERATIONS and limited.iterations.tolist() == [2, 2, 2]
    negative = cg(lambda x: -x, b)
    assert negative.status is Status.NOT_POSITIVE and not bool(negative.x.any())
    b[1, 0] = math.nan
    partly = cg(times(positive(8)), b, torch.ones_like(b), rtol=1e-10)
    assert partly.statuses == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED]
    assert bool(torch.isfinite(partly.x).all()) and partly.residual.isnan().tolist() == [False, True, False]
    broken = cg(lambda x: x * torch.tensor([1.0, math.nan, 1.0])[:, None], randn(3, 8))
    assert broken.statuses == [Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED]
    assert bool(torch.isfinite(broken.x).all())
    assert all(status.value.endswith(".") for status in Status)


def test_cg_singular_system_projects():
    # sigma_y = 0: from D, CG reaches D + A^+ (y - A D), the projection, although A^H A has a null space.
    operator = mri(16)
    image, start = randn(16, 16, seed=9), randn(16, 16, seed=10)
    full = torch.stack([operator.gram(e.reshape(16, 16)).flatten() for e in torch.eye(256, dtype=torch.complex128)])
    gram = full.mT
    inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)
    expected = start + (inverse @ (gram @ (image - start).flatten())).reshape(16, 16)
    result = cg(operator.gram, operator.gram(image), start, batch_dims=0, rtol=1e-12, max_iterations=2000)
    # A singular value near the noise-free limit amplifies the residual; 1e-4 is far from the distance of start (1).
    assert float(norm(operator(result.x - expected), 0) / norm(operator(image), 0)) < 1e-6
    assert float(norm(result.x - expected, 0) / norm(start - expected, 0)) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_cg_leaves_its_inputs_and_takes_any_batch(dtype):
    b, x0 = randn(2, 3, 4, 5, dtype=dtype), randn(2, 3, 4, 5, dtype=dtype, seed=1)
    kept = b.clone(), x0.clone()
    result = cg(lambda x: x, b, x0, batch_dims=2)  # the identity hands back its own argument
    assert torch.equal(b, kept[0]) and torch.equal(x0, kept[1])
    assert result.x.shape == b.shape and result.iterations.shape == (2, 3) and result.x.dtype == dtype
    assert torch.allclose(result.x, b, atol=1e-5)
    empty = cg(lambda x: x, b[:0], x0[:0])
    assert empty.x.shape == (0, 3, 4, 5) and empty.status is Status.CONVERGED
    with pytest.raises(InputError, match="x0 like b"):
        cg(lambda x: x, b, x0[:1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_largest_eigenvalue_against_dense(dtype):
    matrix = positive(30, dtype)
    exact = float(torch.linalg.eigvalsh(matrix)[-1])
    state = torch.get_rng_state()
    value = largest_eigenvalue(times(matrix), (30,), dtype=dtype, rtol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    assert abs(value - exact) <= 1e-6 * exact
    assert value == largest_eigenvalue(times(matrix), (30,), dtype=dtype, rtol=1e-6)


def test_largest_eigenvalue_of_simple_operators():
    assert largest_eigenvalue(lambda x: 0 * x, (4, 4)) == 0
    assert largest_eigenvalue(lambda x: x, (0,)) == 0
    assert abs(largest_eigenvalue(lambda x: 3 * x, (4, 4)) - 3) < 1e-5  # complex64 rounding
