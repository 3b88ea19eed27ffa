"""Learned covariance: the data step of DDS with what the prior knows about its own error in the place of r^2 I.

    C = V^(1/2) F^H diag(c_k) F V^(1/2),   L = V^(1/2) F^H diag(c_k^(1/2)),   C = L L^H
    D_y = D + L z,   (sigma_y^2 I + L^H A^H A L) z = L^H A^H (y - A D)

V is the variance per pixel from the prior's second output, c_k the power spectrum of its whitened error. Ours; exact
for a stationary Gaussian prior. No gradient through the network, one transform more than DDS in each direction.

The innovation y - A D of a sampler that is right has covariance A C A^H + sigma_y^2 I at every level; C is scaled, per
sample and step, by k = (||y - A D||^2 - m sigma_y^2) / ||A L n||^2, n ~ N(0, I), which is near 1 when all fits.

With `draw`, x0 is a draw from N(D_y, C_y), C_y the covariance after the data (`inverse.samplers.covariance.draw`).

Certificate (experiments/exactness.py): stationary Gaussian, inpainting, 2 evaluations: W2 1.01 x floor, coverage .90,
with innovation=False, rtol=1e-4, draw_last=True; with draw_last=True alone, 20 evaluations: 1.3 x, coverage .89. A
Gaussian that is not stationary: 2.2 x, coverage .91; prior draws 317 x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditioning import Estimate
from inverse.samplers.covariance import CovarianceFactor, draw, modes_of
from inverse.samplers.data_step import correction
from inverse.samplers.problem import Problem

INNOVATION_RANGE = (0.5, 16.0)


@dataclass(frozen=True)
class LearnedCovariance:
    """Conditioning by the learned covariance.

    Args:
        draw: draw x0 from its posterior at every step but the last (error bars), instead of taking its mean.
        draw_last: draw at the last step too: samples instead of images.
        innovation: scale C by the innovation.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.

    Raises:
        InputError: iterations not positive.
    """

    draw: bool = True
    draw_last: bool = False
    innovation: bool = True
    iterations: int = 100
    rtol: float = 2e-3

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"LearnedCovariance: iterations must be at least 1, got {self.iterations}.")

    def estimate(
        self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float, random: SampleRandom, *, final: bool
    ) -> Estimate:
        """D_y, or a draw around it, and D at one noise level; one network evaluation."""
        denoised, factor = prior_gaussian(problem, prior, x, sigma)
        gram = problem.gram(denoised)
        k = None
        if self.innovation:
            k = innovation(problem, denoised, gram, factor, random)
            factor = factor.scaled(k)
        if self.draw_last if final else self.draw:
            x0 = draw(problem, denoised, factor, random, iterations=self.iterations, rtol=self.rtol)
        else:
            noise = problem.sigma_y**2
            x0 = denoised + correction(
                problem, denoised, gram, factor, noise, iterations=self.iterations, rtol=self.rtol
            )
        return Estimate(x0, denoised, k)


def prior_gaussian(problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, CovarianceFactor]:
    """Mean D and factor L of the Gaussian that the prior states for x0 given x_sigma.

    A prior without variance per pixel gives V = mse(sigma), one without spectrum c_k = 1.
    """
    problem.work.nfe += 1
    if prior.moments is not None:
        denoised, variance = prior.moments(x, sigma)
        std = variance.sqrt()
    else:
        denoised, std = prior.denoise(x, sigma), x.real.new_full((1, *x.shape[-2:]), prior.mse(sigma) ** 0.5)
    if std.ndim < x.ndim:
        std = std.unsqueeze(-3)
    modes = modes_of(x)
    if prior.calibration is not None:
        gain = prior.calibration.power_map(sigma, modes.radius).sqrt()
    else:
        gain = torch.ones_like(modes.radius)
    return problem.restrict(denoised), CovarianceFactor(modes, problem.restrict(std), gain)


def innovation(
    problem: Problem, denoised: Tensor, gram: Tensor, factor: CovarianceFactor, random: SampleRandom
) -> Tensor:
    """k = (||y - A D||^2 - m sigma_y^2) / ||A L n||^2 per item, one probe, clamped to [0.5, 16].

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
