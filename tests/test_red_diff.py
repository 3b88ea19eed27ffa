"""RED-diff: exact numbers of its loss and its gradient, and the units in which it is told."""

import math

import numpy as np
import pytest
import torch
from red_diff_cases import PUBLISHED, end, inpainting, value
from sampler_cases import EXACT, mri, observe, randn, relative, stationary
from torch import Tensor

import inverse
from inverse.operators import Matrix, from_function, stack
from inverse.priors import Denoiser, GaussianPrior
from inverse.priors import from_function as prior_from
from inverse.samplers import Problem
from inverse.samplers.red_diff import RedDiff
from inverse.samplers.weightings import WEIGHTINGS, Precision, Weighted

# Prior N(0.2, 1), sigma = 0.7, e = 0.3, mu = 0.5; alpha, x_vp, D and e_hat by hand.
S, M, SIGMA, E, MU = 1.0, 0.2, 0.7, 0.3, 0.5
ALPHA, X_VP, D, E_HAT = 0.8192319205, 0.5816546636, 0.5422818792, 0.2395973154
WEIGHTED = {  # w(sigma) (e_hat - e)
    "const": -0.060403,
    "log": -0.032051,
    "trunc_linear": -0.042282,
    "sqrt": -0.050537,
    "power2over3": -0.047620,
    "linear": -0.042282,
    "square": -0.029597,
}


def scalar_prior(mean: float = M, std: float = S) -> GaussianPrior:
    return GaussianPrior(torch.full((1,), mean, dtype=torch.float64), std**2 * torch.eye(1, dtype=torch.float64))


# The regulariser.


def test_noise_seen_less_noise_added_is_mu_less_denoised_in_either_frame():
    alpha, noise_vp = 1 / math.sqrt(1 + SIGMA**2), SIGMA / math.sqrt(1 + SIGMA**2)
    denoised = float(scalar_prior().denoise(value(MU + SIGMA * E), SIGMA))
    x_vp = alpha * MU + noise_vp * E
    e_hat = (x_vp - alpha * denoised) / noise_vp
    # Ten digits were given.
    assert (alpha, x_vp, denoised, e_hat) == pytest.approx((ALPHA, X_VP, D, E_HAT), abs=1e-10)
    assert noise_vp / alpha * (e_hat - E) == pytest.approx(MU - denoised, abs=EXACT)
    pull = Weighted(WEIGHTINGS["linear"](SIGMA), SIGMA)
    assert float(pull(value(MU - denoised))) == pytest.approx(-0.0422818792, abs=1e-9)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_the_published_names(name):
    pull = Weighted(WEIGHTINGS[name](SIGMA), SIGMA)
    assert float(pull(value(MU - D))) == pytest.approx(WEIGHTED[name], abs=1e-6)  # six digits given
    assert set(WEIGHTED) == set(WEIGHTINGS)


def gauss_hermite(count: int = 20) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the mean over e ~ N(0, 1); exact here, where all is linear or quadratic."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(nodes)[:, None], torch.from_numpy(weights / weights.sum())[:, None]


def test_the_mean_pull_of_a_gaussian_prior():
    nodes, weights = gauss_hermite()
    pull = (weights * (MU - scalar_prior().denoise(MU + SIGMA * nodes, SIGMA))).sum()
    exact = SIGMA**2 * (MU - M) / (S**2 + SIGMA**2)
    assert float(pull) == pytest.approx(exact, abs=EXACT) and exact == pytest.approx(0.0986577, abs=1e-7)


