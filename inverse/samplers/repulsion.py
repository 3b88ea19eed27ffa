"""Repulsion between the particles of one sample: what keeps copies of an optimisation apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def repulsion(particles: Tensor) -> Tensor:
    """R_k = sum_j (2 w_kj z_kj / h_k) / sum_j w_kj, z_kj = f_k - f_j, w_kj = exp(-|z_kj|^2 / h_k), over j other than k.

    The direction that lowers a kernel density of the others most; h_k = (median_j |z_kj|)^2 / ln(K - 1), the lower
    median. Two particles have an infinite bandwidth and do not repel. In many dimensions it is weak: |R| is about
    2 ln(K - 1) over the distance, whatever the number of pixels.

    Args:
        particles: features, or the images themselves (items, K, *shape), real or complex.

    Returns:
        R, like `particles`; 0 for fewer than three.

    Source: Zilberstein, Mardani and Segarra, Repulsive latent score distillation, ICLR 2025, and its code.
    """
    items, count = particles.shape[:2]
    if count < 3:
        return torch.zeros_like(particles)
    flat = torch.view_as_real(particles) if particles.is_complex() else particles
    flat = flat.reshape(items, count, -1)
    squares = (flat[:, :, None] - flat[:, None]).square().sum(-1)
    others = ~torch.eye(count, dtype=torch.bool, device=flat.device)
    apart = squares[:, others].reshape(items, count, count - 1).sqrt()
    width = apart.median(-1, keepdim=True).values ** 2 / math.log(count - 1)
    met = width == 0  # particles that are still one have no direction to part in
    width = torch.where(met, 1.0, width)
    weights = torch.exp(-squares / width) * others
    share = 2 * weights / width / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    out = torch.where(met, 0.0, share.sum(-1, keepdim=True) * flat - share @ flat)
    if particles.is_complex():
        return torch.view_as_complex(out.reshape(*particles.shape, 2))
    return out.reshape(particles.shape)


def through(features: Callable[[Tensor], Tensor] | None, particles: Tensor) -> Tensor:
    """The repulsion of features, brought back to images by the chain rule; of the images themselves for None.

    Args:
        features: differentiable function of images (copies, *in_shape) to features (copies, ...).
        particles: images (items, K, *in_shape).

    Returns:
        J_f^T R, like `particles`.
    """
    if features is None:
        return repulsion(particles)
    with torch.enable_grad():
        x = particles.flatten(0, 1).detach().requires_grad_()
        f = features(x)
    force = repulsion(f.detach().unflatten(0, particles.shape[:2])).flatten(0, 1)
    (pulled,) = torch.autograd.grad(f, x, force)
    return pulled.unflatten(0, particles.shape[:2])
