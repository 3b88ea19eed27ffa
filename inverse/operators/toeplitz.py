"""A^H A of a Fourier transform at arbitrary samples: a convolution, so two FFTs on a grid of twice the size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from inverse.operators.gridding import cropped_ifft, padded_fft
from inverse.operators.parts import in_parts
from inverse.operators.plans import make_transform

# Bytes of doubled grids worked on at once by one thread of a CPU, about what its cache holds: 8 coils of 256 x 256 one
# by one take 14 ms, together 20 ms. Several threads get all at once: they wait for each other after every step, the
# longer the steps the less so. There, and on other devices, it is a bound on memory.
_GRID_BYTES = 2 * 2**20
_GRID_BYTES_LARGE = 512 * 2**20
# Accuracy of the kernel of a single-precision gram: far below its rounding, so that the smallest eigenvalues stay
# positive; it costs a fraction of a second, once.
_KERNEL_ACCURACY = 1e-9


class Toeplitz:
    """x -> A^H A x for y_j = N^(-1/2) sum_x x[r] exp(-i k_j . r).

    (A^H A x)[r] = sum_r' h(r - r') x[r'] with h(n) = (1/N) sum_j w_j exp(i k_j . n) is a cyclic convolution on a grid
    of at least twice the image. h(-n) = conj h(n), so its transform is real and is kept as such, in the axis order of
    `padded_fft`. The error is that of h, 1e-9 in single and 1e-14 in double precision before rounding, whatever the
    accuracy of A: the gram of a coarse A is that of the exact transform.

    Args:
        trajectory: (samples, axes) float64, radians per pixel.
        shape: image shape.
        dtype: complex dtype of the images.

    Reference: Fessler et al., "Toeplitz-based iterative image reconstruction for MRI with correction for magnetic
    field inhomogeneity", IEEE TSP 53, 2005, section III.
    """

    def __init__(self, trajectory: Tensor, shape: Sequence[int], dtype: torch.dtype):
        self._shape = tuple(shape)
        self._sizes = tuple(2 * int(next_fast_len(n)) for n in shape)
        self._bytes = math.prod(self._sizes) * dtype.itemsize
        accuracy = 1e-14 if dtype == torch.complex128 else _KERNEL_ACCURACY
        transform = make_transform(trajectory, self._sizes, accuracy, torch.complex128)
        ones = torch.ones(1, len(trajectory), dtype=torch.complex128, device=trajectory.device)
        # A grid of N' points brings N'^(-1/2) into its own transform; h wants 1/N, the two FFTs below 1/N'.
        h = transform.adjoint(ones)[0] / (math.prod(shape) * math.sqrt(math.prod(self._sizes)))
        for axis in range(h.ndim):
            h.select(axis, 0).zero_()  # the offset -n' / 2, which no pair of pixels has, lacks its mirror image
        kernel = torch.fft.fftn(torch.fft.ifftshift(h)).real.movedim(0, -1).unsqueeze(-2)
        self._kernel = kernel.to(dtype.to_real()).contiguous()

    def group(self) -> int:
        """How many images to give at once."""
        one = self._kernel.device.type == "cpu" and torch.get_num_threads() == 1
        return max(1, (_GRID_BYTES if one else _GRID_BYTES_LARGE) // self._bytes)

    def __call__(self, x: Tensor) -> Tensor:
        """Images (transforms, *shape) to images."""
        return in_parts(self._convolve, x, self.group()) if len(x) else x.clone()

    def _convolve(self, x: Tensor) -> Tensor:
        return cropped_ifft(padded_fft(x, self._sizes).mul_(self._kernel), self._shape)
