"""One-dimensional problems whose posterior has two modes, known exactly by quadrature: fixtures B1 and B2.

The prior is 0.3 N(-1, 0.1^2) + 0.7 N(1, 0.2^2). B1: y = x + 0.5 n, y = -0.1, which moves 0.13 of the weight from the
right mode to the left one. B2: y = |x| + 0.1 n, y = 1, which leaves samplers that follow a gradient where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from exact_problems import DOUBLE, ExactSpectrum, Known
from torch import Tensor

from inverse.operators import Identity, Operator
from inverse.operators.function import from_function
from inverse.priors import Denoiser, GaussianMixturePrior, GaussianPrior

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-1.0, 1.0), (0.1, 0.2)
SHAPE = (1, 1)  # of an image
REACH, POINTS = 4.0, 400_001  # of the quadrature: the posterior's density is below 1e-50 beyond


class Bimodal(Known):
    """The prior with its exact denoiser, variance and mean squared error; a spectrum of one mode."""

    def __init__(self, prior: GaussianMixturePrior, *, spectrum: bool = True):
        super().__init__(prior, ExactSpectrum(torch.ones(SHAPE, dtype=DOUBLE)) if spectrum else None, moments=True)
        self._errors: dict[float, float] = {}

    def mse(self, sigma: float) -> float:
        """Mean of Var(x0 | x) over x, by quadrature."""
        if sigma not in self._errors:
            reach = 8 * (1 + sigma)
            x = torch.linspace(-reach, reach, 4001, dtype=DOUBLE).reshape(-1, *SHAPE)
            components = zip(self.prior.weights, self.prior.components, strict=True)
            density = sum(w * c.log_density(x, sigma).exp() for w, c in components)
            self._errors[sigma] = float((density * self.prior.moments(x, sigma)[1].flatten()).sum() / density.sum())
        return self._errors[sigma]


@dataclass(frozen=True, eq=False)
class Line:
    """One y, and the exact posterior.

    Attributes:
        operator: A, which may be nonlinear.
        y: the data (1, 1, 1).
        sigma_y: their noise level.
        prior: the prior.
        plain, learned: the prior without and with a spectrum.
        x, below: points, and the posterior's probability below each.
        log_evidence: log p(y).
    """

    operator: Operator
    y: Tensor
    sigma_y: float
    prior: GaussianMixturePrior
    plain: Denoiser
    learned: dict[str, Denoiser]
    x: Tensor
    below: Tensor
    log_evidence: float

    def quantile(self, probability: Tensor) -> Tensor:
        """x below which the posterior has the given probability."""
        index = torch.searchsorted(self.below, probability).clamp(1, len(self.below) - 1)
        low, high = self.below[index - 1], self.below[index]
        share = ((probability - low) / (high - low).clamp(min=torch.finfo(DOUBLE).tiny)).clamp(0, 1)
        return torch.lerp(self.x[index - 1], self.x[index], share)

    def probability(self, x: Tensor) -> Tensor:
        """The posterior's probability below x."""
        position = ((x + REACH) / (2 * REACH) * (POINTS - 1)).clamp(0, POINTS - 1)
        low = position.floor().long().clamp(max=POINTS - 2)
        return torch.lerp(self.below[low], self.below[low + 1], position - low)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (count, 1, 1)."""
        return self.quantile(torch.rand(count, generator=generator, dtype=DOUBLE)).reshape(-1, *SHAPE)

    def moments(self) -> dict[str, float]:
        """The exact mean and spread, of all and of each side of 0."""
        weight = self.below.diff()
        middle = (self.x[1:] + self.x[:-1]) / 2
        return sides(middle, weight / weight.sum())


def sides(x: Tensor, weight: Tensor) -> dict[str, float]:
    """Mean and standard deviation, the weight left of 0, and the standard deviation on each side."""
    left = x < 0
    values = {"mean": float((weight * x).sum()), "weight left": float(weight[left].sum())}
    values["sd"] = _std(x, weight)
    return values | {"sd left": _std(x[left], weight[left]), "sd right": _std(x[~left], weight[~left])}


def _std(x: Tensor, weight: Tensor) -> float:
    if float(weight.sum()) == 0:
        return math.nan
    weight = weight / weight.sum()
    return float((weight * (x - (weight * x).sum()) ** 2).sum().sqrt())


def bimodal() -> GaussianMixturePrior:
    """The prior of both fixtures."""
    parts = [
        GaussianPrior(torch.full(SHAPE, m, dtype=DOUBLE), torch.full(SHAPE, s**2, dtype=DOUBLE))
        for m, s in zip(MEANS, STDS, strict=True)
    ]
    return GaussianMixturePrior(torch.tensor(WEIGHTS, dtype=DOUBLE), parts)


def b1() -> Line:
    """y = x + 0.5 n."""
    return _line(Identity(SHAPE, dtype=DOUBLE), -0.1, 0.5)


def b2() -> Line:
    """y = |x| + 0.1 n."""
    return _line(from_function(torch.abs, SHAPE, linear=False, dtype=DOUBLE), 1.0, 0.1)


def _line(operator: Operator, y: float, sigma_y: float) -> Line:
    x = torch.linspace(-REACH, REACH, POINTS, dtype=DOUBLE)
    prior = sum(w * _normal(x, m, s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True))
    joint = prior * _normal(operator(x.reshape(-1, *SHAPE)).flatten(), y, sigma_y)
    below = torch.cat([torch.zeros(1, dtype=DOUBLE), torch.cumulative_trapezoid(joint, x)])
    mixture = bimodal()
    data = torch.full((1, *SHAPE), y, dtype=DOUBLE)
    evidence = float(below[-1].log())
    known = {"exact": Bimodal(mixture)}
    plain = Bimodal(mixture, spectrum=False)
    return Line(operator, data, sigma_y, mixture, plain, known, x, below / below[-1], evidence)


def _normal(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-(((x - mean) / std) ** 2) / 2) / (math.sqrt(2 * math.pi) * std)


LINES: dict[str, Callable[[], Line]] = {"fixture B1": b1, "fixture B2": b2}
