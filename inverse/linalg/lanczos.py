"""Functions of a Hermitian operator applied to a vector, f(A) b, by Lanczos; every sample on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from inverse.linalg.inner import flat_real, norm, unflat_real


@dataclass(frozen=True)
class LanczosResult:
    """Result of `lanczos`.

    Attributes:
        x: f(A) b, shape of b; NaN for a sample for which A returned NaN or Inf.
        weights: x in the vectors that A was applied to, real, double precision (*batch, products); so that what is
            linear and was applied to these vectors too need not be applied to x.
        iterations: products with A each sample used, integer tensor (*batch).
    """

    x: Tensor
    weights: Tensor
    iterations: Tensor


@torch.no_grad()
def lanczos(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    function: Callable[[Tensor], Tensor],
    *,
    batch_dims: int = 1,
    residual: bool = False,
    rtol: float | Tensor = 1e-3,
    max_iterations: int = 30,
) -> LanczosResult:
    """f(A) b = |b| Q f(T) e_1, Q an orthonormal basis of the Krylov space of b, T = Q^H A Q tridiagonal.

    With f(t) = 1/(t + v) this is the iterate of conjugate gradients for (A + v I) x = b, without the loss of
    orthogonality that makes these slow on ill-conditioned systems: for an A that costs more than the basis does.

    A sample that has converged is frozen, so its result does not depend on what else is in the batch. Real and complex
    operators alike: the inner product is Re<a, b>.

    Args:
        apply: x -> A x, Hermitian, sample by sample; receives and returns the shape of b.
        b: the vectors (*batch, *shape), real or complex.
        function: f on a tensor of eigenvalues, element by element, e.g. `lambda t: t.clamp(min=0).sqrt()`.
        batch_dims: how many leading dimensions count the samples, default 1.
        residual: for f(t) = 1/(t + v), stop a sample when |b - (A + v I) x| <= rtol |b|. False stops it when one more
            product changes x by no more than rtol |x|.
        rtol: that share, a number or one per sample (*batch); default 1e-3.
        max_iterations: limit of products per sample, default 30; as many vectors are held in memory.

    Notes:
        The basis is orthogonalised in full. Where f is singular at an end of the spectrum, as the square root is at 0,
        convergence is slow for spectra without gaps.

    Reference: Druskin and Knizhnerman, "Two polynomial methods of calculating functions of symmetric matrices", USSR
    Comput. Math. Math. Phys. 29, 1989. The solve is Saad, "Iterative methods for sparse linear systems", 2003, 6.7.1.
    """
    start, length = flat_real(b, batch_dims), norm(b, batch_dims)
    failed = ~torch.isfinite(length)
    active = ~failed & (length > 0)
    basis = [_divided(start, length, active)]
    iterations = torch.zeros_like(active, dtype=torch.long)
    smallest = 8 * torch.finfo(start.dtype).eps
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    weights = torch.zeros((*active.shape, 0), dtype=torch.float64, device=b.device)
    for _ in range(min(max_iterations, start.shape[-1])):
        if not bool(active.any()):
            break
        w = flat_real(apply(unflat_real(basis[-1], b)), batch_dims)
        failed = failed | (active & ~torch.isfinite(w).all(-1))
        active = active & ~failed
        w = torch.where(active.unsqueeze(-1), w, 0)
        diagonal.append(torch.linalg.vecdot(basis[-1], w).double())
        w = _orthogonal(w, basis)
        beta = torch.linalg.vector_norm(w, dim=-1)
        before = pad(weights, (0, 1))
        weights = torch.where(active.unsqueeze(-1), _first_column(function, diagonal, beside), before)
        iterations += active
        left, whole = (weights - before).norm(dim=-1), weights.norm(dim=-1)
        if residual:  # no weights yet is not a residual of 0: f may be 0 where it is no inverse
            left, whole = torch.where(whole > 0, beta * weights[..., -1].abs(), torch.inf), torch.ones_like(whole)
        # Where beta is rounding the space is invariant, and x exact.
        active = active & (left > rtol * whole) & (beta > smallest * diagonal[-1].abs())
        beside.append(beta.double())
        basis.append(_divided(w, beta, active))
    weights = torch.where(failed.unsqueeze(-1), torch.nan, length.unsqueeze(-1) * weights)
    x = torch.zeros_like(start).masked_fill_(failed.unsqueeze(-1), torch.nan)
    for weight, q in zip(weights.unbind(-1), basis, strict=False):
        x += weight.unsqueeze(-1).to(x.dtype) * q
    return LanczosResult(unflat_real(x, b), weights, iterations)


def _divided(v: Tensor, length: Tensor, active: Tensor) -> Tensor:
    """v / length of the samples still active, 0 of the others."""
    return torch.where(active.unsqueeze(-1), v / length.unsqueeze(-1), 0)


def _orthogonal(w: Tensor, basis: list[Tensor]) -> Tensor:
    """w without its part in the space of the basis."""
    for _ in range(2):  # once leaves what rounding takes from the subtraction
        for q in basis:
            w = w - torch.linalg.vecdot(q, w).unsqueeze(-1) * q
    return w


def _first_column(function: Callable[[Tensor], Tensor], diagonal: list[Tensor], beside: list[Tensor]) -> Tensor:
    """f(T) e_1 (*batch, products), T with the given diagonal and the same beside it on both sides."""
    t = torch.diag_embed(torch.stack(diagonal, -1))
    if beside:
        off = torch.stack(beside, -1)
        t = t + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(t)
    return (vectors * (function(values) * vectors[..., 0, :]).unsqueeze(-2)).sum(-1)
