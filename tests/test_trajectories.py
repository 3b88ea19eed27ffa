"""Trajectories: where their samples are, exactly."""

import math

import pytest
import torch

from inverse.data.trajectories import GOLDEN_ANGLE, cartesian, golden_means, radial, readout, spiral, stack_of_stars
from inverse.errors import InputError

ROUNDING = 1e-12  # double precision, angles of up to a few hundred radians


@pytest.mark.parametrize("samples", [1, 2, 7, 8])
def test_readout_has_its_centre_in_the_middle(samples):
    k = readout(samples)
    assert k[samples // 2] == 0 and len(k) == samples
    assert float(k.abs().max()) <= math.pi and float(k.max()) < math.pi
    assert torch.allclose(k.diff(), torch.full((samples - 1,), 2 * math.pi / samples, dtype=torch.float64))


def test_cartesian_is_the_grid_of_the_fourier_transform():
    k = cartesian((4, 5, 3))
    assert k.shape == (4, 5, 3, 3) and k.dtype == torch.float64
    assert torch.equal(k[1, 4, 2], torch.tensor([-1 / 4, 2 / 5, 1 / 3], dtype=torch.float64) * 2 * math.pi)


@pytest.mark.parametrize("golden", [True, False])
def test_spokes(golden):
    k = radial(6, 8, golden=golden, start=0.3)
    assert k.shape == (6, 8, 2) and k.dtype == torch.float64
    step = GOLDEN_ANGLE if golden else math.pi / 6
    assert math.degrees(GOLDEN_ANGLE) == pytest.approx(111.246117975)
    for i, spoke in enumerate(k):
        y, x = spoke[-1] / readout(8)[-1]
        assert float(y) == pytest.approx(math.sin(0.3 + i * step), abs=ROUNDING)
        assert float(x) == pytest.approx(math.cos(0.3 + i * step), abs=ROUNDING)
        assert torch.equal(spoke[4], torch.zeros(2, dtype=torch.float64))
    # From the x axis towards y: the first spoke of start 0 lies along x.
    assert torch.equal(radial(1, 8)[0, :, 1], readout(8)) and not radial(1, 8)[..., 0].any()


def test_any_number_of_golden_spokes_is_nearly_even():
    for spokes in (5, 13, 34, 50):
        k = radial(spokes, 2)[:, 0]
        angles = torch.atan2(k[:, 0], k[:, 1]).remainder(math.pi).sort().values
        gaps = torch.cat([angles.diff(), angles[:1] + math.pi - angles[-1:]])
        # Three lengths of gaps at most, neighbours in the Fibonacci sequence: the largest over the smallest is below
        # the golden ratio squared.
        assert float(gaps.max() / gaps.min()) < 2.62


def test_golden_means_cover_the_sphere():
    k = golden_means(1000, 4)
    directions = k[:, 0] / k[:, 0].norm(dim=-1, keepdim=True)
    assert k.shape == (1000, 4, 3)
    assert torch.allclose(k.norm(dim=-1), readout(4).abs().expand(1000, 4))
    # Both ends of a spoke together: mean of the outer product is one third of the identity, to the evenness of
    # quasi-random points, about 1 / 1000.
    second = directions.mT @ directions / 1000
    assert float((second - torch.eye(3) / 3).abs().max()) < 5e-3
    # The means of the paper to their four digits.
    height = directions[1, 0].abs()
    angle = torch.atan2(directions[1, 1], directions[1, 2]).remainder(math.pi)
    assert float(height) == pytest.approx(0.4656, abs=5e-5)
    assert float(angle) == pytest.approx((2 * math.pi * 0.6823) % math.pi, abs=1e-3)


def test_spirals():
    k = spiral(3, 200, turns=5)
    radius = k.norm(dim=-1)
    assert (
        k.shape == (3, 200, 2) and not k[:, 0].any() and torch.allclose(radius[:, -1], torch.tensor(math.pi).double())
    )
    # An Archimedean spiral: the radius grows with the angle, pi in `turns` turns.
    angle = torch.atan2(k[0, :, 0], k[0, :, 1])
    expected = (2 * math.pi * 5 * radius[0] / math.pi).remainder(2 * math.pi)
    assert float((torch.polar(torch.ones(199).double(), (angle - expected)[1:]) - 1).abs().max()) < 1e-9
    # Arms turned against each other by 120 degrees.
    turn = torch.polar(torch.ones(()).double(), torch.tensor(2 * math.pi / 3).double())
    assert torch.allclose(torch.complex(k[0, :, 1], k[0, :, 0]) * turn, torch.complex(k[1, :, 1], k[1, :, 0]))
    # About equal arcs between samples but for the start; a denser centre on request.
    arcs = k[0].diff(dim=0).norm(dim=-1)[20:]
    assert float(arcs.max() / arcs.min()) < 1.1
    dense = spiral(3, 200, turns=5, variable_density=2).norm(dim=-1)
    assert float((dense < 1).double().mean()) > 1.5 * float((radius < 1).double().mean())


def test_stack_of_stars():
    k = stack_of_stars(4, 3, 8)
    assert k.shape == (4, 3, 8, 3)
    assert torch.equal(k[:, 0, 0, 0], readout(4))
    assert all(torch.equal(plane[..., 1:], radial(3, 8)) for plane in k)
    turned = stack_of_stars(4, 3, 8, turn=True)
    assert torch.equal(turned[1, ..., 1:], radial(3, 8, start=GOLDEN_ANGLE / 4))
    assert torch.equal(stack_of_stars(1, 3, 8, golden=False)[0, ..., 1:], radial(3, 8, golden=False))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: radial(0, 8), "spokes"),
        (lambda: radial(3, 8.0), "samples"),
        (lambda: golden_means(3, -1), "samples"),
        (lambda: spiral(3, 8, turns=0), "turns"),
        (lambda: spiral(3, 8, turns=2, variable_density=math.nan), "variable_density"),
        (lambda: stack_of_stars(0, 3, 8), "partitions"),
        (lambda: cartesian((4, 0)), "shape"),
    ],
)
def test_bad_input_is_one_line(build, message):
    with pytest.raises(InputError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
