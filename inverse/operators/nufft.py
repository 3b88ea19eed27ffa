"""Fourier transform at arbitrary places of k-space, and how accurate it has to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive, check_tensor
from inverse.operators.autograd import Opaque
from inverse.operators.gridding import Gridding
from inverse.operators.plans import Plans, make_transform
from inverse.operators.toeplitz import Toeplitz

# The best that rounding leaves, and the default.
_BEST_ACCURACY = {torch.complex64: 1e-6, torch.complex128: 1e-14}
_WORST_ACCURACY = 1e-2


class NUFFT(Opaque):
    """y_j = N^(-1/2) sum_x x[r] exp(-i k_j . r): Fourier transform of an image at any places k_j, 2-D or 3-D.

    r counts pixels from the centre at n // 2, N is the number of pixels. At the points of the Cartesian grid,
    k = 2 pi (i - n // 2) / n, the values are those of `Fourier`, the centred orthonormal transform.

    Args:
        trajectory: real (*samples, axes), in radians per pixel from -pi to pi, axes in the order of `shape`: (y, x)
            or (z, y, x). Cycles per field of view times 2 pi / n give this unit.
        shape: image shape, (y, x) or (z, y, x).
        accuracy: largest relative error of A and A^H, at most 0.01; None or less than rounding leaves: 1e-6 in
            single, 1e-14 in double precision. `accuracy_for` gives what the noise allows.
        dtype: complex64 (default) or complex128, of image and data.

    Raises:
        InputError: a trajectory of another shape, not finite or beyond pi; shape or accuracy out of range.

    Notes:
        A^H is the exact transpose of A whatever the accuracy, to rounding. `gram` is a convolution, far faster than
        A^H A but for coarse transforms of volumes; its kernel is computed at its first call. `to` keeps the trajectory
        in double precision. Autograd and double backward by the adjoint. In two dimensions a sparse matrix is kept, up
        to 256 MB. Where it is larger, and in three dimensions, finufft (`pip install inverse[nufft]`) makes A and A^H
        on a CPU 4 to 11 times faster; without it the matrix is made anew in every call, in parts.

    Reference: Fessler and Sutton, "Nonuniform fast Fourier transforms using min-max interpolation", IEEE TSP 51, 2003.
    """

    def __init__(
        self,
        trajectory: Tensor,
        shape: Sequence[int],
        *,
        accuracy: float | None = None,
        dtype: torch.dtype = torch.complex64,
    ):
        shape = _checked_shape(shape)
        check_trajectory(trajectory, len(shape))
        if dtype not in _BEST_ACCURACY:
            raise InputError(f"NUFFT: dtype: expected torch.complex64 or torch.complex128, got {dtype}; choose one.")
        super().__init__(shape, trajectory.shape[:-1], in_dtype=dtype, device=trajectory.device)
        self.trajectory = trajectory.detach().to(torch.float64)
        self._accuracy = checked_accuracy(accuracy)

    @property
    def accuracy(self) -> float:
        """Largest relative error of A and A^H before rounding."""
        best = _BEST_ACCURACY[self.in_dtype]
        return best if self._accuracy is None else max(self._accuracy, best)

    def to(self, target: torch.device | str | torch.dtype) -> NUFFT:
        """The same operator on another device, or in another precision; the trajectory stays in double precision."""
        other = super().to(target)
        assert isinstance(other, NUFFT)
        other.trajectory = self.trajectory.to(other.device)
        return other

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, accuracy {self.accuracy:.1g})"

    @property
    def _transform(self) -> Gridding | Plans:
        return self._cached(
            "transform", lambda: make_transform(self._points(), self.in_shape, self.accuracy, self.in_dtype)
        )

    @property
    def _toeplitz(self) -> Toeplitz:
        return self._cached("toeplitz", lambda: Toeplitz(self._points(), self.in_shape, self.in_dtype))

    @property
    def _convolution_pays(self) -> bool:
        """Whether the convolution is faster than A^H A: not where finufft computes volumes in single precision.

        Measured on one core: the convolution takes 140 ns for each pixel, A^H A 45 ns and 180 ns for each sample.
        """
        if len(self.in_shape) < 3 or 2 * math.prod(self.out_shape) > math.prod(self.in_shape):
            return True
        return not (isinstance(self._transform, Plans) and self._transform.single)

    def _points(self) -> Tensor:
        return self.trajectory.reshape(-1, len(self.in_shape))

    def _forward(self, x: Tensor) -> Tensor:
        return self._transform.forward(x).view(len(x), *self.out_shape)

    def _backward(self, y: Tensor) -> Tensor:
        return self._transform.adjoint(y.reshape(len(y), math.prod(self.out_shape)))

    def _normal(self, x: Tensor) -> Tensor:
        return self._toeplitz(x) if self._convolution_pays else self._backward(self._forward(x))


def accuracy_for(noise: float, signal: Tensor | float) -> float:
    """The accuracy at which the error of the transform is a tenth of the noise.

    Args:
        noise: standard deviation sigma_y of the noise, of real and imaginary part each.
        signal: the measured data y, complex; or the root mean square of their real and imaginary parts.

    Returns:
        0.1 sigma_y / rms(y), between 1e-6 and 1e-2: what `NUFFT` and `NonCartesianMRI` take as `accuracy`.

    Raises:
        InputError: a negative noise, no signal, data that are real or not finite.
    """
    check_positive("noise", noise, zero=True)
    if isinstance(signal, Tensor):
        check_tensor("signal", signal, complex_=True)
        signal = float(signal.abs().square().mean().div(2).sqrt()) if signal.numel() else 0.0
    check_positive("signal", signal)
    return min(max(0.1 * noise / signal, _BEST_ACCURACY[torch.complex64]), _WORST_ACCURACY)


def check_trajectory(trajectory: Tensor, axes: int) -> None:
    """Refuse anything that is not a trajectory in radians per pixel.

    Raises:
        InputError: another number of axes, no samples, complex, not finite, or values beyond pi.
    """
    check_tensor("trajectory", trajectory, complex_=False)
    if trajectory.ndim < 2 or trajectory.shape[-1] != axes or not trajectory.numel():
        raise InputError(
            f"trajectory: expected (*samples, {axes}) for an image of {axes} axes, got {tuple(trajectory.shape)}; "
            f"put ({'z, ' if axes == 3 else ''}y, x) last."
        )
    largest = float(trajectory.abs().max())
    if largest > math.pi * (1 + 1e-5):  # pi in float32 is above pi
        raise InputError(
            f"trajectory: expected radians per pixel from -pi to pi, got values up to {largest:.4g}; "
            "multiply cycles per field of view by 2 pi / n."
        )


def checked_accuracy(accuracy: float | None) -> float | None:
    """An accuracy as given.

    Raises:
        InputError: not positive, or more than 0.01.
    """
    if accuracy is None:
        return None
    check_positive("accuracy", accuracy)
    if accuracy > _WORST_ACCURACY:
        raise InputError(
            f"accuracy: expected at most {_WORST_ACCURACY:g}, got {accuracy:g}; use accuracy_for(noise, y)."
        )
    return float(accuracy)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise InputError(f"NUFFT: shape: expected (y, x) or (z, y, x) of at least 1, got {shape}; give the image's.")
    return shape
