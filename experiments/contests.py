"""The contests of operators.py: for each, functions of no argument that do the same work in different packages."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from inverse.data import equispaced, radial
from inverse.operators import Blur, Downsample, Mask, MultiCoilMRI, NonCartesianMRI
from inverse.operators.ct import CT, ConeBeam, FanBeam, ParallelBeam

OURS = "ours"
Contest = Callable[[int], dict[str, Callable[[], object]]]


def package(name: str) -> ModuleType | None:
    """A package, or None where it cannot be imported."""
    if name == "deepinv":
        # It imports a package whose compiled operators may not load beside this build of PyTorch; their names suffice.
        with contextlib.suppress(RuntimeError):
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(library)
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_KEPT: list = []


def normal(*shape: int, complex_: bool = False, seed: int = 0) -> Tensor:
    """Standard normal values in single precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex64 if complex_ else torch.float32, generator=generator)


def mri_gram(coils: int, kind: str) -> Contest:
    """A^H A of Cartesian MRI at 320 x 320, a quarter of the lines and 24 of the centre, or a mask of points."""

    def contest(threads: int) -> dict[str, Callable[[], object]]:
        shape = (320, 320)
        maps, x = normal(coils, *shape, complex_=True), normal(*shape, complex_=True, seed=1)
        lines = equispaced(320, 4, center_fraction=24 / 320)
        mask = lines.expand(shape) if kind == "lines" else torch.rand(shape, generator=_generator()) < 0.25
        operator = MultiCoilMRI(maps, mask)
        stack = normal(coils, *shape, complex_=True)
        entries = {
            OURS: lambda: operator.gram(x),
            "two bare FFTs": lambda: torch.fft.ifft2(torch.fft.fft2(stack)),
        }
        if dinv := package("deepinv"):
            physics = dinv.physics.MultiCoilMRI(mask=mask.float(), coil_maps=maps[None], img_size=(1, 2, *shape))
            pair = torch.view_as_real(x).movedim(-1, 0)[None].contiguous()
            entries["deepinv"] = lambda: physics.A_adjoint_A(pair)
        if package("sigpy"):
            from sigpy.mri.linop import Sense

            sense = Sense(maps.numpy(), weights=mask.numpy().astype(np.float32))
            normal_operator, array = sense.H * sense, x.numpy()
            entries["sigpy"] = lambda: normal_operator(array)
        if mrpro := package("mrpro"):
            op = mrpro.operators
            chain = (
                op.CartesianMaskingOp(mask[None, None, None].float())
                @ op.FastFourierOp(dim=(-2, -1))
                @ op.SensitivityOp(maps[None, :, None])
            )
            gram, image = chain.gram, x[None, None, None]
            entries["mrpro"] = lambda: gram(image)
        return entries

    return contest


def nufft_gram(threads: int) -> dict[str, Callable[[], object]]:
    """A^H A of radial MRI: 8 coils, 256 x 256, 64 golden-angle spokes of 512 samples, Toeplitz."""
    shape, coils = (256, 256), 8
    maps, x = normal(coils, *shape, complex_=True), normal(*shape, complex_=True, seed=1)
    trajectory = radial(64, 512)
    operator = NonCartesianMRI(maps, trajectory)
    entries: dict[str, Callable[[], object]] = {
        OURS: lambda: operator.gram(x),
        "ours, A.H(A x)": lambda: operator.H(operator(x)),
    }
    if mrpro := package("mrpro"):
        k = trajectory.to(torch.float32)
        cycles = k * (256 / (2 * math.pi))
        zero = torch.zeros(1, 1, 1, 1, 1)
        traj = mrpro.data.KTrajectory(kz=zero, ky=cycles[None, None, None, ..., 0], kx=cycles[None, None, None, ..., 1])
        op = mrpro.operators
        size = mrpro.data.SpatialDimension(1, *shape)
        chain = op.NonUniformFastFourierOp((-2, -1), size, size, traj) @ op.SensitivityOp(maps[None, :, None])
        gram, image = chain.gram, x[None, None, None]
        entries["mrpro"] = lambda: gram(image)
    if package("sigpy"):
        import sigpy

        coordinates = (trajectory * (256 / (2 * math.pi))).numpy().reshape(-1, 2).astype(np.float32)
        transform = sigpy.linop.NUFFT((coils, *shape), coordinates, toeplitz=True)
        sense = sigpy.linop.Multiply(shape, maps.numpy())
        normal_operator, array = sense.H * transform.N * sense, x.numpy()
        entries["sigpy"] = lambda: normal_operator(array)
    return entries


