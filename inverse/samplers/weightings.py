"""Weights of RED-diff's regulariser over the noise level.

The gradient of the regulariser is w(sigma) (e_hat - e), e_hat = (x - D) / sigma the noise that the prior sees in
x = mu + sigma e. Since sigma (e_hat - e) = mu - D, "linear" pulls mu towards the denoised image with the same weight at
every level.

The published weights (Mardani, Song, Kautz and Vahdat, ICLR 2024, and its code) carry no statistics. `Precision` is
ours: with the covariance C that the prior states of its own error the gradient is C^-1 (mu - D). For a stationary
Gaussian prior N(m, S) its mean over e is S^-1 (mu - m) at every level, so that together with the data's gradient
A^H (A mu - y) / sigma_y^2 it vanishes at the posterior mean, on every grid; C = r^2 I does so if the prior is white,
and else pulls too hard at what stands out of the spectrum, by sigma^2 / r^2. "linear" has for a white prior the
precision sigma^2 / (s^2 + sigma^2), which is lost as sigma falls: its last steps fit the data alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.linalg.transforms import Modes

WEIGHTINGS: dict[str, Callable[[float], float]] = {
    "const": lambda sigma: 1.0,
    "log": lambda sigma: math.log1p(sigma),
    "trunc_linear": lambda sigma: min(sigma, 1.0),
    "sqrt": lambda sigma: math.sqrt(sigma),
    "power2over3": lambda sigma: sigma ** (2 / 3),
    "linear": lambda sigma: sigma,
    "square": lambda sigma: sigma**2,
}
"""The published ones by name, w(sigma)."""


Pull = Callable[[Tensor], Tensor]
"""The gradient of the regulariser (items, *in_shape) from mu - D."""


@dataclass(frozen=True)
class Weighted:
    """w(sigma) (e_hat - e), which is w(sigma) / sigma (mu - D).

    Args:
        weight: w(sigma).
        sigma: the noise level.
    """

    weight: float
    sigma: float

    def __call__(self, residual: Tensor) -> Tensor:
        """The gradient (items, *in_shape) of mu - D."""
        return (self.weight / self.sigma) * residual


@dataclass(frozen=True)
class Precision:
    """C^-1 (mu - D), C = V^(1/2) F^H diag(c_k) F V^(1/2) as in `inverse.samplers.conditionings.learned_covariance`.

    Args:
        std: V^(1/2), broadcastable to the image; where it is 0 there is nothing to pull.
        spectrum: the transform F and the power c_k (H, W), or None: independent pixels.
    """

    std: Tensor
    spectrum: tuple[Modes, Tensor] | None = None

    def __call__(self, residual: Tensor) -> Tensor:
        """The gradient (items, *in_shape) of mu - D."""
        whiten = torch.where(self.std > 0, 1 / self.std, 0.0)
        white = whiten * residual
        if self.spectrum is not None:
            modes, power = self.spectrum
            white = modes.inverse(modes.forward(white) / power)
        return whiten * white
