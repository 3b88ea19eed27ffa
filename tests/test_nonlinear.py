"""Phase retrieval, saturation and quantisation: values, gradients, and that they have no adjoint."""

import io
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases_imaging import randn
from checks import check_one_line
from torch import Tensor

from inverse.linalg import norm
from inverse.operators.blur import Blur
from inverse.operators.nonlinear import FourierMagnitude, Quantisation, Saturation, standard_table
from inverse.testing import check_operator

EXACT = 1e-12  # double precision, sums of up to a few hundred terms

OPERATORS = {
    "magnitude": lambda: FourierMagnitude((5, 6), dtype=torch.complex128),
    "magnitude odd": lambda: FourierMagnitude((2, 5, 7), oversampling=1.5, dtype=torch.complex128),
    "magnitude of real images": lambda: FourierMagnitude((4, 4), oversampling=1, dtype=torch.float64),
    "magnitude with masks": lambda: FourierMagnitude(
        (2, 4, 5), masks=randn(3, 4, 5, dtype=torch.complex128), dtype=torch.complex128
    ),
    "magnitude one pixel": lambda: FourierMagnitude((1, 1), dtype=torch.complex128),
    "saturation": lambda: Saturation((3, 4), low=-0.5, high=0.5, dtype=torch.float64),
    "saturation soft": lambda: Saturation((2, 3, 4), softness=0.1, dtype=torch.float64),
    "quantisation": lambda: Quantisation((16, 8), dtype=torch.float64),
    "quantisation odd": lambda: Quantisation((2, 9, 5), quality=20, dtype=torch.float64),
    "quantisation one pixel": lambda: Quantisation((1, 1), dtype=torch.float64),
}


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


@pytest.mark.parametrize("name", OPERATORS)
def test_contract(name):
    operator = OPERATORS[name]()
    assert not operator.linear and check_operator(operator).errors["batch"] < EXACT
    for part in ("H", "gram", "pinv", "norm"):

        def use(part: str = part) -> object:
            value = getattr(operator, part)
            return value() if part == "norm" else value(randn(*operator.in_shape))

        check_one_line(use, type(operator).__name__, "nonlinear")
    x = randn(*operator.in_shape, dtype=operator.in_dtype)
    assert torch.equal(pickle.loads(pickle.dumps(operator))(x), operator(x))
    single = operator.to(torch.float32)
    low = x.to(single.in_dtype)
    # Rounding of single precision; a step of the quantisation may fall to the other side.
    assert relative(single(low).double(), operator(x)) < (0.1 if "quantisation" in name else 1e-6)
    check_one_line(lambda: operator(x[..., :0]), "expected")


@pytest.mark.parametrize("name", [name for name in OPERATORS if "quantisation" not in name])
def test_gradient_against_differences(name):
    operator = OPERATORS[name]()
    x, v = (randn(*operator.in_shape, dtype=operator.in_dtype, seed=seed) for seed in (0, 1))
    u = randn(*operator.out_shape, seed=2)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(operator(x), x, u)
    step = 1e-6
    with torch.no_grad():
        slope = ((operator(x + step * v) - operator(x - step * v)) * u).sum() / (2 * step)
    exact = (torch.view_as_real(gradient) * torch.view_as_real(v)).sum() if x.is_complex() else (gradient * v).sum()
    # Central differences: rounding 1e-16 / 1e-6 and curvature 1e-12, times the size of the values.
    assert abs(float(slope - exact)) < 1e-7 * float(norm(u, 0) * norm(v, 0))


def test_magnitude_is_that_of_the_centred_padded_transform():
    x = randn(5, 6, dtype=torch.complex128)
    padded = F.pad(x, (3, 3, 2, 3))  # in the middle: pixel n // 2 stays pixel N // 2
    shifted = torch.fft.fft2(torch.fft.ifftshift(padded), norm="ortho")
    assert relative(FourierMagnitude((5, 6), dtype=torch.complex128)(x), torch.fft.fftshift(shifted).abs()) < EXACT
    # Orthonormal: the energy is that of the image.
    assert abs(float(norm(FourierMagnitude((5, 6), dtype=torch.complex128)(x), 0) / norm(x, 0)) - 1) < EXACT
    real = FourierMagnitude((5, 6), dtype=torch.float64)
    assert relative(real(x.real.clone()), FourierMagnitude((5, 6), dtype=torch.complex128)(x.real + 0j)) < EXACT


