"""The Gaussian-anchored solver: pinned weights, both limits, exactness for Gaussians, the guard, and what it buys."""

import dataclasses
import math
import pickle
from functools import cache

import pytest
import torch
from integrator_cases import LEVELS, Counted, curved, walked
from sampler_cases import EXACT, dense, mri, observe, randn, relative, stationary
from scale_mixture import ScaleMixture
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.transforms import Modes
from inverse.operators import Identity, Mask, Matrix
from inverse.priors import GaussianPrior
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import (
    DDIM,
    DDS,
    DiffusionSampler,
    Estimate,
    LearnedCovariance,
    Problem,
    dpm_solver_2m,
    geometric,
    karras,
)
from inverse.samplers.anchor import Anchor, anchor_of, anchor_of_prior
from inverse.samplers.integrators import Adams, Anchored, Integrator, Path
from inverse.samplers.integrators.anchored import adams
from inverse.samplers.integrators.weights import exact
from inverse.samplers.start import from_data

TRUSTED = math.inf
X = torch.tensor([1.5, -4.0, 7.0], dtype=torch.float64)[:, None]


def flow(integrator: Integrator, prior: Denoiser, levels: tuple[float, ...], x: Tensor) -> Tensor:
    """Where the ODE of the prior leads by an integrator."""

    def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
        denoised = prior.denoise(x, sigma)
        return Estimate(denoised, denoised)

    def noise() -> Tensor:
        raise AssertionError("a deterministic integrator took noise")

    return list(integrator.walk(Path(levels, estimate, noise, prior), x))[-1]


def test_weights_have_the_values_of_the_formula():
    power = torch.tensor(0.25, dtype=torch.float64)
    # 12 digits are given.
    one, two = adams(power, [3.0], 2.0), adams(power, [3.0, 4.0], 2.0)
    torch.testing.assert_close(one, one.new_tensor([0.336288375226]), rtol=1e-11, atol=0)
    torch.testing.assert_close(two, two.new_tensor([0.588594180675, -0.252305805449]), rtol=1e-11, atol=0)
    closed = (math.asinh(0.25) - math.asinh(1 / 6)) / 0.5 * math.sqrt(4.25)
    assert float(one[0]) == pytest.approx(closed, rel=1e-12)


