"""Blur against scipy, analytic Gaussians and itself by another way; its decompositions; bad input."""

import math

import numpy as np
import pytest
import torch
from cases_imaging import PADDINGS, randn
from checks import check_one_line
from torch import Tensor

from inverse.linalg import inner, norm
from inverse.operators.blur import Blur, VaryingBlur
from inverse.operators.convolution import Channels, Spectrum, Taps
from inverse.operators.kernels import gaussian_kernel, shake_kernel
from inverse.operators.separable import RowsAndColumns

EXACT = 1e-12  # double precision, sums of up to a few thousand terms
# scipy.ndimage's "reflect" repeats the border pixel; without the repetition, as torch's "reflect", is its "mirror".
SCIPY = {"circular": "wrap", "zero": "constant", "reflect": "mirror", "replicate": "nearest"}


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def double(kernel: Tensor, shape: tuple[int, ...], **options) -> Blur:
    return Blur(kernel, shape, dtype=torch.float64, **options)


@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize("shape", [(8, 6), (7, 9), (5, 8)])
@pytest.mark.parametrize("size", [(3, 3), (4, 2), (2, 5), (1, 4)])
def test_against_scipy(size, shape, method):
    ndimage, signal = pytest.importorskip("scipy.ndimage"), pytest.importorskip("scipy.signal")
    kernel, x = randn(*size), randn(*shape, seed=1)
    for padding, mode in SCIPY.items():
        expected = torch.from_numpy(ndimage.convolve(x.numpy(), kernel.numpy(), mode=mode))
        assert relative(double(kernel, shape, padding=padding, method=method)(x), expected) < EXACT
    expected = torch.from_numpy(signal.convolve2d(x.numpy(), kernel.numpy(), mode="valid"))
    assert relative(double(kernel, shape, padding="valid", method=method)(x), expected) < EXACT


