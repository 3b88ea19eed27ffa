"""Unadjusted Langevin steps on N(x; mean, std^2 I) N(y; A(x), noise^2 I), for A that have a gradient but no solve."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.random import SampleRandom
from inverse.samplers.problem import Problem

RELATIVE_RATE = 0.05
"""Step size where none is given, over the shortest time scale; a stationary variance is then 2.5 % too large."""


@dataclass(frozen=True)
class Langevin:
    """x <- x + rate (A^H (y - A(x)) / noise^2 + (mean - x) / std^2) + sqrt(2 rate) n, started at the mean.

    It forgets its start after about variance / rate steps, in every direction; fewer leave the draw too near to it.

    Args:
        steps: number of steps, one gradient each.
        rate: step size in units of the image squared; None takes 0.05 / (1/noise^2 + 1/std^2), stable where |A| <= 6.
        noise: noise level that the data are taken to have; None is the problem's own.

    Raises:
        InputError: steps below 1, numbers that are not positive; in a run, data without noise.
    """

    steps: int = 100
    rate: float | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"Langevin: steps must be at least 1, got {self.steps}.")
        for name in ("rate", "noise"):
            if getattr(self, name) is not None:
                check_positive(f"Langevin: {name}", getattr(self, name))

    def draw(
        self, problem: Problem, mean: Tensor, std: float, random: SampleRandom, *, slowdown: float = 1.0
    ) -> Tensor:
        """x after all steps.

        Args:
            problem: data and operator, linear or not.
            mean: mean of x before the data (items, *in_shape).
            std: its standard deviation.
            random: one stream per row.
            slowdown: factor on the step size.
        """
        noise = problem.sigma_y if self.noise is None else self.noise
        if noise == 0:
            raise InputError(
                "Langevin: the data have no noise, so that no step is short enough; give Langevin(noise=...)."
            )
        rate = RELATIVE_RATE / (1 / noise**2 + 1 / std**2) if self.rate is None else self.rate
        rate *= slowdown
        x = mean
        for _ in range(self.steps):
            drift = (mean - x) / std**2 - problem.gradient(x) / noise**2
            x = x + rate * drift + math.sqrt(2 * rate) * random.normal(x.shape[1:], dtype=x.dtype)
        return x
