"""Projectors of other packages: ASTRA on CPU and CUDA, torch-radon on CUDA."""

from __future__ import annotations

import importlib
import math
import weakref
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.ct.geometry import ConeBeam, FanBeam, ParallelBeam, frame
from inverse.operators.ct.projector import Scan


class AstraBackend:
    """Projectors of the ASTRA toolbox, version 2.5 or later, in float32; torch tensors are passed without a copy.

    On the CPU: parallel beams by ASTRA's `linear` (Joseph), fan beams by `line_fanflat` (lengths of intersection);
    matched. On CUDA: ASTRA's own kernels, cone beams too, whose back-projection is not the adjoint of the projection:
    `matched` is False. The CUDA part follows ASTRA's documentation and was not run.

    Args:
        scan: geometry, image, dtype and device.

    Raises:
        InputError: ASTRA is missing, not float32, a curved detector, a cone beam on the CPU.

    Reference: van Aarle et al., "Fast and flexible X-ray tomography using the ASTRA toolbox", 2016.
    """

    memory_bytes = 0

    def __init__(self, scan: Scan):
        self._astra = _package("astra", "pip install 'astra-toolbox>=2.5'")
        _check(scan, "astra")
        cuda = scan.device.type == "cuda"
        if isinstance(scan.geometry, ConeBeam) and not cuda:
            raise InputError("backend 'astra': cone beams run on CUDA only, the device is cpu; use backend='auto'.")
        if not hasattr(self._astra.projector, "direct_FP"):
            raise InputError(
                f"backend 'astra': expected version 2.5 or later, got {self._astra.__version__}; update it."
            )
        self.matched = not cuda
        self._scan = scan
        self._deep = isinstance(scan.geometry, ConeBeam)
        self._module = self._astra.projector3d if self._deep else self._astra.projector
        if cuda:
            kind = "cuda3d" if self._deep else "cuda"
        else:
            kind = "linear" if isinstance(scan.geometry, ParallelBeam) else "line_fanflat"
        self._projector = self._create(kind)
        weakref.finalize(self, self._module.delete, self._projector)

    def _create(self, kind: str) -> int:
        scan, astra = self._scan, self._astra
        edges = [(-n * scan.pixel / 2, n * scan.pixel / 2) for n in scan.shape]
        sizes = (*scan.shape[-2:], *scan.shape[:-2])
        volume = astra.create_vol_geom(*sizes, *edges[-1], *edges[-2], *(edges[0] if self._deep else ()))
        geometry, vectors = scan.geometry, astra_vectors(scan)
        if isinstance(geometry, ConeBeam):
            projection = astra.create_proj_geom("cone_vec", geometry.rows, geometry.columns, vectors)
        else:
            name = "parallel_vec" if isinstance(geometry, ParallelBeam) else "fanflat_vec"
            projection = astra.create_proj_geom(name, geometry.shape[-1], vectors)
        return int(astra.create_projector(kind, projection, volume))

    def forward(self, x: Tensor) -> Tensor:
        """Contiguous (batch, *image) -> (batch, *data)."""
        y = x.new_empty(len(x), *self._data_shape)
        for image, data in zip(x, y, strict=True):
            self._module.direct_FP(self._projector, image, out=data)
        return y.transpose(1, 2).contiguous() if self._deep else y

    def adjoint(self, y: Tensor) -> Tensor:
        """Contiguous (batch, *data) -> (batch, *image)."""
        y = y.transpose(1, 2).contiguous() if self._deep else y
        x = y.new_empty(len(y), *self._scan.shape)
        for data, image in zip(y, x, strict=True):
            self._module.direct_BP(self._projector, data, out=image)
        return x

    @property
    def _data_shape(self) -> tuple[int, ...]:
        """Shape of ASTRA's data: (views, detectors) or (rows, views, columns)."""
        shape = self._scan.geometry.shape
        return (shape[1], shape[0], shape[2]) if self._deep else shape


