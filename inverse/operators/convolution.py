"""Convolution of planes, tap by tap, as channels or in Fourier space, with the exact adjoint of every padding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from inverse.operators.parts import in_parts
from inverse.operators.separable import in_pieces, on_real

PADDINGS = ("circular", "zero", "reflect", "replicate", "valid")
# How torch calls what is added around the image before a valid convolution.
_MODES = {"circular": "circular", "zero": "constant", "reflect": "reflect", "replicate": "replicate"}


def margins(size: int, padding: str) -> tuple[int, int]:
    """Pixels that a kernel of `size` taps needs before and after an axis; its anchor is tap size // 2."""
    return (0, 0) if padding == "valid" else (size - 1 - size // 2, size // 2)


def pad(x: Tensor, before: tuple[int, int], after: tuple[int, int], padding: str) -> Tensor:
    """Images (*batch, y, x) with a margin of pixels (y, x) before and after."""
    if not any((*before, *after)):
        return x
    planes = x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:])
    planes = F.pad(planes, (before[1], after[1], before[0], after[0]), mode=_MODES[padding])
    return planes.reshape(*x.shape[:-2], *planes.shape[-2:])


def fold(x: Tensor, before: tuple[int, int], after: tuple[int, int], padding: str) -> Tensor:
    """Adjoint of `pad`: what lies in the margins is added to the pixels it was copied from; x is overwritten."""
    for axis, left, right in zip((-2, -1), before, after, strict=True):
        if not left and not right:
            continue
        n = x.shape[axis] - left - right
        middle, first, last = x.narrow(axis, left, n), x.narrow(axis, 0, left), x.narrow(axis, left + n, right)
        if padding == "circular":
            middle.narrow(axis, 0, right).add_(last)
            middle.narrow(axis, n - left, left).add_(first)
        elif padding == "reflect":
            middle.narrow(axis, 1, left).add_(first.flip(axis))
            middle.narrow(axis, n - 1 - right, right).add_(last.flip(axis))
        elif padding == "replicate":
            middle.narrow(axis, 0, 1).add_(first.sum(axis, keepdim=True))
            middle.narrow(axis, n - 1, 1).add_(last.sum(axis, keepdim=True))
        x = middle
    return x


def convolution_matrix(kernel: Tensor, n: int, padding: str) -> Tensor:
    """Matrix of the convolution of a line of n pixels with kernel (taps,), padding included."""
    taps = len(kernel)
    before, after = margins(taps, padding)
    place = torch.arange(-before, n + after)
    inside = (place >= 0) & (place < n)
    if padding == "circular":
        place %= n
    elif padding == "reflect":
        place = (n - 1 - (n - 1 - place).abs()).abs()
    place = place.clamp(0, n - 1)
    m = len(place) - taps + 1
    matrix = torch.zeros(m, n, dtype=kernel.dtype)
    values = kernel.flip(0).cpu()
    for j in range(taps):
        weights = values[j] * inside[j : j + m] if padding == "zero" else values[j].expand(m)
        matrix.index_put_((torch.arange(m), place[j : j + m]), weights, accumulate=True)
    return matrix.to(kernel.device)


class Convolution(Protocol):
    """One way to convolve planes (*batch, y, x)."""

    def apply(self, x: Tensor) -> Tensor:
        """Convolution."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""

    def gram(self, x: Tensor) -> Tensor:
        """One after the other."""


class _Direct:
    """What the ways in image space share: sizes, margins and the split of a batch."""

    def __init__(self, kernel: Tensor, shape: tuple[int, int], padding: str):
        ky, kx = kernel.shape
        ends = margins(ky, padding), margins(kx, padding)
        self._before, self._after = (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])
        self._padding, self._shape, self._kernel = padding, shape, kernel
        self._padded = shape[0] + sum(ends[0]), shape[1] + sum(ends[1])
        self._plane = self._padded[0] - ky + 1, self._padded[1] - kx + 1

    def gram(self, x: Tensor) -> Tensor:
        """One after the other."""
        return self.adjoint(self.apply(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Adjoint of the convolution."""
        raise NotImplementedError

    def apply(self, x: Tensor) -> Tensor:
        """Convolution of planes."""
        raise NotImplementedError

    def _pad(self, x: Tensor) -> Tensor:
        return pad(x, self._before, self._after, self._padding)

    def _fold(self, x: Tensor) -> Tensor:
        return fold(x, self._before, self._after, self._padding).contiguous()


