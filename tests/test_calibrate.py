"""Calibration against priors whose errors are known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from checks import check_one_line
from torch import Tensor

from inverse.calibrate import calibrate
from inverse.linalg.transforms import Modes
from inverse.priors import Calibration, GaussianPrior, StationaryGaussianPrior, from_function
from inverse.priors.base import Denoiser
from inverse.priors.calibration import HIGHEST_FREQUENCY, radial_bins
from inverse.samplers.covariance import modes_of

LEVELS, BINS, IMAGES, SHAPE = 6, 8, 64, (24, 20)


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_prior(dtype: torch.dtype) -> StationaryGaussianPrior:
    """Power that falls with frequency by a factor of 1000, as that of images does."""
    radius = Modes(SHAPE, dtype).radius
    return StationaryGaussianPrior(SHAPE, 2 / (1 + (radius / 0.03) ** 3), dtype)


def bin_means(values: Tensor, radius: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Mean over each radial bin, and the number of modes in it."""
    index = radial_bins(radius, bins)
    members = [values[index == k] for k in range(bins)]
    return torch.stack([m.mean() for m in members]), torch.tensor([len(m) for m in members])


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_recovers_the_exact_error_and_spectrum(dtype: torch.dtype) -> None:
    prior = smooth_prior(dtype)
    tables = calibrate(prior, [prior.sample(IMAGES, generator())], levels=LEVELS, bins=BINS, show=False)
    assert tables.sigma.shape == tables.mse.shape == (LEVELS,) and tables.power.shape == (LEVELS, BINS)
    draws = IMAGES * (2 if dtype.is_complex else 1)  # real numbers per mode
    for sigma, mse, power in zip(tables.sigma.tolist(), tables.mse.tolist(), tables.power, strict=True):
        left = prior.power * sigma**2 / (prior.power + sigma**2)  # variance of the error, per mode and real component
        # each mode is a chi-square of `draws` degrees: variance 2 left^2 / draws; five standard errors
        scatter = 5 * math.sqrt(2 * float((left**2).sum()) / draws) / float(left.sum())
        assert abs(mse / prior.mse(sigma) - 1) < scatter, sigma
        expected, modes = bin_means(left, prior.transform.radius, BINS)
        # as above, taken as equal modes in a bin; the widest spread within one doubles the variance at most; the
        # measured mse, by which the power is divided, adds its own scatter
        allowed = 5 * (2 * 2 / (draws * modes)).sqrt() + scatter
        assert bool(((power * prior.mse(sigma) / expected - 1).abs() < allowed).all()), (sigma, power)


def test_levels_span_the_range_of_the_prior() -> None:
    prior = smooth_prior(torch.float64)
    prior.sigma_min, prior.sigma_max = 0.01, 5.0
    images = [prior.sample(2, generator())]
    sigma = calibrate(prior, images, levels=5, bins=4, show=False).sigma
    torch.testing.assert_close(sigma, torch.logspace(-2, math.log10(5), 5))
    prior.sigma_max = 1e9  # beyond 100 standard deviations of the images nothing changes any more
    sigma = calibrate(prior, images, levels=5, bins=4, show=False).sigma
    assert float(sigma[-1]) == pytest.approx(100 * prior.data_std, rel=1e-5)


def test_stated_variance_whitens_the_residual() -> None:
    """Independent pixels of unequal variance v: e / sqrt(v) is white with power 1; a wrong v shows in the power."""
    variance = torch.linspace(0.01, 4, 64, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(8, 8, dtype=torch.complex128), variance.diag().to(torch.complex128))
    tables = calibrate(prior, [prior.sample(256, generator())], levels=4, bins=4, show=False)
    # 512 real numbers a mode, 12 modes or more a bin: 1.8 % scatter, four of it
    assert float((tables.power - 1).abs().max()) < 0.075
    wrong = from_function(lambda x, sigma: 0 * x, channels=2)
    wrong.moments = lambda x, sigma: (prior.denoise(x, sigma), torch.full(x.shape, 0.25, dtype=torch.float64))
    tables = calibrate(wrong, [prior.sample(256, generator())], levels=4, bins=4, show=False)
    ratio = tables.power / (tables.mse[:, None] / 0.25)
    assert float((ratio - 1).abs().max()) < 0.075


