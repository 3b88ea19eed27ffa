"""Projectors against formulas, a loop that says what they mean, each other, and ASTRA."""

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from cases_ct import ANGLES, ARC, CASES, CONE, FAN, PARALLEL, REAL, ct
from checks import check_one_line
from disks import disk_integrals, distances
from operator_cases import randn
from torch import Tensor

from inverse.operators.ct import CT, ConeBeam, FanBeam, ParallelBeam
from inverse.testing import check_operator

Geometry = ParallelBeam | FanBeam | ConeBeam
EXACT = 1e-12  # rounding of sums of a few hundred terms in double precision
IMAGES: dict[str, tuple[Geometry, tuple[int, ...]]] = {
    "parallel": (PARALLEL, (8, 11)),
    "fan": (FAN, (9, 8)),
    "arc": (ARC, (7, 8)),
    "cone": (CONE, (5, 6, 9)),
}
COMPILED = ("matrix", "on-the-fly")


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def turn(views: int, degrees: float = 360.0) -> list[float]:
    return [math.radians(degrees) * i / views for i in range(views)]


@pytest.fixture(params=IMAGES)
def scan(request) -> tuple[Geometry, tuple[int, ...]]:
    return IMAGES[request.param]


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_contract(name, precision):
    report = check_operator(CASES[name]().to(precision))
    assert {"batch", "linear", "adjoint", "gradient", "gram"} <= set(report.errors) and not report.skipped


# What the method means: a loop


def joseph(operator: CT, x: Tensor) -> Tensor:
    """The definition, ray by ray and step by step."""
    origin, direction = torch.broadcast_tensors(*operator.geometry.rays())
    axes, pixel = x.ndim, operator.pixel
    middle = [(n - 1) / 2 for n in x.shape]
    shift = (0.0, *operator.centre)[-axes:]
    y = torch.zeros(operator.out_shape, dtype=x.dtype)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in y.shape)).tolist():
        o = [(float(v) + c) / pixel + m for v, c, m in zip(origin[tuple(at)], shift, middle, strict=True)]
        d = direction[tuple(at)].tolist()
        step = axes - 2 if abs(d[-2]) >= abs(d[-1]) else axes - 1
        for k in range(x.shape[step]):
            place = [a + b * (k - o[step]) / d[step] for a, b in zip(o, d, strict=True)]
            y[tuple(at)] += interpolated(x, place, step, k)
        y[tuple(at)] *= pixel * math.hypot(*d) / abs(d[step])
    return y


def interpolated(x: Tensor, place: Sequence[float], step: int, k: int) -> float:
    """Multilinear between the pixels around a place in line k, 0 outside of the image."""
    if step < x.ndim:
        x, place = x.select(step, k), [p for i, p in enumerate(place) if i != step]
    if x.ndim == 0:
        return float(x)
    low = math.floor(place[0])
    inside = [(i, 1 - abs(place[0] - i)) for i in (low, low + 1) if 0 <= i < len(x)]
    return sum(weight * interpolated(x[i], place[1:], x.ndim, 0) for i, weight in inside)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_projection_is_the_loop(scan, backend):
    operator = ct(scan[0], *scan[1], backend=backend)
    x = randn(*scan[1], dtype=REAL)
    assert relative(operator(x), joseph(operator, x)) < EXACT


# Each other


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, 1e-5)])  # rounding
def test_backends_agree(scan, dtype, tolerance):
    geometry, shape = scan
    x, y = randn(3, *shape, dtype=dtype), randn(3, *geometry.shape, dtype=dtype)
    first = CT(geometry, shape, 0.8, backend="torch", dtype=dtype)
    for backend in COMPILED:
        other = CT(geometry, shape, 0.8, backend=backend, dtype=dtype)
        assert relative(other(x), first(x)) < tolerance and relative(other.H(y), first.H(y)) < tolerance