def test_magnitude_has_the_known_ambiguities():
    operator = FourierMagnitude((6, 6), dtype=torch.complex128)
    x = randn(6, 6, dtype=torch.complex128)
    x[0], x[:, 0] = 0, 0
    y = operator(x)
    assert relative(operator(x * np.exp(0.7j)), y) < EXACT
    assert relative(operator(x.roll((-1, -1), (0, 1))), y) < EXACT
    assert relative(operator(x.flip(0, 1).conj().resolve_conj()), y) < EXACT


def test_magnitude_has_a_finite_gradient_at_zero():
    for shape in ((4, 4), (1, 1)):
        operator = FourierMagnitude(shape, dtype=torch.complex128)
        x = torch.zeros(shape, dtype=torch.complex128, requires_grad=True)
        (gradient,) = torch.autograd.grad(operator(x).sum(), x, create_graph=True)
        assert torch.equal(gradient, torch.zeros_like(gradient))
        (second,) = torch.autograd.grad(gradient.real.sum(), x)
        assert bool(torch.isfinite(torch.view_as_real(second)).all())


def test_masks_multiply_the_image():
    masks, x = randn(3, 4, 5, dtype=torch.complex128), randn(2, 4, 5, dtype=torch.complex128, seed=1)
    operator = FourierMagnitude((4, 5), masks=masks, dtype=torch.complex128)
    plain = FourierMagnitude((4, 5), dtype=torch.complex128)
    assert operator.out_shape == (3, 8, 10)
    assert relative(operator(x)[1, 2], plain(masks[2] * x[1])) < EXACT
    real = FourierMagnitude((4, 5), masks=masks.real, dtype=torch.float64)
    both = FourierMagnitude((4, 5), masks=masks, dtype=torch.float64)
    assert relative(both(x.real)[1], operator(x.real + 0j)[1]) < EXACT
    assert (
        real.out_dtype == torch.float64 and relative(real(x.real)[0, 1], plain(masks[1].real * x.real[0] + 0j)) < EXACT
    )


def test_saturation_is_the_clip_and_its_soft_limit():
    x = torch.linspace(-1, 2, 31, dtype=torch.float64).reshape(1, 31)
    hard = Saturation((1, 31), dtype=torch.float64)
    assert torch.equal(hard(x), x.clip(0, 1))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(hard(x).sum(), x)
    inside = (x > 0.01) & (x < 0.99)
    assert bool((gradient[inside] == 1).all()) and bool((gradient[(x < -0.01) | (x > 1.01)] == 0).all())
    for softness in (0.1, 0.01):
        soft = Saturation((1, 31), softness=softness, dtype=torch.float64)
        # The largest difference is at the knee: s log 2.
        assert abs(float((soft(x) - hard(x)).detach().abs().max()) - softness * math.log(2)) < 1e-4 * softness
        (gradient,) = torch.autograd.grad(soft(x).sum(), x)
        near = (x > -3 * softness) & (x < 1 + 3 * softness)
        assert bool((gradient[near] > 0.04).all()) and bool((gradient <= 1).all())  # 1 / (1 + e^3) = 0.047
    # Far out in single precision: no overflow.
    far = Saturation((1, 2), softness=1e-3)(torch.tensor([[-1e6, 1e6]]))
    assert torch.allclose(far, torch.tensor([[0.0, 1.0]]), atol=1e-6)


def test_saturation_after_a_blur():
    blur = Blur(torch.full((3, 3), 1 / 9, dtype=torch.float64), (6, 6), dtype=torch.float64)
    chain = Saturation((6, 6), high=0.2, dtype=torch.float64) @ blur
    x = randn(6, 6)
    assert not chain.linear and torch.equal(chain(x), blur(x).clip(0, 0.2))


def test_tables_are_those_of_libjpeg():
    image = pytest.importorskip("PIL.Image")
    for quality in (5, 10, 30, 49, 50, 51, 75, 90, 95, 100):
        buffer = io.BytesIO()
        image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        table = torch.tensor(image.open(buffer).quantization[0]).reshape(8, 8)
        assert torch.equal(standard_table(quality), table.double())


