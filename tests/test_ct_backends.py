"""Projectors of other packages: ASTRA where it is installed, recorded interfaces for what needs a GPU."""

import importlib.util
import math
import sys
import types

import pytest
import torch
from checks import check_one_line
from disks import disk_integrals, distances
from torch import Tensor

from inverse.operators.ct import CT, ConeBeam, FanBeam, ParallelBeam
from inverse.operators.ct.backends import AstraBackend, TorchRadonBackend, astra_vectors
from inverse.operators.ct.geometry import element_positions
from inverse.operators.ct.projector import Scan
from inverse.testing import check_operator

astra_only = pytest.mark.skipif(importlib.util.find_spec("astra") is None, reason="needs astra-toolbox")

SHAPE, PIXEL, AXIS = (24, 21), 1.3, (1.2, -2.6)


def turn(degrees: float, views: int, first: float = 0.1) -> Tensor:
    return first + math.radians(degrees) * torch.arange(views, dtype=torch.float64) / views


PARALLEL = ParallelBeam(turn(180, 12), 41, 1.1, 2.3)
FAN = FanBeam(turn(360, 12), 41, 1.7, 60.0, 30.0, 2.3)
ARC = FanBeam(turn(360, 12), 41, 1.7, 60.0, 30.0, curved=True)
CONE = ConeBeam(turn(360, 4), 6, 41, (2.0, 1.7), 60.0, 30.0, (0.7, 2.3))


def scan_of(geometry, shape=SHAPE, device="cpu", dtype=torch.float32) -> Scan:
    return Scan(geometry, shape, PIXEL, AXIS, dtype, torch.device(device))


def disk_image(centre: tuple[float, float], radius: float) -> Tensor:
    """Share of every pixel inside of a disk."""
    fine = distances([8 * n for n in SHAPE], PIXEL / 8, centre) < radius
    return fine.float().reshape(SHAPE[0], 8, SHAPE[1], 8).mean((1, 3))


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@astra_only
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_astra_projects_along_our_rays(geometry):
    backend = AstraBackend(scan_of(geometry))
    centre, radius = (2.0, -3.5), 6.0
    y = backend.forward(disk_image(centre, radius)[None])[0].double()
    expected = disk_integrals(geometry, centre, radius, 1.0, AXIS)
    # Pixels blur the edge of the disk, which is 5 % here; a mirrored or shifted detector is wrong by more than half.
    assert relative(y, expected) < 0.07


@astra_only
def test_astra_agrees_with_the_built_in_projector():
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    operators = [CT(PARALLEL, SHAPE, PIXEL, centre=AXIS, backend=backend) for backend in ("auto", "astra")]
    ours, theirs = (operator(x) for operator in operators)
    # Both are Joseph's method in float32.
    assert relative(ours, theirs) < 1e-4
    assert relative(operators[0].H(ours), operators[1].H(ours)) < 1e-4


@astra_only
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_astra_is_matched_on_a_cpu(geometry):
    operator = CT(geometry, SHAPE, PIXEL, centre=AXIS, backend="astra")
    assert operator.matched
    report = check_operator(operator)
    assert {"adjoint", "gradient", "gram"} <= set(report.errors)


@astra_only
def test_astra_refuses_what_it_cannot_do():
    check_one_line(lambda: AstraBackend(scan_of(ARC)), "astra", "curved")
    check_one_line(lambda: AstraBackend(scan_of(CONE, (3, *SHAPE))), "cone", "CUDA")
    check_one_line(lambda: AstraBackend(scan_of(PARALLEL, dtype=torch.float64)), "float32", "float64")