def test_the_loss_over_all_levels_is_the_divergence_from_the_prior():
    # Its gradient is (mu - m) / s^2: the network's Jacobian is kept here, which the method drops.
    prior, (nodes, weights) = scalar_prior(), gauss_hermite(4)
    mu = torch.tensor(MU, dtype=torch.float64, requires_grad=True)
    log_sigma = torch.linspace(math.log(1e-5), math.log(1e5), 2001, dtype=torch.float64)
    losses = [
        (weights * ((mu - prior.denoise(mu + s * nodes, s)) / s).square()).sum() for s in log_sigma.exp().tolist()
    ]
    (gradient,) = torch.autograd.grad(torch.trapezoid(torch.stack(losses), log_sigma), mu)
    assert float(gradient) == pytest.approx((MU - M) / S**2, abs=1e-6)  # the ends of the integral


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0, 50.0])
def test_the_noise_aware_pull_is_stationary_at_the_posterior_mean_at_every_level(sigma):
    # a = 0.8, sigma_y = 0.5, y = 1.3. Both gradients are affine in mu: two points give the root.
    prior, (nodes, weights) = scalar_prior(), gauss_hermite()
    problem = Problem.build(Matrix(torch.tensor([[0.8]], dtype=torch.float64)), value(1.3), 0.5)

    def gradient(mu: float) -> float:
        denoised = (weights * prior.denoise(mu + sigma * nodes, sigma)).sum()[None, None]
        pull = Precision(value(prior.mse(sigma) ** 0.5))
        return float(RedDiff(strength=1.0).gradient(problem, value(mu), denoised, sigma, pull, 0.25))

    at_0, at_1 = gradient(0.0), gradient(1.0)
    assert at_0 / (at_0 - at_1) == pytest.approx(1.2247191011, abs=1e-9)


@pytest.mark.parametrize(("sigma", "precision"), [(0.05, 0.00062), (0.5, 0.05), (5.0, 0.2404), (50.0, 0.2499)])
def test_the_published_weight_loses_the_prior_as_the_level_falls(sigma, precision):
    nodes, weights = gauss_hermite()
    mean_pull = (weights * (1.2 - scalar_prior().denoise(1.2 + sigma * nodes, sigma))).sum()  # mu - m = 1
    linear = Weighted(WEIGHTINGS["linear"](sigma), sigma)
    assert float(0.25 * linear(mean_pull)) == pytest.approx(precision, rel=1e-2)  # two to four digits given
    aware = Precision(value(scalar_prior().mse(sigma) ** 0.5))
    assert float(0.25 * aware(mean_pull)) == pytest.approx(0.25, rel=1e-9)


@pytest.mark.parametrize("kind", ["complex", "real"])
def test_the_pull_by_the_learned_covariance_is_the_exact_precision_in_every_mode(kind):
    prior = stationary((8, 6), torch.complex128 if kind == "complex" else torch.float64)
    mu = prior.sample(1, torch.Generator().manual_seed(0))
    exact = prior.transform.inverse(prior.transform.forward(mu) / prior.power)
    for sigma in (0.05, 1.0, 20.0):
        std = value(prior.mse(sigma) ** 0.5)
        pull = Precision(std, (prior.transform, prior.calibration.power_map(sigma, prior.transform.radius)))
        assert relative(pull(mu - prior.denoise(mu, sigma)), exact) < 1e-10  # D is linear: e = 0 is the mean
    assert relative(Precision(std)(mu - prior.denoise(mu, sigma)), exact) > 0.1  # at 20, one number for all modes


def test_there_is_no_pull_at_the_mode_of_the_prior():
    prior = scalar_prior()
    for name, weight in WEIGHTINGS.items():
        pull = Weighted(weight(SIGMA), SIGMA)
        assert float(pull(value(M) - prior.denoise(value(M), SIGMA))) == pytest.approx(0, abs=1e-15), name


def test_descent_goes_towards_the_denoised_image():
    # Nothing is seen; the start is 0, the prior's mean 5.
    problem = Problem.without_data((1,), 1, dtype=torch.float64)
    moved = end(RedDiff(grid=(2.0, 0.0), schedule="constant", rate=0.1), problem, scalar_prior(5.0))
    assert float(moved) == pytest.approx(0.1 * S, rel=1e-6)


# The gradient as a whole.


def test_the_gradient_of_complex_images_is_that_of_their_two_parts():
    operator, prior = mri(), stationary((8, 6))
    problem = Problem.build(operator, observe(operator, prior.sample(2), 0.1), 0.1)
    mu, denoised, sigma = randn(2, 8, 6, seed=1), randn(2, 8, 6, seed=2), 0.3
    parts = torch.view_as_real(mu).clone().requires_grad_()
    x = torch.view_as_complex(parts)
    pull = ((mu - denoised) / sigma).conj() * x
    loss = problem.misfit(x).abs().square().sum() / (2 * 0.01) + 0.25 * WEIGHTINGS["linear"](sigma) * pull.real.sum()
    loss.backward()
    sampler = RedDiff(weighting="linear", strength=0.25)
    found = sampler.gradient(problem, mu, denoised, sigma, Weighted(sigma, sigma), 0.01)
    assert relative(found, torch.view_as_complex(parts.grad)) < EXACT


