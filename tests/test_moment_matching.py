"""Moment matching: exact means and draws for Gaussians, in few products; what it does when J is no covariance."""

import itertools
import math

import pytest
import torch
from sampler_cases import mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.operators.matrix import Matrix
from inverse.priors import GaussianMixturePrior, GaussianPrior, from_function
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import DDIM, Bridge, DiffusionSampler, Problem
from inverse.samplers.conditionings import MomentMatching

EXACT = MomentMatching(residual=1e-12, rtol=1e-13)
DENSE = 1e-9  # condition 1e3 to 1e4; the root of small eigenvalues
DTYPES = [torch.float64, torch.complex128]
PIXELS, DATA = 12, 7


def gaussian(dtype: torch.dtype) -> GaussianPrior:
    root = randn(PIXELS, PIXELS, dtype=dtype, seed=1) / math.sqrt(PIXELS)
    return GaussianPrior(randn(3, 4, dtype=dtype, seed=2), root @ root.mH + 0.05 * torch.eye(PIXELS, dtype=dtype))


def problem(dtype: torch.dtype, sigma_y: float = 0.3, items: int = 2) -> tuple[Problem, Tensor]:
    matrix = randn(DATA, PIXELS, dtype=dtype, seed=3)
    y = randn(1, DATA, dtype=dtype, seed=4).expand(items, -1)
    return Problem.build(Matrix(matrix, (3, 4)), y, sigma_y), matrix


def moments(prior: GaussianPrior, matrix: Tensor, x: Tensor, sigma: float, sigma_y: float) -> tuple[Tensor, Tensor]:
    """D and C = sigma^2 J as matrices, and the gain C A^H (A C A^H + sigma_y^2)^-1."""
    c = prior.covariance
    c = c - c @ torch.linalg.solve(c + sigma**2 * torch.eye(len(c), dtype=c.dtype), c)
    gain = c @ matrix.mH @ torch.linalg.inv(matrix @ c @ matrix.mH + sigma_y**2 * torch.eye(len(matrix), dtype=c.dtype))
    return c, gain


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma_y", [0.3, 0.0])
@pytest.mark.parametrize("sigma", [0.1, 0.8, 50.0])
def test_means_and_draws_are_those_of_dense_matrices(dtype, sigma_y, sigma):
    prior, (built, matrix) = gaussian(dtype), problem(dtype, sigma_y)
    x = randn(2, 3, 4, dtype=dtype, seed=5) * (1 + sigma)
    covariance, gain = moments(prior, matrix, x, sigma, sigma_y)
    d = prior.denoise(x, sigma)
    for draw in (False, True):
        found = EXACT.estimate(built, prior, x, sigma, SampleRandom(0, range(2)), sigma_next=0.0, draw=draw)
        u, e = d.flatten(1), torch.zeros(2, DATA, dtype=dtype)
        if draw:
            random = SampleRandom(0, range(2))
            values, vectors = torch.linalg.eigh(covariance)
            root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mH
            u = u + random.normal((3, 4), dtype=dtype).flatten(1) @ root.mT
            e = sigma_y * random.normal((DATA,), dtype=dtype)
        expected = u + (built.y - u @ matrix.mT - e) @ gain.mT
        assert relative(found.x0.flatten(1), expected) < DENSE
        assert relative(found.denoised, d) < DENSE
        if sigma_y == 0:
            assert relative(found.x0.flatten(1) @ matrix.mT, built.y) < DENSE


def standard_errors(samples: Tensor, posterior: GaussianPrior) -> tuple[float, float]:
    """Largest error of mean and of covariance, in the posterior's own modes, in standard errors."""
    modes = (samples.flatten(1) - posterior.mean.flatten()) @ posterior.vectors.conj() / posterior.values.sqrt()
    modes = torch.view_as_real(modes).flatten(1) if modes.is_complex() else modes
    n, size = modes.shape
    error = modes.mT @ modes / n - torch.eye(size, dtype=modes.dtype)
    error = error / (1 + torch.eye(size, dtype=modes.dtype)).sqrt()
    return float(modes.mean(0).abs().max()) * math.sqrt(n), float(error.abs().max()) * math.sqrt(n)


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float64, 2), (torch.complex128, 2), (torch.float64, 5)])
def test_samples_of_a_gaussian_are_exact_at_any_number_of_steps(dtype, steps):
    prior, (built, matrix) = gaussian(dtype), problem(dtype, items=1)
    sampler = DiffusionSampler(MomentMatching(), Bridge(draw_last=True), steps)
    samples = sampler.run(built, prior, samples=1500, seed=0).samples[:, 0]
    mean, covariance = standard_errors(samples, prior.posterior(matrix, built.y[0], 0.3))
    # The largest of 24 normal values exceeds 4.2, of 300 exceeds 4.8, once in 2000 times.
    assert mean < 4.2 and covariance < 4.8
    # Ancestral steps, without the covariance of the draw, lack most of the variance.
    plain = DiffusionSampler(MomentMatching(), DDIM(1.0), steps).run(built, prior, samples=500, seed=0).samples[:, 0]
    assert standard_errors(plain, prior.posterior(matrix, built.y[0], 0.3))[1] > 8


