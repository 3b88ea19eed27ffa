"""Where a run starts: x at the largest noise level, already carrying what the data say of the coarse image."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.covariance import CovarianceFactor, draw, modes_of
from inverse.samplers.problem import Problem


def from_noise(problem: Problem, prior: Denoiser, sigma: float, random: SampleRandom) -> Tensor:
    """sigma n: right when sigma is far above every mode of the image, its mean included."""
    like = problem.adjoint_y
    return sigma * random.normal(like.shape[1:], dtype=like.dtype)


def from_data(problem: Problem, prior: Denoiser, sigma: float, random: SampleRandom) -> Tensor:
    """x0 + sigma n, x0 drawn from its posterior under a Gaussian of the prior's power spectrum; no network evaluation.

    The mean of an image stands far above white noise of 25 data standard deviations (by sqrt(pixels) / 25), so that a
    start from noise alone begins with the wrong coarse image. The Gaussian N(0, C) has the spectrum of the prior's
    error at its largest noise level, where the denoiser knows next to nothing: that of the images themselves. It is
    solved tightly, since the run keeps what is left unsolved here.
    """
    widest = prior.sigma_max
    like = problem.adjoint_y
    modes = modes_of(like, prior.calibration)
    std = problem.restrict(like.real.new_full(like.shape[1:], prior.mse(widest) ** 0.5))[None]
    gain = torch.ones_like(modes.radius)
    if prior.calibration is not None:
        gain = prior.calibration.power_map(widest, modes.radius).sqrt()
    zero = torch.zeros_like(like)
    x0 = draw(problem, zero, CovarianceFactor(modes, std, gain), random, iterations=1000, rtol=1e-4)
    return x0 + from_noise(problem, prior, sigma, random)
