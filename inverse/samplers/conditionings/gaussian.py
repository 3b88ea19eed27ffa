"""The formula that most conditionings share: x0 given x_sigma is N(D, C), C = L L^H, and the data are Gaussian.

    D_y = D + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A D)

They differ in the rule for L alone. The mean, or with `draw` a draw of x0 given x and y, costs one solve by conjugate
gradients (`inverse.samplers.data_step`, `inverse.samplers.covariance`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.covariance import draw as draw_x0
from inverse.samplers.data_step import Factor, correction
from inverse.samplers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class GaussianConditioning(Conditioning):
    """Conditioning by a Gaussian of x0 given x_sigma.

    Args:
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.
        tolerance: error at which they stop as well, root mean square, in standard deviations of x0 given x_sigma and y
            as the preconditioner knows them: up to four times less than it is where samples are missing.

    Raises:
        InputError: iterations below 1.
    """

    iterations: int = 100
    rtol: float = 1e-3
    tolerance: float = 0.0
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"{type(self).__name__}: iterations must be at least 1, got {self.iterations}.")

    @abstractmethod
    def gaussian(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Factor]:
        """D and L at one noise level; one network evaluation."""

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
        """D_y or a draw, and D, at one noise level; one network evaluation, no gradient."""
        denoised, factor = self.gaussian(problem, prior, x, sigma)
        factor, k = self.corrected(problem, denoised, factor, random)
        solve: dict[str, Any] = {"iterations": self.iterations, "rtol": self.rtol, "tolerance": self.tolerance}
        if draw:
            return Estimate(draw_x0(problem, denoised, factor, random, **solve), denoised, k)
        step = correction(problem, denoised, problem.gram(denoised), factor, problem.sigma_y**2, **solve)
        return Estimate(denoised + step, denoised, k)

    def corrected(
        self, problem: Problem, denoised: Tensor, factor: Any, random: SampleRandom
    ) -> tuple[Factor, Tensor | None]:
        """L as the data correct it, and the innovation per item; this one leaves L as it is."""
        return factor, None
