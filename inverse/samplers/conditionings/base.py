"""What a conditioning is: it turns the prior's denoiser into a denoiser of the posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

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


class Conditioning(ABC):
    """Turns D(x, sigma) ~ E[x0 | x] into D_y(x, sigma) ~ E[x0 | x, y].

    Attributes:
        draws: whether it can also draw x0 given x and y, as the integrator `Bridge` asks for.
        nonlinear: whether it takes operators that have a gradient but no adjoint.
    """

    draws: ClassVar[bool] = False
    nonlinear: ClassVar[bool] = False

    @abstractmethod
    def estimate(
        self,
        problem: Problem,
        prior: Denoiser,
        x: Tensor,
        sigma: float,
        random: SampleRandom,
        *,
        sigma_next: float,
        draw: bool = False,
    ) -> Estimate:
        """The estimate at one noise level.

        Args:
            problem: data, operator and noise level.
            prior: the prior.
            x: noisy images (items, *in_shape).
            sigma: their noise level.
            random: source of random numbers.
            sigma_next: the level that the integrator heads for; only rules defined by a step, as DPS's, use it.
            draw: draw x0 from its distribution given x and y instead of taking its mean.
        """
