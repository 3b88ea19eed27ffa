"""MCGDiff: its weights and steps by exact values, its limit on posteriors that are known, and the published variant."""

import math
import pickle

import pytest
import torch
from known_posteriors import wasserstein
from sampler_cases import EXACT, PROBLEMS, mri, observe, randn, relative, stationary
from test_twisted import bimodal
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import Identity, Mask
from inverse.priors import GaussianPrior
from inverse.samplers import Problem, karras
from inverse.samplers.ddrm import _Coefficients as Coefficients
from inverse.samplers.mcgdiff import MCGDiff, _Seen

KAPPA = 1e-3


def identity(y: Tensor, sigma_y: float) -> Problem:
    """y = x + n, one row of pixels per item."""
    return Problem.build(Identity(tuple(y.shape[1:]), dtype=y.dtype), y, sigma_y)


def seen(y: Tensor, sigma_y: float) -> _Seen:
    return _Seen(Coefficients.of(identity(y, sigma_y)), KAPPA)


def log_normal(misfit: float, variance: float) -> float:
    return -(misfit**2) / (2 * variance) - math.log(2 * math.pi * variance) / 2


def step_by_hand(x: float, denoised: float, y: float, sigma: float, sigma_next: float, tau: float) -> tuple[float, ...]:
    """Predictive mean and variance at the stop, and V there and before."""
    stop = max(sigma_next, tau)
    q = stop**2 / sigma**2
    around = [level**2 - tau**2 + KAPPA**2 * (1 + tau**2) for level in (stop, sigma)]
    return q * x + (1 - q) * denoised, stop**2 * (1 - q), *around


@pytest.mark.parametrize(("sigma", "sigma_next"), [(2.0, 1.0), (2.0, 0.5), (2.0, 0.2), (0.6, 0.0)])
def test_weights_are_predictive_over_present_potentials(sigma, sigma_next):
    x, denoised, y, tau = 0.7, 0.4, 0.1, 0.5
    data = seen(torch.tensor([[[y]]], dtype=torch.float64), tau)
    point, estimate = (torch.tensor([[[v]]], dtype=torch.float64) for v in (x, denoised))
    mean, spread, after, before = step_by_hand(x, denoised, y, sigma, sigma_next, tau)
    potential = data.log_normal(data.data.y - point, data.variance(sigma))
    assert float(potential) == pytest.approx(log_normal(y - x, before), rel=1e-12)
    found = data.step(sigma, sigma_next).increments(point, estimate, potential)
    assert float(found) == pytest.approx(log_normal(y - mean, spread + after) - log_normal(y - x, before), rel=1e-10)


def test_what_is_noisier_than_the_level_moves_freely_and_has_no_weight():
    data = seen(torch.tensor([[[0.1]]], dtype=torch.float64), 0.5)
    step = data.step(0.4, 0.2)
    x, denoised, held = (torch.tensor([[[v]]], dtype=torch.float64) for v in (0.7, 0.4, -3.0))
    assert float(step.increments(x, denoised, held)) == 0.0
    noise = torch.tensor([[[1.5]]], dtype=torch.float64)
    moved, potential = step.move(x, denoised, held, (noise, noise))
    q = 0.25
    assert float(moved) == pytest.approx(q * 0.7 + (1 - q) * 0.4 + 0.2 * math.sqrt(1 - q) * 1.5, rel=1e-12)
    assert float(potential) == -3.0


@pytest.mark.parametrize("sigma_next", [1.0, 0.5, 0.2, 0.0])
def test_a_step_passes_through_the_data_at_their_own_level(sigma_next):
    """From x at 2: the bridge to the data at level tau = 0.5, and if the step leads below, a free bridge from there."""
    count, tau, y, x, denoised = 20_000, 0.5, 0.1, 0.7, 0.4
    data = seen(torch.full((count, 1, 1), y, dtype=torch.float64), tau)
    same = [torch.full((count, 1, 1), v, dtype=torch.float64) for v in (x, denoised)]
    step = data.step(2.0, sigma_next)
    noise = randn(count, 1, 1, dtype=torch.float64), randn(count, 1, 1, dtype=torch.float64, seed=1)
    moved, _ = step.move(*same, torch.zeros(count, 1, 1, dtype=torch.float64), noise)
    mean, spread, around, _ = step_by_hand(x, denoised, y, 2.0, sigma_next, tau)
    gain = spread / (spread + around)
    mean, variance = gain * y + (1 - gain) * mean, gain * around
    if sigma_next < tau:
        q = sigma_next**2 / tau**2
        mean, variance = q * mean + (1 - q) * denoised, q**2 * variance + sigma_next**2 * (1 - q)
    assert abs(float(moved.mean()) - mean) < 4 * math.sqrt(variance / count) + 1e-12
    assert float(moved.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count), abs=1e-12)


