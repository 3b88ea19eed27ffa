"""DDS: decomposed diffusion sampling. The denoised image is moved towards the data by conjugate gradients.

    D_y = argmin_x  gamma/2 ||y - A x||^2 + 1/2 ||x - D||^2,   (I + gamma A^H A) D_y = D + gamma A^H y

(Chung, Lee and Ye, Decomposed diffusion sampler for accelerating large-scale inverse problems, ICLR 2024, the proximal
form of its data-consistency step). If x0 given x_sigma is N(D, r^2 I), this is its posterior mean exactly when
gamma = r^2(sigma) / sigma_y^2; the paper's constant gamma is that curve frozen at one noise level.

Certificate (experiments/exactness.py): Gaussian inpainting, ancestral, 20 evaluations: mean off by 1.5 posterior
standard deviations, W2 31 x floor, coverage .94; 100 evaluations 27 x, near its limit, as the true covariance is not
r^2 I; the published constants 13 x at coverage .51; prior draws 317 x. Two modes on the line: W1 .11, .07; .91
published.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.samplers.conditionings.gaussian import GaussianConditioning
from inverse.samplers.covariance import Isotropic
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class DDS(GaussianConditioning):
    """Conditioning of DDS.

    Args:
        gamma: weight of the data, units of 1 / (operator norm)^2; None is the noise-aware r^2(sigma) / sigma_y^2, with
            r^2 = `prior.mse(sigma)`. The paper's value is 5, with 5 iterations and rtol 0 (`method="dds-published"`);
            without noise it plays no part, and the iterations alone regularise.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop.

    Raises:
        InputError: gamma negative, or iterations below 1.
    """

    gamma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma is not None and self.gamma < 0:
            raise InputError(f"DDS: gamma must not be negative, got {self.gamma}.")

    def gaussian(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Isotropic]:
        """D and r, where a given gamma means r^2 = gamma sigma_y^2."""
        denoised = problem.denoise(prior, x, sigma)
        if self.gamma is None:
            return denoised, Isotropic(prior.mse(sigma) ** 0.5)
        return denoised, Isotropic(self.gamma**0.5 * problem.sigma_y if problem.sigma_y > 0 else 1.0)
