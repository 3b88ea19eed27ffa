"""Super-resolution: an image seen by a coarser detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator
from inverse.operators.blur import Blur
from inverse.operators.images import checked_image
from inverse.operators.mask import same
from inverse.operators.resize import Resize
from inverse.operators.separable import Separable, in_pieces


class Downsample(LinearOperator):
    """Image reduced by an integer factor: means of blocks, bicubic, or a blur of which every factor-th pixel is kept.

    With "box" all singular values are 1 / factor and `pinv` repeats pixels. "bicubic" is `Resize` with its defaults
    (MATLAB's imresize). A kernel gives y[i] = (k * x)[phase + factor i], with `svd` and `pinv` if it is separable.

    Args:
        factor: pixels of x along a side of a pixel of y.
        shape: shape of x, (..., y, x).
        kernel: "box" (default), "bicubic", or a real tensor (ky, kx), convolved as `Blur` does.
        padding: for a tensor, that of `Blur`, default "circular".
        phase: for a tensor, the pixel that is kept first, default (factor - 1) // 2: a box of ones is then "box".
        dtype: dtype of x and y, default float32.
        device: where x lives; a tensor's own for a tensor.

    Raises:
        InputError: a factor that is not a positive integer or does not divide the image, another kernel, a kernel that
            does not fit, padding or phase without a tensor.
    """

    def __init__(
        self,
        factor: int,
        shape: Sequence[int],
        kernel: str | Tensor = "box",
        *,
        padding: str | None = None,
        phase: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        shape = checked_image("Downsample", shape, dtype)
        if int(factor) != factor or factor < 1:
            raise InputError(f"factor: expected a positive integer, got {factor}; use Resize for other ratios.")
        if isinstance(kernel, Tensor):
            inner: LinearOperator = _kept_blur(int(factor), shape, kernel, padding or "circular", phase, dtype)
        elif padding is not None or phase is not None:
            raise InputError(
                f"padding and phase: are for a kernel given as a tensor, got kernel={kernel!r}; omit them."
            )
        else:
            inner = _named(int(factor), shape, kernel, dtype, device)
        super().__init__(shape, inner.out_shape, in_dtype=dtype, device=inner.device)
        self.factor, self._inner = int(factor), inner

    def _apply(self, x: Tensor) -> Tensor:
        return self._inner._apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._inner._adjoint(y)

    def _gram(self, x: Tensor) -> Tensor:
        return self._inner._gram(x)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._inner._pinv(y)

    @property
    def has_pinv(self) -> bool:
        """For "box", "bicubic" and separable kernels."""
        return self._inner.has_pinv

    def _compute_norm(self) -> float:
        return self._inner.norm()

    @property
    def svd(self) -> SVD | None:
        """For "box", with the data as coefficients, for "bicubic" and for separable kernels."""
        return self._inner.svd


def _named(
    factor: int, shape: tuple[int, ...], kernel: str, dtype: torch.dtype, device: torch.device | str
) -> LinearOperator:
    if kernel not in ("box", "bicubic"):
        raise InputError(f"kernel: expected 'box', 'bicubic' or a tensor, got {kernel!r}; Resize has more.")
    if shape[-2] % factor or shape[-1] % factor:
        raise InputError(f"factor: {factor} does not divide the image {shape[-2:]}; crop it, or use Resize.")
    size = shape[-2] // factor, shape[-1] // factor
    if kernel == "bicubic":
        return Resize(shape, size, dtype=dtype, device=device)
    return _Box(factor, shape, size, dtype, device)


def _kept_blur(
    factor: int, shape: tuple[int, ...], kernel: Tensor, padding: str, phase: int | None, dtype: torch.dtype
) -> LinearOperator:
    blur = Blur(kernel, shape, padding=padding, dtype=dtype)
    phase = (factor - 1) // 2 if phase is None else phase
    rows, columns = (len(range(phase, n, factor)) for n in blur.out_shape[-2:])
    if not 0 <= phase < factor or not rows or not columns:
        raise InputError(
            f"phase: expected 0 to {factor - 1} inside of the blurred image {blur.out_shape[-2:]}, got {phase}."
        )
    kept = _Kept(factor, phase, blur.out_shape, (rows, columns), dtype, blur.device)
    return kept @ blur if blur.lines is None else _KeptProducts(blur, kept)


class _Box(LinearOperator):
    """Means of blocks."""

    def __init__(
        self,
        factor: int,
        shape: tuple[int, ...],
        size: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        super().__init__(shape, (*shape[:-2], *size), in_dtype=dtype, device=device)
        self._factor, self._size = factor, size

    def _apply(self, x: Tensor) -> Tensor:
        return in_pieces(lambda planes: self._sum(planes).mul_(self._factor**-2), x, self._size)

    def _adjoint(self, y: Tensor) -> Tensor:
        return in_pieces(lambda planes: self._repeat(planes * self._factor**-2), y, self.in_shape[-2:])

    def _gram(self, x: Tensor) -> Tensor:
        def gram(x: Tensor) -> Tensor:
            return self._repeat(self._sum(x).mul_(self._factor**-4))

        return in_pieces(gram, x, self.in_shape[-2:])

    def _pinv(self, y: Tensor) -> Tensor:
        # By a factor of 1 the repeated image would be y itself.
        return in_pieces(self._repeat, y, self.in_shape[-2:]) if self._factor > 1 else y.clone()

    def _compute_norm(self) -> float:
        return 1 / self._factor

    @property
    def svd(self) -> SVD:
        """A A^H = 1 / factor^2, so that U = 1."""
        s = torch.full((), 1 / self._factor, dtype=self.in_dtype.to_real(), device=self.device)
        return SVD(
            U=same,
            Uh=same,
            s=s,
            V=lambda c: self._factor * self._adjoint(c),
            Vh=lambda x: self._factor * self._apply(x),
        )

    def _sum(self, x: Tensor) -> Tensor:
        """Sums of blocks, line by line: several times faster than a mean over two axes."""
        f = self._factor
        lines = x[:, ::f].clone()
        for i in range(1, f):
            lines.add_(x[:, i::f])
        blocks = lines[..., ::f].clone()
        for i in range(1, f):
            blocks.add_(lines[..., i::f])
        return blocks

    def _repeat(self, y: Tensor) -> Tensor:
        f, (height, width) = self._factor, self._size
        lines = y.unsqueeze(-1).expand(-1, -1, -1, f).reshape(len(y), height, 1, width * f)
        # Of a single row or pixel the reshaped tensor would repeat one place of memory.
        return lines.expand(-1, -1, f, -1).reshape(len(y), height * f, width * f).contiguous()


class _Kept(LinearOperator):
    """Every factor-th pixel from `phase` on."""

    def __init__(
        self,
        factor: int,
        phase: int,
        shape: tuple[int, ...],
        size: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
    ):
        super().__init__(shape, (*shape[:-2], *size), in_dtype=dtype, device=device)
        self.places = slice(phase, None, factor)

    def _apply(self, x: Tensor) -> Tensor:
        return x[..., self.places, self.places].clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros((*y.shape[:-2], *self.in_shape[-2:]))
        x[..., self.places, self.places] = y
        return x


class _KeptProducts(Separable):
    """Every factor-th pixel of a separable blur: the rows that are not kept are not computed."""

    def __init__(self, blur: Blur, kept: _Kept):
        super().__init__(blur.in_shape, kept.out_shape, in_dtype=blur.in_dtype, device=blur.device)
        self._blur, self._kept = blur, kept

    def _matrices(self) -> tuple[Tensor, Tensor]:
        rows, columns = self._blur.matrices()
        return rows[self._kept.places], columns[self._kept.places]
