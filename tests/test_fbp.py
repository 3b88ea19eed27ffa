"""Filtered back-projection against disks, other people's code and its own two implementations."""

import math

import pytest
import torch
from checks import check_one_line
from disks import disk_integrals, distances
from torch import Tensor

from inverse.operators.ct import CT, ConeBeam, FanBeam, ParallelBeam
from inverse.operators.ct.backproject import backproject
from inverse.operators.ct.fbp import fbp, filter_views
from inverse.operators.ct.filters import WINDOWS, apply_filter, padded_length, ramp_kernel, ramp_response, window
from inverse.operators.ct.geometry import element_positions
from inverse.operators.ct.views import angular_weights, parker_weights, ray_weights

PI = math.pi
CENTRE, RADIUS, MU = (7.3, -12.1), 20.0, 0.02
FAN = {"detectors": 221, "spacing": 1.2, "source_distance": 300.0, "detector_distance": 200.0}


def turn(degrees: float, views: int, first: float = 0.0) -> Tensor:
    return first + math.radians(degrees) * torch.arange(views, dtype=torch.float64) / views


def fan(degrees: float, views: int, first: float = 0.0, **more) -> FanBeam:
    return FanBeam(turn(degrees, views, first), **{**FAN, **more})


def cone(degrees: float, views: int) -> ConeBeam:
    return ConeBeam(turn(degrees, views), 45, 151, (2.4, 2.4), 300.0, 200.0, (3.3, 4.4))


SCANS = {
    "parallel half turn": ParallelBeam(turn(180, 120), 161, 1.0),
    "parallel both ends": ParallelBeam(torch.linspace(0, PI, 121), 161, 1.0),
    "parallel full turn": ParallelBeam(turn(360, 181), 161, 1.0),
    "parallel backwards, offset": ParallelBeam(turn(-180, 120, 2.0), 181, 0.9, 3.7),
    "parallel random": ParallelBeam(torch.rand(200, generator=torch.Generator().manual_seed(0)) * PI, 161, 1.0),
    "fan full turn": fan(360, 180),
    "fan both ends": FanBeam(torch.linspace(0, 2 * PI, 181), **FAN),
    "fan offset": fan(360, 180, offset=11.3),
    "fan short scan": fan(220, 150, 0.3),
    "fan short scan backwards": fan(-220, 150, 5.0),
    "fan overscan": fan(270, 180),
    "fan just beyond half a turn": fan(200, 150),
    "arc full turn": fan(360, 180, curved=True),
    "arc offset": fan(360, 180, offset=11.3, curved=True),
    "arc short scan": fan(220, 150, 0.3, curved=True),
    "virtual detector": FanBeam(turn(360, 180), 161, 0.8, 300.0, 0.0),
}


@pytest.mark.parametrize("axis", [(0.0, 0.0), (4.2, -6.6)], ids=["axis in the middle", "axis beside"])
@pytest.mark.parametrize("name", SCANS)
def test_disk_has_its_attenuation(name, axis):
    geometry = SCANS[name]
    operator = CT(geometry, (96, 90), 1.2, centre=axis, dtype=torch.float64)
    x = operator.pinv(disk_integrals(geometry, CENTRE, RADIUS, MU, axis))
    distance = distances((96, 90), 1.2, CENTRE)
    inside, around = x[distance < RADIUS - 3], x[(distance > RADIUS + 3) & (distance < RADIUS + 12)]
    # Measured 0.1 % at most; the bare sampled |f| is wrong by 1 %, a scan counted twice by 100 %.
    assert abs(float(inside.mean()) / MU - 1) < 0.002
    assert float(inside.std()) < 0.02 * MU  # streaks of 120 views; a shift of half an element makes it 0.05
    assert abs(float(around.mean())) < 0.005 * MU
    # The middle of mass, so that no view is mirrored or shifted by more than a tenth of a pixel.
    weight = x * (distance < RADIUS + 3)
    for k, (coordinate, n) in enumerate(zip(CENTRE, (96, 90), strict=True)):
        place = element_positions(n, 1.2, 0.0)
        assert abs(float((weight.sum(1 - k) * place).sum() / weight.sum()) - coordinate) < 0.1


@pytest.mark.parametrize(("degrees", "views"), [(360, 90), (225, 60)])
def test_ball_has_its_attenuation(degrees, views):
    geometry, centre, axis, shape = cone(degrees, views), (2.0, *CENTRE), (4.2, -6.6), (15, 40, 38)
    operator = CT(geometry, shape, 2.0, centre=axis, dtype=torch.float64)
    x = operator.pinv(disk_integrals(geometry, centre, RADIUS, MU, axis))
    distance = distances(shape, 2.0, centre)
    # The cone is 3 degrees wide: its error is below that of the views.
    assert abs(float(x[distance < RADIUS - 5].mean()) / MU - 1) < 0.005
    assert abs(float(x[(distance > RADIUS + 5) & (distance < RADIUS + 12)].mean())) < 0.01 * MU


