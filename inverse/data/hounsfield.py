"""Hounsfield units at the border, linear attenuation inside."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive

WATER_ATTENUATION = 0.0193
"""Linear attenuation of water in 1/mm at about 70 keV, the mean energy of a 120 kV spectrum behind its filters.

Between 0.02059 at 60 keV and 0.01837 at 80 keV of Hubbell and Seltzer, "Tables of X-ray mass attenuation coefficients"
(NIST Standard Reference Database 126, water at 1 g/cm^3).
"""


def to_attenuation(hu: Tensor, water: float = WATER_ATTENUATION) -> Tensor:
    """Linear attenuation from Hounsfield units: mu = water (1 + HU / 1000).

    Below -1000 HU, where scanners put padding, the result is negative: clamp it where that has no meaning.

    Args:
        hu: any real tensor; integers become float32.
        water: attenuation of water in 1/mm, default 0.0193 (about 70 keV).

    Returns:
        Attenuation in 1/mm, shape of `hu`.

    Raises:
        InputError: complex values, or water not positive.
    """
    hu = _real("hu", hu, water)
    return water * (1 + hu / 1000)


def to_hounsfield(mu: Tensor, water: float = WATER_ATTENUATION) -> Tensor:
    """Hounsfield units from linear attenuation: HU = 1000 (mu / water - 1).

    Args:
        mu: attenuation in 1/mm, any real tensor.
        water: attenuation of water in 1/mm, default 0.0193 (about 70 keV).

    Returns:
        Hounsfield units, shape of `mu`: 0 for water, -1000 for nothing.

    Raises:
        InputError: complex values, or water not positive.
    """
    mu = _real("mu", mu, water)
    return 1000 * (mu / water - 1)


def _real(name: str, values: Tensor, water: float) -> Tensor:
    check_positive("water", water)
    values = torch.as_tensor(values)
    if values.is_complex():
        raise InputError(f"{name}: expected real values, got {values.dtype}; give one real image.")
    return values if values.is_floating_point() else values.to(torch.float32)
