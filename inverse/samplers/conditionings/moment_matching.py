"""Moment matching: x0 given x_sigma is N(D, C) with the covariance that the denoiser itself implies, C = sigma^2 J.

    D_y = D + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A D),   C = sigma^2 dD/dx = Cov(x0 | x_sigma)

The second moment is exact for every prior (Efron, Tweedie's formula and selection bias, 2011, equation 2.8); used so by
Boys, Girolami, Pidstrigach, Reich, Mosca and Akyildiz, Tweedie moment projected diffusions, 2023, and with conjugate
gradients by Rozet, Andry, Lanusse and Louppe, Learning diffusion priors from observations by expectation maximization,
NeurIPS 2024, section 4. One forward pass a level; each product with C is one backward pass through its graph.

A draw of x0 given x and y (integrator `Bridge`) costs one solve and one C^(1/2) n by Lanczos, all products with C:

    x0 = u + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A u - e),   u = D + C^(1/2) n,   e ~ N(0, sigma_y^2 I)

For Gaussian images this is exact at any number of steps. sigma_y = 0 is a limit that works; the solves then stop at the
residual that `rtol` names relative to the misfit, for want of a noise to compare it with. For large sigma C is the
covariance of the images, and one step does the work of all.

Certificate (experiments/exactness.py): Gaussian inpainting, blur and denoising with the bridge, draw_last=True: 2
evaluations and at most 84, 74 and 59 backward passes in all: W2 1.05, 1.01 and 1.03 x floor, coverage .90; on the grid
(25, 0.2, 0) 71, 63 and 52: 0.97, 1.01 and 0.99 x. Ancestral, 100 evaluations: 1.6 x on inpainting; with one product a
level 8.3 x, 12.2 x and 3.8 x. Two modes (fixture B1), whose x0 given x is not Gaussian: W1 .06 with 50
evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.linalg.inner import norm, scale_samples
from inverse.linalg.lanczos import lanczos
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.jacobian import Linearised
from inverse.samplers.problem import Problem

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MomentMatching(Conditioning):
    """Conditioning by the denoiser's own covariance; one evaluation, up to 2 `iterations` backward passes a step.

    The transpose J^T stands for J, the same for an exact denoiser; negative values of a network's J count as 0.

    Args:
        iterations: cap on the products with C in the solve, and again in the square root of a draw. Published: 1 for
            photographs, 3 to 5 for MRI.
        residual: the solve stops at a residual of this share of the data's noise, sigma_y sqrt(m): what it returns is
            the answer to data that differ so much. In posterior standard deviations the error is no larger.
        rtol: the square root stops when a product changes it by this share, and so does the residual for sigma_y = 0,
            as a share of the misfit.

    At high levels, where the next one makes good what is left undone, all three are wider by 1 + sigma'^2 / mse(sigma).

    Raises:
        InputError: iterations below 1, residual or rtol not positive.
    """

    iterations: int = 50
    residual: float = 5e-2
    rtol: float = 1e-3
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"MomentMatching: iterations must be at least 1, got {self.iterations}.")
        check_positive("residual", self.residual)
        check_positive("rtol", self.rtol)

    def estimate(
        self,
        problem: Problem,
        prior: Denoiser,
        x: Tensor,
        sigma: float,
        random: SampleRandom,
        *,
        sigma_next: float,
        draw: bool = False,
    ) -> Estimate:
        """D_y or a draw, and D, at one noise level; one network evaluation, all gradients through its one graph."""
        point = Linearised(problem, prior, x, sigma)

        def covariance(v: Tensor) -> Tensor:
            return sigma**2 * point.transposed(v)

        mean, noise = point.denoised, None
        relief = 1 + sigma_next**2 / prior.mse(sigma)
        if draw:
            white = problem.restrict(random.normal(x.shape[1:], dtype=x.dtype))
            mean = mean + lanczos(covariance, white, _root, rtol=self.rtol * relief, max_iterations=self.iterations).x
            noise = problem.sigma_y * random.normal(problem.y.shape[1:], dtype=problem.y.dtype)
        return Estimate(mean + self._correction(problem, covariance, mean, noise, relief), point.denoised)

    def _correction(
        self, problem: Problem, covariance: Linear, mean: Tensor, noise: Tensor | None, relief: float
    ) -> Tensor:
        """C A^H (A C A^H + sigma_y^2 I)^-1 (y - A mean - noise), solved in the space of the data."""
        operator, variance = problem.operator, problem.sigma_y**2
        pulled: list[Tensor] = []

        def apply(v: Tensor) -> Tensor:
            problem.work.grams += 1
            pulled.append(covariance(operator.H(v)))
            return operator(pulled[-1])

        def inverse(t: Tensor) -> Tensor:
            return torch.where(t < 0, 0, _inverse(t.clamp(min=0) + variance))  # C counts as 0: so does C A^H

        problem.work.grams += 0.5
        misfit = -problem.misfit(mean)
        if noise is not None:
            misfit = misfit - (noise if operator.weights is None else noise * operator.weights)
        limit: Tensor | float = relief * self.rtol
        if variance > 0:
            limit = relief * self.residual * math.sqrt(variance * operator.measurements) / norm(misfit)
        solved = lanczos(apply, misfit, inverse, residual=True, rtol=limit, max_iterations=self.iterations)
        problem.work.count_cg(solved.iterations)
        out = torch.zeros_like(mean)
        for weight, image in zip(solved.weights.unbind(-1), pulled, strict=True):
            out += scale_samples(weight.to(image.real.dtype), image)
        return out


def _root(t: Tensor) -> Tensor:
    return t.clamp(min=0).sqrt()


def _inverse(t: Tensor) -> Tensor:
    """1 / t, and 0 where t is 0 but for rounding."""
    zero = t <= torch.finfo(t.dtype).eps * t.amax(-1, keepdim=True)
    return torch.where(zero, 0, 1 / t)