class Taps(_Direct):
    """Sum of shifted images, one for each tap that is not zero: for kernels of a few pixels.

    Args:
        kernel: real (ky, kx).
        shape: (y, x) of the image.
        padding: one of `PADDINGS`.
    """

    def __init__(self, kernel: Tensor, shape: tuple[int, int], padding: str):
        super().__init__(kernel, shape, padding)
        ky, kx = kernel.shape
        self._taps = [
            (ky - 1 - j, kx - 1 - i, weight)
            for j, line in enumerate(kernel.tolist())
            for i, weight in enumerate(line)
            if weight
        ]

    def apply(self, x: Tensor) -> Tensor:
        """Convolution of planes."""
        return in_pieces(self._apply, x, self._plane)

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""
        return in_pieces(self._adjoint, y, self._shape)

    def _window(self, x: Tensor, j: int, i: int) -> Tensor:
        return x[..., j : j + self._plane[0], i : i + self._plane[1]]

    def _apply(self, x: Tensor) -> Tensor:
        x = self._pad(x)
        (j, i, weight), *more = self._taps
        y = self._window(x, j, i) * weight
        for j, i, weight in more:
            y.add_(self._window(x, j, i), alpha=weight)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(len(y), *self._padded)
        for j, i, weight in self._taps:
            self._window(x, j, i).add_(y, alpha=weight)
        return self._fold(x)


