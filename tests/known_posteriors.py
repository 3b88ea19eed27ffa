"""Problems whose posterior is known: independent bimodal or Gaussian pixels, and inpainting of 8 x 8 Gaussian images.

Every pixel of the first two is a problem of its own, so that one sample of a 200 x 200 image makes 40 000 draws.
"""

import math
from dataclasses import dataclass

import torch
from sampler_cases import ExactErrors
from torch import Tensor

from inverse.operators import Identity, Mask, Operator
from inverse.priors import GaussianPrior, StationaryGaussianPrior
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import Problem, Sampler
from inverse.samplers.prior_step import PriorStep
from inverse.samplers.sampler import Trace

SHAPE = (200, 200)

# Weights, means, standard deviations.
PRIOR = ((0.3, 0.7), (-1.0, 1.0), (0.1, 0.2))
LINEAR = ((0.4343355599, 0.5656644401), (-0.9653846154, 0.8482758621), (0.0980580676, 0.1856953382))
"""Posterior given y = x + n = -0.1, noise 0.5."""
MAGNITUDE = ((0.403921337048, 0.596078662952), (-1.0, 1.0), (0.0707106781, 0.0894427191))
"""Posterior given y = |x| + n = 1, noise 0.1."""


class MixturePixels(Denoiser):
    """Independent pixels, each from a mixture of Gaussians in one dimension.

    Args:
        mixture: weights, means, standard deviations.
    """

    name = "pixels"

    def __init__(self, mixture: tuple[tuple[float, ...], ...] = PRIOR):
        self.mixture = mixture
        weights, means, deviations = torch.tensor(mixture, dtype=torch.float64)
        mean = (weights * means).sum()
        self.data_std = math.sqrt(float((weights * (deviations**2 + (means - mean) ** 2)).sum()))

    def components(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """Probability, mean and variance of every component given x = x0 + sigma n, each (components, *x.shape)."""
        weights, means, deviations = torch.tensor(self.mixture, dtype=x.dtype).reshape(3, -1, *(1,) * x.ndim)
        total = deviations**2 + sigma**2
        scores = weights.log() - (x - means) ** 2 / (2 * total) - total.log() / 2
        gain = deviations**2 / total
        return torch.softmax(scores, 0), means + gain * (x - means), gain * sigma**2

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        share, mean, _ = self.components(x, sigma)
        return (share * mean).sum(0)

    def moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        share, mean, variance = self.components(x, sigma)
        denoised = (share * mean).sum(0)
        return denoised, (share * (variance + (mean - denoised) ** 2)).sum(0)


@dataclass(frozen=True)
class ExactDraw(PriorStep):
    """x0 from the mixture given x0 + sigma n: one evaluation, no error."""

    def evaluations(self, sigma: float) -> int:
        return 1

    def draw(
        self, problem: Problem, prior: MixturePixels, z: Tensor, sigma: float, random: SampleRandom, trace: Trace
    ) -> Tensor:
        problem.work.nfe += 1
        share, mean, variance = prior.components(z, sigma)
        uniform = torch.special.ndtr(random.normal(z.shape[1:], dtype=z.dtype))
        second = uniform > share[0]
        noise = random.normal(z.shape[1:], dtype=z.dtype)
        return torch.where(second, mean[-1], mean[0]) + torch.where(second, variance[-1], variance[0]).sqrt() * noise


@dataclass(frozen=True)
class FromNoise(Sampler):
    """N(0, I), whatever the data: a start without evaluations that has to be forgotten."""

    def evaluations(self) -> int:
        return 0

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        return (0.0,)

    def with_steps(self, steps: int) -> "FromNoise":
        return self

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        return random.normal(problem.adjoint_y.shape[1:], dtype=problem.adjoint_y.dtype)


class Magnitude(Operator):
    """|x|."""

    def __init__(self, shape: tuple[int, int] = SHAPE):
        super().__init__(shape, shape, in_dtype=torch.float64)

    def _apply(self, x: Tensor) -> Tensor:
        return x.abs()


def pixels_problem(shape: tuple[int, int] = SHAPE, y: float = -0.1, sigma_y: float = 0.5) -> Problem:
    """y = x + n."""
    operator = Identity(shape, dtype=torch.float64)
    return Problem.build(operator, torch.full((1, *shape), y, dtype=torch.float64), sigma_y)


def magnitude_problem(shape: tuple[int, int] = SHAPE, y: float = 1.0, sigma_y: float = 0.1) -> Problem:
    """y = |x| + n."""
    return Problem.build(Magnitude(shape), torch.full((1, *shape), y, dtype=torch.float64), sigma_y)


def wasserstein(x: Tensor, mixture: tuple[tuple[float, ...], ...] = LINEAR) -> float:
    """W1 between draws and a mixture, by quantiles."""
    grid = torch.linspace(-3, 3, 60001, dtype=torch.float64)
    below = sum(w * torch.special.ndtr((grid - m) / s) for w, m, s in zip(*mixture, strict=True))
    levels = (torch.arange(x.numel(), dtype=torch.float64) + 0.5) / x.numel()
    quantiles = grid[torch.searchsorted(below, levels).clamp(max=len(grid) - 1)]
    return float((x.flatten().double().sort().values - quantiles).abs().mean())


def negative(x: Tensor) -> float:
    """Share of draws below 0."""
    return float((x < 0).double().mean())


@dataclass(frozen=True)
class Inpainting:
    """8 x 8 pixels, every second one seen with noise 0.1; power (1 + (u^2 + v^2) / 4)^-2 of the cosine modes.

    Attributes:
        problem: one item.
        prior: stationary, states its exact spectrum; the mean 0.5 of images and data is taken off.
        posterior: exact.
        seen: bool (64,).
    """

    problem: Problem
    prior: StationaryGaussianPrior
    posterior: GaussianPrior
    seen: Tensor

    def bias(self, samples: Tensor) -> tuple[float, float]:
        """Error of the mean in posterior standard deviations, root mean square over seen and over missing pixels."""
        error = (samples.flatten(1).mean(0) - self.posterior.mean.flatten()) / self._deviation
        return tuple(float(error[part].square().mean().sqrt()) for part in (self.seen, ~self.seen))

    def spread(self, samples: Tensor) -> tuple[float, float]:
        """Standard deviation over the exact one, mean over seen and over missing pixels."""
        ratio = samples.flatten(1).std(0) / self._deviation
        return tuple(float(ratio[part].mean()) for part in (self.seen, ~self.seen))

    @property
    def _deviation(self) -> Tensor:
        return self.posterior.covariance.diagonal().sqrt()


def inpainting() -> Inpainting:
    """The problem; the data are a formula, not a draw."""
    index = torch.arange(8, dtype=torch.float64)
    row, column = index[:, None], index[None, :]
    power = (1 + (row**2 + column**2) / 4) ** -2
    prior = StationaryGaussianPrior((8, 8), power, torch.float64)
    prior.calibration = ExactErrors(power)
    mask = (3 * row + 5 * column) % 8 < 4
    y = (0.3 * torch.sin(0.9 * row + 0.4) * torch.cos(0.7 * column) + 0.1 * (-1) ** (row + column)) * mask
    seen = mask.flatten()
    basis = prior.transform.inverse(torch.eye(64, dtype=torch.float64).reshape(-1, 8, 8)).reshape(64, 64)
    gaussian = GaussianPrior(torch.zeros(8, 8, dtype=torch.float64), basis.mT @ (power.flatten()[:, None] * basis))
    posterior = gaussian.posterior(torch.eye(64, dtype=torch.float64)[seen], y.flatten()[seen], 0.1)
    return Inpainting(Problem.build(Mask(mask, dtype=torch.float64), y[None], 0.1), prior, posterior, seen)
