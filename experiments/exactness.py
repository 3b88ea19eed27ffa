"""Samplers against a posterior that is known exactly: inpainting of 8 x 8 Gaussian images.

Usage: python experiments/exactness.py [--fresh]

Two priors of correlation length 2 pixels: `Gaussian`, squared-exponential without wrap-around, for which the learned
covariance is an approximation, and `stationary Gaussian`, independent cosine modes, for which it is exact. 32 of 64
pixels are seen with noise 0.05; one y, 2000 samples. Rows of results/exactness.csv are written as they come, and a run
that was cut off goes on. About three minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tables import Column, Table, pivot
from torch import Tensor

import inverse
from inverse.linalg.transforms import Modes
from inverse.operators import Mask
from inverse.priors import Denoiser, GaussianPrior
from inverse.priors.analytic import StationaryGaussianPrior
from inverse.priors.calibration import Calibration
from inverse.samplers import DDIM, DDS, Bridge, DiffusionSampler, LearnedCovariance
from inverse.samplers.methods import dds, dds_published

SIZE, SIGMA_Y, NUGGET = 8, 0.05, 1e-4
CORRELATION = 2.0  # pixels
SAMPLES, REPEATS = 2000, 51
TRAINING = 20_000  # draws of the prior on which the spectrum is measured
BINS = 128  # radial bins: fine enough that no two of the few frequencies of so small an image share one
TIGHT = {"iterations": 200, "rtol": 1e-4}
FEW, MANY = (20, 100), (5, 20, 50, 100, 1000)
COLUMNS = (
    Column("mean error", "mean error, sd", 2),
    Column("variance seen", "variance, seen", 2),
    Column("variance missing", "variance, missing", 2),
    Column("W2", "W2 / floor", 2),
    Column("coverage", "coverage of 90 %", 3),
    Column("evaluations", "evaluations", 0),
    Column("seconds", "s", 1),
)

TEXT = f"""Inpainting of 8 x 8 pixels, 32 of them seen with noise {SIGMA_Y:g}, prior variance 1; {SAMPLES} samples for
one y. Denoisers are exact, so that what is left is the sampler's own error.

- mean error: root mean square over the pixels of (mean of the samples - exact mean) / exact standard deviation;
- variance: of the samples over the exact one, mean over the seen or the missing pixels, 1 is right;
- W2 / floor: Wasserstein-2 distance of mean and covariance of the samples to the posterior's, over the median of the
  same for as many exact draws, 1 is right;
- coverage: posterior mass between the 5th and 95th percentile of the samples, mean over the pixels, 0.900 is right;
- the number behind a method's name is its network evaluations.

DDS: noise-aware, conditioned noise direction, ancestral. `no table`: the error of a prior that was not calibrated,
sigma^2 s^2/(sigma^2 + s^2). `unconditioned`: the published noise direction; `published`: all published constants.
Learned covariance: the spectrum by formula, or measured on {TRAINING} draws of the prior; for the prior `Gaussian` with
the exact variance per pixel. `samples` draws at the last step too, `images` does not; `no innovation` leaves its scale
out, which one probe estimates from 32 numbers; `tight` solves to 1e-4 instead of 2e-3.