def test_convolution_not_correlation():
    # A kernel that is 1 one pixel after its anchor moves the image one pixel on.
    kernel = torch.zeros(3, 3, dtype=torch.float64)
    kernel[1, 2] = 1
    x = randn(4, 5)
    assert relative(double(kernel, (4, 5))(x), x.roll(1, -1)) < EXACT


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (5, 5)])
def test_a_single_one_at_the_anchor_is_the_identity(padding, size):
    kernel = torch.zeros(size, dtype=torch.float64)
    kernel[size[0] // 2, size[1] // 2] = 1
    x = randn(2, 7, 6)
    for method in ("fft", "direct"):
        y = double(kernel, (7, 6), padding=padding, method=method)(x)
        before = [n - 1 - n // 2 if padding == "valid" else 0 for n in size]
        expected = x[:, before[0] : before[0] + y.shape[1], before[1] : before[1] + y.shape[2]]
        assert relative(y, expected) < EXACT


@pytest.mark.parametrize("shape", [(48, 48), (47, 49)])
def test_gaussian_of_a_gaussian_adds_variances(shape):
    y, x = (torch.arange(n, dtype=torch.float64) - n // 2 for n in shape)

    def gaussian(variance: float) -> Tensor:
        return torch.exp(-(x**2 + y[:, None] ** 2) / (2 * variance)) / (2 * math.pi * variance)

    kernel = gaussian_kernel(2.0, 33, dtype=torch.float64)
    for padding in PADDINGS[:4]:
        blurred = double(kernel, shape, padding=padding)(gaussian(3.0**2))
        # Sampling at a standard deviation of 2 pixels is exact to exp(-2 pi^2 4); the tail beyond 24 pixels, 6.7
        # standard deviations of the result, and beyond the kernel's 16, is below 1e-8 of the peak.
        assert (blurred - gaussian(2.0**2 + 3.0**2)).abs().max() < 1e-8
    # A variance that is a tenth of a percent wrong would be seen.
    assert (gaussian(13.013) - gaussian(13.0)).abs().max() > 1e-6


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [5, (8, 3)])
def test_all_ways_agree(padding, size):
    kernel = gaussian_kernel((1.0, 1.5), size, dtype=torch.float64)
    x = randn(3, 11, 10)
    ways = {}
    for name, engine in {
        "products": double(kernel, (11, 10), padding=padding)._products,
        "taps": Taps(kernel, (11, 10), padding),
        "channels": Channels(kernel, (11, 10), padding),
        "fft": Spectrum(kernel, (11, 10), padding, torch.float64),
    }.items():
        y = engine.apply(x)
        ways[name] = y, engine.adjoint(y), engine.gram(x)
    for way in ways.values():
        for value, expected in zip(way, ways["fft"], strict=True):
            assert relative(value, expected) < EXACT


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("planes", [3, 16, 40])
def test_batches_in_single_precision(padding, planes):
    # Many planes of a kernel that is not separable go through grouped convolutions.
    kernel = randn(5, 5).float()
    operator = Blur(kernel, (planes, 12, 13), padding=padding)
    x = randn(planes, 12, 13).float()
    expected = double(kernel.double(), (planes, 12, 13), padding=padding, method="fft")
    assert (operator._choose(planes) == "channels") == (planes > 3)
    y = operator(x)
    # Rounding of sums of 25 terms in single precision.
    assert relative(y.double(), expected(x.double())) < 1e-6
    assert relative(operator.H(y).double(), expected.H(y.double())) < 1e-6
    assert relative(operator.gram(x).double(), expected.gram(x.double())) < 1e-6
    z = torch.complex(x, x.flip(-1))
    both = Blur(kernel, (planes, 12, 13), padding=padding, dtype=torch.complex64)(z)
    assert relative(both.real, y) < 1e-6


def test_the_cheapest_way_is_chosen():
    def way(kernel: Tensor, planes: int = 1, **options) -> type:
        operator = Blur(kernel, (planes, 256, 256), **options)
        return type(operator._convolution(torch.empty(planes, 256, 256)))

    small, long = torch.rand(3, 3), shake_kernel(31, torch.Generator().manual_seed(0))
    assert way(small) is Taps and way(long) is Spectrum and way(long, 16) is Spectrum
    assert way(torch.rand(9, 9), 16) is Channels and way(torch.rand(9, 9)) is Spectrum
    assert way(gaussian_kernel(2.0), padding="reflect") is RowsAndColumns
    assert way(gaussian_kernel(8.0), padding="circular") is Spectrum
    assert way(gaussian_kernel(8.0), method="direct") is RowsAndColumns and way(small, method="fft") is Spectrum


def test_large_batches_are_worked_on_in_pieces(monkeypatch):
    from inverse.operators import separable

    for kernel in (randn(3, 3), randn(3, 1) * randn(3), randn(7, 8)):
        operator = double(kernel, (9, 8), padding="reflect")
        x = randn(2, 5, 9, 8)
        whole = operator(x), operator.H(x), operator.gram(x)
        with monkeypatch.context() as patch:
            patch.setattr(separable, "PIECE", 2 * 72)
            parts = operator(x), operator.H(x), operator.gram(x)
        for a, b in zip(parts, whole, strict=True):
            assert a.shape == b.shape and relative(a, b) < EXACT


def test_one_kernel_for_each_channel_or_item():
    kernels, x = randn(2, 3, 4), randn(5, 2, 8, 7)
    for padding in PADDINGS:
        y = double(kernels, (2, 8, 7), padding=padding)(x)
        for i in range(2):
            assert relative(y[:, i], double(kernels[i], (8, 7), padding=padding)(x[:, i])) < EXACT
    shared = double(kernels[:, None], (2, 3, 8, 7))(randn(2, 3, 8, 7, seed=2))
    assert relative(shared[1, 2], double(kernels[1], (8, 7))(randn(2, 3, 8, 7, seed=2)[1, 2])) < EXACT


def test_kernels_of_any_kind_of_memory():
    kernel, x = randn(5, 4), randn(8, 7)
    expected = double(kernel, (8, 7))(x)
    for same in (kernel.T.contiguous().T, torch.stack([kernel, kernel], -1)[..., 0], kernel.clone().requires_grad_()):
        for method in ("fft", "direct"):
            y = double(same, (8, 7), method=method)(x)
            assert relative(y, expected) < EXACT and not y.requires_grad


def test_complex_images_are_blurred_part_by_part():
    z = randn(8, 7, dtype=torch.complex128)
    for method in ("fft", "direct"):
        for kernel in (randn(3, 4), randn(3, 1) * randn(4)):
            operator = Blur(kernel, (8, 7), padding="reflect", method=method, dtype=torch.complex128)
            real = double(kernel, (8, 7), padding="reflect", method=method)
            assert relative(operator(z), torch.complex(real(z.real), real(z.imag))) < EXACT


@pytest.mark.parametrize("shape", [(6, 8), (7, 5), (4, 9), (1, 6)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_svd_of_circular_blur(shape, dtype):
    operator = Blur(randn(min(3, shape[0]), 4), shape, dtype=dtype)
    svd = operator.svd
    n = math.prod(shape)
    units = torch.eye(n, dtype=dtype).reshape(n, *shape)
    matrix = operator(units).reshape(n, n).mT
    assert svd.s.shape == shape and svd.s.dtype == torch.float64 and bool((svd.s >= 0).all())
    exact = torch.linalg.svdvals(matrix)
    assert torch.allclose(svd.s.flatten().sort(descending=True).values, exact, atol=1e-12)
    for function in (svd.U, svd.V):  # unitary, with coefficients as real as the image
        columns = function(units).reshape(n, n)
        assert columns.dtype == dtype and relative(columns @ columns.mH, torch.eye(n, dtype=dtype)) < EXACT
    assert abs(operator.norm() - float(exact[0])) < EXACT * float(exact[0])


def test_svd_survives_zeros_of_the_transfer_function():
    # The mean over two pixels has no Nyquist frequency; in single precision its phase is pure rounding.
    operator = Blur(torch.full((2, 2), 0.25), (8, 6))
    svd = operator.svd
    c = randn(3, 8, 6).float()
    assert svd.s.min() < 1e-7 and relative(svd.Uh(svd.U(c)), c) < 1e-6 and relative(svd.Vh(svd.V(c)), c) < 1e-6
    x = randn(8, 6).float()
    assert relative(svd.U(svd.s * svd.Vh(x)), operator(x)) < 1e-6


def test_svd_of_other_paddings_only_where_separable():
    operator = double(randn(3, 1) * randn(4), (6, 5), padding="reflect")
    exact = torch.linalg.svdvals(operator(torch.eye(30, dtype=torch.float64).reshape(30, 6, 5)).reshape(30, 30))
    assert torch.allclose(operator.svd.s.flatten().sort(descending=True).values, exact, atol=1e-12)
    assert double(randn(3, 4), (6, 5), padding="reflect").svd is None


def test_rank_one_is_seen_in_either_precision():
    assert Blur(gaussian_kernel((2.0, 3.0)), (32, 32)).lines is not None
    assert Blur(gaussian_kernel((2.0, 3.0), angle=0.3), (32, 32)).lines is None
    spoiled = gaussian_kernel(2.0, dtype=torch.float64)
    spoiled[0, 0] += 1e-9
    assert double(spoiled, (32, 32)).lines is None
    # A kernel rounded to single precision stays separable in double precision, and all ways take the same one.
    x = randn(32, 32)
    for operator in (double(gaussian_kernel(2.0), (32, 32)), Blur(gaussian_kernel(2.0), (32, 32)).to(torch.float64)):
        svd = operator.svd
        assert operator.lines is not None and relative(svd.U(svd.s * svd.Vh(x)), operator(x)) < EXACT
        assert relative(operator._build("products").apply(x[None]), operator._build("fft").apply(x[None])) < EXACT


def test_varying_blur_is_the_blend():
    kernels, weights, x = randn(3, 3, 4), randn(3, 8, 7, seed=1), randn(2, 8, 7, seed=2)
    for padding in PADDINGS:
        operator = VaryingBlur(kernels, weights, (8, 7), padding=padding, dtype=torch.float64)
        expected = sum(double(k, (8, 7), padding=padding)(w * x) for k, w in zip(kernels, weights, strict=True))
        assert relative(operator(x), expected) < EXACT
    # A pixel is spread by its own kernel: weights of 0 and 1 choose it.
    weights = torch.zeros(2, 9, 9, dtype=torch.float64)
    weights[0, :, :5], weights[1, :, 5:] = 1, 1
    operator = VaryingBlur(kernels[:2], weights, (9, 9), padding="zero", dtype=torch.float64)
    point = torch.zeros(9, 9, dtype=torch.float64)
    point[4, 6] = 1
    assert relative(operator(point), double(kernels[1], (9, 9), padding="zero")(point)) < EXACT


def test_inner_products_match_in_single_precision():
    # At the size of real images; the sum of 65536 products of rounded values.
    for padding in PADDINGS:
        operator = Blur(gaussian_kernel(3.0), (256, 256), padding=padding)
        x, y = randn(*operator.in_shape).float(), randn(*operator.out_shape, seed=1).float()
        ax, hy = operator(x), operator.H(y)
        assert abs(float(inner(ax, y, 0) - inner(x, hy, 0))) < 1e-6 * float(norm(ax, 0) * norm(y, 0))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Blur(np.ones((3, 3)), (8, 8)), ["kernel", "torch.Tensor"]),
        (lambda: Blur(randn(3, 3, dtype=torch.complex128), (8, 8)), ["kernel", "real"]),
        (lambda: Blur(randn(3, 3) * math.nan, (8, 8)), ["kernel", "NaN"]),
        (lambda: Blur(torch.zeros(3, 3), (8, 8)), ["kernel", "other than 0"]),
        (lambda: Blur(randn(3), (8, 8)), ["kernel", "(ky, kx)"]),
        (lambda: Blur(torch.ones(0, 3), (8, 8)), ["kernel", "(ky, kx)"]),
        (lambda: Blur(randn(3, 3), (8, 8), padding="mirror"), ["padding", "reflect", "'mirror'"]),
        (lambda: Blur(randn(3, 3), (8, 8), method="conv"), ["method", "auto", "'conv'"]),
        (lambda: Blur(randn(2, 3, 3), (2, 8, 8), method="direct"), ["method", "stack"]),
        (lambda: Blur(randn(2, 3, 3), (3, 8, 8)), ["kernel", "broadcast", "(2,)"]),
        (lambda: Blur(randn(1, 3, 3), (8, 8)), ["kernel", "broadcast", "(1,)"]),
        (lambda: Blur(randn(9, 3), (8, 8)), ["kernel", "(9, 3)", "too large"]),
        (lambda: Blur(randn(9, 3), (8, 8), padding="valid"), ["kernel", "too large"]),
        (lambda: Blur(randn(3, 16), (8, 8), padding="reflect"), ["kernel", "(15, 15)"]),
        (lambda: Blur(randn(3, 3), (8,)), ["Blur", "(8,)"]),
        (lambda: Blur(randn(3, 3), (0, 8)), ["Blur", "(0, 8)"]),
        (lambda: Blur(randn(3, 3), (8, 8), dtype=torch.float16), ["Blur", "float16"]),
        (lambda: Blur(randn(3, 3), (8, 8), dtype=torch.int64), ["Blur", "int64"]),
        (lambda: VaryingBlur(randn(2, 3, 3), randn(3, 8, 8), (8, 8)), ["weights", "(3, 8, 8)"]),
        (lambda: VaryingBlur(randn(3, 3), randn(1, 8, 8), (8, 8)), ["kernels", "(3, 3)"]),
        (lambda: VaryingBlur(randn(2, 3, 3), randn(2, 8, 8) * math.inf, (8, 8)), ["weights", "NaN or Inf"]),
        (lambda: VaryingBlur(randn(2, 9, 9), randn(2, 8, 8), (8, 8)), ["kernel", "too large"]),
        (lambda: double(randn(3, 3), (8, 8)).matrices(), ["product of two lines"]),
    ],
)
def test_bad_construction_is_one_line(build, words):
    check_one_line(build, *words)
