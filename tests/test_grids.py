"""Grids of DDPM networks: pinned levels, even spacing in their time, and bad input."""

import math

import pytest
import torch

from inverse.errors import InputError
from inverse.samplers.grids import cosine, ddpm_linear, ddpm_time, geometric, karras

BUILDERS = {
    "karras": karras,
    "geometric": geometric,
    "ddpm_time": ddpm_time,
    "quadratic": lambda *levels: ddpm_time(*levels, power=2.0),
    "cosine": cosine,
}
# Levels of 5 evaluations as the formulas give them, nine digits.
PINNED = {
    "karras": ((80.0, 0.002), (80.0, 17.5278320, 2.51521898, 0.169752756, 0.002)),
    "geometric": ((80.0, 0.002), (80.0, 5.65685425, 0.4, 0.0282842712, 0.002)),
    "ddpm_time": (
        (152.16697, 0.0104859928),
        (152.166970, 17.0491226, 3.42224476, 0.957526482, 0.0104859928),
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_levels_are_those_of_the_formulas(name):
    ends, levels = PINNED[name]
    expected = torch.tensor([*levels, 0.0], dtype=torch.float64)
    torch.testing.assert_close(BUILDERS[name](5, *ends), expected, rtol=1e-8, atol=0)  # nine digits


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
@pytest.mark.parametrize("name", BUILDERS)
def test_grids_fall_between_their_ends_and_then_to_zero(name, steps):
    grid = BUILDERS[name](steps, 20.0, 0.01)
    assert grid.shape == (steps + 1,) and grid.dtype == torch.float64 and float(grid[-1]) == 0.0
    assert bool((grid[1:] < grid[:-1]).all())
    # 1e-9: log(1 + sigma^2) and 1 - cos lose the digits of sigma^2 = 1e-4 beside 1.
    assert float(grid[0]) == pytest.approx(20.0, rel=1e-9)
    if steps > 1:
        assert float(grid[-2]) == pytest.approx(0.01, rel=1e-9)


def test_time_levels_are_every_nth_of_the_trained_ones():
    # The discrete schedule is the continuous one to 1 % where 200 steps of beta are summed.
    trained = ddpm_linear(1000)
    grid = ddpm_time(4, float(trained[0]), float(trained[750]))
    torch.testing.assert_close(grid[1:3], trained[[250, 500]], rtol=0.01, atol=0)


def test_quadratic_levels_are_even_in_the_root_of_time():
    grid = ddpm_time(5, 20.0, 0.01, power=2.0)[:-1]
    time = (-0.1 + (0.01 + 39.8 * (1 + grid**2).log()).sqrt()) / 19.9
    gaps = time.sqrt().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(4), rtol=1e-9, atol=0)


def test_cosine_levels_are_those_of_the_schedule():
    times = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)
    angle = (times + 0.008) / 1.008 * math.pi / 2
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    levels = (start / angle.cos() ** 2 - 1).sqrt()
    torch.testing.assert_close(cosine(3, float(levels[0]), float(levels[2]))[1], levels[1], rtol=1e-12, atol=0)
    clipped = (start / math.cos(1.007 / 1.008 * math.pi / 2) ** 2 - 1) ** 0.5
    assert clipped == pytest.approx(641.7, abs=0.05)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ddpm_time(0, 20.0, 0.01),
        lambda: ddpm_time(5, 0.01, 20.0),
        lambda: ddpm_time(5, 20.0, 0.0),
        lambda: ddpm_time(5, 20.0, 0.01, power=0.0),
        lambda: cosine(5, math.inf, 0.01),
        lambda: cosine(5, 20.0, 0.01, offset=0.0),
    ],
)
def test_bad_grids_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value)
