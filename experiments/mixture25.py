"""Few measurements of a mixture of 25 Gaussians in 8, 80 and 800 dimensions, whose posterior is known exactly.

Usage: python experiments/mixture25.py [--only TEXT] [--methods TEXT] [--seeds N] [--fresh]

The benchmark of Cardoso, Janati el Idrissi, Le Corff and Moulines (Monte Carlo guided denoising diffusion models for
Bayesian linear inverse problems, ICLR 2024): means (-8 i, -8 j), i, j = -2 .. 2, tiled over all coordinates;
covariances I; weights z^2 of normal z; m = 1, 2 or 4 random measurements, from which the modes are hard to tell. Rows
of results/mixture25.csv are written as they come, and a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from exact_figures import OneStream
from exact_problems import Known
from tables import Column, Row, Table, pivot
from torch import Tensor

import inverse
from inverse.operators.base import SVD
from inverse.operators.matrix import Matrix
from inverse.priors import Denoiser
from inverse.priors.base import sigma_per_sample
from inverse.progress import Silent
from inverse.samplers import (
    DDIM,
    DDRM,
    DDS,
    DPS,
    Bridge,
    Conditioning,
    DiffusionSampler,
    Integrator,
    LearnedCovariance,
    MomentMatching,
    PiGDM,
    Sampler,
    Trace,
    geometric,
)
from inverse.samplers import Problem as Posed
from inverse.samplers.mcgdiff import MCGDiff
from inverse.samplers.tds import TDS
from inverse.samplers.twisted import Twisted

DOUBLE = torch.float64
DIMENSIONS, MEASUREMENTS, SEEDS = (8, 80, 800), (1, 2, 4), 20
SAMPLES, DIRECTIONS = {8: 500, 80: 500, 800: 100}, 1000
TRAINING = 1000  # draws of the prior on which the spectrum of its error is measured
COLUMNS = (
    Column("SW", "sliced W2", 2),
    Column("weights", "weights, total variation", 3),
    Column("effective", "effective particles", 1),
    Column("evaluations", "evaluations", 0),
    Column("backward", "backward", 0),
    Column("ms per sample", "ms per sample", 1),
)

TEXT = """m measurements, with noise, of a vector of d numbers from a mixture of 25 Gaussians whose modes are hard to
tell from so few; figures of the samples of one y against as many exact draws, medians over random problems.

- sliced W2: over random directions; that of `exact draws` is chance, and 1 is the width of a mode;
- weights: total variation between the shares of samples near each mode and their exact probabilities;
- particles x levels stand behind the names of particle methods, of which every sample is a system of its own.

