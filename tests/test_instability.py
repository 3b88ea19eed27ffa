"""The warning of made-up detail: its numbers, what a right run shows, and samples between modes that it must find."""

import math
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from sampler_cases import EXACT, mri, observe, randn, relative, stationary
from torch import Tensor

import inverse
from inverse.errors import InputError
from inverse.priors import from_function
from inverse.samplers import DDIM, DDS, Bridge, DiffusionSampler, Estimate, Problem, Unconditional, geometric, karras
from inverse.samplers.instability import WINDOW, Instability, check_levels, smoothed

PRIOR = from_function(lambda x, sigma: x / (1 + sigma**2))  # data_std 1, mse sigma^2 / (1 + sigma^2)


def test_the_map_is_the_weighted_deviation_over_the_expected_one():
    levels = [0.3, 0.25, 0.1, 0.07, 0.02, 0.01]  # the first and the last lie outside
    images = randn(6, 2, 4, 3, seed=1) + 100
    watch = Instability(PRIOR)
    for sigma, image in zip(levels, images, strict=True):
        watch.add(sigma, image)
    inside, seen = torch.tensor(levels[1:-1], dtype=torch.float64), images[1:-1]
    steps = (inside[:-1] / inside[1:]).log()
    weights = (torch.cat([steps, steps[:0].new_zeros(1)]) + torch.cat([steps.new_zeros(1), steps])) / 2
    weights = weights / weights.sum()
    mean = torch.einsum("l,lbyx->byx", weights.to(images.dtype), seen)
    variance = torch.einsum("l,lbyx->byx", weights, (seen - mean).abs() ** 2) / 2  # per real component
    # Of a martingale: covariance of two levels is the variance gained up to the earlier one.
    gained = torch.tensor([PRIOR.mse(0.25) - PRIOR.mse(s) for s in inside.tolist()], dtype=torch.float64)
    covariance = torch.minimum(gained[:, None], gained[None])
    expected = float(weights @ gained - weights @ covariance @ weights)
    assert watch.expected() == pytest.approx(expected, rel=1e-10)
    assert relative(watch.map(), (variance / expected).sqrt()) < 1e-10 and not watch.map().is_complex()


def test_large_images_do_not_drown_small_changes():
    watch = Instability(PRIOR)
    for k, sigma in enumerate((0.2, 0.1, 0.05, 0.025)):
        watch.add(sigma, torch.full((1, 2, 2), 1.0) + 1e-4 * (-1) ** k)
    exact = Instability(PRIOR)
    for k, sigma in enumerate((0.2, 0.1, 0.05, 0.025)):
        exact.add(sigma, torch.full((1, 2, 2), 1e-4 * (-1) ** k, dtype=torch.float64))
    assert relative(watch.map().double(), exact.map()) < 2e-3  # 1e-4 on 1 has three digits in single precision


def test_a_settled_image_is_0_and_the_grid_does_not_matter():
    still = Instability(PRIOR)
    for sigma in (0.2, 0.1, 0.05):
        still.add(sigma, torch.ones(1, 2, 2))
    assert not still.map().any()

    def falling(count: int) -> float:
        watch = Instability(PRIOR)
        for sigma in geometric(count, 0.25, 0.02)[:-1].tolist():
            watch.add(min(sigma, 0.25), torch.full((1, 1, 1), math.log(sigma), dtype=torch.float64))
        return float(watch.map()) * watch.expected() ** 0.5

    # A straight line over a window of log 12.5: its length over sqrt 12.
    assert falling(400) == pytest.approx(math.log(12.5) / math.sqrt(12), rel=1e-3)
    assert falling(10) == pytest.approx(falling(400), rel=0.02)


def test_a_level_seen_twice_counts_once():
    once, twice = Instability(PRIOR), Instability(PRIOR)
    for k, sigma in enumerate((0.2, 0.1, 0.05)):
        once.add(sigma, torch.full((1, 1, 1), float(k), dtype=torch.float64))
        twice.add(sigma, torch.full((1, 1, 1), float(k), dtype=torch.float64))
        twice.add(sigma, torch.full((1, 1, 1), float(k), dtype=torch.float64))
    assert relative(twice.map(), once.map()) < EXACT and twice.expected() == pytest.approx(once.expected())


@pytest.mark.parametrize(("integrator", "low", "high"), [(Bridge(), 0.95, 1.05), (DDIM(0.0), 0.0, 0.8)])
def test_a_run_that_is_right_shows_what_is_expected(integrator, low, high):
    # Stationary Gaussian: draws and bridge are exact, so that D is a martingale; the ODE has no noise to learn from.
    prior = stationary((8, 6))
    problem = Problem.without_data((8, 6), 1, dtype=torch.complex128)
    sampler = DiffusionSampler(Unconditional(), integrator, 20, instability=True)
    found = sampler.run(problem, prior, samples=40, seed=0).maps["instability"]
    # 40 images of 96 numbers, a few independent changes each: 2 % of the mean square.
    assert low < float(found.square().mean()) < high


