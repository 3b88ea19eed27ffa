"""`check_operator` on operators with planted faults: each must be refused, for the right reason."""

import pytest
import torch
from torch import Tensor

from inverse.operators import LinearOperator, Mask, MultiCoilMRI, block_diagonal, lift, stack
from inverse.testing import CheckFailed, check_operator


class Sound(LinearOperator):
    """y = F (s x), by its definition; the faults below are made of it."""

    def __init__(self):
        super().__init__((7, 6), (7, 6), in_dtype=torch.complex128)
        self.s = torch.randn(7, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))

    def _apply(self, x: Tensor) -> Tensor:
        shifted = torch.fft.ifftshift(self.s * x, dim=(-2, -1))
        # Some FFT libraries refuse a batch of 0.
        return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho") if x.numel() else shifted, dim=(-2, -1))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.s.conj() * self.inverse(y)

    def inverse(self, y: Tensor) -> Tensor:
        shifted = torch.fft.ifftshift(y, dim=(-2, -1))
        return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho") if y.numel() else shifted, dim=(-2, -1))


class NoConjugate(Sound):
    def _adjoint(self, y: Tensor) -> Tensor:
        return self.s * self.inverse(y)


class FactorTwo(Sound):
    def _adjoint(self, y: Tensor) -> Tensor:
        return 2 * super()._adjoint(y)


class MissingShift(Sound):
    def _adjoint(self, y: Tensor) -> Tensor:
        return self.s.conj() * torch.fft.fftshift(torch.fft.ifft2(y, norm="ortho") if y.numel() else y, dim=(-2, -1))


class BatchCoupling(Sound):
    def _apply(self, x: Tensor) -> Tensor:
        y = super()._apply(x)
        return y + y.mean(0, keepdim=True) if x.ndim == 3 and len(x) else y


class WrongGram(Sound):
    def _gram(self, x: Tensor) -> Tensor:
        return self.s.abs() * x


class WrongGramOfManySamples(Sound):
    def _gram(self, x: Tensor) -> Tensor:
        return super()._gram(x) * (1.001 if x.ndim == 3 and len(x) > 4 else 1)


class InPlace(Sound):
    def _apply(self, x: Tensor) -> Tensor:
        x *= self.s
        return Sound._apply(self, x)


class InPlaceAdjoint(Sound):
    def _adjoint(self, y: Tensor) -> Tensor:
        y.zero_()
        return y.clone()


class OtherDtype(Sound):
    def _apply(self, x: Tensor) -> Tensor:
        return super()._apply(x).to(torch.complex64)


class OtherShape(Sound):
    def _apply(self, x: Tensor) -> Tensor:
        return super()._apply(x).unsqueeze(-3)


class Affine(Sound):
    def _apply(self, x: Tensor) -> Tensor:
        return super()._apply(x) + 1


class RealLinearOnly(Sound):
    def _apply(self, x: Tensor) -> Tensor:
        return super()._apply(x.conj())


class AdjointForgotten(Sound):
    @property
    def H(self) -> LinearOperator:
        return Sound().H


class NormTooSmall(Sound):
    def norm(self) -> float:
        return 0.5 * super().norm()


class WeightsAndDataDisagree(Sound):
    @property
    def weights(self) -> Tensor:
        weights = torch.ones(7, 6, dtype=torch.float64)
        weights[0] = 0
        return weights


class SupportTooSmall(Sound):
    @property
    def support(self) -> Tensor:
        return torch.arange(42).reshape(7, 6) > 3


class UnseenByAutograd(NoConjugate):
    """The fault of `NoConjugate` where autograd cannot look, as behind NumPy."""

    def _apply(self, x: Tensor) -> Tensor:
        return super()._apply(x).detach()


FAULTS = [
    (NoConjugate, "adjoint"),
    (FactorTwo, "adjoint"),
    (MissingShift, "adjoint"),
    (BatchCoupling, "batch"),
    (WrongGram, "gram"),
    (WrongGramOfManySamples, "gram"),
    (InPlace, "input"),
    (InPlaceAdjoint, "input"),
    (OtherDtype, "dtype"),
    (OtherShape, "shape"),
    (Affine, "linear"),
    (RealLinearOnly, "linear"),
    (AdjointForgotten, "adjoint"),
    (NormTooSmall, "norm"),
    (WeightsAndDataDisagree, "weights"),
    (SupportTooSmall, "support"),
    (UnseenByAutograd, "adjoint"),
]


def test_the_sound_operator_passes():
    report = check_operator(Sound())
    assert report.errors["adjoint"] < 1e-14 and report.errors["gradient"] < 1e-14  # rounding of 42 terms
    assert not report.skipped


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_fault_is_found(fault, check, seed):
    with pytest.raises(CheckFailed, match=f"^{check}: ") as error:
        check_operator(fault(), seed=seed)
    assert "\n" not in str(error.value) and isinstance(error.value, AssertionError)


def test_operators_behind_numpy_are_checked_by_their_matrix():
    class Detached(Sound):
        def _apply(self, x: Tensor) -> Tensor:
            return super()._apply(x).detach()

    report = check_operator(Detached())
    assert report.errors["gradient"] < 1e-13 and not report.skipped  # a sum of 84 products


def test_small_faults_are_found_in_single_precision():
    # A part in a thousand on one coil's adjoint, at a size where the dot test alone is diluted.
    maps = torch.randn(4, 32, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    operator = MultiCoilMRI(maps, torch.ones(32))
    assert check_operator(operator).tolerance == 1e-5
    sound = operator._adjoint
    operator._adjoint = lambda y: sound(y) * 1.001
    with pytest.raises(CheckFailed, match="adjoint"):
        check_operator(operator)


def test_the_tolerance_is_the_callers():
    class Loose(Sound):
        def _adjoint(self, y: Tensor) -> Tensor:
            return super()._adjoint(y) * (1 + 1e-6)

    assert check_operator(Loose(), tolerance=1e-5).tolerance == 1e-5
    with pytest.raises(CheckFailed, match="adjoint"):
        check_operator(Loose())


def test_the_global_generator_is_not_touched():
    state = torch.get_rng_state()
    check_operator(Sound())
    assert torch.equal(torch.get_rng_state(), state)


class Unmatched(Mask):
    """Says that its adjoint is 7 % off, and it is."""

    matched = False

    def _adjoint(self, y):
        return 1.07 * super()._adjoint(y)

    def _gram(self, x):
        return self._adjoint(self._apply(x))

    @property
    def svd(self):
        return None


def test_unmatched_adjoint_is_reported_and_only_where_the_operator_says_so():
    operator = Unmatched(torch.tensor([[1, 0, 1], [1, 1, 0]]), dtype=torch.float64)
    report = check_operator(operator)
    assert not report.matched and report.errors["gradient"] == pytest.approx(0.07 / 1.07, rel=1e-6)
    assert "not matched" in str(report)
    two = [operator, operator]
    made = [2 * operator, operator @ operator, operator + operator, stack(two), block_diagonal(two), lift(operator, 3)]
    assert not any(wrapper.matched for wrapper in [*made, operator.H])
    Unmatched.matched = True
    with pytest.raises(CheckFailed, match=r"adjoint|gradient"):
        check_operator(operator)
    Unmatched.matched = False
