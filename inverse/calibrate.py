"""Measure how wrong a denoiser is: mean squared error and spectrum of its whitened residual, per noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.transforms import LearnedModes, Modes
from inverse.priors.base import Denoiser
from inverse.priors.calibration import Calibration, radial_bins, radial_map
from inverse.progress import progress

LEVELS, BINS = 24, 32
ROUNDS, SETTLED = 30, 1e-3
"""Of `_power`: most rounds, and the relative change at which they stop."""

Errors = Sequence[tuple[Tensor, Tensor]]  # e = x0 - D and its expected square, batch by batch


def calibrate(
    prior: Denoiser,
    images: Sequence[Tensor],
    *,
    levels: int = LEVELS,
    bins: int = BINS,
    basis: bool = False,
    seed: int = 0,
    show: bool | None = None,
) -> Calibration:
    """Error tables of a prior on images of people that it was trained on (or that nobody tests on).

    At each of `levels` noise levels, log-spaced over the prior's range, noise is added to all images once;
    e = x0 - D, mse = mean of e^2 per real component, power = mean of |F (e / sqrt(s))|^2 per real component in radial
    bins. s is the variance per pixel that the prior states, over what the modes of that power spread to the pixel, so
    that the covariance S^(1/2) F^H diag(power) F S^(1/2) has the stated variance; or the mse where it states none.

    Args:
        prior: the denoiser; its present calibration is not used.
        images: batches of clean images (count, H, W) in the prior's scale; sizes may differ between batches.
        levels: number of noise levels.
        bins: radial frequency bins.
        basis: learn the modes along each axis, and the power of each mode, instead of radial bins of waves: for images
            of one size on which waves do not fit, as correlations as long as the image make them; several thousand
            images are needed.
        seed: seed of the noise.
        show: progress display, see `inverse.progress.progress`.

    Raises:
        InputError: no images, the wrong kind of images for this prior, images of several sizes for a basis, or too few
            levels or bins to interpolate.
    """
    if levels < 2 or bins < 2:
        raise InputError(f"calibrate: expected at least 2 levels and 2 bins, got {levels} and {bins}; take more.")
    if not images or any(len(x) == 0 for x in images):
        raise InputError("calibrate: no images; give at least one batch (count, H, W).")
    for x in images:
        prior.check_image(tuple(x.shape[1:]), x.dtype)
    if basis and len({x.shape[-2:] for x in images}) > 1:
        raise InputError("calibrate: a basis is that of images of one size, got several; cut them, or use basis=False.")
    sigma_max = min(prior.sigma_max, 100 * prior.data_std)
    grid = torch.exp(torch.linspace(math.log(prior.sigma_min), math.log(sigma_max), levels))
    mse, power = [], []
    modes: LearnedModes | None = None
    with progress("calibrate", levels, show) as bar:
        for k, sigma in reversed(list(enumerate(grid.tolist()))):  # at the largest level errors are the images
            errors = _errors_at(prior, images, sigma, torch.Generator().manual_seed(seed * 1009 + k))
            if basis and modes is None:
                modes = _principal_modes(errors)
            mse.append(_mean_square(errors))
            power.append(_power(errors, modes, bins, scaled=prior.moments is not None))
            bar.advance(1, f"sigma {sigma:.3g}")
    tables = grid, torch.tensor(mse[::-1]), torch.stack(power[::-1]).float()
    return Calibration(*tables) if modes is None else Calibration(*tables, *(m.cpu() for m in modes.axes))


def _errors_at(prior: Denoiser, images: Sequence[Tensor], sigma: float, generator: torch.Generator) -> Errors:
    """Errors at one noise level and their stated variance, or their mean square where none is stated."""
    errors = []
    for x0 in images:
        noise = torch.randn(*x0.shape, 2, generator=generator, dtype=x0.dtype.to_real())
        noise = torch.view_as_complex(noise) if x0.is_complex() else noise[..., 0]
        noisy = x0 + sigma * noise.to(x0.device)
        if prior.moments is None:
            errors.append((x0 - prior.denoise(noisy, sigma), torch.ones((), device=x0.device)))
        else:
            mean, variance = prior.moments(noisy, sigma)
            errors.append((x0 - mean, variance.unsqueeze(-3) if variance.ndim < x0.ndim else variance))
    if prior.moments is not None:
        return errors
    mse = _mean_square(errors)
    return [(error, mse * one) for error, one in errors]


def _mean_square(errors: Errors) -> float:
    squares = sum(float(error.abs().double().square().sum()) for error, _ in errors)
    return squares / sum(error.numel() * (2 if error.is_complex() else 1) for error, _ in errors)


def _principal_modes(errors: Errors) -> LearnedModes:
    """Along each axis the eigenvectors of the covariance of the whitened errors, by falling variance."""
    white = torch.cat([(error / variance.sqrt()).flatten(0, -3) for error, variance in errors])
    along = torch.einsum("nij,nkj->ik", white, white.conj()), torch.einsum("nji,njk->ik", white, white.conj())
    rows, columns = (torch.linalg.eigh(covariance)[1].flip(1).mH for covariance in along)
    return LearnedModes(rows, columns)


def _power(errors: Errors, learned: LearnedModes | None, bins: int, *, scaled: bool) -> Tensor:
    """Power per radial bin, or per learned mode, at one noise level.

    The scale s = v / spread(power) depends on the power, which is measured on e / sqrt(s): a few rounds settle both.
    Waves spread evenly, so that one round is all for complex images.
    """
    even = learned is None and errors[0][0].is_complex()
    power: Tensor | None = None
    for _ in range(1 if even or not scaled else ROUNDS):
        before, power = power, _measured(errors, learned, bins, power if scaled else None)
        if before is not None and float((power / before).log().abs().max()) < SETTLED:
            break
    assert power is not None
    return power


def _measured(errors: Errors, learned: LearnedModes | None, bins: int, scale: Tensor | None) -> Tensor:
    """Power of e / sqrt(s), where `scale` is the power of the round before, of which s is made; None: s = v."""
    total, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for error, variance in errors:
        modes = learned or Modes((error.shape[-2], error.shape[-1]), error.dtype, error.device)
        if scale is not None:
            power = scale if learned else radial_map(scale, modes.radius.cpu())
            variance = variance / modes.spread(power.to(modes.radius))
        spectrum = modes.forward(error / variance.sqrt()).abs().double().square().flatten(0, -3).cpu()
        numbers = torch.full(spectrum.shape[1:], len(spectrum) * (2.0 if error.is_complex() else 1.0)).double()
        sums = spectrum.sum(0)
        if learned is None:
            index = radial_bins(modes.radius, bins).flatten().cpu()
            sums, numbers = (torch.zeros(bins).double().index_add_(0, index, t.flatten()) for t in (sums, numbers))
        total, count = total + sums, count + numbers
    return (total / count).clamp(min=1e-8) if learned else _fill(total, count)


def _fill(total: Tensor, count: Tensor) -> Tensor:
    """Power per bin; a bin that no image size reaches takes the value of the nearest one that is reached."""
    reached = torch.nonzero(count > 0).flatten()
    nearest = reached[(torch.arange(len(count))[:, None] - reached[None, :]).abs().argmin(dim=1)]
    return (total[nearest] / count[nearest]).clamp(min=1e-8)
