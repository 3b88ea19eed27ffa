"""Exact split Gibbs: the posterior is its fixed point for every rho, its steps are what they claim, and it says so."""

import math
import pickle
from dataclasses import replace

import pytest
import torch
from known_posteriors import (
    LINEAR,
    PRIOR,
    SHAPE,
    ExactDraw,
    FromNoise,
    MixturePixels,
    inpainting,
    magnitude_problem,
    negative,
    pixels_problem,
    wasserstein,
)
from sampler_cases import PROBLEMS, coil_maps, dense, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import Identity, LinearOperator, Mask, MultiCoilMRI
from inverse.progress import Silent
from inverse.random import SampleRandom
from inverse.samplers import DDIM, DDS, Bridge, DiffusionSampler, LearnedCovariance, Problem, Unconditional
from inverse.samplers.prior_step import ReverseRun
from inverse.samplers.sampler import Trace
from inverse.samplers.split_gibbs import DataStep, SplitGibbs, noise_root

EXACT_STEPS = SplitGibbs(20, FromNoise(), ExactDraw())


def case(name: str) -> tuple[LinearOperator, float]:
    """Operator of 48 unknowns, and the largest degree that its root may need."""
    return {
        "mri": (mri(), 6),
        "mri half": (mri(every=3) * 0.5, 6),
        "mask": (Mask(torch.arange(48).reshape(8, 6) % 3 > 0, dtype=torch.complex128), 1),
        "one coil": (mri(coils=1), 1),
        "identity": (3.0 * Identity((8, 6), dtype=torch.complex128), 1),
    }[name]


@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("name", ["mri", "mri half", "mask", "one coil", "identity"])
def test_the_data_step_has_the_mean_and_covariance_of_the_formula(name, share):
    operator, degree = case(name)
    sigma_y, x = 0.2, randn(2, 8, 6)
    problem = Problem.build(operator, observe(operator, randn(2, 8, 6, seed=1), sigma_y), sigma_y)
    rho = share * sigma_y / operator.norm()
    step = DataStep(problem, rho, 1e-3)
    matrix, weight = dense(operator), (rho / sigma_y) ** 2
    root = step.root.of(problem.gram, torch.eye(48, dtype=torch.complex128).reshape(48, 8, 6)).reshape(48, 48).mT
    wanted = torch.eye(48) - weight * matrix.mH @ matrix
    # 1e-3 for the root; its square is off by twice that. The norm of masks comes from below, by up to 1e-4.
    assert float(torch.linalg.matrix_norm(root @ root.mH - wanted, 2)) < 2.5e-3
    assert share == 1.0 or step.root.degree <= degree

    class NoNoise:
        def normal(self, shape, *, dtype):
            return torch.zeros((2, *shape), dtype=dtype)

    moved = step.draw(x, problem.gram(x), NoNoise())
    exact = x.flatten(1) + weight * (problem.y - operator(x)).flatten(1) @ matrix.conj()
    assert relative(moved.flatten(1), exact) < 1e-12


def test_a_share_below_one_makes_the_polynomial_short():
    problem = Problem.build(mri(), randn(1, *mri().out_shape) * mri().weights, 0.1)
    degrees = [noise_root(problem, share**2 / mri().norm() ** 2, 1e-3).degree for share in (0.8, 0.95, 0.99)]
    assert degrees == sorted(degrees) and degrees[1] <= 6 and degrees[2] <= 14


@pytest.mark.parametrize("share", [0.3, 0.95])
@pytest.mark.parametrize("name", ["mri", "mask"])
def test_the_posterior_of_a_gaussian_is_the_fixed_point_for_every_rho(name, share):
    # One sweep is affine: z = M x + W y + noise, x' = P z + noise; so mean and covariance have exact recursions.
    operator, prior, sigma_y = case(name)[0], stationary((8, 6)), 0.2
    problem = Problem.build(operator, observe(operator, randn(1, 8, 6, seed=1), sigma_y), sigma_y)
    step = DataStep(problem, share * sigma_y / operator.norm(), 1e-9)
    matrix, eye = dense(operator), torch.eye(48, dtype=torch.complex128)
    columns = prior.transform.inverse(prior.power * prior.transform.forward(eye.reshape(48, 8, 6))).reshape(48, 48)
    covariance = columns.mT
    noise = sigma_y**2 * torch.eye(len(matrix), dtype=matrix.dtype)
    gain = covariance @ matrix.mH @ torch.linalg.inv(matrix @ covariance @ matrix.mH + noise)
    mean, posterior = gain @ problem.y.flatten(), covariance - gain @ matrix @ covariance
    root = step.root.of(problem.gram, eye.reshape(48, 8, 6)).reshape(48, 48).mT
    move = eye - step.weight * matrix.mH @ matrix
    shrink = covariance @ torch.linalg.inv(covariance + step.rho**2 * eye)
    swept = shrink @ (move @ mean + step.weight * matrix.mH @ problem.y.flatten())
    spread = move @ posterior @ move.mH + step.rho**2 * root @ root.mH
    swept_covariance = shrink @ spread @ shrink.mH + covariance - shrink @ covariance
    # 1e-9 for the root, 1e-4 relative of its interval where the norm enters.
    assert relative(swept, mean) < 1e-10 and relative(swept_covariance, posterior) < 1e-7


