"""RED-diff as a run: Adam, levels, start, the posterior mean of Gaussians, particles."""

import pickle
from dataclasses import replace

import pytest
import torch
from red_diff_cases import PUBLISHED, SIGMA, begin, end, inpainting
from sampler_cases import EXACT, bayes, dense, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import Identity, Mask, Matrix, from_function
from inverse.priors import Denoiser, GaussianPrior
from inverse.priors import from_function as prior_from
from inverse.samplers import Problem
from inverse.samplers.adam import Adam
from inverse.samplers.red_diff import SPREAD, RedDiff, published
from inverse.samplers.repulsion import repulsion, through

# Adam.


@pytest.mark.parametrize("size", [1e-12, 1e-8, 1.0, 1e12])
def test_the_first_step_of_adam_is_the_rate_in_the_direction_of_the_sign(size):
    gradient = size * torch.tensor([[1.0, -0.5, 0.0, 3.0]], dtype=torch.float64)
    step = Adam((0.9, 0.99)).direction(gradient)
    torch.testing.assert_close(step, gradient.sign(), rtol=0, atol=1e-6)


def test_adam_forgets_the_scale_of_the_loss():
    gradients = randn(10, 2, 5, dtype=torch.complex64)
    plain, tiny = Adam((0.9, 0.99)), Adam((0.9, 0.99))
    for g in gradients:
        one, other = plain.direction(g), tiny.direction(1e-9 * g)
    # Single precision, ten steps; a fixed epsilon of 1e-8 would halve the steps.
    assert relative(one, other) < 1e-5


def test_adam_follows_the_published_recursion():
    g = randn(6, 1, 4, dtype=torch.float64)
    x = torch.nn.Parameter(torch.zeros(1, 4, dtype=torch.float64))
    reference = torch.optim.Adam([x], lr=1.0, betas=(0.9, 0.99), eps=1e-30)
    adam, mu = Adam((0.9, 0.99)), torch.zeros(1, 4, dtype=torch.float64)
    for gradient in g:
        x.grad = gradient.clone()
        reference.step()
        mu = mu - adam.direction(gradient)
    assert relative(mu, x.detach()) < 1e-11  # our epsilon is 1e-12 of the gradient


def test_images_of_a_batch_do_not_know_of_each_other():
    problem, prior = inpainting(8)
    for sampler in (RedDiff(40), PUBLISHED):
        whole = sampler.run(problem, prior, samples=2, seed=3)
        for batch in (1, 3):
            parts = sampler.run(problem, prior, samples=2, seed=3, batch=batch)
            # The transforms of one image or many round differently, and Adam carries it on.
            assert relative(parts.samples, whole.samples) < 1e-9
    # Without a transform nothing rounds differently.
    problem = Problem.build(Identity((6,), dtype=torch.float64), randn(8, 6, dtype=torch.float64), 0.3)
    prior = prior_from(lambda x, sigma: x / (1 + sigma**2))
    whole = RedDiff(40).run(problem, prior, samples=1, seed=3).samples
    assert torch.equal(RedDiff(40).run(problem, prior, samples=1, seed=3, batch=1).samples, whole)


# The run.


def test_the_image_after_the_last_step_is_returned():
    problem, prior = inpainting(1)
    start = begin(RedDiff(), problem, prior)
    x = end(RedDiff(grid=(SIGMA, 0.0), rate=0.1, schedule="constant"), problem, prior)
    # The first step of Adam: every pixel moves by the rate.
    torch.testing.assert_close((x - start).abs(), torch.full_like(x, 0.1 * prior.data_std), rtol=1e-6, atol=0)


def visited(sampler: RedDiff, problem: Problem, prior: Denoiser) -> list[float]:
    seen = []
    sampler.run(problem, prior, samples=1, seed=0, callback=lambda step, sigma, x0: seen.append(sigma))
    return seen


