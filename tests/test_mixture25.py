"""The mixture of 25 Gaussians: pinned numbers of its problems, exact draws, and what its figures tell apart."""

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

from inverse.operators.matrix import Matrix
from inverse.priors import GaussianMixturePrior, GaussianPrior
from inverse.samplers.mcgdiff import MCGDiff
from inverse.samplers.twisted import Twisted

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
mixture25 = importlib.import_module("mixture25")

# d, m: noise level, posterior probability of the likeliest components, log p(y); seed 0.
PINNED = {
    (8, 1): (0.243799, {12: 0.999369, 17: 0.000430, 3: 0.000126}, -2.236710),
    (8, 2): (0.520895, {12: 1.0}, -2.459595),
    (8, 4): (0.500974, {8: 0.995574, 4: 0.004426}, -9.162682),
    (80, 1): (0.180738, {2: 0.740692, 5: 0.170872, 6: 0.088315}, -4.387348),
    (80, 2): (0.407025, {4: 0.837885, 9: 0.122767, 8: 0.039348}, -7.041718),
    (80, 4): (0.484080, {15: 1.0}, -10.005642),
    (800, 1): (0.149115, {21: 0.831169, 16: 0.116534, 6: 0.051880}, -2.872584),
    (800, 2): (0.669527, {12: 0.796406, 7: 0.094087, 22: 0.051338}, -3.427051),
    (800, 4): (0.515444, {23: 0.851103, 14: 0.125032, 19: 0.023371}, -7.563856),
}
HALF = 0.51e-6  # of the last digit given


