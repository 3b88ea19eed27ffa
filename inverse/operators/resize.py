"""Resizing by interpolation with anti-aliasing, equal to what the usual programs do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.images import checked_image
from inverse.operators.separable import Separable

BOUNDARIES = ("symmetric", "renormalise")


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2."""
    x = x.abs()
    inner = 1 + x * x * (1.5 * x - 2.5)
    outer = 2 + x * (-4 + x * (2.5 - 0.5 * x))
    return torch.where(x <= 1, inner, torch.where(x < 2, outer, 0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0)


# Function of the distance in pixels, and how far it reaches.
_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "box": (lambda x: ((x > -0.5) & (x <= 0.5)).double(), 0.5),
    "bilinear": (lambda x: (1 - x.abs()).clamp(min=0), 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


def resize_matrix(
    n: int, m: int, kernel: str = "bicubic", *, antialias: bool = True, boundary: str = "symmetric"
) -> Tensor:
    """Weights of a line of n pixels in one of m pixels, both of the same total length.

    Args:
        n: pixels before.
        m: pixels after.
        kernel: "box", "bilinear", "bicubic" (a = -1/2) or "lanczos" (three lobes).
        antialias: widen the kernel by n / m when that is above 1.
        boundary: "symmetric": pixels outside are mirror images, the border repeated, as MATLAB's imresize does;
            "renormalise": they are left out and the other weights scaled up, as PIL does.

    Returns:
        float64 (m, n), rows sum to 1.
    """
    function, reach = _KERNELS[kernel]
    stretch = max(n / m, 1.0) if antialias else 1.0
    centre = (torch.arange(m, dtype=torch.float64) + 0.5) * (n / m) - 0.5
    first = torch.ceil(centre - reach * stretch)
    place = first[:, None] + torch.arange(math.floor(2 * reach * stretch) + 1)
    weights = function((place - centre[:, None]) / stretch)
    place = place.long()
    if boundary == "renormalise":
        weights = torch.where((place >= 0) & (place < n), weights, 0)
        place = place.clamp(0, n - 1)
    else:
        place = place % (2 * n)
        place = torch.where(place < n, place, 2 * n - 1 - place)
    matrix = torch.zeros(m, n, dtype=torch.float64).scatter_add_(1, place, weights)
    return matrix / matrix.sum(1, keepdim=True)


class Resize(Separable):
    """Image of another size by separable interpolation with anti-aliasing.

    Pixels are squares and both images cover the same area. With the defaults the result is that of MATLAB's imresize
    to a given output size, to rounding; boundary="renormalise" is that of PIL's resize of float images and of
    torch.nn.functional.interpolate with antialias, to their float32 rounding.

    `pinv` is the exact inverse of Moore and Penrose, `svd` and `norm` come from the two small matrices.

    Args:
        shape_in: shape of x, (..., y, x).
        shape_out: size of y, (y, x).
        kernel: "bicubic" (default), "box", "bilinear" or "lanczos".
        antialias: widen the kernel where the image shrinks, default True.
        boundary: "symmetric" (default) or "renormalise", see `resize_matrix`.
        dtype: dtype of x and y, default float32.
        device: where x lives.

    Raises:
        InputError: sizes without pixels, another kernel or boundary.

    Reference: Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 15.
    """

    def __init__(
        self,
        shape_in: Sequence[int],
        shape_out: Sequence[int],
        *,
        kernel: str = "bicubic",
        antialias: bool = True,
        boundary: str = "symmetric",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = checked_image("Resize: shape_in", shape_in, dtype)
        size = checked_image("Resize: shape_out", shape_out, dtype, meaning="(y, x)")
        if len(size) != 2:
            raise InputError(f"Resize: shape_out: expected (y, x), got {size}; the other axes are those of shape_in.")
        if kernel not in _KERNELS:
            raise InputError(f"kernel: expected one of {', '.join(_KERNELS)}, got {kernel!r}.")
        if boundary not in BOUNDARIES:
            raise InputError(f"boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r}.")
        super().__init__(shape, (*shape[:-2], *size), in_dtype=dtype, device=device)
        self.kernel, self.antialias, self.boundary = kernel, antialias, boundary

    def _matrices(self) -> tuple[Tensor, Tensor]:
        sizes = zip(self.in_shape[-2:], self.out_shape[-2:], strict=True)
        rows, columns = (
            resize_matrix(n, m, self.kernel, antialias=self.antialias, boundary=self.boundary) for n, m in sizes
        )
        return rows, columns
