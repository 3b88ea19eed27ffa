"""TDS, the twisted diffusion sampler: particles steered by a gradient through the network and weighted by the data.

    twist    psi(x, sigma) = N(y; A D, r^2 A A^H + sigma_y^2 I),   r^2 = mse(sigma)
    propose  x' ~ N(q x + (1 - q) D~, v I),   D~ = D + sigma^2 grad log psi,   q = sigma'^2 / sigma^2
    weight   psi(x', sigma') / psi(x, sigma) N(x'; q x + (1 - q) D, v I) / N(x'; q x + (1 - q) D~, v I)
    last     x0 in the place of x', p(y | x0) in that of psi(x', sigma')

(Wu, Trippe, Naesseth, Blei and Cunningham, Practical and asymptotically exact conditional sampling in diffusion models,
NeurIPS 2023, algorithm 1 and equations 8 to 11.) v = sigma'^2 (1 - q) is the ancestral kernel, as published, whose last
step has no noise; "corrected" adds (1 - q)^2 r^2, the spread of x0 that ancestral steps leave out, so that fewer levels
do. The particles are exact in the limit for the chain of these kernels, whatever the twist. One forward and one
backward pass per particle and level; `Twisted` needs no backward pass and fewer levels.

Certificate (experiments/exactness.py), 100 levels of 8 particles: Gaussian inpainting, W2 2.1 x floor, coverage .87;
two modes on the line, W1 .016 (prior draws .33).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.belief import SharedBelief
from inverse.samplers.covariance import Isotropic
from inverse.samplers.diffusion import default_grid
from inverse.samplers.jacobian import Linearised
from inverse.samplers.particles import Particles, checked_particles, number_of_levels, report_particles, squares
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace
from inverse.samplers.start import from_noise

KERNELS = ("ancestral", "corrected")


@dataclass(frozen=True)
class TDS(Sampler):
    """Twisted diffusion sampler; every sample is one of `particles`, drawn by weight.

    `Solution.info` receives `effective_particles`, their effective number at every level, mean over the samples.

    Args:
        steps: network evaluations, where no grid is given; every level takes one for each particle.
        particles: P, particles of every sample.
        kernel: "ancestral" as published, or "corrected".
        threshold: resample where fewer than this share of the particles are effective; above 1 at every level.
        grid: decreasing noise levels that end at 0; None takes `default_grid`.
        tolerance: of the solves, see `SharedBelief`.
        iterations: cap on the iterations of conjugate gradients.
        antithetic: opposite noise in pairs of samples, see `Sampler`.

    Raises:
        InputError: numbers out of range, an unknown kernel, or a grid that does not end at 0; in a run, data without
            noise.
    """

    steps: int = 800
    particles: int = 8
    kernel: str = "ancestral"
    threshold: float = 0.5
    grid: tuple[float, ...] | None = None
    tolerance: float = 1e-2
    iterations: int = 200

    def __post_init__(self) -> None:
        check_positive("tolerance", self.tolerance)
        if self.iterations < 1:
            raise InputError(f"iterations: expected at least 1, got {self.iterations}.")
        if self.kernel not in KERNELS:
            raise InputError(f"kernel: expected one of {', '.join(KERNELS)}, got {self.kernel!r}.")
        object.__setattr__(self, "grid", checked_particles(self.steps, self.particles, self.threshold, self.grid))

    def with_steps(self, steps: int) -> TDS:
        """The same sampler on its default grid with at most so many evaluations, with fewer particles if need be."""
        return replace(self, steps=steps, particles=min(self.particles, steps), grid=None)

    def evaluations(self) -> int:
        """Network evaluations per sample, each with a backward pass."""
        return self.particles * number_of_levels(self.steps, self.particles, self.grid)

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The grid, or the default one for this prior."""
        count = number_of_levels(self.steps, self.particles, self.grid)
        return self.grid or tuple(default_grid(prior, count).tolist())

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item of the problem."""
        if problem.sigma_y == 0:
            raise InputError(
                "noise: weights of particles need data with noise, got 0; use 'mcgdiff' or 'learned-covariance'."
            )
        cloud = Particles(random, self.particles)
        many, levels = cloud.spread(problem), self.levels(prior)
        x = from_noise(many, prior, levels[0], cloud.random)
        foreseen: Tensor | float = 0.0
        effective = []
        for sigma, sigma_next in pairwise(levels):
            twist, denoised, twisted = self._twisted(many, prior, x, sigma)
            trace.evaluation(sigma, twisted, denoised, count=self.particles)
            effective.append(cloud.reweight(twist - foreseen))
            rows = cloud.resample(self.threshold)
            x, denoised, twisted, foreseen = (t[rows] for t in (x, denoised, twisted, twist))
            x, increments = self._step(x, denoised, twisted, sigma, sigma_next, prior.mse(sigma), cloud)
            cloud.reweight(increments)
        many.work.grams += 0.5
        effective.append(cloud.reweight(-squares(many.misfit(x)) / (2 * problem.sigma_y**2) - foreseen))
        cloud.charge(problem, many.work)
        trace.keep("effective", torch.stack(effective, 1))
        return x[cloud.choose()]

    def _twisted(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """log psi up to a constant of the level, D and D~; one network evaluation, forward and backward."""
        point = Linearised(problem, prior, x, sigma)
        variance = prior.mse(sigma)
        belief = SharedBelief(problem, point.denoised, Isotropic(variance**0.5), self.tolerance, self.iterations)
        twist, shift = belief.fit()
        return twist, point.denoised, point.denoised + point.transposed(shift, last=True) * (sigma**2 / variance)

    def _step(
        self,
        x: Tensor,
        denoised: Tensor,
        twisted: Tensor,
        sigma: float,
        sigma_next: float,
        variance: float,
        cloud: Particles,
    ) -> tuple[Tensor, Tensor]:
        """x at sigma_next, and the logarithm of kernel over proposal."""
        q = (sigma_next / sigma) ** 2
        spread = sigma_next**2 * (1 - q) + ((1 - q) ** 2 * variance if self.kernel == "corrected" else 0.0)
        if spread == 0:
            return denoised, torch.zeros(len(x), dtype=torch.float64, device=x.device)
        kernel, proposal = (q * x + (1 - q) * mean for mean in (denoised, twisted))
        noise = cloud.random.normal(x.shape[1:], dtype=x.dtype)
        x = proposal + spread**0.5 * noise
        return x, (squares(noise) - squares(x - kernel) / spread) / 2

    def report(self, kept: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Effective number of particles at every level."""
        return report_particles(kept), {}
