"""Noise models: the law that is drawn, the white problem that is equivalent, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from checks import check_one_line
from operator_cases import coin, mri, randn
from scipy.stats import rice

import inverse
from inverse.operators import Identity, Mask
from inverse.operators.noise import CorrelatedGaussian, Gaussian, PhotonCounts, Rician
from inverse.operators.weighting import Mixed, Weighted
from inverse.priors import GaussianPrior

DRAWS = 200_000
FIVE_ERRORS = 5 * math.sqrt(2 / DRAWS)  # five standard errors of a variance from that many normal draws


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(channels: int = 3, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    factor = randn(channels, 2 * channels, dtype=dtype, seed=9)
    return factor @ factor.mH / (2 * channels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gaussian_has_the_variance_in_every_real_component(dtype):
    noise = Gaussian(0.3).draw(torch.zeros(DRAWS, dtype=dtype), generator())
    parts = torch.view_as_real(noise).T if dtype.is_complex else noise[None]
    for part in parts:
        assert abs(float(part.var()) / 0.09 - 1) < FIVE_ERRORS


def test_noise_of_equal_generators_is_equal_and_zero_noise_is_none():
    operator = Identity((4, 5), dtype=torch.float64)
    x = randn(4, 5, dtype=torch.float64)
    assert torch.equal(operator.measure(x, 0.1, generator()), operator.measure(x, Gaussian(0.1), generator()))
    assert not torch.equal(operator.measure(x, 0.1, generator(1)), operator.measure(x, 0.1, generator(2)))
    assert torch.equal(operator.measure(x, 0.0), x)


def test_measured_data_are_zero_where_nothing_is_measured():
    mask = coin(6, 5)
    y = Mask(mask, dtype=torch.float64).measure(torch.ones(2, 6, 5, dtype=torch.float64), 0.5, generator())
    assert not y[:, ~mask].any() and bool((y[:, mask] != 1).all())


def test_gaussian_per_channel_is_white_after_whitening():
    sigma = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)[:, None]
    operator, y, level = Gaussian(sigma).whiten(
        Identity((3, DRAWS), dtype=torch.float64), Gaussian(sigma).draw(torch.zeros(3, DRAWS).double(), generator())
    )
    assert level == 1.0 and bool(((y.var(1) - 1).abs() < FIVE_ERRORS).all())
    x = randn(3, DRAWS, dtype=torch.float64)
    assert torch.equal(operator(x), x * (1 / sigma))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_correlated_noise_has_the_covariance_and_whitening_takes_it_away(dtype):
    wanted = covariance(dtype=dtype)
    noise = CorrelatedGaussian(wanted, axis=-2)
    y = noise.draw(torch.zeros(3, DRAWS, dtype=dtype), generator())
    share = 2 if dtype.is_complex else 1  # E[n n^H] counts both real components
    bound = 2 * FIVE_ERRORS * float(wanted.abs().max())
    assert float((y @ y.mH / DRAWS / share - wanted).abs().max()) < bound
    operator, white, level = noise.whiten(Identity((3, DRAWS), dtype=dtype), y)
    assert level == 1.0 and operator.weights is None
    assert float((white @ white.mH / DRAWS / share - torch.eye(3)).abs().max()) < 2 * FIVE_ERRORS


def test_mixed_coils_keep_mask_and_support():
    base = mri(3, (6, 7), (7,))
    noise = CorrelatedGaussian(covariance())
    x = randn(6, 7)
    operator, y, _ = noise.whiten(base, base(x))
    assert torch.equal(operator.weights, base.weights) and operator.support is base.support
    assert torch.allclose(operator(x), y, rtol=0, atol=1e-12)
    assert torch.allclose(operator.pinv(operator(x)), base.pinv(base(x)), rtol=0, atol=1e-10)  # inverse of a 3 x 3


@pytest.mark.parametrize("electronic", [0.0, 8.0])
def test_photon_counts_have_the_mean_and_variance_of_their_logarithm(electronic):
    noise = PhotonCounts(5000.0, electronic)
    clean = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)[:, None].expand(3, DRAWS)
    y = noise.draw(clean, generator())
    counts = 5000 * torch.exp(-clean[:, 0])
    variance = (counts + electronic**2) / counts**2
    # the next terms of the expansion in 1 / N are of relative size 2 / N and more with electronic noise, N >= 249
    bound = FIVE_ERRORS + 6 * variance
    assert bool(((y.var(1) / variance - 1).abs() < bound).all())
    assert bool(((y.mean(1) - clean[:, 0]).abs() < 5 * (variance / DRAWS).sqrt() + variance).all())
    operator, white, level = noise.whiten(Identity((3, DRAWS), dtype=torch.float64), y)
    rest = white - operator(clean)
    assert level == 1.0 and bool(((rest.var(1) - 1).abs() < bound).all())


def test_rays_without_photons_stay_finite_and_count_little():
    noise = PhotonCounts(100.0)
    y = noise.draw(torch.tensor([0.0, 50.0]).double(), generator())
    operator, white, _ = noise.whiten(Identity((2,), dtype=torch.float64), y)
    assert bool(torch.isfinite(y).all()) and float(y[1]) == pytest.approx(math.log(200))
    factors = operator(torch.ones(2, dtype=torch.float64))
    assert float(factors[1] / factors[0]) < 0.1 and bool(torch.isfinite(white).all())


def test_photons_per_detector_element():
    photons = torch.tensor([100.0, 1e6])
    y = PhotonCounts(photons).draw(torch.ones(DRAWS, 2).double(), generator())
    assert float(y[:, 0].std() / y[:, 1].std()) == pytest.approx(100, rel=0.05)  # 1 / N0 at 37 counts is off by 3 %


def test_rician_against_its_law():
    y = Rician(0.5).draw(torch.full((DRAWS,), 1.2, dtype=torch.float64), generator())
    law = rice(1.2 / 0.5, scale=0.5)
    assert abs(float(y.mean()) - law.mean()) < 5 * law.std() / math.sqrt(DRAWS)
    assert abs(float(y.var()) / law.var() - 1) < FIVE_ERRORS
    assert not y.is_complex()


@pytest.mark.parametrize("level", [3.0, 6.0, 20.0])
def test_rician_bias_is_gone_above_three_sigma(level):
    y = Rician(1.0).draw(torch.full((DRAWS,), level, dtype=torch.float64), generator())
    _, white, sigma = Rician(1.0).whiten(Identity((DRAWS,), dtype=torch.float64), y)
    # 2 % of the signal at 3 sigma, where the uncorrected mean is 5.7 % too high
    assert sigma == 1.0 and abs(float(white.mean()) / level - 1) < 0.02
    assert float(y.mean()) / level - 1 > 0.8 * 0.5 / level**2


def test_solve_takes_a_noise_model():
    """Posterior mean of independent pixels: prior N(0, 1), variances of the data that differ."""
    prior = GaussianPrior(torch.zeros(4, 4), torch.eye(16))
    sigma = torch.linspace(0.2, 3, 16).reshape(4, 4)
    operator, y = Identity((4, 4)), torch.full((4, 4), 2.0)
    solution = inverse.solve(y, operator, prior, noise=Gaussian(sigma), samples=64, steps=20, progress=False)
    exact = y / (1 + sigma**2)
    # 64 samples of standard deviation at most 1
    assert float((solution.mean - exact).abs().max()) < 4 / math.sqrt(64)
    assert solution.info["noise"] == "Gaussian((4, 4))" and 0.2 < float(solution.residual.mean()) < 2


def test_bad_noise_is_refused():
    identity = Identity((3, 4), dtype=torch.float64)
    y = torch.zeros(3, 4).double()
    check_one_line(lambda: Gaussian(-1.0), "sigma", "-1")
    check_one_line(lambda: Gaussian(torch.tensor([1.0, 0.0])), "sigma", "positive")
    check_one_line(lambda: CorrelatedGaussian(torch.ones(2, 3)), "covariance", "(2, 3)")
    check_one_line(lambda: CorrelatedGaussian(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "positive definite")
    check_one_line(lambda: CorrelatedGaussian(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "Hermitian")
    check_one_line(lambda: CorrelatedGaussian(torch.eye(2)).whiten(identity, y), "2 channels", "(3, 4)")
    check_one_line(lambda: PhotonCounts(0.0), "photons", "0")
    check_one_line(lambda: PhotonCounts(torch.tensor([1.0, -1.0])), "photons", "positive")
    check_one_line(lambda: PhotonCounts(1.0).draw(torch.zeros(2, dtype=torch.complex64)), "real", "complex64")
    check_one_line(lambda: PhotonCounts(1.0).whiten(identity, torch.zeros(2, 3, 4).double()), "one item", "(2, 3, 4)")
    check_one_line(lambda: Rician(0.0), "sigma", "0")
    check_one_line(lambda: Weighted(identity, torch.ones(5)), "weights", "(3, 4)", "(5,)")
    check_one_line(lambda: Weighted(identity, -torch.ones(4)), "weights", "below 0")
    check_one_line(lambda: Weighted(identity, torch.zeros(4)), "weights", "above")
    check_one_line(lambda: Mixed(identity, torch.eye(2)), "matrix", "(3, 3)", "(2, 2)")
    check_one_line(lambda: Mixed(identity, torch.eye(3) * 1j), "matrix", "real")