def exponential(size: int, length: float) -> Tensor:
    distance = (torch.arange(size)[:, None] - torch.arange(size)).abs().double()
    return torch.exp(-distance / length)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_a_basis_recovers_covariances_that_waves_do_not_fit(dtype: torch.dtype) -> None:
    """Images whose axes have covariances of their own: C = K1 x K2, and the error's has the same modes."""
    rows, columns = exponential(4, 8.0).to(dtype), exponential(5, 2.0).to(dtype)
    if dtype.is_complex:  # Hermitian, not symmetric: the modes must come out, and not their conjugates
        phase = torch.exp(0.7j * torch.arange(4))
        rows = phase[:, None] * rows * phase.conj()
    prior = GaussianPrior(torch.zeros(4, 5, dtype=dtype), torch.kron(rows, columns))
    images, sigma = [prior.sample(8000, generator())], 0.7
    tables = calibrate(prior, images, basis=True, show=False)
    modes = modes_of(images[0], tables)
    exact = prior.covariance @ torch.linalg.inv(prior.covariance + sigma**2 * torch.eye(20)) * sigma**2
    power = tables.power_map(sigma, modes.radius)
    variance = prior.moments(images[0][:1], sigma)[1][0]

    def covariance(scale: Tensor) -> Tensor:
        columns = scale.sqrt() * modes.inverse(power.sqrt() * torch.eye(20, dtype=dtype).reshape(20, 4, 5))
        return columns.reshape(20, 20).mT @ columns.reshape(20, 20).conj()

    # 8000 images: 1.6 % an entry; 24 levels interpolated: 3 % at most, see `Calibration`
    assert relative(covariance(variance / modes.spread(power)), exact) < 0.05
    assert relative(covariance(variance), exact) > 0.05  # the stated variance would be counted twice
    waves = calibrate(prior, images, bins=64, show=False)
    modes, power = modes_of(images[0]), waves.power_map(sigma, modes_of(images[0]).radius)
    assert relative(covariance(variance / modes.spread(power)), exact) > 0.1


@pytest.mark.parametrize("basis", [False, True])
def test_the_covariance_has_the_variance_that_the_prior_states(basis: bool) -> None:
    """Variance and spectrum share one scale: the diagonal of S^(1/2) F^H diag(c) F S^(1/2) is v, up to one factor."""
    prior = GaussianPrior(torch.zeros(6, 6, dtype=torch.float64), torch.kron(exponential(6, 3.0), exponential(6, 3.0)))
    images = [prior.sample(4000, generator())]
    tables = calibrate(prior, images, basis=basis, bins=64, show=False)
    modes = modes_of(images[0], tables)
    for sigma in (0.1, 1.0):
        power, variance = tables.power_map(sigma, modes.radius), prior.moments(images[0][:1], sigma)[1][0]
        scale = variance / modes.spread(power)
        units = modes.inverse(power.sqrt() * torch.eye(36, dtype=torch.float64).reshape(36, 6, 6))
        diagonal = scale * units.square().sum(0)
        assert float((diagonal / variance).std()) < 1e-6  # double precision tables in single precision
        assert float((diagonal / variance).mean()) == pytest.approx(1, abs=0.05)  # 4000 images, interpolated levels


def test_a_basis_is_for_images_of_one_size() -> None:
    prior = from_function(white, channels=1)
    images = [torch.randn(50, n, 6, generator=generator(n)) for n in (6, 7)]
    check_one_line(lambda: calibrate(prior, images, basis=True, levels=2, show=False), "one size")
    tables = calibrate(prior, images[:1], basis=True, levels=2, show=False)
    check_one_line(lambda: modes_of(images[1], tables), "6 x 6", "7 x 6")
    axes = tables.rows, tables.columns
    check_one_line(lambda: Calibration(tables.sigma, tables.mse, tables.power[:, :5], *axes), "(6, 6) modes")


def white(x: Tensor, sigma: float | Tensor) -> Tensor:
    return x / (1 + sigma**2)


