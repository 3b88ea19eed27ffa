"""Particles: weighted copies of one sample, and what every sequential Monte Carlo method does with them.

Every sample of a batch is a system of P particles with its own stream of random numbers: nothing passes between
systems. In tensors the particles of a system stand next to each other: (systems * P, *shape). Weights are kept as
logarithms in double precision, since their ratios span many orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.random import SampleRandom
from inverse.samplers.grids import check_grid
from inverse.samplers.problem import Problem, Work


class ParticleRandom(SampleRandom):
    """Noise for P particles of every sample, each sample's from its own stream.

    Args:
        random: the streams, one per system.
        count: P.
    """

    def __init__(self, random: SampleRandom, count: int):
        self._random, self.count = random, count

    def __len__(self) -> int:
        return len(self._random) * self.count

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal noise (systems * P, *shape)."""
        return self._random.normal((self.count, *shape), dtype=dtype).flatten(0, 1)

    def uniform(self) -> Tensor:
        """One number in (0, 1) for every system (systems,), double precision."""
        return torch.special.ndtr(self._random.normal((), dtype=torch.float64))


class Particles:
    """Weights of a batch of particle systems.

    Args:
        random: one stream per system.
        count: P, particles in a system.

    Attributes:
        random: noise for all particles.
        log_weights: (systems, P), up to a constant per system.
        log_evidence: (systems,), logarithm of the mean weight so far: what the increments estimate the integral of.
    """

    def __init__(self, random: SampleRandom, count: int):
        self.count, self.random = count, ParticleRandom(random, count)
        self.log_weights = torch.zeros((len(random), count), dtype=torch.float64, device=random.device)
        self.log_evidence = torch.zeros(len(random), dtype=torch.float64, device=random.device)

    def spread(self, problem: Problem) -> Problem:
        """The problem with every row P times over, and counters of its own; see `charge`."""

        def repeated(x: Tensor) -> Tensor:
            return x.repeat_interleave(self.count, 0)

        y, adjoint, energy = (repeated(x) for x in (problem.y, problem.adjoint_y, problem.energy))
        return replace(problem, y=y, adjoint_y=adjoint, energy=energy, work=Work())

    def charge(self, problem: Problem, spent: Work) -> None:
        """Book the work of P particles on each sample of a problem."""
        work = problem.work
        work.nfe += self.count * spent.nfe
        work.nfe_backward += self.count * spent.nfe_backward
        work.grams += self.count * spent.grams
        work.cg_iterations = work.cg_iterations + self.count * spent.cg_iterations

    def reweight(self, increments: Tensor) -> Tensor:
        """Multiply the weights by exp(increments), given as (systems * P,); returns the effective sample size."""
        before = torch.logsumexp(self.log_weights, 1)
        self.log_weights = self.log_weights + increments.double().reshape(self.log_weights.shape)
        self.log_evidence = self.log_evidence + torch.logsumexp(self.log_weights, 1) - before
        return effective_size(self.log_weights)

    def resample(self, threshold: float) -> Tensor:
        """Rows to go on with (systems * P,): new ones, of equal weight, where the effective size is below a share of P.

        Args:
            threshold: that share; 0 never resamples, above 1 always.
        """
        poor = effective_size(self.log_weights) < threshold * self.count
        index = systematic(self.log_weights, self.random.uniform())
        own = torch.arange(self.count, device=index.device).expand_as(index)
        self.log_weights = torch.where(poor[:, None], 0.0, self.log_weights)
        return self._rows(torch.where(poor[:, None], index, own))

    def choose(self) -> Tensor:
        """One row of every system (systems,), drawn by weight."""
        cumulated = torch.softmax(self.log_weights, 1).cumsum(1)
        chosen = torch.searchsorted(cumulated, self.random.uniform()[:, None])
        return self._rows(chosen.clamp(max=self.count - 1))

    def _rows(self, index: Tensor) -> Tensor:
        start = self.count * torch.arange(len(index), device=index.device)
        return (start[:, None] + index).flatten()


def systematic(log_weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices of P particles drawn by weight, from one random number: particle p is taken floor or ceil of P w_p times.

    Args:
        log_weights: (systems, P), up to a constant per system.
        uniform: numbers in (0, 1), one per system (systems,).

    Returns:
        Indices in rising order (systems, P).

    Source: Kitagawa 1996; Douc, Cappe and Moulines, Comparison of resampling schemes, 2005, section 3.2.
    """
    count = log_weights.shape[1]
    cumulated = torch.softmax(log_weights, 1).cumsum(1)
    points = (uniform[:, None] + torch.arange(count, device=uniform.device)) / count
    return torch.searchsorted(cumulated, points).clamp(max=count - 1)


def effective_size(log_weights: Tensor) -> Tensor:
    """1 / sum of w^2 of the normalised weights (systems,): P when all are equal, 1 when one has all.

    Source: Kong, Liu and Wong 1994.
    """
    log_weights = torch.log_softmax(log_weights, 1)
    return torch.exp(-torch.logsumexp(2 * log_weights, 1))


def squares(x: Tensor) -> Tensor:
    """|x|^2 per row (rows,), double precision."""
    wide = x.to(torch.complex128 if x.is_complex() else torch.float64)
    return torch.linalg.vector_norm(wide.flatten(1), dim=1) ** 2


def checked_particles(
    steps: int, particles: int, threshold: float, grid: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    """The grid as plain numbers.

    Raises:
        InputError: numbers out of range, or a grid that does not end at 0.
    """
    if steps < 1 or particles < 1:
        raise InputError(f"steps and particles: expected at least 1, got {steps} and {particles}.")
    if not threshold >= 0:
        raise InputError(f"threshold: expected a share of the particles of at least 0, got {threshold}.")
    if grid is None:
        return None
    levels = torch.as_tensor(grid, dtype=torch.float64)
    check_grid(levels)
    if float(levels[-1]) > 0:
        raise InputError(f"grid: particles are weighted by the data at level 0, but the last is {grid[-1]:g}; add 0.")
    return tuple(levels.tolist())


def number_of_levels(steps: int, particles: int, grid: tuple[float, ...] | None) -> int:
    """Levels at which the network is evaluated: those of the grid, or as many as `steps` evaluations allow."""
    return max(1, steps // particles) if grid is None else len(grid) - 1


def report_particles(kept: dict[str, Tensor]) -> dict[str, Any]:
    """Effective number of particles at every level, and the evidence where it is known."""
    facts: dict[str, Any] = {}
    if "effective" in kept:
        facts["effective_particles"] = [round(n, 2) for n in kept["effective"].mean((0, 1)).tolist()]
    if "log_evidence" in kept:
        evidence = torch.logsumexp(kept["log_evidence"], 0) - math.log(len(kept["log_evidence"]))
        facts["log_evidence"] = [round(value, 3) for value in evidence.tolist()]
    return facts