def test_kept_weights_give_the_same_bits(scan):
    kept, computed = (ct(scan[0], *scan[1], backend=backend) for backend in COMPILED)
    x, y = randn(*scan[1], dtype=REAL), randn(*scan[0].shape, dtype=REAL)
    assert torch.equal(kept(x), computed(x)) and torch.equal(kept.H(y), computed.H(y))


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batch_is_its_samples_bit_for_bit(scan, backend, dtype):
    geometry, shape = scan
    operator = CT(geometry, shape, 0.8, backend=backend, dtype=dtype)
    # 8 images go together: all of them, some, and one that is left over.
    x, y = randn(11, *shape, dtype=dtype), randn(11, *geometry.shape, dtype=dtype)
    for batch in (2, 9, 11):
        assert all(torch.equal(a, operator(b)) for a, b in zip(operator(x[:batch]), x, strict=False))
        assert all(torch.equal(a, operator.H(b)) for a, b in zip(operator.H(y[:batch]), y, strict=False))


def test_number_of_threads_leaves_the_bits(scan):
    operator = ct(scan[0], *scan[1])
    x, y = randn(*scan[1], dtype=REAL), randn(*scan[0].shape, dtype=REAL)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            fresh = ct(scan[0], *scan[1], backend="on-the-fly")
            results.append((operator(x), operator.H(y), fresh(x), fresh.H(y)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


def test_long_detectors_and_wide_images():
    """More rays and pixels than go together in the compiled loops."""
    for geometry, shape in (
        (ParallelBeam(turn(7), 90, 0.7, 0.1), (41, 57)),
        (FanBeam(turn(7), 77, 1.3, 60, 40), (33, 41)),
    ):
        kept, other = (CT(geometry, shape, 1.0, backend=b, dtype=REAL) for b in ("matrix", "torch"))
        x, y = randn(2, *shape, dtype=REAL), randn(2, *geometry.shape, dtype=REAL)
        assert relative(kept(x), other(x)) < EXACT and relative(kept.H(y), other.H(y)) < EXACT


# Formulas


def blob_integrals(geometry: Geometry, centre: Sequence[float], sigma: float, axis: Sequence[float]) -> Tensor:
    """Line integrals of exp(-r^2 / (2 sigma^2)) about a centre."""
    # A disk of radius r and value 1 / 2 has the square of half its chord: r^2 - distance^2.
    large = 1e3
    apart = large**2 - disk_integrals(geometry, centre, large, 0.5, axis) ** 2
    return math.sqrt(2 * math.pi) * sigma * torch.exp(-apart / (2 * sigma**2))


SMOOTH = {
    "parallel": ParallelBeam(turn(9, 180), 101, 0.9, 1.3),
    "fan": FanBeam(turn(9), 101, 1.6, 150.0, 100.0, 1.3),
    "arc": FanBeam(turn(9), 101, 1.6, 150.0, 100.0, 1.3, curved=True),
    "cone": ConeBeam(turn(5), 9, 51, (4.0, 2.4), 150.0, 100.0, (2.0, 1.3)),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(("object_", "order"), [("blob", 1.7), ("ball", 0.8)])  # in the limit 2, and 1 (3/2 in L2)
def test_error_falls_at_the_order_of_the_method(name, object_, order):
    geometry, axis = SMOOTH[name], (2.1, -3.4)
    centre, size = (1.5, 5.3, -4.2) if name == "cone" else (5.3, -4.2), 4.0
    errors = []
    for n in (24, 48):
        pixel = 48.0 / n
        shape = (n,) * len(centre)
        r = distances(shape, pixel, centre)
        if object_ == "blob":
            x, exact = torch.exp(-(r**2) / (2 * size**2)), blob_integrals(geometry, centre, size, axis)
        else:
            radius = 3 * size
            x, exact = (0.5 + (radius - r) / pixel).clamp(0, 1), disk_integrals(geometry, centre, radius, 1.0, axis)
        y = CT(geometry, shape, pixel, centre=axis, dtype=REAL)(x)
        errors.append(relative(y, exact))
    assert errors[1] < 0.03 and math.log2(errors[0] / errors[1]) > order


def test_ellipse():
    """Chord of x^2 / a^2 + y^2 / b^2 < 1 along x cos t + y sin t = u: 2 a b sqrt(s^2 - u^2) / s^2."""
    a, b, pixel = 30.0, 17.0, 0.25
    geometry = ParallelBeam(turn(8, 180), 80, 1.0)
    y, x = torch.meshgrid(*((torch.arange(n, dtype=REAL) - (n - 1) / 2) * pixel for n in (160, 260)), indexing="ij")
    image = ((x / a) ** 2 + (y / b) ** 2 < 1).to(REAL)
    t = torch.tensor(geometry.angles, dtype=REAL)[:, None]
    square = (a * torch.cos(t)) ** 2 + (b * torch.sin(t)) ** 2
    exact = 2 * a * b * (square - geometry.positions**2).clamp_min(0).sqrt() / square
    # A pixel is in or out: errors of about a quarter of a pixel in chords of tens of millimetres.
    assert relative(CT(geometry, image.shape, pixel, dtype=REAL)(image), exact) < 0.01


# Symmetries and limits


def test_quarter_turn_is_exact():
    x = randn(9, 9, dtype=REAL)
    for geometry in (replace(PARALLEL, angles=[0.0, 0.3, 1.1]), replace(FAN, angles=[0.0, 0.3, 1.1])):
        turned = replace(geometry, angles=[t + math.pi / 2 for t in geometry.angles])
        first, second = (CT(g, (9, 9), 0.8, dtype=REAL) for g in (geometry, turned))
        # Counter-clockwise for x to the right and y up, which is clockwise as an image is shown.
        assert relative(second(torch.rot90(x, -1)), first(x)) < EXACT


def test_detector_offset_moves_the_data():
    x = randn(9, 9, dtype=REAL)
    y = CT(ParallelBeam(ANGLES, 15, 0.9), (9, 9), 0.8, dtype=REAL)(x)
    moved = CT(ParallelBeam(ANGLES, 15, 0.9, offset=1.8), (9, 9), 0.8, dtype=REAL)(x)
    assert relative(moved[:, :-2], y[:, 2:]) < EXACT


def test_axis_offset_is_a_moved_object(scan):
    geometry, shape = scan
    x = torch.zeros(shape, dtype=REAL)
    x[..., 2:5, 2:4] = randn(3, 2, dtype=REAL)
    moved = x.roll((1, -1), (-2, -1))
    at = CT(geometry, shape, 0.8, centre=(0.8, -0.8), dtype=REAL)
    assert relative(at(moved), CT(geometry, shape, 0.8, dtype=REAL)(x)) < EXACT


def test_far_source_is_a_parallel_beam():
    x = randn(9, 8, dtype=REAL)
    parallel = ct(ParallelBeam(ANGLES, 15, 0.9, 0.1), 9, 8)(x)
    for curved in (False, True):
        fan = ct(FanBeam(ANGLES, 15, 0.9, 1e7, 0.0, 0.1, curved), 9, 8)(x)
        assert relative(fan, parallel) < 1e-5  # rays that meet at 1e7 mm lean by 1e-6


def test_virtual_detector():
    """A detector in the axis sees what one twice as far and twice as large sees."""
    near, far = FanBeam(ANGLES, 11, 0.9, 20.0, 0.0), FanBeam(ANGLES, 11, 1.8, 20.0, 20.0)
    x = randn(9, 8, dtype=REAL)
    assert relative(ct(near, 9, 8)(x), ct(far, 9, 8)(x)) < EXACT


def test_middle_row_of_a_cone_is_a_fan():
    cone = ConeBeam(ANGLES, 3, 14, (1.1, 1.3), 11.0, 7.0, (0.0, -0.23))
    x, y = randn(5, 8, 7, dtype=REAL), randn(*FAN.shape, dtype=REAL)
    assert relative(ct(cone, 5, 8, 7)(x)[:, 1], ct(FAN, 8, 7)(x[2])) < EXACT
    data = torch.zeros(cone.shape, dtype=REAL)
    data[:, 1] = y
    assert relative(ct(cone, 5, 8, 7).H(data)[2], ct(FAN, 8, 7).H(y)) < EXACT


# ASTRA


@pytest.mark.parametrize(("shape", "detectors"), [((64, 64), 91), ((48, 65), 83)])
def test_astra_linear_parallel(shape, detectors):
    pytest.importorskip("astra")
    geometry = ParallelBeam(turn(30, 180), detectors, 1.0)
    ours, other = (CT(geometry, shape, 1.0, backend=backend) for backend in ("auto", "astra"))
    x, y = randn(*shape, dtype=torch.float32).abs(), randn(*geometry.shape, dtype=torch.float32)
    assert relative(ours(x), other(x)) < 1e-4 and relative(ours.H(y), other.H(y)) < 1e-4  # its float32 positions


def test_astra_fan():
    """ASTRA's fan on a CPU takes lengths in pixels: equal up to (pixel / sigma)^2 / 3 for a smooth image."""
    pytest.importorskip("astra")
    geometry = FanBeam(turn(30), 91, 1.8, 150.0, 100.0, 0.4)
    ours, other = (CT(geometry, (64, 64), 1.0, backend=backend) for backend in ("auto", "astra"))
    x = torch.exp(-(distances((64, 64), 1.0, (4.0, -7.0)) ** 2) / 128).float()
    assert relative(ours(x), other(x)) < 1 / 64 / 3


# The operator


def test_gradients(scan):
    operator = ct(scan[0], *scan[1])
    x, y = randn(2, *scan[1], dtype=REAL).requires_grad_(), randn(2, *scan[0].shape, dtype=REAL)
    (gradient,) = torch.autograd.grad(((operator(x) - y) ** 2).sum() / 2, x, create_graph=True)
    assert relative(gradient, operator.gram(x) - operator.H(y)) < EXACT
    (second,) = torch.autograd.grad((gradient * x.detach()).sum(), x)
    assert relative(second, operator.gram(x)) < EXACT
    z = y.clone().requires_grad_()
    (back,) = torch.autograd.grad((operator.H(z) * x.detach()).sum(), z)
    assert relative(back, operator(x)) < EXACT


def test_views_into_larger_tensors_are_taken():
    operator = ct(PARALLEL, 8, 7)
    x = randn(7, 8, 3, dtype=REAL)
    strided = x.permute(2, 1, 0)
    assert not strided.is_contiguous() and torch.equal(operator(strided), operator(strided.contiguous()))


def test_support_is_what_rays_meet():
    full = ct(ParallelBeam(turn(12, 180), 40, 0.5), 8, 8)
    assert full.support is None
    part = CT(ParallelBeam([0.0, 0.1], 8, 1.0), (20, 20), 1.0, dtype=REAL)
    assert part.support is not None and not part.support[0, 0] and part.support[10, 10]
    assert torch.equal(part.support, part.H(torch.ones(part.out_shape, dtype=REAL)) > 0)


def test_equal_operators_share_their_weights():
    first, second = ct(PARALLEL, 8, 8), ct(replace(PARALLEL), 8, 8)
    assert first._projector is second._projector and ct(PARALLEL, 8, 7)._projector is not first._projector
    assert first.to(torch.float32)._projector is not first._projector and first.matched
    x = randn(8, 8, dtype=REAL)
    assert torch.equal(pickle.loads(pickle.dumps(first))(x), first(x))
    assert len(pickle.dumps(CT(PARALLEL, (200, 200), 0.04))) < 2000


def test_memory_decides_what_is_kept():
    geometry = ParallelBeam(turn(20, 180), 140, 1.0)
    kept, computed = (CT(geometry, (100, 100), 1.0, memory=memory) for memory in (2**30, 0))
    # About 100 steps of 20 * 100 rays, 6 bytes each.
    assert 1e6 < kept.memory_bytes < 1.5e6 and computed.memory_bytes < 1e5
    assert CT(geometry, (100, 100), 1.0, backend="matrix", memory=0).memory_bytes == kept.memory_bytes


def test_restrict_keeps_views(scan):
    operator = ct(scan[0], *scan[1])
    x = randn(*scan[1], dtype=REAL)
    for index in (slice(1, 4, 2), [2, 0], torch.arange(len(scan[0].angles)) > 1):
        assert torch.equal(operator.restrict(index)(x), operator(x)[index])
    check_one_line(lambda: operator.restrict([17]), "views", "17")
    check_one_line(lambda: operator.restrict(slice(0, 0)), "at least one angle")


def test_pinv_is_filtered_back_projection():
    operator = CT(ParallelBeam(turn(90, 180), 61, 1.0), (40, 40), 1.0)
    x = (distances((40, 40), 1.0, (3.0, -4.0)) < 12).float() * 0.02
    inside = distances((40, 40), 1.0, (3.0, -4.0)) < 9
    # The kernel of a ramp on 60 bins: a percent or so of the value.
    assert operator.has_pinv and abs(float(operator.pinv(operator(x))[inside].mean()) - 0.02) < 4e-4


def test_repr_is_short():
    text = repr(ct(replace(FAN, angles=turn(1000)), 8, 8))
    assert "1000 views" in text and "source_distance=11.0" in text and "\n" not in text and len(text) < 300


# Refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ParallelBeam([], 5, 1.0), "at least one angle"),
        (lambda: ParallelBeam([0.1, math.nan], 5, 1.0), "1 of 2"),
        (lambda: ParallelBeam([[0.1]], 5, 1.0), "one list"),
        (lambda: ParallelBeam("x", 5, 1.0), "radians"),
        (lambda: ParallelBeam(None, 5, 1.0), "radians"),
        (lambda: ParallelBeam([0.1], 0, 1.0), "detectors"),
        (lambda: ParallelBeam([0.1], 2.5, 1.0), "detectors"),
        (lambda: ParallelBeam([0.1], 5, -1.0), "spacing"),
        (lambda: ParallelBeam([0.1], 5, 1.0, math.inf), "offset"),
        (lambda: ParallelBeam([0.1], 5, 1.0, "x"), "offset"),
        (lambda: FanBeam([0.1], 5, 1.0, 0.0, 5.0), "source_distance"),
        (lambda: FanBeam([0.1], 5, 1.0, 10.0, -5.0), "detector_distance"),
        (lambda: FanBeam([0.1], 50, 1.0, 10.0, 5.0, curved=True), "arc"),
        (lambda: ConeBeam([0.1], 5, 5, 1.0, 10.0, 5.0), "spacing"),
        (lambda: ConeBeam([0.1], 5, 5, (1.0, 0.0), 10.0, 5.0), "spacing"),
        (lambda: ConeBeam([0.1], 50, 5, (1.0, 1.0), 10.0, 5.0), "45"),
        (lambda: CT("x", (8, 8), 1.0), "geometry"),
        (lambda: CT(PARALLEL, (4, 8, 8), 1.0), "batch dimensions"),
        (lambda: CT(PARALLEL, (8, 0), 1.0), "shape"),
        (lambda: CT(PARALLEL, (8, 8.5), 1.0), "shape"),
        (lambda: CT(CONE, (8, 8), 1.0), "shape"),
        (lambda: CT(PARALLEL, (8, 8), 0.0), "pixel"),
        (lambda: CT(PARALLEL, (8, 8), 1.0, centre=2.0), "centre"),
        (lambda: CT(PARALLEL, (8, 8), 1.0, centre=(0.0, math.nan)), "centre"),
        (lambda: CT(PARALLEL, (8, 8), 1.0, memory=-1), "memory"),
        (lambda: CT(PARALLEL, (8, 8), 1.0, backend="fast"), "on-the-fly"),
        (lambda: CT(PARALLEL, (8, 8), 1.0, dtype=torch.float16), "dtype"),
        (lambda: CT(PARALLEL, (8, 8), 1.0, dtype=torch.complex64), "real"),
        (lambda: CT(FAN, (80, 80), 1.0), "source"),
        (lambda: CT(replace(FAN, angles=[0.0]), (8, 8), 1.0, centre=(9.0, 0.0)), "source"),
        (lambda: CT(replace(PARALLEL, offset=100.0), (8, 8), 1.0), "misses"),
        (lambda: CT(replace(CONE, offset=(17.0, 0.0), spacing=(0.1, 1.0)), (2, 4, 4), 0.5), "misses"),
        (lambda: CT(PARALLEL, (8, 8), 1.0).to(torch.float16)(torch.zeros(8, 8, dtype=torch.float16)), "dtype"),
        (lambda: CT(PARALLEL, (8, 8), 1.0)(torch.zeros(8, 7)), "(8, 7)"),
        (lambda: CT(PARALLEL, (8, 8), 1.0)(torch.zeros(8, 8, dtype=REAL)), "float64"),
    ],
)
def test_bad_input_is_one_line(make, words):
    assert words in check_one_line(make)


@pytest.mark.gpu
def test_device_gives_what_the_cpu_gives(scan):
    cpu, device = (CT(scan[0], scan[1], 0.8, dtype=REAL, device=d) for d in ("cpu", "cuda"))
    x, y = randn(2, *scan[1], dtype=REAL), randn(2, *scan[0].shape, dtype=REAL)
    assert relative(device(x.cuda()).cpu(), cpu(x)) < EXACT and relative(device.H(y.cuda()).cpu(), cpu.H(y)) < EXACT
