"""Non-Cartesian MRI against dense transforms, the Cartesian operators, formulas and finufft."""

import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases_nufft import anywhere
from operator_cases import randn
from torch import Tensor

from inverse.data.phantom import Ellipse, EllipsePhantom, shepp_logan
from inverse.data.simulate import simulate_maps
from inverse.data.trajectories import cartesian, golden_means, radial, spiral
from inverse.errors import InputError
from inverse.linalg import cg, norm
from inverse.operators import Fourier, MultiCoilMRI, gridding, toeplitz
from inverse.operators.density import density_compensation, radial_density
from inverse.operators.gridding import Gridding
from inverse.operators.noncartesian import NonCartesianMRI
from inverse.operators.nufft import NUFFT, accuracy_for
from inverse.operators.plans import Plans
from inverse.testing import check_operator

# Double precision, kernels of 16 taps: 1e-14 and the rounding of sums of up to a thousand terms.
EXACT = 1e-12


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a.to(b.dtype) - b, 0) / norm(b, 0))


def matrix(trajectory: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The definition written out: (samples, pixels)."""
    grid = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in shape), indexing="ij")
    r = torch.stack([g.flatten() for g in grid])
    angle = -(trajectory.reshape(-1, len(shape)) @ r)
    return torch.polar(torch.ones_like(angle), angle) / math.sqrt(r.shape[1])


def dense(operator: NUFFT) -> Tensor:
    n = math.prod(operator.in_shape)
    units = torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)
    return operator(units).reshape(n, -1).mT


@pytest.mark.parametrize("shape", [(12, 17), (9, 10), (1, 5), (4, 5, 6)])
@pytest.mark.parametrize("accuracy", [1e-2, 1e-3, 1e-5, 1e-8, 1e-11, 1e-13])
def test_the_accuracy_is_what_it_says(monkeypatch, shape, accuracy):
    without_finufft(monkeypatch)
    trajectory = anywhere(200, axes=len(shape))
    operator = NUFFT(trajectory, shape, accuracy=accuracy, dtype=torch.complex128)
    exact = matrix(trajectory, shape)
    error = torch.linalg.matrix_norm(dense(operator) - exact, 2) / torch.linalg.matrix_norm(exact, 2)
    # Any image, hence the spectral norm; and not far better than asked for, which would be paid for in time.
    assert accuracy / 3000 < error < accuracy if min(shape) > 1 else error < accuracy
    # The adjoint is the transpose of what A really is, not of what it approximates.
    y = randn(200, seed=2)
    assert relative(operator.H(y).flatten(), dense(operator).mH @ y) < EXACT


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (9, 8), (1, 5), (1, 1), (3, 4, 5)])
def test_on_the_grid_it_is_the_centred_fourier_transform(shape):
    x = randn(2, *shape)
    fourier = Fourier(shape, dims=len(shape), dtype=torch.complex128)
    assert relative(NUFFT(cartesian(shape), shape, dtype=torch.complex128)(x), fourier(x)) < EXACT
    maps = randn(3, *shape)
    full = MultiCoilMRI(maps, torch.ones(shape))
    operator = NonCartesianMRI(maps, cartesian(shape))
    assert relative(operator(x), full(x)) < EXACT and relative(operator.gram(x), full.gram(x)) < EXACT
    # What is periodic may be read at either end.
    ends = NUFFT(torch.tensor([[math.pi] * len(shape), [-math.pi] * len(shape)]), shape, dtype=torch.complex128)(x)
    assert relative(ends[:, 0], ends[:, 1]) < 1e-6  # pi of float32


def test_single_precision_does_not_lose_digits_with_the_size():
    # Positions in float32 would cost size times 1e-7: 2e-5 here.
    trajectory, shape = anywhere(500), (400, 300)
    x, y = randn(*shape), randn(500)
    exact = NUFFT(trajectory, shape, dtype=torch.complex128)
    single = exact.to(torch.complex64)
    assert relative(single(x.to(torch.complex64)), exact(x)) < 2e-6
    assert relative(single.H(y.to(torch.complex64)), exact.H(y)) < 2e-6
    assert relative(single.gram(x.to(torch.complex64)), exact.gram(x)) < 2e-6
    assert single.trajectory.dtype == torch.float64 and torch.equal(single.to(torch.float64)(x), exact(x))


def test_gram_does_not_depend_on_the_accuracy():
    trajectory, x = radial(9, 20), randn(10, 11)
    exact = NUFFT(trajectory, (10, 11), dtype=torch.complex128)
    coarse = NUFFT(trajectory, (10, 11), accuracy=1e-2, dtype=torch.complex128)
    assert torch.equal(coarse.gram(x), exact.gram(x))
    error = relative(coarse.H(coarse(x)), exact.gram(x))
    assert 1e-4 < error < 2e-2  # what two coarse transforms differ from one convolution


def test_gram_is_hermitian_and_not_negative():
    # More pixels than samples: eigenvalues of 0, which an inexact kernel would push below.
    operator = NonCartesianMRI(randn(1, 12, 12), radial(3, 24)).to(torch.float32)
    gram = torch.stack([operator.gram(u).flatten() for u in torch.eye(144, dtype=torch.complex64).view(-1, 12, 12)])
    assert relative(gram, gram.mH) < 1e-6  # float32
    smallest, largest = torch.linalg.eigvalsh(gram)[[0, -1]]
    assert smallest > -1e-6 * largest


def without_finufft(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)


def test_without_finufft_large_matrices_are_made_in_parts(monkeypatch):
    without_finufft(monkeypatch)
    trajectory, x, y = anywhere(50, axes=3), randn(4, 3, 4, 5), randn(4, 50)
    exact = matrix(trajectory, (3, 4, 5))
    for limit, kept in ((2**28, True), (200_000, False)):  # three samples of 4096 values
        monkeypatch.setattr(gridding, "_MATRIX_BYTES", limit)
        for group in (2**30, 1):  # all transforms together, or one at a time
            monkeypatch.setattr(gridding, "_GRID_BYTES_LARGE", group)
            operator = NUFFT(trajectory, (3, 4, 5), dtype=torch.complex128)
            assert isinstance(operator._transform, Gridding) and operator._transform._stored == kept
            assert relative(operator(x), x.flatten(1) @ exact.mT) < EXACT
            assert relative(operator.H(y).flatten(1), y @ exact.conj()) < EXACT
            assert relative(operator.gram(x), operator.H(operator(x))) < EXACT


@pytest.mark.parametrize("precision", ["double", "single", "single, coarse"])
def test_with_finufft_volumes_and_large_matrices_are_planned(monkeypatch, precision):
    pytest.importorskip("finufft")
    accuracy, bound = {"double": (1e-14, EXACT), "single": (1e-6, 2e-6), "single, coarse": (1e-3, 2e-3)}[precision]
    dtype = torch.complex128 if precision == "double" else torch.complex64
    monkeypatch.setattr(gridding, "_MATRIX_BYTES", 0)
    for shape in ((9, 8, 7), (20, 21)):
        trajectory, x = anywhere(60, axes=len(shape)), randn(5, *shape, dtype=dtype)  # fewer than half the pixels
        operator = NUFFT(trajectory, shape, accuracy=accuracy, dtype=dtype)
        assert isinstance(operator._transform, Plans)
        exact = matrix(trajectory, shape)
        # All together, two and two and one, and an empty batch; plans are kept.
        for count in (100, 2):
            operator._transform._count = count
            assert relative(operator(x).to(torch.complex128), x.flatten(1).to(torch.complex128) @ exact.mT) < bound
        assert operator(x[:0]).shape == (0, 60) and len(operator._transform._plans) == 3
        check_operator(operator, tolerance=max(2 * bound, 1e-5) if dtype == torch.complex64 else None)
        assert len(operator._transform._plans) <= 4
        # A convolution but for volumes of few samples in single precision.
        assert operator._convolution_pays == (precision != "single, coarse" or len(shape) == 2)
        maps = randn(2, *shape, dtype=dtype)
        several = NonCartesianMRI(maps, trajectory, accuracy=accuracy)
        assert relative(several.gram(x[0]), several.H(several(x[0]))) < max(2 * bound, 1e-5 if bound > EXACT else 0)
        # Coarse or not, the adjoint is the transpose: to float32 and the square root of the number of terms.
        y = randn(60, dtype=dtype)
        difference = torch.vdot(operator(x[0]), y) - torch.vdot(x[0].flatten(), operator.H(y).flatten())
        assert abs(complex(difference)) < 1e-6 * float(norm(operator(x[0]), 0) * norm(y, 0))


@pytest.mark.parametrize("shape", [(12, 13), (6, 7, 8)])
def test_threads_of_the_caller_do_not_meet(shape):
    operator = NUFFT(anywhere(40, axes=len(shape)), shape, dtype=torch.complex128)
    x = randn(16, *shape)
    with ThreadPoolExecutor(4) as pool:
        found = torch.stack(list(pool.map(operator, x)))
    assert relative(found, operator(x)) < EXACT


def test_products_for_devices_without_sparse_matrices(monkeypatch):
    trajectory, x, y = anywhere(30), randn(3, 7, 6), randn(3, 30)
    operator = NUFFT(trajectory, (7, 6), dtype=torch.complex128)
    expected = operator(x), operator.H(y)
    monkeypatch.setattr(gridding, "_product", gridding.gathered_product)
    monkeypatch.setattr(gridding, "_transposed_product", gridding.scattered_product)
    monkeypatch.setattr(gridding, "_GATHER_BYTES", 40_000)  # several parts
    assert relative(operator(x), expected[0]) < EXACT and relative(operator.H(y), expected[1]) < EXACT


@pytest.mark.gpu
def test_on_a_gpu():
    operator = NonCartesianMRI(randn(3, 12, 13), radial(7, 24))
    x, y = randn(2, 12, 13), randn(2, 3, 7, 24)
    moved = operator.to("cuda")
    assert relative(moved(x.cuda()).cpu(), operator(x)) < EXACT
    assert relative(moved.H(y.cuda()).cpu(), operator.H(y)) < EXACT
    assert relative(moved.gram(x.cuda()).cpu(), operator.gram(x)) < EXACT
    check_operator(moved)


@pytest.mark.parametrize("group", [1, 3, 100])
def test_coils_in_groups_give_the_same(monkeypatch, group):
    maps, x = randn(5, 8, 7), randn(2, 8, 7)
    expected = MultiCoilMRI(maps, torch.ones(8, 7)).gram(x)
    for limit in ("_GRID_BYTES", "_GRID_BYTES_LARGE"):  # one thread or several
        monkeypatch.setattr(toeplitz, limit, group * 16 * 14 * 16)
    operator = NonCartesianMRI(maps, cartesian((8, 7)))
    assert relative(operator.gram(x), expected) < EXACT
    assert operator._nufft._toeplitz.group() == group


# torch's own forward mode loads code that it calls deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_gradients_to_second_order():
    operator = NonCartesianMRI(randn(2, 3, 2), anywhere(4))
    x = randn(2, 3, 2, seed=3).requires_grad_()
    for function in (operator, lambda x: operator.H(operator(x).abs().square() + 0j), operator.gram):
        assert torch.autograd.gradcheck(function, (x,), check_forward_ad=True, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (x,), fast_mode=True)
    mapped = torch.func.vmap(operator)(x.detach())
    assert relative(mapped, operator(x.detach())) < EXACT


def test_calls_do_not_see_conjugate_or_strided_views():
    operator = NonCartesianMRI(randn(2, 6, 6), radial(3, 12))
    x, y = randn(6, 6), randn(2, 3, 12)
    for view in (x.conj(), x.mT, x.conj().mT):
        for function in (operator, operator.gram):
            assert relative(function(view), function(view.clone().resolve_conj().contiguous())) < EXACT
    assert relative(operator.H(y.conj()), operator.H(y.conj().resolve_conj())) < EXACT


def test_accuracy_from_the_noise():
    y = torch.full((4,), 3 + 3j, dtype=torch.complex64)  # rms of real and imaginary parts: 3
    assert accuracy_for(0.3, y) == pytest.approx(0.01) and accuracy_for(0.003, 3.0) == pytest.approx(1e-4)
    assert accuracy_for(0, y) == 1e-6 and accuracy_for(10, y) == 1e-2  # both ends
    operator = NonCartesianMRI(randn(2, 6, 6), radial(3, 12), accuracy=accuracy_for(0.003, 3.0))
    assert "accuracy 0.0001" in repr(operator) and operator.accuracy == pytest.approx(1e-4)
    assert NUFFT(radial(3, 12), (6, 6), accuracy=1e-9).accuracy == 1e-6  # what float32 can do
    # The promise: the error of A is at most a tenth of the noise.
    x = randn(6, 6)
    exact = NonCartesianMRI(operator.maps, operator.trajectory)(x)
    sigma = 1e-3 * float(exact.abs().square().mean().div(2).sqrt())
    chosen = NonCartesianMRI(operator.maps, operator.trajectory, accuracy=accuracy_for(sigma, exact))
    assert float((chosen(x) - exact).abs().square().mean().div(2).sqrt()) < 0.1 * sigma


def test_density_of_the_cartesian_grid_is_one():
    for shape in ((8, 9), (4, 5, 6)):
        # 1e-4: the accuracy of the transforms inside.
        assert float((density_compensation(cartesian(shape), shape) - 1).abs().max()) < 3e-4


def test_density_of_spokes_is_the_ramp():
    trajectory, shape = radial(101, 128, golden=False), (64, 64)
    ramp, found = radial_density(trajectory, shape), density_compensation(trajectory, shape)
    inside = (trajectory.norm(dim=-1) > 0.3) & (trajectory.norm(dim=-1) < 2.2)
    # Away from the centre and from the edge of the disc, where the samples are dense enough: 64 pi / 2 = 101 spokes.
    # 20 iterations leave a ripple of 3 % at the inner end and less than 1 % elsewhere.
    assert float((found / ramp - 1)[inside].abs().max()) < 0.05
    assert float((found / ramp - 1)[inside].abs().mean()) < 0.01
    # All shells together are the disc of radius pi + half a step, but for the end that one side of a spoke lacks.
    assert float(ramp.sum()) == pytest.approx(math.pi / 4 * 64 * 64, rel=1e-3)
    ball = radial_density(golden_means(50, 64), (16, 16, 16))
    assert float(ball.sum()) == pytest.approx(math.pi / 6 * 16**3, rel=2e-3)


@pytest.mark.parametrize("kind", ["radial", "radial with ramp", "spiral", "golden means"])
def test_pinv_has_the_right_units(kind):
    shape = (16, 16, 16) if kind == "golden means" else (32, 32)
    trajectory = {
        "radial": radial(55, 64),
        "radial with ramp": radial(55, 64, golden=False),
        "spiral": spiral(8, 600, turns=4),
        "golden means": golden_means(450, 32),
    }[kind]
    density = radial_density(trajectory, shape) if kind == "radial with ramp" else None
    size = (0.25, 0.3, 0.2)[-len(shape) :]
    image = EllipsePhantom([Ellipse((0.0,) * len(shape), size)]).image(shape, supersample=4)
    operator = NonCartesianMRI(2 * torch.ones(1, *shape, dtype=torch.complex64), trajectory, density=density)
    found = operator.pinv(operator(image))
    middle = found[tuple(slice(n // 2 - 1, n // 2 + 2) for n in shape)]
    # The plateau of the ellipse, 1; the ringing of its edge and the missing corners of k-space stay below 5 %.
    assert float((middle.mean() - 1).abs()) < 0.05
    assert operator.density.shape == trajectory.shape[:-1] and operator.density.dtype == torch.float32


def test_undersampled_radial_scan_is_reconstructed():
    shape = (48, 48)
    image = EllipsePhantom(shepp_logan().ellipses[:4]).image(shape, supersample=4)
    operator = NonCartesianMRI(simulate_maps(shape, 6), radial(26, 96), accuracy=1e-3)  # a third of the spokes
    y = operator(image)
    result = cg(operator.gram, operator.H(y), batch_dims=0, rtol=1e-5, max_iterations=40)
    # Better than what a full set of spokes without coils could do: they never reach the corners of k-space.
    spectrum = Fourier(shape)(image)
    corners = spectrum[cartesian(shape).norm(dim=-1) > math.pi]
    assert relative(result.x, image) < float(norm(corners, 0) / norm(spectrum, 0)) < relative(operator.pinv(y), image)


def test_kspace_by_formula_gives_the_picture():
    shape = (64, 64)
    phantom, trajectory = shepp_logan(), radial(101, 128)
    operator = NonCartesianMRI(torch.ones(1, *shape, dtype=torch.complex64), trajectory)
    found = operator.pinv(phantom.kspace(trajectory, shape)[None])
    # Band-limited against pixel means: only edges differ. Mirrored or turned it would be far off.
    image = phantom.image(shape, supersample=4)
    assert relative(found, image) < 0.25
    assert relative(found.flip(0), image) > 0.5 and relative(found.mT, image) > 0.5


@pytest.mark.parametrize("shape", [(20, 21), (8, 9, 10)])
def test_finufft_agrees(shape):
    finufft = pytest.importorskip("finufft")
    trajectory = anywhere(300, axes=len(shape))
    points = [k.contiguous().numpy() for k in trajectory.unbind(-1)]
    x, y = randn(*shape), randn(300)
    operator = NUFFT(trajectory, shape, dtype=torch.complex128)
    name = "2d" if len(shape) == 2 else "3d"
    scale = math.prod(shape) ** -0.5
    forward = getattr(finufft, f"nufft{name}2")(*points, x.numpy(), isign=-1, eps=1e-13)
    adjoint = getattr(finufft, f"nufft{name}1")(*points, y.numpy(), shape, isign=1, eps=1e-13)
    # Their accuracy and the rounding of both.
    assert relative(operator(x), scale * torch.from_numpy(forward)) < 1e-11
    assert relative(operator.H(y), scale * torch.from_numpy(adjoint)) < 1e-11


def test_what_was_derived_does_not_travel():
    operator = NonCartesianMRI(randn(2, 6, 6), radial(3, 12))
    empty = len(pickle.dumps(operator))
    operator.gram(operator.pinv(operator(randn(6, 6))))
    assert len(pickle.dumps(operator)) == empty


MAPS = randn(2, 6, 6, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NUFFT(radial(3, 12) * 12 / (2 * math.pi), (6, 6)), "2 pi / n"),
        (lambda: NUFFT(radial(3, 12), (4, 6, 6)), r"\(z, y, x\) last"),
        (lambda: NUFFT(golden_means(3, 12), (6, 6)), r"put \(y, x\) last"),
        (lambda: NUFFT(torch.zeros(2), (6, 6)), "samples"),
        (lambda: NUFFT(torch.zeros(0, 2), (6, 6)), "samples"),
        (lambda: NUFFT(radial(3, 12) * math.nan, (6, 6)), "NaN"),
        (lambda: NUFFT(radial(3, 12) + 0j, (6, 6)), "real"),
        (lambda: NUFFT(radial(3, 12).numpy(), (6, 6)), "torch.Tensor"),
        (lambda: NUFFT(radial(3, 12), (6,)), "shape"),
        (lambda: NUFFT(radial(3, 12), (6, 0)), "shape"),
        (lambda: NUFFT(radial(3, 12), (6, 6), dtype=torch.float32), "complex64 or"),
        (lambda: NUFFT(radial(3, 12), (6, 6), accuracy=0.1), "at most 0.01"),
        (lambda: NUFFT(radial(3, 12), (6, 6), accuracy=0), "positive"),
        (lambda: NonCartesianMRI(MAPS.real, radial(3, 12)), "complex"),
        (lambda: NonCartesianMRI(MAPS[0], radial(3, 12)), "coils, y, x"),
        (lambda: NonCartesianMRI(MAPS, golden_means(3, 12)), r"put \(y, x\) last"),
        (lambda: NonCartesianMRI(MAPS, radial(3, 12), density=torch.ones(3, 11)), "density"),
        (lambda: NonCartesianMRI(MAPS, radial(3, 12), density=-torch.ones(3, 12)), "not negative"),
        (lambda: NonCartesianMRI(MAPS, radial(3, 12).to("meta"), density=None), "on cpu like maps"),
        (lambda: accuracy_for(-1, 1.0), "noise"),
        (lambda: accuracy_for(1, torch.zeros(3, dtype=torch.complex64)), "signal"),
        (lambda: accuracy_for(1, torch.zeros(3)), "complex"),
        (lambda: radial_density(anywhere(5), (6, 6)), "axis of spokes"),
        (lambda: density_compensation(anywhere(5), (6, 6, 6)), r"\(z, y, x\) last"),
    ],
)
def test_bad_input_is_one_line(build, message):
    with pytest.raises(InputError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
