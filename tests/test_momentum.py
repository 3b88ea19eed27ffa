"""Momentum: published weights, limits, formulas, and the range of stable steps."""

import math

import pytest
import torch
from integrator_cases import LEVELS, Counted, curved, growth, walked
from sampler_cases import EXACT
from torch import Tensor

from inverse.samplers.integrators import GHVB, HeavyBall, deis, dpm_solver_2m, ipndm, weights

# beta 0.8, x' = z x with even steps in sigma: z below which a run grows.
BOUNDS = [
    (deis(2), -1.0),
    (ipndm(3), -6 / 11),
    (ipndm(4), -3 / 10),
    (HeavyBall(deis(1)), -2 * 1.2 / 0.8),
    (HeavyBall(deis(2)), -1.2 / 0.8),
    (GHVB(2), -1.2),
    (GHVB(3), -6 * 1.2 / 11.2),
    (GHVB(4), -3 * 1.2 / 10.2),
]


@pytest.mark.parametrize(("integrator", "z"), BOUNDS, ids=str)
def test_momentum_widens_the_stable_range(integrator, z):
    levels = [float(n) for n in range(201, 0, -1)]
    for factor, grows in ((0.95, False), (1.05, True)):  # 200 steps turn a twentieth into growth or decay
        eps = -factor * z  # x - (1) eps per step
        assert (growth(integrator, levels, lambda x, sigma, e=eps: x - sigma * e * x) > 1) == grows


def test_averages_combine_with_the_published_weights():
    for b in (0.3, 0.8, 1.0):
        known = {
            1: [b],
            2: [(2 + b) / 2, -(2 - b) / 2],
            3: [(18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12],
            4: [(46 + 9 * b) / 24, -(78 - 19 * b) / 24, (42 - 5 * b) / 24, -(10 - b) / 24],
            5: [c / 720 for c in (1650 + 251 * b, -(3420 - 646 * b), 2880 - 264 * b, -(1380 - 106 * b), 270 - 19 * b)],
        }
        for order, wanted in known.items():
            assert [b * w for w in weights.even(order, b)] == pytest.approx(wanted, rel=EXACT)


def test_without_averaging_momentum_is_its_base():
    levels = (*LEVELS, 0.0)
    for base in (dpm_solver_2m(), deis(3), ipndm(4)):
        for x, other in zip(walked(HeavyBall(base, 1.0), levels), walked(base, levels), strict=True):
            torch.testing.assert_close(x, other, rtol=EXACT, atol=EXACT)
    for x, other in zip(walked(GHVB(4, 1.0), levels), walked(ipndm(4), levels), strict=True):
        torch.testing.assert_close(x, other, rtol=EXACT, atol=EXACT)


def test_heavy_ball_on_2m_is_the_published_step():
    path = Counted(LEVELS, curved)
    xs = list(HeavyBall(dpm_solver_2m(published=True), 0.7).walk(path, torch.tensor([2.0, -3.0], dtype=torch.float64)))
    values = [curved(x, sigma) for sigma, x in path.calls]
    velocity = values[0]
    for n in range(1, len(xs)):
        h, before = math.log(LEVELS[n] / LEVELS[n + 1]), math.log(LEVELS[n - 1] / LEVELS[n])
        slope = values[n] + 0.5 * (values[n] - values[n - 1]) * h / before
        velocity = 0.3 * velocity + 0.7 * slope
        wanted = math.exp(-h) * path.calls[n][1] + (1 - math.exp(-h)) * velocity
        torch.testing.assert_close(xs[n], wanted, rtol=EXACT, atol=EXACT)


def test_nesterov_looks_ahead():
    path = Counted(LEVELS, curved)
    xs = list(HeavyBall(deis(1), 0.6, nesterov=True).walk(path, torch.tensor([2.0, -3.0], dtype=torch.float64)))
    velocity: Tensor | None = None
    for (sigma, x), sigma_next, after in zip(path.calls, LEVELS[1:], xs, strict=True):
        eps = (x - curved(x, sigma)) / sigma
        velocity = eps if velocity is None else 0.4 * velocity + 0.6 * eps
        wanted = x + (sigma_next - sigma) * (0.4 * velocity + 0.6 * eps)
        torch.testing.assert_close(after, wanted, rtol=EXACT, atol=EXACT)
