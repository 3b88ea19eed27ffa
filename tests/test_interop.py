"""Operators of other packages as ours and back: exact adjoints, shared memory, and clear refusals."""

import pickle
import sys

import numpy as np
import pytest
import sigpy
import torch
from all_cases import ALL
from cases_lift import complex_matrix, real_matrix, sense, spectrum
from checks import check_one_line
from operator_cases import coin, mri, randn
from scipy import sparse
from scipy.sparse import linalg
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import CoilMaps, Fourier, Identity, MultiCoilMRI
from inverse.operators.foreign import as_tensor
from inverse.operators.function import from_function
from inverse.operators.interop import from_deepinv, from_scipy, from_sigpy, to_deepinv, to_scipy
from inverse.operators.matrix import Matrix
from inverse.testing import check_operator

EXACT = 1e-12  # double precision, sums of up to a few thousand terms
DOUBLE = torch.complex128


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


# Arrays


class Foreign:
    """An array of another package: nothing but DLPack."""

    def __init__(self, tensor: Tensor):
        self._tensor = tensor

    def __dlpack__(self, **options: object) -> object:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128, np.int32, np.bool_])
def test_arrays_are_shared_not_copied(dtype):
    array = np.ones((3, 4), dtype=dtype)
    assert as_tensor(array).data_ptr() == array.ctypes.data
    assert as_tensor(array[1:, ::2]).data_ptr() == array[1:, ::2].ctypes.data
    tensor = torch.ones(3, 4)
    assert as_tensor(tensor) is tensor and as_tensor(Foreign(tensor)).data_ptr() == tensor.data_ptr()


def test_arrays_that_torch_cannot_share_are_copied():
    array = np.arange(6.0).reshape(2, 3)
    frozen = array.copy()
    frozen.flags.writeable = False
    for odd in (frozen, array[::-1], array.astype(">f8"), array.T[:, ::-1]):
        tensor = as_tensor(odd)
        assert tensor.dtype == torch.float64 and np.array_equal(tensor.numpy(), odd)
        assert not np.shares_memory(tensor.numpy(), odd)


@pytest.mark.parametrize("bad", [[1.0, 2.0], None, np.array(["a"]), np.array([None]), np.ones(2, dtype=np.longdouble)])
def test_what_is_no_array_is_refused(bad):
    check_one_line(lambda: as_tensor(bad, "maps"), "maps", "convert")


def test_matrices_are_shared_not_copied():
    array = np.ones((6, 20))
    assert from_scipy(array).matrix.data_ptr() == array.ctypes.data
    assert from_scipy(Foreign(torch.ones(6, 20))).in_shape == (20,)
    # A matrix stays where it is unless it is told otherwise.
    assert from_scipy(torch.ones(6, 20, device="meta")).device.type == "meta"
    assert from_scipy(torch.ones(6, 20), device="meta").device.type == "meta"
    csr = real_matrix(30, 20)
    starts, columns, values = from_scipy(csr)._rows
    assert (starts.data_ptr(), columns.data_ptr(), values.data_ptr()) == tuple(
        part.ctypes.data for part in (csr.indptr, csr.indices, csr.data)
    )


# scipy


@pytest.mark.parametrize("build", [real_matrix, complex_matrix])
@pytest.mark.parametrize(
    "convert", [lambda m: m, lambda m: m.tocoo(), lambda m: m.tocsc(), lambda m: m.toarray(), linalg.aslinearoperator]
)
def test_from_scipy_is_the_matrix(build, convert):
    matrix = build(30, 20)
    operator = from_scipy(convert(matrix), (4, 5), (5, 6))
    for batch in ((), (1,), (3,), (2, 2)):
        x = randn(*batch, 4, 5, dtype=operator.in_dtype)
        y = randn(*batch, 5, 6, dtype=operator.in_dtype)
        expected = (x.reshape(-1, 20).numpy() @ matrix.toarray().T).reshape(y.shape)
        assert relative(operator(x), torch.from_numpy(expected)) < EXACT
        expected = (y.reshape(-1, 30).numpy() @ matrix.toarray().conj()).reshape(x.shape)
        assert relative(operator.H(y), torch.from_numpy(expected)) < EXACT


def test_a_real_matrix_takes_complex_images():
    for matrix in (real_matrix(30, 20), real_matrix(30, 20).toarray()):
        operator = from_scipy(matrix, dtype=torch.complex64)
        stored = operator.matrix if isinstance(operator, Matrix) else operator._rows[2]
        assert stored.dtype == torch.float32 and operator.in_dtype == torch.complex64
        x = randn(2, 20, dtype=torch.complex64)
        # Single precision.
        assert relative(operator(x), torch.complex(operator_of(matrix, x.real), operator_of(matrix, x.imag))) < 1e-6


def operator_of(matrix, x: Tensor) -> Tensor:
    return from_scipy(matrix, dtype=torch.float32)(x.contiguous())


