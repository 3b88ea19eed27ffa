"""Nonlinear operators: they have gradients, but no adjoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inverse.errors import InputError, check_positive, check_tensor
from inverse.linalg.transforms import dct_matrix
from inverse.operators.base import Operator
from inverse.operators.images import checked_image

_BLOCK = 8
# Luminance quantisation of Recommendation ITU-T T.81 (JPEG), table K.1.
_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


class FourierMagnitude(Operator):
    """Phase retrieval: y = |F P (m x)|, the modulus of the centred orthonormal transform of the padded image.

    The gradient at a modulus of zero is taken as zero, so that it is finite everywhere. x and c x with |c| = 1 give the
    same data, and without masks so do a shifted and a mirrored conjugate image.

    Args:
        shape: shape of x, (..., y, x).
        oversampling: size after padding with zeros over the size of the image, per axis, default 2: enough for the
            intensities to be all of the autocorrelation.
        masks: complex or real (n, y, x) that multiply the image, e.g. coded diffraction patterns; None: no mask.
        dtype: dtype of x, real or complex, default complex64; y is real.
        device: where x lives; that of the masks if there are any.

    y has shape (..., Y, X), or (..., n, Y, X) with n masks.

    Raises:
        InputError: an oversampling below 1, or masks that do not fit the image.

    Reference: Fienup, "Phase retrieval algorithms: a comparison", 1982, equation 1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        oversampling: float = 2.0,
        masks: Tensor | None = None,
        dtype: torch.dtype = torch.complex64,
        device: torch.device | str = "cpu",
    ):
        shape = checked_image("FourierMagnitude", shape, dtype)
        if not 1 <= oversampling < math.inf:
            raise InputError(f"oversampling: expected at least 1, got {oversampling}; 1 adds no zeros.")
        size = tuple(round(oversampling * n) for n in shape[-2:])
        count: tuple[int, ...] = ()
        if masks is not None:
            check_tensor("masks", masks)
            if masks.ndim != 3 or masks.shape[-2:] != shape[-2:] or not len(masks):
                raise InputError(f"masks: expected (n, {shape[-2]}, {shape[-1]}), got {tuple(masks.shape)}; crop them.")
            count, device = (len(masks),), masks.device
        out_shape = (*shape[:-2], *count, *size)
        super().__init__(shape, out_shape, in_dtype=dtype, out_dtype=dtype.to_real(), device=device)
        if masks is not None:
            masks = masks.detach().to(dtype.to_complex() if masks.is_complex() else dtype.to_real())
        self.masks = masks

    def _apply(self, x: Tensor) -> Tensor:
        size = self.out_shape[-2:]
        if not x.numel():
            return x.new_zeros((*x.shape[: x.ndim - len(self.in_shape)], *self.out_shape), dtype=self.out_dtype)
        if self.masks is not None:
            x = x.unsqueeze(-3) * self.masks
        # A shift of the image is only a phase, so the zeros may all go to one side.
        modulus = torch.fft.fft2(x, s=size, norm="ortho").abs()
        return torch.fft.fftshift(modulus, dim=(-2, -1))


