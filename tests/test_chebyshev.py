"""Polynomials of an operator: their error, their degree, and the operators that need only a straight line."""

import pytest
import torch
from sampler_cases import dense, mri, randn, relative

from inverse.errors import InputError
from inverse.linalg.chebyshev import Chebyshev, single_eigenvalue
from inverse.operators import Identity, Mask


def root(t: torch.Tensor) -> torch.Tensor:
    return (1 - 0.9 * t).sqrt()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-9])
def test_the_error_is_below_the_tolerance_at_the_lowest_degree(tolerance):
    fitted = Chebyshev.fit(root, 0.0, 1.0, tolerance=tolerance)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    errors = [
        float((polynomial.of(lambda x: t * x, torch.ones_like(t)) - root(t)).abs().max())
        for polynomial in (fitted, Chebyshev(fitted.coefficients[:-1], 0.0, 1.0))
    ]
    # The bound is the sum of all coefficients left out, which all have one sign at t = 1: it is reached there.
    assert errors[0] <= tolerance < errors[1]


def test_a_polynomial_is_reproduced_by_its_own_degree():
    fitted = Chebyshev.fit(lambda t: 3 - t + 2 * t**3, -1.0, 2.0, tolerance=1e-10)
    assert fitted.degree == 3
    t = torch.linspace(-1, 2, 7, dtype=torch.float64)
    torch.testing.assert_close(fitted.of(lambda x: t * x, torch.ones_like(t)), 3 - t + 2 * t**3, rtol=0, atol=1e-10)


def test_it_is_the_function_of_a_matrix_and_counts_its_products():
    operator, x, calls = mri(), randn(3, 8, 6), []

    def gram(v: torch.Tensor) -> torch.Tensor:
        calls.append(len(v))
        return operator.gram(v)

    matrix = dense(operator)
    values, vectors = torch.linalg.eigh(matrix.mH @ matrix)
    exact = (x.flatten(1) @ vectors.conj() * root(values)) @ vectors.mT
    fitted = Chebyshev.fit(root, 0.0, 1.0, tolerance=1e-12)
    assert relative(fitted.of(gram, x).flatten(1), exact) < 1e-11  # the sum of the coefficients left out, 1e-12
    assert calls == [3] * fitted.degree


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_masks_and_identities_have_one_eigenvalue_and_coils_have_not(precision):
    cases = {
        "mask": (Mask(torch.arange(48).reshape(8, 6) % 3 > 0), 1.0),
        "identity": (2.0 * Identity((8, 6)), 4.0),
        "one coil": (mri(coils=1), 1.0),
        "coils": (mri(), None),
        "nothing": (0.0 * Identity((8, 6)), None),
    }
    for name, (operator, wanted) in cases.items():
        operator = operator.to(precision)
        found = single_eigenvalue(operator.gram, randn(1, 8, 6, dtype=operator.in_dtype))
        assert found == (wanted if wanted is None else pytest.approx(wanted, rel=1e-5)), name


def test_bad_intervals_are_one_line():
    for low, high, tolerance in ((1.0, 1.0, 1e-3), (0.0, 1.0, 0.0)):
        with pytest.raises(InputError, match="low < high"):
            Chebyshev.fit(root, low, high, tolerance=tolerance)
