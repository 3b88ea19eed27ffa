"""The predictor-corrector sampler of Score-MRI, as the slow baseline of experiments/restoration.py.

    predictor   x <- x + (s_i^2 - s_(i-1)^2) score + sqrt(s_i^2 - s_(i-1)^2) n
    corrector   x <- x + e score + sqrt(2 e) n,   e = 2 (r |n| / |score|)^2
    data        x <- x - A^H (A x - y), after each of the two

(Song et al., Score-based generative modeling through stochastic differential equations, 2021, algorithm 2; Chung and
Ye, Score-based diffusion models for accelerated MRI, 2022, algorithm 2: 2000 levels, geometric, r = 0.16.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from inverse.linalg import norm
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import Problem, Sampler, Trace, geometric


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Ancestral steps over geometric levels with one Langevin step and two data steps each.

    Args:
        steps: number of levels; two network evaluations each.
        snr: r, the size of the Langevin step.
    """

    steps: int = 2000
    snr: float = 0.16

    def evaluations(self) -> int:
        """Two a level."""
        return 2 * self.steps

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """Geometric from the largest to the smallest level of the prior."""
        return tuple(geometric(self.steps, prior.sigma_max, max(prior.sigma_min, 0.01)).tolist())

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item; the mean of the last predictor step is returned."""
        levels = self.levels(prior)
        shape, dtype = problem.adjoint_y.shape[1:], problem.adjoint_y.dtype
        x = levels[0] * random.normal(shape, dtype=dtype)
        step = 1 / problem.operator.norm() ** 2 if problem.operator.linear else 1.0
        for sigma, sigma_next in pairwise(levels):
            for corrector in (False, True):
                level = sigma_next if corrector and sigma_next > 0 else sigma
                denoised = problem.denoise(prior, x, level)
                trace.evaluation(level, denoised, denoised)
                score, noise = (denoised - x) / level**2, random.normal(shape, dtype=dtype)
                if corrector:
                    size = 2 * (self.snr * norm(noise) / norm(score)) ** 2
                    size = size.reshape(-1, *(1,) * len(shape)).to(x.real.dtype)
                    x = x + size * score + (2 * size).sqrt() * noise
                else:
                    mean = x + (sigma**2 - sigma_next**2) * score
                    x = mean + (sigma**2 - sigma_next**2) ** 0.5 * noise if sigma_next > 0 else mean
                x = x - step * problem.gradient(x)
                if sigma_next == 0:
                    return x
        raise AssertionError("the grid ends at 0")