@pytest.mark.parametrize("sweeps", [1, 20])
def test_exact_prior_draws_reach_the_bimodal_posterior(sweeps):
    # share 1 with A = 1 makes z = y: independent draws of the posterior at every sweep.
    sampler = replace(EXACT_STEPS, sweeps=sweeps, share=1.0 if sweeps == 1 else 0.95)
    solution = sampler.run(pixels_problem(), MixturePixels(), samples=1, seed=0)
    # 40 000 draws: the weights' standard error of 0.0025 alone is worth 0.0045.
    assert wasserstein(solution.samples) <= 0.01
    assert solution.info["rho"] == pytest.approx(0.5 * sampler.share, rel=1e-4)


@pytest.mark.parametrize(("step", "bound"), [(ReverseRun(), 0.03), (ReverseRun(8, 0.3), 0.015)], ids=("4", "8"))
def test_network_like_prior_steps_reach_the_bimodal_posterior(step, bound):
    shape = SHAPE if step.steps == 8 else (100, 100)
    sampler = replace(EXACT_STEPS, prior_step=step)
    solution = sampler.run(pixels_problem(shape), MixturePixels(), samples=1, seed=0)
    # Measured 0.018, and 0.007 to 0.010; plain ancestral steps reach 0.16, and the learned covariance alone 0.08.
    assert wasserstein(solution.samples) <= bound and solution.stats.nfe == 20 * step.steps
    assert negative(solution.samples) == pytest.approx(LINEAR[0][0], abs=0.02)


def test_one_sweep_takes_most_of_the_error_of_the_learned_covariance_away():
    start = DiffusionSampler(LearnedCovariance(innovation=False), Bridge(draw_last=True), 20)
    errors = []
    for sweeps in (0, 1):
        solution = SplitGibbs(sweeps, start).run(pixels_problem((100, 100)), MixturePixels(), samples=1, seed=0)
        errors.append(wasserstein(solution.samples))
    assert errors[0] > 0.06 and errors[1] < 0.03  # measured 0.080 and 0.010; 10 000 draws, standard error 0.009


def test_a_deterministic_prior_step_draws_too_little_variance():
    ode = ReverseRun(10, 0.02, DDIM(eta=0.0))
    solution = replace(EXACT_STEPS, prior_step=ode).run(pixels_problem((50, 50)), MixturePixels(), samples=1, seed=0)
    assert float(solution.samples.std()) < 0.8 * 0.912  # measured 0.65


@pytest.mark.parametrize("steps", [1, 3])
def test_a_reverse_run_is_exact_for_gaussian_images_at_any_number_of_steps(steps):
    shape, z, sigma = (200, 200), 0.7, 0.8
    prior = MixturePixels(((1.0,), (0.5,), (0.6,)))
    problem = Problem.without_data(shape, 1, dtype=torch.float64)
    trace = Trace(1, Silent(), None)
    x = ReverseRun(steps).draw(problem, prior, torch.full((1, *shape), z).double(), sigma, SampleRandom(0, [0]), trace)
    gain = 0.36 / (0.36 + sigma**2)
    deviation = math.sqrt(gain) * sigma
    # Four standard errors of 40 000 draws.
    assert float(x.mean()) == pytest.approx(0.5 + gain * (z - 0.5), abs=4 * deviation / 200)
    assert float(x.std()) == pytest.approx(deviation, rel=4 / math.sqrt(80000))
    assert problem.work.nfe == steps == trace.evaluations


