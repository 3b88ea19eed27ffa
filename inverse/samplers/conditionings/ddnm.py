"""DDNM: what the data determine is replaced by the data, the rest is left to the prior.

    D_y = D + A^+ (y - A D)

(Wang, Yu and Zhang, Zero-shot image restoration using denoising diffusion null-space model, ICLR 2023, equation 11). It
is the limit sigma_y = 0 of all conditionings by a Gaussian, and takes sigma_y for 0 whatever it is: noise in the data
goes into the image as it is, amplified where A is small. For data with noise the same authors have DDNM+, which is
`DDRM` at its eta_b = 1. The pseudo-inverse is applied by conjugate gradients, whose tolerance cuts off what would be
amplified most. No uncertainty remains in what was measured; at every sigma, as it plays no part. Published with
eta 0.85 and the unconditioned direction: `DDIM(0.85, "dds", "unconditioned")`.

Certificate (experiments/exactness.py): data with noise, for which it is not meant. Gaussian inpainting, 100
evaluations: mean off by 0.36 posterior standard deviations, no variance where it was seen and 0.48 of it elsewhere, W2
10.2 x floor, coverage .35; Gaussian blur, whose inverse amplifies the noise: 127 x, .00.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.covariance import Isotropic
from inverse.samplers.data_step import correction
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class DDNM(Conditioning):
    """Conditioning of DDNM, for data without noise; one evaluation a step, no gradient.

    Args:
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop.

    Raises:
        InputError: iterations below 1.
    """

    iterations: int = 100
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"DDNM: iterations must be at least 1, got {self.iterations}.")

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
        """D_y and D at one noise level; one network evaluation."""
        denoised = problem.denoise(prior, x, sigma)
        step = correction(
            problem,
            denoised,
            problem.gram(denoised),
            Isotropic(1.0),
            0.0,
            iterations=self.iterations,
            rtol=self.rtol,
        )
        return Estimate(denoised + step, denoised)
