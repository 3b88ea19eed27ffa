"""Inner products and norms per sample, and the views between complex and real tensors: the one place for both."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.errors import InputError


def flat_real(x: Tensor, batch_dims: int = 1) -> Tensor:
    """Real vectors of the samples: (*batch, *shape) -> (*batch, n), n doubled for complex; a view where possible.

    Args:
        x: real or complex tensor.
        batch_dims: how many leading dimensions count the samples, default 1.

    Returns:
        Real tensor (*batch, n), real and imaginary parts interleaved.
    """
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    # The size is written out: reshape(..., -1) cannot infer it for a batch of 0.
    return x.reshape(*x.shape[:batch_dims], x.shape[batch_dims:].numel())


def unflat_real(v: Tensor, like: Tensor) -> Tensor:
    """Inverse of `flat_real`: real vectors (*batch, n) back to the shape and kind of `like`, without a copy."""
    if like.is_complex():
        return torch.view_as_complex(v.reshape(*like.shape, 2))
    return v.reshape(like.shape)


def inner(a: Tensor, b: Tensor, batch_dims: int = 1) -> Tensor:
    """Re<a, b> per sample: sum over the trailing dimensions of Re(conj(a) b).

    The real part is what a Hermitian method needs; the product without conjugation is not an inner product.

    Args:
        a: real or complex tensor (*batch, *shape).
        b: tensor of the same kind and shape.
        batch_dims: how many leading dimensions count the samples, default 1.

    Returns:
        Real tensor of shape (*batch).
    """
    return torch.linalg.vecdot(flat_real(a, batch_dims), flat_real(b, batch_dims))


def norm(a: Tensor, batch_dims: int = 1) -> Tensor:
    """Euclidean norm per sample over the trailing dimensions; real tensor of shape (*batch)."""
    return torch.linalg.vector_norm(flat_real(a, batch_dims), dim=-1)


def scale_samples(factor: Tensor | float, x: Tensor) -> Tensor:
    """Multiply each sample of x (*batch, *shape) by its own real number from `factor` (*batch), or by one number."""
    if not isinstance(factor, Tensor):
        return factor * x
    return factor.reshape(*factor.shape, *(1,) * (x.ndim - factor.ndim)) * x


def to_channels(x: Tensor) -> Tensor:
    """Complex (*batch, y, x) to real (*batch, 2, y, x), the layout of networks.

    Raises:
        InputError: x is real.
    """
    if not x.is_complex():
        raise InputError(f"to_channels: expected complex values, got {x.dtype}; a real image is x.unsqueeze(-3).")
    return torch.stack((x.real, x.imag), dim=-3)


def from_channels(x: Tensor) -> Tensor:
    """Real (*batch, 2, y, x) to complex (*batch, y, x); the inverse of `to_channels`.

    Raises:
        InputError: x is complex or has no axis of two channels.
    """
    if x.is_complex() or x.ndim < 3 or x.shape[-3] != 2:
        raise InputError(
            f"from_channels: expected real (*batch, 2, y, x), got {x.dtype} {tuple(x.shape)}; add or split channels."
        )
    real, imag = x.unbind(-3)
    return torch.complex(real.contiguous(), imag.contiguous())