def huge_jacobian(prior: Denoiser) -> Denoiser:
    """The same values, and a Jacobian of 1e6 more."""
    wrapped = prior_from(lambda x, s: prior.denoise(x, s) + 1e6 * (x - x.detach()), data_std=prior.data_std)
    wrapped.calibration = prior.calibration
    return wrapped


def test_the_network_is_not_differentiated():
    problem, prior = inpainting()
    assert torch.equal(end(RedDiff(20), problem, prior), end(RedDiff(20), problem, huge_jacobian(prior)))


def test_no_graph_of_the_network_is_kept():
    weight, seen = torch.ones(1, dtype=torch.float64, requires_grad=True), []
    problem, prior = inpainting()

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        out = weight * prior.denoise(x, sigma)
        seen.append(out.requires_grad)
        return out

    with torch.autograd.graph.saved_tensors_hooks(lambda t: pytest.fail("kept a tensor for backward"), lambda t: t):
        x = end(RedDiff(5), problem, prior_from(denoiser))
    assert seen == [False] * 5 and not x.requires_grad


def test_the_network_is_not_differentiated_by_a_nonlinear_operator_either():
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    operator = from_function(torch.abs, (3,), linear=False, dtype=torch.float64)
    problem = Problem.build(operator, torch.ones(1, 3, dtype=torch.float64), 0.1)
    grads = []

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        grads.append((weight * x).requires_grad)
        return x / (1 + sigma**2)

    assert not end(RedDiff(5), problem, prior_from(denoiser)).requires_grad and grads == [False] * 5


def test_the_difference_is_taken_in_the_precision_of_the_image():
    # Half precision spoils D once, and not the noise on top of it.
    problem, prior = inpainting()
    half = prior_from(lambda x, s: prior.denoise(x, s).half(), data_std=prior.data_std)
    half.calibration = prior.calibration
    x = end(RedDiff(20, largest=50.0), problem, half)
    assert x.dtype == torch.float64
    assert relative(x, end(RedDiff(20, largest=50.0), problem, prior)) < 2e-2  # spacing of half near 1 is 1e-3


# Units.


def test_measuring_everything_twice_with_more_noise_changes_nothing():
    problem, prior = inpainting()
    twice = Problem.build(stack([problem.operator] * 2), torch.cat([problem.y] * 2, dim=1), 0.1 * math.sqrt(2))
    # Rounding, carried on by Adam, whose direction has no scale.
    assert relative(end(RedDiff(30), twice, prior), end(RedDiff(30), problem, prior)) < 1e-8


def test_packed_data_and_data_among_zeros_are_the_same():
    problem, prior = inpainting()
    seen = problem.operator.mask.flatten()
    packed = Problem.build(
        Matrix(torch.eye(48, dtype=torch.float64)[seen], in_shape=(8, 6)), problem.y.flatten(1)[:, seen], 0.1
    )
    for sampler in (RedDiff(30), RedDiff(30, weighting="linear", noise=1.0, strength=0.25)):
        assert relative(end(sampler, packed, prior), end(sampler, problem, prior)) < 1e-8


def test_only_the_ratio_of_strength_and_data_matters():
    problem, prior = inpainting()
    one = RedDiff(30, weighting="linear", noise=1.0, strength=0.25)
    other = RedDiff(30, weighting="linear", noise=0.1, strength=25.0)
    assert relative(end(one, problem, prior), end(other, problem, prior)) < 1e-9


def test_the_noise_level_counts_unless_the_published_loss_is_asked_for():
    problem, prior = inpainting()
    noisier = Problem.build(problem.operator, problem.y, 1.0)
    assert relative(end(RedDiff(30), noisier, prior), end(RedDiff(30), problem, prior)) > 0.05
    assert torch.equal(end(PUBLISHED, noisier, prior), end(PUBLISHED, problem, prior))


def test_units_of_the_data_change_nothing():
    problem, prior = inpainting(1)
    whole = inverse.solve(problem.y, problem.operator, prior, RedDiff(20), noise=0.1, progress=False)
    thousand = inverse.solve(
        1000 * problem.y, problem.operator, prior, RedDiff(20), noise=100.0, scale=1000.0, progress=False
    )
    assert relative(thousand.samples, 1000 * whole.samples) < 1e-9
