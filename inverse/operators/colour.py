"""Colour images seen without colour."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator
from inverse.operators.images import checked_image
from inverse.operators.mask import same

# Luma of red, green and blue, Recommendation ITU-R BT.601, section 2.5.1.
LUMA = (0.299, 0.587, 0.114)


class Grey(LinearOperator):
    """Weighted sum of the channels: colour (channels, y, x) -> grey (y, x).

    All singular values are the length of the weights; `pinv` is the image of least energy that has the grey values.

    Args:
        shape: shape of x, (..., channels, y, x).
        weights: "luma" (default: red, green, blue by ITU-R BT.601), "mean", or one number per channel.
        keep_channel: y has one channel, (..., 1, y, x), in the place of none; default False.
        dtype: dtype of x and y, default float32.
        device: where x lives.

    Raises:
        InputError: no channels, "luma" of other than three, or weights that are all zero, not finite, too many or few.

    Reference: ITU-R, "Recommendation BT.601-7", 2011, section 2.5.1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        weights: str | Sequence[float] = "luma",
        *,
        keep_channel: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = checked_image("Grey", shape, dtype, meaning="(..., channels, y, x)")
        if len(shape) < 3:
            raise InputError(f"Grey: expected (..., channels, y, x), got {shape}; add the axis of channels.")
        channel = (1,) if keep_channel else ()
        super().__init__(shape, (*shape[:-3], *channel, *shape[-2:]), in_dtype=dtype, device=device)
        self.channel_weights = _weights(weights, shape[-3])
        self._keep = keep_channel
        self._energy = sum(w * w for w in self.channel_weights)

    def _apply(self, x: Tensor) -> Tensor:
        return self._combined(x, 1.0)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._spread(y, 1.0)

    def _gram(self, x: Tensor) -> Tensor:
        return self._spread(self._combined(x, 1.0), 1.0)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._spread(y, 1 / self._energy)

    def _compute_norm(self) -> float:
        return self._energy**0.5

    @property
    def svd(self) -> SVD:
        """U = 1, one singular value; coefficients are the data."""
        length = self._energy**0.5
        return SVD(
            U=same,
            Uh=same,
            s=torch.full((), length, dtype=self.in_dtype.to_real(), device=self.device),
            V=lambda c: self._spread(c, 1 / length),
            Vh=lambda x: self._combined(x, 1 / length),
        )

    def _combined(self, x: Tensor, factor: float) -> Tensor:
        first, *others = self.channel_weights
        grey = x.select(-3, 0) * (factor * first)
        for i, weight in enumerate(others, 1):
            grey.add_(x.select(-3, i), alpha=factor * weight)
        return grey.unsqueeze(-3) if self._keep else grey

    def _spread(self, y: Tensor, factor: float) -> Tensor:
        grey = y if self._keep else y.unsqueeze(-3)
        return grey * (factor * self._column)

    @property
    def _column(self) -> Tensor:
        def build() -> Tensor:
            weights = torch.tensor(self.channel_weights, dtype=self.in_dtype.to_real(), device=self.device)
            return weights[:, None, None]

        return self._cached("column", build)


def _weights(weights: str | Sequence[float], channels: int) -> tuple[float, ...]:
    if weights == "mean":
        return (1 / channels,) * channels
    if isinstance(weights, str):
        if weights != "luma":
            raise InputError(f"weights: expected 'luma', 'mean' or one number per channel, got {weights!r}.")
        weights = LUMA
    numbers = tuple(float(w) for w in weights)
    if len(numbers) != channels or not any(numbers) or not all(abs(w) < float("inf") for w in numbers):
        raise InputError(f"weights: expected {channels} finite numbers, one per channel, not all 0; got {numbers}.")
    return numbers
