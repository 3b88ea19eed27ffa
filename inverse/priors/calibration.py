"""Measured errors of a denoiser: mean squared error and power spectrum of the whitened residual, per noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError

HIGHEST_FREQUENCY = math.sqrt(0.5)
"""Corner of the frequency plane in cycles per pixel."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Tables over the noise level, interpolated in log sigma and held constant beyond their ends.

    Args:
        sigma: noise levels (levels,), increasing.
        mse: mean squared error of the denoiser per real component (levels,).
        power: power c_k of the residual e / sqrt(s) per radial frequency bin (levels, bins), bins equally wide in
            cycles per pixel; with a basis per mode (levels, H, W). s is the variance that the prior states per pixel
            over `Modes.spread` of the power, or its mse where it states none.
        rows, columns: the modes of images of one size, unitary (H, H) and (W, W), see `LearnedModes`; None: waves.
    """

    sigma: Tensor
    mse: Tensor
    power: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None

    def __post_init__(self) -> None:
        levels = self.sigma.numel()
        modes = () if self.rows is None or self.columns is None else (len(self.rows), len(self.columns))
        fits = self.power.shape[1:] == modes if modes else self.power.ndim == 2
        if self.mse.shape != (levels,) or self.power.shape[0] != levels or not fits:
            raise InputError(
                f"calibration: tables {tuple(self.mse.shape)} and {tuple(self.power.shape)} do not fit {levels} levels"
                f"{f' of {modes} modes' if modes else ''}."
            )
        if not all(bool(((t > 0) & t.isfinite()).all()) for t in (self.sigma, self.mse, self.power)):
            raise InputError("calibration: tables must be positive and finite; calibrate again with more images.")

    def mse_at(self, sigma: float) -> float:
        """Mean squared error per real component at one noise level."""
        return math.exp(float(self._interpolate(self.mse.log(), sigma)))

    def power_at(self, sigma: float) -> Tensor:
        """Power per radial bin (bins,), or per mode (H, W), at one noise level."""
        return self._interpolate(self.power.log(), sigma).exp()

    def power_map(self, sigma: float, radius: Tensor) -> Tensor:
        """Power c_k at frequencies of the given radius (cycles per pixel), same shape as `radius`.

        With a basis `radius` is that of its modes.
        """
        power = self.power_at(sigma).to(radius)
        return power if self.rows is not None else radial_map(power, radius)

    def _interpolate(self, table: Tensor, sigma: float) -> Tensor:
        if len(self.sigma) == 1:
            return table[0]
        levels = self.sigma.log()
        index = int(torch.searchsorted(levels, math.log(sigma)).clamp(1, len(levels) - 1))
        share = (math.log(sigma) - float(levels[index - 1])) / float(levels[index] - levels[index - 1])
        return torch.lerp(table[index - 1], table[index], min(max(share, 0.0), 1.0))


def radial_map(power: Tensor, radius: Tensor) -> Tensor:
    """Power at frequencies of the given radius from that of the bins (bins,), linear between their centres."""
    position = (radius / HIGHEST_FREQUENCY * len(power) - 0.5).clamp(0, len(power) - 1)
    low = position.floor().long().clamp(max=len(power) - 2)
    return torch.lerp(power[low], power[low + 1], position - low)


def radial_bins(radius: Tensor, bins: int) -> Tensor:
    """Index of the radial bin of each frequency, same shape as `radius`."""
    return (radius / HIGHEST_FREQUENCY * bins).long().clamp(max=bins - 1)
