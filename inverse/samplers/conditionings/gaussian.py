"""The formula that most conditionings share: x0 given x_sigma is N(D, C), C = L L^H, and the data are Gaussian.

    D_y = D + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A D)

They differ in the rule for L alone. The mean, or with `draw` a draw of x0 given x and y, costs one solve by conjugate
gradients (`inverse.samplers.data_step`, `inverse.samplers.covariance`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.covariance import draw as draw_x0
from inverse.samplers.data_step import Factor, correction
from inverse.samplers.problem import Problem

INNOVATION_RANGE = (0.5, 16.0)


@dataclass(frozen=True, kw_only=True)
class GaussianConditioning(Conditioning):
    """Conditioning by a Gaussian of x0 given x_sigma.

    Args:
        innovation: scale C, per sample and step, by the innovation (`innovation_of`).
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.

    Raises:
        InputError: iterations below 1.
    """

    innovation: bool = False
    iterations: int = 100
    rtol: float = 1e-3
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"{type(self).__name__}: iterations must be at least 1, got {self.iterations}.")

    @abstractmethod
    def gaussian(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Factor]:
        """D and L at one noise level; one network evaluation."""

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
        """D_y or a draw, and D, at one noise level; one network evaluation, no gradient."""
        denoised, factor = self.gaussian(problem, prior, x, sigma)
        k = None
        if self.innovation:
            gram = problem.gram(denoised)
            k = innovation_of(problem, denoised, gram, factor, random)
            factor = factor.scaled(k)
        if draw:
            return Estimate(
                draw_x0(problem, denoised, factor, random, iterations=self.iterations, rtol=self.rtol), denoised, k
            )
        if not self.innovation:
            gram = problem.gram(denoised)
        step = correction(
            problem, denoised, gram, factor, problem.sigma_y**2, iterations=self.iterations, rtol=self.rtol
        )
        return Estimate(denoised + step, denoised, k)


def innovation_of(problem: Problem, denoised: Tensor, gram: Tensor, factor: Factor, random: SampleRandom) -> Tensor:
    """k = (||y - A D||^2 - m sigma_y^2) / ||A L n||^2 per item, n ~ N(0, I) one probe, clamped to [0.5, 16].

    The innovation y - A D of a sampler that is right has covariance A C A^H + sigma_y^2 I at every level, so that k is
    near 1 when all fits.

    Args:
        problem: data and operator.
        denoised: D.
        gram: A^H A D.
        factor: L.
        random: source of the probe n.
    """
    probe = factor.apply(random.normal(denoised.shape[1:], dtype=denoised.dtype))
    expected = (probe.conj() * problem.gram(probe)).real.double().flatten(1).sum(1)
    noise = problem.operator.measurements * problem.sigma_y**2
    excess = problem.residual_energy(denoised, gram) - noise
    return (excess / expected.clamp(min=torch.finfo(torch.float64).tiny)).clamp(*INNOVATION_RANGE).to(probe.real.dtype)
