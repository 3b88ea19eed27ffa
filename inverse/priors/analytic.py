"""Priors whose denoiser and posterior are known exactly: the oracles against which every sampler is certified.

Covariances are per real component: a complex prior with covariance C has E[(x - m)(x - m)^H] = 2 C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.transforms import Modes
from inverse.priors.base import Denoiser, sigma_per_sample


class GaussianPrior(Denoiser):
    """N(m, C): D(x, sigma) = m + C (C + sigma^2 I)^-1 (x - m).

    Args:
        mean: the mean m, shape (*shape,), real or complex; its dtype is the dtype of all results.
        covariance: C, (n, n) with n = number of pixels, symmetric or Hermitian, positive semi-definite.

    Raises:
        InputError: shapes that do not fit.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        n = mean.numel()
        if covariance.shape != (n, n):
            raise InputError(f"GaussianPrior: covariance {tuple(covariance.shape)} does not fit a mean of {n} pixels.")
        self.mean, self.covariance = mean, covariance.to(mean.dtype)
        self.shape, self.name = tuple(mean.shape), "gaussian"
        self.channels = 2 if mean.is_complex() else (mean.shape[0] if mean.ndim == 3 else 1)
        values, self.vectors = torch.linalg.eigh(self.covariance)
        self.values = values.clamp(min=0)
        self.data_std = float(self.values.mean().sqrt())

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x], exact."""
        modes, level = self._modes(x, sigma)
        gain = self.values / (self.values + level[:, None] ** 2)
        return (self.mean.flatten() + (gain * modes) @ self.vectors.mT).reshape(x.shape)

    def moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and the exact variance per pixel and real component."""
        flat = x.reshape(-1, self.mean.numel())
        level = sigma_per_sample(sigma, flat)[:, None] ** 2
        spread = self.values * level / (self.values + level)
        variance = spread @ (self.vectors.abs() ** 2).mT
        return self.denoise(x, sigma), variance.reshape(x.shape)

    def mse(self, sigma: float) -> float:
        """Exact mean squared error per real component."""
        return float((self.values * sigma**2 / (self.values + sigma**2)).mean())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (count, *shape)."""
        noise = torch.randn(count, self.mean.numel(), 2, generator=generator, dtype=self.values.dtype)
        white = torch.view_as_complex(noise) if self.mean.is_complex() else noise[..., 0]
        return (self.mean.flatten() + (white * self.values.sqrt()) @ self.vectors.mT).reshape(count, *self.mean.shape)

    def posterior(self, matrix: Tensor, y: Tensor, sigma_y: float) -> GaussianPrior:
        """The exact posterior given y = A x + sigma_y n.

        Args:
            matrix: A (m, n), dense.
            y: the data (m,).
            sigma_y: noise level per real component.
        """
        mean, covariance, _ = self._condition(matrix, y, sigma_y)
        return GaussianPrior(mean.reshape(self.mean.shape), covariance)

    def log_density(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """log p(x_sigma = x) up to the same constant for all Gaussians of this size, shape (samples,)."""
        modes, level = self._modes(x, sigma)
        variance = self.values + level[:, None] ** 2
        return _log_normal(modes.abs() ** 2, variance, complex_=self.mean.is_complex())

    def evidence(self, matrix: Tensor, y: Tensor, sigma_y: float) -> Tensor:
        """log p(y) up to the same constant for all Gaussians of this size."""
        return self._condition(matrix, y, sigma_y)[2]

    def _modes(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        flat = x.reshape(-1, self.mean.numel()) - self.mean.flatten()
        return flat @ self.vectors.conj(), sigma_per_sample(sigma, flat)

    def _condition(self, matrix: Tensor, y: Tensor, sigma_y: float) -> tuple[Tensor, Tensor, Tensor]:
        matrix, y = matrix.to(self.mean.dtype), y.to(self.mean.dtype).flatten()
        cross = matrix @ self.covariance
        inner = cross @ matrix.mH + sigma_y**2 * torch.eye(len(y), dtype=y.dtype)
        misfit = y - matrix @ self.mean.flatten()
        gain = torch.linalg.solve(inner, cross).mH
        covariance = self.covariance - gain @ cross
        values, vectors = torch.linalg.eigh(inner)
        evidence = _log_normal((vectors.mH @ misfit).abs() ** 2, values, complex_=y.is_complex())
        return self.mean.flatten() + gain @ misfit, (covariance + covariance.mH) / 2, evidence


class GaussianMixturePrior(Denoiser):
    """sum_k w_k N(m_k, C_k): the denoiser is the average of the components', weighted by their posterior probability.

    Args:
        weights: w_k (components,), normalised here.
        components: one `GaussianPrior` each, all of one shape.

    Raises:
        InputError: numbers of weights and components differ, or shapes differ.
    """

    def __init__(self, weights: Tensor, components: Sequence[GaussianPrior]):
        if len(weights) != len(components) or len({c.shape for c in components}) != 1:
            raise InputError("GaussianMixturePrior: expected one weight per component and components of one shape.")
        self.weights, self.components = weights / weights.sum(), list(components)
        first = self.components[0]
        self.shape, self.channels, self.name = first.shape, first.channels, "gaussian-mixture"
        mean = sum(w * c.mean for w, c in zip(self.weights, self.components, strict=True))
        spread = sum(
            w * (c.values.mean() + ((c.mean - mean).abs() ** 2).mean() / (1 + first.mean.is_complex()))
            for w, c in zip(self.weights, self.components, strict=True)
        )
        self.data_std = math.sqrt(float(spread))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x], exact."""
        share = self._responsibilities(x, sigma)
        means = torch.stack([c.denoise(x, sigma) for c in self.components])
        return (share * means).sum(0)

    def moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and the exact variance per pixel and real component."""
        share = self._responsibilities(x, sigma)
        parts = [c.moments(x, sigma) for c in self.components]
        mean = sum(s * m for s, (m, _) in zip(share, parts, strict=True))
        halved = 2 if x.is_complex() else 1
        variance = sum(s * (v + (m - mean).abs() ** 2 / halved) for s, (m, v) in zip(share, parts, strict=True))
        return mean, variance

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (count, *shape)."""
        which = torch.multinomial(self.weights.double(), count, replacement=True, generator=generator)
        draws = torch.stack([c.sample(count, generator) for c in self.components])
        return draws[which, torch.arange(count)]

    def posterior(self, matrix: Tensor, y: Tensor, sigma_y: float) -> GaussianMixturePrior:
        """The exact posterior given y = A x + sigma_y n, see `GaussianPrior.posterior`."""
        evidence = torch.stack([c.evidence(matrix, y, sigma_y) for c in self.components])
        weights = torch.softmax(self.weights.log() + evidence, dim=0)
        return GaussianMixturePrior(weights, [c.posterior(matrix, y, sigma_y) for c in self.components])

    def _responsibilities(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Posterior probability of each component (components, *batch), with an axis of 1 for each of the image."""
        scores = [w.log() + c.log_density(x, sigma) for w, c in zip(self.weights, self.components, strict=True)]
        image = self.components[0].mean.ndim
        return torch.softmax(torch.stack(scores), dim=0).reshape(-1, *x.shape[: x.ndim - image], *(1,) * image)


class StationaryGaussianPrior(Denoiser):
    """Zero-mean stationary Gaussian images: independent modes (FFT for complex, DCT for real) of power c(radius).

    Args:
        shape: image size (H, W).
        power: variance per mode and real component, a function of the radius in cycles per pixel.
        dtype: complex or real dtype of the images.
    """

    shape: tuple[int, ...]

    def __init__(self, shape: tuple[int, int], power: Tensor, dtype: torch.dtype = torch.complex128):
        self.transform = Modes(shape, dtype)
        if power.shape != tuple(shape):
            raise InputError(
                f"StationaryGaussianPrior: power {tuple(power.shape)} does not fit images of {tuple(shape)}."
            )
        self.power, self.shape, self.dtype = power, tuple(shape), dtype
        self.channels, self.name = (2 if dtype.is_complex else 1), "stationary-gaussian"
        self.data_std = math.sqrt(float(power.mean()))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x], exact."""
        level = sigma_per_sample(sigma, x.reshape(-1, *self.shape)).reshape(-1, 1, 1) ** 2
        modes = self.transform.forward(x.reshape(-1, *self.shape))
        return self.transform.inverse(self.power / (self.power + level) * modes).reshape(x.shape)

    def mse(self, sigma: float) -> float:
        """Exact mean squared error per real component."""
        return float((self.power * sigma**2 / (self.power + sigma**2)).mean())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Exact draws (count, H, W)."""
        noise = torch.randn(count, *self.shape, 2, generator=generator, dtype=self.power.dtype)
        white = torch.view_as_complex(noise) if self.dtype.is_complex else noise[..., 0]
        return self.transform.inverse(self.power.sqrt() * white)


def _log_normal(squares: Tensor, variance: Tensor, *, complex_: bool) -> Tensor:
    """log N over independent coordinates, without the constant: complex coordinates are two real ones each."""
    return -0.5 * (squares / variance + (2 if complex_ else 1) * variance.log()).sum(-1)
