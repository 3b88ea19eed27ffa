"""PnP-DM: published constants, exact conditional draws, and the errors that its coupling is known to make."""

import itertools
import math
import pickle
from dataclasses import replace

import pytest
import torch
from known_posteriors import (
    MAGNITUDE,
    ExactDraw,
    MixturePixels,
    inpainting,
    magnitude_problem,
    negative,
    pixels_problem,
    wasserstein,
)
from sampler_cases import PROBLEMS, bayes, dense, mri, observe, randn, relative, stationary

from inverse.errors import InputError
from inverse.operators import FourierMagnitude
from inverse.progress import Silent
from inverse.random import SampleRandom
from inverse.samplers import DDIM, Estimate, Problem, karras
from inverse.samplers.covariance import Isotropic, draw
from inverse.samplers.integrators.euler_maruyama import EulerMaruyama
from inverse.samplers.langevin import Langevin
from inverse.samplers.pnp_dm import EnteredGrid, PnPDM
from inverse.samplers.prior_step import ReverseRun
from inverse.samplers.sampler import Trace

EXACT_STEPS = PnPDM(prior_step=ExactDraw())


def test_the_published_coupling_falls_to_its_floor_at_sweep_34():
    couplings = list(PnPDM().couplings())
    assert len(couplings) == 100 and couplings[:2] == [10.0, 9.0]
    assert couplings[33] > 0.3 and couplings[34:] == [0.3] * 66  # 10 x 0.9^34 = 0.278


def test_the_published_prior_step_enters_the_grid_of_100_levels_below_rho():
    grid, step = karras(100, 80.0, 0.002).tolist(), EnteredGrid()
    for rho in (10.0, 0.3, 0.002):
        levels = step.below(rho)
        assert levels == tuple(grid[-len(levels) :]) and levels[0] < rho and levels[-1] == 0.0
        assert step.evaluations(rho) == len(levels) - 1 and grid[-len(levels) - 1] >= rho
    assert step.below(10.0) == tuple(grid[33:]) and PnPDM().evaluations() == 3573


def test_below_the_grid_the_prior_step_leaves_z():
    z, trace = randn(1, 2, 2, dtype=torch.float64), Trace(1, Silent(), None)
    assert EnteredGrid().draw(pixels_problem((2, 2)), MixturePixels(), z, 0.001, SampleRandom(0, [0]), trace) is z


def test_the_likelihood_step_is_the_conditional_given_x():
    # Mean and covariance of z given x and y, dense, against 1500 perturbed solves.
    operator, sigma_y, rho, n = mri(), 0.3, 0.5, 1500
    x, y = randn(1, 8, 6), observe(operator, randn(1, 8, 6, seed=1), 0.3)
    problem = Problem.build(operator, y.expand(n, *y.shape[1:]).contiguous(), sigma_y)
    z = draw(problem, x.expand(n, 8, 6), Isotropic(rho), SampleRandom(0, range(n)), iterations=100, rtol=1e-4)
    matrix, eye = dense(operator), torch.eye(48, dtype=torch.complex128)
    covariance = torch.linalg.inv(eye / rho**2 + matrix.mH @ matrix / sigma_y**2)
    mean = bayes(matrix, y, x, rho**2, sigma_y).flatten()
    deviation = covariance.diagonal().real.sqrt()
    error = (z.flatten(1).mean(0) - mean) / deviation
    spread = (z.flatten(1) - mean).abs().square().mean(0).sqrt() / deviation / math.sqrt(2)
    # 48 complex pixels: none beyond 4.5 standard errors.
    assert float(error.abs().max()) < 4.5 * math.sqrt(2 / n) and float((spread - 1).abs().max()) < 4.5 / math.sqrt(
        4 * n
    )


@pytest.mark.parametrize("rho", [0.3, 0.1])
def test_its_limit_takes_the_noise_for_larger_by_rho(rho):
    # p(x) N(y; x, sigma_y^2 + rho^2) for A = 1: prior N(0, 0.5^2), sigma_y = 0.1.
    sampler = replace(EXACT_STEPS, smallest=rho, sweeps=80)
    prior = MixturePixels(((1.0,), (0.0,), (0.5,)))
    samples = sampler.run(pixels_problem((100, 100), y=0.4, sigma_y=0.1), prior, samples=1, seed=0).samples
    noise = 0.1**2 + rho**2
    # Four standard errors of 10 000 draws; the true posterior has deviation 0.098.
    deviation = math.sqrt(0.25 * noise / (0.25 + noise))
    assert float(samples.mean()) == pytest.approx(0.4 * 0.25 / (0.25 + noise), abs=4 * deviation / 100)
    assert float(samples.std()) == pytest.approx(deviation, rel=4 / math.sqrt(20000))


