"""Priors known exactly, against dense algebra and numerical integration; tables of errors; functions as priors."""

import math

import pytest
import torch
from sampler_cases import EXACT, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError
from inverse.priors import Calibration, GaussianMixturePrior, GaussianPrior, StationaryGaussianPrior, from_function
from inverse.priors.calibration import HIGHEST_FREQUENCY

KINDS = [torch.float64, torch.complex128]


def covariance(n: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Hermitian, positive definite."""
    a = randn(n, n, dtype=dtype, seed=seed)
    return a @ a.mH / n + 0.1 * torch.eye(n, dtype=dtype)


def gaussian(dtype: torch.dtype, seed: int = 0, shape: tuple[int, ...] = (2, 3)) -> GaussianPrior:
    n = math.prod(shape)
    return GaussianPrior(randn(*shape, dtype=dtype, seed=seed + 10), covariance(n, dtype, seed))


def mixture(dtype: torch.dtype) -> GaussianMixturePrior:
    return GaussianMixturePrior(torch.tensor([1.0, 3.0]).double(), [gaussian(dtype, 0), gaussian(dtype, 1)])


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("sigma", [0.01, 1.0, 50.0])
def test_the_gaussian_denoiser_equals_dense_algebra(dtype, sigma):
    prior, x = gaussian(dtype), 2 * randn(4, 2, 3, dtype=dtype, seed=3)
    c, unit = prior.covariance, torch.eye(6, dtype=dtype)
    gain = c @ torch.linalg.inv(c + sigma**2 * unit)
    expected = prior.mean.flatten() + (x.reshape(4, 6) - prior.mean.flatten()) @ gain.mT
    assert relative(prior.denoise(x, sigma), expected.reshape(x.shape)) < 1e-10
    error = c - gain @ c
    mean, variance = prior.moments(x, sigma)
    assert torch.equal(mean, prior.denoise(x, sigma)) and not variance.is_complex()
    assert relative(variance[0], error.diagonal().real.reshape(2, 3)) < 1e-9
    assert prior.mse(sigma) == pytest.approx(float(error.diagonal().real.mean()), rel=1e-9)


@pytest.mark.parametrize("make", [gaussian, mixture, lambda dtype: stationary((2, 3), dtype)])
@pytest.mark.parametrize("dtype", KINDS)
def test_a_denoiser_takes_any_batch_and_one_level_per_sample(make, dtype):
    prior, x = make(dtype), randn(2, 3, 2, 3, dtype=dtype, seed=3)
    together = prior.denoise(x, 0.5)
    assert together.shape == x.shape and together.dtype == dtype
    for i in range(2):
        assert relative(together[i, 1], prior.denoise(x[i, 1], 0.5)) < EXACT
    levels = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    each = prior.denoise(x[0], levels)
    for k in range(3):
        assert relative(each[k], prior.denoise(x[0, k], float(levels[k]))) < EXACT
    if prior.moments is not None:
        mean, variance = prior.moments(x, 0.5)
        assert variance.shape[-2:] == (2, 3) and torch.equal(mean, together)


@pytest.mark.parametrize("make", [gaussian, mixture, lambda dtype: stationary((2, 3), dtype)])
@pytest.mark.parametrize("dtype", KINDS)
def test_draws_are_denoised_with_the_stated_error(make, dtype):
    # Covers sample, denoise and the stated error at once: the error of a posterior mean is its variance.
    prior, n, sigma = make(dtype), 20000, 0.8
    x0 = prior.sample(n, torch.Generator().manual_seed(1))
    x = x0 + sigma * randn(n, 2, 3, dtype=dtype, seed=2) * (math.sqrt(2) if dtype.is_complex else 1)
    parts = 2 if dtype.is_complex else 1
    errors = (x0 - prior.denoise(x, sigma)).abs().square() / parts
    stated = prior.mse(sigma)
    if prior.moments is not None:
        stated = float(prior.moments(x, sigma)[1].mean())
    per_draw = errors.flatten(1).mean(1)
    # 4 standard errors of the mean.
    assert abs(float(per_draw.mean()) - stated) < 4 * float(per_draw.std()) / math.sqrt(n)
    spread = (x0 - x0.mean(0)).abs().square().mean() / parts
    assert prior.data_std**2 == pytest.approx(float(spread), rel=0.05)  # 20000 draws of 6 dependent pixels


@pytest.mark.parametrize("dtype", KINDS)
def test_gaussian_draws_have_their_covariance(dtype):
    prior, n = gaussian(dtype), 40000
    centred = prior.sample(n, torch.Generator().manual_seed(1)).reshape(n, 6) - prior.mean.flatten()
    measured = centred.mT @ centred.conj() / n / (2 if dtype.is_complex else 1)
    scale = float(prior.covariance.diagonal().real.max())
    # Entries have a standard error of at most sqrt(2 / n) of the largest variance.
    assert float((measured - prior.covariance).abs().max()) < 4 * math.sqrt(2 / n) * scale


@pytest.mark.parametrize("dtype", KINDS)
def test_the_gaussian_posterior_equals_the_information_form(dtype):
    prior, matrix, y = gaussian(dtype), randn(4, 6, dtype=dtype, seed=5), randn(4, dtype=dtype, seed=6)
    posterior = prior.posterior(matrix, y, 0.3)
    precision = torch.linalg.inv(prior.covariance) + matrix.mH @ matrix / 0.3**2
    expected = torch.linalg.inv(precision)
    right = torch.linalg.inv(prior.covariance) @ prior.mean.flatten() + matrix.mH @ y / 0.3**2
    assert relative(posterior.covariance, expected) < 1e-9
    assert relative(posterior.mean.flatten(), expected @ right) < 1e-9


@pytest.mark.parametrize("dtype", KINDS)
def test_denoising_is_the_posterior_under_the_identity(dtype):
    for prior in (gaussian(dtype), mixture(dtype)):
        x = randn(1, 2, 3, dtype=dtype, seed=4)
        posterior = prior.posterior(torch.eye(6, dtype=dtype), x[0].flatten(), 0.6)
        if isinstance(posterior, GaussianMixturePrior):
            mean = sum(w * c.mean for w, c in zip(posterior.weights, posterior.components, strict=True))
        else:
            mean = posterior.mean
        assert relative(prior.denoise(x, 0.6)[0], mean) < 1e-10


def scalar_mixture() -> tuple[GaussianMixturePrior, Tensor, Tensor]:
    """Three components on the line, a fine grid, and the density on it."""
    facts = [(0.2, -1.0, 0.3), (0.5, 0.5, 0.1), (0.3, 2.0, 0.6)]
    parts = [GaussianPrior(torch.tensor([m]).double(), torch.tensor([[s**2]]).double()) for _, m, s in facts]
    grid = torch.linspace(-8, 9, 200001, dtype=torch.float64)
    density = sum(w / s * torch.exp(-((grid - m) ** 2) / (2 * s**2)) for w, m, s in facts)
    return GaussianMixturePrior(torch.tensor([w for w, _, _ in facts]).double(), parts), grid, density


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("x", [-1.3, 0.2, 1.1, 4.0])
def test_the_mixture_equals_numerical_integration(x, sigma):
    prior, grid, density = scalar_mixture()
    weight = density * torch.exp(-((grid - x) ** 2) / (2 * sigma**2))
    weight = weight / weight.sum()
    expected = float((weight * grid).sum())
    mean, variance = prior.moments(torch.tensor([[x]]).double(), sigma)
    # The trapezoidal rule on smooth, decayed integrands; x passes through float32.
    assert float(mean) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert float(variance) == pytest.approx(float((weight * (grid - expected) ** 2).sum()), rel=1e-6)
    assert float(prior.denoise(torch.tensor([[x]]).double(), sigma)) == pytest.approx(float(mean), rel=1e-12)


@pytest.mark.parametrize("y", [-1.0, 0.8, 2.5])
def test_the_mixture_posterior_equals_numerical_integration(y):
    prior, grid, density = scalar_mixture()
    weight = density * torch.exp(-((y - 1.5 * grid) ** 2) / (2 * 0.4**2))
    expected = float((weight * grid).sum() / weight.sum())
    matrix, data = torch.tensor([[1.5]]).double(), torch.tensor([y]).double()
    posterior = prior.posterior(matrix, data, 0.4)
    mean = sum(float(w * c.mean) for w, c in zip(posterior.weights, posterior.components, strict=True))
    assert mean == pytest.approx(expected, rel=1e-6)
    assert float(posterior.weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", KINDS)
def test_the_score_is_the_gradient_of_the_log_density(dtype):
    # Tweedie: D = x + sigma^2 grad log p(x_sigma). For complex x the autograd gradient is that of both components.
    prior, sigma = gaussian(dtype), 0.7
    x = randn(1, 2, 3, dtype=dtype, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.log_density(x, sigma).sum(), x)
    assert relative(x.detach() + sigma**2 * gradient, prior.denoise(x.detach(), sigma)) < 1e-10


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(4, 5), (6, 4)])
def test_a_stationary_gaussian_is_a_gaussian(dtype, shape):
    prior, n = stationary(shape, dtype), math.prod(shape)
    units = torch.eye(n, dtype=dtype).reshape(n, *shape)
    matrix = prior.transform.inverse(prior.power * prior.transform.forward(units)).reshape(n, n).mT
    twin = GaussianPrior(torch.zeros(shape, dtype=dtype), matrix)
    x = randn(2, *shape, dtype=dtype, seed=3)
    assert relative(prior.denoise(x, 0.6), twin.denoise(x, 0.6)) < 1e-10
    assert prior.data_std == pytest.approx(twin.data_std) and prior.channels == twin.channels
    plain = stationary(shape, dtype, spectrum=False)
    assert plain.mse(0.6) == pytest.approx(twin.mse(0.6)) and prior.mse(0.6) == pytest.approx(twin.mse(0.6))


@pytest.mark.parametrize("sigma", [0.002, 0.3, 80.0])
def test_without_a_table_the_error_is_that_of_a_gaussian(sigma):
    prior = from_function(lambda x, s: x, data_std=0.5)
    assert prior.mse(sigma) == pytest.approx(sigma**2 * 0.25 / (sigma**2 + 0.25), rel=1e-12)


def test_a_table_takes_the_place_of_the_formula():
    prior = from_function(lambda x, s: x, data_std=0.5)
    prior.calibration = table()
    assert prior.mse(1.0) == pytest.approx(0.3)


def test_a_function_is_a_prior():
    def halve(x: Tensor, sigma: float) -> Tensor:
        return x / 2

    prior = from_function(halve, channels=2, data_std=0.3, sigma_min=0.01, sigma_max=9.0, shape=(4, 4), peak=0.8)
    x = randn(2, 4, 4)
    assert torch.equal(prior.denoise(x, 1.0), x / 2) and prior.name == "halve" and prior.to("cpu") is prior
    facts = (prior.channels, prior.data_std, prior.sigma_min, prior.sigma_max, prior.shape, prior.peak)
    assert facts == (2, 0.3, 0.01, 9.0, (4, 4), 0.8)
    assert prior.moments is None and prior.calibration is None


@pytest.mark.parametrize(
    "build",
    [
        lambda: from_function(3),
        lambda: from_function(abs, data_std=0.0),
        lambda: from_function(abs, sigma_min=-1.0),
        lambda: from_function(abs, sigma_max=math.nan),
        lambda: GaussianPrior(torch.zeros(3), torch.eye(4)),
        lambda: GaussianMixturePrior(torch.ones(1), [gaussian(torch.float64), gaussian(torch.float64)]),
        lambda: GaussianMixturePrior(torch.ones(2), [gaussian(torch.float64), gaussian(torch.float64, shape=(3, 2))]),
        lambda: StationaryGaussianPrior((4, 4), torch.ones(4, 5)),
        lambda: Calibration(torch.ones(2), torch.ones(3), torch.ones(2, 4)),
        lambda: Calibration(torch.ones(2), torch.ones(2), torch.ones(3, 4)),
        lambda: Calibration(torch.ones(2), torch.zeros(2), torch.ones(2, 4)),
        lambda: Calibration(torch.ones(2), torch.ones(2), torch.full((2, 4), math.nan)),
        lambda: Calibration(torch.ones(2), torch.full((2,), math.inf), torch.ones(2, 4)),
    ],
)
def test_bad_priors_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value)


# Channels and bound size of a prior; shape and dtype of images; whether they fit.
IMAGES = [
    (1, None, (8, 6), torch.float32, True),
    (1, None, (1, 8, 6), torch.float32, True),
    (2, None, (8, 6), torch.complex64, True),
    (3, None, (3, 8, 6), torch.float32, True),
    (2, (8, 6), (8, 6), torch.complex64, True),
    (1, None, (8, 6), torch.complex64, False),
    (2, None, (8, 6), torch.float32, False),
    (3, None, (8, 6), torch.float32, False),
    (1, None, (3, 8, 6), torch.float32, False),
    (2, (8, 6), (6, 8), torch.complex64, False),
]


@pytest.mark.parametrize(("channels", "bound", "shape", "dtype", "fits"), IMAGES)
def test_a_prior_refuses_images_it_does_not_know(channels, bound, shape, dtype, fits):
    prior = from_function(lambda x, s: x, channels=channels, shape=bound)
    if fits:
        assert prior.check_image(shape, dtype) is None
        return
    with pytest.raises(InputError, match="prior") as error:
        prior.check_image(shape, dtype)
    assert "\n" not in str(error.value)


def table() -> Calibration:
    sigma = torch.tensor([0.1, 1.0, 10.0])
    return Calibration(sigma, torch.tensor([0.01, 0.3, 0.5]), torch.tensor([[1.0, 2, 4], [1, 1, 1], [9, 3, 1]]))


@pytest.mark.parametrize(
    ("sigma", "mse", "power"),
    [
        (0.1, 0.01, (1, 2, 4)),
        (1.0, 0.3, (1, 1, 1)),
        (10.0, 0.5, (9, 3, 1)),
        (10**0.5, (0.3 * 0.5) ** 0.5, (3, 3**0.5, 1)),
        (10**-0.5, (0.01 * 0.3) ** 0.5, (1, 2**0.5, 2)),
        (1e-4, 0.01, (1, 2, 4)),
        (1e4, 0.5, (9, 3, 1)),
    ],
)
def test_tables_are_interpolated_in_the_logarithm_and_held_beyond_their_ends(sigma, mse, power):
    # float32 tables
    assert table().mse_at(sigma) == pytest.approx(mse, rel=1e-5)
    assert table().power_at(sigma).tolist() == pytest.approx(power, rel=1e-5)


def test_power_is_linear_between_the_middles_of_the_bins():
    width = HIGHEST_FREQUENCY / 3
    radius = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0], dtype=torch.float64) * width
    expected = [1, 1, 1.5, 2, 3, 4, 4]
    assert table().power_map(0.1, radius).tolist() == pytest.approx(expected, rel=1e-5)
    assert table().power_map(0.1, radius.reshape(7, 1)).shape == (7, 1)


def test_a_table_of_one_level_and_one_bin_is_constant():
    one = Calibration(torch.tensor([0.5]), torch.tensor([0.2]), torch.tensor([[3.0]]))
    for sigma in (0.1, 0.5, 7.0):
        assert one.mse_at(sigma) == pytest.approx(0.2)
        assert one.power_map(sigma, torch.tensor([0.0, 0.3, 0.7])).tolist() == pytest.approx([3, 3, 3])
