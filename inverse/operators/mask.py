"""Operators that act on every pixel alone: identity and mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator


def same(x: Tensor) -> Tensor:
    """x; the unitary factor of an operator that is diagonal in its own basis."""
    return x


class Identity(LinearOperator):
    """A = I: denoising.

    Args:
        shape: shape of x and y.
        dtype: dtype of both, default float32.
        device: where x lives.
    """

    def __init__(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        super().__init__(shape, shape, in_dtype=dtype, device=device)

    def _apply(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    def _gram(self, x: Tensor) -> Tensor:
        return x.clone()

    def _pinv(self, y: Tensor) -> Tensor:
        return y.clone()

    @property
    def svd(self) -> SVD:
        """All singular values 1."""
        return SVD(same, same, torch.ones((), dtype=self.in_dtype.to_real(), device=self.device), same, same)


class Mask(LinearOperator):
    """A = diag(mask): inpainting, or the sampling of k-space; what was not measured is 0 and keeps its place.

    Items with a mask each: a mask (items, y, x), or (items, 1, y, x) with shape (items, channels, y, x), is an operator
    whose image has the axis of items. x is then all items together, and batch dimensions before it are samples of them.

    Args:
        mask: zeros and ones or bool, broadcasts to `shape`.
        shape: shape of x and y; None: that of the mask.
        dtype: dtype of x and y, default float32.

    Raises:
        InputError: other values than 0 and 1, nothing measured, or a mask that does not broadcast.
    """

    def __init__(self, mask: Tensor, shape: Sequence[int] | None = None, *, dtype: torch.dtype = torch.float32):
        mask = checked_mask(mask, mask.shape if shape is None else shape)
        super().__init__(mask.shape, mask.shape, in_dtype=dtype, device=mask.device)
        self.mask = mask
        self._weights = mask.to(dtype.to_real())

    def _apply(self, x: Tensor) -> Tensor:
        return x * self._weights

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self._weights

    def _gram(self, x: Tensor) -> Tensor:
        return x * self._weights  # 0 and 1 are their own squares

    def _pinv(self, y: Tensor) -> Tensor:
        return y * self._weights

    @property
    def weights(self) -> Tensor:
        """The mask as real numbers."""
        return self._weights

    @property
    def svd(self) -> SVD:
        """Singular values 0 and 1, the mask itself."""
        return SVD(same, same, self._weights, same, same)

    def restrict(self, index: Any) -> Mask:
        """The mask times another one that broadcasts to it; y keeps its shape."""
        keep = checked_mask(torch.as_tensor(index), self.in_shape).to(self.device)
        return Mask(self.mask & keep, dtype=self.in_dtype)


def checked_mask(mask: Tensor, shape: Sequence[int]) -> Tensor:
    """A mask as a bool tensor of `shape`.

    Args:
        mask: bool, or zeros and ones.
        shape: the shape to broadcast to.

    Raises:
        InputError: other values than 0 and 1, nothing measured, or a shape that does not broadcast.
    """
    if not isinstance(mask, Tensor):
        raise InputError(f"mask: expected a torch.Tensor, got {type(mask).__name__}; convert it with torch.as_tensor.")
    shape = tuple(shape)
    chosen = mask != 0
    if mask.dtype != torch.bool and not bool((mask == chosen).all()):
        raise InputError("mask: expected zeros and ones, got other values; threshold it, e.g. mask > 0.")
    try:
        chosen = chosen.expand(shape).contiguous()
    except RuntimeError:
        raise InputError(
            f"mask: expected a shape that broadcasts to {shape}, got {tuple(mask.shape)}; crop the mask or the maps."
        ) from None
    if not bool(chosen.any()):
        raise InputError(f"mask: expected measured samples, got all zeros in {tuple(mask.shape)}; check the mask.")
    return chosen
