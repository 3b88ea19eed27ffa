"""Learned covariance: the data step of DDS with what the prior knows about its own error in the place of r^2 I.

    C = V^(1/2) F^H diag(c_k) F V^(1/2),   L = V^(1/2) F^H diag(c_k^(1/2)),   C = L L^H
    D_y = D + L z,   (sigma_y^2 I + L^H A^H A L) z = L^H A^H (y - A D)

V is the variance per pixel from the prior's second output, c_k the power spectrum of its whitened error. Ours; exact
for a stationary Gaussian prior. No gradient through the network, one transform more than DDS in each direction. Cosines
(real images) spread their power unevenly over the pixels; V is divided by that, so that C has the stated variance.
With `innovation` the data correct C in scale, and in complex images between the phase of the image, along which most of
the error of an MR image lies, and across it.

With the integrator `Bridge`, x0 is a draw from N(D_y, C_y), C_y the covariance after the data.

Certificate (experiments/exactness.py), with `Bridge(draw_last=True)`: Gaussian inpainting, 2 evaluations: W2 1.02 x
floor with the covariance known, 1.05 x measured on draws in learned modes, coverage .90; with its own tolerances and
the innovation, 5 evaluations: 1.04 x; measured in radial waves, 2.5 x at 5 and 2.0 x at 20, coverage .90; ancestral
steps 4.2 x at 20; prior draws 317 x. Two modes on the line, 50 evaluations: W1 .04 to .06 (prior draws .33).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.gaussian import GaussianConditioning
from inverse.samplers.covariance import CovarianceFactor, modes_of
from inverse.samplers.innovation import corrected
from inverse.samplers.problem import Problem


@dataclass(frozen=True, kw_only=True)
class LearnedCovariance(GaussianConditioning):
    """Conditioning by the learned covariance.

    Args:
        innovation: correct C, per sample and step, by what the data show of it (`inverse.samplers.innovation`): its
            scale, its spectrum, and for complex images how much of it lies along the phase.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.
        tolerance: error at which they stop as well, root mean square, in standard deviations of x0 given x_sigma and y
            as the preconditioner knows them: up to four times less than it is where samples are missing.
        variance: use the prior's variance per pixel; False takes its mean squared error everywhere.
        spectrum: use the spectrum of the prior's error; False takes independent pixels.

    Raises:
        InputError: iterations below 1.
    """

    innovation: bool = True
    rtol: float = 1e-4
    tolerance: float = 0.01
    variance: bool = True
    spectrum: bool = True

    def gaussian(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float) -> tuple[Tensor, CovarianceFactor]:
        """Mean D and factor L of the Gaussian that the prior states for x0 given x_sigma.

        A prior without variance per pixel gives V = mse(sigma), one without spectrum c_k = 1.
        """
        calibration = prior.calibration if self.spectrum else None
        modes = modes_of(x, calibration)
        power = torch.ones_like(modes.radius) if calibration is None else calibration.power_map(sigma, modes.radius)
        if self.variance and prior.moments is not None:
            denoised, variance = prior.moments(x, sigma)
            denoised, scale = problem.restrict(denoised), variance / modes.spread(power)
            problem.work.nfe += 1
        else:
            denoised = problem.denoise(prior, x, sigma)
            scale = x.real.new_full((1, 1, 1), prior.mse(sigma))
        if scale.ndim < x.ndim:
            scale = scale.unsqueeze(-3)
        return denoised, CovarianceFactor(modes, problem.restrict(scale.sqrt()), power.sqrt())

    def corrected(
        self, problem: Problem, denoised: Tensor, factor: CovarianceFactor, random: SampleRandom
    ) -> tuple[CovarianceFactor, Tensor | None]:
        """L as the data correct it, and the innovation per item."""
        return corrected(problem, denoised, factor, random) if self.innovation else (factor, None)
