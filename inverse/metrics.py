"""Figures of merit: image quality, honesty of error bars, distance to a known posterior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inverse.errors import InputError


def psnr(image: Tensor, reference: Tensor, region: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of complex images that of magnitudes; the peak is the largest reference value.

    Args:
        image: the image (*shape), real or complex.
        reference: the truth, same shape.
        region: where to look, bool; None is everywhere.
    """
    image, reference = _magnitudes(image, reference)
    error = (image - reference) ** 2
    mse = error.mean() if region is None else error[region].mean()
    return float(20 * torch.log10(reference.max()) - 10 * torch.log10(mse))


def ssim(image: Tensor, reference: Tensor, region: Tensor | None = None) -> float:
    """Structural similarity (H, W), of complex images of magnitudes; window 7, data range = largest reference value.

    Wang, Bovik, Sheikh and Simoncelli 2004, as implemented by scikit-image with its defaults.
    """
    from skimage.metrics import structural_similarity

    image, reference = _magnitudes(image, reference)
    value, full = structural_similarity(reference.numpy(), image.numpy(), data_range=float(reference.max()), full=True)
    return float(value) if region is None else float(full[region.cpu().numpy()].mean())


def coverage(samples: Tensor, reference: Tensor, level: float = 0.9, region: Tensor | None = None) -> float:
    """Share of pixels whose truth lies in the central interval that the samples predict; `level` is right.

    The interval of each real component is mean +- t sd sqrt(1 + 1/n), t Student's quantile of n - 1 degrees of freedom:
    if truth and samples are draws of one normal distribution, it holds the truth with probability `level` at any n.

    Args:
        samples: posterior samples (n, *shape), n >= 2.
        reference: the truth (*shape).
        level: probability of the interval.
        region: where to look (*shape), bool.

    Raises:
        InputError: fewer than two samples.
    """
    from scipy.stats import t as student

    n = len(samples)
    if n < 2:
        raise InputError(f"coverage: needs at least 2 samples, got {n}; ask solve for more.")
    if samples.is_complex():
        samples, reference = torch.view_as_real(samples), torch.view_as_real(reference.to(samples.dtype))
        region = None if region is None else region[..., None].expand(reference.shape)
    width = student.ppf((1 + level) / 2, n - 1) * math.sqrt(1 + 1 / n) * samples.std(0)
    inside = (reference - samples.mean(0)).abs() <= width
    return float((inside if region is None else inside[region]).float().mean())


def gaussian_wasserstein(samples: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """Wasserstein-2 distance of the normal distribution fitted to samples (n, d) to N(mean, covariance), real data.

    W^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C2^(1/2) C1 C2^(1/2))^(1/2)) (Gelbrich 1990).
    """
    samples, mean, covariance = samples.double(), mean.double(), covariance.double()
    fitted = torch.cov(samples.mT)
    root = _root(covariance)
    cross = torch.linalg.eigvalsh(root @ fitted @ root).clamp(min=0).sqrt().sum()
    squared = ((samples.mean(0) - mean) ** 2).sum() + fitted.trace() + covariance.trace() - 2 * cross
    return math.sqrt(max(float(squared), 0.0))


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def _magnitudes(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if image.shape != reference.shape:
        raise InputError(f"metric: image {tuple(image.shape)} and reference {tuple(reference.shape)} differ in shape.")
    return magnitude(image).double().cpu(), magnitude(reference).double().cpu()


def magnitude(image: Tensor) -> Tensor:
    """|image| of a complex image; a real one as it is, with its sign."""
    image = image.detach()
    return image.abs() if image.is_complex() else image