class Saturation(Operator):
    """High dynamic range: y = clip(x, low, high), what a detector records of more light than it can.

    Where x is outside the gradient is zero; a soft knee keeps some of it.

    Args:
        shape: shape of x and y.
        low: least value recorded, default 0.
        high: largest value recorded, default 1.
        softness: width of the knee in the units of x; y = low + s (log(1 + e^((x - low) / s)) - log(1 + e^((x - high) /
            s))), whose limit for small s is the clip. Default 0: the clip.
        dtype: real dtype of x and y, default float32.
        device: where x lives.

    Raises:
        InputError: low not below high, a negative softness, or complex images.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        low: float = 0.0,
        high: float = 1.0,
        softness: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = checked_image("Saturation", shape, dtype, real=True)
        if not (-math.inf < low < high < math.inf):
            raise InputError(f"low and high: expected finite numbers, low below high, got {low} and {high}.")
        check_positive("softness", softness, zero=True)
        super().__init__(shape, shape, in_dtype=dtype, device=device)
        self.low, self.high, self.softness = float(low), float(high), float(softness)

    def _apply(self, x: Tensor) -> Tensor:
        s = self.softness
        if s == 0:
            return x.clamp(self.low, self.high)
        # Farther out both logarithms are linear to double precision, and their difference would only lose digits.
        x = x.clamp(self.low - 40 * s, self.high + 40 * s)
        return self.low + s * (F.softplus((x - self.low) / s) - F.softplus((x - self.high) / s))


class Quantisation(Operator):
    """What JPEG does to a grey image: blocks of 8 x 8, cosine transform, rounding to multiples of a table, and back.

    y is the decoded image. Its values are not cut to [0, peak] nor rounded to integers, so that only the table acts.
    The gradient takes the rounding as the identity (straight through), else it would be zero almost everywhere.
    Sizes that are not multiples of 8 are continued by their border pixels, as encoders do, and cut again. Channels are
    treated alike; JPEG's own colour transform is not part of it.

    Args:
        shape: shape of x and y, (..., y, x).
        quality: 1 to 100, scales the standard table of luminance as libjpeg does; None: 50, the table as it is.
        table: steps (8, 8) for values 0 to 255, used as they are, in the place of quality.
        peak: the value of x that is 255 in a file, default 1.
        dtype: real dtype of x and y, default float32.
        device: where x lives.

    Raises:
        InputError: a quality outside of 1 to 100, a table that is not (8, 8) and positive, a peak that is not positive,
            or complex images.

    Reference: ITU-T, "Recommendation T.81", 1992, annexes A.3 and K.1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        quality: float | None = None,
        table: Tensor | None = None,
        peak: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = checked_image("Quantisation", shape, dtype, real=True)
        check_positive("peak", peak)
        if table is None:
            table = standard_table(50 if quality is None else quality)
        elif quality is not None:
            raise InputError(
                f"quality: scales the standard table, got quality={quality} and a table; give one of them."
            )
        check_tensor("table", table, complex_=False)
        if table.shape != (_BLOCK, _BLOCK) or not bool((table > 0).all()):
            raise InputError(f"table: expected positive steps (8, 8), got shape {tuple(table.shape)}.")
        super().__init__(shape, shape, in_dtype=dtype, device=device)
        self.peak = float(peak)
        self.table = table.detach().to(self.device, dtype)

    def _apply(self, x: Tensor) -> Tensor:
        if not x.numel():
            return x.clone()
        height, width = self.in_shape[-2:]
        down, right = -height % _BLOCK, -width % _BLOCK
        planes = x.reshape(-1, 1, height, width) * (255 / self.peak) - 128
        planes = F.pad(planes, (0, right, 0, down), mode="replicate")
        rows, columns = (height + down) // _BLOCK, (width + right) // _BLOCK
        blocks = planes.reshape(-1, rows, _BLOCK, columns, _BLOCK).transpose(-3, -2)
        dct = dct_matrix(_BLOCK, x.dtype, str(x.device))
        steps = dct @ blocks @ dct.mT / self.table
        # The forward value is the rounded one, the gradient that of steps.
        steps = steps + (steps.round() - steps).detach()
        blocks = dct.mT @ (steps * self.table) @ dct
        planes = blocks.transpose(-3, -2).reshape(-1, height + down, width + right)[:, :height, :width]
        return ((planes + 128) * (self.peak / 255)).reshape(x.shape)


def standard_table(quality: float) -> Tensor:
    """Steps of luminance at a quality: whole numbers of 1 to 255, about twice as coarse at 25, all 1 at 100.

    Args:
        quality: 1 to 100, in libjpeg's sense; 50 is the table of the standard.

    Returns:
        float64 (8, 8), for values 0 to 255.

    Raises:
        InputError: a quality outside of 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise InputError(f"quality: expected 1 to 100, got {quality}.")
    percent = math.floor(5000 / quality if quality < 50 else 200 - 2 * quality)
    return ((torch.tensor(_TABLE, dtype=torch.float64) * percent + 50) / 100).floor().clamp(1, 255)
