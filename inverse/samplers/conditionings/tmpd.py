"""TMPD: moment matching whose inverse is a diagonal, the row sums of the covariance of the data.

    D_y = D + C A^H (y - A D) / (c + sigma_y^2),   c = A C A^H 1,   C = sigma^2 dD/dx

(Boys, Girolami, Pidstrigach, Reich, Mosca and Akyildiz, Tweedie moment projected diffusions for inverse problems, 2023,
the row-sum approximation of their equation 9). Two backward passes in the place of a solve. It is exact where A C A^H
is diagonal, and over-weighs the data where pixels are anti-correlated: a row sum that is not positive counts as none.
For complex data the row sums are those of the real parts. sigma_y = 0 divides by the row sums alone, and leaves data
out whose row sum is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.jacobian import Linearised
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class TMPD(Conditioning):
    """Conditioning of TMPD; one evaluation and two backward passes a step."""

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
        """D_y and D at one noise level; one network evaluation and two gradients through its one graph."""
        operator = problem.operator
        point = Linearised(problem, prior, x, sigma)
        ones = operator.H(torch.ones_like(problem.y))
        rows = operator(sigma**2 * point.transposed(ones)).real.clamp(min=0) + problem.sigma_y**2
        misfit = problem.misfit(point.denoised)
        pull = operator.H(torch.where(rows > 0, misfit / rows, 0))
        problem.work.grams += 2
        return Estimate(point.denoised - sigma**2 * point.transposed(pull, last=True), point.denoised)
