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
CHANCE = 2.0
"""Standard deviations by which the innovation must stand out of chance to count at all."""


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
    """k = (||y - A D||^2 - m sigma_y^2) / ||A L n||^2 per item, n ~ N(0, I) one probe, as far as it is not chance.

    The innovation y - A D of a sampler that is right has covariance B + sigma_y^2 I, B = A C A^H, at every level, so
    that k is near 1 when all fits. Few data, or data whose noise is far above what D leaves open, say little about it:
    R = ||y - A D||^2 / (||A L n||^2 + m sigma_y^2) then strays by

        v = 2 (2 tr B^2 + 2 sigma_y^2 tr B + m sigma_y^4) / (tr B + m sigma_y^2)^2

    (probe included; traces by the same probe), and k - 1 is scaled by 1 - 4 v max(R, 1) / (R - 1)^2, not below 0. What
    is left is clamped to [0.5, 16].

    Args:
        problem: data and operator.
        denoised: D.
        gram: A^H A D.
        factor: L.
        random: source of the probe n.
    """
    probe = factor.apply(random.normal(denoised.shape[1:], dtype=denoised.dtype))
    seen = problem.gram(probe)
    trace = (probe.conj() * seen).real.double().flatten(1).sum(1)
    squares = factor.adjoint(seen).abs().double().square().flatten(1).sum(1)
    variance = problem.sigma_y**2
    noise = problem.operator.measurements * variance
    energy, expected = problem.residual_energy(denoised, gram), trace + noise
    smallest = torch.finfo(torch.float64).tiny
    ratio = energy / expected.clamp(min=smallest)
    stray = 2 * (2 * squares + 2 * variance * trace + noise * variance) / expected.square().clamp(min=smallest)
    certain = 1 - CHANCE**2 * stray * ratio.clamp(min=1) / (ratio - 1).square().clamp(min=smallest)
    excess = (energy - noise) / trace.clamp(min=smallest) - 1
    return (1 + certain.clamp(min=0) * excess).clamp(*INNOVATION_RANGE).to(probe.real.dtype)
