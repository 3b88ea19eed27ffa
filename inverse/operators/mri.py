"""Cartesian MRI: one or several coils and sets of maps, slices or volumes, every shift folded away."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, LinearOperator
from inverse.operators.coils import check_maps, energy, gather, inverse_energy, multiply_energy, spread, support_of
from inverse.operators.fourier import Fourier, centring, fft
from inverse.operators.line_blocks import apply_blocks, blocks_pay, build_blocks
from inverse.operators.mask import checked_mask, same

# Coil images worked on at once. A CPU with one thread takes as many coils as its cache holds, one after the other.
# With several threads all coils go together, because every small step would wait for the slowest thread; samples that
# do not fit (most of their time is page faults) are taken one by one. Elsewhere it is a bound on memory.
_CHUNK_BYTES = {"cpu": 2**20, "threads": 4 * 2**20, "device": 512 * 2**20}


class _Tables(NamedTuple):
    """What a call multiplies by."""

    before: Tensor  # centring of the image (*image)
    mask: Tensor  # mask with the centring of k-space inside (frames or 1, 1, *image)
    mask_conj: Tensor
    # Mask over number of points, zero frequency first, length 1 along axes that it is constant in, and for the real and
    # imaginary part (..., 2), with opposite signs: it masks and conjugates.
    weights: Tensor


class MultiCoilMRI(LinearOperator):
    """y = M F S x: sensitivities, centred orthonormal FFT, sampling mask; 2-D or 3-D.

    With Fc = c D F D (see `fourier.modulation`) the image is multiplied by D and the mask is kept as c D M, so a call
    makes bare FFTs only. `gram` needs no D and transforms only the axes along which the mask varies: none for a full
    mask, one for lines, two for a volume with a full readout; many samples of line masks on a CPU take one small
    matrix per line of the image.

    Args:
        maps: complex sensitivities (coils, y, x) or (coils, z, y, x); with `sets` one more axis in front, (sets, ...).
            None: one coil that sees everything alike, complex64.
        mask: zeros and ones or bool, broadcasts to the image: in 2-D (x,) for phase-encoding lines, (y, 1) or (y, x);
            in 3-D (y, x), (z, y, 1) or (z, y, x). Centre of k-space at n // 2. Any pattern: off centre, partial
            Fourier.
        shape: shape of the image, needed only with maps=None and a mask of fewer axes.
        sets: whether the first axis of maps counts sets of maps; x is then (sets, *image) and y the sum over sets,
            as where a small field of view folds the object over (soft SENSE). Default False.

    Raises:
        InputError: an empty mask, a mask that does not fit the maps, real or non-finite maps.

    Notes:
        Data (*batch, coils, *image) in the centred order of fastMRI, zeros where nothing was measured. `pinv` is the
        zero-filled A^H y over the sum of squares of the maps, exact for a full mask; several sets are told apart by
        the inverse of their matrix at every pixel. `restrict` takes a mask. `svd` exists for one coil of modulus 1,
        and for a full mask with one set.

    Reference: Pruessmann et al., "SENSE: sensitivity encoding for fast MRI", MRM 42, 1999, Eq. (1) to (4); Uecker et
    al., "ESPIRiT, an eigenvalue approach to autocalibrating parallel MRI", MRM 71, 2014, for several sets.
    """

    def __init__(self, maps: Tensor | None, mask: Tensor, *, shape: Sequence[int] | None = None, sets: bool = False):
        name = type(self).__name__
        if not isinstance(mask, Tensor):
            raise InputError(f"{name}: mask: expected a torch.Tensor, got {type(mask).__name__}; convert it.")
        if maps is None:
            maps = one_coil(name, mask.shape if shape is None else shape, sets, mask.device)
        check_maps(maps, (3 + sets, 4 + sets), "(coils, y, x) or (coils, z, y, x)" + sets * " with sets in front")
        image = tuple(maps.shape[1 + sets :])
        if len(image) == 3 and tuple(mask.shape) == image[:2] != image[1:]:
            raise InputError(
                f"{name}: expected a mask that broadcasts to {image}, got {tuple(mask.shape)}; for phase encoding "
                "along z and y give mask[..., None]."
            )
        self._build(maps, mask, image, shape, sets=sets)

    def _build(
        self,
        maps: Tensor,
        mask: Tensor,
        image: tuple[int, ...],
        shape: Sequence[int] | None,
        *,
        sets: bool,
        frames: int | None = None,
    ) -> None:
        """Check what belongs together and keep it; `frames` is the length of the first axis of mask, x and y."""
        name = type(self).__name__
        if shape is not None and tuple(shape) != image:
            raise InputError(f"{name}: expected maps of {tuple(shape)}, got {image}; crop them.")
        if mask.device != maps.device:
            raise InputError(f"{name}: expected mask on {maps.device} like maps, got {mask.device}; move one.")
        coil_axis = maps.ndim - len(image) - 1
        lead, several = (frames,) if frames else (), (maps.shape[coil_axis - 1],) if sets else ()
        coils = maps.shape[coil_axis]
        super().__init__((*lead, *several, *image), (*lead, coils, *image), in_dtype=maps.dtype, device=maps.device)
        self.maps = maps.resolve_conj()
        self.mask = checked_mask(mask, (*lead, *image))
        self._weights = self.mask.to(maps.dtype.to_real())
        self._image, self._frames, self._sets = image, frames, maps.shape[coil_axis - 1] if sets else None
        self._axes = undersampled_axes(self.mask, len(image))

    @property
    def coils(self) -> int:
        """Number of coils."""
        return self.out_shape[-1 - len(self._image)]

    @property
    def weights(self) -> Tensor:
        """The mask as real numbers, broadcasts to y."""
        return self._weights.unsqueeze(-1 - len(self._image)) if self._frames else self._weights

    @property
    def support(self) -> Tensor | None:
        """Where any coil sees something, bool of the shape of x; None: everywhere."""

        def build() -> Tensor | None:
            support = support_of(self._maps, 2)
            return support if support is None else support.expand(self._inner(1)[1:]).reshape(self.in_shape)

        return self._cached("support", build)

    @property
    def svd(self) -> SVD | None:
        """One coil of modulus 1: V^H is the Fourier transform, s the mask. A full mask, one set, no hole: V is I."""
        shape, batch = self._inner(1)[1:], -len(self.in_shape)
        if self._cached("unitary", self._is_unitary):
            maps = self._maps[:, :, 0].expand(shape).reshape(self.in_shape)
            fourier = Fourier(self.in_shape, dims=len(self._image), dtype=self.in_dtype, device=self.device)
            return SVD(
                U=lambda z: z.reshape(*z.shape[:batch], *self.out_shape),
                Uh=lambda y: y.reshape(*y.shape[: -len(self.out_shape)], *self.in_shape),
                s=self._weights.reshape(self.in_shape),
                V=lambda z: fourier._adjoint(z).mul_(maps.conj()),
                Vh=lambda x: fourier._apply(maps * x),
            )
        if self._axes or self._sets or self.support is not None:
            return None
        s = self._energy.sqrt().expand(shape).reshape(self.in_shape)
        return SVD(U=lambda z: self._apply(z / s), Uh=lambda y: self._adjoint(y) / s, s=s, V=same, Vh=same)

    def _is_unitary(self) -> bool:
        one = self.coils == 1 and self._maps.shape[1] == 1
        return one and bool(((self.maps.abs() - 1).abs() <= 4 * torch.finfo(self.maps.dtype).eps).all())

    def restrict(self, index: Any) -> MultiCoilMRI:
        """The scan with fewer samples: its mask times another one that broadcasts to it; y keeps its shape."""
        keep = checked_mask(torch.as_tensor(index), tuple(self.mask.shape)).to(self.device)
        return type(self)(self.maps, self.mask & keep, sets=self._sets is not None)

    @property
    def _maps(self) -> Tensor:
        """The maps as (frames or 1, sets, coils, *image)."""
        shared = self.maps.shape[: self.maps.ndim - len(self._image) - (2 if self._sets else 1)]
        return self.maps.reshape(*(shared or (1,)), self._sets or 1, self.coils, *self._image)

    def _inner(self, samples: int) -> tuple[int, ...]:
        """Shape of `samples` images with all axes."""
        return (samples, self._frames or 1, self._sets or 1, *self._image)

    @property
    def _tables(self) -> _Tables:
        def build() -> _Tables:
            dims = len(self._image)
            before, after = centring(self._image, self.in_dtype, self.device)
            weights = self._weights.reshape(-1, 1, *self._image)
            mask = weights * after
            for axis in set(range(-dims, 0)) - set(self._axes):
                weights = weights.narrow(axis, 0, 1)
            weights = torch.fft.ifftshift(weights, tuple(range(-dims, 0))).unsqueeze(-1)
            weights = weights / math.prod(self._image[axis] for axis in self._axes)
            return _Tables(before, mask, mask.conj().resolve_conj(), torch.cat([weights, -weights], -1))

        return self._cached("tables", build)

    @property
    def _energy(self) -> Tensor:
        return self._cached("energy", lambda: energy(self._maps))

    def _apply(self, x: Tensor) -> Tensor:
        tables, (batch, images) = self._tables, self._flat(x * self._tables.before, self.in_shape, self._sets or 1)
        k = fft(spread(self._maps, images), self._all_axes).mul_(tables.mask)
        return k.reshape(*batch, *self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        tables, all_maps, coils = self._tables, self._maps, self._coils_at_once()

        def adjoint(part: Tensor, frames: slice) -> Tensor:
            total: Tensor | None = None
            mask_conj, maps = _of(tables.mask_conj, frames), _of(all_maps, frames)
            for some, k in zip(maps.split(coils, 2), part.split(coils, 2), strict=True):
                # Conjugate images, from F conj(k) = conj(F^H k): they go with the maps, which need no conjugate copy.
                total = gather(total, some, fft((k * mask_conj).conj_physical_(), self._all_axes))
            assert total is not None  # there is a coil
            return (total * tables.before).conj_physical_()

        return self._in_pieces(adjoint, y, self.out_shape, self.coils)

    def _pinv(self, y: Tensor) -> Tensor:
        inverse = self._cached("inverse", lambda: inverse_energy(self._energy))
        batch, x = self._flat(self._adjoint(y), self.in_shape, self._sets or 1)
        return multiply_energy(inverse, x).reshape(*batch, *self.in_shape)

    def _gram(self, x: Tensor) -> Tensor:
        batch, images = self._flat(x, self.in_shape, self._sets or 1)
        if not self._axes:
            return multiply_energy(self._energy, images).reshape(*batch, *self.in_shape)
        if self._blocks_pay(len(images)):
            return self._gram_blocks(x)
        tables, all_maps, coils = self._tables, self._maps, self._coils_at_once()

        def gram(part: Tensor, frames: slice) -> Tensor:
            total: Tensor | None = None
            weights, maps = _of(tables.weights, frames), _of(all_maps, frames)
            for some in maps.split(coils, 2):
                images = fft(spread(some, part), self._axes)
                torch.view_as_real(images).mul_(weights)
                images = fft(images, self._axes)  # conjugate, as in the adjoint
                total = gather(total, some, images)
                del images  # its memory is in the cache: the next coils take it
            assert total is not None  # there is a coil
            return total.conj_physical_()

        return self._in_pieces(gram, x, self.in_shape, self._sets or 1)

    @property
    def _all_axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self._image), 0))

    def _flat(self, x: Tensor, shape: tuple[int, ...], channels: int) -> tuple[torch.Size, Tensor]:
        """Batch of x, and x as (samples, frames, channels, *image)."""
        batch = x.shape[: x.ndim - len(shape)]
        return batch, x.reshape(math.prod(batch), self._frames or 1, channels, *self._image)

    def _coils_at_once(self) -> int:
        """Coils in one step: what the cache holds on one thread of a CPU, else as many as memory should hold."""
        limit = _CHUNK_BYTES["cpu"] if self._one_thread else _CHUNK_BYTES["device"]
        return max(1, limit // self._image_bytes)

    @property
    def _one_thread(self) -> bool:
        return self.device.type == "cpu" and torch.get_num_threads() == 1

    @property
    def _image_bytes(self) -> int:
        return math.prod(self._image) * self.in_dtype.itemsize

    def _in_pieces(
        self, function: Callable[[Tensor, slice], Tensor], x: Tensor, shape: tuple[int, ...], channels: int
    ) -> Tensor:
        """Apply `function` to as many frames and samples at once as the limit holds; it gives images."""
        batch, flat = self._flat(x, shape, channels)
        count = self._frames or 1
        kind = "device" if self.device.type != "cpu" else "cpu" if self._one_thread else "threads"
        items = max(1, _CHUNK_BYTES[kind] // (self.coils * self._image_bytes))
        frames, samples = min(count, items), max(1, items // count)
        parts = [
            torch.cat([function(part[:, f : f + frames], slice(f, f + frames)) for f in range(0, count, frames)], 1)
            if frames < count
            else function(part, slice(0, count))
            for part in flat.split(samples)
        ]
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(*batch, *self.in_shape)

    def _blocks_pay(self, samples: int) -> bool:
        """Whether the gram by blocks beats FFTs."""
        if len(self._axes) != 1 or self.device.type != "cpu" or self._frames or self._sets:
            return False
        return blocks_pay(self._image, self._axes[0], self.coils, samples, self.in_dtype)

    def _gram_blocks(self, x: Tensor) -> Tensor:
        """A^H A of line masks: lines of the image do not mix, so it is one n x n matrix for each."""
        axis = self._axes[0]
        line = self._tables.weights[..., 0].flatten() * self._image[axis]
        blocks = self._cached("blocks", lambda: build_blocks(self._maps[0, 0], line, axis))
        return apply_blocks(blocks, x.reshape(-1, *self._image), axis).reshape(x.shape)


def _of(table: Tensor, frames: slice) -> Tensor:
    """The rows of these frames, of a table that may be shared by all."""
    return table if table.shape[0] == 1 else table[frames]


def one_coil(name: str, shape: Sequence[int], sets: bool, device: torch.device) -> Tensor:
    """Maps (1, *shape) of a coil that sees everything alike, for an operator that was given none."""
    shape = tuple(shape)
    if len(shape) not in (2, 3) or sets:
        raise InputError(
            f"{name}: expected shape (y, x) or (z, y, x) of one set with maps=None, got {shape}; give shape=(y, x)."
        )
    return torch.ones((1, *shape), dtype=torch.complex64, device=device)


def undersampled_axes(mask: Tensor, dims: int) -> tuple[int, ...]:
    """Axes of the image along which the mask varies; F^H F = 1 along the others, so the gram transforms these only."""
    return tuple(axis for axis in range(-dims, 0) if not bool((mask == mask.narrow(axis, 0, 1)).all()))