What keeps the learned covariance from the floor: a prior that is not stationary (`Gaussian`); solves to 2e-3 only; the
innovation's one probe; and on images this small a table of 32 bins, whose interpolation mixes the few frequencies there
are ({BINS} bins are used elsewhere; larger images fill all 32). Without these it is exact at any number of evaluations.
What keeps DDS from it is r^2 I, which spreads nothing from seen to missing pixels: more steps lead to a limit that is
not the posterior. The unconditioned direction leads to none: its variance on seen pixels falls towards 0 as the steps
grow, and its error bars cover ever less. Yet its mean error and W2 are below those of the conditioned direction, as it
adds the whole correction at every step, however short; for `Gaussian` W2 is least near 50 and rises after it."""


class Known(Denoiser):
    """An exact denoiser that states what a learned prior states: variance per pixel, spectrum, error table, or not."""

    def __init__(self, prior: Denoiser, calibration: Calibration | None, *, moments: bool, table: bool = True):
        self.prior, self.calibration, self.table = prior, calibration, table
        for name in ("channels", "shape", "data_std", "name"):
            setattr(self, name, getattr(prior, name))
        if moments:
            self.moments = prior.moments

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.prior.denoise(x, sigma)

    def mse(self, sigma: float) -> float:
        return self.prior.mse(sigma) if self.table else super().mse(sigma)


class ExactSpectrum(Calibration):
    """The spectrum of the error of a stationary Gaussian prior by formula, mode by mode, instead of a table.

    Args:
        power: variance of each mode (H, W).
    """

    def __init__(self, power: Tensor):
        super().__init__(torch.ones(2), torch.ones(2), torch.ones(2, 2))
        object.__setattr__(self, "modes", power)

    def power_map(self, sigma: float, radius: Tensor) -> Tensor:
        error = self.modes * sigma**2 / (self.modes + sigma**2)
        return error / error.mean()


@dataclass(frozen=True)
class Problem:
    """One y and all that is known of it.

    Attributes:
        gaussian: the prior with its dense covariance.
        learned: the prior as a learned one, by how its spectrum is known.
        operator: the mask.
        y: data, zeros where nothing was seen.
        posterior: the exact one.
        short: whether DDS is run at few numbers of steps only.
    """

    gaussian: GaussianPrior
    learned: dict[str, Denoiser]
    operator: Mask
    y: Tensor
    posterior: GaussianPrior
    short: bool

    @property
    def seen(self) -> Tensor:
        """Which pixels were seen, bool (pixels,)."""
        return self.operator.mask.flatten()


def main() -> None:
    """Measure every sampler on both problems; figures on disk are kept."""
    options = _options()
    settings = (
        f"{SAMPLES} samples, seed 0, {TRAINING} draws for the spectrum in {BINS} bins, noise {SIGMA_Y:g}, float64"
    )
    table = Table("exactness", settings, fresh=options.fresh)
    for case, make in PROBLEMS.items():
        problem = make()
        floor = distances_of_exact_draws(problem.posterior, SAMPLES, REPEATS)
        for method, run in methods(problem).items():
            if not table.has(case, method):
                values = run(floor.median())
                if method == "exact draws":
                    values |= {"floor": (floor.median(), ""), "largest exact W2": (floor.max() / floor.median(), "")}
                table.add(case, method, values)
                note = ", ".join(f"{metric} {float(value):.4g}" for metric, (value, _) in values.items())
                print(f"{case}, {method}: {note}", flush=True)
    report(table)


def gaussian_problem(training: int = TRAINING) -> Problem:
    """Covariance exp(-d^2 / 8) plus 1e-4 on the diagonal; the spectrum is measured, the variance per pixel exact."""
    rows, columns = np.divmod(np.arange(SIZE**2), SIZE)
    squares = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    covariance = np.exp(-squares / (2 * CORRELATION**2)) + NUGGET * np.eye(SIZE**2)
    gaussian = GaussianPrior(torch.zeros(SIZE, SIZE, dtype=torch.float64), torch.from_numpy(covariance))
    return _problem(gaussian, {"measured": Known(gaussian, _measured(gaussian, training), moments=True)})


def stationary_problem(training: int = TRAINING) -> Problem:
    """Cosine modes of the power of the same covariance on an infinite grid, of mean 1 + 1e-4."""
    modes = Modes((SIZE, SIZE), torch.float64)
    power = torch.exp(-2 * (math.pi * CORRELATION * modes.radius) ** 2)
    power = power / power.mean() + NUGGET
    basis = modes.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)).reshape(SIZE**2, -1)
    gaussian = GaussianPrior(
        torch.zeros(SIZE, SIZE, dtype=torch.float64), basis.mT @ (power.flatten()[:, None] * basis)
    )
    stationary = StationaryGaussianPrior((SIZE, SIZE), power, torch.float64)
    learned = {
        "exact spectrum": Known(stationary, ExactSpectrum(power), moments=False),
        "measured": Known(stationary, _measured(stationary, training), moments=False),
        "measured in 32 bins": Known(stationary, _measured(stationary, training, bins=32), moments=False),
    }
    return _problem(gaussian, learned, short=True)


PROBLEMS: dict[str, Callable[..., Problem]] = {"Gaussian": gaussian_problem, "stationary Gaussian": stationary_problem}


def _measured(prior: GaussianPrior | StationaryGaussianPrior, training: int, bins: int = BINS) -> Calibration:
    draws = prior.sample(training, torch.Generator().manual_seed(1))
    return inverse.calibrate(prior, [draws], bins=bins, show=False)


def _problem(gaussian: GaussianPrior, learned: dict[str, Denoiser], *, short: bool = False) -> Problem:
    """Draw truth and data; pixel i is seen where (37 i + 11) mod 64 < 32."""
    seen = (37 * np.arange(SIZE**2) + 11) % SIZE**2 < SIZE**2 // 2
    random = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(gaussian.covariance.numpy())
    x = vectors @ (np.sqrt(values.clip(min=0)) * random.standard_normal(SIZE**2))
    data = torch.from_numpy(x[seen] + SIGMA_Y * random.standard_normal(seen.sum()))
    operator = Mask(torch.from_numpy(seen).reshape(SIZE, SIZE), dtype=torch.float64)
    y = torch.zeros(SIZE**2, dtype=torch.float64)
    y[seen] = data
    posterior = gaussian.posterior(torch.eye(SIZE**2, dtype=torch.float64)[seen], data, SIGMA_Y)
    return Problem(gaussian, learned, operator, y.reshape(SIZE, SIZE), posterior, short)


def methods(problem: Problem) -> dict[str, Callable[[Tensor], dict]]:
    """What to run, {method: figures(floor)}."""

    def draws(source: GaussianPrior) -> Callable[[Tensor], dict]:
        return lambda floor: figures(source.sample(SAMPLES, torch.Generator().manual_seed(2)), problem, floor)

    def run(sampler: DiffusionSampler, prior: Denoiser) -> Callable[[Tensor], dict]:
        return lambda floor: measure(problem, sampler, prior, floor)

    runs = {"exact draws": draws(problem.posterior), "prior draws": draws(problem.gaussian)}
    untabled = Known(problem.gaussian, None, moments=False, table=False)
    for name, (make, numbers) in dds_samplers().items():
        for steps in FEW if problem.short else numbers:
            runs[f"{name}, {steps}"] = run(make(steps), untabled if name.endswith("no table") else problem.gaussian)
    for spectrum, prior in problem.learned.items():
        for name, conditioning in learned_conditionings().items():
            for steps in (2, 5, 10, 20, 50) if spectrum != "measured in 32 bins" else FEW[:1]:
                sampler = DiffusionSampler(conditioning, Bridge(draw_last=name != "images"), steps)
                runs[f"learned covariance, {spectrum}, {name}, {steps}"] = run(sampler, prior)
    return runs


def dds_samplers() -> dict[str, tuple[Callable[[int], DiffusionSampler], tuple[int, ...]]]:
    """DDS by noise direction, share of fresh noise and constants, with the numbers of steps to run."""

    def variant(**integrator: float | str) -> Callable[[int], DiffusionSampler]:
        return lambda steps: DiffusionSampler(DDS(), DDIM(**integrator), steps)

    return {
        "DDS": (dds, MANY),
        "DDS, eta 0": (variant(eta=0.0), MANY),
        "DDS, no table": (dds, FEW),
        "DDS, unconditioned": (variant(direction="unconditioned"), MANY),
        "DDS, unconditioned, eta 0": (variant(eta=0.0, direction="unconditioned"), MANY),
        "DDS, published": (dds_published, MANY),
    }


def learned_conditionings() -> dict[str, LearnedCovariance]:
    """The learned covariance for samples and for images, and without what keeps it from the floor."""
    return {
        "samples": LearnedCovariance(),
        "samples, no innovation": LearnedCovariance(innovation=False),
        "samples, no innovation, tight": LearnedCovariance(innovation=False, **TIGHT),
        "images": LearnedCovariance(),
    }


def measure(
    problem: Problem, sampler: DiffusionSampler, prior: Denoiser, floor: Tensor | float, samples: int = SAMPLES
) -> dict:
    """Run a sampler and compare its samples with the posterior."""
    solution = inverse.solve(
        problem.y, problem.operator, prior, sampler, noise=SIGMA_Y, samples=samples, batch=samples, progress=False
    )
    stats = solution.stats
    return figures(solution.samples, problem, floor) | {
        "evaluations": (stats.nfe, ""),
        "CG iterations": (stats.cg_iterations / stats.nfe, ""),
        "seconds": (stats.seconds, "s"),
    }


def figures(samples: Tensor, problem: Problem, floor: Tensor | float) -> dict:
    """Distance of samples (count, H, W) from the exact posterior.

    mean error: root mean square over the pixels of (mean of the samples - exact mean) / exact standard deviation.
    variance: mean over the seen or the missing pixels of variance of the samples / exact variance.
    W2: Wasserstein-2 distance between Gaussians of the mean and covariance of samples and posterior, over `floor`.
    coverage: posterior mass between the 5th and the 95th percentile of the samples, mean over the pixels.
    """
    flat, posterior, seen = samples.flatten(1), problem.posterior, problem.seen
    mean, std = posterior.mean.flatten(), posterior.covariance.diagonal().sqrt()
    ratio = flat.var(0) / std**2
    low, high = torch.quantile(flat, torch.tensor([0.05, 0.95], dtype=flat.dtype), dim=0)
    mass = torch.special.ndtr((high - mean) / std) - torch.special.ndtr((low - mean) / std)
    return {
        "mean error": (float((((flat.mean(0) - mean) / std) ** 2).mean().sqrt()), "sd"),
        "variance seen": (float(ratio[seen].mean()), ""),
        "variance missing": (float(ratio[~seen].mean()), ""),
        "W2": (wasserstein(samples, posterior) / float(floor), ""),
        "coverage": (float(mass.mean()), ""),
    }


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


def distances_of_exact_draws(posterior: GaussianPrior, samples: int, repeats: int) -> Tensor:
    """W2 of as many exact draws, `repeats` times: what no sampler can beat, and how much chance there is in it."""
    generator = torch.Generator().manual_seed(3)
    return torch.tensor([wasserstein(posterior.sample(samples, generator), posterior) for _ in range(repeats)])


def report(table: Table) -> None:
    """Write the Markdown file."""
    sections = []
    for case in dict.fromkeys(row.case for row in table.rows):
        rows = [row for row in table.rows if row.case == case]
        floor, largest = (next(r.value for r in rows if r.metric == m) for m in ("floor", "largest exact W2"))
        sections.append(pivot(rows, COLUMNS, heading=case))
        sections.append(f"Floor {floor:.4f}; the largest of {REPEATS} sets of exact draws lies at {largest:.2f}.")
    table.write_markdown("Samplers against an exact posterior", TEXT, sections)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