def test_the_map_comes_with_the_solution_and_is_saved(tmp_path):
    operator, prior = mri(), stationary((8, 6))
    y = observe(operator, prior.sample(2, torch.Generator().manual_seed(4)), 0.1)
    sampler = DiffusionSampler(DDS(), DDIM(1.0), 20, instability=True)
    solution = inverse.solve(y[:, None], operator, prior, sampler, noise=0.1, samples=3, progress=False)
    found = solution.maps["instability"]
    assert found.shape == solution.samples.shape == (3, 2, 1, 8, 6) and found.dtype == torch.float64
    assert bool((found > 0).all())
    with h5py.File(solution.save(tmp_path / "out.h5")) as file:
        assert np.array_equal(file["instability"][:], found.numpy())
    parts = inverse.solve(y[:, None], operator, prior, sampler, noise=0.1, samples=3, batch=1, progress=False)
    assert relative(parts.maps["instability"], found) < 1e-6  # rounding of the data step, over a change
    scaled = inverse.solve(7 * y[:, None], operator, prior, sampler, noise=0.7, scale=7.0, samples=3, progress=False)
    assert relative(scaled.maps["instability"], found) < 1e-6
    plain = DiffusionSampler(DDS(), DDIM(1.0), 20)
    without = inverse.solve(y[:, None], operator, prior, plain, noise=0.1, samples=3, progress=False)
    assert without.maps == {} and torch.equal(without.samples, solution.samples)


def test_a_grid_without_levels_to_watch_is_refused_before_any_work():
    operator, prior = mri(), stationary((8, 6))
    y = observe(operator, prior.sample(1), 0.1)
    sampler = DiffusionSampler(DDS(), DDIM(1.0), 2, instability=True)
    with pytest.raises(InputError, match="instability: the grid has") as error:
        inverse.solve(y, operator, prior, sampler, noise=0.1, progress=False)
    assert "\n" not in str(error.value)
    check_levels((1.0, 0.2, 0.1, 0.0), PRIOR)


def test_smoothing_is_the_mean_of_the_neighbours_there_are():
    image = randn(2, 1, 5, 4, dtype=torch.float64)
    found = smoothed(image)
    assert float(found[1, 0, 2, 2]) == pytest.approx(float(image[1, 0, 1:4, 1:4].mean()))
    assert float(found[0, 0, 0, 0]) == pytest.approx(float(image[0, 0, :2, :2].mean()))
    assert torch.equal(smoothed(torch.ones(3, 3)), torch.ones(3, 3))


# Three narrow modes and a denoiser that is smoother than the true one: samples between the modes.

MODES, WIDTH = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 0.05
STD = math.sqrt(2 / 3 + WIDTH**2)


def between_modes(
    smoothing: float, samples: int = 20_000, steps: int = 100
) -> tuple[Tensor, list[tuple[float, Tensor]]]:
    """Ancestral samples, and D at every level, for the denoiser convolved with a Gaussian of width `smoothing`."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(24))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        variance = WIDTH**2 + sigma**2
        away = x[..., None, None] + smoothing * nodes[:, None] - MODES
        share = torch.softmax(-(away**2) / (2 * variance), dim=-1)
        return (share * (MODES + WIDTH**2 / variance * away)).sum(-1) @ (weights / weights.sum())

    generator = torch.Generator().manual_seed(0)
    levels = karras(steps, 20.0, 0.01).tolist()
    x = 2 + levels[0] * torch.randn(samples, generator=generator, dtype=torch.float64)
    visited = []
    for sigma, sigma_next in pairwise(levels):
        # D by a table: 24 nodes and 3 modes for every sample would take the time.
        grid = torch.linspace(float(x.min()), float(x.max()), 4000, dtype=torch.float64)
        place = (x - grid[0]) / (grid[1] - grid[0])
        low = place.long().clamp(max=len(grid) - 2)
        table = denoise(grid, sigma)
        denoised = torch.lerp(table[low], table[low + 1], place - low)
        visited.append((sigma, denoised))
        noise = torch.randn(samples, generator=generator, dtype=torch.float64)
        x = DDIM(1.0).step(x, Estimate(denoised, denoised), sigma, sigma_next, lambda noise=noise: noise)
    return x, visited


def area_under_the_curve(score: Tensor, positive: Tensor) -> float:
    """Chance that a positive one scores above a negative one."""
    ranks = score.argsort().argsort().double() + 1
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


def test_samples_between_the_modes_are_found_and_the_window_decides():
    x, visited = between_modes(0.1)
    between = (x[:, None] - MODES).abs().amin(-1) > 0.25  # five standard deviations
    assert 5 < int(between.sum()) < 100  # 0.2 % of 20 000
    prior = from_function(lambda x, sigma: x, data_std=STD)

    def area(window: tuple[float, float]) -> float:
        watch = Instability(prior, window)
        for sigma, denoised in visited:
            watch.add(sigma, denoised[:, None])
        return area_under_the_curve(watch.map()[:, 0], between)

    # 40 positives: 0.02 of chance at such an area.
    assert area(WINDOW) > 0.93
    # Higher up every sample is still choosing between the modes.
    assert area((0.02, 0.5)) < area(WINDOW) - 0.04 and area((0.02, 1.0)) < 0.8


def test_a_true_denoiser_leaves_none_between_the_modes():
    x, _ = between_modes(0.0, samples=5000)
    assert not bool(((x[:, None] - MODES).abs().amin(-1) > 0.25).any())