def test_sparse_matrices_of_other_kinds():
    integers = sparse.csr_array(np.array([[1, 0, 2], [0, 3, 0]]))
    assert from_scipy(integers).in_dtype == torch.float32
    assert from_scipy(integers)(torch.ones(3)).tolist() == [3, 3]
    repeated = sparse.coo_array((np.ones(3), ([0, 0, 1], [1, 1, 0])), shape=(2, 2)).tocsr()
    assert from_scipy(repeated)(torch.tensor([1.0, 10.0], dtype=torch.float64)).tolist() == [20, 1]
    assert from_scipy(sparse.csr_matrix(np.eye(3))).H.H(torch.ones(3, dtype=torch.float64)).tolist() == [1, 1, 1]
    check_one_line(lambda: from_scipy(sparse.csr_array(np.eye(2, dtype=np.longdouble))), "longdouble")


def test_linear_operator_needs_an_adjoint():
    one_way = linalg.LinearOperator((3, 4), matvec=lambda v: v[:3], dtype=np.float64)
    check_one_line(lambda: from_scipy(one_way), "CustomLinearOperator", "failed")
    both = linalg.LinearOperator((3, 4), matvec=lambda v: v[:3], rmatvec=lambda v: np.append(v, 0), dtype=np.float64)
    assert check_operator(from_scipy(both)).errors["adjoint"] < EXACT


@pytest.mark.parametrize("name", ALL)
def test_to_scipy_is_the_operator(name):
    operator = ALL[name]()
    linear = to_scipy(operator)
    if operator.in_dtype.is_complex != operator.out_dtype.is_complex:
        assert linear.dtype.kind == "f"
        return
    x = randn(3, *operator.in_shape, dtype=operator.in_dtype)
    y = randn(3, *operator.out_shape, dtype=operator.out_dtype)
    for forward, many, call, v in (
        (linear.matvec, linear.matmat, operator, x),
        (linear.rmatvec, linear.rmatmat, operator.H, y),
    ):
        flat = v.flatten(1).numpy()
        expected = call(v).flatten(1)
        assert relative(torch.from_numpy(forward(flat[0])), expected[0]) < EXACT
        assert relative(torch.from_numpy(np.ascontiguousarray(many(flat.T).T)), expected) < EXACT


def test_to_scipy_in_scipys_own_solvers():
    operator = mri(4, (6, 7), (7,))
    truth = randn(6, 7)
    system = linalg.aslinearoperator(operator.H.to_scipy() @ operator.to_scipy()) + 0.1 * linalg.aslinearoperator(
        np.eye(42)
    )
    y = operator(truth)
    solution, status = linalg.cg(system, operator.H(y).flatten().numpy(), rtol=1e-12, maxiter=200)
    x = torch.from_numpy(solution).reshape(6, 7)
    # The residual of the normal equations at the tolerance of the solver.
    assert status == 0 and relative(operator.gram(x) + 0.1 * x, operator.H(y)) < 1e-10
    largest = linalg.svds(operator.to_scipy(), k=1, return_singular_vectors=False)[0]
    assert abs(operator.norm() - largest) <= 1e-4 * largest  # norm() promises 1e-4 for its square
    one = from_scipy(operator.to(torch.float32).to_scipy())
    assert (one.in_dtype, one.in_shape, one.out_shape) == (torch.complex64, (42,), (4 * 42,))


def test_to_scipy_of_real_images_with_complex_data_is_real():
    operator = from_function(torch.fft.rfft, (3, 4), dtype=torch.float64)
    linear = operator.to_scipy()
    assert linear.shape == (2 * 3 * 3, 12) and linear.dtype == np.float64
    back = from_scipy(linear)
    assert check_operator(back).errors["adjoint"] < EXACT
    x = randn(12, dtype=torch.float64)
    expected = torch.view_as_real(torch.fft.rfft(x.reshape(3, 4))).flatten()
    assert relative(back(x), expected) < EXACT
    assert check_operator(from_scipy(operator.H.to_scipy())).errors["adjoint"] < EXACT


def test_to_scipy_refuses_what_it_cannot_do():
    linear = Identity((4,)).to_scipy()
    check_one_line(lambda: linear.matvec(np.ones(4) * 1j), "real vectors", "complex128")
    assert linear.matvec(np.ones(4)).dtype == np.float32 and linear.matvec(np.ones((4, 1))).shape == (4, 1)
    nonlinear = from_function(torch.abs, (4,), linear=False)
    check_one_line(lambda: to_scipy(nonlinear), "linear operator")


# sigpy


def test_sigpy_sense_is_ours():
    ours = MultiCoilMRI(randn(3, 7, 6), coin(6))
    theirs = from_sigpy(sense(), dtype=DOUBLE)
    x, y = randn(2, 7, 6), randn(2, 3, 7, 6)
    assert relative(theirs(x), ours(x)) < EXACT and relative(theirs.H(y), ours.H(y)) < EXACT
    assert relative(theirs.gram(x), ours.gram(x)) < EXACT
    assert repr(theirs) == "sigpy.Sense(complex128 (7, 6) -> complex128 (3, 7, 6), cpu)"