def test_levels_of_a_reverse_run_begin_at_sigma_and_stay_in_the_range_of_the_prior():
    prior = MixturePixels()
    prior.sigma_min = 0.05
    assert ReverseRun(5, 0.1).levels(prior, 1.0)[0] == pytest.approx(1.0, rel=1e-12)
    assert ReverseRun(5, 0.1).levels(prior, 1.0)[-2:] == pytest.approx((0.1, 0.0), rel=1e-12)
    assert ReverseRun(5, 0.1).levels(prior, 0.2)[-2] == pytest.approx(0.05, rel=1e-12)
    assert ReverseRun(5, 0.1).levels(prior, 0.06)[-2] == pytest.approx(0.03, rel=1e-12)  # else no room for steps
    assert ReverseRun(1).levels(prior, 1.0) == (1.0, 0.0)


@pytest.mark.slow
def test_the_gaussian_posterior_is_reached_from_a_poor_start():
    case = inpainting()
    start = DiffusionSampler(DDS(), DDIM(eta=0.0), 20)  # bias 0.24 and 0.56, deviation 1.16 and 1.42
    sampler = SplitGibbs(50, start, ReverseRun(2))
    samples = sampler.run(case.problem, case.prior, samples=4000, seed=0).samples
    # 4000 draws: the mean of a pixel has a standard error of 0.016, a standard deviation one of 0.011 a pixel.
    assert max(case.bias(samples)) < 0.02
    assert all(abs(ratio - 1) < 0.01 for ratio in case.spread(samples))


@pytest.mark.parametrize("problem", ["mri odd", "inpainting"])
def test_complex_and_real_problems_are_solved(problem):
    operator, prior = PROBLEMS[problem]()
    x0 = prior.sample(2, torch.Generator().manual_seed(4)).to(operator.in_dtype)
    built = Problem.build(operator, observe(operator, x0, 0.1), 0.1)
    sampler = SplitGibbs(prior_step=ReverseRun(2)).with_steps(14)
    solution = sampler.run(built, prior, samples=3, seed=0)
    assert solution.samples.shape == (3, 2, *operator.in_shape) and solution.samples.dtype == operator.in_dtype
    assert solution.stats.nfe == sampler.evaluations() == 14
    assert 0.3 < float(solution.residual.mean()) < 2
    assert solution.info["grid"][-1] == 0.0 and len(solution.info["innovation"]) == sampler.start.evaluations()


def test_samples_do_not_depend_on_the_batch():
    operator, prior = mri(), stationary((8, 6))
    built = Problem.build(operator, observe(operator, randn(2, 8, 6), 0.1), 0.1)
    sampler = SplitGibbs(5, DiffusionSampler(LearnedCovariance(), Bridge(draw_last=True), 3), ReverseRun(2))
    whole = sampler.run(built, prior, samples=3, seed=5)
    for batch in (1, 4):
        parts = sampler.run(built, prior, samples=3, seed=5, batch=batch)
        assert relative(parts.samples, whole.samples) < 1e-8  # rounding, carried through CG
        assert parts.info == whole.info


def test_chains_that_have_not_met_are_reported():
    far, near = (replace(EXACT_STEPS, sweeps=40, share=share) for share in (0.05, 0.95))
    problem = pixels_problem((4, 4))
    two = Problem.build(problem.operator, problem.y.expand(2, 4, 4).contiguous(), problem.sigma_y)
    facts = [sampler.run(two, MixturePixels(), samples=8, seed=0).info for sampler in (far, near)]
    assert all(len(info["split_rhat"]) == len(info["effective_samples"]) == 2 for info in facts)
    # Steps of 0.025 between modes 2 apart, 40 times, against steps of 0.475.
    assert min(facts[0]["split_rhat"]) > 1.5 > 1.15 > max(facts[1]["split_rhat"])
    assert max(facts[0]["effective_samples"]) < 40 < min(facts[1]["effective_samples"])


def test_few_sweeps_are_not_judged_and_none_leave_the_start():
    problem = pixels_problem((4, 4))
    short = replace(EXACT_STEPS, sweeps=3).run(problem, MixturePixels(), samples=2, seed=0).info
    assert "split_rhat" not in short and short["rho"] == pytest.approx(0.475, rel=1e-4)
    none = replace(EXACT_STEPS, sweeps=0).run(problem, MixturePixels(), samples=2, seed=0)
    assert torch.equal(none.samples, FromNoise().run(problem, MixturePixels(), samples=2, seed=0).samples)


