"""Few measurements of a mixture of 25 Gaussians in 8, 80 and 800 dimensions, whose posterior is known exactly.

Usage: python experiments/mixture25.py [--only TEXT] [--methods TEXT] [--seeds N] [--fresh]

The benchmark of Cardoso, Janati el Idrissi, Le Corff and Moulines (Monte Carlo guided denoising diffusion models for
Bayesian linear inverse problems, ICLR 2024): means (-8 i, -8 j), i, j = -2 .. 2, tiled over all coordinates; covariances
I; weights z^2 of normal z; m = 1, 2 or 4 random measurements, from which the modes are hard to tell. Rows of
results/mixture25.csv are written as they come, and a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from exact_figures import OneStream
from exact_problems import Known
from tables import Column, Table, pivot
from torch import Tensor

import inverse
from inverse.operators.base import SVD
from inverse.operators.matrix import Matrix
from inverse.priors import Denoiser
from inverse.priors.base import sigma_per_sample
from inverse.samplers import DDIM, DDRM, DDS, DPS, Bridge, DiffusionSampler, LearnedCovariance, MomentMatching, PiGDM
from inverse.samplers import Problem as Posed
from inverse.samplers import Sampler, SplitGibbs, Trace, geometric
from inverse.samplers.mcgdiff import MCGDiff
from inverse.samplers.tds import TDS
from inverse.samplers.twisted import Twisted

DOUBLE = torch.float64
DIMENSIONS, MEASUREMENTS, SEEDS = (8, 80, 800), (1, 2, 4), 20
SAMPLES, DIRECTIONS = {8: 1000, 80: 1000, 800: 250}, 1000
TRAINING = 4000  # draws of the prior on which the spectrum of its error is measured


class IsotropicMixture(Denoiser):
    """sum_k w_k N(mu_k, v I): denoiser and variance per pixel in closed form, a product with the means each.

    Args:
        weights: w_k (components,), positive.
        means: mu_k (components, *shape).
        variance: v.
    """

    def __init__(self, weights: Tensor, means: Tensor, variance: float = 1.0):
        self.weights, self.means, self.variance = weights / weights.sum(), means, variance
        self.shape, self.name = tuple(means.shape[1:]), "isotropic-mixture"
        self._flat = means.flatten(1)
        spread = self._flat - self.weights @ self._flat
        self.data_std = math.sqrt(float((self.weights[:, None] * spread**2).sum() / means[0].numel()) + variance)
        widest = torch.linalg.matrix_norm(self.weights.sqrt()[:, None] * spread, 2)
        self.sigma_min, self.sigma_max = 0.02, 4 * float(widest)  # above it the mixture looks like one Gaussian

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x], exact."""
        share, level, flat = self._responsibilities(x, sigma)
        return self._estimate(share @ self._flat, level, flat).reshape(x.shape)

    def moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and the exact variance per pixel."""
        share, level, flat = self._responsibilities(x, sigma)
        mean = share @ self._flat
        gain = level / (self.variance + level)
        variance = gain * self.variance + gain**2 * (share @ self._flat**2 - mean**2).clamp(min=0)
        return self._estimate(mean, level, flat).reshape(x.shape), variance.reshape(x.shape)

    def mse(self, sigma: float) -> float:
        """Mean squared error, by exact variances at draws of the prior, always the same ones."""
        x = self.sample(2000, torch.Generator().manual_seed(1))
        x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
        return float(self.moments(x, sigma)[1].mean())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (count, *shape)."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, *self.shape, generator=generator, dtype=self.means.dtype)
        return self.means[which] + math.sqrt(self.variance) * noise

    def nearest(self, x: Tensor) -> Tensor:
        """Index of the nearest mean of every image (count,)."""
        flat = x.flatten(1)
        return (flat @ self._flat.mT - (self._flat**2).sum(1) / 2).argmax(1)

    def _estimate(self, mean: Tensor, level: Tensor, flat: Tensor) -> Tensor:
        return (self.variance * flat + level * mean) / (self.variance + level)

    def _responsibilities(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.reshape(-1, self._flat.shape[1])
        level = sigma_per_sample(sigma, flat)[:, None] ** 2
        score = (flat @ self._flat.mT - (self._flat**2).sum(1) / 2) / (self.variance + level)
        return torch.softmax(self.weights.log() + score, 1), level, flat


class Measurements(Matrix):
    """A matrix that knows its singular value decomposition."""

    @property
    def svd(self) -> SVD:
        """By the dense decomposition."""
        u, s, vh = self._cached("svd", lambda: torch.linalg.svd(self.matrix, full_matrices=False))
        images, data = (lambda z: z.unflatten(-1, self.in_shape)), (lambda z: z)
        return SVD(
            U=lambda c: data(c @ u.mT),
            Uh=lambda y: y @ u,
            s=s,
            V=lambda c: images(c @ vh),
            Vh=lambda x: x.flatten(x.ndim - len(self.in_shape)) @ vh.mT,
        )


@dataclass(frozen=True, eq=False)
class Mixture:
    """One y, and the exact posterior: a mixture of Gaussians of one covariance.

    Attributes:
        operator: A (m, d), images of shape (2, d / 2).
        y: data (1, m).
        sigma_y: their noise level.
        prior: the prior with its exact variance per pixel and mean squared error.
        weights: posterior probability of each component (25,).
        log_evidence: log p(y).
    """

    operator: Measurements
    y: Tensor
    sigma_y: float
    prior: IsotropicMixture
    weights: Tensor
    log_evidence: float

    @classmethod
    def build(cls, operator: Measurements, y: Tensor, sigma_y: float, prior: IsotropicMixture) -> Mixture:
        """With the posterior by Bayes' rule."""
        matrix = operator.matrix
        inner = matrix @ matrix.mT + sigma_y**2 * torch.eye(len(matrix), dtype=DOUBLE)
        misfit = y - operator(prior.means)
        scores = prior.weights.log() - (misfit * torch.linalg.solve(inner, misfit.mT).mT).sum(1) / 2
        constant = torch.linalg.slogdet(2 * math.pi * inner)[1] / 2
        evidence = float(torch.logsumexp(scores, 0) - constant)
        return cls(operator, y, sigma_y, prior, torch.softmax(scores, 0), evidence)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (count, 2, d / 2): of a component, and of its Gaussian given y by one perturbed solve."""
        matrix = self.operator.matrix
        inner = matrix @ matrix.mT + self.sigma_y**2 * torch.eye(len(matrix), dtype=DOUBLE)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        x = self.prior.means[which] + torch.randn(count, *self.prior.shape, generator=generator, dtype=DOUBLE)
        noise = self.sigma_y * torch.randn(count, len(matrix), generator=generator, dtype=DOUBLE)
        misfit = self.y - self.operator(x) - noise
        return x + self.operator.H(torch.linalg.solve(inner, misfit.mT).mT)

    @property
    def plain(self) -> Denoiser:
        """The exact denoiser with its mean squared error and variance per pixel, without spectrum."""
        return self.prior

    @cached_property
    def learned(self) -> dict[str, Denoiser]:
        """The prior as a calibrated one: modes and their power measured on its draws."""
        return {"calibrated": calibrated(self.prior)}


def calibrated(prior: IsotropicMixture) -> Denoiser:
    """The prior with the spectrum of its error, measured on draws, beside its variance per pixel."""
    draws = [prior.sample(TRAINING, torch.Generator().manual_seed(1))]
    known = Known(prior, inverse.calibrate(prior, draws, basis=True, show=False), moments=True)
    known.sigma_min, known.sigma_max = prior.sigma_min, prior.sigma_max
    return known


@lru_cache(maxsize=4)
def problem(dimensions: int, measurements: int, seed: int = 0) -> Mixture:
    """The problem of one seed: weights, matrix, its singular values, truth, noise level and data, in this order."""
    random = np.random.default_rng(seed)
    weights = random.standard_normal(25) ** 2
    weights /= weights.sum()
    grid = [(-8.0 * i, -8.0 * j) for i in range(-2, 3) for j in range(-2, 3)]
    means = np.tile(np.array(grid), dimensions // 2)
    u, _, vt = np.linalg.svd(random.standard_normal((measurements, dimensions)), full_matrices=False)
    s = np.sort(random.random(measurements))[::-1]
    matrix = u @ np.diag(s) @ vt
    x = means[random.choice(25, p=weights)] + random.standard_normal(dimensions)
    sigma_y = float(random.random() * s[0])
    y = matrix @ x + sigma_y * random.standard_normal(measurements)
    prior = IsotropicMixture(torch.from_numpy(weights), images(torch.from_numpy(means)))
    operator = Measurements(images(torch.from_numpy(matrix)).flatten(1), in_shape=prior.shape)
    return Mixture.build(operator, torch.from_numpy(y)[None], sigma_y, prior)


def images(vectors: Tensor) -> Tensor:
    """Vectors (count, d) as images (count, 2, d / 2), one row for each of the two repeated coordinates."""
    return vectors.unflatten(1, (-1, 2)).mT.contiguous()


def problems(seed: int = 0) -> dict[str, Callable[[], Mixture]]:
    """All dimensions and numbers of measurements, {name: make}."""
    return {
        f"mixture of 25, d {d}, m {m}": lambda d=d, m=m: problem(d, m, seed) for d in DIMENSIONS for m in MEASUREMENTS
    }


def figures(samples: Tensor, problem: Mixture) -> dict[str, tuple[float, str]]:
    """Distance of samples (count, 2, d / 2) from the exact posterior.

    SW: sliced Wasserstein-2 distance to as many exact draws.
    weights: total variation between the shares of the samples nearest to each mean and the exact ones.
    """
    exact = problem.sample(len(samples), torch.Generator().manual_seed(4))
    shares = torch.bincount(problem.prior.nearest(samples), minlength=25) / len(samples)
    return {
        "SW": (sliced_wasserstein(samples, exact), ""),
        "weights": (float((shares - problem.weights).abs().sum() / 2), ""),
    }


def sliced_wasserstein(a: Tensor, b: Tensor) -> float:
    """Root of the mean over random unit directions of the squared W2 between projections, of as many samples each."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(a[0].numel(), DIRECTIONS, generator=generator, dtype=a.dtype)
    directions = directions / torch.linalg.vector_norm(directions, dim=0)
    along = [(x.flatten(1) @ directions).sort(0).values for x in (a, b)]
    return float((along[0] - along[1]).square().mean().sqrt())


def grid(prior: IsotropicMixture, levels: int) -> tuple[float, ...]:
    """Geometric from where all modes are one to a tenth of the width of one, then 0; the same for all samplers."""
    return tuple(geometric(levels, prior.sigma_max, 0.1).tolist())