# What falls to which floor how fast, with exact prior draws; W1 and share of negative draws, means over seeds.
BIMODAL = {
    (0.9, 0.3, 100): (0.080, 0.400),
    (0.9, 0.1, 100): (0.111, 0.374),
    (0.97, 0.1, 162): (0.078, 0.394),
}


@pytest.mark.parametrize(
    "schedule", [pytest.param(key, marks=pytest.mark.slow if key[1] < 0.3 else ()) for key in BIMODAL], ids=str
)
def test_falling_rho_freezes_the_weights_of_the_modes(schedule):
    decay, smallest, sweeps = schedule
    sampler = replace(EXACT_STEPS, decay=decay, smallest=smallest, sweeps=sweeps)
    samples = sampler.run(pixels_problem(), MixturePixels(), samples=1, seed=0).samples
    distance, weight = BIMODAL[schedule]
    # 40 000 draws: four standard errors of a weight (0.0025), worth 1.8 of them in W1; the exact weight is 0.434.
    assert negative(samples) == pytest.approx(weight, abs=0.010)
    assert wasserstein(samples) == pytest.approx(distance, abs=0.018)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("integrator", "distance", "deviation"),
    [(DDIM(eta=1.0), 0.132, 0.910), (EulerMaruyama(), 0.136, 0.926), (DDIM(eta=0.0), 0.115, 0.831)],
    ids=("ancestral", "Euler-Maruyama", "ODE"),
)
def test_prior_steps_of_20_evaluations(integrator, distance, deviation):
    sampler = PnPDM(prior_step=ReverseRun(20, 0.0067, integrator))
    samples = sampler.run(pixels_problem(), MixturePixels(), samples=1, seed=0).samples
    # The bound on W1 as above; the deviation has a standard error of 0.003.
    assert wasserstein(samples) == pytest.approx(distance, abs=0.018)
    assert float(samples.std()) == pytest.approx(deviation, abs=0.012)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("smallest", "bias", "spread"), [(0.3, (0.876, 0.543), (2.04, 1.41)), (0.1, (0.216, 0.134), (1.28, 1.09))]
)
def test_gaussian_inpainting_is_biased_by_the_floor_of_rho(smallest, bias, spread):
    case = inpainting()
    sampler = PnPDM(smallest=smallest, prior_step=ReverseRun(2))
    samples = sampler.run(case.problem, case.prior, samples=2000, seed=0).samples
    # 2000 draws: standard errors of 0.022 posterior deviations, 2 here in units of wider samples; 1 % of a deviation.
    assert case.bias(samples) == pytest.approx(bias, abs=0.045)
    assert case.spread(samples) == pytest.approx(spread, rel=0.02)


def test_magnitudes_are_fitted_but_langevin_steps_do_not_cross_to_the_other_sign():
    sampler = replace(EXACT_STEPS, sweeps=60, smallest=0.03, langevin=Langevin(40))
    samples = sampler.run(magnitude_problem((50, 50)), MixturePixels(), samples=1, seed=0).samples
    for sign, mean, deviation in zip((-1, 1), MAGNITUDE[1], MAGNITUDE[2], strict=True):
        part = samples[samples.sign() == sign]
        # At least 400 draws: four standard errors; rho and the Langevin steps add 5 and 2.5 % to the deviation.
        assert float(part.mean()) == pytest.approx(mean, abs=4 * deviation / 20 + 0.01)
        assert float(part.std()) == pytest.approx(deviation, rel=0.22)
    # Each prior step draws a sign with the prior's odds 3 : 7 times a factor that favours the present one, and the
    # likelihood step keeps it: its odds are those squared, 0.155, where rho is small, not the exact 0.404.
    assert negative(samples) == pytest.approx(0.18, abs=0.03)


