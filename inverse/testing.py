"""Public checks for operators of one's own: what the samplers rely on, tested on random vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inverse.linalg import flat_real, inner, norm
from inverse.operators import LinearOperator, Operator

# Up to this many entries the matrix of an operator that autograd cannot see is written out.
_DENSE_ENTRIES = 2**22


class CheckFailed(AssertionError):
    """An operator breaks its contract; one line that says which part and by how much."""


@dataclass
class Report:
    """What `check_operator` found.

    Attributes:
        operator: repr of the operator.
        tolerance: largest relative error allowed.
        errors: relative error of every check that was made.
        skipped: checks that could not be made, with the reason.
        matched: False where the operator says that its A^H is not the adjoint: its error is told, and allowed.
    """

    operator: str
    tolerance: float
    errors: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    matched: bool = True

    def record(self, check: str, error: float, reason: str) -> None:
        """Keep a relative error and raise CheckFailed if it is above the tolerance or NaN."""
        self.errors[check] = max(error, self.errors.get(check, 0.0))
        if not error <= self.tolerance and (self.matched or check not in ("adjoint", "gradient")):
            self.fail(check, f"{reason}: relative error {error:.1e}, allowed {self.tolerance:.0e}")

    def fail(self, check: str, reason: str) -> None:
        """Raise CheckFailed."""
        raise CheckFailed(f"{check}: {reason} ({self.operator}).")

    def __str__(self) -> str:
        lines = [f"{self.operator}: all checks passed (tolerance {self.tolerance:.0e})"]
        lines += [f"  {check:<12} {error:.1e}" for check, error in self.errors.items()]
        lines += [f"  {check:<12} skipped: {reason}" for check, reason in self.skipped.items()]
        if not self.matched:
            lines.append("  A^H is not matched to A, as the operator says: adjoint and gradient are off")
        return "\n".join(lines)


def check_operator(operator: Operator, *, seed: int = 0, tolerance: float | None = None) -> Report:
    """Check an operator against the contract: shapes, linearity, adjoint, gram, batches, and that inputs stay as given.

    Args:
        operator: the operator; of a nonlinear one only shapes, batches and inputs are checked.
        seed: seed of the random vectors; the global generator is not touched.
        tolerance: largest relative error; None: 1e-12 in double, 1e-5 in single precision (rounding of sums of up to
            a million terms).

    Returns:
        A Report; print it for the error of every check.

    Raises:
        CheckFailed: the first part of the contract that is broken, in one line.

    Notes:
        About 60 applications. The dot test error is |<A x, y> - <x, A^H y>| / (||A x|| ||y||).

    Reference: Claerbout, "Earth soundings analysis", 1992, chapter 5 (dot-product test).
    """
    if tolerance is None:
        tolerance = 1e-12 if operator.in_dtype.to_real() == torch.float64 else 1e-5
    report = Report(repr(operator), tolerance, matched=getattr(operator, "matched", True))
    random = _Random(operator, seed)
    functions: dict[str, tuple[Callable[[Tensor], Tensor], bool, bool]] = {"A": (operator, False, True)}
    if isinstance(operator, LinearOperator):
        functions["A.H"] = (operator.H, True, False)
        functions["A.gram"] = (operator.gram, False, False)
        if operator.has_pinv:
            functions["A.pinv"] = (operator.pinv, True, False)
    for name, (function, takes_data, gives_data) in functions.items():
        _check_calls(report, name, function, random.data if takes_data else random.image, gives_data, operator)
    if isinstance(operator, LinearOperator):
        _check_linear(report, operator, random)
        _check_adjoint(report, operator, random)
        _check_gradient(report, operator, random)
        _check_gram(report, operator, random)
        _check_extras(report, operator, random)
    return report


class _Random:
    """Random images and data of an operator from a generator of its own."""

    def __init__(self, operator: Operator, seed: int):
        self._operator = operator
        self._generator = torch.Generator().manual_seed(seed)

    def _draw(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=dtype).to(self._operator.device)

    def image(self, *batch: int) -> Tensor:
        return self._draw((*batch, *self._operator.in_shape), self._operator.in_dtype)

    def data(self, *batch: int) -> Tensor:
        return self._draw((*batch, *self._operator.out_shape), self._operator.out_dtype)


def _distance(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the larger norm; 0 for two zeros."""
    scale = max(float(norm(a, 0)), float(norm(b, 0)))
    return float(norm(a - b, 0)) / scale if scale else 0.0


def _check_calls(
    report: Report,
    name: str,
    function: Callable[[Tensor], Tensor],
    draw: Callable[..., Tensor],
    gives_data: bool,
    operator: Operator,
) -> None:
    """Shape, dtype, device, untouched input, and samples of a batch that do not see each other."""
    shape, dtype = (operator.out_shape, operator.out_dtype) if gives_data else (operator.in_shape, operator.in_dtype)
    for batch in ((), (0,), (2,), (1, 2)):
        x = draw(*batch)
        kept = x.clone()
        y = function(x)
        if not torch.equal(x, kept):
            report.fail("input", f"{name} modified its input in place")
        if tuple(y.shape) != (*batch, *shape):
            report.fail("shape", f"{name} of batch {batch} gave {tuple(y.shape)}, expected {(*batch, *shape)}")
        if y.dtype != dtype or y.device != x.device:
            report.fail("dtype", f"{name} gave {y.dtype} on {y.device}, expected {dtype} on {x.device}")
    x = draw(3)
    together = function(x)
    for i in range(3):
        report.record("batch", _distance(together[i], function(x[i])), f"{name} of a batch is not that of its samples")