def test_each_level_is_visited_once_and_they_fall():
    problem, prior = inpainting()
    for sampler in (RedDiff(17), PUBLISHED):
        seen = visited(sampler, problem, prior)
        assert seen == [sigma for sigma in sampler.levels(prior) if sigma > 0] == sorted(set(seen), reverse=True)
        assert len(seen) == sampler.evaluations()
    assert len(seen) == 30 and seen[-1] == pytest.approx(0.01, abs=1e-6)
    with pytest.raises(InputError, match="decreasing"):
        RedDiff(grid=(0.1, 1.0, 0.0))


def test_costs_are_counted():
    problem, prior = inpainting()
    stats = RedDiff(7).run(problem, prior, samples=2, seed=0).stats
    assert (stats.nfe, stats.nfe_backward) == (7, 0) and stats.grams >= 7
    stats = RedDiff(7, particles=3).run(problem, prior, samples=1, seed=0).stats
    assert stats.nfe == 21 == RedDiff(7, particles=3).evaluations() and stats.grams >= 21


def test_levels_stay_where_the_prior_was_trained():
    narrow = prior_from(lambda x, s: x, data_std=0.3, sigma_min=0.05, sigma_max=0.1)
    levels = RedDiff(5).levels(narrow)
    assert levels[0] == pytest.approx(0.1) and levels[-2] == pytest.approx(0.05) and levels[-1] == 0.0


def test_without_regulariser_the_data_are_fitted_and_what_they_do_not_show_is_left():
    problem, _ = inpainting()
    white = prior_from(lambda x, sigma: x / (1 + sigma**2))
    start = begin(RedDiff(), problem, white)
    x = end(RedDiff(300, strength=0.0), problem, white)
    seen = problem.operator.mask
    # The rate ends at 0 like a cosine: the last step is 1e-5 of 0.3.
    torch.testing.assert_close(x[:, seen], problem.y[:, seen], rtol=0, atol=1e-3)
    assert torch.equal(x[:, ~seen], start[:, ~seen]) and not start[:, ~seen].any()


@pytest.mark.parametrize("case", ["mri", "inpainting"])
def test_it_ends_at_the_posterior_mean_of_a_stationary_gaussian(case):
    if case == "mri":
        operator, prior = mri(), stationary((8, 6))
        y, sigma_y = observe(operator, prior.sample(2, torch.Generator().manual_seed(4)), 0.1), 0.1
        problem = Problem.build(operator, y, sigma_y)
    else:
        problem, prior = inpainting()
    modes = prior.transform
    basis = modes.inverse(torch.eye(48, dtype=prior.dtype).reshape(-1, 8, 6)).reshape(48, 48).mT
    precision = basis @ torch.diag(1 / prior.power.flatten()).to(prior.dtype) @ basis.mH
    matrix = dense(problem.operator)
    right = problem.adjoint_y.flatten(1) / problem.sigma_y**2
    exact = torch.linalg.solve(precision + matrix.mH @ matrix / problem.sigma_y**2, right.mT).mT.reshape(-1, 8, 6)
    high = RedDiff(250, strength=1.0, largest=5.0, smallest=0.5)
    error = relative(end(high, problem, prior), exact)
    assert error < 0.01  # opposite noise cancels up to the difference of neighbouring levels
    assert relative(end(replace(high, mirrored=False), problem, prior), exact) > 2 * error
    assert relative(end(replace(high, spectrum=False), problem, prior), exact) > 5 * error


