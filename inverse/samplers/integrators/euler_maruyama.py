"""Euler-Maruyama steps of the reverse diffusion.

    x' = x - 2 (1 - sigma'/sigma) (x - D_y) + sqrt(2 sigma (sigma - sigma')) n

To first order in the step this is the ancestral step (DDIM with eta = 1), whose mean and variance are exact for a fixed
x0; here the fresh noise sqrt(2 sigma (sigma - sigma')) is larger at large steps. (Song et al., Score-based generative
modeling through stochastic differential equations, ICLR 2021, equation 6; in the variance-exploding frame with time
sigma, Karras, Aittala, Aila and Laine 2022, equation 6.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inverse.samplers.conditionings.base import Estimate
from inverse.samplers.integrators.base import OneEvaluation


@dataclass(frozen=True)
class EulerMaruyama(OneEvaluation):
    """The plainest stochastic integrator; the step to level 0 returns the estimate itself."""

    def step(
        self, x: Tensor, estimate: Estimate, sigma: float, sigma_next: float, noise: Callable[[], Tensor]
    ) -> Tensor:
        """x at sigma_next."""
        if sigma_next == 0:
            return estimate.x0
        drift = 2 * (1 - sigma_next / sigma) * (estimate.x0 - x)
        return x + drift + math.sqrt(2 * sigma * (sigma - sigma_next)) * noise()
