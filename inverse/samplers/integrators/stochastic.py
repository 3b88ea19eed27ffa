"""Stochastic DPM-Solver++: exponential Adams methods for the reverse diffusion with any share of fresh noise.

With H = (1 + eta) log(sigma/sigma'), the exact solution for a D_y that is a polynomial in log sigma is

    x' = e^(-H) x + int_0^H e^(v - H) D_y dv + sigma' sqrt(1 - (sigma'/sigma)^(2 eta)) n

eta = 0 is the ODE (`Adams`), eta = 1 the reverse diffusion itself; every eta has the same marginals. The weights are
those of the data form of `Adams` for levels to the power 1 + eta. Of order 1 with eta = 1 it is the ancestral step.

(Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver++, 2022, for eta = 1; Xue et al., SA-Solver, 2023, for any share. The names
2M SDE and 3M SDE are those of published codes.)

Certificate (experiments/exactness.py): stationary inpainting, exact covariance, 20 evaluations: mean error 0.02 sd, W2
3.0 x floor and coverage .83 for 2M, 2.6 x and .87 for 3M, 4.6 x and .76 for order 1.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.samplers.integrators import weights
from inverse.samplers.integrators.adams import combination
from inverse.samplers.integrators.base import Integrator, Path


@dataclass(frozen=True)
class StochasticAdams(Integrator):
    """SDE-DPM-Solver++ of orders 1 to 3; one evaluation a step, the step to level 0 returns the estimate itself.

    Args:
        order: number of estimates that the polynomial goes through; it starts with order 1, 2, ...
        eta: fresh noise; 0 is deterministic, 1 the reverse diffusion.
        published: the weights of the published codes: order 2 by the midpoint, whose smaller weight on the slope is
            the calmer choice at few steps; order 3 with half the weight on the second derivative.

    Raises:
        InputError: an order outside 1 to 3, or a negative eta.
    """

    order: int = 2
    eta: float = 1.0
    published: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3:
            raise InputError(f"StochasticAdams: order must lie between 1 and 3, got {self.order}.")
        check_positive("eta", self.eta, zero=True)

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        known: deque[tuple[float, Tensor]] = deque(maxlen=self.order)
        for sigma, sigma_next in pairwise(path.levels):
            estimate = path.estimate(x, sigma, sigma_next).x0
            if sigma_next == 0:
                yield estimate
                return
            known.appendleft((sigma, estimate))
            shares = self.coefficients([level for level, _ in known], sigma, sigma_next)
            x = (sigma_next / sigma) ** (1 + self.eta) * x + combination(shares, (value for _, value in known))
            if self.eta > 0:
                x = x + sigma_next * math.sqrt(1 - (sigma_next / sigma) ** (2 * self.eta)) * path.noise()
            yield x

    def coefficients(self, levels: list[float], sigma: float, sigma_next: float) -> list[float]:
        """Weights of the estimates at `levels`, newest first, in the step from sigma to sigma_next."""
        *nodes, start, end = (level ** (1 + self.eta) for level in (*levels, sigma, sigma_next))
        if self.published:
            return weights.published("data", nodes, start, end, corrector=False)
        return weights.exact("data", "lambda", nodes, start, end)


def sde_dpm_solver(eta: float = 1.0) -> StochasticAdams:
    """SDE-DPM-Solver++ 1; for eta = 1 the ancestral step."""
    return StochasticAdams(1, eta)


def sde_dpm_solver_2m(eta: float = 1.0, *, midpoint: bool = True) -> StochasticAdams:
    """SDE-DPM-Solver++ 2M, by the midpoint or, as `solver_type="heun"` in published codes, with exact weights."""
    return StochasticAdams(2, eta, published=midpoint)


def sde_dpm_solver_3m(eta: float = 1.0, *, published: bool = False) -> StochasticAdams:
    """SDE-DPM-Solver++ 3M with the weight of a second derivative; published halves it."""
    return StochasticAdams(3, eta, published=published)
