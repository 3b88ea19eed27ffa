"""Rows of the property tests: small operators in double precision, one table a family."""

from collections.abc import Callable

import torch
from torch import Tensor

from inverse.operators import CoilMaps, Fourier, Identity, LinearOperator, Mask, MultiCoilMRI, stack
from inverse.operators.weighting import Mixed, Weighted


def randn(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def coin(*shape: int, seed: int = 0) -> Tensor:
    """Half of the samples; the first and the last always differ, so that a mask is neither empty nor full."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask.view(-1)[0], mask.view(-1)[-1] = True, False
    return mask


def mri(coils: int, shape: tuple[int, int], mask_shape: tuple[int, ...], seed: int = 0) -> MultiCoilMRI:
    return MultiCoilMRI(randn(coils, *shape, seed=seed + 1), coin(*mask_shape, seed=seed))


def cropped_mri() -> MultiCoilMRI:
    maps = randn(3, 8, 6)
    maps[:, :2] = 0
    return MultiCoilMRI(maps, coin(6))


def composed(shape: tuple[int, int], coils: int) -> LinearOperator:
    full = (coils, *shape)
    fourier = Fourier(full, dtype=torch.complex128)
    return Mask(coin(*shape), full, dtype=torch.complex128) @ fourier @ CoilMaps(randn(*full))


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "identity real": lambda: Identity((5, 4), dtype=torch.float64),
    "identity complex": lambda: Identity((7,), dtype=torch.complex128),
    "mask real": lambda: Mask(coin(5, 4), dtype=torch.float64),
    "mask complex": lambda: Mask(coin(4), (3, 5, 4), dtype=torch.complex128),
    "fourier even": lambda: Fourier((6, 8), dtype=torch.complex128),
    "fourier odd": lambda: Fourier((7, 9), dtype=torch.complex128),
    "fourier stacked": lambda: Fourier((3, 7, 6), dtype=torch.complex128),
    "coils": lambda: CoilMaps(randn(3, 5, 4)),
    "mri lines even": lambda: mri(3, (6, 6), (6,)),
    "mri lines odd": lambda: mri(3, (7, 7), (1, 7)),
    "mri lines non-square": lambda: mri(8, (9, 8), (8,)),
    "mri lines along y": lambda: mri(8, (9, 8), (9, 1)),
    "mri lines long, one coil": lambda: mri(1, (4, 30), (30,)),
    "mri points even": lambda: mri(3, (6, 8), (6, 8)),
    "mri points odd": lambda: mri(2, (9, 7), (9, 7)),
    "mri full": lambda: MultiCoilMRI(randn(2, 5, 6), torch.ones(6)),
    "mri cropped maps": cropped_mri,
    "mri no maps": lambda: MultiCoilMRI(None, coin(6), shape=(7, 6)).to(torch.float64),
    "mri restricted": lambda: mri(3, (6, 6), (6,)).restrict(coin(6, 1, seed=3)),
    "composition": lambda: composed((7, 6), 3),
    "sum": lambda: mri(3, (6, 7), (7,)) + mri(3, (6, 7), (6, 7), seed=5),
    "difference": lambda: mri(2, (6, 7), (7,)) - mri(2, (6, 7), (6, 7), seed=5),
    "scaled": lambda: (0.3 - 2j) * Fourier((5, 4), dtype=torch.complex128),
    "scaled real": lambda: -2 * Mask(coin(5, 4), dtype=torch.float64),
    "stack": lambda: stack([mri(3, (6, 7), (7,)), mri(2, (6, 7), (6, 7), seed=5)]),
    "stack flat": lambda: stack([Identity((6, 7), dtype=torch.complex128), mri(2, (6, 7), (6, 7))]),
    "restrict coils": lambda: (Fourier((3, 5, 4), dtype=torch.complex128) @ CoilMaps(randn(3, 5, 4))).restrict([2, 0]),
    "restrict slice": lambda: Identity((6, 7), dtype=torch.float64).restrict(slice(1, 6, 2)),
    "weighted": lambda: Weighted(mri(3, (6, 7), (7,)), randn(6, 7, dtype=torch.float64).clamp(min=0)),
    "weighted per row": lambda: Weighted(Mask(coin(5, 4), dtype=torch.float64), torch.rand(5, 1) + 0.1),
    "mixed": lambda: Mixed(mri(3, (6, 7), (7,)), randn(3, 3)),
    "adjoint": lambda: mri(3, (6, 7), (7,)).H,
    "adjoint of a composition": lambda: composed((5, 6), 2).H,
}
