"""Every operator against the contract, dense matrices, and the transforms of other libraries."""

import math
import pickle

import numpy as np
import pytest
import torch
from all_cases import ALL
from operator_cases import coin, mri, randn
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg import norm
from inverse.operators import CoilMaps, Fourier, Identity, LinearOperator, MultiCoilMRI, Operator, stack
from inverse.testing import check_operator

EXACT = 1e-12  # double precision, sums of up to a few thousand terms


def centred_fft(x: Tensor) -> Tensor:
    """The reference with all four shifts."""
    shifted = torch.fft.ifftshift(x, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def dense(operator: LinearOperator) -> Tensor:
    """Matrix of an operator, columns the images of unit vectors."""
    n = math.prod(operator.in_shape)
    units = torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)
    return operator(units).reshape(n, -1).mT


@pytest.fixture(params=ALL)
def operator(request) -> LinearOperator:
    return ALL[request.param]()


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_contract(operator, precision):
    report = check_operator(operator.to(precision))
    assert {"batch", "linear", "adjoint", "gradient", "gram"} <= set(report.errors)
    assert not report.skipped and "all checks passed" in str(report)


def test_adjoint_is_the_conjugate_transpose(operator):
    matrix, adjoint = dense(operator), dense(operator.H)
    assert relative(adjoint, matrix.mH) < EXACT


def test_norm_against_dense(operator):
    # The largest singular value to the 1e-4 that norm() promises for its square.
    exact = float(torch.linalg.matrix_norm(dense(operator), 2))
    assert abs(operator.norm() - exact) <= 1e-4 * exact
    assert abs(operator.H.norm() - exact) <= 1e-4 * exact


def test_support_and_measurements(operator):
    matrix = dense(operator)
    complex_ = 2 if operator.out_dtype.is_complex else 1
    if operator.support is not None:
        assert torch.equal(operator.support.flatten(), matrix.abs().sum(0) > EXACT)
    if operator.weights is not None:
        rows = operator.weights.expand(operator.out_shape).flatten() > 0
        assert torch.equal(rows, matrix.abs().sum(1) > EXACT) and operator.measurements == complex_ * int(rows.sum())
    else:
        assert operator.measurements == complex_ * math.prod(operator.out_shape)


def test_to_is_a_copy_in_another_precision(operator):
    single = operator.to(torch.float32)
    assert single.in_dtype == operator.in_dtype.to_real().to_complex() or single.in_dtype.to_real() == torch.float32
    assert operator.in_dtype.to_real() == torch.float64
    x = randn(*operator.in_shape, dtype=operator.in_dtype)
    assert relative(single(x.to(single.in_dtype)).to(operator.out_dtype), operator(x)) < 1e-6  # float32 rounding
    assert operator.to("cpu").device == torch.device("cpu")


def test_repr_and_pickle(operator):
    assert str(operator.in_shape) in repr(operator) and str(operator.out_shape) in repr(operator)
    x = randn(2, *operator.in_shape, dtype=operator.in_dtype)
    operator.gram(x)  # whatever is cached must not travel
    assert torch.equal(pickle.loads(pickle.dumps(operator))(x), operator(x))


def test_bad_input_is_one_line(operator):
    good = randn(*operator.in_shape, dtype=operator.in_dtype)
    wrong = good.real.contiguous() if good.is_complex() else good.to(torch.complex128)
    other = good.to(torch.complex64 if good.is_complex() else torch.float32)
    for bad in (good[..., :-1], good.sum(), wrong, other, good.numpy(), good.to("meta")):
        with pytest.raises(InputError, match="expected") as error:
            operator(bad)
        assert "\n" not in str(error.value)
        with pytest.raises(InputError):
            operator.gram(bad)


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (9, 8), (8, 9), (1, 5)])
@pytest.mark.parametrize("kind", ["points", "lines", "lines along y", "full"])
def test_mri_equals_the_four_shifts(shape, kind):
    mask = {
        "points": coin(*shape),
        "lines": coin(shape[1]),
        "lines along y": coin(shape[0], 1) if shape[0] > 1 else torch.ones(1, 1),
        "full": torch.ones(shape),
    }[kind]
    maps = randn(3, *shape)
    operator = MultiCoilMRI(maps, mask)
    for batch in ((), (2,), (9,)):
        x = randn(*batch, *shape, seed=4)
        expected = mask * centred_fft(maps * x.unsqueeze(-3))
        # FFT rounding in double precision.
        assert relative(operator(x), expected) < EXACT
        back = torch.fft.ifft2(torch.fft.ifftshift(expected, dim=(-2, -1)), norm="ortho")
        gram = (maps.conj() * torch.fft.fftshift(back, dim=(-2, -1))).sum(-3)
        assert relative(operator.H(expected), gram) < EXACT
        assert relative(operator.gram(x), gram) < EXACT


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (7, 6)])
def test_fourier_equals_the_four_shifts(shape):
    x = randn(2, *shape)
    assert relative(Fourier(shape, dtype=torch.complex128)(x), centred_fft(x)) < EXACT


