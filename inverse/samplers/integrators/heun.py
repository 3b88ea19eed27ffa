"""Heun's method of EDM, deterministic or with churn: second order, two evaluations a step.

    sigma^ = (1 + gamma) sigma,   x^ = x + sqrt(sigma^^2 - sigma^2) s n,   gamma = min(churn / N, sqrt 2 - 1)
    e = (x^ - D_y(x^, sigma^)) / sigma^,   x' = x^ + (sigma' - sigma^) e
    x'' = x^ + (sigma' - sigma^) (e + e') / 2,   e' = (x' - D_y(x', sigma')) / sigma'

(Karras, Aittala, Aila and Laine, Elucidating the design space of diffusion-based generative models, 2022, algorithms 1
and 2.) N is the number of steps. Into level 0 the step is plain Euler's, which returns the estimate itself.

Churn replaces a part of the noise in x before every step. It forgets errors of earlier steps, and pays with the error
of a longer step. The published sets for pictures are churn 30 in (0.01, 1) with noise 1.007, and 40 in (0.05, 50) with
noise 1.003: noise above 1 hides that a network removes a little too much, and makes samples too wide where the
denoiser is right.

Certificate (experiments/exactness.py): stationary inpainting, exact covariance, 20 evaluations: mean error 0.015 sd, W2
4.5 x floor, coverage .77; with churn 10 5.8 x, .70. What is missing is variance: the last
step returns the mean, and half of the evaluations leave a grid whose last level is twice as high.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.samplers.integrators.base import Integrator, Path

LARGEST_GAMMA = math.sqrt(2) - 1  # the noise that is added is never above the noise that is there


@dataclass(frozen=True)
class Heun(Integrator):
    """Euler's step, corrected by the slope at its end; with churn, fresh noise before every step.

    Args:
        churn: S_churn, noise added over the whole run; 0 is the deterministic method.
        lowest: S_min, level below which none is added.
        highest: S_max, level above which none is added.
        noise: S_noise, standard deviation of the added noise; 1 keeps x at its level.

    Raises:
        InputError: negative numbers, or lowest above highest.
    """

    churn: float = 0.0
    lowest: float = 0.0
    highest: float = math.inf
    noise: float = 1.0

    def __post_init__(self) -> None:
        check_positive("churn", self.churn, zero=True)
        check_positive("noise", self.noise)
        if not 0 <= self.lowest <= self.highest:
            raise InputError(f"Heun: expected 0 <= lowest <= highest, got {self.lowest} and {self.highest}.")

    def evaluations(self, levels: Sequence[float]) -> int:
        """Two a step, one into level 0."""
        return 2 * (len(levels) - 1) - (levels[-1] == 0)

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        after = [*path.levels[2:], 0.0]  # where the second evaluation's own step would lead
        for (sigma, sigma_next), following in zip(pairwise(path.levels), after, strict=True):
            x, churned = self.churned(path, x, sigma)
            estimate = path.estimate(x, churned, sigma_next).x0
            if sigma_next == 0:
                yield estimate
                return
            slope = (x - estimate) / churned
            euler = x + (sigma_next - churned) * slope
            second = (euler - path.estimate(euler, sigma_next, following).x0) / sigma_next
            x = x + (sigma_next - churned) * (slope + second) / 2
            yield x

    def churned(self, path: Path, x: Tensor, sigma: float) -> tuple[Tensor, float]:
        """x with more noise, and its level, which stays within the grid."""
        inside = self.lowest <= sigma <= self.highest
        gamma = min(self.churn / (len(path.levels) - 1), LARGEST_GAMMA) if inside else 0.0
        level = min((1 + gamma) * sigma, path.levels[0])
        if level == sigma:
            return x, sigma
        return x + math.sqrt(level**2 - sigma**2) * self.noise * path.noise(), level
