"""Orders of convergence of every deterministic integrator on the probability-flow ODE of a bimodal prior.

A row is a way to walk and the order that is expected of it. Multistep methods are given the exact values at earlier
levels, so that their own start, of low order, is not what is measured.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from inverse.priors import GaussianMixturePrior, GaussianPrior
from inverse.samplers import DDIM, Estimate
from inverse.samplers.anchor import Anchor
from inverse.samplers.integrators import (
    GHVB,
    PNDM,
    Adams,
    Anchored,
    HeavyBall,
    Heun,
    Integrator,
    Path,
    SingleStep,
    StochasticAdams,
    deis,
    dpm_solver_2m,
    dpm_solver_3m,
    ipndm,
)

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-1.0, 1.0), (0.1, 0.2)
PRIOR = GaussianMixturePrior(
    torch.tensor(WEIGHTS, dtype=torch.float64),
    [
        GaussianPrior(torch.full((1,), mean, dtype=torch.float64), torch.full((1, 1), std**2, dtype=torch.float64))
        for mean, std in zip(MEANS, STDS, strict=True)
    ],
)
LARGEST, SMALLEST = 5.0, 0.05
STARTS = torch.tensor([-6.0, -3.0, -1.5, 0.5, 2.0, 4.0, 7.0], dtype=torch.float64)[:, None]
STEPS = 256  # and twice as many: below, the orders do not show yet; far above, rounding does
HISTORY = 40  # levels known before the start: (1 - beta)^40 is below rounding for beta 0.8


def denoise(x: Tensor, sigma: float) -> Tensor:
    """E[x0 | x] of the prior in few operations."""
    (m, n), (v, w) = MEANS, (std**2 for std in STDS)
    odds = math.log(WEIGHTS[0] / WEIGHTS[1]) + 0.5 * math.log((w + sigma**2) / (v + sigma**2))
    share = torch.sigmoid(odds + (x - n) ** 2 / (2 * (w + sigma**2)) - (x - m) ** 2 / (2 * (v + sigma**2)))
    first, second = m + v / (v + sigma**2) * (x - m), n + w / (w + sigma**2) * (x - n)
    return second + share * (first - second)


def even_in_lambda(steps: int) -> tuple[float, ...]:
    """Levels with one ratio."""
    return tuple((LARGEST * (SMALLEST / LARGEST) ** np.linspace(0, 1, steps + 1)).tolist())


def even_in_sigma(steps: int) -> tuple[float, ...]:
    """Levels with one difference."""
    return tuple(np.linspace(LARGEST, SMALLEST, steps + 1).tolist())


def in_thirds(steps: int) -> tuple[float, ...]:
    """Levels with one ratio, three for each step."""
    return even_in_lambda(3 * steps)


Grid = Callable[[int], tuple[float, ...]]
Walk = Callable[[tuple[float, ...], Callable[[float], Tensor]], Tensor]


def path(levels: Sequence[float]) -> Path:
    """The prior alone; noise is refused."""

    def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
        assert not draw
        denoised = denoise(x, sigma)
        return Estimate(denoised, denoised)

    def noise() -> Tensor:
        raise AssertionError("a deterministic integrator took noise")

    return Path(tuple(levels), estimate, noise, PRIOR)


def plain(integrator: Integrator) -> Walk:
    """From the first level, as a run does: single-step methods and momentum."""
    return lambda levels, exact: deque(integrator.walk(path(levels), exact(levels[0])), maxlen=1).pop()


def primed(adams: Adams) -> Walk:
    """From the level whose predecessors fill the history with exact values."""

    def walk(levels: tuple[float, ...], exact: Callable[[float], Tensor]) -> Tensor:
        known = []
        for level in levels[: adams.order - 1]:
            x = exact(level)
            known.insert(0, (level, adams.value(x, denoise(x, level), level)))
        rest = levels[adams.order - 1 :]
        return deque(adams._walk(path(rest), exact(rest[0]), known), maxlen=1).pop()

    return walk


def anchored(order: int) -> Walk:
    """As `primed`, for the anchored solver: the Gaussian of the prior's mean and variance, trusted everywhere."""
    integrator = Anchored(order, math.inf, Anchor(0.871, 0.4))

    def walk(levels: tuple[float, ...], exact: Callable[[float], Tensor]) -> Tensor:
        known = [(level, exact(level), denoise(exact(level), level)) for level in reversed(levels[: order - 1])]
        rest = levels[order - 1 :]
        return deque(integrator._walk(path(rest), exact(rest[0]), known), maxlen=1).pop()

    return walk


def averaged(momentum: GHVB) -> Walk:
    """From exact averages: so many levels that how they began is forgotten."""

    def walk(levels: tuple[float, ...], exact: Callable[[float], Tensor]) -> Tensor:
        averages: list[Tensor] = []
        for level in levels[:HISTORY]:
            x = exact(level)
            eps = (x - denoise(x, level)) / level
            averages.insert(0, (1 - momentum.beta) * averages[0] + momentum.beta * eps if averages else eps)
        rest = levels[HISTORY:]
        return deque(momentum._walk(path(rest), exact(rest[0]), averages), maxlen=1).pop()

    return walk


@dataclass(frozen=True)
class Row:
    """A way to walk, the order expected of it, and a grid."""

    walk: Walk
    order: int
    grid: Grid = even_in_lambda