@pytest.mark.parametrize("size", PINNED, ids=str)
def test_problems_are_the_pinned_ones(size):
    sigma_y, weights, evidence = PINNED[size]
    problem = mixture25.problem(*size)
    assert abs(problem.sigma_y - sigma_y) < HALF and abs(problem.log_evidence - evidence) < HALF
    for component, weight in weights.items():
        # 1.000 stands for what rounds to it.
        assert abs(float(problem.weights[component]) - weight) < (5e-4 if weight == 1 else HALF)
    assert problem.y.shape == (1, size[1]) and problem.prior.means.shape == (25, 2, size[0] // 2)


def dense_prior(prior) -> GaussianMixturePrior:
    eye = prior.variance * torch.eye(prior.means[0].numel(), dtype=torch.float64)
    return GaussianMixturePrior(prior.weights, [GaussianPrior(mean, eye) for mean in prior.means])


@pytest.mark.parametrize("sigma", [0.1, 3.0, 40.0])
def test_the_prior_is_the_one_with_dense_components(sigma):
    prior = mixture25.problem(8, 2).prior
    other = dense_prior(prior)
    x = prior.sample(50, torch.Generator().manual_seed(0))
    x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    for found, expected in zip(prior.moments(x, sigma), other.moments(x, sigma), strict=True):
        # Squares of means up to 256 cancel in the variance, 1e-2 at the smallest level.
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(prior.denoise(x, sigma), prior.moments(x, sigma)[0], rtol=1e-12, atol=0)
    assert prior.data_std == pytest.approx(other.data_std, rel=1e-12)
    draws = prior.sample(20_000, torch.Generator().manual_seed(2))
    noisy = draws + sigma * torch.randn(draws.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    error = (draws - prior.denoise(noisy, sigma)).square().mean()
    # 2000 draws stand behind `mse`; modes are 16 apart, so that few draws make most of the error.
    assert prior.mse(sigma) == pytest.approx(float(error), rel=0.15)


def test_the_posterior_is_that_of_dense_components():
    problem = mixture25.problem(8, 4)
    posterior = dense_prior(problem.prior).posterior(problem.operator.matrix, problem.y[0], problem.sigma_y)
    torch.testing.assert_close(posterior.weights, problem.weights, rtol=1e-9, atol=1e-15)
    count = 20_000
    draws = problem.sample(count, torch.Generator().manual_seed(0)).flatten(1)
    best = int(problem.weights.argmax())
    component = posterior.components[best]
    draws = draws[problem.prior.nearest(draws) == best]
    error = (draws.mean(0) - component.mean.flatten()) / component.covariance.diagonal().sqrt()
    assert float(error.abs().max()) < 4.5 / math.sqrt(len(draws))
    # Five standard deviations of a covariance between directions of variance at most 1.
    assert float((torch.cov(draws.mT) - component.covariance).abs().max()) < 5 * math.sqrt(2 / len(draws))


def test_measurements_know_their_singular_values():
    operator = mixture25.problem(8, 2).operator
    x = torch.randn(3, *operator.in_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, svd = operator(x), operator.svd
    torch.testing.assert_close(svd.U(svd.s * svd.Vh(x)), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(svd.V(svd.s * svd.Uh(y)), operator.H(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(svd.Vh(svd.V(y)), y, rtol=1e-12, atol=1e-12)
    assert isinstance(operator, Matrix) and tuple(svd.s.shape) == (2,)


# Sliced W2 of 2000 exact and prior draws for (8, 1), (80, 2); it hangs on a few draws of rare modes.
@pytest.mark.parametrize(("size", "floor", "useless"), [((8, 1), 0.5, 8.89), ((80, 2), 0.6, 16.3)])
def test_figures_know_exact_draws_from_others(size, floor, useless):
    problem = mixture25.problem(*size)
    exact = mixture25.figures(problem.sample(2000, torch.Generator().manual_seed(7)), problem)
    prior = mixture25.figures(problem.prior.sample(2000, torch.Generator().manual_seed(8)), problem)
    assert exact["SW"][0] < floor and exact["weights"][0] < 0.03
    assert prior["SW"][0] == pytest.approx(useless, rel=0.1) and prior["weights"][0] > 0.6


def test_a_shift_of_everything_is_its_share_of_a_random_direction():
    problem = mixture25.problem(80, 4)  # one mode
    draws = problem.sample(2000, torch.Generator().manual_seed(7))
    shift = torch.full_like(draws[0], 0.5)
    # |shift|^2 / d on average: 0.5; the floor of the draws themselves is below 0.06.
    found = mixture25.sliced_wasserstein(draws, draws + shift)
    assert found == pytest.approx(0.5, rel=0.1)
    assert mixture25.sliced_wasserstein(draws, draws.flip(0)) == 0.0


def test_particles_find_the_modes_and_learned_ones_need_fewer():
    problem, found = mixture25.problem(80, 2), {}
    levels = mixture25.grid(problem.prior, 16)
    runs = {
        "twisted": (Twisted(particles=16, grid=levels), problem.learned["calibrated"]),
        "one particle": (Twisted(particles=1, grid=levels), problem.learned["calibrated"]),
        "MCGDiff": (MCGDiff(particles=16, grid=levels), problem.plain),
    }
    for name, (sampler, prior) in runs.items():
        found[name] = mixture25.measure(problem, sampler, prior, 150)
    assert found["twisted"]["evaluations"][0] == found["MCGDiff"]["evaluations"][0] == 256
    # Found .04, .6, .6; 150 samples have .04 by chance.
    assert found["twisted"]["weights"][0] < 0.15
    assert min(found[name]["weights"][0] for name in ("one particle", "MCGDiff")) > 0.3


def test_all_problems_and_samplers_have_names():
    assert len(mixture25.problems()) == 9
    problem = mixture25.problems()["mixture of 25, d 8, m 2"]()
    assert problem is mixture25.problem(8, 2, 0)
    for sampler, knows in mixture25.samplers(problem.prior).values():
        assert knows in ("plain", "calibrated")
        assert sampler.levels(problem.prior)[0] == pytest.approx(problem.prior.sigma_max)
        assert sampler.levels(problem.prior)[-1] == 0