def test_the_average_is_the_mean_of_the_last_sweeps_and_has_less_error():
    states = [
        replace(EXACT_STEPS, sweeps=n).run(pixels_problem((4, 4)), MixturePixels(), samples=3, seed=0).samples
        for n in (3, 4)
    ]
    mean = replace(EXACT_STEPS, sweeps=4, average=0.5).run(pixels_problem((4, 4)), MixturePixels(), samples=3, seed=0)
    assert relative(mean.samples, (states[0] + states[1]) / 2) < 1e-12
    long = replace(EXACT_STEPS, sweeps=200, average=0.9)
    spread = long.run(pixels_problem((50, 50)), MixturePixels(), samples=1, seed=0).samples.std()
    # 180 correlated states: a spread of 0.912 / sqrt(180 / 10) or less, where a sample has 0.912.
    assert float(spread) < 0.25


def test_rho_stays_within_what_the_prior_knows():
    prior = MixturePixels()
    prior.sigma_max, prior.sigma_min = 0.3, 0.1
    assert EXACT_STEPS.largest_rho(pixels_problem((2, 2)), prior) == 0.3
    with pytest.raises(InputError, match="shorter than the smallest"):
        EXACT_STEPS.run(pixels_problem((2, 2), sigma_y=0.05), prior, samples=1, seed=0)
    unseen = Problem.without_data((100, 100), 1, dtype=torch.float64)
    prior.sigma_max = 80.0
    samples = replace(EXACT_STEPS, sweeps=1).run(unseen, prior, samples=1, seed=0).samples
    # Without data one sweep of the longest steps draws from the prior: four standard errors of the weight.
    assert negative(samples) == pytest.approx(PRIOR[0][0], abs=4 * 0.0046)


def test_outside_the_support_the_image_is_zero():
    maps = coil_maps(2, (8, 6))
    maps[:, :, :2] = 0
    operator = MultiCoilMRI(maps, torch.arange(6) % 2 == 0)
    built = Problem.build(operator, observe(operator, randn(1, 8, 6), 0.1), 0.1)
    assert built.support is not None and not bool(built.support[:, :2].any())
    samples = SplitGibbs(3, prior_step=ReverseRun(2)).run(built, stationary((8, 6)), samples=2, seed=0).samples
    assert not bool(samples[..., :2].abs().any()) and bool(samples[..., 2:].abs().all())


@pytest.mark.parametrize("steps", [1, 9, 13, 14, 15, 90, 91])
def test_with_steps_makes_whole_sweeps_and_leaves_the_rest_to_the_start(steps):
    sampler = SplitGibbs().with_steps(steps)
    assert sampler.evaluations() == steps
    assert sampler.sweeps == max(0, (steps - 10) // 4) and sampler.prior_step == SplitGibbs().prior_step


def test_it_compares_prints_and_pickles():
    sampler = SplitGibbs(3, prior_step=ReverseRun(2, conditioning=Unconditional()))
    assert pickle.loads(pickle.dumps(sampler)) == sampler != SplitGibbs(4, prior_step=ReverseRun(2))
    assert "sweeps=3" in repr(sampler)


@pytest.mark.parametrize(
    "build",
    [
        lambda: SplitGibbs(-1),
        lambda: SplitGibbs(share=0.0),
        lambda: SplitGibbs(share=1.1),
        lambda: SplitGibbs(share=math.nan),
        lambda: SplitGibbs(tolerance=0.0),
        lambda: SplitGibbs(average=1.1),
        lambda: ReverseRun(0),
        lambda: ReverseRun(smallest=1.0),
        lambda: EXACT_STEPS.run(pixels_problem((2, 2), sigma_y=0.0), MixturePixels(), samples=1, seed=0),
        lambda: EXACT_STEPS.run(magnitude_problem((2, 2)), MixturePixels(), samples=1, seed=0),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def test_the_data_step_is_not_that_of_the_usual_splitting():
    # The usual splitting has covariance (A^H A / sigma_y^2 + I / rho^2)^-1, larger where A sees: A = 1, rho = sigma_y
    # gives sigma_y^2 / 2 in the place of 0.
    problem = pixels_problem((2, 2))
    step = DataStep(problem, 0.5, 1e-3)
    x: Tensor = torch.zeros(1, 2, 2, dtype=torch.float64)
    moved = step.draw(x, problem.gram(x), SampleRandom(0, [0]))
    assert float((moved - problem.y).abs().max()) < 0.5 * 1e-2  # the norm's 1e-4 leaves noise of rho sqrt(2e-4)