def test_adam_at_a_constant_rate_finds_neither_mean_nor_sample():
    # One seen and one unseen number, prior N(0, 1), y = 1, sigma_y = 0.5: posterior means 0.8 and 0.
    prior = GaussianPrior(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    operator = Mask(torch.tensor([True, False]), dtype=torch.float64)
    problem = Problem.build(operator, torch.tensor([[1.0, 0.0]], dtype=torch.float64), 0.5)
    x = replace(published(1000), rate=0.1).run(problem, prior, samples=100, seed=0).samples[:, 0]
    # 1.000 +- 0.010 and 0.00 +- 0.38: three standard errors of 100 runs, and the digits given.
    assert float(x[:, 0].mean()) == pytest.approx(1.0, abs=4e-3)
    assert float(x[:, 0].std()) == pytest.approx(0.01, rel=0.5)
    assert abs(float(x[:, 1].mean())) < 0.12 and float(x[:, 1].std()) == pytest.approx(0.38, abs=0.09)
    mean = end(RedDiff(300, strength=1.0), problem, prior)
    torch.testing.assert_close(mean, torch.tensor([[0.8, 0.0]], dtype=torch.float64), rtol=0, atol=0.02)


def test_the_spread_of_its_samples_says_what_it_is():
    problem, prior = inpainting()
    assert RedDiff(3).run(problem, prior, samples=2, seed=0).info["spread"] == SPREAD and "no error bar" in SPREAD


def test_the_start_does_not_amplify_the_noise_of_an_ill_conditioned_operator():
    # Singular values from 1 to 1e-4, noise 0.01: the inverse makes noise of 100 of it.
    prior = GaussianPrior(torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64))
    values = torch.logspace(0, -4, 6, dtype=torch.float64)
    operator = Matrix(torch.diag(values))
    x0 = randn(1, 6, dtype=torch.float64)
    problem = Problem.build(operator, values * x0 + 0.01 * randn(1, 6, dtype=torch.float64, seed=1), 0.01)
    exact = bayes(torch.diag(values), problem.y, torch.zeros(1, 6, dtype=torch.float64), 1.0, 0.01)
    start = begin(RedDiff(), problem, prior)
    # Solved to 1e-3 of the data, which leaves what is weak in them at 0: never beyond the exact one.
    assert bool((start.abs() < 1.05 * exact.abs() + 1e-3).all()) and relative(start[:, :2], exact[:, :2]) < 0.02
    assert float((problem.y / values).abs().max()) > 15 > 5 * float(start.abs().max())


def test_the_direct_inverse_is_a_start_where_there_is_one():
    problem, prior = inpainting()
    direct = RedDiff(start="pinv")
    assert torch.equal(begin(direct, problem, prior), problem.y)
    seen = problem.operator.mask.flatten()
    operator = Matrix(torch.eye(48, dtype=torch.float64)[seen], in_shape=(8, 6))
    packed = Problem.build(operator, problem.y.flatten(1)[:, seen], 0.1)
    assert not operator.has_pinv
    assert torch.equal(begin(direct, packed, prior), begin(RedDiff(), packed, prior))


@pytest.mark.parametrize("weighting", ["noise-aware", "linear"])
def test_data_without_noise_are_a_limit(weighting):
    exact, prior = inpainting(sigma_y=0.0)
    x = end(RedDiff(200, weighting=weighting), exact, prior)
    nearly = Problem.build(exact.operator, exact.y, 1e-6)
    assert relative(x, end(RedDiff(200, weighting=weighting), nearly, prior)) < 1e-2  # the start solves to 1e-3
    seen = exact.operator.mask
    assert relative(x[:, seen], exact.y[:, seen]) < 0.03 and bool(x[:, ~seen].any())


def test_the_average_is_that_of_the_last_images():
    problem, prior = inpainting(1)
    seen = []
    x = RedDiff(10, average=0.3).run(
        problem, prior, samples=1, seed=0, callback=lambda step, sigma, x0: seen.append(x0)
    )
    assert relative(x.samples[0], torch.stack(seen[-3:]).mean(0)) < EXACT
    assert torch.equal(end(RedDiff(10), problem, prior), seen[-1])


def test_opposite_noise_cancels_in_a_linear_denoiser():
    problem, prior = inpainting(1)
    spreads = [
        float(RedDiff(100, mirrored=mirrored).run(problem, prior, samples=8, seed=0).std.mean())
        for mirrored in (True, False)
    ]
    assert spreads[0] < 0.3 * spreads[1]


