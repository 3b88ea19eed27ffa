"""Twisted sequential Monte Carlo without a gradient: particles that steer by what the prior states of its own error.

Every particle takes the steps of the learned covariance (integrator `Bridge`), and is weighted by how much better the
network foresees the data than the step had foreseen. With x0 ~ N(D, C), C = L L^H, given x at level sigma,

    twist    psi(x, sigma) = p(y | x) = N(y; A D, A C A^H + sigma_y^2 I)
    propose  x0 ~ p(x0 | x, y),   x' = q x + (1 - q) x0 + sigma' sqrt(1 - q) n,   q = sigma'^2 / sigma^2
    weight   psi(x', sigma') / p(y | x', x)
    return   x0 ~ p(x0 | x, y) of one particle, drawn by weight

The weight is that of a twisted chain (Whiteley and Lee 2014; Wu, Trippe, Naesseth, Blei and Cunningham, Practical and
asymptotically exact conditional sampling in diffusion models, NeurIPS 2023) with the kernel N(q x + (1 - q) D,
sigma'^2 (1 - q) I + (1 - q)^2 C): kernel over proposal is p(y | x) / p(y | x', x) by Bayes' rule, and p(y | x) cancels.
Ours; exact as the particles grow for the chain of these kernels, and for Gaussian images whose covariance is stated all
weights are equal, so that one particle is enough. No gradient through the network. The start is one more such step,
from sigma = infinity, where D = 0 and C is that of the images.

On images of few pixels (`dense`) C is each particle's own. On larger ones its variance is averaged over the particles
of a system, so that the determinants in the weights are equal and need not be known.

Certificate (experiments/exactness.py), 20 levels of 8 particles: Gaussian inpainting, W2 1.06 x floor, coverage .89
with the covariance known, 4.5 x and .95 with the variance per pixel alone; two modes on the line, W1 .030 and .055
(prior draws .33).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.belief import Belief, OwnBelief, SharedBelief, averaged, dense_gram
from inverse.samplers.conditionings.gaussian import GaussianConditioning
from inverse.samplers.conditionings.learned_covariance import LearnedCovariance
from inverse.samplers.covariance import images_factor
from inverse.samplers.diffusion import LARGEST, default_grid
from inverse.samplers.particles import Particles, checked_particles, number_of_levels, report_particles
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace


@dataclass(frozen=True)
class Twisted(Sampler):
    """Twisted sequential Monte Carlo; every sample is one of `particles`, drawn by weight.

    `Solution.info` receives `effective_particles`, their effective number at every level, mean over the samples: near
    `particles`, the proposals are as good as the posterior of the chain; near 1, one particle had all the weight. With
    dense matrices also `log_evidence`, an estimate of log p(y) per item.

    Args:
        steps: network evaluations, where no grid is given; every level takes one for each particle.
        particles: P, particles of every sample.
        conditioning: the rule for D and C. `DDS()` takes C = mse I; its innovation plays no part.
        threshold: resample where fewer than this share of the particles are effective.
        grid: decreasing noise levels that end at 0; None takes `default_grid`.
        largest: first level of the default grid, in data standard deviations, for priors that state a spectrum. Others
            begin at 25.
        dense: most pixels for which every particle has a covariance of its own, by dense matrices; with 0 none has.
        tolerance: of the solves on larger images, see `SharedBelief`.
        iterations: cap on the iterations of those solves.
        antithetic: opposite noise in pairs of samples, see `Sampler`.

    Raises:
        InputError: numbers out of range, or a grid that does not end at 0; in a run, data without noise.
    """

    steps: int = 160
    particles: int = 8
    conditioning: GaussianConditioning = field(default_factory=LearnedCovariance)
    threshold: float = 0.5
    grid: tuple[float, ...] | None = None
    largest: float = 5.0
    dense: int = 64
    tolerance: float = 1e-2
    iterations: int = 200

    def __post_init__(self) -> None:
        check_positive("largest", self.largest)
        check_positive("tolerance", self.tolerance)
        if self.iterations < 1:
            raise InputError(f"iterations: expected at least 1, got {self.iterations}.")
        object.__setattr__(self, "grid", checked_particles(self.steps, self.particles, self.threshold, self.grid))

    def with_steps(self, steps: int) -> Twisted:
        """The same sampler on its default grid with at most so many evaluations, with fewer particles if need be."""
        return replace(self, steps=steps, particles=min(self.particles, steps), grid=None)

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.particles * number_of_levels(self.steps, self.particles, self.grid)

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The grid, or the default one for this prior."""
        largest = self.largest if prior.calibration is not None else LARGEST
        count = number_of_levels(self.steps, self.particles, self.grid)
        return self.grid or tuple(default_grid(prior, count, largest).tolist())

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item of the problem."""
        if problem.sigma_y == 0:
            raise InputError(
                "noise: weights of particles need data with noise, got 0; use 'mcgdiff' or 'learned-covariance'."
            )
        cloud = Particles(random, self.particles)
        many, levels = cloud.spread(problem), self.levels(prior)
        believe = self._believer(problem, many)
        belief, effective = believe(torch.zeros_like(many.adjoint_y), images_factor(many, prior)), []
        if isinstance(belief, OwnBelief):
            cloud.reweight(belief.log_likelihood())  # equal for all: the evidence of the start
        x, foreseen = self._step(belief, None, torch.inf, levels[0], cloud)
        for sigma, sigma_next in pairwise(levels):
            denoised, factor = self.conditioning.gaussian(many, prior, x, sigma)
            trace.evaluation(sigma, denoised, denoised, count=self.particles)
            belief = believe(denoised, factor)
            effective.append(cloud.reweight(belief.log_likelihood() - foreseen))
            if sigma_next > 0:
                rows = cloud.resample(self.threshold)
                x, foreseen = self._step(belief.take(rows, many), x[rows], sigma, sigma_next, cloud)
        x0 = belief.take(cloud.choose(), problem).draw(random)
        cloud.charge(problem, many.work)
        trace.keep("effective", torch.stack(effective, 1))
        if isinstance(belief, OwnBelief):
            trace.keep("log_evidence", cloud.log_evidence)
        return x0

    def _believer(self, problem: Problem, many: Problem) -> Any:
        """What makes a belief of D and L."""
        if problem.adjoint_y.shape[1:].numel() <= self.dense:
            gram = dense_gram(problem)
            return lambda mean, factor: OwnBelief(many, mean, factor, gram)
        return lambda mean, factor: SharedBelief(
            many, mean, averaged(factor, self.particles), self.tolerance, self.iterations
        )

    @staticmethod
    def _step(
        belief: Belief, x: Tensor | None, sigma: float, sigma_next: float, cloud: Particles
    ) -> tuple[Tensor, Tensor]:
        """x at sigma_next, and log p(y | x at sigma_next, x)."""
        q = (sigma_next / sigma) ** 2
        noise = cloud.random.normal(belief.mean.shape[1:], dtype=belief.mean.dtype)
        clue = belief.draw(cloud.random) + sigma_next / (1 - q) ** 0.5 * noise
        foreseen = belief.log_likelihood(clue, (1 - q) / sigma_next**2)
        return (clue if x is None else q * x + (1 - q) * clue), foreseen

    def report(self, kept: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Effective number of particles at every level, and the evidence where it is known."""
        return report_particles(kept), {}
