"""Cartesian MRI: the contract over all cases, formulas with all shifts written out, and other people's transforms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases_mri import CASES, cropped, normalised, partial_fourier
from checks import check_one_line
from operator_cases import coin, randn
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import CoilMaps, LinearOperator, mri
from inverse.operators.dynamic import DynamicMRI
from inverse.operators.mri import MultiCoilMRI
from inverse.testing import check_operator

EXACT = 1e-12  # double precision, sums of up to a few thousand terms


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def centred_fft(x: Tensor, dims: int) -> Tensor:
    """The reference with all shifts."""
    axes = tuple(range(-dims, 0))
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, dim=axes), dim=axes, norm="ortho"), dim=axes)


def dense(operator: LinearOperator) -> Tensor:
    n = math.prod(operator.in_shape)
    units = torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)
    return operator(units).reshape(n, -1).mT


@pytest.fixture(params=CASES)
def operator(request) -> LinearOperator:
    return CASES[request.param]()


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_contract(operator, precision):
    report = check_operator(operator.to(precision))
    assert {"batch", "linear", "adjoint", "gradient", "gram"} <= set(report.errors) and not report.skipped


def test_adjoint_and_gram_against_the_dense_matrix(operator):
    matrix = dense(operator)
    # 1e-10 is what the operators promise; rounding gives 1e-15.
    assert relative(dense(operator.H), matrix.mH) < 1e-10
    x = randn(2, *operator.in_shape)
    expected = (matrix.mH @ (matrix @ x.reshape(2, -1).mT)).mT
    assert relative(operator.gram(x).reshape(2, -1), expected) < 1e-10
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert abs(operator.norm() - exact) <= 1e-4 * exact  # what norm() promises


def test_support_and_weights_against_the_dense_matrix(operator):
    matrix = dense(operator)
    if operator.support is not None:
        assert operator.support.shape == operator.in_shape
        assert torch.equal(operator.support.flatten(), matrix.abs().sum(0) > EXACT)
    if operator.weights is not None:
        rows = operator.weights.expand(operator.out_shape).flatten() > 0
        assert torch.equal(rows, matrix.abs().sum(1) > EXACT)
        assert operator.measurements == 2 * int(rows.sum())


def test_coils_and_frames_in_pieces_change_nothing(operator, monkeypatch):
    """One coil and one frame at a time, as on one thread with large images, against all at once."""
    x, y = randn(2, 3, *operator.in_shape), randn(2, 3, *operator.out_shape)
    monkeypatch.setattr(mri, "_CHUNK_BYTES", dict.fromkeys(mri._CHUNK_BYTES, 2**30))
    whole = operator.gram(x), operator.H(y)
    monkeypatch.setattr(mri, "_CHUNK_BYTES", dict.fromkeys(mri._CHUNK_BYTES, 1))
    assert relative(operator.gram(x), whole[0]) < EXACT and relative(operator.H(y), whole[1]) < EXACT
    (gradient,) = torch.autograd.grad(operator.gram(x.requires_grad_()), x, randn(*x.shape, seed=1))
    assert relative(gradient, operator.gram(randn(*x.shape, seed=1))) < EXACT


def test_several_threads_give_the_same(monkeypatch):
    """All coils in one step, as with several threads, against the loop."""
    operator, x = MultiCoilMRI(randn(5, 8, 9), coin(8, 9)), randn(8, 9)
    one = operator.gram(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert operator._coils_at_once() >= 5 and relative(operator.gram(x), one) < EXACT
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setitem(mri._CHUNK_BYTES, "cpu", 2 * 8 * 9 * 16)
    assert operator._coils_at_once() == 2 and relative(operator.gram(x), one) < EXACT


@pytest.mark.parametrize("shape", [(2, 4, 6), (3, 5, 7), (4, 3, 2), (1, 1, 5)])
@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2,), (0, 1, 2)])
def test_volumes_equal_all_the_shifts(shape, axes):
    mask = coin(*(n if axis in axes else 1 for axis, n in enumerate(shape))) | (torch.arange(shape[2]) == 0)
    maps, x = randn(3, *shape), randn(2, *shape, seed=4)
    operator = MultiCoilMRI(maps, mask)
    assert relative(operator(x), mask * centred_fft(maps * x.unsqueeze(1), 3)) < EXACT


@pytest.mark.parametrize(
    ("mask", "axes"),
    [
        (torch.ones(5), ()),
        (coin(5), (-1,)),
        (coin(4, 1), (-2,)),
        (coin(3, 1, 1), (-3,)),
        (coin(3, 4, 1), (-3, -2)),
        (coin(4, 5), (-2, -1)),
        (coin(3, 1, 5), (-3, -1)),
    ],
)
def test_only_undersampled_axes_are_transformed(mask, axes, monkeypatch):
    operator, seen = MultiCoilMRI(randn(2, 3, 4, 5), mask), []
    monkeypatch.setattr(operator, "_blocks_pay", lambda samples: False)
    plain = mri.fft
    monkeypatch.setattr(mri, "fft", lambda x, axes: seen.append(axes) or plain(x, axes))
    operator.gram(randn(3, 4, 5))
    assert set(seen) == ({axes} if axes else set())


def test_sets_add_up():
    maps, x, mask = randn(2, 3, 5, 6), randn(4, 2, 5, 6), coin(6)
    both = MultiCoilMRI(maps, mask, sets=True)
    parts = [MultiCoilMRI(m, mask) for m in maps]
    assert both.in_shape == (2, 5, 6) and both.coils == 3
    assert relative(both(x), sum(a(x[:, s]) for s, a in enumerate(parts))) < EXACT
    y = both(x)
    assert relative(both.H(y), torch.stack([a.H(y) for a in parts], 1)) < EXACT


def test_frames_are_scans_of_their_own():
    masks, x = coin(3, 7), randn(2, 3, 6, 7)
    shared, own = randn(4, 6, 7), randn(3, 4, 6, 7)
    for maps in (shared, own):
        operator = DynamicMRI(maps, masks)
        single = [MultiCoilMRI(maps if maps is shared else maps[t], masks[t]) for t in range(3)]
        assert operator.in_shape == (3, 6, 7) and operator.out_shape == (3, 4, 6, 7)
        assert relative(operator(x), torch.stack([a(x[:, t]) for t, a in enumerate(single)], 1)) < EXACT
        assert relative(operator.gram(x), torch.stack([a.gram(x[:, t]) for t, a in enumerate(single)], 1)) < EXACT
        assert operator.measurements == sum(a.measurements for a in single)


def test_masks_of_frames_take_lines_patterns_and_volumes():
    assert DynamicMRI(None, torch.ones(4, 6), shape=(5, 6)).in_shape == (4, 5, 6)
    assert DynamicMRI(None, torch.ones(4, 5, 6)).out_shape == (4, 1, 5, 6)
    assert DynamicMRI(randn(2, 3, 5, 6), torch.ones(4, 3, 5, 1)).in_shape == (4, 3, 5, 6)
    assert DynamicMRI(randn(4, 2, 5, 6), torch.ones(4, 6)).in_shape == (4, 5, 6)
    lines = DynamicMRI(randn(2, 5, 6), coin(4, 6))
    assert lines._axes == (-1,)  # one-dimensional transforms only
    kept = lines.restrict(torch.tensor([1, 0, 1, 0, 1, 1]))
    assert isinstance(kept, DynamicMRI) and torch.equal(kept.mask, lines.mask & kept.mask)


@pytest.mark.parametrize("n", [8, 9])
def test_partial_fourier_and_off_centre_masks(n):
    """The first lines missing: A^H A is the convolution by the mask's transform, whose phase shows the asymmetry."""
    mask = partial_fourier(n, n // 2 - 1)
    operator = MultiCoilMRI(None, mask, shape=(3, n)).to(torch.float64)
    x = torch.zeros(3, n, dtype=torch.complex128)
    x[1, n // 2] = 1
    k = pixel = torch.arange(n, dtype=torch.float64) - n // 2
    expected = (mask * torch.exp(2j * math.pi * pixel[:, None] * k / n)).sum(1) / n
    assert float((operator.gram(x)[1] - expected).abs().max()) < EXACT and float(expected.imag.abs().max()) > 0.05


def test_direct_inverse_of_full_masks():
    x, maps = randn(2, 2, 5, 6), randn(2, 4, 5, 6)
    both = MultiCoilMRI(maps, torch.ones(6), sets=True)
    # 1e-9: the matrix between two random sets is conditioned to some 1e2, squared.
    assert relative(both.pinv(both(x)), x) < 1e-9
    # Where a set does not see, its image is 0 and the other is still exact.
    maps[1, :, 0] = 0
    holed = MultiCoilMRI(maps, torch.ones(6), sets=True)
    x[:, 1, 0] = 0
    assert relative(holed.pinv(holed(x)), x) < 1e-9 and holed.support is not None
    frames = DynamicMRI(randn(3, 4, 5, 6), torch.ones(3, 6))
    z = randn(2, 3, 5, 6)
    assert relative(frames.pinv(frames(z)), z) < EXACT


def test_svd_where_it_is_closed_form():
    full = MultiCoilMRI(randn(3, 5, 6), torch.ones(6))
    values = torch.linalg.svdvals(dense(full))
    assert relative(full.svd.s.flatten().sort(descending=True).values, values) < EXACT
    phase = MultiCoilMRI(normalised(randn(1, 5, 6)), coin(5, 6))
    assert torch.equal(phase.svd.s, phase.weights)
    u = phase.svd.V(torch.eye(30, dtype=torch.complex128).reshape(30, 5, 6)).flatten(1)
    assert relative(u @ u.mH, torch.eye(30, dtype=torch.complex128)) < EXACT
    assert MultiCoilMRI(cropped(randn(3, 5, 6)), torch.ones(6)).svd is None
    assert MultiCoilMRI(randn(2, 3, 5, 6), torch.ones(6), sets=True).svd is None
    assert DynamicMRI(None, coin(3, 5, 6)).svd is not None


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_sigpy_agrees(shape):
    linop = pytest.importorskip("sigpy.mri.linop")
    maps, mask, x = randn(3, *shape), coin(*shape), randn(*shape)
    reference = linop.Sense(maps.numpy(), weights=mask.numpy().astype(float)) * x.numpy()
    assert relative(MultiCoilMRI(maps, mask)(x), torch.from_numpy(np.ascontiguousarray(reference))) < 1e-6


def test_sigpy_agrees_in_three_dimensions():
    linop = pytest.importorskip("sigpy.mri.linop")
    maps, mask, x = randn(2, 3, 4, 5), coin(3, 4, 1), randn(3, 4, 5)
    weights = mask.expand(3, 4, 5).numpy().astype(float)
    operator, reference = MultiCoilMRI(maps, mask), linop.Sense(maps.numpy(), weights=weights)
    assert relative(operator(x), torch.from_numpy(reference * x.numpy())) < 1e-6
    y = randn(2, 3, 4, 5, seed=1)
    back = torch.from_numpy(np.ascontiguousarray(reference.H * (y * mask).numpy()))
    assert relative(operator.H(y), back) < 1e-6


def test_maps_that_are_conjugate_views_or_not_contiguous():
    maps, mask, x = randn(3, 5, 6), coin(6), randn(5, 6)
    expected = MultiCoilMRI(maps.conj().resolve_conj(), mask)
    assert relative(MultiCoilMRI(maps.conj(), mask).gram(x), expected.gram(x)) < EXACT
    turned = MultiCoilMRI(maps.mT, coin(5))
    assert relative(turned.gram(x.mT), turned.H(turned(x.mT.contiguous()))) < EXACT


def test_a_half_scan_in_three_dimensions_loses_nothing_of_what_it_saw():
    """A volume with the outer planes missing: A A^H is the mask for one coil, whatever the parity."""
    for shape in ((4, 4, 3), (5, 3, 4)):
        mask = coin(shape[0], shape[1], 1)
        operator = MultiCoilMRI(None, mask, shape=shape).to(torch.float64)
        y = randn(1, *shape)
        assert relative(operator(operator.H(y)), y * mask) < EXACT


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MultiCoilMRI(randn(2, 3, 4, 5), torch.ones(3, 4)), ("(3, 4, 5)", "mask[..., None]")),
        (lambda: MultiCoilMRI(randn(2, 3, 4, 5), torch.zeros(3, 4, 1)), ("all zeros",)),
        (lambda: MultiCoilMRI(randn(2, 3, 4, 5), torch.ones(6)), ("broadcasts to (3, 4, 5)",)),
        (lambda: MultiCoilMRI(randn(2, 1, 3, 4, 5), torch.ones(5)), ("(coils, z, y, x)",)),
        (lambda: MultiCoilMRI(randn(3, 4, 5), torch.ones(5), sets=True), ("sets",)),
        (lambda: MultiCoilMRI(None, torch.ones(5), shape=(4, 5), sets=True), ("one set",)),
        (lambda: MultiCoilMRI(randn(3, 4, 5), torch.ones(5, device="meta")), ("meta", "move")),
        (lambda: DynamicMRI(randn(3, 2, 4, 5), torch.ones(4, 5)), ("4 frames", "got 3")),
        (lambda: DynamicMRI(randn(2, 4, 5), torch.tensor([[1.0] * 5, [0.0] * 5])), ("frame 1",)),
        (lambda: DynamicMRI(randn(2, 4, 5), torch.ones(3, 6)), ("broadcasts to (3, 4, 5)",)),
        (lambda: DynamicMRI(randn(2, 4, 5), torch.ones(5)), ("first axis counts frames",)),
        (lambda: DynamicMRI(randn(2, 4, 5), np.ones((3, 5))), ("torch.Tensor",)),
        (lambda: DynamicMRI(None, torch.ones(3, 5)), ("shape=(y, x)",)),
        (lambda: DynamicMRI(randn(4, 5), torch.ones(3, 5)), ("(coils, y, x)",)),
        (lambda: DynamicMRI(randn(2, 4, 5), torch.ones(3, 5), shape=(5, 5)), ("crop",)),
        (lambda: DynamicMRI(randn(2, 4, 5), torch.zeros(0, 5)), ("frames",)),
        (lambda: CoilMaps(randn(4, 5)), ("(coils, y, x)",)),
    ],
)
def test_bad_construction_is_one_line(build, words):
    check_one_line(build, *words)


@pytest.mark.filterwarnings("ignore:ComplexHalf")  # torch says so of every half-precision complex tensor
def test_half_precision_maps_are_refused():
    maps = torch.zeros(3, 4, 5, dtype=torch.complex32)
    check_one_line(lambda: MultiCoilMRI(maps, torch.ones(5)), "complex64 or complex128")
