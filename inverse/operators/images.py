"""What the imaging operators check of a shape and a dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inverse.errors import InputError

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def checked_image(
    name: str, shape: Sequence[int], dtype: torch.dtype, *, meaning: str = "(..., y, x)", real: bool = False
) -> tuple[int, ...]:
    """Shape of images as a tuple.

    Args:
        name: how the message calls the operator.
        shape: the shape to check, two axes at least.
        dtype: the dtype to check: float32, float64, complex64, complex128.
        meaning: what the shape stands for.
        real: whether complex images are refused.

    Raises:
        InputError: less than two axes, an axis without pixels, or another dtype.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) < 2 or any(n < 1 for n in shape):
        raise InputError(f"{name}: expected a shape {meaning} of at least one pixel, got {shape}.")
    if dtype not in DTYPES:
        raise InputError(f"{name}: expected a dtype of single or double precision, got {dtype}; convert the images.")
    if real and dtype.is_complex:
        raise InputError(f"{name}: expected a real dtype, got {dtype}; apply it to the magnitude.")
    return shape