def ct(which: str, size: int, views: int = 60) -> Contest:
    """Parallel beam, `views` over half a turn, detector as long as the diagonal; deepinv with its exact adjoint."""

    def contest(threads: int) -> dict[str, Callable[[], object]]:
        detectors = math.ceil(math.sqrt(2) * size)
        angles = np.arange(views) * np.pi / views
        operator = CT(ParallelBeam(angles, detectors, 1.0), (size, size), 1.0)
        x, y = normal(size, size), normal(views, detectors)
        eight = (normal(8, size, size), normal(8, views, detectors))
        forward = which == "A"
        entries: dict[str, Callable[[], object]] = {
            OURS: (lambda: operator(x)) if forward else (lambda: operator.H(y)),
            "ours, 8 images": (lambda: operator(eight[0])) if forward else (lambda: operator.H(eight[1])),
        }
        if dinv := package("deepinv"):
            physics = dinv.physics.Tomography(torch.as_tensor(np.rad2deg(angles)), size, circle=False, normalize=False)
            image = x[None, None]
            sinogram = physics.A(image)
            entries["deepinv"] = (lambda: physics.A(image)) if forward else (lambda: physics.A_adjoint(sinogram))
        if astra := package("astra"):
            volume = astra.create_vol_geom(size, size)
            projection = astra.create_proj_geom("parallel", 1.0, detectors, angles)
            projector = astra.create_projector("linear", projection, volume)
            pair = astra.OpTomo(projector)
            flat = (x.numpy().ravel(), y.numpy().ravel())
            entries["ASTRA, linear"] = (lambda: pair.FP(flat[0])) if forward else (lambda: pair.BP(flat[1]))
        if package("skimage"):
            from skimage.transform import iradon, radon

            degrees = np.rad2deg(angles)
            array = x.numpy()
            sino = radon(array, degrees, circle=False)
            entries["scikit-image"] = (
                (lambda: radon(array, degrees, circle=False))
                if forward
                else (lambda: iradon(sino, degrees, filter_name=None, circle=False))
            )
        return entries

    return contest


def ct_build(threads: int) -> dict[str, Callable[[], object]]:
    """From a geometry to the first projection at 512 pixels, 60 views, matrices not cached."""
    angles = np.arange(60) * np.pi / 60
    geometry, x = ParallelBeam(angles, 725, 1.0), normal(512, 512)
    kept = CT(geometry, (512, 512), 1.0)
    kept(x)
    pixels = itertools.count(1)
    entries: dict[str, Callable[[], object]] = {
        OURS: lambda: CT(geometry, (512, 512), 1 + 1e-6 * next(pixels))(x),  # a scan that no other operator has
        "ours, another one alive": lambda: (CT(geometry, (512, 512), 1.0)(x), kept),
    }
    if dinv := package("deepinv"):
        degrees = torch.as_tensor(np.rad2deg(angles))
        entries["deepinv"] = lambda: dinv.physics.Tomography(degrees, 512, circle=False, normalize=False).A(
            x[None, None]
        )
    if astra := package("astra"):

        def explicit() -> object:
            volume = astra.create_vol_geom(512, 512)
            projector = astra.create_projector("linear", astra.create_proj_geom("parallel", 1.0, 725, angles), volume)
            return astra.matrix.get(astra.projector.matrix(projector))

        entries["ASTRA, explicit matrix"] = explicit
    return entries


def ct_fan(threads: int) -> dict[str, Callable[[], object]]:
    """Fan beam, flat detector, as many rays as the parallel beam beside it."""
    angles = np.arange(60) * np.pi / 30
    fan = FanBeam(angles, 725, 2.0, 1000.0, 1000.0)
    operator, x = CT(fan, (512, 512), 1.0), normal(512, 512)
    parallel = CT(ParallelBeam(angles / 2, 725, 1.0), (512, 512), 1.0)
    entries: dict[str, Callable[[], object]] = {OURS: lambda: operator(x), "ours, parallel": lambda: parallel(x)}
    if astra := package("astra"):
        projection = astra.create_proj_geom("fanflat", 2.0, 725, angles, 1000.0, 1000.0)
        projector = astra.create_projector("line_fanflat", projection, astra.create_vol_geom(512, 512))
        pair, flat = astra.OpTomo(projector), x.numpy().ravel()
        entries["ASTRA, line"] = lambda: pair.FP(flat)
    return entries


