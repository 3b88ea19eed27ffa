"""Coil sensitivities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor
from inverse.operators.base import LinearOperator, T


class CoilMaps(LinearOperator):
    """S: image (y, x) -> coil images (coils, y, x), each coil's sensitivity times the image.

    Args:
        maps: complex sensitivities (coils, y, x).

    Raises:
        InputError: maps are real, not finite, all zero or not of three axes.
    """

    def __init__(self, maps: Tensor):
        check_maps(maps)
        super().__init__(maps.shape[1:], maps.shape, in_dtype=maps.dtype, device=maps.device)
        self.maps = maps

    @property
    def coils(self) -> int:
        """Number of coils."""
        return self.out_shape[0]

    def _apply(self, x: Tensor) -> Tensor:
        return self.maps * x.unsqueeze(-3)

    def _adjoint(self, y: Tensor) -> Tensor:
        return (self.maps.conj() * y).sum(-3)

    def _gram(self, x: Tensor) -> Tensor:
        return energy_of(self) * x

    def _pinv(self, y: Tensor) -> Tensor:
        return divide_energy(self._adjoint(y), energy_of(self))

    @property
    def support(self) -> Tensor | None:
        """Where any coil sees something; None: everywhere."""
        return support_of(self)


def check_maps(maps: Tensor) -> None:
    """Refuse anything that is not a set of coil maps.

    Raises:
        InputError: maps are real, not finite, all zero or not of shape (coils, y, x).
    """
    check_tensor("maps", maps, complex_=True)
    if maps.ndim != 3 or 0 in maps.shape:
        raise InputError(f"maps: expected shape (coils, y, x), got {tuple(maps.shape)}; add or remove axes.")
    if not bool((maps != 0).any()):
        raise InputError("maps: expected sensitivities, got all zeros; check the calibration.")


class HasMaps(Protocol):
    """An operator with coil maps (coils, y, x)."""

    maps: Tensor

    def _cached(self, key: str, build: Callable[[], T]) -> T: ...


def energy_of(operator: HasMaps) -> Tensor:
    """Sum of squares of the maps, real (y, x)."""
    return operator._cached("energy", lambda: operator.maps.abs().square().sum(0))


def support_of(operator: HasMaps) -> Tensor | None:
    """Where any map is not 0, bool (y, x); None if that is everywhere. Cropped maps are exactly 0 outside."""

    def build() -> Tensor | None:
        # Not energy > 0: the square of a small sensitivity may underflow.
        support = (operator.maps != 0).any(0)
        return None if bool(support.all()) else support

    return operator._cached("support", build)


def divide_energy(x: Tensor, energy: Tensor) -> Tensor:
    """x over the sum of squares of the maps, 0 where no coil sees; leaves x unchanged for normalised maps."""
    return torch.where(energy > 0, x / energy, 0)
