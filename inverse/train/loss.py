"""The training loss: weighted squared error of the mean, Gaussian likelihood of its residual for the variance."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.priors.network import DenoisingNetwork
from inverse.train.config import TrainConfig


def draw_sigma(config: TrainConfig, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,) for one batch: log-normal, a share of them log-uniform over the whole range."""
    low, high = torch.tensor([config.sigma_min, config.sigma_max]).log()
    normal = config.log_sigma_mean + config.log_sigma_std * torch.randn(count, generator=generator)
    flat = low + (high - low) * torch.rand(count, generator=generator)
    pick = torch.rand(count, generator=generator) < config.uniform
    return torch.where(pick, flat, normal).clamp(low, high).exp()


def denoising_loss(
    network: DenoisingNetwork, x0: Tensor, sigma: Tensor, noise: Tensor, *, variance: bool
) -> tuple[Tensor, Tensor]:
    """Loss of the mean and of the variance, both scalars.

    Mean: E w |D - x0|^2 with w = (sigma^2 + s^2)/(sigma s)^2 (Karras et al. 2022, table 1). Variance: negative Gaussian
    log-likelihood of e = x0 - D, D detached, relative to its base; zero when `variance` is False.

    Args:
        network: the network in training.
        x0: clean images (N, C, H, W).
        sigma: noise levels (N,).
        noise: standard normal noise (N, C, H, W).
        variance: whether the head is trained.
    """
    s = network.data_std
    level = sigma.reshape(-1, 1, 1, 1)
    mean, log_variance = network(x0 + level * noise, sigma, variance=variance)
    error = (mean.float() - x0) ** 2
    weight = (level**2 + s**2) / (level * s) ** 2
    loss = (weight * error).mean()
    if log_variance is None:
        return loss, loss.new_zeros(())
    squared = error.detach().mean(dim=1, keepdim=True)
    base = (level**2 * s**2 / (level**2 + s**2)).log()
    return loss, (squared * (-log_variance).exp() + log_variance - base).mean()
