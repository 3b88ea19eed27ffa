"""Phantoms of ellipses or ellipsoids: their image, and their k-space by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError, check_tensor


@dataclass(frozen=True)
class Ellipse:
    """An ellipse or ellipsoid of constant value.

    Attributes:
        centre: (y, x) or (z, y, x) in fields of view from the centre of the image, so from -1/2 to 1/2; y downwards.
        axes: half axes in the same order and unit.
        angle: rotation in the plane of y and x in radians, from the x axis towards y.
        value: what it adds to the image, real or complex.
    """

    centre: tuple[float, ...]
    axes: tuple[float, ...]
    angle: float = 0.0
    value: complex = 1.0

    def _turned(self, v: Tensor) -> Tensor:
        """Vectors (..., axes) in the frame of the ellipse."""
        y, x = v[..., -2], v[..., -1]
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return torch.cat([v[..., :-2], torch.stack([cos * y - sin * x, sin * y + cos * x], -1)], -1)

    def contains(self, u: Tensor) -> Tensor:
        """Whether points (..., axes), in fields of view, are inside."""
        distance = self._turned(u - torch.tensor(self.centre, dtype=u.dtype)) / torch.tensor(self.axes, dtype=u.dtype)
        return distance.square().sum(-1) <= 1

    def transform(self, q: Tensor) -> Tensor:
        """Integral of value exp(-i q . u) over the ellipse.

        Args:
            q: float64 (..., axes), radians per field of view.

        Returns:
            complex128 (...).
        """
        rho = torch.linalg.vector_norm(self._turned(q) * torch.tensor(self.axes, dtype=q.dtype), dim=-1)
        safe = rho.clamp(min=1e-2)
        # Both are 1 at 0; below 0.01 the closed forms lose digits and two terms of the series have all of them.
        if len(self.axes) == 2:
            volume = math.pi * math.prod(self.axes)
            shape = torch.where(rho < 1e-2, 1 - rho**2 / 8 + rho**4 / 192, 2 * torch.special.bessel_j1(safe) / safe)
        else:
            volume = 4 / 3 * math.pi * math.prod(self.axes)
            closed = 3 * (torch.sin(safe) - safe * torch.cos(safe)) / safe**3
            shape = torch.where(rho < 1e-2, 1 - rho**2 / 10 + rho**4 / 280, closed)
        phase = -(q * torch.tensor(self.centre, dtype=q.dtype)).sum(-1)
        return self.value * volume * torch.polar(shape.abs(), phase) * torch.sign(shape)


class EllipsePhantom:
    """A sum of ellipses (2-D) or ellipsoids (3-D).

    Args:
        ellipses: at least one, all of two or all of three axes.

    Raises:
        InputError: none, mixed numbers of axes, or half axes that are not positive.

    Reference: Koay, Sarlls and Ozarslan, "Three-dimensional analytical magnetic resonance imaging phantom in the
    Fourier domain", MRM 58, 2007.
    """

    def __init__(self, ellipses: Sequence[Ellipse]):
        self.ellipses = tuple(ellipses)
        sizes = {len(e.centre) for e in self.ellipses} | {len(e.axes) for e in self.ellipses}
        if len(sizes) != 1 or not sizes <= {2, 3}:
            raise InputError(
                f"EllipsePhantom: expected ellipses all of 2 or all of 3 axes, got {sorted(sizes)}; give (y, x) or "
                "(z, y, x) for centre and axes alike."
            )
        if min(min(e.axes) for e in self.ellipses) <= 0:
            raise InputError("EllipsePhantom: axes: expected positive half axes, got 0 or less; give lengths.")
        self.dims = sizes.pop()

    def image(self, shape: Sequence[int], *, supersample: int = 1, dtype: torch.dtype = torch.complex64) -> Tensor:
        """The phantom on a pixel grid.

        Args:
            shape: (y, x) or (z, y, x); the field of view is stretched to it, its centre at pixel n // 2, as
                Fourier transforms have it; that of `operators.CT` is at (n - 1) / 2.
            supersample: points along each axis of a pixel that are averaged, default 1: the value at its centre.
            dtype: complex64 (default); a real dtype takes the real part.

        Returns:
            (*shape), `dtype`.

        Raises:
            InputError: another number of axes, or supersample below 1.
        """
        shape = self._checked(shape)
        if not isinstance(supersample, int) or supersample < 1:
            raise InputError(f"supersample: expected a whole number of at least 1, got {supersample!r}.")
        fine = (torch.arange(supersample, dtype=torch.float64) + 0.5) / supersample - 0.5
        total = torch.zeros(shape, dtype=torch.complex128)
        grids = [(torch.arange(n, dtype=torch.float64) - n // 2) for n in shape]
        for offset in torch.cartesian_prod(*[fine] * self.dims):
            points = torch.stack(
                torch.meshgrid(*((g + o) / n for g, o, n in zip(grids, offset, shape, strict=True)), indexing="ij"), -1
            )
            for ellipse in self.ellipses:
                total += ellipse.value * ellipse.contains(points)
        total /= supersample**self.dims
        return total.to(dtype) if dtype.is_complex else total.real.to(dtype)

    def kspace(self, trajectory: Tensor, shape: Sequence[int], *, dtype: torch.dtype = torch.complex64) -> Tensor:
        """The phantom's k-space by formula: that of the continuous object, which no pixel grid has.

        Args:
            trajectory: (*samples, axes) in radians per pixel of an image of `shape`, as for
                `inverse.operators.NUFFT`.
            shape: image shape, which sets the unit of the trajectory and the scale N^(1/2) of the orthonormal
                transform; near the centre of k-space the values are those of the transform of `image(shape)`.
            dtype: complex dtype of the values.

        Returns:
            (*samples), `dtype`.

        Raises:
            InputError: another number of axes.
        """
        shape = self._checked(shape)
        check_tensor("trajectory", trajectory, complex_=False)
        if trajectory.ndim < 1 or trajectory.shape[-1] != self.dims:
            raise InputError(f"trajectory: expected (*samples, {self.dims}), got {tuple(trajectory.shape)}.")
        q = trajectory.to(torch.float64).cpu() * torch.tensor(shape, dtype=torch.float64)
        values = sum((e.transform(q) for e in self.ellipses), torch.zeros((), dtype=torch.complex128))
        return (math.sqrt(math.prod(shape)) * values).to(dtype).to(trajectory.device)

    def _checked(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = tuple(shape)
        if len(shape) != self.dims or min(shape) < 1:
            raise InputError(f"shape: expected {self.dims} numbers of at least 1, got {shape}; give the image's shape.")
        return shape


# value, half axes (z, y, x), centre (z, y, x), degrees; half fields of view, y upwards: the tables of the literature.
_SHEPP_LOGAN = (
    (1.0, (0.81, 0.92, 0.69), (0.0, 0.0, 0.0), 0),
    (-0.8, (0.78, 0.874, 0.6624), (0.0, -0.0184, 0.0), 0),
    (-0.2, (0.22, 0.31, 0.11), (0.0, 0.0, 0.22), -18),
    (-0.2, (0.28, 0.41, 0.16), (0.0, 0.0, -0.22), 18),
    (0.1, (0.41, 0.25, 0.21), (-0.15, 0.35, 0.0), 0),
    (0.1, (0.05, 0.046, 0.046), (0.25, 0.1, 0.0), 0),
    (0.1, (0.05, 0.046, 0.046), (0.25, -0.1, 0.0), 0),
    (0.1, (0.05, 0.023, 0.046), (0.0, -0.605, -0.08), 0),
    (0.1, (0.02, 0.023, 0.023), (0.0, -0.606, 0.0), 0),
    (0.1, (0.02, 0.046, 0.023), (0.0, -0.605, 0.06), 0),
)


def shepp_logan(dims: int = 2) -> EllipsePhantom:
    """The modified Shepp-Logan phantom: values from 0 to 1, with a contrast that the eye sees.

    Args:
        dims: 2 (default), or 3 for the ellipsoids.

    Raises:
        InputError: another number of dimensions.

    Reference: Shepp and Logan, "The Fourier reconstruction of a head section", IEEE TNS 21, 1974; contrast of Toft,
    "The Radon transform", PhD thesis, 1996, table B.3.
    """
    if dims not in (2, 3):
        raise InputError(f"shepp_logan: dims: expected 2 or 3, got {dims}.")
    return EllipsePhantom(
        [
            Ellipse(
                centre=(centre[0] / 2, -centre[1] / 2, centre[2] / 2)[-dims:],
                axes=tuple(a / 2 for a in axes)[-dims:],
                angle=-math.radians(degrees),  # y points downwards here
                value=value,
            )
            for value, axes, centre, degrees in _SHEPP_LOGAN
        ]
    )
