"""No data: D_y = D, or a draw from what the prior knows of x0 given x_sigma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.conditionings.learned_covariance import LearnedCovariance
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class Unconditional(Conditioning):
    """Samples of the prior. A draw is D + L n with the factor L of `LearnedCovariance`: exact for Gaussian images."""

    draws: ClassVar[bool] = True

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
        """D, or D + L n, at one noise level; one network evaluation."""
        if not draw:
            denoised = problem.denoise(prior, x, sigma)
            return Estimate(denoised, denoised)
        denoised, factor = LearnedCovariance().gaussian(problem, prior, x, sigma)
        return Estimate(denoised + factor.apply(random.normal(x.shape[1:], dtype=x.dtype)), denoised)
