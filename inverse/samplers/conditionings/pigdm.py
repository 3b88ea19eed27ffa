"""PiGDM: pseudo-inverse guidance. The score of the data under x0 ~ N(D, r^2 I), carried back through the denoiser.

    D_y = D + sigma^2 J^T A^H (r^2 A A^H + sigma_y^2 I)^-1 (y - A D),   J = dD/dx

(Song, Vahdat, Mardani and Kautz, Pseudoinverse-guided diffusion models for inverse problems, ICLR 2023, equations 7 to
9, the guidance unscaled, as Bayes' rule has it). The data meet two covariances of x0 given x: r^2 I inside the inverse,
sigma^2 J, the true one, outside of it; where these are the same it is exact. sigma_y = 0 is a limit that works: D_y =
D + (sigma^2/r^2) J^T A^+ (y - A D). For large sigma D_y tends to m + C A^H (s^2 A A^H + sigma_y^2 I)^-1 (y - A m), m
and C mean and covariance of the images, s^2 their mean variance: what varies more than s^2 is overshot, and few steps
then diverge on it.

Certificate (experiments/exactness.py): Gaussian inpainting, 100 evaluations, ancestral: mean off by 0.90 posterior
standard deviations, twice the variance, W2 16.3 x floor, coverage .93; with error=True 0.40, 9.3 x, .86; the ODE 28 x
and 14.5 x. Gaussian blur, error=True: 3.8 x, but 32 x with 20 evaluations. Two modes (fixture B1), 100 evaluations: W1
.04, with error=True .05, the ODE .26 and .34.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.covariance import Isotropic
from inverse.samplers.data_step import correction
from inverse.samplers.jacobian import Linearised
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class PiGDM(Conditioning):
    """Conditioning of PiGDM; one evaluation and one backward pass a step, and one solve by conjugate gradients.

    Args:
        data_std: s of r^2 = sigma^2 s^2 / (sigma^2 + s^2); 1 is the paper's, None the standard deviation of the
            prior's images.
        error: take the prior's own error r^2 = `prior.mse(sigma)` instead. Better for Gaussian images; real ones are
            mostly air, which is certain, so that where something is r^2 is far below sigma^2 J and the steps diverge.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop.

    Raises:
        InputError: data_std not positive, or iterations below 1.
    """

    data_std: float | None = None
    error: bool = False
    iterations: int = 100
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        if self.data_std is not None:
            check_positive("data_std", self.data_std)
        if self.iterations < 1:
            raise InputError(f"PiGDM: iterations must be at least 1, got {self.iterations}.")

    def variance(self, prior: Denoiser, sigma: float) -> float:
        """r^2 at one noise level."""
        if self.error:
            return prior.mse(sigma)
        s = self.data_std or prior.data_std
        return (sigma * s) ** 2 / (sigma**2 + s**2)

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
        """D_y and D at one noise level; one network evaluation and one gradient through it."""
        point = Linearised(problem, prior, x, sigma)
        variance = self.variance(prior, sigma)
        step = correction(
            problem,
            point.denoised,
            problem.gram(point.denoised),
            Isotropic(variance**0.5),
            problem.sigma_y**2,
            iterations=self.iterations,
            rtol=self.rtol,
        )
        guidance = sigma**2 / variance * point.transposed(step, last=True)
        return Estimate(point.denoised + guidance, point.denoised)
