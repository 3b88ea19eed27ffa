"""Functions of a Hermitian operator that is known by its action only, by Chebyshev polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.inner import flat_real

NODES = 1024
"""Points at which the function is read; degrees stay well below."""


@dataclass(frozen=True)
class Chebyshev:
    """p(t) = sum_k c_k T_k(s), s = (2 t - low - high) / (high - low) in [-1, 1].

    Unlike a Krylov method it needs no inner products: every sample is treated alike and the host never waits.

    Args:
        coefficients: c_k, k = 0 to the degree.
        low: lower end of the interval.
        high: upper end.
    """

    coefficients: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def fit(
        cls, function: Callable[[Tensor], Tensor], low: float, high: float, *, tolerance: float = 1e-3
    ) -> Chebyshev:
        """The polynomial of lowest degree whose left-out coefficients sum to at most `tolerance`: a bound on its error.

        Args:
            function: t (n,) -> f(t) (n,), float64.
            low: lower end of the interval that holds the spectrum.
            high: upper end, above `low`.
            tolerance: largest |p - f| on the interval.

        Raises:
            InputError: an interval of no length, or a tolerance that is not positive.

        Source: Trefethen, Approximation Theory and Approximation Practice, 2013, chapters 3 and 4.
        """
        if not low < high or not tolerance > 0:
            raise InputError(f"Chebyshev: expected low < high and a tolerance above 0, got {low}, {high}, {tolerance}.")
        angles = math.pi * (torch.arange(NODES, dtype=torch.float64) + 0.5) / NODES
        values = function((low + high) / 2 + (high - low) / 2 * angles.cos())
        c = 2 / NODES * torch.cos(torch.arange(NODES)[:, None] * angles) @ values
        c[0] /= 2
        tail = c.abs().flip(0).cumsum(0).flip(0)  # sum over k >= n
        degree = int((tail[1:] > tolerance).sum())
        return cls(tuple(c[: degree + 1].tolist()), low, high)

    @property
    def degree(self) -> int:
        """Applications of the operator that `of` makes."""
        return len(self.coefficients) - 1

    def of(self, apply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """p(A) x by the three-term recurrence T_(k+1) = 2 s T_k - T_(k-1).

        Args:
            apply: x -> A x, Hermitian, spectrum within the interval.
            x: any shape that `apply` takes.
        """
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        total = self.coefficients[0] * x
        before, now = x, x
        for k, c in enumerate(self.coefficients[1:]):
            scaled = (apply(now) - centre * now) / half
            before, now = now, scaled if k == 0 else 2 * scaled - before
            total = total + c * now
        return total


def single_eigenvalue(apply: Callable[[Tensor], Tensor], probe: Tensor) -> float | None:
    """The only eigenvalue besides 0 of an operator that is a multiple of a projection, else None.

    So it is with A^H A of masks, masked unitary transforms and identities, and every function of such an operator is a
    straight line. Two applications to a probe v: A A v = c A v almost surely only then.

    Args:
        apply: x -> A x, Hermitian positive semidefinite.
        probe: random v, shape (1, *shape).
    """
    image = apply(probe)
    once, twice = flat_real(image), flat_real(apply(image))
    size = float(torch.linalg.vecdot(once, once))
    if size == 0:
        return None
    value = float(torch.linalg.vecdot(once, twice)) / size
    rest = float(torch.linalg.vector_norm(twice - value * once))
    rounding = torch.finfo(once.dtype).eps ** 0.5
    return value if rest <= rounding * value * size**0.5 else None
