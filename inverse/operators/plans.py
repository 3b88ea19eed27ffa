"""Which transform between images and arbitrary samples of k-space: the sparse matrix, or finufft where it is faster."""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inverse.operators.gridding import Gridding

# Bytes of fine grids that one plan holds.
_GRID_BYTES = 2**30
# Below this, places rounded to single precision would be the larger error.
_SINGLE_ACCURACY = 1e-4
# Plans kept: forward and adjoint of a full group of transforms and of what is left over.
_PLANS = 4


class Plans:
    """The transform of `Gridding` by finufft, several times faster in three dimensions; CPU only.

    Forward (type 2) and adjoint (type 1) share kernel and grid and are each other's transpose to rounding. Plans are
    kept, for as many threads as torch uses at the call; a lock keeps threads of the caller apart.

    Args:
        trajectory: (samples, axes) float64, radians per pixel.
        shape: image shape.
        accuracy: largest relative error wanted.
        dtype: complex dtype of images and samples.

    Attributes:
        single: whether finufft computes in single precision.

    Raises:
        ImportError: finufft is not installed.

    Reference: Barnett, Magland and af Klinteberg, "A parallel nonuniform fast Fourier transform library based on an
    exponential of semicircle kernel", SIAM J. Sci. Comput. 41, 2019.
    """

    def __init__(self, trajectory: Tensor, shape: Sequence[int], accuracy: float, dtype: torch.dtype):
        self._finufft = importlib.import_module("finufft")
        self.single = dtype == torch.complex64 and accuracy > _SINGLE_ACCURACY
        self._inside = torch.complex64 if self.single else torch.complex128
        self._shape, self._accuracy = tuple(shape), accuracy
        # The coarser grid is faster where its kernel reaches the accuracy.
        self._oversampling = 1.25 if accuracy > 1e-8 else 2.0
        self._points = [k.to(self._inside.to_real()).contiguous().numpy() for k in trajectory.unbind(-1)]
        fine = math.prod(self._shape) * self._oversampling ** len(self._shape) * self._inside.itemsize
        self._count = max(1, int(_GRID_BYTES / fine))
        self._plans: dict[tuple[int, int, int], Any] = {}
        self._lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        """Images (transforms, *shape) -> samples (transforms, samples)."""
        return self._execute(2, x, (len(self._points[0]),))

    def adjoint(self, y: Tensor) -> Tensor:
        """Samples (transforms, samples) -> images (transforms, *shape)."""
        return self._execute(1, y, self._shape)

    def _execute(self, kind: int, x: Tensor, given: tuple[int, ...]) -> Tensor:
        out = x.new_empty(len(x), *given)
        for part, result in zip(x.split(self._count), out.split(self._count), strict=True):
            if not len(part):
                continue
            values = part.resolve_conj().to(self._inside).contiguous().numpy()
            with self._lock:
                found = self._plan(kind, len(part)).execute(values[0] if len(part) == 1 else values)
            result.copy_(torch.from_numpy(found).view(result.shape))
        return out.mul_(math.prod(self._shape) ** -0.5)

    def _plan(self, kind: int, transforms: int) -> Any:
        key = kind, transforms, torch.get_num_threads()
        if key not in self._plans:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._finufft.Plan(
                kind,
                self._shape,
                n_trans=transforms,
                eps=self._accuracy,
                isign=1 if kind == 1 else -1,
                dtype=str(self._inside).removeprefix("torch."),
                nthreads=key[2],
                upsampfac=self._oversampling,
            )
            plan.setpts(*self._points)
            self._plans[key] = plan
        return self._plans[key]


def make_transform(trajectory: Tensor, shape: Sequence[int], accuracy: float, dtype: torch.dtype) -> Gridding | Plans:
    """The faster of the two for this trajectory, as measured on one core.

    In two dimensions the matrix is (256 x 256, 8 coils, accuracy 1e-6: 25 ms against 108 ms), as long as it can be
    kept. In three dimensions finufft is, 4 to 11 times; without it, and on devices other than the CPU, the matrix does
    it all.

    Args:
        trajectory: (samples, axes) float64, radians per pixel.
        shape: image shape.
        accuracy: largest relative error wanted.
        dtype: complex dtype of images and samples.
    """
    small = len(tuple(shape)) == 2 and Gridding.fits(len(trajectory), 2, accuracy, dtype)
    if trajectory.device.type == "cpu" and not small:
        try:
            return Plans(trajectory, shape, accuracy, dtype)
        except ImportError:
            pass
    return Gridding(trajectory, shape, accuracy, dtype)