def test_phase_retrieval_runs():
    operator, prior = FourierMagnitude((8, 6), dtype=torch.float64), stationary((8, 6), torch.float64)
    x0 = prior.sample(1, torch.Generator().manual_seed(4))
    problem = Problem.build(operator, operator(x0), 0.1)
    sampler = PnPDM(smallest=0.1, langevin=Langevin(30)).with_steps(200)
    solution = sampler.run(problem, prior, samples=2, seed=0)
    # Starts at about 5; the posterior of what has no solution in closed form is not known.
    assert solution.stats.nfe == 200 and float(solution.residual.max()) < 1.5


@pytest.mark.parametrize("problem", ["mri odd", "inpainting"])
def test_complex_and_real_problems_are_solved(problem):
    operator, prior = PROBLEMS[problem]()
    x0 = prior.sample(2, torch.Generator().manual_seed(4)).to(operator.in_dtype)
    built = Problem.build(operator, observe(operator, x0, 0.1), 0.1)
    sampler = PnPDM(smallest=0.1).with_steps(100)
    solution = sampler.run(built, prior, samples=3, seed=0)
    assert solution.samples.shape == (3, 2, *operator.in_shape) and solution.samples.dtype == operator.in_dtype
    assert solution.stats.nfe == sampler.evaluations() == 100 and solution.info["grid"][-1] == 0.0
    assert 0.3 < float(solution.residual.mean()) < 2
    parts = sampler.run(built, prior, samples=3, seed=0, batch=1)
    assert relative(parts.samples, solution.samples) < 1e-8  # rounding, carried through CG and the chain


def test_exact_data_are_fitted_exactly():
    operator = mri()
    x0 = randn(1, 8, 6)
    built = Problem.build(operator, operator(x0), 0.0)
    sampler = PnPDM(2, rho=1.0, smallest=0.5, prior_step=EnteredGrid(1, 0.4, 0.3), rtol=1e-10)
    z = draw(built, randn(1, 8, 6, seed=1), Isotropic(1.0), SampleRandom(0, [0]), iterations=200, rtol=1e-10)
    assert float(built.misfit(z).abs().max()) < 1e-8  # the CG tolerance
    assert bool(torch.isfinite(sampler.run(built, stationary((8, 6)), samples=1, seed=0).samples.abs()).all())


@pytest.mark.parametrize("steps", [1, 9, 10, 23, 200, 1000])
def test_with_steps_stays_within_the_number_and_goes_through_the_same_range(steps):
    sampler = PnPDM().with_steps(steps)
    assert 0.9 * steps <= sampler.evaluations() <= steps
    couplings = list(sampler.couplings())
    assert couplings[0] == 10.0 and (steps < 30 or couplings[-1] < 1.5)
    assert sampler.decay ** len(couplings) == pytest.approx(0.9**100, rel=1e-9)


def test_an_euler_maruyama_step_is_the_ancestral_step_to_first_order():
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    errors = []
    for ratio in (0.9, 0.95, 0.975):
        parts = []
        for integrator in (EulerMaruyama(), DDIM(eta=1.0)):
            kept = integrator.step(one, Estimate(zero, zero), 2.0, 2.0 * ratio, lambda: zero)
            fresh = integrator.step(zero, Estimate(zero, zero), 2.0, 2.0 * ratio, lambda: one)
            parts.append((float(kept), float(fresh) ** 2))
        errors.append([abs(a - b) for a, b in zip(*parts, strict=True)])
    for coarse, fine in itertools.pairwise(errors):
        # Half the step, a quarter of the difference; the next order is of relative size 0.05.
        assert all(3.5 < a / b < 4.7 for a, b in zip(coarse, fine, strict=True)), errors
    assert EulerMaruyama().step(one, Estimate(zero, zero), 2.0, 0.0, lambda: one) is zero


def test_it_compares_prints_and_pickles():
    sampler = PnPDM(3)
    assert pickle.loads(pickle.dumps(sampler)) == sampler != PnPDM(4) and "EnteredGrid" in repr(sampler)


@pytest.mark.parametrize(
    "build",
    [
        lambda: PnPDM(0),
        lambda: PnPDM(rho=0.2),
        lambda: PnPDM(decay=0.0),
        lambda: PnPDM(decay=1.1),
        lambda: PnPDM(smallest=0.0),
        lambda: EnteredGrid(0),
        lambda: EnteredGrid(smallest=90.0),
        lambda: PnPDM(rho=90.0).run(pixels_problem((2, 2)), MixturePixels(), samples=1, seed=0),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10