def test_sizes_may_differ_and_bins_out_of_reach_take_the_nearest() -> None:
    prior = from_function(white, channels=2)
    images = [torch.randn(n, *s, dtype=torch.complex64, generator=generator(n)) * math.sqrt(2)
              for n, s in ((40, (12, 12)), (90, (5, 7)), (300, (1, 1)))]  # fmt: skip
    tables = calibrate(prior, images, levels=4, bins=32, show=False)
    expected = tables.sigma**2 / (1 + tables.sigma**2)
    # (40 * 144 + 90 * 35 + 300) complex pixels: 1 % scatter, five of it
    assert float((tables.mse / expected - 1).abs().max()) < 0.05
    # the emptiest bins hold two modes of 90 images, 360 numbers: 7.5 % scatter, five of it
    assert float((tables.power - 1).abs().max()) < 0.4
    lonely = calibrate(prior, images[2:], levels=4, bins=32, show=False)  # one pixel: only the zero frequency
    assert bool((lonely.power == lonely.power[:, :1]).all())


def test_same_seed_gives_the_same_bits() -> None:
    prior, state = smooth_prior(torch.complex128), torch.get_rng_state()
    images = [prior.sample(4, generator())]
    kept = images[0].clone()
    first, second, other = (calibrate(prior, images, levels=3, bins=4, seed=seed, show=False) for seed in (1, 1, 2))
    for key in ("sigma", "mse", "power"):
        assert torch.equal(getattr(first, key), getattr(second, key)), key
    assert not torch.equal(first.mse, other.mse)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images[0], kept)


def test_present_calibration_is_not_used() -> None:
    prior = from_function(white, channels=2)
    images = [torch.randn(3, 8, 8, dtype=torch.complex64, generator=generator())]
    first = calibrate(prior, images, levels=3, bins=4, show=False)
    prior.calibration = Calibration(first.sigma, 7 * first.mse, 3 * first.power)
    again = calibrate(prior, images, levels=3, bins=4, show=False)
    assert torch.equal(first.mse, again.mse) and torch.equal(first.power, again.power)


def test_wrong_input_is_refused_in_one_line() -> None:
    prior = smooth_prior(torch.complex128)
    images = [prior.sample(2, generator())]
    check_one_line(lambda: calibrate(prior, []), "no images")
    check_one_line(lambda: calibrate(prior, [*images, images[0][:0]]), "no images")
    check_one_line(lambda: calibrate(prior, [images[0].real]), "real", "2 channel")
    check_one_line(lambda: calibrate(prior, [images[0][:, :-1]]), "(23, 20)")
    check_one_line(lambda: calibrate(prior, images, levels=1), "levels", "1")
    check_one_line(lambda: calibrate(prior, images, bins=1), "bins", "1")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_that_are_not_finite_are_refused_in_one_line(value: float) -> None:
    prior: Denoiser = smooth_prior(torch.float64)
    images = torch.ones(2, *SHAPE, dtype=torch.float64)
    images[1, 3, 3] = value
    check_one_line(lambda: calibrate(prior, [images], levels=3, bins=4, show=False), "finite")


def tables() -> Calibration:
    return Calibration(torch.tensor([0.01, 0.1, 1.0]), torch.tensor([1e-4, 4e-3, 1e-2]), torch.tensor(
        [[1.0, 2.0, 4.0], [1.0, 8.0, 1.0], [2.0, 2.0, 2.0]]))  # fmt: skip


def test_tables_are_interpolated_in_the_logarithm_and_held_beyond_their_ends() -> None:
    table = tables()
    half = math.sqrt(0.01 * 0.1)
    # 1e-5 throughout: single precision
    assert table.mse_at(half) == pytest.approx(math.sqrt(1e-4 * 4e-3), rel=1e-5)
    assert table.mse_at(0.1) == pytest.approx(4e-3, rel=1e-5)
    assert table.mse_at(1e-6) == pytest.approx(1e-4, rel=1e-5)
    assert table.mse_at(50.0) == pytest.approx(1e-2, rel=1e-5)
    torch.testing.assert_close(table.power_at(half), torch.tensor([1.0, 4.0, 2.0]))


def test_power_map_holds_the_tables_at_the_centres_of_its_bins() -> None:
    centres = (torch.arange(3) + 0.5) / 3 * HIGHEST_FREQUENCY
    torch.testing.assert_close(tables().power_map(0.1, centres), torch.tensor([1.0, 8.0, 1.0]))
    between = tables().power_map(0.1, (centres[:1] + centres[1:2]) / 2)
    torch.testing.assert_close(between, torch.tensor([4.5]))
    ends = tables().power_map(0.01, torch.tensor([0.0, HIGHEST_FREQUENCY]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 4.0]))
    assert radial_bins(torch.tensor([0.0, HIGHEST_FREQUENCY]), 32).tolist() == [0, 31]
