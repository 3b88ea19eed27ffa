"""Cartesian multi-coil MRI with every shift folded into the maps and the mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator
from inverse.operators.coils import check_maps, divide_energy, energy_of, support_of
from inverse.operators.fourier import AXES, Fourier, centring, fft, ifft
from inverse.operators.mask import checked_mask

# Coil images worked on at once: on a CPU about what its cache holds (8 samples of 8 coils at 320 x 320 are 4 times
# faster one by one than together, most of it page faults), elsewhere a bound on memory.
_CHUNK_BYTES = {"cpu": 4 * 2**20}
_CHUNK_BYTES_DEVICE = 512 * 2**20
# Limit on the table of the gram's blocks.
_TABLE_BYTES = 512 * 2**20


class _Folded(NamedTuple):
    """What a call multiplies by: maps and mask with the centring inside, and their conjugates, written out."""

    maps: Tensor
    maps_conj: Tensor
    mask: Tensor
    mask_conj: Tensor


class MultiCoilMRI(LinearOperator):
    """y = M F S x: sensitivities, centred orthonormal 2-D FFT, sampling mask.

    With Fc = c D F D (see `fourier.modulation`) the maps are kept as D S and the mask as c D M, so a call makes bare
    FFTs only. `gram` uses what the mask allows: a product for a full mask, for line masks one-dimensional FFTs or
    (several samples on a CPU) one small matrix per line of the image, bare 2-D FFTs otherwise.

    Args:
        maps: complex sensitivities (coils, y, x); None: one coil that sees everything alike, complex64.
        mask: zeros and ones or bool, broadcasts to (y, x): (x,) or (1, x) for phase-encoding lines, (y, 1) or (y, x);
            centre of k-space at (y // 2, x // 2).
        shape: (y, x), needed only with maps=None and a mask of fewer axes.

    Raises:
        InputError: an empty mask, a mask that does not fit the maps, real or non-finite maps.

    Notes:
        Data (*batch, coils, y, x) in the centred order of fastMRI, zeros where nothing was measured. `pinv` is the
        zero-filled A^H y over the sum of squares of the maps. `restrict` takes a mask.

    Reference: Pruessmann et al., "SENSE: sensitivity encoding for fast MRI", MRM 42, 1999, Eq. (1) to (4).
    """

    def __init__(self, maps: Tensor | None, mask: Tensor, *, shape: Sequence[int] | None = None):
        if not isinstance(mask, Tensor):
            raise InputError(f"MultiCoilMRI: mask: expected a torch.Tensor, got {type(mask).__name__}; convert it.")
        if maps is None:
            shape = tuple(mask.shape if shape is None else shape)
            if len(shape) != 2:
                raise InputError(f"MultiCoilMRI: expected shape (y, x) with maps=None, got {shape}; give shape=(y, x).")
            maps = torch.ones((1, *shape), dtype=torch.complex64, device=mask.device)
        check_maps(maps)
        if shape is not None and tuple(shape) != tuple(maps.shape[1:]):
            raise InputError(f"MultiCoilMRI: expected maps of {tuple(shape)}, got {tuple(maps.shape[1:])}; crop them.")
        if mask.device != maps.device:
            raise InputError(f"MultiCoilMRI: expected mask on {maps.device} like maps, got {mask.device}; move one.")
        super().__init__(maps.shape[1:], maps.shape, in_dtype=maps.dtype, device=maps.device)
        self.maps = maps
        self.mask = checked_mask(mask, self.in_shape)
        self._weights = self.mask.to(maps.dtype.to_real())
        self._axes = _undersampled_axes(self.mask)

    @property
    def coils(self) -> int:
        """Number of coils."""
        return self.out_shape[0]

    @property
    def weights(self) -> Tensor:
        """The mask as real numbers (y, x)."""
        return self._weights

    @property
    def support(self) -> Tensor | None:
        """Where any coil sees something, bool (y, x); None: everywhere."""
        return support_of(self)

    @property
    def svd(self) -> SVD | None:
        """For one coil of ones: V is the inverse Fourier transform and s the mask; None for anything else."""
        if not self._cached("unit", lambda: self.coils == 1 and bool((self.maps == 1).all())):
            return None
        fourier = Fourier(self.in_shape, dtype=self.in_dtype, device=self.device)
        return SVD(
            U=lambda z: z.unsqueeze(-3),
            Uh=lambda y: y.squeeze(-3),
            s=self._weights,
            V=fourier._adjoint,
            Vh=fourier._apply,
        )

    def restrict(self, index: Any) -> MultiCoilMRI:
        """The scan with fewer samples: its mask times another one that broadcasts to (y, x); y keeps its shape."""
        keep = checked_mask(torch.as_tensor(index), self.in_shape).to(self.device)
        return MultiCoilMRI(self.maps, self.mask & keep)

    @property
    def _folded(self) -> _Folded:
        def build() -> _Folded:
            before, after = centring(self.in_shape, self.in_dtype, self.device)
            maps, mask = before * self.maps, after * self._weights
            return _Folded(maps, maps.conj().resolve_conj(), mask, mask.conj().resolve_conj())

        return self._cached("folded", build)

    def _apply(self, x: Tensor) -> Tensor:
        folded = self._folded
        return fft(folded.maps * x.unsqueeze(-3)).mul_(folded.mask)

    def _adjoint(self, y: Tensor) -> Tensor:
        folded = self._folded

        def adjoint(y: Tensor) -> Tensor:
            images = ifft(y * folded.mask_conj)
            return images.mul_(folded.maps_conj).sum(-3)

        return self._in_chunks(adjoint, y, 3)

    def _pinv(self, y: Tensor) -> Tensor:
        return divide_energy(self._adjoint(y), energy_of(self))

    def _gram(self, x: Tensor) -> Tensor:
        if not self._axes:
            return energy_of(self) * x
        if self._blocks_pay(math.prod(x.shape[:-2])):
            return self._gram_blocks(x)
        folded = self._folded

        def gram(x: Tensor) -> Tensor:
            k = fft(folded.maps * x.unsqueeze(-3), self._axes).mul_(self._weights)
            return ifft(k, self._axes).mul_(folded.maps_conj).sum(-3)

        return self._in_chunks(gram, x, 2)

    def _in_chunks(self, function: Callable[[Tensor], Tensor], x: Tensor, axes: int) -> Tensor:
        """Apply `function` to as many samples at once as the coil images of the limit hold."""
        limit = _CHUNK_BYTES.get(self.device.type, _CHUNK_BYTES_DEVICE)
        samples = max(1, limit // (math.prod(self.out_shape) * x.element_size()))
        batch = x.shape[: x.ndim - axes]
        if math.prod(batch) <= samples:
            return function(x)
        parts = [function(part) for part in x.reshape(-1, *x.shape[x.ndim - axes :]).split(samples)]
        return torch.cat(parts).reshape(*batch, *self.in_shape)

    def _blocks_pay(self, samples: int) -> bool:
        """Whether the gram by blocks beats FFTs: line masks, several samples, many coils for the length of a line.

        Measured on a CPU core, per pixel, for lines of n pixels: blocks 1.43 n ns for every 8 samples or 0.45 n ns for
        each (matrix times vector), FFTs 5 to 8 ns for each coil and sample.
        """
        if len(self._axes) != 1 or self.device.type != "cpu" or samples == 0:
            return False
        n = self.in_shape[self._axes[0]]
        table = math.prod(self.in_shape) * n * self.in_dtype.itemsize
        return table <= _TABLE_BYTES and n * min(1.43 * -(-samples // 8), 0.45 * samples) < 6 * self.coils * samples

    def _gram_blocks(self, x: Tensor) -> Tensor:
        """A^H A for a line mask: along a line of the image, sum_c diag(conj s_c) T diag(s_c), T the mask's circulant.

        Lines do not mix, so A^H A is one n x n matrix per line, whatever the number of coils.
        """
        blocks = self._cached("blocks", self._build_blocks)
        lines = x if self._axes == (-1,) else x.mT
        flat = lines.reshape(-1, *lines.shape[-2:])
        out = torch.bmm(blocks, flat.permute(1, 2, 0)).permute(2, 0, 1).reshape(lines.shape)
        return (out if self._axes == (-1,) else out.mT).contiguous()

    def _build_blocks(self) -> Tensor:
        maps = self._folded.maps if self._axes == (-1,) else self._folded.maps.mT
        line = self._weights[0] if self._axes == (-1,) else self._weights[:, 0]
        n = maps.shape[-1]
        unit = torch.eye(n, dtype=self.in_dtype, device=self.device)
        circulant = torch.fft.ifft(torch.fft.fft(unit, dim=0) * line[:, None], dim=0)
        s = maps.permute(1, 0, 2)
        return torch.bmm(s.mH, s).mul_(circulant)


def _undersampled_axes(mask: Tensor) -> tuple[int, ...]:
    """Axes along which the mask varies; F^H F = 1 along the others, so the gram needs no transform there."""
    if bool(mask.all()):
        return ()
    if bool((mask == mask[:1]).all()):
        return (-1,)
    if bool((mask == mask[:, :1]).all()):
        return (-2,)
    return AXES
