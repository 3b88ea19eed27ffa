"""Multi-coil MRI along any trajectory: radial, spiral, kooshball, whatever the gradients can do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor
from inverse.operators.autograd import Opaque
from inverse.operators.coils import check_maps, support_of
from inverse.operators.density import density_compensation
from inverse.operators.nufft import NUFFT
from inverse.operators.parts import in_parts

# Coil images of one group of samples: a bound on memory, on a CPU also what keeps the pages of the last group in use.
_COIL_BYTES = {"cpu": 32 * 2**20}
_COIL_BYTES_DEVICE = 512 * 2**20


class NonCartesianMRI(Opaque):
    """y = F S x: sensitivities, then the Fourier transform at the places of a trajectory.

    A, A^H and the ways of `gram` are those of `NUFFT`, coil by coil.

    Args:
        maps: complex sensitivities (coils, y, x) or (coils, z, y, x).
        trajectory: real (*samples, 2 or 3), in radians per pixel from -pi to pi, axes in the order (y, x) or (z, y, x).
        density: density compensation of `pinv`, real (*samples), of 1 for the Cartesian grid; None: computed at the
            first call of `pinv` by `density_compensation`.
        accuracy: largest relative error of A and A^H, at most 0.01; None: 1e-6 in single and 1e-14 in double precision.
            `accuracy_for(sigma_y, y)` gives what the noise allows.

    Raises:
        InputError: real or non-finite maps; a trajectory of another number of axes, not finite or beyond pi; a density
            of another shape or not positive; another device than that of the maps.

    Notes:
        Data (*batch, coils, *samples). At the points of the Cartesian grid they are those of `MultiCoilMRI`.
        `pinv` is A^H of the weighted data over the sum of squares of the maps.

    Reference: Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", MRM 46, 2001.
    """

    def __init__(
        self,
        maps: Tensor,
        trajectory: Tensor,
        *,
        density: Tensor | None = None,
        accuracy: float | None = None,
    ):
        check_maps(maps, (3, 4), "(coils, y, x) or (coils, z, y, x)")
        if isinstance(trajectory, Tensor) and trajectory.device != maps.device:
            raise InputError(
                f"NonCartesianMRI: expected trajectory on {maps.device} like maps, got {trajectory.device}; move one."
            )
        self._nufft = NUFFT(trajectory, maps.shape[1:], accuracy=accuracy, dtype=maps.dtype)
        if density is not None:
            _check_density(density, maps, trajectory)
        super().__init__(maps.shape[1:], (len(maps), *self._nufft.out_shape), in_dtype=maps.dtype, device=maps.device)
        self.maps = maps
        self._density = None if density is None else density.to(maps.dtype.to_real())

    @property
    def coils(self) -> int:
        """Number of coils."""
        return self.out_shape[0]

    @property
    def trajectory(self) -> Tensor:
        """The trajectory (*samples, axes), radians per pixel, double precision."""
        return self._nufft.trajectory

    @property
    def accuracy(self) -> float:
        """Largest relative error of A and A^H before rounding."""
        return self._nufft.accuracy

    @property
    def density(self) -> Tensor:
        """Density compensation (*samples) that `pinv` uses."""
        if self._density is not None:
            return self._density
        real = self.in_dtype.to_real()
        return self._cached("density", lambda: density_compensation(self.trajectory, self.in_shape).to(real))

    @property
    def support(self) -> Tensor | None:
        """Where any coil sees something, bool of the image's shape; None: everywhere."""
        return self._cached("support", lambda: support_of(self.maps, 0))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, accuracy {self.accuracy:.1g})"

    @property
    def _conjugate(self) -> Tensor:
        return self._cached("conjugate", lambda: self.maps.conj().resolve_conj())

    def _pinv(self, y: Tensor) -> Tensor:
        energy = self._cached("energy", lambda: self.maps.abs().square().sum(0))
        return torch.where(energy > 0, self._adjoint(y * self.density) / energy, 0)

    def _forward(self, x: Tensor) -> Tensor:
        def forward(x: Tensor) -> Tensor:
            return self._nufft._forward((self.maps * x.unsqueeze(1)).flatten(0, 1)).view(len(x), *self.out_shape)

        return self._in_groups(forward, x)

    def _backward(self, y: Tensor) -> Tensor:
        def adjoint(y: Tensor) -> Tensor:
            images = self._nufft._backward(y.flatten(0, 1)).view(len(y), *self.maps.shape)
            return images.mul_(self._conjugate).sum(1)

        return self._in_groups(adjoint, y)

    def _normal(self, x: Tensor) -> Tensor:
        if not self._nufft._convolution_pays:
            return self._backward(self._forward(x))
        toeplitz = self._nufft._toeplitz
        # As many coils at once as the convolution takes; several samples together only where all coils fit.
        coils = min(toeplitz.group(), self.coils)
        samples = max(1, toeplitz.group() // self.coils)
        out = torch.zeros_like(x, memory_format=torch.contiguous_format)
        for part, total in zip(x.split(samples), out.split(samples), strict=True):
            for maps, conjugate in zip(self.maps.split(coils), self._conjugate.split(coils), strict=True):
                images = toeplitz((maps * part.unsqueeze(1)).flatten(0, 1)).view(-1, *maps.shape)
                total.add_(images.mul_(conjugate).sum(1))
        return out

    def _in_groups(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a function to as many samples at once as fit the limit."""
        limit = _COIL_BYTES.get(self.device.type, _COIL_BYTES_DEVICE)
        return in_parts(function, x, limit // (self.coils * math.prod(self.in_shape) * x.element_size()))


def _check_density(density: Tensor, maps: Tensor, trajectory: Tensor) -> None:
    check_tensor("density", density, complex_=False)
    if density.shape != trajectory.shape[:-1] or density.device != maps.device or not bool((density >= 0).all()):
        raise InputError(
            f"NonCartesianMRI: density: expected {tuple(trajectory.shape[:-1])} on {maps.device}, not negative, got "
            f"{tuple(density.shape)} on {density.device} from {float(density.min()):.3g}; see density_compensation."
        )
