"""The covariance-corrected ancestral step: x0 is drawn, and x bridges to it.

    x0 ~ p(x0 | x_sigma, y),   x' = x0 + q (x - x0) + sigma' sqrt(1 - q) n,   q = sigma'^2 / sigma^2

The law of x' given x and x0 is exact for every prior, so that all error is that of the draw. Ancestral steps (DDIM with
eta = 1) put the mean of x0 in the place of the draw and lack the variance (1 - q)^2 Cov(x0 | x_sigma, y). With the
covariance of `LearnedCovariance` it is exact at any number of steps for stationary Gaussian images. Ours; per sample
and frequency what Analytic-DPM (Bao, Li, Zhu and Zhang 2022) does with one number per level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from inverse.samplers.conditionings.base import Estimate
from inverse.samplers.integrators.base import Integrator, Path
from inverse.samplers.integrators.ddim import DDIM

ANCESTRAL = DDIM(eta=1.0)


@dataclass(frozen=True)
class Bridge(Integrator):
    """Draw x0, then the bridge; needs a conditioning that can draw.

    Args:
        draw_last: draw in the last step too: samples of the posterior. False returns the mean there, an image with less
            error whose fine texture is not a sample's.
    """

    draw_last: bool = False
    draws: ClassVar[bool] = True

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        for sigma, sigma_next in pairwise(path.levels):
            estimate = path.estimate(x, sigma, sigma_next, draw=sigma_next > 0 or self.draw_last)
            x = bridge(x, estimate, sigma, sigma_next, path.noise)
            yield x


def bridge(x: Tensor, estimate: Estimate, sigma: float, sigma_next: float, noise: Callable[[], Tensor]) -> Tensor:
    """A draw of x' given x and x0."""
    return ANCESTRAL.step(x, estimate, sigma, sigma_next, noise)
