"""The one data step behind all conditionings: the posterior of x0 ~ N(mean, L L^H) given y, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from inverse.linalg.cg import cg
from inverse.samplers.problem import Problem


class Factor(Protocol):
    """A factor L of the covariance C = L L^H of x0 given x_sigma."""

    def apply(self, z: Tensor) -> Tensor:
        """L z."""
        ...

    def adjoint(self, x: Tensor) -> Tensor:
        """L^H x."""
        ...

    def preconditioner(self, noise_variance: float, density: float) -> Callable[[Tensor], Tensor]:
        """Near the inverse of v I + L^H A^H A L, Hermitian and positive definite, A^H A being about `density` I."""
        ...

    def scaled(self, k: Tensor) -> Factor:
        """The factor of k C, k one number per item."""
        ...


def correction(
    problem: Problem,
    mean: Tensor,
    gram_mean: Tensor,
    factor: Factor,
    noise_variance: float,
    *,
    iterations: int,
    rtol: float,
    tolerance: float = 0.0,
    data_noise: Tensor | None = None,
) -> Tensor:
    """C A^H (A C A^H + v I)^-1 (y - A mean), v the noise variance, in the symmetric form with a unit-scale unknown.

    L z with (v I + L^H A^H A L) z = L^H (A^H y - A^H A mean): v = 0 is a limit that works (projection).

    Args:
        problem: data and operator.
        mean: the mean of x0 before the data (items, *in_shape).
        gram_mean: A^H A mean.
        factor: L.
        noise_variance: v, per real component.
        iterations: cap on the iterations.
        rtol: relative residual at which a sample stops; 0 runs all iterations.
        tolerance: error of the solve at which a sample stops as well, in standard deviations of z given y (root mean
            square): z given y has the covariance v (v I + L^H A^H A L)^-1, which the norm of residuals measures by.
        data_noise: A^H e for a draw e of the data's noise, taken off A^H y; None for the mean.
    """
    misfit = problem.adjoint_y - gram_mean
    if data_noise is not None:
        misfit = misfit - data_noise
    solved = cg(
        lambda z: noise_variance * z + factor.adjoint(problem.gram(factor.apply(z))),
        factor.adjoint(misfit),
        precondition=factor.preconditioner(noise_variance, problem.density),
        rtol=rtol,
        atol=tolerance * (noise_variance * problem.unknowns) ** 0.5,
        max_iterations=iterations,
    )
    problem.work.count_cg(solved.iterations)
    return factor.apply(solved.x)
