"""Distances of samples from an exact posterior, and how a sampler is run to have them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from exact_line import Line, sides
from exact_problems import Problem
from torch import Tensor

from inverse.priors import Denoiser, GaussianPrior
from inverse.random import SampleRandom
from inverse.samplers import Problem as Posed
from inverse.samplers import Sampler, Trace

Figures = dict[str, tuple[float, str]]
SPANS = (0.05, 0.95)


class OneStream(SampleRandom):
    """All samples from one stream of random numbers: a hundred times faster than one stream for each.

    Which noise a sample receives then depends on the batch; its distribution does not.
    """

    def __init__(self, seed: int, count: int):
        self.seed, self.indices, self.device = seed, list(range(count)), torch.device("cpu")
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal noise, shape (samples, *shape)."""
        return torch.randn((len(self), *shape), generator=self._generator, dtype=dtype)


@torch.no_grad()
def measure(
    problem: Problem | Line, sampler: Sampler, prior: Denoiser, floor: float, *, samples: int, seed: int = 0
) -> Figures:
    """Run a sampler and compare its samples with the posterior.

    Args:
        problem: the problem.
        sampler: the sampler; every sample has noise of its own, also where the sampler would pair them.
        prior: the prior as the sampler gets it.
        floor: median distance of as many exact draws.
        samples: number of samples.
        seed: of the noise.

    Raises:
        InputError: the sampler cannot solve this problem.
    """
    sampler = replace(sampler, antithetic=False)
    sampler.check(problem.operator, prior)
    posed = Posed.build(problem.operator, problem.y, problem.sigma_y).take([0] * samples)
    trace = Trace(samples, _Quiet(), None)
    started = time.process_time()
    x = sampler.sample(posed, prior, OneStream(seed, samples), trace)
    seconds = time.process_time() - started
    work = posed.work
    return figures(x, problem, floor) | {
        "evaluations": (work.nfe, ""),
        "backward": (work.nfe_backward, ""),
        "CG iterations": (float(work.cg_iterations), ""),
        "seconds": (seconds, "s"),
        "samples": (samples, ""),
    }


class _Quiet:
    def advance(self, count: int = 1, note: str = "") -> None:
        """Report nothing."""


def figures(samples: Tensor, problem: Problem | Line, floor: float) -> Figures:
    """Distances of samples (count, *shape) from the exact posterior of a problem of either kind."""
    if isinstance(problem, Line):
        return line_figures(samples, problem, floor)
    return gaussian_figures(samples, problem, floor)


def gaussian_figures(samples: Tensor, problem: Problem, floor: float) -> Figures:
    """Distances of samples (count, H, W) from a Gaussian posterior.

    mean error: root mean square over the pixels of (mean of the samples - exact mean) / exact standard deviation.
    variance: of the samples over the exact one, mean over the seen or the hidden directions.
    W2: Wasserstein-2 distance between Gaussians of the mean and covariance of samples and posterior, over `floor`.
    coverage: posterior mass between the 5th and the 95th percentile of the samples, mean over the pixels.
    """
    flat, posterior, seen = samples.flatten(1), problem.posterior, problem.seen
    mean, std = posterior.mean.flatten(), posterior.covariance.diagonal().sqrt()
    exact = (problem.directions * (posterior.covariance @ problem.directions)).sum(0)
    ratio = (flat @ problem.directions).var(0) / exact
    low, high = torch.quantile(flat, torch.tensor(SPANS, dtype=flat.dtype), dim=0)
    mass = torch.special.ndtr((high - mean) / std) - torch.special.ndtr((low - mean) / std)
    found: Figures = {"mean error": (float((((flat.mean(0) - mean) / std) ** 2).mean().sqrt()), "sd")}
    found["variance seen"] = (float(ratio[seen].mean()), "")
    if not bool(seen.all()):
        found["variance hidden"] = (float(ratio[~seen].mean()), "")
    return found | {"W2": (wasserstein(samples, posterior) / floor, ""), "coverage": (float(mass.mean()), "")}


def wasserstein(samples: Tensor, posterior: GaussianPrior) -> float:
    """W2 of N(mean, covariance of the samples) and the posterior.

    W2^2 = |m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2).
    """
    flat = samples.flatten(1)
    root = (posterior.vectors * posterior.values.sqrt()) @ posterior.vectors.mT
    covariance = torch.cov(flat.mT)
    cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    shift = (flat.mean(0) - posterior.mean.flatten()).square().sum()
    return float((shift + covariance.trace() + posterior.values.sum() - 2 * cross).clamp(min=0).sqrt())


def line_figures(samples: Tensor, problem: Line, floor: float) -> Figures:
    """Distances of samples (count, 1, 1) from a posterior on the line.

    W1: Wasserstein-1 distance, the mean of |sorted samples - quantiles of the posterior|.
    coverage: posterior mass between the 5th and the 95th percentile of the samples.
    """
    x = samples.flatten().sort().values
    distance = transport(x, problem)
    low, high = torch.quantile(x, torch.tensor(SPANS, dtype=x.dtype))
    mass = problem.probability(high) - problem.probability(low)
    found = {name: (value, "") for name, value in sides(x, torch.full_like(x, 1 / len(x))).items()}
    return found | {"W1": (distance, ""), "W1 over floor": (distance / floor, ""), "coverage": (float(mass), "")}


def transport(x: Tensor, problem: Line) -> float:
    """W1 of sorted samples (count,) and the posterior."""
    middle = (torch.arange(len(x), dtype=x.dtype) + 0.5) / len(x)
    return float((x - problem.quantile(middle)).abs().mean())


def distances_of_exact_draws(problem: Problem | Line, samples: int, repeats: int) -> Tensor:
    """Distance of as many exact draws, `repeats` times: what no sampler can beat, and how much chance there is."""
    generator = torch.Generator().manual_seed(3)
    distances = []
    for _ in range(repeats):
        if isinstance(problem, Line):
            distances.append(transport(problem.sample(samples, generator).flatten().sort().values, problem))
        else:
            distances.append(wasserstein(problem.posterior.sample(samples, generator), problem.posterior))
    return torch.tensor(distances)
