"""DDRM: denoising diffusion restoration in the singular vectors of A, each of which knows its own noise level.

With A = U diag(s) V^H, ybar = U^H y / s is seen with the noise tau = sigma_y / s, and from sigma to sigma' < sigma

    sigma' >= tau:   x' = (1 - eta_b) D + eta_b ybar + (sigma'^2 - eta_b^2 tau^2)^(1/2) n
    sigma' <  tau:   x' = D + (1 - eta^2)^(1/2) sigma' (ybar - D) / tau + eta sigma' n
    not seen:        x' = D + (1 - eta^2)^(1/2) sigma' (x - D) / sigma + eta sigma' n

per coefficient, x and D those of V^H (Kawar, Elad, Ermon and Song, Denoising diffusion restoration models, NeurIPS
2022, equations 7 and 8, in the variance-exploding frame; the start is their equation 4). With eta_b = 1 this is what
DDNM+ does (Wang, Yu and Zhang, ICLR 2023, section 3.3).

A coefficient that was seen follows the data until their noise is reached, and forgets x; sigma_y = 0 ends at ybar
itself. Nothing is carried from what was seen to what was not but by the denoiser. Exact for no problem, and more steps
do not help: eta sigma' fresh noise at every step, however short, leaves ever less variance.

Certificate (experiments/exactness.py): Gaussian inpainting, 20 evaluations: mean off by 1.3 posterior standard
deviations, 2.4 times the variance of what was seen, W2 23 x floor, coverage .89; 100: 0.2, 0.4, 6.0 x, .79. Gaussian
blur, 20 and 100: 8.3 x and 14 x. Two modes (fixture B1): W1 .17 and .34; on the published grid (`ddpm_linear`) .16 and
.19.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.base import SVD, Operator
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.diffusion import default_grid
from inverse.samplers.grids import check_grid
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace

RANK = 1e3
"""Singular values below this many roundings of the largest one count as 0."""


@dataclass(frozen=True)
class DDRM(Sampler):
    """Sampler DDRM, for operators whose singular value decomposition is cheap; one evaluation a step, no gradient.

    Args:
        eta: share of fresh noise where the data say nothing or are noisier than sigma'.
        eta_b: weight of the data where they are less noisy.
        steps: network evaluations, where no grid is given.
        grid: decreasing noise levels, the last may be 0; None takes `default_grid(prior, steps)`.
        antithetic: opposite noise in pairs of samples, see `Sampler`.

    Raises:
        InputError: eta or eta_b outside [0, 1], steps below 1, or a grid that does not decrease; when run, an operator
            without `svd`.
    """

    eta: float = 0.85
    eta_b: float = 1.0
    steps: int = 20
    grid: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.eta <= 1 and 0 <= self.eta_b <= 1):
            raise InputError(f"DDRM: eta and eta_b must lie in [0, 1], got {self.eta} and {self.eta_b}.")
        if self.steps < 1:
            raise InputError(f"steps: expected at least 1, got {self.steps}.")
        if self.grid is not None:
            levels = torch.as_tensor(self.grid, dtype=torch.float64)
            check_grid(levels)
            object.__setattr__(self, "grid", tuple(levels.tolist()))

    def with_steps(self, steps: int) -> DDRM:
        """The same sampler on its default grid with another number of evaluations."""
        return DDRM(self.eta, self.eta_b, steps, antithetic=self.antithetic)

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.steps if self.grid is None else len(self.grid) - 1

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The grid, or the default one for this prior."""
        return self.grid or tuple(default_grid(prior, self.steps).tolist())

    def check(self, operator: Operator, prior: Denoiser) -> None:
        """Refuse operators without a singular value decomposition.

        Raises:
            InputError: the operator is nonlinear, or its `svd` is None.
        """
        super().check(operator, prior)
        if operator.svd is None:  # type: ignore[attr-defined]
            raise InputError(
                f"operator {operator!r}: has no cheap singular value decomposition, which DDRM works in; "
                "use a method that takes any operator, e.g. 'dds'."
            )

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item of the problem."""
        shape, dtype = problem.adjoint_y.shape[1:], problem.adjoint_y.dtype
        levels, data = self.levels(prior), _Coefficients.of(problem)
        x = data.start(levels[0] * random.normal(shape, dtype=dtype), levels[0])
        for sigma, sigma_next in pairwise(levels):
            denoised = problem.denoise(prior, x, sigma)
            trace.evaluation(sigma, denoised, denoised)
            noise = sigma_next * random.normal(shape, dtype=dtype)
            kept = math.sqrt(1 - self.eta**2)
            unseen = denoised + kept * sigma_next / sigma * (x - denoised) + self.eta * noise
            x = data.replace(unseen, self._seen(data, denoised, noise, sigma_next))
        return x

    def _seen(self, data: _Coefficients, denoised: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """Coefficients at sigma where the data say something, from D and noise of standard deviation sigma."""
        estimate, noise = data.Vh(denoised), data.Vh(noise)
        shrunk = (1 - (self.eta_b * data.tau / sigma) ** 2).clamp(min=0).sqrt() if sigma > 0 else 0.0
        known = (1 - self.eta_b) * estimate + self.eta_b * data.y + shrunk * noise
        share = math.sqrt(1 - self.eta**2) * sigma / data.tau.clamp(min=torch.finfo(data.tau.dtype).tiny)
        return torch.where(sigma >= data.tau, known, estimate + share * (data.y - estimate) + self.eta * noise)


@dataclass(frozen=True)
class _Coefficients:
    """The data in the singular vectors of A.

    Attributes:
        V, Vh: coefficients -> image and back.
        y: ybar, 0 where nothing was seen (items, *coefficients).
        tau: its noise level, broadcastable to y.
        seen: whether it was seen, bool, broadcastable to y.
    """

    V: Callable[[Tensor], Tensor]
    Vh: Callable[[Tensor], Tensor]
    y: Tensor
    tau: Tensor
    seen: Tensor

    @classmethod
    def of(cls, problem: Problem) -> _Coefficients:
        svd: SVD = problem.operator.svd  # type: ignore[union-attr, assignment]
        seen = svd.s > RANK * torch.finfo(svd.s.dtype).eps * svd.s.max()
        s = torch.where(seen, svd.s, 1)
        return cls(svd.V, svd.Vh, torch.where(seen, svd.Uh(problem.y) / s, 0), problem.sigma_y / s, seen)

    def start(self, noise: Tensor, sigma: float) -> Tensor:
        """sigma n where nothing was seen or the data are noisier than sigma, elsewhere ybar with noise up to sigma."""
        coefficients = self.Vh(noise)
        started = self.y + (1 - (self.tau / sigma) ** 2).clamp(min=0).sqrt() * coefficients
        return self.replace(noise, torch.where(self.tau < sigma, started, coefficients))

    def replace(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """x with the given coefficients where something was seen."""
        return x + self.V(torch.where(self.seen, coefficients - self.Vh(x), 0))
