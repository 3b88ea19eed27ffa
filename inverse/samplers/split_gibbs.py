"""Exact split Gibbs: data and prior take turns through a noisy copy z of the image, and leave the posterior unchanged.

    z = x + rho n,   y = A z + e,   Cov(e) = sigma_y^2 I - rho^2 A A^H,   rho <= sigma_y / |A|

    z | x, y ~ N(x + (rho^2 / sigma_y^2) A^H (y - A x),  rho^2 (I - (rho^2 / sigma_y^2) A^H A))
    x | z    ~ p(x0 | x0 + rho n = z)

Without z this is y = A x + sigma_y n again, for every such rho: the chain has the true posterior as its limit, where
the usual splitting (`PnPDM`) reaches it for rho to 0 only. The data step is one gradient plus noise, no solve; its
noise needs (I - (rho^2 / sigma_y^2) A^H A)^(1/2), a polynomial in A^H A, of degree 1 where A^H A is a multiple of a
projection and 5 or so elsewhere. The prior step is a reverse run of the diffusion from rho (`prior_step`), where all
remaining error lies.

The auxiliary variable is that of Marnissi, Chouzenoux, Benazza-Benyahia and Pesquet, An auxiliary variable method for
Markov chain Monte Carlo algorithms in high dimension, Entropy 20, 2018; with a diffusion prior, ours. Steps
in directions that A does not see have length rho, so that a chain needs about (posterior deviation / rho)^2 sweeps to
forget where it began: it starts from draws of the learned covariance, whose error it then takes away.

Certificate (experiments/exactness.py), 90 evaluations, covariance calibrated from samples: Gaussian inpainting, blur
and denoising, stationary or not: W2 0.96 to 1.04 x floor, coverage .90. Bimodal on a line: W1 0.019, with 8 evaluations
a sweep 0.009, with exact draws of x0 0.002; prior draws 0.34, the learned covariance alone, where it starts, 0.07.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.linalg.chebyshev import Chebyshev, single_eigenvalue
from inverse.linalg.inner import inner
from inverse.operators.base import Operator
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.chains import SHORTEST, effective_samples, rank_normalised, split_rhat
from inverse.samplers.conditionings.learned_covariance import LearnedCovariance
from inverse.samplers.diffusion import DiffusionSampler
from inverse.samplers.integrators.bridge import Bridge
from inverse.samplers.prior_step import PriorStep, ReverseRun
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace

PROJECTIONS = 4
"""Fixed random directions along which the chains are watched, beside the energy of the residual."""


def _corrected() -> DiffusionSampler:
    return DiffusionSampler(LearnedCovariance(), Bridge(draw_last=True), 10, largest=2.0)


@dataclass(frozen=True)
class SplitGibbs(Sampler):
    """Exact split Gibbs; every sample is the end of a chain of its own.

    `Solution.info` receives `rho`, and for every item the largest `split_rhat` and the smallest `effective_samples` of
    what is watched of its chains (1.01 and 100 are usual demands; both speak of these sweeps of these chains alone).

    Args:
        sweeps: turns of data and prior step; 0 leaves the start as it is.
        start: the sampler whose draws the chains begin with.
        prior_step: how x0 is drawn given z.
        average: share of the sweeps, the last ones, whose mean is returned: an image with less error than a sample. Its
            spread over the chains is not the posterior's. 0 returns the last state, a sample.
        share: rho in units of the largest allowed, sigma_y / |A|: 1 makes the longest steps, while a little less makes
            the polynomial much shorter.
        tolerance: largest error of the polynomial: relative to rho, of the noise.
        antithetic: opposite noise in pairs of samples, see `Sampler`; then `split_rhat` takes chains for independent
            that are not.

    Raises:
        InputError: numbers out of range; in a run, data without noise or below what the prior knows.
    """

    sweeps: int = 20
    start: Sampler = field(default_factory=_corrected)
    prior_step: PriorStep = field(default_factory=ReverseRun)
    average: float = 0.0
    share: float = 0.95
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("tolerance", self.tolerance)
        if self.sweeps < 0 or not 0 < self.share <= 1 or not 0 <= self.average <= 1:
            raise InputError(
                "SplitGibbs: expected sweeps of at least 0, a share in (0, 1] and an average in [0, 1], got "
                f"{self.sweeps}, {self.share} and {self.average}."
            )

    def with_steps(self, steps: int) -> SplitGibbs:
        """The same sampler with another number of evaluations: whole sweeps, and the start takes what is left."""
        each, begin = self.prior_step.evaluations(1.0), self.start.evaluations()
        sweeps = max(0, (steps - begin) // max(each, 1))
        return replace(self, sweeps=sweeps, start=self.start.with_steps(steps - sweeps * each))

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.start.evaluations() + self.sweeps * self.prior_step.evaluations(1.0)

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The levels of the start; those of the sweeps lie between rho and 0, and rho follows from the data."""
        return self.start.levels(prior)

    def check(self, operator: Operator, prior: Denoiser) -> None:
        """Refuse nonlinear operators, whose noise cannot be split in this way, and what the start refuses."""
        super().check(operator, prior)
        self.start.check(operator, prior)

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """The ends of the chains, one for every item of the problem."""
        rho = self.largest_rho(problem, prior)
        x = self.start.sample(problem, prior, random, trace)
        if self.sweeps == 0:
            return x
        step = DataStep(problem, rho, self.tolerance)
        directions = SampleRandom(0, range(PROJECTIONS), x.device).normal(x.shape[1:], dtype=x.dtype)
        kept = max(1, round(self.average * self.sweeps))
        gram, watched, total = problem.gram(x), [], torch.zeros_like(x)
        for sweep in range(self.sweeps):
            z = step.draw(x, gram, random)
            x = self.prior_step.draw(problem, prior, z, rho, random, trace)
            gram = problem.gram(x)
            along = [inner(x, direction.expand_as(x)) for direction in directions]
            watched.append(torch.stack([problem.residual_energy(x, gram), *(a.double() for a in along)], dim=-1))
            if sweep >= self.sweeps - kept:
                total += x
        trace.keep("watched", torch.stack(watched, dim=1))
        trace.keep("rho", torch.full((len(x),), rho, dtype=torch.float64))
        return total / kept

    def largest_rho(self, problem: Problem, prior: Denoiser) -> float:
        """share sigma_y / |A|, at most the largest level that the prior knows.

        Raises:
            InputError: data without noise, or rho below the prior's smallest level.
        """
        if problem.sigma_y == 0:
            raise InputError(
                "SplitGibbs: the data have no noise, so that no chain can move; use method 'learned-covariance'."
            )
        norm = problem.operator.norm()
        rho = prior.sigma_max if norm == 0 else min(prior.sigma_max, self.share * problem.sigma_y / norm)
        if rho < prior.sigma_min:
            raise InputError(
                f"SplitGibbs: moves of rho = {rho:.3g} are shorter than the smallest noise level of the prior, "
                f"{prior.sigma_min:.3g}; use method 'learned-covariance' for data with so little noise."
            )
        return rho

    def report(self, kept: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What the start reports, rho, and how far the chains of every item have mixed."""
        facts, maps = self.start.report(kept)
        if "rho" in kept:
            facts["rho"] = float(kept["rho"].flatten()[0])
        if self.sweeps >= SHORTEST and "watched" in kept:
            chains = kept["watched"].permute(0, 2, 1, 3)  # (chains, sweeps, items, quantities)
            facts["split_rhat"] = _rounded(split_rhat(rank_normalised(chains)).amax(-1), 3)
            facts["effective_samples"] = _rounded(effective_samples(chains).amin(-1), 1)
        return facts, maps


class DataStep:
    """z given x and y.

    Args:
        problem: data and operator.
        rho: standard deviation of z around x, at most sigma_y / |A|.
        tolerance: largest error of the root's polynomial.
    """

    def __init__(self, problem: Problem, rho: float, tolerance: float):
        self.problem, self.rho = problem, rho
        self.weight = (rho / problem.sigma_y) ** 2
        self.root = noise_root(problem, self.weight, tolerance)

    def draw(self, x: Tensor, gram: Tensor, random: SampleRandom) -> Tensor:
        """A draw of z given x; `gram` is A^H A x."""
        noise = random.normal(x.shape[1:], dtype=x.dtype)
        gradient = gram - self.problem.adjoint_y
        return x - self.weight * gradient + self.rho * self.root.of(self.problem.gram, noise)


def noise_root(problem: Problem, weight: float, tolerance: float) -> Chebyshev:
    """(1 - weight t)^(1/2) as a polynomial over the spectrum t of A^H A.

    Args:
        problem: the operator; asked for its action and its norm alone.
        weight: rho^2 / sigma_y^2.
        tolerance: largest error of the polynomial.
    """

    def root(t: Tensor) -> Tensor:
        return (1 - weight * t).clamp(min=0).sqrt()

    like = problem.adjoint_y
    only = single_eigenvalue(problem.gram, SampleRandom(0, [0], like.device).normal(like.shape[1:], dtype=like.dtype))
    if only is not None:
        ends = root(torch.tensor([0.0, only], dtype=torch.float64))
        return Chebyshev((float(ends.mean()), float(ends[1] - ends[0]) / 2), 0.0, only)
    high = problem.operator.norm() ** 2 * (1 + 2e-4)  # the norm comes from below, to a relative 1e-4
    if high == 0:
        return Chebyshev((1.0,), 0.0, 1.0)
    return Chebyshev.fit(root, 0.0, high, tolerance=tolerance)


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]
