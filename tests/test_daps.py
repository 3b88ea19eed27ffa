"""DAPS and its Langevin steps: published constants, exact draws, and the errors it is known to make."""

import math
import pickle

import pytest
import torch
from known_posteriors import MixturePixels, inpainting, magnitude_problem, negative, pixels_problem, wasserstein
from sampler_cases import PROBLEMS, mri, observe, randn, relative, stationary

from inverse.errors import InputError
from inverse.operators import FourierMagnitude
from inverse.random import SampleRandom
from inverse.samplers import Problem, karras
from inverse.samplers.covariance import Isotropic, draw
from inverse.samplers.daps import DAPS, published
from inverse.samplers.langevin import Langevin


def test_the_published_constants():
    sampler = published()
    assert sampler.evaluations() == 1000 and (sampler.langevin.steps, sampler.langevin.rate) == (100, 1e-4)
    # The gradient of ||A x - y||^2 / 0.01^2.
    assert 1 / sampler.langevin.noise**2 == pytest.approx(2 / 0.01**2, rel=1e-12)
    levels = sampler.levels(MixturePixels())
    assert levels == tuple(karras(200, 80.0, 0.1).tolist())  # this prior knows no more than 80
    wide = MixturePixels()
    wide.sigma_max = 1000.0
    assert sampler.levels(wide)[0] == pytest.approx(100.0, rel=1e-12)


# Samplers, W1, share of negative draws and deviation, for the bimodal problem (exact: 0, 0.434, 0.912).
BIMODAL = {
    "smallest 0.1": (DAPS(), 0.130, 0.455, 0.826),
    "smallest 0.01": (DAPS(smallest=0.01), 0.115, 0.456, 0.846),
    "x0_hat = D": (DAPS(ode_steps=1), 0.074, 0.412, 0.860),
}


@pytest.mark.parametrize(
    "name", [pytest.param(key, marks=pytest.mark.slow if "smallest" in key else ()) for key in BIMODAL]
)
def test_the_bimodal_posterior_is_missed_by_as_much_as_is_known(name):
    sampler, distance, weight, deviation = BIMODAL[name]
    samples = sampler.run(pixels_problem(), MixturePixels(), samples=1, seed=0).samples
    # 40 000 draws: four standard errors of the weight (0.0025), worth 1.8 of them in W1; the deviation has 0.003.
    assert negative(samples) == pytest.approx(weight, abs=0.010)
    assert wasserstein(samples) == pytest.approx(distance, abs=0.018)
    assert float(samples.std()) == pytest.approx(deviation, abs=0.012)


@pytest.mark.slow
def test_the_published_confidence_collapses_the_bimodal_posterior():
    problem, prior = pixels_problem((100, 100)), MixturePixels()
    slow, sharp = (published(rate).run(problem, prior, samples=1, seed=0).samples for rate in (1e-5, 1e-4))
    # The data are believed to 0.007 instead of 0.5: y = -0.1 itself, between the modes.
    assert wasserstein(slow) == pytest.approx(0.70, abs=0.03) and float(slow.std()) == pytest.approx(0.275, abs=0.02)
    assert float(sharp.mean()) == pytest.approx(-0.1, abs=0.02) and float(sharp.std()) < 0.05


@pytest.mark.slow
def test_published_langevin_steps_hardly_move_even_with_the_true_noise():
    sampler = DAPS(exact=False, langevin=Langevin(100, 1e-4))
    samples = sampler.run(pixels_problem((100, 100)), MixturePixels(), samples=1, seed=0).samples
    # Nearly draws of the prior, whose W1 is 0.34: 100 steps of 1e-4 against a variance of 0.25.
    assert wasserstein(samples) == pytest.approx(0.40, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("smallest", "bias", "spread"), [(0.1, (0.203, 0.124), (1.08, 1.59)), (0.01, (0.166, 0.056), (1.10, 1.43))]
)
def test_gaussian_inpainting_is_too_wide_where_nothing_was_seen(smallest, bias, spread):
    case = inpainting()
    samples = DAPS(smallest=smallest).run(case.problem, case.prior, samples=2000, seed=0).samples
    # 2000 draws: standard errors of 0.022 posterior deviations, up to 0.036 in units of wider samples.
    assert case.bias(samples) == pytest.approx(bias, abs=0.045)
    assert case.spread(samples) == pytest.approx(spread, rel=0.025)