def test_the_posterior_of_a_mixture_has_its_own_covariance_at_every_x():
    """C is not a matrix of the prior but of x: between two modes it is their distance."""
    one = torch.ones(1, dtype=torch.float64)
    parts = [GaussianPrior(s * one, 0.01 * torch.eye(1, dtype=torch.float64)) for s in (-1, 1)]
    prior = GaussianMixturePrior(one.repeat(2), parts)
    built = Problem.build(Matrix(torch.eye(1, dtype=torch.float64)), torch.full((2, 1), 0.2, dtype=torch.float64), 0.5)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    d, c = prior.moments(x, 0.5)
    assert float(c[0]) > 0.9 and float(c[1]) < 0.05
    found = EXACT.estimate(built, prior, x, 0.5, SampleRandom(0, range(2)), sigma_next=0.0).x0
    assert relative(found, d + c / (c + 0.25) * (0.2 - d)) < DENSE


def test_the_solve_stops_at_a_share_of_the_noise_of_the_data():
    prior, (built, matrix) = gaussian(torch.complex128), problem(torch.complex128, sigma_y=1.0)
    x = randn(2, 3, 4, seed=5)
    covariance, gain = moments(prior, matrix, x, 0.8, 1.0)
    d = prior.denoise(x, 0.8).flatten(1)
    exact = d + (built.y - d @ matrix.mT) @ gain.mT
    used = []
    for residual in (0.3, 0.03, 0.003):
        fresh = problem(torch.complex128, sigma_y=1.0)[0]
        found = MomentMatching(residual=residual).estimate(
            fresh, prior, x, 0.8, SampleRandom(0, range(2)), sigma_next=0.0
        )
        error = found.x0.flatten(1) - exact
        # In standard deviations of x0 given x and y no more than the share, over all m numbers together.
        given = covariance - gain @ matrix @ covariance
        length = (error.conj() * torch.linalg.solve(given, error.mT).mT).sum(1).real.sqrt()
        assert float(length.max()) <= residual * math.sqrt(2 * DATA)
        used.append(int(fresh.work.cg_iterations))
    assert used[0] < used[1] < used[2] <= DATA


def test_levels_that_the_next_one_makes_good_are_solved_less_tightly():
    prior, products = gaussian(torch.float64), []
    for sigma_next in (0.0, 5.0, 15.0):
        built = problem(torch.float64)[0]
        x = randn(2, 3, 4, dtype=torch.float64) * 20
        MomentMatching(rtol=1e-3).estimate(
            built, prior, x, 20.0, SampleRandom(0, range(2)), sigma_next=sigma_next, draw=True
        )
        products.append(built.work.nfe_backward)
    assert products[0] > products[1] > products[2] >= 2


@pytest.mark.parametrize("draw", [False, True])
def test_samples_do_not_depend_on_the_batch(draw):
    operator, prior = mri(), stationary((8, 6))
    y = observe(operator, prior.sample(3, torch.Generator().manual_seed(4)), 0.1) * torch.tensor([1, 1e2, 1]).reshape(
        3, 1, 1, 1
    )
    whole = Problem.build(operator, y, 0.1)
    x = randn(3, 8, 6, seed=3)
    together = MomentMatching().estimate(whole, prior, x, 0.7, SampleRandom(0, range(3)), sigma_next=0.2, draw=draw).x0
    for k in range(3):
        alone = (
            MomentMatching()
            .estimate(whole.take([k]), prior, x[k : k + 1], 0.7, SampleRandom(0, [k]), sigma_next=0.2, draw=draw)
            .x0
        )
        assert relative(alone, together[k : k + 1]) < 1e-9  # rounding