ROWS: dict[str, Row] = {
    "ddim": Row(plain(DDIM(0.0)), 1),
    "data 1": Row(primed(Adams(order=1)), 1),
    "data 2": Row(primed(dpm_solver_2m()), 2),
    "2M published": Row(primed(dpm_solver_2m(published=True)), 2),
    "data 3": Row(primed(dpm_solver_3m()), 3),
    "3M published is second order": Row(primed(dpm_solver_3m(published=True)), 2),
    "data 4": Row(primed(Adams(order=4)), 4),
    "eps in lambda 2": Row(primed(Adams("eps", "lambda", 2)), 2),
    "eps in lambda 2 published": Row(primed(Adams("eps", "lambda", 2, published=True)), 2),
    "eps in lambda 3": Row(primed(Adams("eps", "lambda", 3)), 3),
    "eps in lambda 3 published is second order": Row(primed(Adams("eps", "lambda", 3, published=True)), 2),
    "eps in lambda 4": Row(primed(Adams("eps", "lambda", 4)), 4),
    "rho-AB 2": Row(primed(deis(2)), 2),
    "rho-AB 3": Row(primed(deis(3)), 3),
    "rho-AB 4": Row(primed(deis(4)), 4),
    "t-AB 2": Row(primed(deis(2, "time")), 2),
    "t-AB 3": Row(primed(deis(3, "time")), 3),
    "t-AB 4": Row(primed(deis(4, "time")), 4),
    "plms is second order": Row(primed(ipndm()), 2),
    "plms, even steps": Row(primed(ipndm()), 4, even_in_sigma),
    "unipc 1": Row(primed(Adams(order=1, corrector=True)), 2),
    "unipc 2": Row(primed(Adams(order=2, corrector=True)), 3),
    "unipc 2 bh1": Row(primed(Adams(order=2, corrector=True, published=True, bh1=True)), 3),
    "unipc 2 bh2": Row(primed(Adams(order=2, corrector=True, published=True)), 3),
    "unipc 3": Row(primed(Adams(order=3, corrector=True)), 4),
    "unipc 3 in eps": Row(primed(Adams("eps", order=3, corrector=True)), 4),
    "predictor-corrector in sigma": Row(primed(Adams("eps", "sigma", 3, corrector=True)), 4),
    "pndm": Row(plain(PNDM()), 2),
    "pndm, even steps": Row(plain(PNDM(middle="sigma")), 4, even_in_sigma),
    "s-pndm": Row(plain(PNDM(2)), 2),
    "hb on ab 1": Row(plain(HeavyBall(deis(1))), 1),
    "hb on ab 2": Row(plain(HeavyBall(deis(2))), 1),
    "hb on 2M": Row(plain(HeavyBall(dpm_solver_2m())), 1),
    "nesterov": Row(plain(HeavyBall(deis(2), nesterov=True)), 1),
    "ghvb 1": Row(averaged(GHVB(1)), 1),
    "ghvb 2": Row(averaged(GHVB(2)), 2),
    "ghvb 4 is second order": Row(averaged(GHVB(4)), 2),
    "ghvb 3, even steps": Row(averaged(GHVB(3)), 3, even_in_sigma),
    "heun": Row(plain(Heun()), 2),
    "single step 1": Row(plain(SingleStep(1)), 1),
    "single step 2": Row(plain(SingleStep(2)), 2),
    "single step 2 in eps": Row(plain(SingleStep(2, "eps")), 2),
    "single step 3": Row(plain(SingleStep(3)), 3, in_thirds),
    "single step 3 in eps": Row(plain(SingleStep(3, "eps")), 3, in_thirds),
    "stochastic without noise 2": Row(plain(StochasticAdams(2, 0.0)), 2),
    "anchored 1": Row(anchored(1), 1),
    "anchored 2": Row(anchored(2), 2),
    "anchored 3": Row(anchored(3), 3),
    "ghvb 4, even steps": Row(averaged(GHVB(4)), 4, even_in_sigma),
}


@cache
def reference(grid: Grid) -> dict[float, Tensor]:
    """The exact x at the first levels of both grids and at the last, by scipy's eighth order."""
    levels = sorted({*grid(STEPS)[: HISTORY + 1], *grid(2 * STEPS)[: HISTORY + 1], SMALLEST}, reverse=True)

    def flow(lam: float, x: np.ndarray) -> np.ndarray:
        return denoise(torch.from_numpy(x), math.exp(-lam)).numpy() - x

    x, known = STARTS[:, 0].numpy(), {LARGEST: STARTS}
    for sigma, sigma_next in itertools.pairwise(levels):
        span = (-math.log(sigma), -math.log(sigma_next))
        x = solve_ivp(flow, span, x, method="DOP853", rtol=3e-14, atol=1e-16).y[:, -1]
        known[sigma_next] = torch.from_numpy(x)[:, None]
    return known


def error(row: Row, steps: int) -> float:
    """Mean distance of the end points from the reference."""
    exact = reference(row.grid)
    levels = row.grid(steps)

    def at(level: float) -> Tensor:
        return exact[min(exact, key=lambda known: abs(known - level))]

    return float((row.walk((*levels[:-1], SMALLEST), at) - exact[SMALLEST]).abs().mean())


def test_the_denoiser_is_that_of_the_prior():
    for sigma in (LARGEST, 0.6, SMALLEST):
        # Rounding of exponents up to about 5e4 (x = 7 at sigma 0.05), where the shares are 0 or 1.
        torch.testing.assert_close(denoise(STARTS, sigma), PRIOR.denoise(STARTS, sigma), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ROWS)
def test_order_of_convergence(name):
    row = ROWS[name]
    slope = math.log2(error(row, STEPS) / error(row, 2 * STEPS))
    # A quarter: the slopes of two finite step sizes are not the limit's; a wrong weight costs a whole order.
    assert slope == pytest.approx(row.order, abs=0.25)
