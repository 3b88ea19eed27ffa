"""Gaussian problems whose posterior is known exactly, with the priors that samplers are given of them.

Two priors of 8 x 8 images with correlation length 2 pixels. `Gaussian`: squared-exponential without wrap-around, on
which cosines do not fit; `stationary`: independent cosine modes. Three problems of each: inpainting, 32 pixels seen;
blur, the mean of 3 x 3 pixels with periodic borders; both with noise 0.05; denoising, noise 0.3.

Fixtures A and A2: cosine modes of power (1 + (u^2 + v^2)/4)^-2 around the mean 0.5, whose data are a formula: 32 pixels
seen, or cosine modes damped by exp(-0.15 (u^2 + v^2)); noise 0.1. Their posteriors are pinned to ten digits in tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

import inverse
from inverse.linalg.transforms import LearnedModes, Modes, dct_matrix
from inverse.operators import Blur, Identity, LinearOperator, Mask
from inverse.operators.matrix import Matrix
from inverse.priors import Denoiser, GaussianPrior
from inverse.priors.analytic import StationaryGaussianPrior
from inverse.priors.calibration import Calibration

SIZE, NUGGET = 8, 1e-4
CORRELATION = 2.0  # pixels
TRAINING = 20_000  # draws of the prior on which covariances are measured
BINS = 128  # radial bins: fine enough that no two of the few frequencies of so small an image share one
DOUBLE = torch.float64


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
    """The power of the error of a Gaussian prior by formula, mode by mode, instead of a table.

    Args:
        power: variance of each mode (H, W).
        basis: the modes along each axis; None: cosines.
    """

    def __init__(self, power: Tensor, basis: LearnedModes | None = None):
        axes = () if basis is None else basis.axes
        super().__init__(torch.ones(2), torch.ones(2), torch.ones(2, *(power.shape if axes else (2,))), *axes)
        object.__setattr__(self, "variance", power)

    def power_map(self, sigma: float, radius: Tensor) -> Tensor:
        error = self.variance * sigma**2 / (self.variance + sigma**2)
        return error / error.mean()


@dataclass(frozen=True, eq=False)
class Problem:
    """One y and all that is known of it.

    Attributes:
        operator: A.
        y: data (1, *out_shape), zeros where nothing was seen.
        sigma_y: their noise level.
        prior: the prior with its dense covariance.
        learned: the prior as a learned one, by how its covariance is known: "exact", "calibrated", ...
        posterior: the exact one.
        directions: orthonormal directions as columns (pixels, pixels), in which variances are compared.
        seen: which of them were seen, bool (pixels,).
    """

    operator: LinearOperator
    y: Tensor
    sigma_y: float
    prior: GaussianPrior
    learned: dict[str, Denoiser]
    posterior: GaussianPrior
    directions: Tensor
    seen: Tensor

    @property
    def plain(self) -> Denoiser:
        """The exact denoiser with its mean squared error and variance per pixel, without spectrum."""
        return self.prior


def dense(operator: LinearOperator) -> Tensor:
    """Matrix of an operator on images, columns the data of unit vectors."""
    n = math.prod(operator.in_shape)
    return operator(torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)).reshape(n, -1).mT


def inpainting() -> tuple[LinearOperator, float]:
    """Pixel i is seen where (37 i + 11) mod 64 < 32."""
    seen = (37 * np.arange(SIZE**2) + 11) % SIZE**2 < SIZE**2 // 2
    return Mask(torch.from_numpy(seen).reshape(SIZE, SIZE), dtype=DOUBLE), 0.05


def blur() -> tuple[LinearOperator, float]:
    """Mean of 3 x 3 pixels, periodic."""
    return Blur(torch.full((3, 3), 1 / 9, dtype=DOUBLE), (SIZE, SIZE), dtype=DOUBLE), 0.05


def denoising() -> tuple[LinearOperator, float]:
    """All pixels, with much noise."""
    return Identity((SIZE, SIZE), dtype=DOUBLE), 0.3


OPERATORS = {"inpainting": inpainting, "blur": blur, "denoising": denoising}


@lru_cache(maxsize=2)
def squared_exponential(training: int = TRAINING) -> tuple[GaussianPrior, dict[str, Denoiser]]:
    """Covariance exp(-d^2 / 8) plus 1e-4 on the diagonal.

    What is known of it: the covariance itself, by its modes along each axis; the same measured on draws; and waves
    measured on draws, as for priors of images of any size. The measured ones come with the exact variance per pixel.
    """
    rows, columns = np.divmod(np.arange(SIZE**2), SIZE)
    squares = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    covariance = torch.from_numpy(np.exp(-squares / (2 * CORRELATION**2)) + NUGGET * np.eye(SIZE**2))
    prior = GaussianPrior(torch.zeros(SIZE, SIZE, dtype=DOUBLE), covariance)
    distance = torch.arange(SIZE, dtype=DOUBLE)[:, None] - torch.arange(SIZE, dtype=DOUBLE)
    values, vectors = torch.linalg.eigh(torch.exp(-(distance**2) / (2 * CORRELATION**2)))
    axis, values = vectors.flip(1).mT, values.flip(0)
    exact = ExactSpectrum(values[:, None] * values + NUGGET, LearnedModes(axis, axis))
    return prior, {
        "exact": Known(prior, exact, moments=False),
        "calibrated": Known(prior, _measured(prior, training, basis=True), moments=True),
        "calibrated waves": Known(prior, _measured(prior, training, bins=BINS), moments=True),
    }


@lru_cache(maxsize=2)
def stationary(training: int = TRAINING) -> tuple[GaussianPrior, dict[str, Denoiser]]:
    """Cosine modes of the power of the same covariance on an infinite grid, of mean 1 + 1e-4.

    What is known of it: the power of every mode; the same measured on draws; and measured in as few radial bins as
    larger images have, between which the few frequencies of so small an image are interpolated.
    """
    radius = Modes((SIZE, SIZE), DOUBLE).radius
    power = torch.exp(-2 * (math.pi * CORRELATION * radius) ** 2)
    power = power / power.mean() + NUGGET
    images = StationaryGaussianPrior((SIZE, SIZE), power, DOUBLE)
    return cosines(power), {
        "exact": Known(images, ExactSpectrum(power), moments=False),
        "calibrated": Known(images, _measured(images, training, bins=BINS), moments=False),
        "calibrated in 32 bins": Known(images, _measured(images, training, bins=32), moments=False),
    }


def cosines(power: Tensor, mean: float = 0.0) -> GaussianPrior:
    """N(mean, C) with independent cosine modes of the given power (H, W), its covariance dense."""
    modes, n = Modes((SIZE, SIZE), DOUBLE), SIZE**2
    basis = modes.inverse(torch.eye(n, dtype=DOUBLE).reshape(n, SIZE, SIZE)).reshape(n, n)
    covariance = basis.mT @ (power.flatten()[:, None] * basis)
    return GaussianPrior(torch.full((SIZE, SIZE), mean, dtype=DOUBLE), covariance)


def _measured(prior: GaussianPrior | StationaryGaussianPrior, training: int, **choices: int) -> Calibration:
    draws = prior.sample(training, torch.Generator().manual_seed(1))
    return inverse.calibrate(prior, [draws], show=False, **choices)


def drawn(
    make: Callable[[int], tuple[GaussianPrior, dict[str, Denoiser]]], name: str, training: int = TRAINING
) -> Problem:
    """One truth for all operators, and data of each in their order, by numpy's generator of seed 0.

    Args:
        make: the prior, and what is known of it.
        name: of `OPERATORS`.
        training: draws on which covariances are measured.
    """
    prior, learned = make(training)
    random = np.random.default_rng(0)
    values, vectors = np.linalg.eigh(prior.covariance.numpy())
    x = torch.from_numpy(vectors @ (np.sqrt(values.clip(min=0)) * random.standard_normal(SIZE**2)))
    for other, make_operator in OPERATORS.items():
        operator, sigma_y = make_operator()
        measured = _measured_rows(operator)
        y = torch.zeros(SIZE**2, dtype=DOUBLE)
        noise = sigma_y * torch.from_numpy(random.standard_normal(int(measured.sum())))
        y[measured] = (dense(operator) @ x)[measured] + noise
        if other == name:
            return problem(operator, y.reshape(1, SIZE, SIZE), sigma_y, prior, learned)
    raise ValueError(f"{name}: no operator of that name, but {', '.join(OPERATORS)}")


def problem(
    operator: LinearOperator, y: Tensor, sigma_y: float, prior: GaussianPrior, learned: dict[str, Denoiser]
) -> Problem:
    """The problem with its exact posterior.

    Variances are compared pixel by pixel where some were not seen at all, else in the singular vectors of A, of which
    the upper half counts as seen; where all are alike, all are seen.
    """
    matrix, rows = dense(operator), _measured_rows(operator)
    posterior = prior.posterior(matrix[rows], y.flatten()[rows], sigma_y)
    values, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    if not bool(rows.all()):
        directions, seen = torch.eye(len(matrix), dtype=DOUBLE), rows
    else:
        seen = torch.arange(len(values)) >= (len(values) // 2 if values[-1] > values[0] + NUGGET else 0)
        directions = vectors
    return Problem(operator, y, sigma_y, prior, learned, posterior, directions, seen)


def _measured_rows(operator: LinearOperator) -> Tensor:
    weights = operator.weights
    return torch.ones(operator.out_shape, dtype=torch.bool).flatten() if weights is None else weights.flatten() > 0


def fixture(name: str, training: int = TRAINING) -> Problem:
    """Fixture "A" or "A2": see the head of this file; nothing in them is drawn."""
    u = torch.arange(SIZE, dtype=DOUBLE)
    squares = u[:, None] ** 2 + u**2
    power = (1 + squares / 4) ** -2
    signs = 1 - 2 * ((u[:, None] + u) % 2)
    y = 0.5 + 0.3 * torch.sin(0.9 * u + 0.4)[:, None] * torch.cos(0.7 * u) + 0.1 * signs
    prior = cosines(power, mean=0.5)
    learned = {"exact": Known(prior, ExactSpectrum(power), moments=False)}
    if name == "A":
        kept = (3 * u[:, None] + 5 * u) % 8 < 4
        return problem(Mask(kept, dtype=DOUBLE), (y * kept)[None], 0.1, prior, learned)
    transform = torch.kron(dct_matrix(SIZE, DOUBLE), dct_matrix(SIZE, DOUBLE))
    damping = transform.mT @ (torch.exp(-0.15 * squares).flatten()[:, None] * transform)
    operator = Matrix(damping, (SIZE, SIZE), (SIZE, SIZE))
    return problem(operator, operator(y)[None], 0.1, prior, learned)


PROBLEMS: dict[str, Callable[..., Problem]] = {
    f"{kind} {name}": partial(drawn, make, name)
    for kind, make in (("Gaussian", squared_exponential), ("stationary", stationary))
    for name in OPERATORS
} | {f"fixture {name}": partial(fixture, name) for name in ("A", "A2")}
