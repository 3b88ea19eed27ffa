"""Line integrals of an image: the operator of computed tomography."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.operators.autograd import Opaque
from inverse.operators.ct.air import photons_of_air
from inverse.operators.ct.backends import PACKAGES
from inverse.operators.ct.blocks import BlockProjector
from inverse.operators.ct.fbp import fbp
from inverse.operators.ct.geometry import ConeBeam, FanBeam, Geometry, ParallelBeam, select_views
from inverse.operators.ct.joseph import misses_image, reaches_source
from inverse.operators.ct.projector import Projector, Scan
from inverse.operators.noise import PhotonCounts

# Pixels of a line are counted in 16 bits.
_LONGEST = 2**16 - 4


def _compiled(scan: Scan, limit: float) -> Projector:
    # The compiler takes a while to load: only where it is used.
    from inverse.operators.ct.compiled import ConeProjector, PlaneProjector

    if scan.device.type != "cpu":
        raise InputError(f"CT: backends 'matrix' and 'on-the-fly' run on a CPU, got {scan.device}; use 'auto'.")
    return ConeProjector(scan) if len(scan.shape) == 3 else PlaneProjector(scan, limit)


def _automatic(scan: Scan, limit: float) -> Projector:
    return _compiled(scan, limit) if scan.device.type == "cpu" else BlockProjector(scan)


# The number is the memory for kept weights, bytes.
BACKENDS: dict[str, Callable[[Scan, float], Projector]] = {
    "auto": _automatic,
    "matrix": lambda scan, _: _compiled(scan, math.inf),
    "on-the-fly": lambda scan, _: _compiled(scan, 0),
    "torch": lambda scan, _: BlockProjector(scan),
    **{name: (lambda scan, _, make=make: make(scan)) for name, make in PACKAGES.items()},  # type: ignore[misc]
}

# Projectors in use: an equal operator takes over what another one has built.
_IN_USE: WeakValueDictionary[Any, Projector] = WeakValueDictionary()


class CT(Opaque):
    """y = line integrals of x along the rays of a scan, by Joseph's method; the adjoint has the very same weights.

    Args:
        geometry: ParallelBeam or FanBeam for an image, ConeBeam for a volume.
        shape: of the image, (y, x) or (z, y, x).
        pixel: edge of a pixel or voxel, mm.
        centre: rotation axis relative to the middle of the image, mm, (y, x).
        backend: "auto": on a CPU "matrix" where it fits `memory`, else "on-the-fly"; on other devices "torch".
            "matrix" keeps the weights, 3 bytes (double precision: 5) for an entry of the matrix, built on first use
            and shared by equal operators; volumes have none and take "on-the-fly", which computes the weights at every
            call. "torch" uses torch operations on any device. "astra" and "torch-radon" call these packages.
        memory: bytes that the kept weights may take, default 1 GiB.
        dtype: of x and y, float32 or float64.
        device: where x and y are.

    Raises:
        InputError: a shape that does not suit the geometry, a pixel size or memory that is not positive, another dtype,
            an image that reaches to the source, a detector that no ray through the image meets, unknown backend.

    Notes:
        x (*batch, *shape) in 1/mm, y (*batch, *geometry.shape) without unit. Pixel (i, j) is at y = (i - (ny - 1) / 2)
        pixel, x = (j - (nx - 1) / 2) pixel from the middle of the image. A and A^H are differentiable any number of
        times. `pinv` is filtered back-projection with Ram-Lak (Feldkamp, Davis and Kress for cones); `ct.fbp` has other
        windows. `restrict` selects views. On CUDA the sums of the adjoint have no fixed order, so its last bits may
        differ from call to call.

    Reference: Joseph, "An improved algorithm for reprojecting rays through pixel images", 1982.
    """

    def __init__(
        self,
        geometry: ParallelBeam | FanBeam | ConeBeam,
        shape: Sequence[int],
        pixel: float,
        *,
        centre: Sequence[float] = (0.0, 0.0),
        backend: str = "auto",
        memory: float = 2**30,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        _check_image(geometry, shape, centre)
        check_positive("CT: pixel", pixel)
        check_positive("CT: memory", memory, zero=True)
        _check_dtype(dtype)
        if backend not in BACKENDS:
            raise InputError(f"CT: backend: expected one of {', '.join(BACKENDS)}, got {backend!r}.")
        super().__init__(shape, geometry.shape, in_dtype=dtype, device=torch.empty(0, device=device).device)
        self.geometry = geometry
        self.pixel = float(pixel)
        self.centre = (float(centre[0]), float(centre[1]))
        self.backend = backend
        self.memory = float(memory)
        _check_rays(self._scan)

    @property
    def _scan(self) -> Scan:
        return Scan(self.geometry, self.in_shape, self.pixel, self.centre, self.in_dtype, self.device)

    @property
    def _projector(self) -> Projector:
        return self._cached("projector", self._find_projector)

    def _find_projector(self) -> Projector:
        _check_dtype(self.in_dtype)
        key = self._scan, self.backend, self.memory
        projector = _IN_USE.get(key)
        if projector is None:
            projector = _IN_USE[key] = BACKENDS[self.backend](self._scan, self.memory)
        return projector

    @property
    def matched(self) -> bool:
        """Whether A^H is exactly the adjoint of A; False only with projectors of other packages."""
        return self._projector.matched

    @property
    def memory_bytes(self) -> int:
        """Memory that is kept between calls, bytes."""
        return self._projector.memory_bytes

    @property
    def support(self) -> Tensor | None:
        """Pixels that a ray meets, bool of in_shape; None: all."""
        return self._cached("support", self._find_support)

    def _find_support(self) -> Tensor | None:
        seen = self._adjoint(torch.ones(self.out_shape, dtype=self.out_dtype, device=self.device)) > 0
        return None if bool(seen.all()) else seen

    def noise_of(self, y: Tensor) -> PhotonCounts | None:
        """Photon counts as rays through air show them; None where too few rays meet no object."""
        photons = photons_of_air(y)
        return None if photons is None else PhotonCounts(photons)

    def restrict(self, index: Any) -> CT:
        """The scan with some of its views: y[index]; index is a slice, integers or a bool tensor."""
        try:
            views = torch.arange(len(self.geometry.angles))[
                torch.as_tensor(index) if isinstance(index, list) else index
            ]
        except (IndexError, TypeError) as error:
            raise InputError(
                f"CT: restrict: expected views of {len(self.geometry.angles)} as a slice, integers or a bool tensor, "
                f"got {index!r:.60}."
            ) from error
        return CT(
            select_views(self.geometry, views.reshape(-1).tolist()),
            self.in_shape,
            self.pixel,
            centre=self.centre,
            backend=self.backend,
            memory=self.memory,
            dtype=self.in_dtype,
            device=self.device,
        )

    def _forward(self, x: Tensor) -> Tensor:
        # Compiled loops take no tensor that has part in autograd, and no empty one.
        x = x.detach().contiguous()
        return self._projector.forward(x) if len(x) else x.new_zeros(0, *self.out_shape)

    def _backward(self, y: Tensor) -> Tensor:
        y = y.detach().contiguous()
        return self._projector.adjoint(y) if len(y) else y.new_zeros(0, *self.in_shape)

    def _pinv(self, y: Tensor) -> Tensor:
        return fbp(self, y)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.geometry!r}, pixel {self.pixel:g} mm, backend {self.backend})"


def _check_image(geometry: Geometry, shape: Sequence[int], centre: Sequence[float]) -> None:
    if not isinstance(geometry, ParallelBeam | FanBeam | ConeBeam):
        raise InputError(f"CT: geometry: expected ParallelBeam, FanBeam or ConeBeam, got {type(geometry).__name__}.")
    axes = ("z", "y", "x") if isinstance(geometry, ConeBeam) else ("y", "x")
    whole = all(isinstance(n, int) and 1 <= n <= _LONGEST for n in shape)
    if len(shape) != len(axes) or not whole:
        raise InputError(
            f"CT: shape: expected ({', '.join(axes)}) for {type(geometry).__name__}, each from 1 to {_LONGEST}, got "
            f"{tuple(shape)}; slices of a volume with a beam in the plane are batch dimensions."
        )
    if not isinstance(centre, Sequence) or len(centre) != 2 or not all(math.isfinite(c) for c in centre):
        raise InputError(f"CT: centre: expected two finite numbers (y, x) in mm, got {centre!r}.")


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"CT: dtype: expected torch.float32 or torch.float64, got {dtype}; attenuation is real.")


def _check_rays(scan: Scan) -> None:
    geometry = scan.geometry
    if isinstance(geometry, FanBeam | ConeBeam) and reaches_source(scan, geometry.source_distance):
        raise InputError(
            f"CT: the image of {scan.shape} pixels of {scan.pixel:g} mm reaches to the source, which is "
            f"{geometry.source_distance:g} mm from the axis; check pixel, centre and source_distance, all in mm."
        )
    if misses_image(scan):
        raise InputError(
            f"CT: the detector misses the image: no ray of {geometry.shape} meets {scan.shape} pixels of "
            f"{scan.pixel:g} mm; check spacing, offset, centre and pixel, all in mm."
        )
