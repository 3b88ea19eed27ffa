"""Noise grids: 1-D decreasing tensors of sigma; the last level is 0, where the estimate itself is returned."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.samplers.integrators.weights import network_time, noise_at


def karras(steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> Tensor:
    """`steps` levels, evenly spaced in sigma^(1/rho), then 0: shape (steps + 1,), float64.

    Args:
        steps: network evaluations.
        sigma_max: first level.
        sigma_min: last level before 0.
        rho: how strongly the levels crowd at small sigma.

    Raises:
        InputError: fewer than one step, or levels out of order.

    Source: Karras, Aittala, Aila and Laine 2022, equation 5.
    """
    _check(steps, sigma_max, sigma_min)
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) + share * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def geometric(steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """`steps` levels, evenly spaced in log sigma, then 0: uniform in the log of the signal-to-noise ratio.

    Shape (steps + 1,), float64.

    Args:
        steps: network evaluations.
        sigma_max: first level.
        sigma_min: last level before 0.

    Raises:
        InputError: fewer than one step, or levels out of order.
    """
    _check(steps, sigma_max, sigma_min)
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = sigma_max * (sigma_min / sigma_max) ** share
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def ddpm_time(steps: int, sigma_max: float, sigma_min: float, power: float = 1.0) -> Tensor:
    """`steps` levels, evenly spaced in the time of a DDPM network, then 0: shape (steps + 1,), float64.

    Time is that of the continuous linear schedule, sigma^2 = exp(9.95 u^2 + 0.1 u) - 1, for images of variance 1.

    Args:
        steps: network evaluations.
        sigma_max: first level; 152.2 is u = 1.
        sigma_min: last level before 0; 0.0105 is u = 0.001.
        power: even spacing in u^(1/power): 2 is the "quadratic" choice of time steps of DDIM.

    Raises:
        InputError: fewer than one step, or levels out of order.

    Source: Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole 2021, equation 33; the quadratic choice: Song, Meng and
    Ermon 2021.
    """
    _check(steps, sigma_max, sigma_min)
    check_positive("power", power)
    first, last = (network_time(sigma) ** (1 / power) for sigma in (sigma_max, sigma_min))
    times = torch.linspace(first, last, steps, dtype=torch.float64) ** power
    return torch.tensor([*map(noise_at, times.tolist()), 0.0], dtype=torch.float64)


def cosine(steps: int, sigma_max: float, sigma_min: float, offset: float = 0.008) -> Tensor:
    """`steps` levels, evenly spaced in the time of the cosine schedule, then 0: shape (steps + 1,), float64.

    1 + sigma^2 = f(0)/f(u), f(u) = cos^2(pi/2 (u + offset)/(1 + offset)), for images of variance 1.

    Args:
        steps: network evaluations.
        sigma_max: first level; u = 1 is infinite noise, 0.999 is 642.
        sigma_min: last level before 0.
        offset: keeps the levels near u = 0 apart.

    Raises:
        InputError: fewer than one step, levels out of order, or an offset not above 0.

    Source: Nichol and Dhariwal 2021, equation 17.
    """
    _check(steps, sigma_max, sigma_min)
    check_positive("offset", offset)
    least = math.cos(math.pi / 2 * offset / (1 + offset))
    first, last = (math.acos(least / math.sqrt(1 + sigma**2)) for sigma in (sigma_max, sigma_min))
    levels = ((least / torch.linspace(first, last, steps, dtype=torch.float64).cos()) ** 2 - 1).sqrt()
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def ddpm_linear(steps: int, trained: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Tensor:
    """Every (trained / steps)-th level of the linear-beta DDPM schedule, largest first, then 0: the grid of DDS.

    sigma_t = sqrt(1/abar_t - 1), abar_t the product of (1 - beta) up to and including beta_t.

    Args:
        steps: network evaluations.
        trained: number of levels of the schedule.
        beta_min: first beta.
        beta_max: last beta.

    Source: Ho, Jain and Abbeel 2020; timesteps as in the code of Chung, Lee and Ye, DDS, 2024.
    """
    if not 1 <= steps <= trained:
        raise InputError(f"ddpm_linear: steps must be between 1 and {trained}, got {steps}.")
    kept = torch.cumprod(1 - torch.linspace(beta_min, beta_max, trained, dtype=torch.float64), dim=0)
    times = (torch.arange(steps) * trained // steps).flip(0)
    return torch.cat([(1 / kept[times] - 1).sqrt(), torch.zeros(1, dtype=torch.float64)])


def check_grid(grid: Tensor) -> None:
    """Refuse a grid that is not a decreasing sequence of levels.

    Raises:
        InputError: fewer than two levels, not decreasing, negative, or not finite.
    """
    ok = grid.ndim == 1 and len(grid) >= 2 and bool(torch.isfinite(grid).all())
    if not ok or bool((grid[1:] >= grid[:-1]).any()) or float(grid[-1]) < 0:
        raise InputError("grid: expected at least two finite, decreasing noise levels, the last one >= 0.")


def _check(steps: int, sigma_max: float, sigma_min: float) -> None:
    check_positive("sigma_min", sigma_min)
    check_positive("sigma_max", sigma_max)
    if steps < 1:
        raise InputError(f"grid: steps must be at least 1, got {steps}.")
    if sigma_min >= sigma_max:
        raise InputError(f"grid: sigma_min {sigma_min:g} must be below sigma_max {sigma_max:g}.")
