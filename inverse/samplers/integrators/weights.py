"""Weights of linear multistep methods on any grid: integrals of Lagrange polynomials, on the host in float64.

The probability-flow ODE dx/dsigma = eps = (x - D)/sigma has the exact solutions, with lambda = -log sigma and
h = lambda' - lambda the length of the step,

    data form   x' = (sigma'/sigma) x + int_0^h e^(u - h) D du
    eps form    x' = x - int_0^h sigma e^(-u) eps du

A method of order k puts in the place of D or eps the polynomial through its last k values: in lambda (DPM-Solver,
UniPC), in sigma (plain Adams), or in the time of the network (DEIS). The integrals are taken by Gauss-Legendre
quadrature of 32 points in u, exact to rounding for sigma / sigma' up to 100 (in lambda and sigma up to 8000, in time
2e-11 there), without the cancellation of the closed forms at small h.

Sources: Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver, 2022, and DPM-Solver++, 2022; Zhang and Chen, DEIS, 2023; Zhao,
Bai, Rao, Zhou and Lu, UniPC, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

POINTS, SHARES = np.polynomial.legendre.leggauss(32)
BETA_MIN, BETA_SPAN = 0.1, 19.9  # the continuous linear schedule of Song et al. 2021, equation 33
GREGORY = (1.0, 1 / 2, 5 / 12, 3 / 8, 251 / 720)  # Adams-Bashforth on an even grid, in backward differences


def psi(order: int, h: float) -> float:
    """int_0^h e^(u - h) u^i / i! du, i = order: 1 - e^(-h) for 0, h - psi_0 for 1."""
    return _moment(order, h, 1.0)


def chi(order: int, h: float) -> float:
    """int_0^h e^(h - u) u^i / i! du, i = order: e^h - 1 for 0, chi_0 - h for 1."""
    return _moment(order, h, -1.0)


def network_time(sigma: float) -> float:
    """Time u in (0, 1] of a variance-preserving network of linear beta: sigma^2 = exp(19.9 u^2 / 2 + 0.1 u) - 1."""
    return (math.sqrt(BETA_MIN**2 + 2 * BETA_SPAN * math.log1p(sigma**2)) - BETA_MIN) / BETA_SPAN


def noise_at(time: float) -> float:
    """The inverse of `network_time`."""
    return math.sqrt(math.expm1(BETA_SPAN * time**2 / 2 + BETA_MIN * time))


VARIABLES: dict[str, Callable[[float], float]] = {
    "lambda": lambda sigma: -math.log(sigma),
    "sigma": float,
    "time": network_time,
}


def exact(prediction: str, variable: str, nodes: Sequence[float], sigma: float, sigma_next: float) -> list[float]:
    """Weights of the values at `nodes` in the step from sigma to sigma_next; exact for polynomials in the variable.

    Args:
        prediction: "data" or "eps", what the values are.
        variable: "lambda", "sigma" or "time", the variable of the polynomial.
        nodes: levels of the values, all different and above 0; sigma_next among them makes a corrector.
        sigma: level at the start.
        sigma_next: level at the end, above 0.

    Returns:
        w with x' = kept x + sum_j w_j value_j; kept is sigma_next / sigma for "data" and 1 for "eps".
    """
    change = VARIABLES[variable]
    u, shares = _quadrature(math.log(sigma / sigma_next))
    levels = sigma * np.exp(-u)
    kernel = sigma_next / levels if prediction == "data" else -levels
    at, known = np.array([change(level) for level in levels]), [change(node) for node in nodes]
    weights = []
    for j, node in enumerate(known):
        basis = np.ones_like(at)
        for i, other in enumerate(known):
            if i != j:
                basis = basis * (at - other) / (node - other)
        weights.append(float(shares @ (kernel * basis)))
    return weights


def published(
    prediction: str, nodes: Sequence[float], sigma: float, sigma_next: float, *, corrector: bool, bh1: bool = False
) -> list[float]:
    """Weights of the published codes, where they differ from the exact ones in lambda.

    Two values: half the total weight on the slope (DPM-Solver(++) 2M, UniPC with B(h) = e^h - 1), or half the step
    (UniPC with B(h) = h). Three values without a corrector (DPM-Solver(++) 3M): the second divided difference has half
    the weight of a second derivative, which makes the method second order.

    Args:
        prediction: "data" or "eps".
        nodes: levels of the values, newest first; for the corrector of one past value (sigma_next, sigma).
        sigma: level at the start.
        sigma_next: level at the end, above 0.
        corrector: the weights of UniPC, whose order 3 is exact, instead of DPM-Solver's.
        bh1: UniPC's B(h) = h.
    """
    weights = exact(prediction, "lambda", nodes, sigma, sigma_next)
    h, total = math.log(sigma / sigma_next), sum(weights)
    if len(nodes) == 2:
        newest, oldest = nodes
        slope = 0.5 * (math.copysign(h if prediction == "data" else h * sigma_next, total) if bh1 else total)
        if newest == sigma_next:
            return [slope, total - slope]
        share = slope * h / math.log(oldest / newest)
        return [total + share, -share]
    if len(nodes) == 3 and not corrector:
        half = psi(2, h) if prediction == "data" else -sigma_next * chi(2, h)
        places = [-math.log(node) for node in nodes]
        apart = [math.prod(a - b for b in places if b != a) for a in places]
        return [weight - half / product for weight, product in zip(weights, apart, strict=True)]
    return weights


def even(order: int, beta: float = 1.0) -> list[float]:
    """Weights of Adams-Bashforth of an order on a grid with even steps, newest first, for a step of length 1.

    Args:
        order: number of values, 1 to 5.
        beta: the values are averages v = (1 - beta) v_previous + beta e; the weights then are those of e: the average
            is undone by (1 - (1 - beta) B) / beta, B the step back, to the order of the method. 1 averages nothing.
    """
    gains = [g + (1 - beta) / beta * before for g, before in zip(GREGORY[:order], (0.0, *GREGORY), strict=False)]
    return [(-1) ** j * sum(gains[i] * math.comb(i, j) for i in range(j, order)) for j in range(order)]


def _moment(order: int, h: float, sign: float) -> float:
    u, shares = _quadrature(h)
    return float(shares @ (np.exp(sign * (u - h)) * u**order)) / math.factorial(order)


def _quadrature(h: float) -> tuple[np.ndarray, np.ndarray]:
    return h * (1 + POINTS) / 2, h * SHARES / 2
