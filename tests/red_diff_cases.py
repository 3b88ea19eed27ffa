"""What the tests of RED-diff share."""

import math
from dataclasses import replace

import torch
from sampler_cases import observe, stationary
from torch import Tensor

from inverse.operators import Mask
from inverse.priors import Denoiser
from inverse.samplers import Problem
from inverse.samplers.red_diff import RedDiff, published

SIGMA = 0.7
PUBLISHED = published(30)


def value(x: float) -> Tensor:
    return torch.tensor([[x]], dtype=torch.float64)


def end(sampler: RedDiff, problem: Problem, prior: Denoiser, **options) -> Tensor:
    """The first sample of every item."""
    return sampler.run(problem, prior, samples=1, seed=0, **options).samples[0]


def begin(sampler: RedDiff, problem: Problem, prior: Denoiser) -> Tensor:
    """The image before the first step."""
    still = end(replace(sampler, grid=(SIGMA, 0.0), rate=1e-300), problem, prior)
    return torch.where(still.abs() < 1e-200, 0.0, still)


def inpainting(items: int = 2, *, sigma_y: float = 0.1, shape: tuple[int, int] = (8, 6)) -> tuple[Problem, Denoiser]:
    """Two of three pixels of smooth real images."""
    prior = stationary(shape, torch.float64)
    operator = Mask(torch.arange(math.prod(shape)).reshape(shape) % 3 > 0, dtype=torch.float64)
    x0 = prior.sample(items, torch.Generator().manual_seed(4))
    return Problem.build(operator, observe(operator, x0, max(sigma_y, 0.1)), sigma_y), prior
