"""Blur: convolution with one kernel, or with kernels that change across the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor
from inverse.operators.base import SVD, LinearOperator
from inverse.operators.circulant import circulant_svd
from inverse.operators.convolution import (
    PADDINGS,
    Channels,
    Convolution,
    Spectrum,
    Taps,
    convolution_matrix,
    place_kernel,
)
from inverse.operators.images import checked_image
from inverse.operators.separable import RowsAndColumns, in_pieces

METHODS = ("auto", "fft", "direct")
# Nanoseconds per pixel on a CPU core, float32, images of 256 and 512. A sum of shifted images: for each tap. Products
# with two bands: any kernel, more where it wraps around, each tap along y or x. A pair of FFTs, of the image as it is
# and padded: for each doubling of its pixels. A grouped convolution of 16 planes or less: any kernel, each tap.
_TAP = 0.21
_PRODUCTS, _PRODUCTS_WRAPPED, _PRODUCTS_TAP = 4.1, 1.2, 0.028
_FFT, _FFT_PADDED = 0.36, 0.5
_CHANNELS, _CHANNELS_TAP = 22.0, 0.45
_CHANNELS_SIZE = 13  # beyond, the time is erratic
# A kernel whose other singular values are below this many roundings of the largest is a product of two lines.
_RANK_ONE = 16


class Blur(LinearOperator):
    """y = k * x, a true convolution over the last two axes: y[i] = sum_j k[j] x[i + a - j] with anchor a = size // 2.

    The anchor is the middle of an odd kernel and the tap after the middle of an even one, as in `scipy.ndimage`; a
    single 1 there is the identity. With "valid" no anchor is needed: y has size - 1 pixels less along each axis.

    The adjoint is exact for every padding: what a margin would receive is added to the pixels it was copied from.
    There is no `pinv`: an inverse without regard of the noise amplifies it without bound. With circular padding and
    with separable kernels there is an `svd`, else use `inverse.linalg.cg` with `gram`.

    Args:
        kernel: real (ky, kx), used as it is (not normalised); or (..., ky, kx) with axes that broadcast to those of
            `shape` before the image: one kernel per channel or per item.
        shape: shape of x, (..., y, x).
        padding: what lies outside of the image, default "circular". "circular": the other side (scipy's "wrap").
            "zero": nothing ("constant"). "reflect": the mirror image without the border pixel itself ("mirror" in
            scipy.ndimage, whose "reflect" repeats it). "replicate": the border pixel ("nearest"). "valid": y is only
            where the kernel lies inside of the image.
        method: "fft", "direct" (in image space: by rows and columns for separable kernels, else tap by tap),
            or "auto", default: the cheapest by measured costs.
        dtype: dtype of x and y, real or complex, default float32.

    Raises:
        InputError: a kernel that is not real and finite, does not broadcast, or is too large for the image and the
            padding; another padding or method; an image without pixels.
    """

    def __init__(
        self,
        kernel: Tensor,
        shape: Sequence[int],
        *,
        padding: str = "circular",
        method: str = "auto",
        dtype: torch.dtype = torch.float32,
    ):
        shape = checked_image("Blur", shape, dtype)
        plane = checked_kernel(kernel, shape, padding)
        if method not in METHODS:
            raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}.")
        if method == "direct" and kernel.ndim > 2:
            raise InputError(f"method: 'direct' takes one kernel, got a stack {tuple(kernel.shape)}; use 'fft'.")
        super().__init__(shape, (*shape[:-2], *plane), in_dtype=dtype, device=kernel.device)
        self.kernel = kernel.detach().to(dtype.to_real())
        self.padding, self.method = padding, method
        # What the values were rounded to; a later conversion to double precision does not undo it.
        self._rounding = torch.finfo(kernel.dtype if kernel.is_floating_point() else torch.float64).eps

    @property
    def _plane(self) -> tuple[int, int]:
        return self.in_shape[-2], self.in_shape[-1]

    @property
    def lines(self) -> tuple[Tensor, Tensor] | None:
        """Lines (ky,) and (kx,) whose product the kernel is, or None where it is not separable."""
        rounding = max(self._rounding, torch.finfo(self.kernel.dtype).eps)
        return self._cached("lines", lambda: _factored(self.kernel, rounding))

    @property
    def _taps(self) -> Tensor:
        """The kernel in double precision, the exact product of the lines where there are any: all ways agree."""
        return self.kernel.double() if self.lines is None else self.lines[0][:, None] * self.lines[1]

    def matrices(self) -> tuple[Tensor, Tensor]:
        """R and C of y = R x C^T, padding included, float64; of separable kernels only."""
        lines = self.lines
        if lines is None:
            raise InputError("Blur: the kernel is not a product of two lines; there are no matrices.")
        rows, columns = (convolution_matrix(v, n, self.padding) for v, n in zip(lines, self._plane, strict=True))
        return rows, columns

    @property
    def _products(self) -> RowsAndColumns:
        dtype = self.in_dtype.to_real()
        return self._cached("products", lambda: RowsAndColumns(*(matrix.to(dtype) for matrix in self.matrices())))

    def _convolution(self, x: Tensor) -> Convolution:
        """The way that is cheapest for as many planes as x has."""
        planes = math.prod(x.shape[:-2]) * (2 if x.is_complex() else 1)
        way = self._cached(f"way of {planes}", lambda: self._choose(planes))
        return self._cached(way, lambda: self._build(way))

    def _build(self, way: str) -> Convolution:
        if way == "products":
            return self._products
        if way == "fft":
            return Spectrum(self._taps, self._plane, self.padding, self.in_dtype)
        kernel = self._taps.to(self.kernel.dtype)
        return (Taps if way == "taps" else Channels)(kernel, self._plane, self.padding)

    def _choose(self, planes: int) -> str:
        if self.kernel.ndim > 2 or self.method == "fft":
            return "fft"
        (ky, kx), circular = self.kernel.shape, self.padding == "circular"
        costs = {"taps": _TAP * int(self.kernel.count_nonzero())}
        if self.lines is not None:
            costs["products"] = _PRODUCTS + _PRODUCTS_TAP * (ky + kx) + (_PRODUCTS_WRAPPED if circular else 0)
        single = self.device.type == "cpu" and self.in_dtype.to_real() == torch.float32
        if single and max(ky, kx) <= _CHANNELS_SIZE:
            runs = -(-planes // Channels.LANES)
            costs["channels"] = (_CHANNELS + _CHANNELS_TAP * ky * kx) * runs / max(planes, 1)
        if self.method == "auto":
            (ny, nx), padded = self._plane, self.padding in ("zero", "reflect", "replicate")
            size = (ny + ky) * (nx + kx) if padded else ny * nx
            costs["fft"] = (_FFT if circular else _FFT_PADDED) * math.log2(size) * size / (ny * nx)
        return min(costs, key=costs.__getitem__)

    def _apply(self, x: Tensor) -> Tensor:
        if not x.numel():
            return x.new_zeros(*x.shape[:-2], *self.out_shape[-2:])
        return self._by_planes(self._convolution(x).apply, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        if not y.numel():
            return y.new_zeros(*y.shape[:-2], *self._plane)
        return self._by_planes(self._convolution(y).adjoint, y)

    def _gram(self, x: Tensor) -> Tensor:
        return self._by_planes(self._convolution(x).gram, x) if x.numel() else x.clone()

    def _by_planes(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply to all planes alike, or with the axes that a stack of kernels needs."""
        if self.kernel.ndim > 2:
            return function(x)
        y = function(x.reshape(-1, *x.shape[-2:]))
        return y.reshape(*x.shape[:-2], *y.shape[-2:])

    @property
    def _transfer(self) -> Tensor:
        """What circular convolution multiplies the spectrum by, complex128 (..., y, x)."""
        anchor = self.kernel.shape[-2] // 2, self.kernel.shape[-1] // 2
        return torch.fft.fft2(place_kernel(self._taps, self._plane, anchor))

    def _compute_norm(self) -> float:
        if self.padding == "circular":
            return float(self._transfer.abs().max())
        return super()._compute_norm() if self.lines is None else self._products.norm()

    @property
    def svd(self) -> SVD | None:
        """Of circular padding: real coefficients of the image's shape; of a separable kernel: by rows and columns."""
        if self.padding == "circular":
            return self._cached("svd", lambda: circulant_svd(self._transfer, self.in_dtype))
        return None if self.lines is None else self._products.svd()


class VaryingBlur(LinearOperator):
    """y = sum_n k_n * (w_n x): blur that changes across the image, by blending kernels.

    The weights act before the kernels, so that every pixel of x is spread by its own kernel sum_n w_n(pixel) k_n. This
    is the physical order for a lens; the other order, sum_n w_n (k_n * x), gathers with the kernel of the pixel of y.

    Args:
        kernels: real (n, ky, kx), anchors as in `Blur`.
        weights: real (n, y, x); for a blur that keeps the brightness they sum to 1 over n.
        shape: shape of x, (..., y, x).
        padding: as in `Blur`, default "circular"; the margin is that of w_n x.
        dtype: dtype of x and y, default float32.

    Raises:
        InputError: kernels or weights that are not real and finite, do not fit each other or the image.

    Reference: Nagy and O'Leary, "Restoring images degraded by spatially variant blur", 1998, section 2.
    """

    def __init__(
        self,
        kernels: Tensor,
        weights: Tensor,
        shape: Sequence[int],
        *,
        padding: str = "circular",
        dtype: torch.dtype = torch.float32,
    ):
        shape = checked_image("VaryingBlur", shape, dtype)
        check_tensor("weights", weights, complex_=False)
        check_tensor("kernels", kernels, complex_=False)
        if kernels.ndim != 3 or weights.shape != (len(kernels), *shape[-2:]):
            raise InputError(
                f"VaryingBlur: expected kernels (n, ky, kx) and weights (n, {shape[-2]}, {shape[-1]}), got "
                f"{tuple(kernels.shape)} and {tuple(weights.shape)}; give one map of weights for each kernel."
            )
        if kernels.device != weights.device:
            raise InputError(
                f"VaryingBlur: kernels on {kernels.device}, weights on {weights.device}; move one by .to()."
            )
        out = checked_kernel(kernels, (len(kernels), *shape[-2:]), padding)
        super().__init__(shape, (*shape[:-2], *out), in_dtype=dtype, device=kernels.device)
        self.kernels = kernels.detach().to(dtype.to_real())
        self.blend = weights.detach().to(dtype.to_real())
        self.padding = padding

    @property
    def _spectrum(self) -> Spectrum:
        plane = self.in_shape[-2], self.in_shape[-1]
        return self._cached("spectrum", lambda: Spectrum(self.kernels, plane, self.padding, self.in_dtype))

    def _apply(self, x: Tensor) -> Tensor:
        spectrum = self._spectrum

        def apply(x: Tensor) -> Tensor:
            parts = spectrum.forward(spectrum.padded(x.unsqueeze(-3) * self.blend)).mul_(spectrum.transfer)
            return spectrum.inverse(parts.sum(-3), spectrum.plane)

        return in_pieces(apply, x, spectrum.plane, copies=len(self.kernels))

    def _adjoint(self, y: Tensor) -> Tensor:
        spectrum = self._spectrum

        def adjoint(y: Tensor) -> Tensor:
            parts = spectrum.forward(y).unsqueeze(-3) * spectrum.transfer_conj
            return (spectrum.folded(spectrum.inverse(parts, spectrum.margin)) * self.blend).sum(-3)

        return in_pieces(adjoint, y, (self.in_shape[-2], self.in_shape[-1]), copies=len(self.kernels))


def checked_kernel(kernel: Tensor, shape: tuple[int, ...], padding: str) -> tuple[int, int]:
    """Refuse a kernel that cannot be convolved with images of `shape`.

    Args:
        kernel: (..., ky, kx).
        shape: (..., y, x).
        padding: one of `PADDINGS`.

    Returns:
        Shape of an image after the convolution, (y, x).

    Raises:
        InputError: not real and finite, all zero, axes that do not broadcast, too large, or another padding.
    """
    check_tensor("kernel", kernel, complex_=False)
    if padding not in PADDINGS:
        raise InputError(f"padding: expected one of {', '.join(PADDINGS)}, got {padding!r}.")
    size, plane = tuple(kernel.shape[-2:]), tuple(shape[-2:])
    if kernel.ndim < 2 or 0 in kernel.shape or not bool((kernel != 0).any()):
        raise InputError(f"kernel: expected (ky, kx) with values other than 0, got {tuple(kernel.shape)}.")
    lead, wanted = tuple(kernel.shape[:-2]), tuple(shape[:-2])
    if len(lead) > len(wanted) or any(a not in (1, b) for a, b in zip(lead[::-1], wanted[::-1], strict=False)):
        raise InputError(
            f"kernel: expected leading axes that broadcast to {wanted}, got {lead}; give (ky, kx) for one."
        )
    limits = {"circular": plane, "valid": plane, "reflect": tuple(2 * n - 1 for n in plane)}
    limit = limits.get(padding, size)
    if size[0] > limit[0] or size[1] > limit[1]:
        raise InputError(
            f"kernel: {size} is too large for images of {plane} with padding {padding!r} (at most {limit}); "
            "crop the kernel, or use 'zero' or 'replicate'."
        )
    return (plane[0] - size[0] + 1, plane[1] - size[1] + 1) if padding == "valid" else (plane[0], plane[1])


def _factored(kernel: Tensor, rounding: float) -> tuple[Tensor, Tensor] | None:
    """Lines (ky,) and (kx,), float64, whose outer product the kernel is to its rounding, or None."""
    if kernel.ndim > 2:
        return None
    u, s, vh = torch.linalg.svd(kernel.double(), full_matrices=False)
    if len(s) > 1 and s[1] > _RANK_ONE * rounding * s[0]:
        return None
    root = s[0].sqrt()
    return root * u[:, 0], root * vh[0]
