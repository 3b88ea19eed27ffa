"""DDIM: deterministic, ancestral, or between; first order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inverse.errors import InputError
from inverse.samplers.conditionings.base import Estimate
from inverse.samplers.integrators.base import OneEvaluation


@dataclass(frozen=True)
class DDIM(OneEvaluation):
    """x' = x0 + sqrt(sigma'^2 - k^2) e + k n, e = (x - x0)/sigma: deterministic for eta = 0, ancestral for eta = 1.

    Args:
        eta: share of fresh noise, in the convention below.
        convention: "ddim": k = eta sigma' sqrt(1 - sigma'^2/sigma^2) (Song, Meng and Ermon 2021, equation 16, in the
            variance-exploding frame); "dds": k = eta sigma' at every step size, as in the published code of DDS, which
            with a fixed eta > 0 does not converge to a posterior.
        direction: "conditioned": e from the estimate given the data, which converges; "unconditioned": e from the
            prior's D, as published in DDS, which counts the data once per step and has no limit.

    Raises:
        InputError: eta outside [0, 1], an unknown name.
    """

    eta: float = 1.0
    convention: str = "ddim"
    direction: str = "conditioned"

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"DDIM: eta must lie in [0, 1], got {self.eta}.")
        if self.convention not in ("ddim", "dds") or self.direction not in ("conditioned", "unconditioned"):
            raise InputError(
                "DDIM: convention is 'ddim' or 'dds', direction 'conditioned' or 'unconditioned'; "
                f"got {self.convention!r}, {self.direction!r}."
            )

    def step(
        self, x: Tensor, estimate: Estimate, sigma: float, sigma_next: float, noise: Callable[[], Tensor]
    ) -> Tensor:
        """x at sigma_next; at 0 the estimate itself."""
        if sigma_next == 0:
            return estimate.x0
        fresh = self.eta * sigma_next
        if self.convention == "ddim":
            fresh *= math.sqrt(1 - sigma_next**2 / sigma**2)
        kept = math.sqrt(sigma_next**2 - fresh**2)
        origin = estimate.x0 if self.direction == "conditioned" else estimate.denoised
        out = estimate.x0 + (kept / sigma) * (x - origin)
        return out + fresh * noise() if fresh > 0 else out