def test_complex_weights_are_those_of_both_components():
    y, x, denoised = (randn(1, 1, 4, seed=k) for k in range(3))
    both = seen(y, 0.5)
    parts = [seen(part(y), 0.5) for part in (torch.real, torch.imag)]

    def increments(data: _Seen, x: Tensor, denoised: Tensor) -> Tensor:
        potential = data.log_normal(data.data.y - data.data.Vh(x), data.variance(2.0))
        return data.step(2.0, 1.0).increments(x, denoised, potential)

    split = sum(increments(p, f(x), f(denoised)) for p, f in zip(parts, (torch.real, torch.imag), strict=True))
    torch.testing.assert_close(increments(both, x, denoised), split, rtol=1e-12, atol=0)


def number(sigma_y: float = 0.5) -> tuple[Problem, GaussianPrior]:
    """Prior N(0, 1), y = 1."""
    prior = GaussianPrior(torch.zeros(1, 1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    return identity(torch.ones(1, 1, 1, dtype=torch.float64), sigma_y), prior


def test_the_limit_is_the_posterior_and_the_published_one_counts_the_data_twice():
    problem, prior = number()
    grid = tuple(karras(50, 20.0, 0.02).tolist())
    x = MCGDiff(particles=16, grid=grid).run(problem, prior, samples=1000, seed=0).samples
    # Four standard deviations; ancestral steps of so few levels have a quarter too little variance.
    assert abs(float(x.mean()) - 0.8) < 0.06 and 0.12 < float(x.var()) < 0.23
    twice = MCGDiff(particles=16, published=True, grid=grid).run(problem, prior, samples=1000, seed=0).samples
    # Precision 1 + 4 + 4: mean 8/9, variance 1/9.
    assert abs(float(twice.mean()) - 8 / 9) < 0.05 and float(twice.var()) < 0.85 * float(x.var())
    assert float(twice.mean()) > float(x.mean()) + 0.05


def test_the_level_of_the_data_need_not_be_on_the_grid():
    problem, prior = number(0.5)
    grid = (20.0, 8.0, 4.0, 2.0, 1.2, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.0)
    on = (*grid[:7], 0.5, *grid[7:])
    means = [
        float(MCGDiff(particles=32, grid=levels).run(problem, prior, samples=2000, seed=0).samples.mean())
        for levels in (grid, on)
    ]
    # The step from 0.6 ends with the estimate of 0.6, which does not know of the data at 0.5 yet.
    assert abs(means[0] - means[1]) < 0.07 and abs(means[1] - 0.8) < 0.05


def test_data_without_noise_are_met():
    prior = stationary((8, 6), torch.float64)
    operator = Mask(torch.arange(48).reshape(8, 6) % 3 > 0, dtype=torch.float64)
    problem = Problem.build(operator, operator(prior.sample(1, torch.Generator().manual_seed(2))), 0.0)
    sampler = MCGDiff(particles=16, grid=tuple(karras(40, 20.0, 0.01).tolist()))
    x = sampler.run(problem, prior, samples=8, seed=0).samples
    # The last estimate is off by the last level at most.
    assert float((operator(x) - problem.y).abs().max()) < 0.05
    unseen = x[..., ~operator.mask]
    assert float(unseen.std(0).mean()) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("published", "low", "high"), [(False, 0.01, 0.055), (True, 0.08, 0.15)])
def test_a_posterior_of_two_modes(published, low, high):
    """Found .034 and .115 with 20 000 samples; 5000 have a standard deviation of .013."""
    problem, prior = bimodal()
    x = MCGDiff(published=published).run(problem, prior, samples=5000, seed=0).samples
    assert low < wasserstein(x) < high


@pytest.mark.parametrize("name", ["inpainting", "denoising"])
def test_samples_do_not_depend_on_the_batch(name):
    operator, prior = PROBLEMS[name]()
    problem = Problem.build(operator, observe(operator, prior.sample(2).to(operator.in_dtype), 0.1), 0.1)
    sampler = MCGDiff(24, 4)
    whole = sampler.run(problem, prior, samples=3, seed=5)
    assert relative(sampler.run(problem, prior, samples=3, seed=5, batch=1).samples, whole.samples) < EXACT
    assert whole.stats.nfe == sampler.evaluations() == 24 and whole.stats.nfe_backward == 0
    assert len(whole.info["effective_particles"]) == 6 and max(whole.info["effective_particles"]) <= 4
    assert len(MCGDiff(24, 4, published=True).run(problem, prior, samples=1, seed=0).info["effective_particles"]) == 7
    assert pickle.loads(pickle.dumps(sampler)) == sampler and sampler.with_steps(9).evaluations() == 8


def test_what_it_cannot_solve_is_refused():
    operator, prior = mri(), stationary((8, 6))
    problem = Problem.build(operator, observe(operator, prior.sample(1), 0.1), 0.1)
    with pytest.raises(InputError, match="singular value"):
        MCGDiff().run(problem, prior, samples=1, seed=0)
    for build in (lambda: MCGDiff(kappa=0.0), lambda: MCGDiff(particles=0), lambda: MCGDiff(grid=(1.0, 0.5))):
        with pytest.raises(InputError) as error:
            build()
        assert "\n" not in str(error.value)