def test_what_was_not_measured_is_not_solved_for():
    operator, prior = mri(), stationary((8, 6))
    y = observe(operator, prior.sample(2, torch.Generator().manual_seed(4)), 0.1)
    built = Problem.build(operator, y + 1e3 * (1 - operator.weights), 0.1)
    clean = Problem.build(operator, y, 0.1)
    x = randn(2, 8, 6, seed=3)
    draws = [
        MomentMatching().estimate(p, prior, x, 0.7, SampleRandom(0, range(2)), sigma_next=0.0, draw=True).x0
        for p in (built, clean)
    ]
    assert torch.equal(*draws)


@pytest.mark.parametrize("slope", [-1.0, 0.0])
def test_a_jacobian_that_is_no_covariance_leaves_a_finite_image(slope):
    """A network's may have negative values, and none at all: then the data move nothing."""
    prior: Denoiser = from_function(lambda x, sigma: slope * x, channels=1)
    built, _ = problem(torch.float64)
    x = randn(2, 3, 4, dtype=torch.float64)
    for sigma_y, draw in itertools.product((0.3, 0.0), (False, True)):
        noisy = Problem.build(built.operator, built.y, sigma_y)
        found = EXACT.estimate(noisy, prior, x, 0.8, SampleRandom(0, range(2)), sigma_next=0.0, draw=draw)
        assert bool(torch.isfinite(found.x0).all())
        if slope == 0:
            assert float(found.x0.abs().max()) == 0


def test_negative_values_of_a_jacobian_count_as_none():
    """Half of the modes of J are negative: nothing is known to vary there, and data of little noise move nothing."""
    slopes = torch.linspace(-0.9, 0.9, 12, dtype=torch.float64)
    basis = torch.linalg.qr(randn(12, 12, dtype=torch.float64, seed=3))[0]
    jacobian = (basis * slopes) @ basis.mT
    prior: Denoiser = from_function(lambda x, sigma: (x.flatten(1) @ jacobian).reshape(x.shape), channels=1)
    built = Problem.build(Matrix(torch.eye(12, dtype=torch.float64), (3, 4)), randn(2, 12, dtype=torch.float64), 1e-3)
    x = randn(2, 3, 4, dtype=torch.float64, seed=1)
    found = EXACT.estimate(built, prior, x, 0.8, SampleRandom(0, range(2)), sigma_next=0.0)
    moved = (found.x0 - found.denoised).flatten(1) @ basis
    variance = 0.8**2 * slopes.clamp(min=0)
    expected = variance / (variance + 1e-6) * ((built.y - found.denoised.flatten(1)) @ basis)
    assert relative(moved, expected) < 1e-9


def test_a_hundred_products_reach_an_exact_posterior():
    """Two levels, 8 x 8 pixels of correlation length 2, half of them seen: products, as they are counted."""
    rows = torch.arange(8, dtype=torch.float64)
    along = torch.exp(-((rows[:, None] - rows) ** 2) / 8)
    prior = GaussianPrior(
        torch.zeros(8, 8, dtype=torch.float64),
        torch.kron(along, along) + 1e-4 * torch.eye(64, dtype=torch.float64),
    )
    seen = (37 * torch.arange(64) + 11) % 64 < 32
    matrix = torch.eye(64, dtype=torch.float64)[seen]
    y = prior.sample(1, torch.Generator().manual_seed(0)).flatten(1) @ matrix.mT
    y = y + 0.05 * randn(1, 32, dtype=torch.float64)
    built = Problem.build(Matrix(matrix, (8, 8)), y, 0.05)
    sampler = DiffusionSampler(MomentMatching(), Bridge(draw_last=True), grid=(25.0, 0.2, 0.0))
    solution = sampler.run(built, prior, samples=500, seed=0)
    posterior = prior.posterior(matrix, y[0], 0.05)
    std = posterior.covariance.diagonal().sqrt()
    ratio = solution.samples[:, 0].flatten(1).var(0) / std**2
    error = (solution.mean[0].flatten() - posterior.mean.flatten()) / std
    assert solution.stats.nfe == 2 and solution.stats.nfe_backward <= 100
    assert float(ratio.mean()) == pytest.approx(1, abs=0.04)  # sqrt(2 / 500) = .063 a pixel, less for their mean
    assert float(error.square().mean().sqrt()) < 0.08  # sqrt(1 / 500) = .045 is chance, over 64 correlated pixels