def test_the_gram_by_blocks_is_used_and_right():
    # Many samples of short lines take the blocks, one sample of long lines the FFT; both give A^H A.
    short, long = mri(8, (9, 8), (8,)), mri(1, (4, 30), (30,))
    assert short._blocks_pay(9) and not long._blocks_pay(1)
    x = randn(9, 4, 30)
    assert relative(long._gram_blocks(x), long.H(long(x))) < EXACT
    assert relative(long._gram_blocks(x[0]), long.H(long(x[0]))) < EXACT


def test_chunks_do_not_change_the_result(monkeypatch):
    operator = mri(3, (6, 8), (6, 8))
    x, y = randn(2, 5, 6, 8), randn(2, 5, 3, 6, 8)
    whole = operator.gram(x), operator.H(y)
    monkeypatch.setitem(mri_module()._CHUNK_BYTES, "cpu", 3 * 3 * 6 * 8 * 16)  # three samples at a time
    assert relative(operator.gram(x), whole[0]) < EXACT and relative(operator.H(y), whole[1]) < EXACT


def mri_module():
    from inverse.operators import mri as module

    return module


def test_against_sigpy():
    sigpy = pytest.importorskip("sigpy")
    linop = pytest.importorskip("sigpy.mri.linop")
    maps, mask, x = randn(3, 7, 6), coin(6), randn(7, 6)
    operator = MultiCoilMRI(maps, mask)
    reference = linop.Sense(maps.numpy(), weights=mask.numpy().astype(float)) * x.numpy()
    assert relative(operator(x), torch.from_numpy(np.ascontiguousarray(reference))) < 1e-6  # sigpy's own precision
    fourier = torch.from_numpy(sigpy.fft(x.numpy(), axes=(-2, -1)))
    assert relative(Fourier((7, 6), dtype=torch.complex128)(x), fourier) < 1e-6


@pytest.mark.filterwarnings("ignore")  # what fastmri imports warns about itself
def test_against_fastmri():
    fastmri = pytest.importorskip("fastmri")
    x = randn(3, 7, 6)
    reference = torch.view_as_complex(fastmri.fft2c(torch.view_as_real(x)))
    assert relative(Fourier((3, 7, 6), dtype=torch.complex128)(x), reference) < 1e-6
    maps = randn(3, 7, 6, seed=2)
    image = fastmri.ifft2c(torch.view_as_real(x))
    expected = (maps.conj() * torch.view_as_complex(image)).sum(0)
    assert relative(MultiCoilMRI(maps, torch.ones(6)).H(x), expected) < 1e-6


def test_pinv_is_exact_where_everything_was_measured():
    maps = randn(3, 7, 6)
    maps[:, 0, 0] = 0
    x = randn(2, 7, 6)
    x[:, 0, 0] = 0
    for operator in (MultiCoilMRI(maps, torch.ones(6)), CoilMaps(maps), 2j * MultiCoilMRI(maps, torch.ones(6))):
        assert operator.has_pinv and relative(operator.pinv(operator(x)), x) < EXACT
    chain = Fourier((3, 7, 6), dtype=torch.complex128) @ CoilMaps(maps)
    assert chain.has_pinv and relative(chain.pinv(chain(x)), x) < EXACT
    without = stack([Identity((7, 6), dtype=torch.complex128), chain])
    assert not without.has_pinv
    with pytest.raises(InputError, match="no direct inverse"):
        without.pinv(without(x))


def test_pinv_of_mri_is_zero_filled():
    maps = randn(3, 7, 6)
    maps = maps / maps.abs().square().sum(0).sqrt()
    operator = MultiCoilMRI(maps, coin(6))
    y = randn(3, 7, 6)
    assert relative(operator.pinv(y), operator.H(y)) < EXACT  # normalised maps


def test_svd_only_where_it_is_cheap():
    assert MultiCoilMRI(None, coin(7, 6)).svd is not None and Fourier((4, 4)).svd is not None
    assert mri(3, (6, 6), (6,)).svd is None and mri(1, (6, 6), (6,)).svd is None


