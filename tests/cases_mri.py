"""Rows of the property tests: Cartesian MRI beyond one slice, small and in double precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from operator_cases import coin, randn

from inverse.operators import CoilMaps, Fourier, LinearOperator
from inverse.operators.dynamic import DynamicMRI
from inverse.operators.mri import MultiCoilMRI


def partial_fourier(n: int, missing: int, step: int = 1) -> torch.Tensor:
    """Lines of a scan whose first lines are missing, every `step`-th of the rest."""
    mask = torch.zeros(n)
    mask[missing::step] = 1
    return mask


def normalised(maps: torch.Tensor) -> torch.Tensor:
    return maps / maps.abs()


def cropped(maps: torch.Tensor) -> torch.Tensor:
    maps = maps.clone()
    maps[..., 0, :] = 0
    return maps


CASES: dict[str, Callable[[], LinearOperator]] = {
    "volume full": lambda: MultiCoilMRI(randn(2, 3, 4, 5), torch.ones(5)),
    "volume planes even": lambda: MultiCoilMRI(randn(3, 4, 4, 4), coin(4, 4, 1)),
    "volume planes odd": lambda: MultiCoilMRI(randn(2, 3, 5, 4), coin(3, 5, 1)),
    "volume lines": lambda: MultiCoilMRI(randn(2, 3, 4, 5), coin(5)),
    "volume lines along z": lambda: MultiCoilMRI(randn(2, 5, 3, 2), coin(5, 1, 1)),
    "volume plane of z and x": lambda: MultiCoilMRI(randn(2, 4, 3, 5), coin(4, 1, 5)),
    "volume points odd": lambda: MultiCoilMRI(randn(2, 3, 5, 7), coin(3, 5, 7)),
    "volume no maps": lambda: MultiCoilMRI(None, coin(3, 4, 5)).to(torch.float64),
    "sets lines": lambda: MultiCoilMRI(randn(2, 3, 6, 7), coin(7), sets=True),
    "sets points": lambda: MultiCoilMRI(randn(2, 3, 5, 4), coin(5, 4), sets=True),
    "sets full": lambda: MultiCoilMRI(randn(2, 3, 5, 4), torch.ones(4), sets=True),
    "sets cropped": lambda: MultiCoilMRI(cropped(randn(2, 3, 5, 4)), coin(4), sets=True),
    "sets one": lambda: MultiCoilMRI(randn(1, 3, 5, 4), coin(4), sets=True),
    "sets volume": lambda: MultiCoilMRI(randn(2, 3, 2, 3, 4), coin(2, 3, 1), sets=True),
    "partial Fourier even": lambda: MultiCoilMRI(randn(2, 6, 8), partial_fourier(8, 3)),
    "partial Fourier odd": lambda: MultiCoilMRI(randn(2, 6, 9), partial_fourier(9, 3, 2)),
    "off-centre points": lambda: MultiCoilMRI(randn(2, 5, 6), torch.nn.functional.pad(torch.ones(2, 2), (4, 0, 3, 0))),
    "one pixel": lambda: MultiCoilMRI(randn(2, 1, 1), torch.ones(1)),
    "one coil, phase only": lambda: MultiCoilMRI(normalised(randn(1, 5, 6)), coin(5, 6)),
    "dynamic lines": lambda: DynamicMRI(randn(2, 5, 6), coin(3, 6)),
    "dynamic points": lambda: DynamicMRI(randn(2, 5, 6), coin(3, 5, 6)),
    "dynamic lines odd, along y": lambda: DynamicMRI(randn(3, 5, 3), coin(2, 5, 1)),
    "dynamic full": lambda: DynamicMRI(randn(2, 3, 4), torch.ones(2, 4)),
    "dynamic no maps": lambda: DynamicMRI(None, coin(4, 6), shape=(5, 6)).to(torch.float64),
    "dynamic one frame": lambda: DynamicMRI(randn(2, 4, 5), coin(1, 5)),
    "dynamic sets": lambda: DynamicMRI(randn(2, 3, 4, 5), coin(2, 5), sets=True),
    "dynamic volume": lambda: DynamicMRI(randn(2, 3, 2, 4), coin(2, 3, 2, 1)),
    "slices": lambda: DynamicMRI(randn(3, 2, 4, 5), coin(3, 5)),
    "slices full": lambda: DynamicMRI(randn(3, 2, 4, 5), torch.ones(3, 5)),
    "slices cropped": lambda: DynamicMRI(cropped(randn(3, 2, 4, 5)), coin(3, 5)),
    "slices, sets": lambda: DynamicMRI(cropped(randn(2, 2, 3, 4, 5)), coin(2, 5), sets=True),
    "dynamic restricted": lambda: DynamicMRI(randn(2, 4, 6), torch.ones(3, 6)).restrict(coin(3, 1, 6)),
    "volume coil maps": lambda: CoilMaps(randn(2, 3, 4, 2)),
    "volume fourier": lambda: Fourier((2, 3, 4, 5), dims=3, dtype=torch.complex128),
    "line fourier": lambda: Fourier((3, 5), dims=1, dtype=torch.complex128),
}
