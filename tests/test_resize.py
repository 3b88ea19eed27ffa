"""Resizing and super-resolution against PIL, torch, a slow reference of imresize, and closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases_imaging import randn
from checks import check_one_line
from torch import Tensor

from inverse.linalg import norm
from inverse.operators.blur import Blur
from inverse.operators.downsample import Downsample
from inverse.operators.kernels import gaussian_kernel, uniform_kernel
from inverse.operators.resize import Resize

EXACT = 1e-12  # double precision, sums of up to a few hundred terms
SIZES = [((16, 16), (4, 4)), ((17, 12), (5, 7)), ((9, 8), (3, 16)), ((7, 5), (20, 11)), ((30, 3), (4, 2))]


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def imresize_line(line: np.ndarray, m: int) -> np.ndarray:
    """Slow reference from the published description of imresize: bicubic, antialiased, one output at a time.

    Output pixel i (from 1) sees the input at u = i / s + (1 - 1/s) / 2; the cubic of width 4 / s is evaluated there,
    normalised, and places outside of 1 ... n are mirrored with the border repeated.
    """
    n = len(line)
    scale = m / n
    shrink = min(scale, 1.0)

    def cubic(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0

    mirrored = [*range(n), *reversed(range(n))]
    out = []
    for i in range(1, m + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - 2 / shrink)
        places = [left + p for p in range(math.ceil(4 / shrink) + 2)]
        weights = [shrink * cubic(shrink * (u - place)) for place in places]
        pixels = [line[mirrored[(place - 1) % (2 * n)]] for place in places]
        out.append(sum(w * v for w, v in zip(weights, pixels, strict=True)) / sum(weights))
    return np.array(out)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_bicubic_is_imresize(before, after):
    x = randn(*before)
    rows = np.stack([imresize_line(line, after[1]) for line in x.numpy()])
    expected = np.stack([imresize_line(line, after[0]) for line in rows.T]).T
    assert relative(Resize(before, after, dtype=torch.float64)(x), torch.from_numpy(expected)) < EXACT


def test_bicubic_by_two_has_the_published_weights():
    # Cubic at the distances 1/4, 3/4, 5/4, 7/4, divided by two: the weights of a line reduced by 2.
    weights = [-3 / 256, -9 / 256, 29 / 256, 111 / 256]
    line = Resize((2, 16), (1, 8), dtype=torch.float64)._products._matrices[1][4]
    expected = torch.zeros(16, dtype=torch.float64)
    expected[5:13] = torch.tensor(weights + weights[::-1], dtype=torch.float64)
    assert relative(line, expected) < EXACT


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "box", "lanczos"])
def test_renormalised_is_pil(before, after, kernel):
    image = pytest.importorskip("PIL.Image")
    x = randn(*before).float()
    filters = {"bicubic": "BICUBIC", "bilinear": "BILINEAR", "box": "BOX", "lanczos": "LANCZOS"}
    resized = image.fromarray(x.numpy()).resize(after[::-1], getattr(image.Resampling, filters[kernel]))
    operator = Resize(before, after, kernel=kernel, boundary="renormalise", dtype=torch.float64)
    # PIL stores float32 between and after its two passes.
    assert relative(operator(x.double()), torch.from_numpy(np.array(resized)).double()) < 1e-6


def test_the_boundary_is_all_that_separates_pil_from_imresize():
    x = randn(32, 24)
    both = [Resize((32, 24), (8, 6), boundary=name, dtype=torch.float64)(x) for name in ("symmetric", "renormalise")]
    # The bicubic reaches 8 pixels: two pixels of the result from the border.
    assert relative(both[0][2:-2, 2:-2], both[1][2:-2, 2:-2]) < EXACT and relative(both[0], both[1]) > 1e-2


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_renormalised_is_torch(before, after):
    x = randn(2, 3, *before)
    for kernel in ("bicubic", "bilinear"):
        expected = F.interpolate(x, after, mode=kernel, antialias=True, align_corners=False)
        operator = Resize((3, *before), after, kernel=kernel, boundary="renormalise", dtype=torch.float64)
        assert relative(operator(x), expected) < 1e-6  # torch takes some of the weights in single precision


def test_constants_stay_and_ramps_inside():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(30.0), indexing="ij")
    for kernel in ("bicubic", "bilinear", "box", "lanczos"):
        operator = Resize((24, 30), (8, 10), kernel=kernel, dtype=torch.float64)
        ones = operator(torch.ones(24, 30, dtype=torch.float64))
        assert (ones - 1).abs().max() < EXACT
        # Symmetric weights keep a ramp; pixel i of the result lies at 3 i + 1.
        ramp = operator((2 * x + y).double())[3:-3, 3:-3]
        rows, columns = torch.arange(8.0)[3:-3], torch.arange(10.0)[3:-3]
        assert (ramp - (2 * (3 * columns + 1) + (3 * rows[:, None] + 1))).abs().max() < 1e-11  # values up to 80


def test_one_size_is_the_identity():
    x = randn(7, 6)
    for kernel in ("bicubic", "bilinear", "box", "lanczos"):
        assert relative(Resize((7, 6), (7, 6), kernel=kernel, dtype=torch.float64)(x), x) < EXACT


def test_without_antialiasing_the_kernel_is_not_widened():
    x = randn(1, 9)
    y = Resize((1, 9), (1, 3), antialias=False, dtype=torch.float64)(x)
    assert relative(y, x[:, 1::3]) < EXACT  # centres coincide: the cubic is 1 there and 0 at whole distances


def matrix_of(operator) -> Tensor:
    n = math.prod(operator.in_shape)
    return operator(torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)).reshape(n, -1).mT


@pytest.mark.parametrize(
    "build",
    [
        lambda: Resize((8, 6), (4, 3), dtype=torch.float64),
        lambda: Resize((5, 4), (7, 9), dtype=torch.float64),
        lambda: Downsample(2, (8, 6), dtype=torch.float64),
        lambda: Downsample(2, (8, 6), "bicubic", dtype=torch.float64),
        lambda: Downsample(2, (7, 6), gaussian_kernel(0.7, 3), padding="zero", dtype=torch.float64),
    ],
)
def test_svd_and_pinv_against_dense(build):
    operator = build()
    matrix, svd = matrix_of(operator), operator.svd
    exact = torch.linalg.svdvals(matrix)
    own = svd.s.expand(svd.Vh(randn(*operator.in_shape)).shape).flatten().sort(descending=True).values
    assert torch.allclose(own, exact, atol=1e-12)
    y = randn(2, *operator.out_shape)
    assert relative(operator.pinv(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(matrix).mT) < 1e-10  # condition 1e2
    c = randn(2, *svd.Vh(randn(*operator.in_shape)).shape)
    assert relative(svd.Vh(svd.V(c)), c) < EXACT and relative(svd.Uh(svd.U(c)), c) < EXACT
    assert abs(operator.norm() - float(exact[0])) < 1e-4 * float(exact[0])


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_box_is_the_mean_of_blocks(factor):
    x = randn(2, 3, 12, 24)
    operator = Downsample(factor, (3, 12, 24), dtype=torch.float64)
    expected = F.avg_pool2d(x, factor)
    assert relative(operator(x), expected) < EXACT and operator.norm() == 1 / factor
    # A A^H = 1 / factor^2, and repeated pixels have the means that were measured.
    assert relative(operator(operator.H(expected)), expected / factor**2) < EXACT
    assert relative(operator(operator.pinv(expected)), expected) < EXACT
    assert relative(operator.pinv(expected), F.interpolate(expected, scale_factor=factor)) < EXACT


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_the_default_phase_makes_a_box_of_ones_the_box(factor):
    x = randn(12, 24)
    kernel = uniform_kernel(factor, dtype=torch.float64)
    blurred = Downsample(factor, (12, 24), kernel, dtype=torch.float64)
    assert relative(blurred(x), Downsample(factor, (12, 24), dtype=torch.float64)(x)) < EXACT


def test_a_kernel_is_blur_and_stride():
    x = randn(2, 11, 9)
    for kernel in (randn(3, 4), randn(3, 1) * randn(4)):
        for padding in ("circular", "reflect", "valid"):
            blurred = Blur(kernel, (11, 9), padding=padding, dtype=torch.float64)(x)
            for phase in (0, 2):
                operator = Downsample(3, (11, 9), kernel, padding=padding, phase=phase, dtype=torch.float64)
                assert relative(operator(x), blurred[:, phase::3, phase::3]) < EXACT
    assert Downsample(3, (11, 9), randn(3, 4)).svd is None and not Downsample(3, (11, 9), randn(3, 4)).has_pinv


def test_to_another_precision_keeps_the_weights_exact():
    # Matrices are made again from their numbers, not converted.
    single = Resize((16, 16), (5, 5))
    assert (
        relative(single.to(torch.float64)(randn(16, 16)), Resize((16, 16), (5, 5), dtype=torch.float64)(randn(16, 16)))
        == 0
    )


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Resize((8,), (4, 4)), ["shape_in", "(8,)"]),
        (lambda: Resize((8, 8), (0, 4)), ["shape_out", "(0, 4)"]),
        (lambda: Resize((3, 8, 8), (3, 4, 4)), ["shape_out", "(3, 4, 4)"]),
        (lambda: Resize((8, 8), (4, 4), kernel="cubic"), ["kernel", "bicubic", "'cubic'"]),
        (lambda: Resize((8, 8), (4, 4), boundary="reflect"), ["boundary", "symmetric", "'reflect'"]),
        (lambda: Resize((8, 8), (4, 4), dtype=torch.float16), ["float16"]),
        (lambda: Downsample(3, (8, 9)), ["factor", "3", "(8, 9)", "Resize"]),
        (lambda: Downsample(0, (8, 8)), ["factor", "0"]),
        (lambda: Downsample(1.5, (6, 6)), ["factor", "1.5", "Resize"]),
        (lambda: Downsample(2, (8, 8), "lanczos"), ["kernel", "box", "'lanczos'"]),
        (lambda: Downsample(2, (8, 8), padding="zero"), ["padding", "omit"]),
        (lambda: Downsample(2, (8, 8), "bicubic", phase=1), ["phase", "omit"]),
        (lambda: Downsample(2, (8, 8), randn(3, 3), phase=2), ["phase", "0 to 1", "2"]),
        (lambda: Downsample(4, (3, 3), randn(3, 3), padding="valid", phase=1), ["phase", "(1, 1)"]),
        (lambda: Downsample(2, (8, 8), randn(9, 9)), ["kernel", "too large"]),
    ],
)
def test_bad_construction_is_one_line(build, words):
    check_one_line(build, *words)
