"""What is believed of x0 at one noise level, N(D, L L^H), set against the data: their likelihood, and draws given them.

Both come from the same system in the unit-scale unknown z, x0 = D + L z. A clue x' = x0 + n / sqrt(w), n ~ N(0, I),
which a sampler makes of x at the next level, joins the data:

    M z = L^H (A^H (y - A D) / sigma_y^2 + w (x' - D)),   M = I + L^H (A^H A / sigma_y^2 + w I) L
    -2 log p(y, x') = |z|^2 + |y - A x0|^2 / sigma_y^2 + w |x' - x0|^2 + log det M + constants

The three squares are evaluated at x0 = D + L z and not by the product that equals them at the solution: their error is
then of second order in that of z, and nothing cancels where the noise is small.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from inverse.linalg.cg import cg
from inverse.samplers.particles import ParticleRandom, squares
from inverse.samplers.problem import Problem

ENTRIES = 2**22
"""Of dense matrices in memory at a time."""


class Belief(ABC):
    """x0 ~ N(D, L L^H) before the data, one row per particle.

    Args:
        problem: data, operator and noise level above 0, one row per particle.
        mean: D (rows, *in_shape).
        factor: L, with the standard deviation `std` of a `CovarianceFactor`, for all rows or one each.
        pull: A^H (y - A D) / sigma_y^2, where it is known.
    """

    def __init__(self, problem: Problem, mean: Tensor, factor: Any, pull: Tensor | None = None):
        self.problem, self.mean, self.factor = problem, mean, factor
        if pull is None:
            pull = (problem.adjoint_y - problem.gram(mean)) / problem.sigma_y**2
        self.pull = pull

    def log_likelihood(self, clue: Tensor | None = None, weight: float = 0.0) -> Tensor:
        """log p(y), or log p(y | x') (rows,), double precision; see the class for constants left out.

        Args:
            clue: x' (rows, *in_shape).
            weight: w, its precision.
        """
        value, _ = self._least(clue, weight, data=True)
        if clue is not None:
            value = value - self._least(clue, weight, data=False)[0]
        return -0.5 * value + self._constant

    def fit(self) -> tuple[Tensor, Tensor]:
        """log p(y) as above, and D_y - D, the shift of the mean that the data ask for; one solve for both."""
        value, shift = self._least(None, 0.0, data=True)
        return -0.5 * value + self._constant, shift

    @property
    def _constant(self) -> float:
        return -0.5 * self.problem.operator.measurements * math.log(2 * math.pi * self.problem.sigma_y**2)

    def _least(self, clue: Tensor | None, weight: float, *, data: bool) -> tuple[Tensor, Tensor]:
        """-2 log of the density of clue and data, or of the clue alone, without its constants; and x0 - D there."""
        pull = self.pull if data else torch.zeros_like(self.mean)
        if clue is not None:
            pull = pull + weight * (clue - self.mean)
        z, determinant = self._solve(self.factor.adjoint(pull), weight, data=data)
        shift = self.factor.apply(z)
        x0 = self.mean + shift
        value = squares(z) + determinant
        if data:
            self.problem.work.grams += 0.5
            value = value + squares(self.problem.misfit(x0)) / self.problem.sigma_y**2
        if clue is not None:
            value = value + weight * squares(clue - x0)
        return value, shift

    @abstractmethod
    def _solve(self, right: Tensor, weight: float, *, data: bool) -> tuple[Tensor, Tensor]:
        """z of M z = right, and log det M over real components (rows,)."""

    @abstractmethod
    def draw(self, random: ParticleRandom) -> Tensor:
        """x0 given the data (rows, *in_shape)."""

    @abstractmethod
    def take(self, rows: Tensor, problem: Problem) -> Belief:
        """The belief of some of the particles."""


class SharedBelief(Belief):
    """L is the same for all particles of a system, by conjugate gradients.

    Their determinants are then equal as well and are left out of `log_likelihood`, a constant of the system.

    Args:
        problem, mean, factor: see `Belief`.
        tolerance: norm of the residual at which a solve stops, where 1 is one standard deviation of x0 given
            the data: the error of draws, and the square root of that of log-likelihoods.
        iterations: cap on the iterations.
    """

    def __init__(
        self, problem: Problem, mean: Tensor, factor: Any, tolerance: float, iterations: int, pull: Tensor | None = None
    ):
        super().__init__(problem, mean, factor, pull)
        self.tolerance, self.iterations = tolerance, iterations

    def take(self, rows: Tensor, problem: Problem) -> SharedBelief:
        """The belief of some of the particles."""
        taken = replace(self.factor, std=taken_std(self.factor, rows))
        return SharedBelief(problem, self.mean[rows], taken, self.tolerance, self.iterations, self.pull[rows])

    def draw(self, random: ParticleRandom) -> Tensor:
        """x0 given the data (rows, *in_shape), by one perturbed solve."""
        problem, shape = self.problem, self.mean.shape[1:]
        before = self.factor.apply(random.normal(shape, dtype=self.mean.dtype))
        noise = problem.operator.H(random.normal(problem.y.shape[1:], dtype=problem.y.dtype))
        problem.work.grams += 0.5
        pull = self.pull - problem.gram(before) / problem.sigma_y**2 - problem.restrict(noise) / problem.sigma_y
        z, _ = self._solve(self.factor.adjoint(pull), 0.0, data=True)
        return self.mean + before + self.factor.apply(z)

    def _solve(self, right: Tensor, weight: float, *, data: bool) -> tuple[Tensor, Tensor]:
        problem, factor = self.problem, self.factor
        precision = 1 / problem.sigma_y**2 if data else 0.0

        def system(z: Tensor) -> Tensor:
            x = factor.apply(z)
            curved = weight * x
            if data:
                curved = curved + precision * problem.gram(x)
            return z + factor.adjoint(curved)

        solved = cg(
            system,
            right,
            precondition=factor.preconditioner(1.0, precision * problem.density + weight),
            rtol=4 * torch.finfo(right.dtype).eps,
            atol=self.tolerance,
            max_iterations=self.iterations,
        )
        if data:
            problem.work.count_cg(solved.iterations)
        return solved.x, torch.zeros(len(right), dtype=torch.float64, device=right.device)


class OwnBelief(Belief):
    """L is each particle's own, by dense matrices in double precision; `log_likelihood` has all its constants.

    Args:
        problem, mean, factor: see `Belief`.
        gram: A^H A as a matrix, from `dense_gram`.
    """

    def __init__(self, problem: Problem, mean: Tensor, factor: Any, gram: Tensor, pull: Tensor | None = None):
        super().__init__(problem, mean, factor, pull)
        self.gram = gram

    def take(self, rows: Tensor, problem: Problem) -> OwnBelief:
        """The belief of some of the particles."""
        taken = replace(self.factor, std=taken_std(self.factor, rows))
        return OwnBelief(problem, self.mean[rows], taken, self.gram, self.pull[rows])

    def draw(self, random: ParticleRandom) -> Tensor:
        """x0 given the data (rows, *in_shape): z ~ N(M^-1 b, M^-1) by the root of M."""
        noise = random.normal(self.mean.shape[1:], dtype=self.mean.dtype)
        z, _ = self._solve(self.factor.adjoint(self.pull), 0.0, data=True, noise=noise)
        return self.mean + self.factor.apply(z)

    def _solve(self, right: Tensor, weight: float, *, data: bool, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        curved = weight * torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        if data:
            curved = curved + self.gram / self.problem.sigma_y**2
        flat = right.flatten(1).to(self.gram.dtype)
        white = None if noise is None else noise.flatten(1).to(self.gram.dtype)
        z, determinants = torch.empty_like(flat), []
        rows = max(1, ENTRIES // self.gram.numel())
        for start in range(0, len(flat), rows):
            part = slice(start, start + rows)
            root = self._root(curved, part)
            z[part] = torch.cholesky_solve(flat[part, :, None], root)[..., 0]
            if white is not None:
                z[part] += torch.linalg.solve_triangular(root.mH, white[part, :, None], upper=True)[..., 0]
            logs = root.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
            determinants.append((2 + 2 * right.is_complex()) * logs.expand(len(flat[part])))
        return z.to(right.dtype).reshape(right.shape), torch.cat(determinants)

    def _root(self, curved: Tensor, part: slice) -> Tensor:
        """Cholesky factor of M (rows or 1, n, n)."""
        factor = replace(self.factor, std=taken_std(self.factor, part))
        n, shape = len(curved), self.mean.shape[1:]
        units = torch.eye(n, dtype=self.mean.dtype, device=curved.device).reshape(n, 1, *shape)
        columns = factor.apply(units).flatten(2).permute(1, 2, 0).to(curved.dtype)
        return torch.linalg.cholesky(
            torch.eye(n, dtype=curved.dtype, device=curved.device) + columns.mH @ curved @ columns
        )


def dense_gram(problem: Problem) -> Tensor:
    """A^H A as a matrix (n, n), double precision."""
    like = problem.adjoint_y
    shape = like.shape[1:]
    units = torch.eye(shape.numel(), dtype=like.dtype, device=like.device).reshape(-1, *shape)
    columns = problem.gram(problem.restrict(units)).flatten(1)
    return columns.mT.to(torch.complex128 if like.is_complex() else torch.float64)


def averaged(factor: Any, count: int) -> Any:
    """The factor whose variance is the mean over the `count` particles of every system."""
    std = factor.std
    if not isinstance(std, Tensor) or len(std) == 1:
        return factor
    variance = (std**2).unflatten(0, (-1, count)).mean(1)
    return replace(factor, std=variance.sqrt().repeat_interleave(count, 0))


def taken_std(factor: Any, rows: Tensor | slice) -> Any:
    """The standard deviation of some of the rows; one that holds for all stays."""
    std = factor.std
    return std[rows] if isinstance(std, Tensor) and len(std) > 1 else std