def test_mri_takes_what_users_have():
    maps = randn(3, 7, 6, dtype=torch.complex64)
    operator = MultiCoilMRI(maps, torch.tensor([1.0, 0, 1, 1, 0, 0]))
    assert operator.coils == 3 and operator.maps is maps and operator.mask.shape == (7, 6)
    assert operator.measurements == 2 * 3 * 7 * 3 and operator.weights.dtype == torch.float32
    assert MultiCoilMRI(None, coin(6), shape=(7, 6)).out_shape == (1, 7, 6)
    kept = operator.restrict(torch.tensor([1, 1, 0, 0, 0, 0]))
    assert kept.mask[0].tolist() == [True, False, False, False, False, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiCoilMRI(randn(3, 7, 6), torch.zeros(6)), "all zeros"),
        (lambda: MultiCoilMRI(randn(3, 7, 6), torch.ones(7)), "broadcasts to"),
        (lambda: MultiCoilMRI(randn(3, 7, 6), torch.ones(8, 6)), "broadcasts to"),
        (lambda: MultiCoilMRI(randn(3, 7, 6), torch.full((6,), 0.5)), "zeros and ones"),
        (lambda: MultiCoilMRI(randn(3, 7, 6), np.ones(6)), "torch.Tensor"),
        (lambda: MultiCoilMRI(None, np.ones((7, 6))), "torch.Tensor"),
        (lambda: MultiCoilMRI(randn(3, 7, 6).real, torch.ones(6)), "complex"),
        (lambda: MultiCoilMRI(randn(3, 7, 6) * math.nan, torch.ones(6)), "NaN"),
        (lambda: MultiCoilMRI(randn(7, 6), torch.ones(6)), "coils, y, x"),
        (lambda: MultiCoilMRI(torch.zeros(3, 7, 6, dtype=torch.complex64), torch.ones(6)), "all zeros"),
        (lambda: MultiCoilMRI(randn(3, 7, 6), torch.ones(6), shape=(6, 6)), "crop"),
        (lambda: MultiCoilMRI(None, torch.ones(6)), "shape="),
        (lambda: mri(3, (7, 6), (6,)).restrict(torch.zeros(6)), "all zeros"),
        (lambda: CoilMaps(randn(3, 7, 6).real), "complex"),
        (lambda: Fourier((4, 4), dtype=torch.float32), "complex dtype"),
        (lambda: Identity((4,)) @ Identity((5,)), "A @ B"),
        (lambda: Identity((4,)) + Identity((5,)), "in_shape"),
        (lambda: Identity((4,)) + Identity((4,), dtype=torch.float64), "out_dtype"),
        (lambda: Identity((4,)) + Identity((4,)).restrict([0]), "use stack"),
        (lambda: 1j * Identity((4,)), "real number"),
        (lambda: stack([]), "at least one"),
        (lambda: Identity((4,)).restrict([4]), "restrict"),
        (lambda: Identity((4,)).restrict([1, 1]), "repeats"),
    ],
)
def test_bad_construction_is_one_line(build, message):
    with pytest.raises(InputError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_stack_splits_its_data():
    parts = [Identity((6, 7), dtype=torch.complex128), mri(2, (6, 7), (7,)), Fourier((6, 7), dtype=torch.complex128)]
    for chosen in (parts, parts[::2]):
        joined = stack(chosen)
        x = randn(2, 6, 7)
        for part, a in zip(joined.split(joined(x)), chosen, strict=True):
            assert torch.equal(part, a(x))


def test_gram_gives_gradients():
    # Guided samplers differentiate through the data term, whichever way the gram takes.
    for operator in (mri(3, (6, 8), (6, 8)), mri(8, (9, 8), (8,))):
        x = randn(9, *operator.in_shape).requires_grad_()
        v = randn(9, *operator.in_shape, seed=1)
        (gradient,) = torch.autograd.grad(operator.gram(x), x, v)
        assert relative(gradient, operator.gram(v)) < EXACT


def test_nonlinear_operators_need_only_apply():
    class Magnitude(Operator):
        def _apply(self, x: Tensor) -> Tensor:
            return x.abs()

    operator = Magnitude((4, 5), (4, 5), in_dtype=torch.complex64, out_dtype=torch.float32)
    assert not operator.linear and operator.measurements == 20
    assert set(check_operator(operator).errors) == {"batch"}
