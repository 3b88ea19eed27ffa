"""A Gaussian prior, a dense operator and data for tests of conditionings, and the conditionings to run them over."""

import math

import torch
from sampler_cases import randn
from torch import Tensor

from inverse.operators.matrix import Matrix
from inverse.priors import GaussianPrior
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import DDS, Problem
from inverse.samplers.conditionings import DDNM, DPS, TMPD, Conditioning, DiffPIR, MomentMatching, PiGDM

PIXELS, DATA, SIGMA, NEXT = 12, 7, 0.8, 0.5
ALL = [DPS(), DPS(form="squared"), DPS(form="likelihood"), PiGDM(), DiffPIR(), DDNM(), TMPD(), MomentMatching(), DDS()]


class Case:
    """A Gaussian prior, a dense A, two images with data; everything as matrices besides."""

    def __init__(self, dtype: torch.dtype, sigma_y: float = 0.3, items: int = 2):
        root = randn(PIXELS, PIXELS, dtype=dtype, seed=1) / math.sqrt(PIXELS)
        self.covariance = root @ root.mH + 0.05 * torch.eye(PIXELS, dtype=dtype)
        self.mean = randn(3, 4, dtype=dtype, seed=2)
        self.prior = GaussianPrior(self.mean, self.covariance)
        self.matrix = randn(DATA, PIXELS, dtype=dtype, seed=3)
        self.operator = Matrix(self.matrix, (3, 4))
        self.sigma_y = sigma_y
        self.y = randn(2, DATA, dtype=dtype, seed=4)[:items]
        self.x = randn(2, 3, 4, dtype=dtype, seed=5)[:items]

    @property
    def problem(self) -> Problem:
        return Problem.build(self.operator, self.y, self.sigma_y)

    @property
    def jacobian(self) -> Tensor:
        """J = C (C + sigma^2)^-1, Hermitian."""
        level = self.covariance + SIGMA**2 * torch.eye(PIXELS, dtype=self.mean.dtype)
        return torch.linalg.solve(level, self.covariance, left=False)

    @property
    def denoised(self) -> Tensor:
        return self.prior.denoise(self.x, SIGMA).flatten(1)

    @property
    def misfit(self) -> Tensor:
        """y - A D, one row per item."""
        return self.y - self.denoised @ self.matrix.mT

    def run(self, conditioning: Conditioning) -> Tensor:
        return estimate(conditioning, self.problem, self.prior, self.x).flatten(1)


def estimate(conditioning: Conditioning, problem: Problem, prior: Denoiser, x: Tensor, **choices) -> Tensor:
    random = SampleRandom(0, range(len(x)))
    return conditioning.estimate(problem, prior, x, SIGMA, random, **({"sigma_next": NEXT} | choices)).x0