@pytest.mark.parametrize("sigma_next", [2.9, 1.0, 0.002, 1e-6])
def test_long_steps_are_integrated_too(sigma_next):
    power = torch.tensor([0.0, 1e-4, 0.25, 30.0], dtype=torch.float64)
    kappa = [(torch.asinh(power.sqrt() / s) / power.sqrt()).nan_to_num(1 / s) for s in (3.0, sigma_next)]
    found = adams(power, [3.0], sigma_next)[0]
    # Eight points on a length of 1.5: 1e-10.
    torch.testing.assert_close(found, (power + sigma_next**2).sqrt() * (kappa[1] - kappa[0]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("levels", [[3.0], [3.0, 4.0], [3.0, 4.0, 6.0]])
def test_no_power_is_the_data_form(levels):
    found = adams(torch.zeros((), dtype=torch.float64), levels, 2.0)
    expected = exact("data", "lambda", levels, 3.0, 2.0)
    torch.testing.assert_close(found, found.new_tensor(expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("levels", [LEVELS, (*LEVELS, 0.0)])
def test_three_ways_to_the_data_form(order, levels):
    expected = walked(Adams(order=order), levels, x=X)
    for integrator in (
        Anchored(order, 0.0, Anchor(0.3)),
        Anchored(order, TRUSTED, Anchor(0.0)),
        Anchored(order, TRUSTED, Anchor(0.0, torch.full((), 0.2))),
    ):
        torch.testing.assert_close(walked(integrator, levels, x=X), expected, rtol=1e-11, atol=1e-11)


def test_infinite_power_interpolates_sigma_eps():
    first, second = walked(Anchored(2, TRUSTED, Anchor(1e14)), (3.0, 2.0, 1.0), x=X)
    h, after = math.log(1.5), math.log(2.0)
    one = X + h * (curved(X, 3.0) - X)
    # sigma^2 / c is 1e-13, and c itself costs as many digits.
    torch.testing.assert_close(first, one, rtol=1e-10, atol=1e-10)
    past, now = curved(X, 3.0) - X, curved(one, 2.0) - one
    two = one + after * now + after**2 / 2 * (now - past) / h
    torch.testing.assert_close(second, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("levels", [(60.0, 0.0), (60.0, 1e-3), (60.0, 3.0, 0.0), (9.0, 5.0, 1.0, 0.2, 0.0)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_stationary_gaussians_are_solved_in_any_number_of_steps(order, levels, dtype):
    prior = stationary((8, 6), dtype)
    modes, power = prior.transform, prior.power
    x = 60 * randn(3, 8, 6, dtype=dtype, seed=2)
    shrink = ((power + levels[-1] ** 2) / (power + levels[0] ** 2)).sqrt()
    expected = modes.inverse(shrink * modes.forward(x))
    found = flow(Anchored(order, anchor=Anchor(power)), prior, levels, x)
    assert relative(found, expected) < EXACT
    # The table's largest level, 80, tells the power to c^2/80^2 of it.
    assert relative(flow(Anchored(order), prior, levels, x), expected) < 1e-3
    assert relative(flow(DDIM(0.0), prior, levels, x), expected) > 0.05


def commuting() -> tuple[Problem, GaussianPrior, Modes, Tensor, Tensor, Tensor]:
    """8 x 8 cosines, seen through a transfer function: problem, prior, modes, power, transfer and data in the modes."""
    u = torch.arange(8, dtype=torch.float64)
    radius = u[:, None] ** 2 + u**2
    power, transfer = (1 + radius / 4) ** -2, torch.exp(-0.15 * radius)
    modes = Modes((8, 8), torch.float64)
    basis = modes.forward(torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)).reshape(64, 64)
    mean = torch.full((8, 8), 0.5, dtype=torch.float64)
    prior = GaussianPrior(mean, basis @ torch.diag(power.flatten()) @ basis.mT)
    i, j = torch.meshgrid(u, u, indexing="ij")
    full = 0.5 + 0.3 * torch.sin(0.9 * i + 0.4) * torch.cos(0.7 * j) + 0.1 * (-1) ** (i + j)
    operator = Matrix(basis @ torch.diag(transfer.flatten()) @ basis.mT, (8, 8), (8, 8))
    return Problem.build(operator, operator(full[None]), 0.1), prior, modes, power, transfer, full


def test_a_posterior_that_shares_the_modes_takes_one_step():
    problem, prior, modes, power, transfer, full = commuting()
    left = power * 0.01 / (0.01 + transfer**2 * power)
    prior_mean = modes.forward(prior.mean)
    shift = transfer**2 * power * (modes.forward(full) - prior_mean) / (transfer**2 * power + 0.01)
    mean = modes.inverse(prior_mean + shift)
    # Ten digits are given; trace of the covariance and three pixels of the mean.
    assert float(left.sum()) == pytest.approx(1.1526779625, abs=1e-9)
    pixels = mean.flatten()[[0, 28, 63]]
    torch.testing.assert_close(pixels, pixels.new_tensor([0.7455922084, 0.5066082433, 0.4757676911]), rtol=0, atol=1e-9)
    exact_posterior = prior.posterior(problem.operator.matrix, problem.y[0], 0.1)
    noise = randn(4, 8, 8, dtype=torch.float64, seed=3)
    for largest in (0.5, 40.0):
        x = mean + modes.inverse((left + largest**2).sqrt() * noise)
        expected = mean + modes.inverse(left.sqrt() * noise)
        found = flow(Anchored(1, anchor=Anchor(left, mean)), exact_posterior, (largest, 0.0), x)
        # Two solves of 64 unknowns, of condition 1e4.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_the_last_step_takes_the_local_mean_as_constant():
    power, sigma = 0.25, 0.6
    (found,) = walked(Anchored(1, TRUSTED, Anchor(power)), (sigma, 0.0), x=X)
    local = (curved(X, sigma) - power / (power + sigma**2) * X) * (power + sigma**2) / sigma**2
    kept = math.sqrt(power / (power + sigma**2))
    torch.testing.assert_close(found, kept * X + (1 - kept) * local, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_the_guard_parts_the_samples_of_a_batch(order):
    prior = stationary((8, 6), torch.float64)
    strange = 40 * prior.transform.inverse(torch.ones(8, 6, dtype=torch.float64))

    class Two(type(prior)):
        """The prior for the first image, a point far from it for the second."""

        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            return torch.stack([super().denoise(x, sigma)[0], strange])

    both = Two(prior.shape, prior.power, prior.dtype)
    both.calibration = prior.calibration
    x = 5 * randn(2, 8, 6, dtype=torch.float64, seed=5)
    levels = (5.0, 2.0, 0.7, 0.0)
    found = flow(Anchored(order), both, levels, x)
    assert relative(found[:1], flow(Anchored(order, TRUSTED), both, levels, x)[:1]) < EXACT
    assert relative(found[1:], flow(Adams(order=order), both, levels, x)[1:]) < 1e-11
    assert relative(found[1:], strange[None]) < 1e-11
    # Trusted, the anchor misses the point.
    assert relative(flow(Anchored(order, TRUSTED), both, levels, x)[1:], strange[None]) > 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("steps", [1, 3])
def test_denoising_of_stationary_gaussians_is_exact(steps, dtype):
    prior = stationary((8, 6), dtype)
    truth = prior.sample(2, torch.Generator().manual_seed(4))
    problem = Problem.build(Identity((8, 6), dtype=dtype), observe(Identity((8, 6), dtype=dtype), truth, 0.3), 0.3)
    sampler = DiffusionSampler(LearnedCovariance(innovation=False, rtol=1e-10, tolerance=0.0), Anchored(), steps)
    levels, modes = sampler.levels(prior), prior.transform
    start = from_data(problem, prior, levels[0], SampleRandom(7, [(0, 0), (0, 1)]))
    mean = modes.inverse(prior.power / (prior.power + 0.09) * modes.forward(problem.y))
    left = prior.power * 0.09 / (prior.power + 0.09)
    expected = mean + modes.inverse((left / (left + levels[0] ** 2)).sqrt() * modes.forward(start - mean))
    found = sampler.run(problem, prior, samples=1, seed=7).samples[0]
    # The power is read off the table at level 80, c^2/80^2 of it too small.
    assert relative(found, expected) < 1e-3


def spread(integrator: Integrator, steps: int) -> float:
    """Variance of samples over the exact one, mean over the pixels, where a third of them is missing."""
    mask = torch.arange(48).reshape(8, 6) % 3 > 0
    operator, prior = Mask(mask, dtype=torch.float64), stationary((8, 6), torch.float64)
    truth = prior.sample(1, torch.Generator().manual_seed(4))
    problem = Problem.build(operator, observe(operator, truth, 0.1), 0.1)
    basis = prior.transform.inverse(torch.eye(48, dtype=torch.float64).reshape(48, 8, 6)).reshape(48, 48)
    covariance = basis.mT @ torch.diag(prior.power.flatten()) @ basis
    gaussian = GaussianPrior(torch.zeros(8, 6, dtype=torch.float64), covariance)
    posterior = gaussian.posterior(torch.diag(mask.double().flatten()), problem.y, 0.1)
    sampler = DiffusionSampler(LearnedCovariance(innovation=False), integrator, steps, largest=2.0)
    samples = sampler.run(problem, prior, samples=1000, seed=0).samples[:, 0]
    return float((samples.var(0).flatten() / posterior.covariance.diagonal()).mean())


def test_a_posterior_keeps_its_variance_in_few_evaluations():
    # Measured 1.08 and .63. Here, where much is missing, the guard gives up at the last levels: .64.
    assert spread(Anchored(guard=TRUSTED), 5) == pytest.approx(1, abs=0.12)
    assert spread(dpm_solver_2m(), 5) < 0.7 and spread(Anchored(), 5) > spread(dpm_solver_2m(), 5)


def test_the_anchor_is_the_gaussian_given_the_data():
    operator, prior = mri(), stationary((8, 6))
    truth = prior.sample(3, torch.Generator().manual_seed(4))
    problem = Problem.build(operator, observe(operator, truth, 0.1), 0.1)
    anchor, power = anchor_of(problem, prior), prior.calibration.power
    basis = prior.transform.forward(torch.eye(48, dtype=torch.complex128).reshape(48, 8, 6)).reshape(48, 48).mT
    inner = basis.mH @ torch.diag(1 / power.flatten()).to(basis) @ basis
    left = inner + dense(operator).mH @ dense(operator) / 0.01
    exact_mean = torch.linalg.solve(left, (problem.adjoint_y / 0.01).reshape(3, 48).mT).mT.reshape(3, 8, 6)
    assert relative(anchor.mean, exact_mean) < 0.01  # CG to 1e-3, amplified by its condition
    expected = 1 / (1 / power + problem.density / 0.01)
    torch.testing.assert_close(anchor.power, expected, rtol=1e-3, atol=0)  # as above
    nothing = Problem.without_data((8, 6), 2, dtype=torch.complex128)
    assert anchor_of(nothing, prior) == anchor_of_prior(prior, nothing.adjoint_y)
    exact_data = anchor_of(Problem.build(operator, operator(truth), 0.0), prior)
    assert float(torch.as_tensor(exact_data.power).max()) == 0


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_it_carries_posteriors_and_priors_without_a_table(steps):
    problem, gaussian, *_ = commuting()
    for prior, conditioning in (
        (gaussian, DDS(rtol=1e-8)),
        (stationary((8, 8), torch.float64), LearnedCovariance(innovation=False)),
    ):
        sampler = DiffusionSampler(conditioning, Anchored(), steps)
        solution = sampler.run(problem, prior, samples=3, seed=0)
        alone = sampler.run(problem, prior, samples=3, seed=0, batch=1)
        assert solution.stats.nfe == steps and bool(torch.isfinite(solution.samples).all())
        assert relative(alone.samples, solution.samples) < 1e-8  # CG stops at 1e-3, the same for every batch


@cache
def mixture(squares: tuple[float, ...]) -> tuple[ScaleMixture, Tensor, Tensor]:
    """The prior, x at level 40, and where the ODE leads from there, by 300 steps of third order."""
    prior = ScaleMixture(squares)
    x = prior.noisy(16, 40.0, seed=0)
    return prior, x, flow(Adams(order=3), prior, tuple(geometric(300, 40.0, 1e-4).tolist()), x)


def mixture_error(integrator: Integrator, grid: Tensor, squares: tuple[float, ...] = (0.4, 1.0, 1.6)) -> float:
    prior, x, reference = mixture(squares)
    return relative(flow(integrator, prior, tuple(grid.tolist()), x), reference)


@pytest.mark.parametrize(("steps", "anchored", "other"), [(4, 0.13, 0.25), (6, 0.055, 0.09), (8, 0.035, 0.045)])
def test_few_steps_suffice_near_a_gaussian(steps, anchored, other):
    grid = geometric(steps, 40.0, 0.01)
    # Measured .092, .046, .030 (order 1), .110, .043, .027 (order 2); 2M .358, .104, .048, by Karras .278, .113, .101
    assert mixture_error(Anchored(2), grid) < anchored and mixture_error(Anchored(1), grid) < anchored
    best = min(mixture_error(dpm_solver_2m(published=True), g) for g in (grid, karras(steps, 40.0, 0.01)))
    assert best > other


def test_anchors_compare_print_and_pickle():
    power, mean = torch.ones(8, 6), torch.zeros(8, 6)
    for anchor in (None, Anchor(0.3), Anchor(power), Anchor(power, mean)):
        integrator = Anchored(2, anchor=anchor)
        assert pickle.loads(pickle.dumps(integrator)) == integrator and "Anchored" in repr(integrator)
        assert hash(integrator) == hash(dataclasses.replace(integrator))
    assert Anchor(power) != Anchor(2 * power) and Anchor(power) != Anchor(power, mean + 1) and Anchor(1.0) != 1.0
    assert len(repr(Anchor(power))) < 100
    white = anchor_of_prior(stationary((8, 6), spectrum=False), randn(1, 8, 6))
    assert white == Anchor(stationary((8, 6), spectrum=False).mse(80.0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Anchored(0),
        lambda: Anchored(4),
        lambda: Anchored(2, -0.1),
        lambda: Anchored(2, math.nan),
        lambda: Anchor(-1.0),
        lambda: Anchor(torch.tensor([[math.nan]])),
        lambda: Anchor(torch.ones(3)),
        lambda: walked(Anchored(anchor=Anchor(torch.ones(4, 4))), LEVELS, x=torch.zeros(3, 8, 6)),
        lambda: list(Anchored(anchor=Anchor(1.0, torch.zeros(2))).walk(Counted(LEVELS, curved), torch.zeros(3, 8, 6))),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value)
