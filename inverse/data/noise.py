"""Noise of a scan from the scan itself, and prewhitening of its coils.

The corners of k-space are no measure of the noise: they still hold signal. In three real, fully sampled brain scans
they read 1.0, 2.2 and 1.6 times the noise in the air of the image. Where whole lines were sampled, a transform along
them shows air at both ends of the readout, whatever the undersampling across; that is what is measured here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive, check_tensor

STRIPS = 6  # per side of the field of view, each 1/25 of it: the outer quarter on both sides
MIN_SAMPLES = 400  # per strip, half of it per ring; the median then scatters by 4 to 5 %
MEDIAN = math.sqrt(2 * math.log(2))  # median of |n| for complex noise of 1 per real component


def estimate_noise(kspace: Tensor, mask: Tensor | None = None) -> Tensor:
    """Standard deviation of the noise of real and imaginary part each, per coil.

    The least of: the air at the ends of the readout (lines sampled as a whole), and radial bands of high spatial
    frequency. Medians throughout, so that a few bright samples do not matter. Rows and columns of k-space that are
    zero or filtered are left out.

    Args:
        kspace: (*batch, coils, y, x) complex, with readout oversampling where there is one (it is pure air).
        mask: (x,) or (y, x), nonzero where sampled; None finds it from the zeros of the k-space.

    Returns:
        (*batch, coils) float32, in the unit of the k-space.

    Raises:
        InputError: not complex, wrong shape, or too few samples to measure from.

    Notes: within some 5 % where air is visible at an end of the readout, at 640 x 320 with several coils; the least of
    few samples reads low, up to 15 % at 192 x 96 with one coil. For two-dimensional patterns an upper bound, up to
    twice the noise. Check it against the residual of the reconstruction, which must be near 1.
    """
    check_tensor("kspace", kspace, complex_=True)
    if kspace.ndim < 3 or kspace.numel() == 0:
        raise InputError(f"kspace: expected shape (*batch, coils, y, x), got {tuple(kspace.shape)}.")
    slices = kspace.reshape(-1, *kspace.shape[-3:])
    levels = torch.stack([_slice_noise(k, _pattern(k, mask)) for k in slices])
    return levels.reshape(kspace.shape[:-2]).float()


def noise_covariance(kspace: Tensor, mask: Tensor | None = None) -> Tensor:
    """Covariance E[n n^H] / 2 of the noise between coils, so that its diagonal is the variance per real component.

    Args:
        kspace: (coils, y, x) complex, one slice.
        mask: as in `estimate_noise`.

    Returns:
        (coils, coils) complex64, Hermitian and positive definite; correlations from the quietest samples, diagonal
        from `estimate_noise`.

    Raises:
        InputError: as in `estimate_noise`.
    """
    check_tensor("kspace", kspace, complex_=True)
    if kspace.ndim != 3:
        raise InputError(f"kspace: expected shape (coils, y, x), got {tuple(kspace.shape)}.")
    pattern = _pattern(kspace, mask)
    groups = [g for _, groups in _groups(kspace, pattern) for g in groups]
    quiet = min(groups, key=lambda g: float(_level(g).square().sum()))
    covariance = quiet @ quiet.mH
    scale = _slice_noise(kspace, pattern) / covariance.diagonal().real.sqrt().clamp_min(1e-30)
    return covariance * scale[:, None] * scale[None, :]


def noise_scan_covariance(samples: Tensor, *, bandwidth: float = 1.0) -> Tensor:
    """Covariance E[n n^H] / 2 of the noise between coils from a noise scan: samples without signal.

    Args:
        samples: (coils, n) complex, or (coils, ...) whose other axes are all samples; at least as many as coils, better
            ten times as many: entries scatter by 1 / sqrt(n).
        bandwidth: noise power of a sample of the scan over that of a sample of the noise scan. The power goes with
            the receiver bandwidth, so it is (dwell time of the noise scan) / (dwell time of the scan), with both in one
            unit; divided by the relative receiver noise bandwidth where the noise scan's header gives one (often 0.79).
            Default 1: the same receiver settings.

    Returns:
        (coils, coils) complex64, Hermitian and positive definite, its diagonal the variance per real component.

    Raises:
        InputError: not complex, fewer samples than coils, a coil without noise, a bandwidth that is not positive.

    Reference: M. S. Hansen, P. Kellman, "Image reconstruction: an overview for clinicians", JMRI 41, 2015, noise
    prewhitening; P. Kellman, E. R. McVeigh, "Image reconstruction in SNR units", MRM 54, 2005, for the bandwidth.
    """
    check_tensor("noise scan", samples, complex_=True)
    check_positive("bandwidth", bandwidth)
    if samples.ndim < 2 or samples.numel() == 0:
        raise InputError(f"noise scan: expected shape (coils, n), got {tuple(samples.shape)}.")
    flat = samples.flatten(1).to(torch.complex128)
    coils, count = flat.shape
    if count < coils:
        raise InputError(
            f"noise scan: expected at least as many samples as its {coils} coils, got {count}; measure longer, or "
            "put coils first."
        )
    covariance = flat @ flat.mH * (bandwidth / (2 * count))
    if int(torch.linalg.cholesky_ex(covariance)[1]):
        raise InputError(
            "noise scan: expected independent noise in every coil, got a singular covariance; drop a coil."
        )
    return covariance.to(torch.complex64)


def prewhiten(kspace: Tensor, covariance: Tensor) -> Tensor:
    """Mix the coils so that their noise is independent, 1 per real component: L^-1 k with covariance = L L^H.

    Maps estimated from the result fit it; maps estimated before do not.

    Args:
        kspace: (*batch, coils, y, x) complex.
        covariance: (coils, coils) Hermitian, positive definite, per real component as from `noise_covariance` (the
            scan itself) or `noise_scan_covariance` (a scan without signal).

    Returns:
        (*batch, coils, y, x).

    Raises:
        InputError: shapes that do not fit, or a covariance that is not positive definite.

    Reference: K. P. Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories",
    Magnetic Resonance in Medicine 46, 2001, Appendix B.
    """
    check_tensor("kspace", kspace, complex_=True)
    coils = kspace.shape[-3] if kspace.ndim >= 3 else 0
    if tuple(covariance.shape) != (coils, coils):
        raise InputError(f"covariance: expected shape ({coils}, {coils}), got {tuple(covariance.shape)}.")
    factor, failed = torch.linalg.cholesky_ex(covariance.to(kspace.dtype))
    if int(failed):
        raise InputError("covariance: expected a positive definite matrix; measure it from more samples.")
    return torch.linalg.solve_triangular(factor, kspace.flatten(-2), upper=False).reshape(kspace.shape)


def _pattern(kspace: Tensor, mask: Tensor | None) -> Tensor:
    """Sampled positions (y, x) without rows and columns that are zero or filtered."""
    power = kspace.abs().square().mean(0)
    pattern = power > 0
    if mask is not None:
        pattern = pattern & (mask != 0).to(pattern.device).expand(pattern.shape)
    for axis in (0, 1):
        level = torch.where(pattern, power, torch.nan).nanmedian(1 - axis).values
        half = level.shape[0] // 4
        outer = torch.cat([level[:half], level[-half:]])
        # below half the usual amplitude of the outer lines: padding or a filter, not noise alone
        kept = level > 0.25 * outer.nanmedian()
        pattern = pattern & (kept[:, None] if axis == 0 else kept[None, :])
    return pattern


def _slice_noise(kspace: Tensor, pattern: Tensor) -> Tensor:
    """Noise (coils,) of one slice: the least of what its groups of samples say."""
    levels = [combine(torch.stack([_level(g) for g in groups])) for combine, groups in _groups(kspace, pattern)]
    return torch.stack(levels).amin(0)


def _groups(kspace: Tensor, pattern: Tensor) -> list:
    """Pairs of a rule and groups of samples (coils, n) that it combines; at least one."""
    found = [(_least, bands)] if (bands := _bands(kspace, pattern)) else []
    for axis in (-2, -1):
        if strips := _strips(kspace, pattern, axis):
            found.append((_plateau, strips))
    if not found:
        raise InputError("kspace: too few sampled positions to estimate the noise; give the noise level.")
    return found


def _bands(kspace: Tensor, pattern: Tensor) -> list[Tensor]:
    """Samples in rings of k-space, outer half only; radius 1 is the edge along an axis."""
    y, x = ((torch.arange(n, device=kspace.device) - n // 2) / (n / 2) for n in pattern.shape)
    radius = torch.hypot(y[:, None], x[None, :])
    rings = [pattern & (radius >= r / 10) & (radius < (r + 1) / 10) for r in range(5, 15)]
    return [kspace[:, ring] for ring in rings if int(ring.sum()) >= MIN_SAMPLES // 2]


def _strips(kspace: Tensor, pattern: Tensor, axis: int) -> list[Tensor]:
    """Samples at both ends of the field of view along an axis whose lines are complete; from outside to inside."""
    lines, points = pattern.any(axis), pattern.any(-1 if axis == -2 else -2)
    index, n, count = points.nonzero().flatten(), int(points.sum()), int(lines.sum())
    if n < 32 or count < 8 or int(index[-1] - index[0]) + 1 != n or int(pattern.sum()) != n * count:
        return []
    kept = (kspace.mT if axis == -1 else kspace)[:, index][:, :, lines]
    profile = torch.fft.fftshift(torch.fft.ifft(kept, dim=1, norm="ortho"), dim=1)
    width = min(n // 8, max(n // 25, math.ceil(MIN_SAMPLES / count)))
    pairs = [(profile[:, i * width : (i + 1) * width], profile[:, n - (i + 1) * width : n - i * width])
             for i in range(min(STRIPS, n // (4 * width)))]  # fmt: skip
    return [strip.flatten(1) for pair in pairs for strip in pair]


def _level(samples: Tensor) -> Tensor:
    return samples.abs().median(1).values / MEDIAN


def _least(levels: Tensor) -> Tensor:
    return levels.amin(0)


def _plateau(levels: Tensor) -> Tensor:
    """Level of the air (coils,) from the strips (strips, coils), the outermost pair first.

    Receivers damp the outermost ends of an oversampled readout. So, where three inner strips agree, they are air and
    their median counts; elsewhere the object fills the field of view and the quietest strip is the best there is.
    """
    inner = levels[2:]
    if len(inner) < 3:
        return levels.amin(0)
    agree = inner <= 1.15 * inner.amin(0)
    median = torch.where(agree, inner, torch.nan).nanmedian(0).values
    return torch.where(agree.sum(0) >= 3, median, levels.amin(0))