@pytest.mark.parametrize("shape", [(64, 48), (61, 45)])
def test_quantisation_is_a_jpeg_file(shape):
    image = pytest.importorskip("PIL.Image")
    levels = 1.5 * torch.arange(shape[1]) + torch.arange(shape[0])[:, None] + 10 * (randn(*shape) + 3)
    pixels = levels.clamp(60, 190).byte()  # away from 0 and 255, where a file is cut
    for quality in (10, 20, 60):
        buffer = io.BytesIO()
        image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=quality)
        decoded = torch.from_numpy(np.array(image.open(buffer))).double()
        ours = 255 * Quantisation(shape, quality=quality, dtype=torch.float64)(pixels.double() / 255)
        difference = F.pad((ours - decoded).abs(), (0, -shape[1] % 8, 0, -shape[0] % 8))
        # A file holds whole levels and is decoded in integers: right to one level. Where a coefficient is in the middle
        # between two steps the integers may go the other way, and with it the block.
        worst = F.max_pool2d(difference[None], 8)
        assert float((worst < 1.01).double().mean()) > 0.85


def test_quantisation_rounds_to_the_table_and_passes_gradients():
    operator = Quantisation((8, 8), table=torch.full((8, 8), 40.0), dtype=torch.float64)
    once = operator(0.3 * randn(8, 8) + 0.5)
    assert relative(operator(once), once) < EXACT  # multiples of the steps stay
    flat = torch.full((8, 8), 128 / 255, dtype=torch.float64)
    # A constant c has the first coefficient 8 c, here a multiple of 40: levels are multiples of 5.
    assert relative(operator(flat + 12 / 255), flat + 10 / 255) < EXACT
    x = randn(2, 11, 9).requires_grad_()
    v = randn(2, 11, 9, seed=1)
    (gradient,) = torch.autograd.grad(Quantisation((11, 9), dtype=torch.float64)(x), x, v)
    assert relative(gradient, v) < EXACT
    fine = Quantisation((8, 8), table=torch.full((8, 8), 1e-9, dtype=torch.float64), dtype=torch.float64)
    x = randn(8, 8)
    assert relative(fine(x), x) < 1e-9  # half a step


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FourierMagnitude((4,)), ["FourierMagnitude", "(4,)"]),
        (lambda: FourierMagnitude((4, 4), oversampling=0.5), ["oversampling", "0.5"]),
        (lambda: FourierMagnitude((4, 4), oversampling=math.nan), ["oversampling", "nan"]),
        (lambda: FourierMagnitude((4, 4), masks=torch.ones(4, 4)), ["masks", "(4, 4)"]),
        (lambda: FourierMagnitude((4, 4), masks=torch.ones(2, 4, 5)), ["masks", "(2, 4, 5)"]),
        (lambda: FourierMagnitude((4, 4), masks=torch.ones(2, 4, 4) * math.nan), ["masks", "NaN"]),
        (lambda: Saturation((4, 4), low=1.0, high=1.0), ["low", "1.0"]),
        (lambda: Saturation((4, 4), high=math.inf), ["high", "inf"]),
        (lambda: Saturation((4, 4), softness=-1), ["softness", "-1"]),
        (lambda: Saturation((4, 4), dtype=torch.complex64), ["Saturation", "real"]),
        (lambda: Quantisation((4, 4), quality=0), ["quality", "0"]),
        (lambda: Quantisation((4, 4), quality=math.nan), ["quality", "nan"]),
        (lambda: Quantisation((4, 4), quality=50, table=torch.ones(8, 8)), ["quality", "one of them"]),
        (lambda: Quantisation((4, 4), table=torch.ones(4, 4)), ["table", "(4, 4)"]),
        (lambda: Quantisation((4, 4), table=torch.zeros(8, 8)), ["table", "positive"]),
        (lambda: Quantisation((4, 4), peak=0), ["peak"]),
        (lambda: Quantisation((4, 4), dtype=torch.complex64), ["Quantisation", "real"]),
        (lambda: Quantisation((4, 4), dtype=torch.float16), ["Quantisation", "float16"]),
    ],
)
def test_bad_construction_is_one_line(build, words):
    check_one_line(build, *words)
