"""How far Markov chains have mixed: split-R-hat and effective sample size.

Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner, Rank-normalization, folding, and localization: an improved
R-hat, Bayesian Analysis 16, 2021: equations 1 to 4 for R-hat, sections 3 and 4 for effective samples and ranks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHORTEST = 4
"""Iterations below which a chain is too short to be split."""


def split_rhat(draws: Tensor) -> Tensor:
    """sqrt(var+ / W): spread between half chains over the spread within them; 1 is right, above 1.01 is suspicious.

    Every chain is cut into halves, so that one chain alone shows its drift.

    Args:
        draws: scalar quantities along the chains (chains, iterations, *quantities), at least 4 iterations.

    Returns:
        One number per quantity (*quantities); 1 where nothing moves at all, infinite where halves stand still apart.
    """
    halves = _split(draws)
    within, total = _variances(halves)
    ratio = (total / within).sqrt()
    return torch.where(total == 0, 1.0, ratio)


def effective_samples(draws: Tensor) -> Tensor:
    """How many independent draws the chains are worth for the mean of a quantity, all chains together.

    n / tau, tau = 1 + 2 sum of the autocorrelations, summed in pairs while these are positive and made monotone (Geyer
    1992); at most n log10(n).

    Args:
        draws: scalar quantities along the chains (chains, iterations, *quantities), at least 4 iterations.

    Returns:
        One number per quantity (*quantities); the number of draws where nothing moves at all.
    """
    halves = _split(draws)
    chains, n = halves.shape[:2]
    within, total = _variances(halves)
    covariance = _autocovariance(halves).mean(0)
    correlation = 1 - (within * (n - 1) / n - covariance) / total
    correlation[0] = 1.0
    even = n - n % 2
    pairs = correlation[0:even:2] + correlation[1:even:2]
    positive = (pairs > 0).cumprod(0)
    monotone = torch.where(positive.bool(), pairs, torch.inf).cummin(0).values * positive
    tau = 2 * torch.where(positive.bool(), monotone, 0.0).sum(0) - 1
    count = chains * n
    shortest = 1 / math.log10(count)
    return torch.where(total == 0, float(count), count / tau.clamp(min=shortest))


def rank_normalised(draws: Tensor) -> Tensor:
    """Every value's rank among all of its quantity, as a normal quantile: heavy tails no longer hide a difference.

    Args:
        draws: (chains, iterations, *quantities).

    Returns:
        The same shape; equal values share their mean rank.
    """
    flat = draws.double().flatten(0, 1)
    ordered = flat.sort(0).values.movedim(0, -1).contiguous()
    wanted = flat.movedim(0, -1).contiguous()
    below = torch.searchsorted(ordered, wanted)
    up_to = torch.searchsorted(ordered, wanted, right=True)
    rank = (below + up_to + 1).double() / 2
    z = torch.special.ndtri((rank - 0.375) / (len(flat) + 0.25))
    return z.movedim(-1, 0).reshape(draws.shape)


def _split(draws: Tensor) -> Tensor:
    """The chains cut into halves (2 chains, iterations // 2, *quantities); of an odd number the middle is left out."""
    n = draws.shape[1] // 2
    return torch.cat([draws[:, :n], draws[:, -n:]]).double()


def _variances(halves: Tensor) -> tuple[Tensor, Tensor]:
    """W, the mean variance within the chains, and var+ = (n - 1)/n W + B/n."""
    n = halves.shape[1]
    within = halves.var(1).mean(0)
    return within, (n - 1) / n * within + halves.mean(1).var(0)


def _autocovariance(halves: Tensor) -> Tensor:
    """Autocovariances at lags 0 to n - 1, each over n, by FFT (chains, n, *quantities)."""
    n = halves.shape[1]
    centred = halves - halves.mean(1, keepdim=True)
    power = torch.fft.rfft(centred, n=2 * n, dim=1).abs().square()
    return torch.fft.irfft(power, n=2 * n, dim=1)[:, :n] / n
