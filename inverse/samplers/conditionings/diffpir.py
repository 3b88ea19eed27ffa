"""DiffPIR: half-quadratic splitting. The proximal step of the data at the denoised image, weighted by the noise level.

    D_y = argmin_x  ||y - A x||^2 + rho ||x - D||^2,   rho = lambda sigma_y^2 / sigma^2

(Zhu, Zhang, Liang, Cao, Wen, Timofte and Van Gool, Denoising diffusion models for plug-and-play image restoration, CVPR
Workshops 2023, equation 13). It is the posterior mean of x0 ~ N(D, r^2 I) with r^2 = sigma^2 / lambda, which grows
without bound where the true error saturates at the variance of the images: for large sigma D_y goes to the image that
fits the data exactly, D + A^+ (y - A D), as it does at every level for sigma_y = 0. Its step takes the share zeta of
the noise afresh, whatever the length of the step: `DDIM(eta=zeta**0.5, convention="dds")`.

Certificate (experiments/exactness.py): Gaussian inpainting, 100 evaluations, lambda 1 and zeta 1: mean off by 0.19
posterior standard deviations, half of the variance, W2 5.9 x floor, coverage .77; published, lambda 7 and zeta 0.3:
1.5, seven times the variance, 33 x, .99. Two modes (fixture B1): W1 .10 and .18.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inverse.errors import check_positive
from inverse.priors.base import Denoiser
from inverse.samplers.conditionings.gaussian import GaussianConditioning
from inverse.samplers.covariance import Isotropic
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class DiffPIR(GaussianConditioning):
    """Conditioning of DiffPIR; one evaluation a step, no gradient.

    Args:
        weight: lambda; 1 is Bayes' rule while sigma is far below the spread of the images. Published: 1 for
            inpainting, 7 for blur, in code whose ranges of image and noise differ by a factor 2.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop.

    Raises:
        InputError: weight not positive, or iterations below 1.
    """

    weight: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("weight", self.weight)

    def gaussian(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, Isotropic]:
        """D and r = sigma / lambda^(1/2)."""
        return problem.denoise(prior, x, sigma), Isotropic(sigma / self.weight**0.5)