def test_long_langevin_runs_reach_the_exact_draw():
    # One pixel seen with noise 0.3 and a mean known to 0.5: variance 1 / (1/0.09 + 1/0.25).
    problem = pixels_problem(y=0.8, sigma_y=0.3)
    mean = torch.full((1, 200, 200), -0.2, dtype=torch.float64)
    found = [
        Langevin(200).draw(problem, mean, 0.5, SampleRandom(0, [0])),
        draw(problem, mean, Isotropic(0.5), SampleRandom(1, [0]), iterations=10, rtol=1e-10),
    ]
    variance = 1 / (1 / 0.09 + 1 / 0.25)
    for x, inflation in zip(found, (1 / (1 - 0.05 / 2), 1.0), strict=True):
        # Four standard errors of 40 000 draws; steps of size rate widen a variance by 1 / (1 - rate / (2 variance)).
        assert float(x.mean()) == pytest.approx(-0.2 + variance / 0.09, abs=4 * math.sqrt(variance) / 200)
        assert float(x.var()) == pytest.approx(variance * inflation, rel=4 * math.sqrt(2 / 40000))


def test_a_langevin_step_is_the_formula():
    operator, mean, sigma_y, std, rate = mri(), randn(1, 8, 6), 0.3, 0.7, 1e-3
    problem = Problem.build(operator, observe(operator, randn(1, 8, 6, seed=1), sigma_y), sigma_y)
    moved = Langevin(2, rate).draw(problem, mean, std, SampleRandom(0, [0]), slowdown=0.5)
    random, x = SampleRandom(0, [0]), mean
    for _ in range(2):
        score = operator.H(problem.y - operator(x)) / sigma_y**2 + (mean - x) / std**2
        x = x + 0.5 * rate * score + math.sqrt(rate) * random.normal((8, 6), dtype=x.dtype)
    assert relative(moved, x) < 1e-12


def test_magnitudes_are_fitted_in_both_signs():
    samples = (
        DAPS(30, langevin=Langevin(50)).run(magnitude_problem((40, 40)), MixturePixels(), samples=1, seed=0).samples
    )
    assert 0.1 < negative(samples) < 0.4  # exact 0.404; Langevin steps do not cross to the other sign
    assert float(samples.abs().mean()) == pytest.approx(1.0, abs=0.05)


def test_phase_retrieval_runs():
    operator, prior = FourierMagnitude((8, 6), dtype=torch.float64), stationary((8, 6), torch.float64)
    x0 = prior.sample(1, torch.Generator().manual_seed(4))
    problem = Problem.build(operator, operator(x0), 0.1)
    solution = DAPS(20, langevin=Langevin(50)).run(problem, prior, samples=2, seed=0)
    # Starts at about 5; the posterior of what has no solution in closed form is not known.
    assert solution.stats.nfe == 100 and float(solution.residual.max()) < 1.5


@pytest.mark.parametrize("problem", ["mri odd", "inpainting"])
def test_complex_and_real_problems_are_solved(problem):
    operator, prior = PROBLEMS[problem]()
    x0 = prior.sample(2, torch.Generator().manual_seed(4)).to(operator.in_dtype)
    built = Problem.build(operator, observe(operator, x0, 0.1), 0.1)
    sampler = DAPS().with_steps(60)
    solution = sampler.run(built, prior, samples=3, seed=0)
    assert solution.samples.shape == (3, 2, *operator.in_shape) and solution.samples.dtype == operator.in_dtype
    assert solution.stats.nfe == sampler.evaluations() == 60 and solution.info["grid"][-1] == 0.0
    assert 0.3 < float(solution.residual.mean()) < 2
    parts = sampler.run(built, prior, samples=3, seed=0, batch=1)
    assert relative(parts.samples, solution.samples) < 1e-8  # rounding, carried through CG


@pytest.mark.parametrize(("steps", "levels", "each"), [(1, 1, 1), (9, 1, 9), (10, 2, 5), (23, 4, 5), (1000, 200, 5)])
def test_with_steps_stays_within_the_number(steps, levels, each):
    sampler = DAPS().with_steps(steps)
    assert (sampler.anneal, sampler.ode_steps) == (levels, each) and sampler.evaluations() <= steps


def test_it_compares_prints_and_pickles():
    assert pickle.loads(pickle.dumps(published())) == published() != DAPS() and "Langevin" in repr(DAPS())


@pytest.mark.parametrize(
    "build",
    [
        lambda: DAPS(0),
        lambda: DAPS(ode_steps=0),
        lambda: DAPS(smallest=200.0),
        lambda: DAPS(smallest=0.005),
        lambda: DAPS(ode_smallest=0.0),
        lambda: Langevin(0),
        lambda: Langevin(rate=0.0),
        lambda: Langevin(noise=-1.0),
        lambda: DAPS(exact=False).run(pixels_problem((2, 2), sigma_y=0.0), MixturePixels(), samples=1, seed=0),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10
