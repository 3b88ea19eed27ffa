"""DPS: diffusion posterior sampling. The data pull on x through the gradient of their misfit at the denoised image.

    x' <- x' - zeta grad_x ||y - A(D(x))||,   grad_x = J^T A^H (A D - y) / ||y - A D||,   J = dD/dx

(Chung, Kim, McCann, Klasky and Ye, Diffusion posterior sampling for general noisy inverse problems, ICLR 2023,
algorithm 1: a gradient of ||.||^2 over ||.||, that is of the norm, whose factor 2 published code has within zeta). The
norm is that of one sample, never of a batch. The published step is taken in the variance-preserving frame x_vp = alpha
x, alpha = 1/sqrt(1 + sigma^2); from sigma to sigma' it moves x' of this frame by zeta / (alpha alpha') grad_x. As
ancestral steps move by (1 - sigma'^2/sigma^2) times what the estimate moves, the estimate is

    D_y = D - zeta / (alpha alpha' (1 - sigma'^2/sigma^2)) grad_x

and `DDIM(eta=1.0)` makes the published algorithm of it. It does not know sigma_y, which may be 0, and is exact for no
problem; as the shift does not shrink with the step, what it tends to depends on zeta and on the grid. At large sigma
the gradient is that of the linear regression of x0 on x. The data may be nonlinear.

Certificate (experiments/exactness.py): Gaussian inpainting, 1000 evaluations on the published grid, zeta 1: mean off by
0.47 posterior standard deviations, variance 3.5 of what was seen and 0.27 of what was not, W2 17.1 x floor, coverage
.62; zeta 0.3: W2 11.9 x, coverage .50. Two modes (fixture B1): W1 .41 and .76; prior draws .33.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.inner import norm, scale_samples
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.jacobian import Linearised
from inverse.samplers.problem import Problem

FORMS = ("norm", "squared", "likelihood")


@dataclass(frozen=True)
class DPS(Conditioning):
    """Conditioning of DPS; one evaluation and one backward pass a step.

    Args:
        zeta: step size; its unit is that of the image for the norm, image / data^2 for the square. Published: 0.3 to 1
            for images in [-1, 1]. The likelihood has none.
        form: what the gradient is taken of. "norm": ||y - A D||, as published. "squared": ||y - A D||^2, with the same
            step. "likelihood": log N(y; A D, sigma_y^2 I), D_y = D - sigma^2 / sigma_y^2 J^T A^H (A D - y), Bayes' rule
            with the uncertainty of D left out; independent of the step, but it diverges unless the steps are so short
            that (1 - sigma'^2/sigma^2) sigma^2 |A|^2 stays below sigma_y^2.

    Raises:
        InputError: zeta not positive, an unknown form; when run, the likelihood of data without noise.
    """

    zeta: float = 1.0
    form: str = "norm"
    nonlinear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.zeta < math.inf:
            raise InputError(f"DPS: zeta must be positive, got {self.zeta}.")
        if self.form not in FORMS:
            raise InputError(f"DPS: form is one of {', '.join(FORMS)}, got {self.form!r}.")

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
        if self.form == "likelihood" and problem.sigma_y == 0:
            raise InputError("DPS: the likelihood of data without noise has no gradient; use form='norm', or a noise.")
        point = Linearised(problem, prior, x, sigma)
        gradient = point.transposed(problem.gradient(point.denoised), last=True)
        if self.form == "likelihood":
            return Estimate(point.denoised - (sigma / problem.sigma_y) ** 2 * gradient, point.denoised)
        weight = self.zeta * math.sqrt((1 + sigma**2) * (1 + sigma_next**2)) / (1 - (sigma_next / sigma) ** 2)
        if self.form == "squared":
            return Estimate(point.denoised - 2 * weight * gradient, point.denoised)
        problem.work.grams += 0.5
        misfit = norm(problem.misfit(point.denoised))
        shift = scale_samples((weight / misfit).where(misfit > 0, 0), gradient)
        return Estimate(point.denoised - shift, point.denoised)