def _check_linear(report: Report, operator: LinearOperator, random: _Random) -> None:
    a: complex = 0.7
    b: complex = -1.3
    if operator.in_dtype.is_complex and operator.out_dtype.is_complex:
        a, b = 0.7 + 0.4j, -0.3 + 1.1j
    x, z = random.image(), random.image()
    error = _distance(operator(a * x + b * z), a * operator(x) + b * operator(z))
    report.record("linear", error, "A(a x + b z) is not a A(x) + b A(z)")


def _check_adjoint(report: Report, operator: LinearOperator, random: _Random) -> None:
    if operator.H.H is not operator:
        report.fail("adjoint", "A.H.H is not A")
    if (operator.H.in_shape, operator.H.out_shape) != (operator.out_shape, operator.in_shape):
        report.fail("adjoint", f"A.H maps {operator.H.in_shape} to {operator.H.out_shape}, expected the shapes swapped")
    x = random.image()
    ax = operator(x)
    # y = A x is the direction in which a wrong scale shows fully, random y finds the rest.
    for y in (random.data(), ax):
        hy = operator.H(y)
        difference = float(inner(ax, y, 0) - inner(x, hy, 0))
        if operator.in_dtype.is_complex and operator.out_dtype.is_complex:
            # Re<i a, b> is the imaginary part of <a, b>.
            difference = math.hypot(difference, float(inner(1j * ax, y, 0) - inner(1j * x, hy, 0)))
        scale = float(norm(ax, 0) * norm(y, 0))
        report.record("adjoint", abs(difference) / scale if scale else 0.0, "<A x, y> differs from <x, A^H y>")


def _check_gradient(report: Report, operator: LinearOperator, random: _Random) -> None:
    """A^H y as a vector, against autograd through A, or against the matrix of A."""
    x, y = random.image().requires_grad_(), random.data()
    ax = operator(x)
    if ax.requires_grad:
        (expected,) = torch.autograd.grad(ax, x, y)
        report.record("gradient", _distance(operator.H(y), expected), "A^H y is not the gradient of <A x, y>")
        return
    columns, rows = (flat_real(v, 0).numel() for v in (x.detach(), y))
    if columns * rows > _DENSE_ENTRIES:
        report.skipped["gradient"] = f"autograd does not see A, and its matrix of {rows} x {columns} is too large"
        return
    flat = torch.stack([flat_real(operator(unit), 0) for unit in _units(x.detach())])
    expected_flat = flat @ flat_real(y, 0)
    report.record("gradient", _distance(flat_real(operator.H(y), 0), expected_flat), "A^H y is not the matrix's")


def _units(like: Tensor) -> list[Tensor]:
    """The real basis vectors in the shape of `like`; complex: 1 and i at every place."""
    eye = torch.eye(like.numel(), dtype=like.dtype, device=like.device).reshape(-1, *like.shape)
    if not like.is_complex():
        return list(eye)
    return [unit for pair in zip(eye, 1j * eye, strict=True) for unit in pair]


def _check_gram(report: Report, operator: LinearOperator, random: _Random) -> None:
    # Several samples may take another road than one.
    for batch in ((), (9,)):
        x = random.image(*batch)
        report.record("gram", _distance(operator.gram(x), operator.H(operator(x))), "gram(x) is not A^H A x")


def _check_extras(report: Report, operator: LinearOperator, random: _Random) -> None:
    """Norm, weights, support and decomposition, where the operator has them."""
    x = random.image()
    ax = operator(x)
    v = x
    for _ in range(5):  # power steps turn a random x towards the largest singular value
        v = operator.gram(v / (norm(v, 0) or 1))
    # The norm is computed to 1e-4 from below.
    if float(norm(operator(v), 0)) > operator.norm() * float(norm(v, 0)) * 1.001:
        report.fail("norm", f"A.norm() = {operator.norm():.6g} is less than ||A x|| / ||x|| of an x")
    if operator.weights is not None and bool((ax * (operator.weights == 0)).abs().any()):
        report.fail("weights", "A x is not zero where weights say that nothing was measured")
    if operator.support is not None and bool((operator.gram(x) * ~operator.support).abs().any()):
        report.fail("support", "A^H A x is not zero outside of the support")
    svd = operator.svd
    if svd is not None:
        report.record("svd", _distance(svd.U(svd.s * svd.Vh(x)), ax), "U s V^H x is not A x")
        y = random.data()
        report.record("svd", _distance(svd.V(svd.s * svd.Uh(y)), operator.H(y)), "V s U^H y is not A^H y")
        z = random.image()
        report.record("svd", _distance(svd.Vh(svd.V(svd.Vh(z))), svd.Vh(z)), "V has no orthonormal columns")
