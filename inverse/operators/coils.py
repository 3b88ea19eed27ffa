"""Coil sensitivities: the operator, and the sums over coils and sets of maps that multi-coil scans are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor
from inverse.operators.base import LinearOperator

# Singular values of the small matrices between sets of maps below this part of the largest count as 0.
_RANK = 1e-5


class CoilMaps(LinearOperator):
    """S: image (y, x) or (z, y, x) -> coil images (coils, *image), each coil's sensitivity times the image.

    Args:
        maps: complex sensitivities (coils, y, x) or (coils, z, y, x).

    Raises:
        InputError: maps are real, not finite, all zero or not of three or four axes.
    """

    def __init__(self, maps: Tensor):
        check_maps(maps, (3, 4), "(coils, y, x) or (coils, z, y, x)")
        super().__init__(maps.shape[1:], maps.shape, in_dtype=maps.dtype, device=maps.device)
        self.maps = maps

    @property
    def coils(self) -> int:
        """Number of coils."""
        return self.out_shape[0]

    @property
    def _energy(self) -> Tensor:
        return self._cached("energy", lambda: self.maps.abs().square().sum(0))

    def _apply(self, x: Tensor) -> Tensor:
        return self.maps * x.unsqueeze(-len(self.out_shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self.maps.conj() * y).sum(-len(self.out_shape))

    def _gram(self, x: Tensor) -> Tensor:
        return self._energy * x

    def _pinv(self, y: Tensor) -> Tensor:
        return torch.where(self._energy > 0, self._adjoint(y) / self._energy, 0)

    @property
    def support(self) -> Tensor | None:
        """Where any coil sees something; None: everywhere."""
        return self._cached("support", lambda: support_of(self.maps, 0))


def check_maps(maps: Tensor, axes: tuple[int, ...], meaning: str) -> None:
    """Refuse anything that is not a set of coil maps.

    Args:
        maps: the maps.
        axes: how many axes they may have.
        meaning: what the axes are, for the message.

    Raises:
        InputError: maps are real, not finite, all zero, in half precision or of another number of axes.
    """
    if isinstance(maps, Tensor) and maps.dtype == torch.complex32:
        raise InputError(
            "maps: expected complex64 or complex128, got complex32; convert them: maps.to(torch.complex64)."
        )
    check_tensor("maps", maps, complex_=True)
    if maps.ndim not in axes or 0 in maps.shape:
        raise InputError(f"maps: expected shape {meaning}, got {tuple(maps.shape)}; add or remove axes.")
    if not bool((maps != 0).any()):
        raise InputError("maps: expected sensitivities, got all zeros; check the calibration.")


def support_of(maps: Tensor, coil_axis: int) -> Tensor | None:
    """Where any map is not 0; None if that is everywhere. Cropped maps are exactly 0 outside."""
    # Not the energy > 0: the square of a small sensitivity may underflow.
    support = (maps != 0).any(coil_axis)
    return None if bool(support.all()) else support


def spread(maps: Tensor, x: Tensor) -> Tensor:
    """Coil images of all sets: sum over sets of maps times image.

    Args:
        maps: (frames or 1, sets, coils, *image).
        x: (samples, frames, sets, *image).

    Returns:
        (samples, frames, coils, *image), a new tensor.
    """
    if maps.shape[1] == 1:
        return maps.squeeze(1) * x
    images = maps[:, 0] * x[:, :, :1]
    for s in range(1, maps.shape[1]):
        images.addcmul_(maps[:, s], x[:, :, s : s + 1])
    return images


def gather(total: Tensor | None, maps: Tensor, conjugates: Tensor) -> Tensor:
    """Adjoint of `spread` on conjugates, conj(S^H c) = S^T conj(c), added to `total`; may work in place on both.

    Args:
        total: what other coils gave, (samples, frames, sets, *image); None: nothing yet.
        maps: (frames or 1, sets, coils, *image).
        conjugates: conjugate coil images (samples, frames, coils, *image).

    Returns:
        (samples, frames, sets, *image), conjugate.
    """
    sets, coils = maps.shape[1:3]
    if coils == 1:
        one = maps.squeeze(2)
        return one * conjugates if total is None else total.addcmul_(one, conjugates)
    if sets == 1:
        part = conjugates.mul_(maps.squeeze(1)).sum(2, keepdim=True)
    else:
        part = torch.stack([(maps[:, s] * conjugates).sum(2) for s in range(sets)], 2)
    return part if total is None else total.add_(part)


def energy(maps: Tensor) -> Tensor:
    """S^H S pixel by pixel: sum of squares (frames or 1, 1, *image), real, of one set; else its matrix between sets.

    Args:
        maps: (frames or 1, sets, coils, *image).

    Returns:
        One set: real (frames or 1, 1, *image). Several: Hermitian (frames or 1, sets, sets, *image).
    """
    if maps.shape[1] == 1:
        return maps.abs().square().sum(2)
    # Row a, column b: sum over coils of conj(s_a) s_b.
    return torch.stack([(maps[:, a : a + 1].conj() * maps).sum(2) for a in range(maps.shape[1])], 1)


def multiply_energy(matrix: Tensor, x: Tensor) -> Tensor:
    """`energy` times an image (samples, frames, sets, *image)."""
    if x.shape[2] == 1:
        return matrix * x
    return (matrix * x.unsqueeze(2)).sum(3)


def inverse_energy(matrix: Tensor) -> Tensor:
    """Pseudo-inverse of `energy`, of the same shape: 0 where no coil sees."""
    if not matrix.is_complex():
        return torch.where(matrix > 0, 1 / matrix, 0)
    pixels = matrix.movedim((1, 2), (-2, -1))
    return torch.linalg.pinv(pixels, rtol=_RANK, hermitian=True).movedim((-2, -1), (1, 2))
