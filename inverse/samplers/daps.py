"""DAPS: decoupled annealing. Every level draws x0 anew, and the next level adds its noise to it afresh.

    x0_hat = end of the probability-flow ODE from x at level sigma
    x0 ~ N(x0; x0_hat, sigma^2 I) N(y; A(x0), sigma_y^2 I)
    x' = x0 + sigma' n

(Zhang, Chu, Berner, Meng, Anandkumar and Song, Improving diffusion inverse problem solving with decoupled noise
annealing, CVPR 2025, algorithm 1; constants of their public code.) The spread sigma^2 I around the end of an ODE stands
for the covariance of x0 given x, which is narrower and has structure: the limit of many levels is not the posterior.
For linear A the draw of x0 is exact here, by one perturbed solve; the published one is 100 Langevin steps, too few and
too short to reach their limit.

Certificate (experiments/exactness.py), 1000 evaluations: Gaussian inpainting: mean off by 0.43 posterior standard
deviations, variance 6 times too large where nothing was seen, W2 20 x floor, coverage .95; all constants published:
0.45, 5.1 x, coverage .58. Bimodal on a line: W1 0.13; published 0.90, all at y; prior draws 0.34.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.operators.base import Operator
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.unconditional import Unconditional
from inverse.samplers.covariance import Isotropic, draw
from inverse.samplers.grids import karras
from inverse.samplers.integrators.ddim import DDIM
from inverse.samplers.langevin import Langevin
from inverse.samplers.prior_step import reverse
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace
from inverse.samplers.start import from_noise


@dataclass(frozen=True)
class DAPS(Sampler):
    """DAPS; the defaults are the published annealing with draws from the true likelihood.

    Args:
        anneal: number of noise levels, on a Karras grid.
        ode_steps: Euler steps of the ODE at each; 1 takes x0_hat near D(x, sigma).
        largest: first level, in units of the image, at most the largest that the prior knows.
        smallest: last level.
        ode_smallest: where the ODE ends.
        exact: draw x0 exactly where A is linear; False takes Langevin steps there too, as published.
        langevin: the draw of x0 for nonlinear operators; its step size falls linearly to 1 % over the levels.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.

    Raises:
        InputError: fewer than one level or step, or levels out of order.
    """

    anneal: int = 200
    ode_steps: int = 5
    largest: float = 100.0
    smallest: float = 0.1
    ode_smallest: float = 0.01
    exact: bool = True
    langevin: Langevin = field(default_factory=Langevin)
    iterations: int = 100
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("ode_smallest", self.ode_smallest)
        karras(self.anneal, self.largest, self.smallest)
        if self.ode_steps < 1 or self.ode_smallest > self.smallest:
            raise InputError(
                f"DAPS: expected ode_steps of at least 1 and ode_smallest at or below smallest, got {self.ode_steps}, "
                f"{self.ode_smallest} and {self.smallest}."
            )

    def with_steps(self, steps: int) -> DAPS:
        """At most so many evaluations, at fewer levels."""
        anneal = max(1, steps // self.ode_steps)
        return replace(self, anneal=anneal, ode_steps=steps // anneal)

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.anneal * self.ode_steps

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The annealed levels and 0."""
        return tuple(karras(self.anneal, min(self.largest, prior.sigma_max), self.smallest).tolist())

    def check(self, operator: Operator, prior: Denoiser) -> None:
        """Takes every operator that has a gradient."""

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item of the problem."""
        levels = self.levels(prior)
        x = from_noise(problem, prior, levels[0], random)
        for k, (sigma, sigma_next) in enumerate(pairwise(levels)):
            ode = karras(self.ode_steps + 1, sigma, min(self.ode_smallest, 0.5 * sigma)).tolist()[:-1]
            mean = reverse(problem, prior, x, ode, Unconditional(), DDIM(eta=0.0), random, trace)
            if self.exact and problem.operator.linear:
                x0 = draw(problem, mean, Isotropic(sigma), random, iterations=self.iterations, rtol=self.rtol)
            else:
                slowdown = 1 - 0.99 * k / self.anneal
                x0 = self.langevin.draw(problem, mean, sigma, random, slowdown=slowdown)
            x = x0 + sigma_next * random.normal(x0.shape[1:], dtype=x0.dtype) if sigma_next > 0 else x0
        return x


def published(rate: float = 1e-4) -> DAPS:
    """DAPS with the constants of its authors.

    Their gradient is that of ||A(x) - y||^2 / 0.01^2 without the factor 1/2, whatever the noise: that of a noise level
    of 0.01 / sqrt(2), 0.00707.

    Args:
        rate: their Langevin step size: 1e-4 for super-resolution and deblurring, 5e-5 for inpainting and phase
            retrieval, 2e-5 for high dynamic range.
    """
    return DAPS(exact=False, langevin=Langevin(100, rate, noise=0.01 / 2**0.5))
