"""What a conditioning is: it turns the prior's denoiser into a denoiser of the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class Estimate:
    """What is known of x0 at one noise level.

    Attributes:
        x0: estimate given the data, or a draw of x0 given the data (items, *in_shape).
        denoised: the prior's estimate D without the data.
        innovation: normalised energy of y - A D per item, near 1 when prior, noise level and operator fit; or None.
    """

    x0: Tensor
    denoised: Tensor
    innovation: Tensor | None = None


class Conditioning(Protocol):
    """Turns D(x, sigma) ~ E[x0 | x] into D_y(x, sigma) ~ E[x0 | x, y]."""

    def estimate(
        self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float, random: SampleRandom, *, final: bool
    ) -> Estimate:
        """The estimate at one noise level; `final` marks the last step, whose x0 is returned to the user."""
        ...