@pytest.mark.parametrize(("backend", "package"), [(AstraBackend, "astra"), (TorchRadonBackend, "torch_radon")])
def test_missing_package_is_one_line(monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    check_one_line(lambda: backend(scan_of(PARALLEL)), package, "pip install")


@pytest.mark.parametrize(("geometry", "shape"), [(PARALLEL, SHAPE), (FAN, SHAPE), (CONE, (3, *SHAPE))])
def test_astra_vectors_describe_the_same_rays(geometry, shape):
    vectors = torch.from_numpy(astra_vectors(scan_of(geometry, shape)))
    deep = isinstance(geometry, ConeBeam)
    n = 3 if deep else 2
    first, middle, step = vectors[:, :n], vectors[:, n : 2 * n], vectors[:, 2 * n : 3 * n]
    place = element_positions(geometry.shape[-1], 1.0, 0.0)
    elements = middle[:, None] + place[:, None] * step[:, None]
    if deep:
        up = vectors[:, None, None, 9:]
        elements = elements[:, None] + element_positions(geometry.rows, 1.0, 0.0)[:, None, None] * up
    first = first.reshape(len(first), *[1] * (elements.ndim - 2), n)
    direction = first.expand_as(elements) if geometry is PARALLEL else elements - first
    # Into the order (z, y, x) with y down in the plane, seen from the axis.
    signs = torch.tensor([1.0, 1.0, 1.0] if deep else [-1.0, 1.0], dtype=torch.float64)
    axis = torch.tensor((0.0, *AXIS)[-n:], dtype=torch.float64)
    point, ours = geometry.rays()
    point, ours = point.expand_as(elements), ours.expand_as(elements)
    theirs, there = direction.flip(-1) * signs, elements.flip(-1) * signs - axis
    unit, their_unit = (v / torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (ours, theirs))
    torch.testing.assert_close(unit, their_unit)
    gap = there - point
    across = gap - (gap * unit).sum(-1, keepdim=True) * unit
    assert float(across.abs().max()) < 1e-12  # both points are on one line


class RecordedAstra(types.ModuleType):
    """ASTRA's interface for volumes on CUDA, with data (rows, views, columns) and made-up numbers."""

    def __init__(self):
        super().__init__("astra")
        self.calls: list[tuple] = []
        self.projector = types.SimpleNamespace(direct_FP=None)
        self.projector3d = types.SimpleNamespace(direct_FP=self.forward, direct_BP=self.back, delete=lambda _: None)

    def create_vol_geom(self, rows, columns, slices, *window):
        self.calls.append(("volume", rows, columns, slices, *window))
        return "volume"

    def create_proj_geom(self, kind, rows, columns, vectors):
        self.calls.append((kind, rows, columns, vectors.shape))
        return "projection"

    def create_projector(self, kind, projection, volume):
        self.calls.append((kind, projection, volume))
        return 7

    def forward(self, projector, volume, *, out):
        assert projector == 7 and volume.is_contiguous() and out.is_contiguous()
        out.copy_(volume.sum() * torch.arange(out.numel()).reshape(out.shape))

    def back(self, projector, data, *, out):
        assert projector == 7 and data.is_contiguous() and out.is_contiguous()
        out.fill_(float((data * torch.arange(data.numel()).reshape(data.shape)).sum()))


def test_astra_volumes_on_cuda_by_the_recorded_interface(monkeypatch):
    recorded = RecordedAstra()
    monkeypatch.setitem(sys.modules, "astra", recorded)
    backend = AstraBackend(scan_of(CONE, (3, *SHAPE), "cuda"))
    assert not backend.matched
    half = [n * PIXEL / 2 for n in (SHAPE[1], SHAPE[0], 3)]
    window = [sign * h for h in half for sign in (-1, 1)]
    assert recorded.calls[0] == ("volume", *SHAPE, 3, *window)
    assert recorded.calls[1:] == [("cone_vec", 6, 41, (4, 12)), ("cuda3d", "projection", "volume")]
    x = torch.stack([torch.ones(3, *SHAPE), torch.zeros(3, *SHAPE)])
    y = backend.forward(x)
    assert y.shape == (2, *CONE.shape) and y.is_contiguous() and not y[1].any()
    # Row 1 of view 2 is at [1, 2] in ASTRA's data.
    assert float(y[0, 2, 1, 3]) == x[0].sum() * ((1 * 4 + 2) * 41 + 3)
    back = backend.adjoint(torch.nn.functional.one_hot(torch.tensor(5), y[0].numel()).reshape(1, *CONE.shape).float())
    assert back.shape == (1, 3, *SHAPE) and float(back.max()) == 5


class RecordedRadon(types.ModuleType):
    """torch-radon 2: its constructors, its rays as its kernels have them, back-projection by autograd."""

    def __init__(self):
        super().__init__("torch_radon")
        self.volumes = types.SimpleNamespace(Volume2D=RecordedVolume)
        self.ParallelBeam, self.FanBeam = RecordedParallel, RecordedFan


class RecordedVolume:
    def __init__(self, center=(0.0, 0.0), voxel_size=(1.0, 1.0)):
        self.center, self.voxel_size = center, voxel_size

    def set_size(self, height, width):
        self.height, self.width = height, width


class RecordedBeam:
    def forward(self, x: Tensor) -> Tensor:
        """Sums along every ray from start to end, the image interpolated linearly, at 4000 points."""
        volume, t = self.volume, self.angles.double()
        u = (torch.arange(self.det_count) - self.det_count * 0.5 + 0.5) * self.det_spacing
        cos, sin = torch.cos(t)[:, None, None], torch.sin(t)[:, None, None]
        start, end = self.ends(u.double()[:, None])
        steps = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        px, py = (a + (b - a) * steps for a, b in zip(start, end, strict=True))
        place_x, place_y = px * cos + py * sin - volume.center[0], -px * sin + py * cos - volume.center[1]
        grid = torch.stack([2 * place_x / volume.width, 2 * place_y / volume.height], -1)
        flat = grid.reshape(1, len(t), -1, 2).expand(len(x), -1, -1, -1)
        sampled = torch.nn.functional.grid_sample(x[:, None].double(), flat, align_corners=False)
        length = sum((b - a).square() for a, b in zip(start, end, strict=True)).sqrt().squeeze(-1) / 4000
        return (sampled.reshape(len(x), len(t), self.det_count, 4000).sum(-1) * length).to(x.dtype)

    def backward(self, y: Tensor) -> Tensor:
        x = torch.zeros(len(y), self.volume.height, self.volume.width, requires_grad=True)
        return torch.autograd.grad(self.forward(x), x, y)[0]


class RecordedParallel(RecordedBeam):
    def __init__(self, det_count, angles, det_spacing=1.0, volume=None):
        self.det_count, self.angles, self.det_spacing, self.volume = det_count, angles, det_spacing, volume

    def ends(self, u: Tensor):
        far = torch.full_like(u, 60.0)
        return (u, far), (u, -far)


class RecordedFan(RecordedBeam):
    def __init__(self, det_count, angles, src_dist=None, det_dist=None, det_spacing=None, volume=None):
        self.det_count, self.angles, self.det_spacing, self.volume = det_count, angles, det_spacing, volume
        self.src_dist, self.det_dist = src_dist, det_dist

    def ends(self, u: Tensor):
        return (torch.zeros_like(u), torch.full_like(u, self.src_dist)), (u, torch.full_like(u, -self.det_dist))


@pytest.mark.parametrize(
    "geometry",
    [ParallelBeam(turn(180, 5), 41, 1.1), FanBeam(turn(360, 5), 41, 1.7, 60.0, 30.0)],
    ids=["parallel", "fan"],
)
def test_torch_radon_by_the_recorded_interface(monkeypatch, geometry):
    monkeypatch.setitem(sys.modules, "torch_radon", RecordedRadon())
    backend = TorchRadonBackend(scan_of(geometry, device="cuda"))
    centre, radius = (2.0, -3.5), 6.0
    y = backend.forward(disk_image(centre, radius)[None])
    expected = disk_integrals(geometry, centre, radius, 1.0, AXIS)
    assert y.shape == (1, *geometry.shape) and not backend.matched
    # As for ASTRA.
    assert relative(y[0], expected) < 0.07
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    # The scale of the back-projection: the recorded one is the adjoint.
    torch.testing.assert_close((backend.forward(x) * y).sum(), (backend.adjoint(y) * x).sum(), rtol=1e-4, atol=0)


def test_torch_radon_refuses_what_it_cannot_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_radon", RecordedRadon())
    centred = ParallelBeam(turn(180, 5), 41, 1.1)
    check_one_line(lambda: TorchRadonBackend(scan_of(centred)), "CUDA", "cpu")
    check_one_line(lambda: TorchRadonBackend(scan_of(PARALLEL, device="cuda")), "offsets")
    check_one_line(lambda: TorchRadonBackend(scan_of(ARC, device="cuda")), "curved")
    check_one_line(lambda: TorchRadonBackend(scan_of(CONE, (3, *SHAPE), "cuda")), "cone beams")
    check_one_line(lambda: TorchRadonBackend(scan_of(centred, device="cuda", dtype=torch.float64)), "float32")
