"""Conjugate gradients for Hermitian positive (semi)definite systems, every sample on its own."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.inner import flat_real, unflat_real


class Status(enum.Enum):
    """How an iteration ended; the value is the sentence to show."""

    CONVERGED = "The residual is below the tolerance."
    MAX_ITERATIONS = "The iteration limit was reached before the tolerance."
    NOT_POSITIVE = "The operator is not positive definite: <p, A p> <= 0 for a search direction p."
    NOT_FINITE = "NaN or Inf appeared in the right-hand side, in the start or in the operator's output."


# Order of severity; a tensor of positions travels on the device, the words are looked up on request only.
_ORDER = tuple(Status)
_MAX_ITERATIONS, _NOT_POSITIVE, _NOT_FINITE = 1, 2, 3


@dataclass(frozen=True)
class CGResult:
    """Result of `cg`.

    Attributes:
        x: solution, shape of b; of a sample that failed, the last good iterate.
        iterations: iterations each sample made, integer tensor (*batch).
        residual: ||b - A x|| / ||b|| per sample by CG's recursion, in the norm of `precondition`, real tensor (*batch).
        codes: position of each sample's Status in `tuple(Status)`, integer tensor (*batch).
    """

    x: Tensor
    iterations: Tensor
    residual: Tensor
    codes: Tensor

    @property
    def status(self) -> Status:
        """The worst status of the batch; reads from the device."""
        return _ORDER[int(self.codes.max())] if self.codes.numel() else Status.CONVERGED

    @property
    def statuses(self) -> list[Status]:
        """Status of every sample, batch dimensions flattened; reads from the device."""
        return [_ORDER[code] for code in self.codes.flatten().tolist()]


@torch.no_grad()
def cg(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    x0: Tensor | None = None,
    *,
    batch_dims: int = 1,
    rtol: float | Tensor = 1e-3,
    atol: float = 0.0,
    precondition: Callable[[Tensor], Tensor] | None = None,
    max_iterations: int = 30,
    check_every: int | None = None,
) -> CGResult:
    """Solve A x = b by conjugate gradients with own step sizes and own stopping per sample.

    A sample that has converged is frozen, so its result does not depend on what else is in the batch nor on
    `check_every`. Real and complex systems alike: the inner product is Re<a, b>.

    Args:
        apply: x -> A x, Hermitian positive (semi)definite, sample by sample; receives and returns the shape of b.
        b: right-hand side (*batch, *shape), real or complex.
        x0: start, shape of b; costs one application. None starts from zero and saves it.
        batch_dims: how many leading dimensions count the samples, default 1; 0 for one sample without batch.
        rtol: stop a sample when ||b - A x|| <= rtol ||b||; default 1e-3, below what a data step can use; a number, or
            one per sample (*batch).
        atol: stop a sample when ||b - A x|| <= atol; default 0.
        precondition: r -> P r, Hermitian positive definite, sample by sample, near the inverse of A; one application
            per iteration. Norms of residuals are then those of P, ||r||^2 = <r, P r>, which is near the energy of the
            error, <x - x*, A (x - x*)>.
        max_iterations: limit per sample, default 30; 0 returns the start.
        check_every: iterations between looks at the device for "all samples done"; default 1 on the CPU, 4 elsewhere.

    Returns:
        CGResult. For b = 0 the tolerance refers to the first residual.

    Raises:
        InputError: shapes or kinds of number of b and x0 differ.

    Notes:
        Not differentiable; at most max_iterations applications, one more with x0. Scalars in the real dtype of b.

    Reference: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 49,
    1952, section 3; preconditioned: Saad, "Iterative methods for sparse linear systems", 2003, algorithm 9.1.
    """
    _check_start(b, x0)

    def system(v: Tensor) -> Tensor:
        return flat_real(apply(unflat_real(v, b)), batch_dims)

    def improved(r: Tensor) -> Tensor:
        return r if precondition is None else flat_real(precondition(unflat_real(r, b)), batch_dims)

    rhs = flat_real(b, batch_dims)
    x = torch.zeros_like(rhs) if x0 is None else flat_real(x0, batch_dims).clone()
    r = rhs if x0 is None else rhs - system(x)
    failed = torch.where(torch.isfinite(_dot(r, r)) & torch.isfinite(_dot(rhs, rhs)), 0, _NOT_FINITE)
    r = torch.where((failed == 0).unsqueeze(-1), r, 0)  # else 0 * NaN would reach x
    z = improved(r)
    rr = _dot(r, z)
    bb = rr if x0 is None else _dot(rhs, improved(rhs))
    scale = torch.where(failed == 0, torch.where(bb > 0, bb, rr), torch.nan)
    threshold = (rtol**2 * scale).clamp(min=atol**2)
    check_every = check_every or (1 if b.device.type == "cpu" else 4)
    rr, iterations, failed = _iterate(system, improved, x, r, z, threshold, failed, max_iterations, check_every)
    codes = torch.where((failed == 0) & (rr > threshold), _MAX_ITERATIONS, failed)  # 0 is CONVERGED
    return CGResult(unflat_real(x, b), iterations, torch.where(scale == 0, 0, (rr / scale).sqrt()), codes)


def _iterate(
    system: Callable[[Tensor], Tensor],
    improved: Callable[[Tensor], Tensor],
    x: Tensor,
    r: Tensor,
    z: Tensor,
    threshold: Tensor,
    failed: Tensor,
    max_iterations: int,
    check_every: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loop; x and its residual r are overwritten, z = P r. Returns <r, P r>, iterations, codes of failures."""
    p = z.clone()
    rr = _dot(r, p)
    active = (failed == 0) & (rr > threshold)
    iterations = torch.zeros_like(failed)
    for k in range(max_iterations):
        if k % check_every == 0 and not bool(active.any()):
            break
        q = system(p)  # it may return its argument (identity): nothing below writes into q
        curvature = _dot(p, q)
        failed = torch.where(active, _failure(curvature), failed)
        active = active & (failed == 0)
        alpha = torch.where(active, rr / curvature, 0).unsqueeze(-1)
        q = torch.where(active.unsqueeze(-1), q, 0)  # 0 * NaN is NaN: a frozen sample must not see q
        x.addcmul_(alpha, p)
        r.addcmul_(alpha, q, value=-1)
        z = improved(r)
        rr_next = torch.where(active, _dot(r, z), rr)
        beta = torch.where(active, rr_next / rr, 0).unsqueeze(-1)
        p = torch.addcmul(z, beta, p)
        iterations += active
        rr = rr_next
        active = active & (rr > threshold)
    return rr, iterations, failed


def _check_start(b: Tensor, x0: Tensor | None) -> None:
    if x0 is not None and (x0.shape != b.shape or x0.dtype != b.dtype):
        raise InputError(
            f"cg: expected x0 like b, {b.dtype} {tuple(b.shape)}, got {x0.dtype} {tuple(x0.shape)}; convert it."
        )


def _failure(curvature: Tensor) -> Tensor:
    """Code of what is wrong with <p, A p>, 0 if nothing is."""
    bad = torch.where(torch.isfinite(curvature), _NOT_POSITIVE, _NOT_FINITE)
    return torch.where((curvature > 0) & torch.isfinite(curvature), 0, bad)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)