def astra_vectors(scan: Scan) -> np.ndarray:
    """Rows of ASTRA's vector geometries: ray or source, middle of the detector, steps from element to element.

    In the plane ASTRA's y points up while rows of an image count down, so y changes its sign; in volumes it does not.

    Args:
        scan: geometry and rotation axis, mm.

    Returns:
        (views, 6) float64 for parallel and fan beams, components (x, y); (views, 12) for cones, components (x, y, z).
    """
    geometry = scan.geometry
    deep = isinstance(geometry, ConeBeam)
    turn = torch.tensor([1.0, 1.0 if deep else -1.0], dtype=torch.float64)
    u, d = (v.flip(-1) * turn for v in frame(geometry.angles))
    centre = torch.tensor(scan.centre, dtype=torch.float64).flip(-1) * turn
    if isinstance(geometry, ParallelBeam):
        parts = [d, centre + geometry.offset * u, geometry.spacing * u]
        return torch.cat(parts, 1).numpy()
    assert isinstance(geometry, FanBeam | ConeBeam)
    source, middle = centre - geometry.source_distance * d, centre + geometry.detector_distance * d
    if isinstance(geometry, FanBeam):
        return torch.cat([source, middle + geometry.offset * u, geometry.spacing * u], 1).numpy()
    flat = (source, middle + geometry.offset[1] * u, geometry.spacing[1] * u)
    parts = [torch.nn.functional.pad(v, (0, 1)) for v in flat]
    parts[1][:, 2] = geometry.offset[0]
    up = torch.zeros_like(parts[0])
    up[:, 2] = geometry.spacing[0]
    return torch.cat([*parts, up], 1).numpy()


class TorchRadonBackend:
    """Projectors of torch-radon, version 2, on CUDA in float32: parallel and flat fan beams without detector offset.

    torch-radon's angle turns the other way and its source starts on the other side; pixels are its unit of length. Its
    back-projection interpolates in the data, the projection in the image: `matched` is False. There is no build for
    current versions of PyTorch: this follows the interface of its sources and was not run against the package.

    Args:
        scan: geometry, image, dtype and device.

    Raises:
        InputError: torch-radon is missing, not float32, not on CUDA, a curved detector, a cone beam, an offset.

    Reference: Ronchetti, "TorchRadon: Fast differentiable routines for computed tomography", 2020.
    """

    matched = False
    memory_bytes = 0

    def __init__(self, scan: Scan):
        package = _package("torch_radon", "pip install git+https://github.com/carterbox/torch-radon")
        _check(scan, "torch-radon")
        geometry = scan.geometry
        if not isinstance(geometry, ParallelBeam | FanBeam) or geometry.offset != 0:
            what = "cone beams" if isinstance(geometry, ConeBeam) else "detector offsets"
            raise InputError(f"backend 'torch-radon': {what} cannot be expressed; use backend='auto'.")
        if scan.device.type != "cuda":
            raise InputError(f"backend 'torch-radon': runs on CUDA only, got {scan.device}; use backend='auto'.")
        self._pixel = scan.pixel
        self._fan = isinstance(geometry, FanBeam)
        unit = scan.pixel
        volume = package.volumes.Volume2D(center=(-scan.centre[1] / unit, -scan.centre[0] / unit))
        volume.set_size(*scan.shape)
        angles = -torch.tensor(geometry.angles, dtype=torch.float32)  # the package moves them
        options = {"det_count": geometry.detectors, "det_spacing": geometry.spacing / unit, "volume": volume}
        if isinstance(geometry, FanBeam):
            options["src_dist"] = geometry.source_distance / unit
            options["det_dist"] = geometry.detector_distance / unit
            self._radon = package.FanBeam(angles=angles - math.pi, **options)
        else:
            self._radon = package.ParallelBeam(angles=angles, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Contiguous (batch, *image) -> (batch, *data)."""
        return self._mirrored(self._radon.forward(x)) * self._pixel

    def adjoint(self, y: Tensor) -> Tensor:
        """Contiguous (batch, *data) -> (batch, *image), torch-radon's back-projection."""
        return self._radon.backward(self._mirrored(y).contiguous()) * self._pixel

    def _mirrored(self, y: Tensor) -> Tensor:
        """Half a turn of the source mirrors the detector of a fan."""
        return y.flip(-1) if self._fan else y


PACKAGES: dict[str, Callable[[Scan], AstraBackend | TorchRadonBackend]] = {
    "astra": AstraBackend,
    "torch-radon": TorchRadonBackend,
}


def _package(name: str, command: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"backend: {name} is not installed; {command}, or use backend='auto'.") from error


def _check(scan: Scan, backend: str) -> None:
    if scan.dtype != torch.float32:
        raise InputError(f"backend '{backend}': computes in torch.float32, got {scan.dtype}; use backend='auto'.")
    if isinstance(scan.geometry, FanBeam) and scan.geometry.curved:
        raise InputError(f"backend '{backend}': curved detectors cannot be expressed; use backend='auto'.")
