"""The rotation axis found from data: its sign, and how well."""

import math

import pytest
import torch
from checks import check_one_line
from disks import disk_integrals, distances
from torch import Tensor

from inverse.operators.ct import CT, ParallelBeam
from inverse.operators.ct.centre import find_centre

PI = math.pi
DETECTORS = 160
DISKS = (((3.0, -5.0), 38, 0.02), ((13.0, -17.0), 15, 0.01), ((-12.0, 2.0), 8, -0.015), ((-2.0, 15.0), 4, 0.02))


def scan(angles: Tensor, offset: float, spacing: float = 1.0, noise: float = 0.0) -> Tensor:
    geometry = ParallelBeam(angles, DETECTORS, spacing, offset)
    y = sum(disk_integrals(geometry, [spacing * c for c in m], spacing * r, mu / spacing) for m, r, mu in DISKS)
    return y + noise * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))


def turn(degrees: float, views: int) -> Tensor:
    return math.radians(degrees) * torch.arange(views, dtype=torch.float64) / views


ANGLES = {
    "180 views": turn(180, 180),
    "30 views": turn(180, 30),
    "8 views": turn(180, 8),
    "both ends": torch.linspace(0, PI, 31, dtype=torch.float64),
    "full turn": turn(360, 40) + 0.3,
    "full turn, odd": turn(360, 41),
    "backwards": turn(-180, 30) + 1,
    "irregular": torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * PI,
}


@pytest.mark.parametrize("offset", [0.0, 23.3, -11.6])
@pytest.mark.parametrize("name", ANGLES)
def test_axis_is_found(name, offset):
    found = find_centre(scan(ANGLES[name], offset), ANGLES[name])
    # Measured 0.02 elements; half an element shows in an image.
    assert abs(found - offset) < 0.05


def test_noise_and_limited_angle():
    angles = turn(180, 30)
    assert abs(find_centre(scan(angles, 9.7, noise=0.02), angles) - 9.7) < 0.1  # 1.5 % of the longest ray
    angles = turn(120, 60)
    assert abs(find_centre(scan(angles, 9.7), angles) - 9.7) < 0.3  # measured 0.1: a third of the views is missing


def test_offset_is_in_mm_and_has_the_sign_of_parallel_beam():
    angles, spacing, column = turn(180, 60), 0.25, 60.0
    # The axis falls on column 60, left of the middle 79.5: element 60 is at u = 0.
    offset = ((DETECTORS - 1) / 2 - column) * spacing
    y = scan(angles, offset, spacing)
    found = find_centre(y, angles, spacing)
    assert offset > 0 and abs(found - offset) < 0.05 * spacing
    assert abs(float(ParallelBeam(angles, DETECTORS, spacing, found).positions[int(column)])) < 0.05 * spacing
    # And the image is sharp with it: the small disk is where it was, with its attenuation.
    x = CT(ParallelBeam(angles, DETECTORS, spacing, found), (90, 90), spacing, dtype=torch.float64).pinv(y)
    middle = float(x[distances((90, 90), spacing, [spacing * c for c in DISKS[3][0]]) < 2 * spacing].mean())
    assert middle == pytest.approx((0.02 + 0.02) / spacing, rel=0.05)


def test_slices_share_their_axis():
    angles = turn(180, 30)
    one = scan(angles, 9.7)
    stack = torch.stack([one, 0.5 * one, torch.zeros_like(one)] * 8).reshape(2, 12, *one.shape).float()
    assert abs(find_centre(stack, angles.tolist()) - 9.7) < 0.05


def test_bad_input_is_refused():
    angles = turn(180, 12)
    y = scan(angles, 0.0)
    check_one_line(lambda: find_centre(y, angles[:-1]), "(12, 160)", "(11,)")
    check_one_line(lambda: find_centre(y[:5], angles[:5]), "at least 8")
    check_one_line(lambda: find_centre(torch.ones_like(y), angles), "nothing was measured")
    check_one_line(lambda: find_centre(y * float("nan"), angles), "NaN")
    check_one_line(lambda: find_centre(y, angles * float("inf")), "angles")
    check_one_line(lambda: find_centre(y[0], angles), "(160,)")
