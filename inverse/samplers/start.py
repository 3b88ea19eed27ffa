"""Where a run starts: x at the largest noise level, already carrying what the data say of the coarse image."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.covariance import draw, images_factor
from inverse.samplers.problem import Problem


def from_noise(problem: Problem, prior: Denoiser, sigma: float, random: SampleRandom) -> Tensor:
    """sigma n: right when sigma is far above every mode of the image, its mean included."""
    like = problem.adjoint_y
    return sigma * random.normal(like.shape[1:], dtype=like.dtype)


def from_data(problem: Problem, prior: Denoiser, sigma: float, random: SampleRandom) -> Tensor:
    """x0 + sigma n, x0 drawn from its posterior under a Gaussian of the prior's power spectrum; no network evaluation.

    The mean of an image stands far above white noise of 25 data standard deviations (by sqrt(pixels) / 25), so that a
    start from noise alone begins with the wrong coarse image. The solve is tight, since the run keeps what is left
    unsolved here.
    """
    zero = torch.zeros_like(problem.adjoint_y)
    x0 = draw(problem, zero, images_factor(problem, prior), random, iterations=1000, rtol=1e-4)
    return x0 + from_noise(problem, prior, sigma, random)