@pytest.mark.slow  # numba compiles
def test_sigpy_nufft_passes_in_its_own_precision():
    places = np.random.default_rng(0).uniform(-4, 4, (20, 2))
    operator = from_sigpy(sigpy.linop.NUFFT((8, 8), places))
    assert (operator.in_dtype, operator.out_shape) == (torch.complex64, (20,))
    assert {"adjoint", "gram"} <= set(check_operator(operator).errors)


def test_sigpy_gram_is_the_cheap_one():
    operator = from_sigpy(sigpy.linop.FFT((5, 4)), dtype=DOUBLE)
    x = randn(2, 5, 4)
    assert torch.equal(operator.gram(x), x)  # the identity, no transform


def test_sigpy_operators_compose_with_ours():
    fourier = from_sigpy(sigpy.linop.FFT((3, 5, 4), axes=(-2, -1)), dtype=DOUBLE)
    operator = fourier @ CoilMaps(randn(3, 5, 4))
    assert check_operator(operator).errors["adjoint"] < EXACT
    assert relative(fourier(randn(3, 5, 4)), Fourier((3, 5, 4), dtype=DOUBLE)(randn(3, 5, 4))) < EXACT


class OneWay(sigpy.linop.Linop):
    def _apply(self, input: np.ndarray) -> np.ndarray:
        return input


def test_sigpy_bad_input():
    check_one_line(lambda: from_sigpy(np.ones(3)), "sigpy.linop.Linop", "ndarray")
    check_one_line(lambda: from_sigpy(sigpy.linop.FFT((5, 4)), dtype=torch.int32), "dtype", "int32")
    check_one_line(lambda: from_sigpy(OneWay([4], [4])), "sigpy.OneWay", "no adjoint", "NotImplementedError")
    wrong = sigpy.linop.Multiply((4,), np.ones(4))
    assert wrong.H.H is not None
    wrong.mult = np.ones((2, 2, 2))
    check_one_line(lambda: from_sigpy(wrong), "sigpy.Multiply", "failed", "ValueError")


# Both


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch about itself
def test_forward_mode_and_vmap_through_foreign_operators():
    for operator in (from_sigpy(sense(), dtype=DOUBLE), from_scipy(complex_matrix(30, 42), (7, 6))):
        x, v = randn(7, 6), randn(7, 6, seed=1)
        _, tangent = torch.func.jvp(operator, (x,), (v,))
        assert relative(tangent, operator(v)) < EXACT
        batch = randn(4, 7, 6)
        assert relative(torch.vmap(operator)(batch), operator(batch)) < EXACT
        assert relative(torch.vmap(operator, in_dims=1)(batch.movedim(0, 1)), operator(batch)) < EXACT


def test_moved_foreign_operators_convert_at_the_border():
    for operator in (
        from_sigpy(sense(), dtype=DOUBLE),
        from_function(spectrum, (3, 5), dtype=DOUBLE),
        from_scipy(linalg.aslinearoperator(complex_matrix(12, 20))),
    ):
        single = operator.to(torch.float32)
        assert (single.in_dtype, single.out_dtype) == (torch.complex64, torch.complex64)
        x = randn(2, *operator.in_shape)
        # Rounding of the input and of the result, nothing in between.
        assert relative(single(x.to(torch.complex64)).to(DOUBLE), operator(x.to(torch.complex64).to(DOUBLE))) < 1e-7
        again = pickle.loads(pickle.dumps(single))
        assert again.in_dtype == torch.complex64 and check_operator(again).errors["adjoint"] < 1e-6


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: from_scipy("matrix"), ("from_scipy", "str")),
        (lambda: from_scipy(np.ones(3)), ("matrix (rows, columns)", "(3,)")),
        (lambda: from_scipy(np.ones((3, 4), dtype=int)), ("floating", "int64")),
        (lambda: from_scipy(np.ones((3, 4)), (5,)), ("in_shape", "4 entries", "(5,)")),
        (lambda: from_scipy(real_matrix(3, 4), None, (2, 2)), ("out_shape", "3 entries")),
        (lambda: from_scipy(complex_matrix(3, 4), dtype=torch.float32), ("complex dtype",)),
        (lambda: from_scipy(np.ones((3, 4)), dtype=torch.int32), ("dtype", "int32")),
    ],
)
def test_bad_input_is_one_line(build, words):
    check_one_line(build, *words)


def test_without_deepinv_the_refusal_says_so(monkeypatch):
    for module in ("deepinv", "deepinv.physics"):
        monkeypatch.setitem(sys.modules, module, None)
    check_one_line(lambda: from_deepinv(object(), (1, 4, 4)), "deepinv does not import")
    check_one_line(lambda: to_deepinv(Identity((4,))), "deepinv does not import")