def ct_cone(which: str) -> Contest:
    """Cone beam, 128^3, 30 views of 128 x 181, beside ASTRA's fan beam with as many ray steps (it has no CPU cone)."""

    def contest(threads: int) -> dict[str, Callable[[], object]]:
        angles = np.arange(30) * 2 * np.pi / 30
        cone = ConeBeam(angles, 128, 181, (2.0, 2.0), 400.0, 400.0)
        operator = CT(cone, (128, 128, 128), 1.0, backend="on-the-fly")
        x, y, forward = normal(128, 128, 128), normal(30, 128, 181), which == "A"
        entries: dict[str, Callable[[], object]] = {OURS: (lambda: operator(x)) if forward else (lambda: operator.H(y))}
        if astra := package("astra"):
            steps = 30 * 128 * 181 * 128 // (512 * 725)  # views of a fan with the same number of rays times steps
            turn = np.arange(steps) * 2 * np.pi / steps
            projection = astra.create_proj_geom("fanflat", 2.0, 725, turn, 1000.0, 1000.0)
            projector = astra.create_projector("line_fanflat", projection, astra.create_vol_geom(512, 512))
            pair = astra.OpTomo(projector)
            flat, data = normal(512 * 512).numpy(), normal(steps * 725).numpy()
            entries["ASTRA, fan, as many steps"] = (lambda: pair.FP(flat)) if forward else (lambda: pair.BP(data))
        return entries

    return contest


def blur(size: int, padding: str, side: int) -> Contest:
    """A^H A of a blur by a Gaussian of `side` x `side` pixels."""

    def contest(threads: int) -> dict[str, Callable[[], object]]:
        from inverse.operators import gaussian_kernel

        kernel, x = gaussian_kernel(side / 5, side), normal(size, size)
        operator = Blur(kernel, (size, size), padding=padding)
        entries: dict[str, Callable[[], object]] = {OURS: lambda: operator.gram(x)}
        if dinv := package("deepinv"):
            image = x[None, None]
            physics = (
                dinv.physics.BlurFFT((1, size, size), filter=kernel[None, None])
                if padding == "circular"
                else dinv.physics.Blur(filter=kernel[None, None], padding=padding)
            )
            entries["deepinv"] = lambda: physics.A_adjoint(physics.A(image))
        return entries

    return contest


def downsample(threads: int) -> dict[str, Callable[[], object]]:
    """A^H A of bicubic downsampling by 4 at 512 x 512."""
    x = normal(512, 512)
    operator = Downsample(4, (512, 512), "bicubic")
    entries: dict[str, Callable[[], object]] = {OURS: lambda: operator.gram(x)}
    if dinv := package("deepinv"):
        physics, image = dinv.physics.Downsampling((1, 512, 512), filter="bicubic", factor=4), x[None, None]
        entries["deepinv"] = lambda: physics.A_adjoint(physics.A(image))
    return entries


def inpainting(threads: int) -> dict[str, Callable[[], object]]:
    """A^H A of a random mask at 512 x 512."""
    x, mask = normal(512, 512), torch.rand(512, 512, generator=_generator()) < 0.5
    operator = Mask(mask)
    entries: dict[str, Callable[[], object]] = {OURS: lambda: operator.gram(x)}
    if dinv := package("deepinv"):
        physics, image = dinv.physics.Inpainting((1, 512, 512), mask=mask[None].float()), x[None, None]
        entries["deepinv"] = lambda: physics.A_adjoint(physics.A(image))
    return entries


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


CONTESTS: dict[str, Contest] = {
    **{
        f"MRI gram, {coils} coils, 320 x 320, {kind}": mri_gram(coils, kind)
        for coils in (8, 15)
        for kind in ("lines", "points")
    },
    "radial MRI gram, 8 coils, 256 x 256": nufft_gram,
    **{f"CT {which}, parallel, {size}, 60 views": ct(which, size) for size in (256, 512) for which in ("A", "A^H")},
    "CT from geometry to first projection, 512": ct_build,
    "CT A, fan, 512, 60 views": ct_fan,
    "CT A, cone, 128^3, 30 views": ct_cone("A"),
    "CT A^H, cone, 128^3, 30 views": ct_cone("A^H"),
    "blur gram, 512, circular, 25 x 25": blur(512, "circular", 25),
    "blur gram, 512, reflect, 9 x 9": blur(512, "reflect", 9),
    "bicubic downsampling gram, 512": downsample,
    "inpainting gram, 512": inpainting,
}
