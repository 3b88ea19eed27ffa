"""Learned covariance: the data step of DDS with what the prior knows about its own error in the place of r^2 I.

    C = V^(1/2) F^H diag(c_k) F V^(1/2),   L = V^(1/2) F^H diag(c_k^(1/2)),   C = L L^H
    D_y = D + L z,   (sigma_y^2 I + L^H A^H A L) z = L^H A^H (y - A D)

V is the variance per pixel from the prior's second output, c_k the power spectrum of its whitened error. Ours; exact for
a stationary Gaussian prior. No gradient through the network, one transform more than DDS in each direction.

The innovation y - A D of a sampler that is right has covariance A C A^H + sigma_y^2 I at every level; C is scaled, per
sample and step, by k = (||y - A D||^2 - m sigma_y^2) / ||A L n||^2, n ~ N(0, I), which is near 1 when all fits.

With `draw`, x0 is a draw from N(D_y, C_y), C_y the covariance after the data, by one perturbed solve:

    x0 = D + e0 + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A (D + e0) - e1),   e0 ~ N(0, C),  e1 ~ N(0, sigma_y^2 I)

An ancestral step through it is exact for a Gaussian at any number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.transforms import Modes
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditioning import Estimate
from inverse.samplers.data_step import correction
from inverse.samplers.problem import Problem

INNOVATION_RANGE = (0.5, 16.0)


@dataclass(frozen=True)
class CovarianceFactor:
    """L = S V^(1/2) F^H diag(c_k^(1/2)), S the support; z lives in the modes, so that each way costs one transform.

    Args:
        modes: the transform F.
        std: V^(1/2) on the support, broadcastable to the image (items, *in_shape).
        gain: c_k^(1/2) (H, W).
    """

    modes: Modes
    std: Tensor
    gain: Tensor

    def apply(self, z: Tensor) -> Tensor:
        """L z."""
        return self.std * self.modes.inverse(self.gain * z)

    def adjoint(self, x: Tensor) -> Tensor:
        """L^H x."""
        return self.gain * self.modes.forward(self.std * x)

    def scaled(self, k: Tensor) -> CovarianceFactor:
        """The factor of k C, k one number per item."""
        return CovarianceFactor(self.modes, self.std * k.sqrt().reshape(-1, *(1,) * (self.std.ndim - 1)), self.gain)


@dataclass(frozen=True)
class LearnedCovariance:
    """Conditioning by the learned covariance.

    Args:
        draw: draw x0 from its posterior at every step but the last (error bars), instead of taking its mean.
        draw_last: draw at the last step too: samples instead of images.
        innovation: scale C by the innovation.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop.

    Raises:
        InputError: iterations not positive.
    """

    draw: bool = True
    draw_last: bool = False
    innovation: bool = True
    iterations: int = 40
    rtol: float = 1e-2

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"LearnedCovariance: iterations must be at least 1, got {self.iterations}.")

    def estimate(
        self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float, random: SampleRandom, *, final: bool
    ) -> Estimate:
        """D_y, or a draw around it, and D at one noise level; one network evaluation."""
        denoised, factor = prior_gaussian(problem, prior, x, sigma)
        noise = problem.sigma_y**2
        gram = problem.gram(denoised)
        k = None
        if self.innovation:
            k = innovation(problem, denoised, gram, factor, random)
            factor = factor.scaled(k)
        mean, data_noise = denoised, None
        if self.draw_last if final else self.draw:
            mean = denoised + factor.apply(_white(random, x))
            gram = problem.gram(mean)
            if noise > 0:
                e1 = random.normal(problem.y.shape[1:], dtype=problem.y.dtype) * problem.sigma_y
                data_noise = problem.restrict(problem.operator.H(e1))
                problem.work.grams += 0.5
        step = correction(
            problem, mean, gram, factor, noise, iterations=self.iterations, rtol=self.rtol, data_noise=data_noise
        )
        return Estimate(mean + step, denoised, k)


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
    modes = _modes(tuple(x.shape[-2:]), x.dtype, x.device)
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
    probe = factor.apply(_white(random, denoised))
    expected = (probe.conj() * problem.gram(probe)).real.double().flatten(1).sum(1)
    noise = problem.operator.measurements * problem.sigma_y**2
    excess = problem.residual_energy(denoised, gram) - noise
    return (excess / expected.clamp(min=torch.finfo(torch.float64).tiny)).clamp(*INNOVATION_RANGE).to(probe.real.dtype)


def _white(random: SampleRandom, like: Tensor) -> Tensor:
    return random.normal(like.shape[1:], dtype=like.dtype)


@lru_cache(maxsize=8)
def _modes(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Modes:
    return Modes(shape, dtype, device)
