"""Single-step DPM-Solver of orders 1 to 3: exponential Runge-Kutta methods on the data or on eps.

With h = log(sigma/sigma'), F = D_y ("data", DPM-Solver++ 2S and 3S) or eps = (x - D_y)/sigma ("eps", DPM-Solver-2 and
-3), and u_r the state at the level sigma^(1-r) sigma'^r inside a step, every line is one formula: the exact flow of the
ODE for an F that is linear in log sigma, F = value + slope u.

    order 1    x'    = flow(h; F(x))                                            DDIM
    order 2    u_1/2 = flow(h/2; F(x)),    x' = flow(h; F(u_1/2))
    order 3    u_1/3 = flow(h/3; F(x)),    u_2/3 = flow(2h/3; F(x), slope (F(u_1/3) - F(x)) / (h/3))
               x'    = flow(h; F(x), slope (F(u_2/3) - F(x)) / (2h/3))

    flow(h; value, slope) = e^(-h) x + psi_0(h) value + psi_1(h) slope                 data
                          = x - sigma' (chi_0(h) value + chi_1(h) slope)               eps

(Lu, Zhou, Bao, Chen, Li and Zhu, DPM-Solver, 2022, algorithms 1 and 2, section 3.4; DPM-Solver++, 2022, algorithm 1.)

Certificate (experiments/exactness.py): stationary inpainting, exact covariance, 20 evaluations: mean error 0.017 sd, W2
3.0 x floor and coverage .83 for order 3, 3.3 x and .82 for order 2; what is missing is the variance of the last step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from inverse.errors import InputError
from inverse.samplers.integrators import weights
from inverse.samplers.integrators.base import Integrator, Path


@dataclass(frozen=True)
class SingleStep(Integrator):
    """Single-step DPM-Solver; a grid of N steps costs N evaluations, whatever the order.

    The grid is cut into blocks of `order` levels, and each block is one step of that order. What is left at the end is
    spent in a shorter block; into level 0 goes one step of order 1, which returns the estimate itself. For order 3 and
    a grid that ends at 0 the orders are 3, ..., 3, 2, 1 or 3, ..., 3, 1 as published (DPM-Solver-fast), and
    3, ..., 3, 1, 1 where N leaves 2 over. Levels inside a block are not visited: those of order 3 are fixed by its
    thirds.

    Args:
        order: 1 to 3.
        prediction: "data" or "eps", what is taken to vary slowly.

    Raises:
        InputError: an order outside 1 to 3, an unknown prediction.
    """

    order: int = 3
    prediction: str = "data"

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 3 or self.prediction not in ("data", "eps"):
            raise InputError(
                "SingleStep: order must lie between 1 and 3 and prediction be 'data' or 'eps'; "
                f"got {self.order}, {self.prediction!r}."
            )

    def orders(self, levels: Sequence[float]) -> list[int]:
        """Order of each block."""
        last = [1] if levels[-1] == 0 else []
        full, rest = divmod(len(levels) - 1 - len(last), self.order)
        return [self.order] * full + [rest] * (rest > 0) + last

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at the end of every block."""
        place = 0
        for order in self.orders(path.levels):
            sigma, sigma_next = path.levels[place], path.levels[place + order]
            x = path.estimate(x, sigma, 0.0).x0 if sigma_next == 0 else self.block(path, x, order, sigma, sigma_next)
            yield x
            place += order

    def block(self, path: Path, x: Tensor, order: int, sigma: float, sigma_next: float) -> Tensor:
        """One step of an order, from sigma to sigma_next > 0."""
        h = math.log(sigma / sigma_next)

        def flow(share: float, value: Tensor, slope: Tensor | float = 0.0) -> tuple[Tensor, float]:
            end = sigma * math.exp(-share * h)
            return self.flow(x, sigma, end, value, slope), end

        def value(x: Tensor, level: float) -> Tensor:
            estimate = path.estimate(x, level, sigma_next).x0
            return estimate if self.prediction == "data" else (x - estimate) / level

        first = value(x, sigma)
        if order == 1:
            return flow(1, first)[0]
        if order == 2:
            return flow(1, value(*flow(1 / 2, first)))[0]
        second = value(*flow(1 / 3, first))
        third = value(*flow(2 / 3, first, (second - first) / (h / 3)))
        return flow(1, first, (third - first) / (2 * h / 3))[0]

    def flow(self, x: Tensor, sigma: float, end: float, value: Tensor, slope: Tensor | float) -> Tensor:
        """x at level `end` for F = value + slope log(sigma / level)."""
        h = math.log(sigma / end)
        if self.prediction == "data":
            return end / sigma * x + weights.psi(0, h) * value + weights.psi(1, h) * slope
        return x - end * (weights.chi(0, h) * value + weights.chi(1, h) * slope)