All samplers use one grid of levels, from where the mixture looks like one Gaussian to a tenth of the width of a mode.
Denoisers are exact. `calibrated` samplers (learned covariance and twisted) know the spectrum of the prior's error as
well, measured on draws, as a learned prior's is; `variance` is the variance per pixel alone. A Gaussian is not what x0
given x is, as long as x may belong to several modes: samplers without weights give the modes wrong shares, the more so
the less was measured, whatever they know of the covariance."""


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
        self._flat, self._errors = means.flatten(1), dict[float, float]()
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
        if sigma not in self._errors:
            x = self.sample(2000, torch.Generator().manual_seed(1))
            x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
            self._errors[sigma] = float(self.moments(x, sigma)[1].mean())
        return self._errors[sigma]

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


@lru_cache(maxsize=4)
def calibrated(prior: IsotropicMixture) -> Denoiser:
    """The prior with the spectrum of its error, measured on draws, beside its variance per pixel."""
    draws = [prior.sample(TRAINING, torch.Generator().manual_seed(1))]
    known = Known(prior, inverse.calibrate(prior, draws, basis=True, show=False), moments=True)
    known.sigma_min, known.sigma_max = prior.sigma_min, prior.sigma_max
    return known


@lru_cache(maxsize=4)
def mixture(dimensions: int, seed: int) -> IsotropicMixture:
    """The prior, with the weights of one seed."""
    weights = np.random.default_rng(seed).standard_normal(25) ** 2
    grid = torch.tensor([(-8.0 * i, -8.0 * j) for i in range(-2, 3) for j in range(-2, 3)], dtype=DOUBLE)
    return IsotropicMixture(torch.from_numpy(weights / weights.sum()), images(grid.repeat(1, dimensions // 2)))


@lru_cache(maxsize=4)
def problem(dimensions: int, measurements: int, seed: int = 0) -> Mixture:
    """The problem of one seed: weights, matrix, its singular values, truth, noise level and data, in this order."""
    random, prior = np.random.default_rng(seed), mixture(dimensions, seed)
    random.standard_normal(25)  # the weights
    u, _, vt = np.linalg.svd(random.standard_normal((measurements, dimensions)), full_matrices=False)
    s = np.sort(random.random(measurements))[::-1]
    matrix = u @ np.diag(s) @ vt
    means = prior.means.mT.flatten(1).numpy()
    x = means[random.choice(25, p=prior.weights.numpy())] + random.standard_normal(dimensions)
    sigma_y = float(random.random() * s[0])
    y = matrix @ x + sigma_y * random.standard_normal(measurements)
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


def samplers(prior: IsotropicMixture) -> dict[str, tuple[Sampler, str]]:
    """What is compared: sampler, and what it is told of the prior: "plain" or "calibrated"."""

    def on(conditioning: Conditioning, integrator: Integrator, levels: int, *, start: str = "noise") -> Sampler:
        return DiffusionSampler(conditioning, integrator, grid=grid(prior, levels), start=start)

    def system(kind: type, particles: int, levels: int) -> Sampler:
        return kind(particles=particles, grid=grid(prior, levels))

    learned = LearnedCovariance(innovation=False)
    return {
        "DDS, 100": (on(DDS(), DDIM(1.0), 100), "plain"),
        "DDRM, 20": (DDRM(grid=grid(prior, 20)), "plain"),
        "DDRM, 100": (DDRM(grid=grid(prior, 100)), "plain"),
        "PiGDM, 100": (on(PiGDM(), DDIM(1.0), 100), "plain"),
        "DPS, 1000": (on(DPS(), DDIM(1.0), 1000), "plain"),
        "learned covariance x bridge, 100": (on(learned, Bridge(draw_last=True), 100, start="data"), "calibrated"),
        "moment matching x bridge, 50": (on(MomentMatching(), Bridge(draw_last=True), 50), "plain"),
        "MCGDiff, 16 x 20": (system(MCGDiff, 16, 20), "plain"),
        "MCGDiff, 32 x 100": (system(MCGDiff, 32, 100), "plain"),
        "TDS, 16 x 20": (system(TDS, 16, 20), "plain"),
        "twisted, variance, 16 x 20": (system(Twisted, 16, 20), "plain"),
        "twisted, 1 x 20": (system(Twisted, 1, 20), "calibrated"),
        "twisted, 16 x 20": (system(Twisted, 16, 20), "calibrated"),
        "twisted, 32 x 20": (system(Twisted, 32, 20), "calibrated"),
    }


@torch.no_grad()
def measure(problem: Mixture, sampler: Sampler, prior: Denoiser, count: int) -> dict[str, tuple[float, str]]:
    """Run a sampler and compare its samples with the posterior."""
    posed = Posed.build(problem.operator, problem.y, problem.sigma_y).take([0] * count)
    trace = Trace(count, Silent(), None)
    started = time.process_time()
    samples = sampler.sample(posed, prior, OneStream(0, count), trace)
    found = figures(samples, problem) | {
        "evaluations": (posed.work.nfe, ""),
        "backward": (posed.work.nfe_backward, ""),
        "ms per sample": (1000 * (time.process_time() - started) / count, "ms"),
    }
    if "effective" in trace.kept:
        found["effective"] = (float(trace.kept["effective"].mean()), "")
    return found


def main() -> None:
    """Measure every sampler on every problem and seed; figures on disk are kept."""
    options = _options()
    counts = ", ".join(f"{n} samples in {d} dimensions" for d, n in SAMPLES.items())
    table = Table(
        "mixture25", f"{counts}; {DIRECTIONS} directions; {TRAINING} draws to calibrate; float64", fresh=options.fresh
    )
    for seed, dimensions, measurements in itertools.product(range(options.seeds), DIMENSIONS, MEASUREMENTS):
        case = f"d {dimensions}, m {measurements}, seed {seed}"
        if options.only in case:
            _one(table, case, problem(dimensions, measurements, seed), SAMPLES[dimensions], options.methods)
    report(table)


def _one(table: Table, case: str, problem: Mixture, count: int, wanted: str) -> None:
    """All samplers on one problem."""
    draws = {"exact draws": problem.sample, "prior draws": problem.prior.sample}
    for method, draw in draws.items():
        if not table.has(case, method):
            table.add(case, method, figures(draw(count, torch.Generator().manual_seed(2)), problem))
    for method, (sampler, knows) in samplers(problem.prior).items():
        if wanted.lower() not in method.lower() or table.has(case, method):
            continue
        prior = problem.plain if knows == "plain" else problem.learned[knows]
        values = measure(problem, sampler, prior, count)
        table.add(case, method, values)
        print(f"{case}, {method}: " + ", ".join(f"{k} {v:.4g}" for k, (v, _) in values.items()), flush=True)


def report(table: Table) -> None:
    """Write the Markdown file: medians over the seeds."""
    rows: dict[tuple[str, str, str, str], list[float]] = {}
    for row in table.rows:
        cell = row.case.rsplit(",", 1)[0]
        rows.setdefault((cell, row.method, row.metric, row.unit), []).append(row.value)
    medians = [
        Row(case, method, metric, statistics.median(v), unit) for (case, method, metric, unit), v in rows.items()
    ]
    sections = []
    for cell in dict.fromkeys(row.case for row in medians):
        seeds = len(rows[cell, "exact draws", "SW", ""])
        own = [row for row in medians if row.case == cell]
        sections.append(pivot(own, COLUMNS, heading=f"{cell}, median of {seeds} seeds"))
    table.write_markdown("A mixture of 25 Gaussians from few measurements", TEXT, sections)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="forget the figures on disk")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose name contains this, e.g. 'd 80,'")
    parser.add_argument("--methods", default="", metavar="TEXT", help="samplers whose name contains this")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"problems of each size, default {SEEDS}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
