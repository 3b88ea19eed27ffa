"""Measure how wrong a denoiser is: mean squared error and spectrum of its whitened residual, per noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.transforms import Modes
from inverse.priors.base import Denoiser
from inverse.priors.calibration import Calibration, radial_bins
from inverse.progress import progress

LEVELS, BINS = 24, 32


def calibrate(
    prior: Denoiser,
    images: Sequence[Tensor],
    *,
    levels: int = LEVELS,
    bins: int = BINS,
    seed: int = 0,
    show: bool | None = None,
) -> Calibration:
    """Error tables of a prior on images of people that it was trained on (or that nobody tests on).

    At each of `levels` noise levels, log-spaced over the prior's range, noise is added to all images once;
    e = x0 - D, mse = mean of e^2 per real component, power = radial mean of |F (e / sqrt(v))|^2 per real component, v
    the variance that the prior states, or its mse.

    Args:
        prior: the denoiser; its present calibration is not used.
        images: batches of clean images (count, H, W) in the prior's scale; sizes may differ between batches.
        levels: number of noise levels.
        bins: radial frequency bins.
        seed: seed of the noise.
        show: progress display, see `inverse.progress.progress`.

    Raises:
        InputError: no images, the wrong kind of images for this prior, or too few levels or bins to interpolate.
    """
    if levels < 2 or bins < 2:
        raise InputError(f"calibrate: expected at least 2 levels and 2 bins, got {levels} and {bins}; take more.")
    if not images or any(len(x) == 0 for x in images):
        raise InputError("calibrate: no images; give at least one batch (count, H, W).")
    for x in images:
        prior.check_image(tuple(x.shape[1:]), x.dtype)
    sigma_max = min(prior.sigma_max, 100 * prior.data_std)
    grid = torch.exp(torch.linspace(math.log(prior.sigma_min), math.log(sigma_max), levels))
    mse, power = torch.zeros(levels, dtype=torch.float64), torch.zeros(levels, bins, dtype=torch.float64)
    with progress("calibrate", levels, show) as bar:
        for k, sigma in enumerate(grid.tolist()):
            mse[k], power[k] = _errors_at(prior, images, sigma, bins, torch.Generator().manual_seed(seed * 1009 + k))
            bar.advance(1, f"sigma {sigma:.3g}")
    return Calibration(grid, mse.float(), power.float())


def _errors_at(
    prior: Denoiser, images: Sequence[Tensor], sigma: float, bins: int, generator: torch.Generator
) -> tuple[float, Tensor]:
    """Mean squared error and power per radial bin at one noise level."""
    squares, pixels = 0.0, 0
    residuals = []
    for x0 in images:
        noise = torch.randn(*x0.shape, 2, generator=generator, dtype=x0.dtype.to_real())
        noise = torch.view_as_complex(noise) if x0.is_complex() else noise[..., 0]
        noisy = x0 + sigma * noise.to(x0.device)
        mean, variance = (
            prior.moments(noisy, sigma) if prior.moments is not None else (prior.denoise(noisy, sigma), None)
        )
        error = x0 - mean
        squares += float(error.abs().double().square().sum())
        pixels += error.numel() * (2 if error.is_complex() else 1)
        residuals.append((error, variance))
    mse = squares / pixels
    total, count = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)
    for error, variance in residuals:
        white = error / (math.sqrt(mse) if variance is None else variance.sqrt())
        modes = Modes((error.shape[-2], error.shape[-1]), error.dtype, error.device)
        spectrum = modes.forward(white).abs().double().square().flatten(0, -3).sum(0)
        index = radial_bins(modes.radius, bins).flatten().cpu()
        total.index_add_(0, index, spectrum.flatten().cpu())
        weight = float(white.numel() // modes.radius.numel() * (2 if white.is_complex() else 1))
        count.index_add_(0, index, torch.full((len(index),), weight, dtype=torch.float64))
    return mse, _fill(total, count)


def _fill(total: Tensor, count: Tensor) -> Tensor:
    """Power per bin; a bin that no image size reaches takes the value of the nearest one that is reached."""
    reached = torch.nonzero(count > 0).flatten()
    nearest = reached[(torch.arange(len(count))[:, None] - reached[None, :]).abs().argmin(dim=1)]
    return (total[nearest] / count[nearest]).clamp(min=1e-8)
