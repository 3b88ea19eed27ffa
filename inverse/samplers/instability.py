"""How much the prior changes its mind at the end of a run: a warning of detail that it may have made up.

    U^2 = mean over the window of |D - mean D|^2 / what is expected,   sigma from 0.25 to 0.02 data standard deviations

Between two modes of the images a network is smoother than the true denoiser, and a run can end there, on an image that
no training image resembles. On the way D swings from one mode to the other when elsewhere it has settled (Aithal,
Maini, Lipton and Kolter, Understanding hallucinations in diffusion models through mode interpolation, NeurIPS 2024, who
take the variance over the last steps). Here the levels are weighted by the log of the noise level that they stand for,
so that the map does not depend on the grid, and the variance is divided by that of a run which is right: there D is a
martingale, whose variance from one level to a later one is the fall of the mean squared error, `prior.mse`.

What it is not: an error bar. U belongs to one trajectory and says that the network is unsure where it is; the standard
deviation of the samples says that the data do not decide. Show it beside that, never in its place. It is near 1 on
average for ancestral steps and for draws, lower for deterministic ones: compare within one method only. It has not been
validated clinically: no threshold is known above which detail is false, nor one below which it is true.

Measured (tests/test_instability.py): three narrow modes and a smoothed denoiser, samples between the modes found with
an area under the curve of 0.97; a window up to 0.5 data standard deviations gives 0.88, one up to 1 gives 0.67. On MRI
(experiments/results/instability.md) it is a weak guide: over the head its rank correlation with the error is 0.10 to
0.28, where the standard deviation of the samples has 0.29 to 0.36 and 0.03 to 0.19 are left beside it; at edges it is
negative.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from inverse.errors import InputError
from inverse.priors.base import Denoiser

WINDOW = (0.02, 0.25)
"""Noise levels that count, in data standard deviations: above it every run still chooses between modes."""
FEWEST = 2


class Instability:
    """Accumulates the variance of D over the window; keeps three images, however many levels there are.

    Args:
        prior: the prior, for its scale and its mean squared error.
        window: smallest and largest noise level in data standard deviations.
    """

    def __init__(self, prior: Denoiser, window: tuple[float, float] = WINDOW):
        self._prior, self._window = prior, window
        self._levels: list[float] = []
        self._weights: list[float] = []
        self._first = self._previous = self._sum = self._squares = torch.empty(0)

    def add(self, sigma: float, denoised: Tensor) -> None:
        """Take D at one level; levels outside the window and repeated ones count nothing.

        Args:
            sigma: the noise level.
            denoised: the prior's estimate D (items, *in_shape).
        """
        if not _inside(sigma, self._prior, self._window):
            return
        if not self._levels:
            self._first = denoised
            self._previous = self._sum = torch.zeros_like(denoised)
            self._squares = torch.zeros_like(denoised.real)
            self._levels, self._weights = [sigma], [0.0]
            return
        # Differences to the first one: squares of the images would drown their changes in rounding.
        change = denoised - self._first
        share = max(0.0, math.log(self._levels[-1] / sigma)) / 2
        self._weights[-1] += share
        self._levels.append(sigma)
        self._weights.append(share)
        self._sum = self._sum + share * (self._previous + change)
        self._squares = self._squares + share * (self._previous.abs() ** 2 + change.abs() ** 2)
        self._previous = change

    def map(self) -> Tensor:
        """U per pixel (items, *in_shape), real; for complex images of both parts together."""
        total = sum(self._weights)
        variance = (self._squares / total - (self._sum / total).abs() ** 2).clamp(min=0)
        components = 2 if self._first.is_complex() else 1
        return (variance / (components * self.expected())).sqrt()

    def expected(self) -> float:
        """Variance over the window, per real component, of a martingale whose variance grows as the error falls."""
        total, rest = sum(self._weights), 1.0
        start, variance = self._prior.mse(self._levels[0]), 0.0
        for sigma, weight in zip(self._levels, self._weights, strict=True):
            share, grown = weight / total, max(0.0, start - self._prior.mse(sigma))
            rest -= share
            variance += share * grown * (1 - share - 2 * rest)
        return max(variance, torch.finfo(torch.float32).tiny)


def check_levels(levels: tuple[float, ...], prior: Denoiser, window: tuple[float, float] = WINDOW) -> None:
    """Refuse a grid with too few levels in the window.

    Raises:
        InputError: with the window, and what the grid has there.
    """
    inside = [sigma for sigma in levels if _inside(sigma, prior, window)]
    if len(inside) < FEWEST:
        low, high = (share * prior.data_std for share in window)
        raise InputError(
            f"instability: the grid has {len(inside)} level(s) from {high:.3g} down to {low:.3g}, at least {FEWEST} "
            "are needed; take more steps."
        )


def smoothed(image: Tensor) -> Tensor:
    """Mean over 3 x 3 pixels (*batch, y, x), at the border over those there are; for showing a map."""
    flat = image.reshape(-1, 1, *image.shape[-2:])
    return F.avg_pool2d(flat, 3, stride=1, padding=1, count_include_pad=False).reshape(image.shape)


def _inside(sigma: float, prior: Denoiser, window: tuple[float, float]) -> bool:
    return window[0] * prior.data_std <= sigma <= window[1] * prior.data_std
