"""Largest eigenvalue of a Hermitian positive semidefinite operator that is known by its action only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.linalg.inner import inner, norm


@torch.no_grad()
def largest_eigenvalue(
    apply: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
    seed: int = 0,
    rtol: float = 1e-4,
    max_iterations: int = 100,
) -> float:
    """Largest eigenvalue by Lanczos, which is power iteration that keeps what it has learned.

    Args:
        apply: x -> A x, Hermitian positive semidefinite.
        shape: shape of x, one sample without batch.
        dtype: dtype of x, default complex64.
        device: where x lives.
        seed: seed of the start vector; a generator of its own, the global one is not touched.
        rtol: relative bound on the error of the eigenvalue, default 1e-4.
        max_iterations: limit of applications, default 100.

    Returns:
        The eigenvalue, from below; 0 for the zero operator or an empty shape.

    Notes:
        No re-orthogonalisation: lost orthogonality repeats the largest eigenvalue, it does not move it.

    Reference: Paige, "Accuracy and effectiveness of the Lanczos algorithm for the symmetric eigenproblem", Linear
    Algebra Appl. 34, 1980.
    """
    # Drawn on the CPU, so that every device starts from the same vector.
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(tuple(shape), generator=generator, dtype=dtype).to(device)
    if start.numel() == 0:
        return 0.0
    q, previous = start / norm(start, 0), torch.zeros_like(start)
    alphas: list[float] = []
    betas: list[float] = []
    value = 0.0
    for _ in range(min(max_iterations, 2 * start.numel())):
        w = apply(q)
        alpha = float(inner(q, w, 0))
        alphas.append(alpha)
        w = w - alpha * q - (betas[-1] if betas else 0.0) * previous
        beta = float(norm(w, 0))
        value, bound = _top_ritz(alphas, betas, beta)
        if beta <= 1e-30 or bound <= rtol * abs(value):
            break
        betas.append(beta)
        q, previous = w / beta, q
    return max(value, 0.0)


def _top_ritz(alphas: list[float], betas: list[float], beta: float) -> tuple[float, float]:
    """Largest Ritz value of the tridiagonal matrix and the bound |beta * last component| on its error."""
    t = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    if betas:
        off = torch.tensor(betas, dtype=torch.float64)
        t += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(t)
    return float(values[-1]), abs(beta * float(vectors[-1, -1]))