@pytest.mark.parametrize("geometry", [ParallelBeam(turn(120, 60), 161, 1.0), fan(150, 60)], ids=["parallel", "fan"])
def test_limited_angle_does_not_blow_up(geometry):
    operator = CT(geometry, (96, 90), 1.2, dtype=torch.float64)
    x = operator.pinv(disk_integrals(geometry, CENTRE, RADIUS, MU))
    share = float(x[distances((96, 90), 1.2, CENTRE) < RADIUS - 3].mean()) / MU
    assert 0.6 < share < 1.0  # parallel: 2/3 of the angles were measured
    assert float(x.abs().max()) < 1.6 * MU


def test_angular_weights():
    n = 12
    regular = torch.full((n,), PI / n, dtype=torch.float64)
    exact = {"rtol": 0, "atol": 1e-12}  # rounding of angles
    torch.testing.assert_close(angular_weights(turn(180, n), PI), regular, **exact)
    torch.testing.assert_close(angular_weights(turn(360, n + 1), PI), regular.new_full((n + 1,), PI / (n + 1)), **exact)
    torch.testing.assert_close(angular_weights(turn(360, n), PI), regular, **exact)
    both_ends = angular_weights(torch.linspace(0, PI, n + 1, dtype=torch.float64), PI)
    expected = torch.cat([regular[:1] / 2, regular[1:], regular[:1] / 2])
    torch.testing.assert_close(both_ends, expected, **exact)
    # A third of the angles is missing: nothing is made up for it.
    torch.testing.assert_close(angular_weights(turn(120, n), PI), regular * 2 / 3, **exact)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    uneven = turn(180, n) + 0.1 * torch.sin(torch.arange(n))
    torch.testing.assert_close(angular_weights(uneven[shuffled], PI), angular_weights(uneven, PI)[shuffled], **exact)
    assert float(angular_weights(uneven, PI).sum()) == pytest.approx(PI)
    for few in ([0.3], [0.3, 0.3], [0.0, PI], [0.1, 0.1 + PI / 2]):
        assert float(angular_weights(few, PI).sum()) == pytest.approx(PI)


def test_parker_weights_of_a_line_sum_to_one():
    overscan = 0.35
    gamma = torch.linspace(-0.3, 0.3, 31, dtype=torch.float64)[:, None]
    since = torch.linspace(0, PI + 2 * overscan, 200, dtype=torch.float64)
    again = since + PI - 2 * gamma
    twice = again <= PI + 2 * overscan
    total = parker_weights(since, gamma, overscan) + parker_weights(again, -gamma, overscan) * twice
    early = since < 2 * overscan + 2 * gamma
    assert bool(early.any()) and float((total - 1)[early].abs().max()) < 1e-12  # sin^2 + cos^2
    middle = (since > 2 * (overscan + gamma)) & (since < PI + 2 * gamma)
    assert torch.equal(parker_weights(since, gamma, overscan)[middle], torch.ones(int(middle.sum()), dtype=gamma.dtype))
    assert float(parker_weights(since[:1], gamma, overscan).max()) == 0.0


def test_full_fan_counts_every_line_twice():
    weights = ray_weights(fan(360, 40))
    torch.testing.assert_close(weights, torch.full_like(weights, PI / 40), rtol=0, atol=1e-12)


def test_ramp_kernel():
    kernel = ramp_kernel(4, 0.5)
    assert kernel[4] == 1.0 and kernel[[2, 6, 0, 8]].abs().max() == 0.0
    torch.testing.assert_close(kernel[[3, 5]], torch.full((2,), -1 / (PI * 0.5) ** 2, dtype=torch.float64))
    torch.testing.assert_close(kernel[[1, 7]], torch.full((2,), -1 / (3 * PI * 0.5) ** 2, dtype=torch.float64))
    # The whole kernel sums to 0; what a finite one leaves, 1 / (pi^2 n), is what a sampled |f| lacks.
    assert float(ramp_kernel(2000, 1.0).sum()) == pytest.approx(1 / (PI**2 * 2000), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "half", "end"),
    [
        ("ram-lak", 1, 1),
        ("shepp-logan", math.sin(PI / 4) / (PI / 4), 2 / PI),
        ("cosine", math.sqrt(0.5), 0),
        ("hamming", 0.54, 0.08),
        ("hann", 0.5, 0),
    ],
)
def test_windows(name, half, end):
    values = window(name, 64)
    assert values[0] == 1 and float(values[16]) == pytest.approx(half)
    assert float(values[32]) == pytest.approx(end, abs=1e-9)


