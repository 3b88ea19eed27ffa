"""Certificates of the samplers: inpainting of Gaussian images with a known posterior, see experiments/exactness.py."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from inverse.samplers import DDIM, DDS, Bridge, DiffusionSampler, LearnedCovariance
from inverse.samplers.methods import dds

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
exactness = importlib.import_module("exactness")

SAMPLES = 500  # W2 of exact draws grows as 1 / sqrt(SAMPLES): all ratios to it are half of those of 2000 samples
TRAINING = 2000  # draws for the measured spectrum: 3 % per entry where a bin holds one mode


class Bench:
    """A problem, the floor of W2 for `SAMPLES` exact draws, and the figures of a sampler by name."""

    def __init__(self, make):
        self.problem = make(TRAINING)
        self.exact = exactness.distances_of_exact_draws(self.problem.posterior, SAMPLES, 51)
        self.floor = self.exact.median()
        prior_draws = self.problem.gaussian.sample(SAMPLES, torch.Generator().manual_seed(2))
        self.useless = self.figures(prior_draws)["W2"]

    def figures(self, samples: torch.Tensor) -> dict[str, float]:
        return {k: v for k, (v, _) in exactness.figures(samples, self.problem, self.floor).items()}

    def run(self, sampler: DiffusionSampler, prior=None) -> dict[str, float]:
        prior = self.problem.gaussian if prior is None else prior
        found = exactness.measure(self.problem, sampler, prior, self.floor, samples=SAMPLES)
        return {k: v for k, (v, _) in found.items()}

    def learned(self, spectrum: str, steps: int, *, draw_last: bool, **choices) -> dict[str, float]:
        sampler = DiffusionSampler(LearnedCovariance(**choices), Bridge(draw_last), steps)
        return self.run(sampler, self.problem.learned[spectrum])


@pytest.fixture(scope="module")
def gaussian() -> Bench:
    return Bench(exactness.gaussian_problem)


@pytest.fixture(scope="module")
def stationary() -> Bench:
    return Bench(exactness.stationary_problem)


def test_figures_know_exact_draws_from_others(gaussian: Bench) -> None:
    draws = gaussian.problem.posterior.sample(SAMPLES, torch.Generator().manual_seed(5))
    mean = gaussian.problem.posterior.mean
    right = gaussian.figures(draws)
    assert right["W2"] <= gaussian.exact.max() / gaussian.floor
    assert right["coverage"] == pytest.approx(0.9, abs=0.01)
    assert right["variance seen"] == pytest.approx(1, abs=0.05)  # sqrt(2 / 500) = .063 a pixel, less for their mean
    assert gaussian.figures(mean + 0.9 * (draws - mean))["coverage"] < 0.87  # a tenth less standard deviation
    std = gaussian.problem.posterior.covariance.diagonal().sqrt().reshape(mean.shape)
    shifted = gaussian.figures(draws + 0.3 * std)
    assert shifted["mean error"] == pytest.approx(0.3, abs=0.06)
    assert shifted["W2"] > 1.5 > gaussian.exact.max() / gaussian.floor
    assert gaussian.useless > 100


@pytest.mark.parametrize("spectrum", ["exact spectrum", "measured"])
@pytest.mark.parametrize("steps", [2, 20])
def test_learned_covariance_is_exact_for_a_stationary_gaussian(stationary: Bench, spectrum: str, steps: int) -> None:
    """At any number of steps, once the solves are tight and the scale is not estimated from 32 numbers by one probe."""
    found = stationary.learned(spectrum, steps, draw_last=True, innovation=False, **exactness.TIGHT)
    assert found["W2"] <= max(1.1, stationary.exact.max() / stationary.floor)  # as near as exact draws by chance
    assert found["coverage"] == pytest.approx(0.9, abs=0.01)  # .0134 for a pixel of 500 samples, less for their mean
    assert found["evaluations"] == steps


@pytest.mark.parametrize("steps", [5, 20])
def test_learned_covariance_as_it_ships(stationary: Bench, gaussian: Bench, steps: int) -> None:
    """With its own tolerance and innovation: near the posterior, honest error bars; stationary or not."""
    for bench, limit in ((stationary, 2), (gaussian, 6)):  # found 1.5 and 1.3, where not stationary 4.4 and 1.9
        found = bench.learned("measured", steps, draw_last=True)
        assert found["W2"] < limit
        assert 0.87 <= found["coverage"] <= 0.93
        assert found["mean error"] < 0.2  # sqrt(1 / 500) = .045 is chance
        assert found["W2"] < bench.useless / 30


def test_images_have_the_mean_of_the_samples_and_too_little_variance(stationary: Bench) -> None:
    """Without the last draw the estimate is a mean: right for an image, not for an error bar of few steps."""
    samples, images = (stationary.learned("exact spectrum", 10, draw_last=last) for last in (True, False))
    assert images["mean error"] < samples["mean error"] + 0.045  # sqrt(1 / 500)
    assert images["variance seen"] < 0.6 < 0.9 < samples["variance seen"]
    assert images["coverage"] < 0.85


def test_dds_converges_with_the_conditioned_direction(gaussian: Bench) -> None:
    """To a limit that is not the posterior, as r^2 I is not the covariance of a smooth image, but it stays there."""
    runs = [gaussian.run(dds(steps)) for steps in (5, 20, 80, 240)]
    w2, error = [run["W2"] for run in runs], [run["mean error"] for run in runs]
    assert w2[0] - w2[1] > 3 * (w2[1] - w2[2]) > 9 * (w2[2] - w2[3]) > 0  # error of order 1 / steps, or faster
    assert error == sorted(error, reverse=True)
    assert runs[3]["variance seen"] == pytest.approx(runs[2]["variance seen"], rel=0.05)  # chance is below 2 %
    assert w2[1] < gaussian.useless / 10


def test_dds_does_not_converge_with_the_published_direction(gaussian: Bench) -> None:
    """The data are counted once per step: what they determine loses its variance as the steps grow."""
    runs = [gaussian.run(DiffusionSampler(DDS(), DDIM(direction="unconditioned"), steps)) for steps in (20, 80, 240)]
    seen = [run["variance seen"] for run in runs]
    assert seen[1] < 0.5 * seen[0]
    assert seen[2] < 0.5 * seen[1]
    assert runs[2]["W2"] > runs[1]["W2"]
    assert runs[2]["coverage"] < 0.6 < runs[1]["coverage"] < runs[0]["coverage"]
    assert max(run["W2"] for run in runs) < gaussian.useless / 10
