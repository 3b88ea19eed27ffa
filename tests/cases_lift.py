"""Rows of the property tests: lifted and block operators, matrices, and operators of other packages."""

from collections.abc import Callable

import numpy as np
import sigpy
import torch
from operator_cases import coin, composed, cropped_mri, mri, randn
from scipy import sparse
from sigpy.mri.linop import Sense
from torch import Tensor

from inverse.operators import CoilMaps, Fourier, Identity, LinearOperator, Mask, MultiCoilMRI, stack
from inverse.operators.blocks import block_diagonal, block_row
from inverse.operators.function import from_function
from inverse.operators.interop import from_scipy, from_sigpy
from inverse.operators.lift import lift

REAL = torch.float64


def mask_real(seed: int) -> Mask:
    return Mask(coin(5, 4, seed=seed), dtype=REAL)


def real_matrix(rows: int, columns: int) -> sparse.csr_array:
    return sparse.random_array((rows, columns), density=0.3, rng=np.random.default_rng(0), format="csr")


def complex_matrix(rows: int, columns: int) -> sparse.csr_array:
    return real_matrix(rows, columns) * (0.4 - 2j)


def sense() -> Sense:
    return Sense(randn(3, 7, 6).numpy(), weights=coin(6).numpy().astype(float))


def blurred(x: Tensor) -> Tensor:
    """A moving difference of two rows, summed along the other axis: no batch dimensions."""
    return (x[1:] - 0.5 * x[:-1]).cumsum(-1)


def spectrum(x: Tensor) -> Tensor:
    return torch.fft.fft(x * torch.linspace(1, 2, x.shape[-1], dtype=x.dtype))[..., ::2]


def item_by_item(x: Tensor) -> Tensor:
    """A branch on values, which vmap cannot do."""
    return 2 * x if bool(x.isfinite().all()) else x


def running_sum(x: Tensor) -> Tensor:
    """Through numpy, where autograd does not follow."""
    return torch.from_numpy(np.cumsum(x.numpy(), axis=-1))


def running_sum_adjoint(y: Tensor) -> Tensor:
    return y.flip(-1).cumsum(-1).flip(-1)


CASES: dict[str, Callable[[], LinearOperator]] = {
    "lift mri lines": lambda: lift(mri(3, (6, 7), (7,)), 3),
    "lift mri full": lambda: lift(MultiCoilMRI(randn(2, 5, 6), torch.ones(6)), 2),
    "lift cropped maps": lambda: lift(cropped_mri(), 2),
    "lift one coil": lambda: lift(MultiCoilMRI(None, coin(6), shape=(5, 6)).to(REAL), 2),
    "lift one slice": lambda: lift(mask_real(0), 1),
    "lift real": lambda: lift(mask_real(0), 3),
    "lift one pixel": lambda: lift(Identity((1, 1), dtype=REAL), 2),
    "lift composition": lambda: lift(composed((5, 4), 2), 2),
    "lift scaled": lambda: (2 - 1j) * lift(Fourier((3, 4), dtype=torch.complex128), 2),
    "lift twice": lambda: lift(lift(CoilMaps(randn(2, 3, 4)), 2), 3),
    "lift adjoint": lambda: lift(mri(2, (4, 5), (5,)).H, 2),
    "adjoint of a lift": lambda: lift(mri(2, (4, 5), (5,)), 2).H,
    "lift restricted": lambda: lift(mri(3, (6, 6), (6,)), 2).restrict(coin(6, 1, seed=3)),
    "lift stack": lambda: lift(stack([mask_real(0), mask_real(1)]), 2),
    "diagonal masks": lambda: block_diagonal([mask_real(0), mask_real(1), mask_real(2)]),
    "diagonal mri": lambda: block_diagonal([mri(2, (6, 7), (7,), seed=0), mri(2, (6, 7), (6, 7), seed=5)]),
    "diagonal cropped maps": lambda: block_diagonal([cropped_mri(), MultiCoilMRI(randn(3, 8, 6), coin(6))]),
    "diagonal one": lambda: block_diagonal([CoilMaps(randn(2, 3, 4))]),
    "diagonal half a mask": lambda: block_diagonal([mask_real(0), Identity((5, 4), dtype=REAL)]),
    "diagonal lifted": lambda: lift(block_diagonal([mask_real(0), mask_real(1)]), 2),
    "row masks": lambda: block_row([mask_real(0), mask_real(1)]),
    "row mri": lambda: block_row([mri(2, (6, 7), (7,)), mri(2, (6, 7), (6, 7), seed=5)]),
    "row flat": lambda: block_row([mri(2, (6, 7), (7,)), Identity((2, 6, 7), dtype=torch.complex128)]),
    "row one, cropped maps": lambda: block_row([cropped_mri()]),
    "row scaled and stacked": lambda: stack(
        [block_row([mask_real(0), 2 * mask_real(1)]), Identity((10, 4), dtype=REAL)]
    ),
    "dense": lambda: from_scipy(randn(6, 20).numpy(), (4, 5), (2, 3)),
    "dense real": lambda: from_scipy(randn(6, 20, dtype=REAL), (4, 5)),
    "dense real of complex": lambda: from_scipy(randn(6, 20, dtype=REAL), (4, 5), dtype=torch.complex128),
    "dense one pixel": lambda: from_scipy(np.array([[2.0 - 1j]])),
    "sparse real": lambda: from_scipy(real_matrix(30, 20), (4, 5), (5, 6)),
    "sparse real of complex": lambda: from_scipy(real_matrix(12, 20), (4, 5), dtype=torch.complex128),
    "sparse complex": lambda: from_scipy(complex_matrix(12, 20).tocoo(), None, (3, 4)),
    "scipy operator": lambda: from_scipy(sparse.linalg.aslinearoperator(complex_matrix(12, 20)), (4, 5), (3, 4)),
    "to scipy and back": lambda: from_scipy(mri(3, (6, 7), (7,)).to_scipy(), (6, 7), (3, 6, 7)),
    "sigpy sense": lambda: from_sigpy(sense(), dtype=torch.complex128),
    "sigpy real": lambda: from_sigpy(sigpy.linop.FiniteDifference((4, 5)), dtype=REAL),
    "function real": lambda: from_function(blurred, (4, 5), dtype=REAL),
    "function complex": lambda: from_function(spectrum, (3, 5), dtype=torch.complex128),
    "function item by item": lambda: from_function(item_by_item, (3, 5), dtype=torch.complex128),
    "function with adjoint": lambda: from_function(running_sum, (3, 5), adjoint=running_sum_adjoint, dtype=REAL),
    "function lifted": lambda: lift(from_function(spectrum, (3, 5), dtype=torch.complex128), 2),
}