@pytest.mark.parametrize("elements", [1, 2, 31, 64])
def test_filter_is_a_convolution_without_wrapping(elements):
    y = torch.randn(3, elements, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = ramp_kernel(elements - 1, 0.7)
    index = torch.arange(elements)
    expected = 0.7 * y @ kernel[index[:, None] - index + elements - 1]
    assert padded_length(elements) >= 2 * elements
    # FFT rounding.
    torch.testing.assert_close(apply_filter(y, ramp_response("ram-lak", elements, 0.7)), expected, rtol=0, atol=1e-12)


def test_unknown_filter_is_refused():
    operator = CT(ParallelBeam(turn(180, 4), 9, 1.0), (5, 5), 1.0)
    y = torch.ones(operator.out_shape)
    check_one_line(lambda: fbp(operator, y, "ramp"), "ram-lak", "'ramp'")
    check_one_line(lambda: fbp(operator, y[:2]), "expected shape")


GEOMETRIES = {
    "parallel": (ParallelBeam(turn(180, 7, 0.2), 9, 1.1, 0.4), (6, 7)),
    "one view of one element": (ParallelBeam([0.3], 1, 5.0), (1, 3)),
    "along an axis": (ParallelBeam([0.0, PI / 2], 5, 1.0), (7, 1)),
    "fan": (fan(360, 7, detectors=11, spacing=1.3, source_distance=20.0, detector_distance=9.0, offset=0.4), (6, 7)),
    "arc": (fan(230, 9, detectors=11, spacing=1.3, source_distance=20.0, detector_distance=9.0, curved=True), (6, 7)),
    "cone": (ConeBeam(turn(360, 5, 0.1), 4, 11, (1.7, 1.3), 20.0, 9.0, (0.3, 0.4)), (3, 6, 7)),
    "cone of one slice": (ConeBeam(turn(360, 5, 0.1), 1, 11, (1.7, 1.3), 20.0, 9.0), (1, 6, 7)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_compiled_loops_equal_whole_images(name, dtype):
    geometry, shape = GEOMETRIES[name]
    q = torch.randn(2, *geometry.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    axes = [element_positions(n, 1.1, 0.3 * k) for k, n in enumerate(shape)]
    loops, images = backproject(geometry, q, axes), backproject(geometry, q.clone().requires_grad_(), axes)
    assert loops.dtype == dtype and images.requires_grad and loops.abs().max() > 0
    # Sums of at most 9 terms.
    torch.testing.assert_close(loops, images.detach(), rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_pinv_takes_batches_and_gradients(name):
    geometry, shape = GEOMETRIES[name]
    operator = CT(geometry, shape, 1.1, dtype=torch.float64)
    y = torch.randn(2, 3, *geometry.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kept = y.clone()
    x = operator.pinv(y)
    assert x.shape == (2, 3, *shape) and torch.equal(y, kept) and x.dtype == torch.float64
    assert torch.equal(operator.pinv(y[1, 2]), x[1, 2])
    assert operator.pinv(y[:, :0]).shape == (2, 0, *shape)
    torch.testing.assert_close(operator.to(torch.float32).pinv(y.float()).double(), x, rtol=0, atol=1e-4)
    some = y[0, 0].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: fbp(operator, v, "hann"), some, fast_mode=True)


def test_threads_do_not_change_the_result(monkeypatch):
    geometry, shape = GEOMETRIES["fan"]
    q = torch.randn(1, *geometry.shape, generator=torch.Generator().manual_seed(0))
    axes = [element_positions(n, 1.1, 0.0) for n in shape]
    alone = backproject(geometry, q, axes)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(backproject(geometry, q, axes), alone)


@pytest.mark.parametrize("name", WINDOWS)
def test_agrees_with_scikit_image(name):
    transform = pytest.importorskip("skimage.transform")
    n, views = 63, 40
    degrees = torch.arange(views, dtype=torch.float64) * 180 / views
    geometry = ParallelBeam(-torch.deg2rad(degrees), n, 1.0)  # its y points up
    y = disk_integrals(geometry, (5.0, -8.0), 14.0, 0.3)
    theirs = {"ram-lak": "ramp"}.get(name, name)
    expected = torch.from_numpy(
        transform.iradon(y.T.numpy(), theta=degrees.numpy(), filter_name=theirs, circle=False, output_size=n)
    )
    x = fbp(CT(geometry, (n, n), 1.0, dtype=torch.float64), y, name)
    inside = distances((n, n), 1.0, (0.0, 0.0)) < n / 2 - 1  # at the edge of the detector it takes no neighbour
    assert float(x.max()) > 0.25
    # Both filter in the spatial domain and interpolate linearly; its Hann and Hamming windows of 128 frequencies are
    # half a frequency beside zero.
    tolerance = 2e-3 if name in ("hann", "hamming") else 1e-6
    torch.testing.assert_close(x[inside], expected[inside], rtol=0, atol=tolerance)


def test_filtered_views_of_a_volume_keep_their_shape():
    geometry, _ = GEOMETRIES["cone"]
    y = torch.ones(2, *geometry.shape)
    assert filter_views(geometry, y, "hann").shape == y.shape