def test_nonlinear_data_are_taken_by_their_gradient():
    # y = |x| + n, prior N(0, 1) per number: either sign, mode of the posterior at 1 / 1.01.
    operator = from_function(torch.abs, (4,), linear=False, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    problem = Problem.build(operator, torch.ones(8, 4, dtype=torch.float64), 0.1)
    x = end(RedDiff(200, strength=1.0), problem, prior)
    torch.testing.assert_close(x.abs(), torch.full_like(x, 1 / 1.01), rtol=0, atol=0.02)
    assert 4 < int((x > 0).sum()) < 28  # 32 fair signs
    silent = Problem.build(operator, torch.ones(1, 4, dtype=torch.float64), 0.0)
    with pytest.raises(InputError, match="noise"):
        end(RedDiff(3), silent, prior)
    assert bool(torch.isfinite(end(RedDiff(3, noise=1.0, weighting="linear"), silent, prior)).all())


# Particles.


def test_repulsion_of_three_numbers():
    found = repulsion(torch.tensor([[[0.0], [1.0], [3.0]]], dtype=torch.float64)).flatten()
    expected = torch.tensor([-1.397083, 0.924196, 0.795732], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # six digits given
    assert not repulsion(torch.tensor([[[0.0], [1.0]]])).any()
    same = repulsion(torch.ones(1, 4, 2))
    assert torch.equal(same, torch.zeros_like(same))


def test_repulsion_of_features_comes_back_by_the_chain_rule():
    x, matrix = randn(2, 4, 5, seed=1, dtype=torch.float64), randn(3, 5, seed=2, dtype=torch.float64)
    found = through(lambda v: v @ matrix.mT, x)
    assert relative(found, repulsion(x @ matrix.mT) @ matrix) < EXACT
    z = randn(2, 4, 5, seed=3)
    parts = torch.view_as_real(z).flatten(2)
    assert relative(repulsion(z), torch.view_as_complex(repulsion(parts).unflatten(-1, (5, 2)))) < EXACT
    assert relative(through(lambda v: 2 * v, z), 2 * repulsion(2 * z)) < EXACT


def halved(x: Tensor) -> Tensor:
    return x[..., ::2]


def test_particles_are_kept_and_repulsion_spreads_them():
    problem, prior = inpainting()
    base = RedDiff(60, particles=4, mirrored=False)
    plain = base.run(problem, prior, samples=3, seed=0)
    assert plain.maps["particles"].shape == (3, 2, 4, 8, 6)
    assert relative(plain.maps["particles"].mean(2), plain.samples) < EXACT
    alone = base.run(problem, prior, samples=3, seed=0, batch=1)
    assert relative(alone.maps["particles"], plain.maps["particles"]) < 1e-9
    for features in (None, halved):
        apart = RedDiff(60, particles=4, mirrored=False, repulsion=20.0, features=features)
        pushed = apart.run(problem, prior, samples=3, seed=0).maps["particles"]
        assert float(pushed.std(2).mean()) > 1.2 * float(plain.maps["particles"].std(2).mean())
        assert pickle.loads(pickle.dumps(apart)) == apart


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"grid": (0.0,)},
        {"weighting": "cubic"},
        {"schedule": "step"},
        {"start": "zero"},
        {"strength": -1.0},
        {"noise": 0.0},
        {"rate": 0.0},
        {"stiffness": 0.0},
        {"betas": (0.9, 1.0)},
        {"average": 1.5},
        {"largest": 0.01},
        {"particles": 0},
        {"particles": 2, "repulsion": 1.0},
    ],
)
def test_bad_settings_are_one_line(options):
    with pytest.raises(InputError) as error:
        RedDiff(**options)
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def test_it_compares_prints_and_pickles():
    assert pickle.loads(pickle.dumps(PUBLISHED)) == PUBLISHED != RedDiff()
    assert "linear" in repr(PUBLISHED) and RedDiff().with_steps(9).evaluations() == 9