class Channels(_Direct):
    """Planes as the channels of a grouped convolution: for batches and kernels of some pixels, on a CPU.

    The adjoint is a convolution too, of the data with zeros around them; torch's transposed one is up to 50 times
    slower for single planes.

    Args:
        kernel: real (ky, kx).
        shape: (y, x) of the image.
        padding: one of `PADDINGS`.
    """

    # Channels that are convolved at once: lanes of the vector unit. Not in multiples of it the time is erratic.
    LANES = 16
    # Kernels up to this size leave the zeros of the adjoint to torch; beyond, that is ten times slower than adding.
    ZEROS = 7

    def apply(self, x: Tensor) -> Tensor:
        """Convolution of planes."""
        return on_real(lambda planes: in_parts(self._apply, planes, self.LANES), x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""
        return on_real(lambda planes: in_parts(self._adjoint, planes, self.LANES), y)

    def _apply(self, x: Tensor) -> Tensor:
        return self._correlate(self._pad(x), self._kernel.flip(0, 1))

    def _adjoint(self, y: Tensor) -> Tensor:
        ky, kx = self._kernel.shape
        if max(ky, kx) <= self.ZEROS:
            return self._fold(self._correlate(y, self._kernel, (ky - 1, kx - 1)))
        return self._fold(self._correlate(F.pad(y, (kx - 1, kx - 1, ky - 1, ky - 1)), self._kernel))

    def _correlate(self, x: Tensor, kernel: Tensor, zeros: tuple[int, int] = (0, 0)) -> Tensor:
        weights = kernel.expand(len(x), 1, *kernel.shape)
        return F.conv2d(x.unsqueeze(0), weights, padding=zeros, groups=len(x)).squeeze(0)


class Spectrum:
    """Product in Fourier space, of one kernel or of a stack that broadcasts to the planes.

    Args:
        kernel: real (..., ky, kx).
        shape: (y, x) of the image.
        padding: one of `PADDINGS`.
        dtype: that of the image; of a real one half of the spectrum is enough.
    """

    def __init__(self, kernel: Tensor, shape: tuple[int, int], padding: str, dtype: torch.dtype):
        self._padding, self._shape, self._real = padding, shape, not dtype.is_complex
        # The transform itself wraps around, adds zeros or leaves the border out.
        outside = padding in ("reflect", "replicate")
        ends = [margins(taps, padding) if outside else (0, 0) for taps in kernel.shape[-2:]]
        self._before, self._after = (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1])
        sizes, anchors = zip(
            *(_fourier_size(n, taps, padding) for n, taps in zip(shape, kernel.shape[-2:], strict=True)), strict=True
        )
        lost = [taps - 1 if padding == "valid" else 0 for taps in kernel.shape[-2:]]
        self.plane = shape[0] - lost[0], shape[1] - lost[1]
        self._size = sizes
        placed = place_kernel(kernel.double(), sizes, anchors)
        self.transfer = (torch.fft.rfft2 if self._real else torch.fft.fft2)(placed).to(dtype.to_complex())
        self.transfer_conj = self.transfer.conj().resolve_conj()
        self._energy: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """Convolution of planes (..., y, x)."""
        return self._split(self._apply, x, self.plane)

    def adjoint(self, y: Tensor) -> Tensor:
        """Its adjoint."""
        return self._split(self._adjoint, y, self._shape)

    def gram(self, x: Tensor) -> Tensor:
        """Adjoint of the convolution, for circular padding in one pair of transforms."""
        if self._padding != "circular":
            return self.adjoint(self.apply(x))
        if self._energy is None:
            self._energy = self.transfer.abs().square()
        energy = self._energy
        return self._split(lambda planes: self.inverse(self.forward(planes).mul_(energy), self._shape), x, self._shape)

    def padded(self, x: Tensor) -> Tensor:
        """Planes with the margin that the transform cannot make."""
        return pad(x, self._before, self._after, self._padding)

    def folded(self, x: Tensor) -> Tensor:
        """Adjoint of `padded`; x is overwritten."""
        return fold(x, self._before, self._after, self._padding).contiguous()

    @property
    def margin(self) -> tuple[int, int]:
        """Shape of a padded plane."""
        (y, x), before, after = self._shape, self._before, self._after
        return y + before[0] + after[0], x + before[1] + after[1]

    def forward(self, x: Tensor) -> Tensor:
        """Spectrum of planes, zeros added up to a size whose transform is fast."""
        return torch.fft.rfft2(x, s=self._size) if self._real else torch.fft.fft2(x, s=self._size)

    def inverse(self, spectrum: Tensor, plane: tuple[int, int]) -> Tensor:
        """Planes of a spectrum, cut to the wanted size."""
        inverse = torch.fft.irfft2 if self._real else torch.fft.ifft2
        return inverse(spectrum, s=self._size)[..., : plane[0], : plane[1]]

    def _split(self, function: Callable[[Tensor], Tensor], x: Tensor, plane: tuple[int, int]) -> Tensor:
        return in_pieces(function, x, plane) if self.transfer.ndim == 2 else function(x)

    def _apply(self, x: Tensor) -> Tensor:
        return self.inverse(self.forward(self.padded(x)).mul_(self.transfer), self.plane).contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.folded(self.inverse(self.forward(y).mul_(self.transfer_conj), self.margin))


def _fourier_size(n: int, taps: int, padding: str) -> tuple[int, int]:
    """Length of the transform, and the tap that belongs at place 0, so that the result begins at place 0."""
    from scipy.fft import next_fast_len

    anchor = taps // 2
    if padding == "circular":
        return n, anchor
    if padding == "zero":  # what leaves the image on one side must not come back on the other
        return next_fast_len(max(n + max(anchor, taps - 1 - anchor), taps), real=True), anchor
    return next_fast_len(n if padding == "valid" else n + taps - 1, real=True), taps - 1


def place_kernel(kernel: Tensor, size: tuple[int, int], anchor: tuple[int, int]) -> Tensor:
    """Kernel (..., ky, kx) in an image of zeros, its anchor at (0, 0)."""
    ky, kx = kernel.shape[-2:]
    image = F.pad(kernel, (0, size[1] - kx, 0, size[0] - ky))
    return image.roll((-anchor[0], -anchor[1]), dims=(-2, -1))
