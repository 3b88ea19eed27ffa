"""A Gaussian of independent modes that stands for the images, or for the images given the data.

    x0 ~ N(m, F^H diag(c_k) F),   given y:   m_y = m + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A m),
                                             c_k,y = 1 / (1/c_k + d/sigma_y^2)

c_k is the power of the prior's error at its largest noise level, where the denoiser knows next to nothing: that of its
images, whose mean counts as 0. d is the density of A^H A, its trace per unknown, as if the data saw every mode alike:
right for A^H A = d I, else an average.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.samplers.covariance import CovarianceFactor, Isotropic, modes_of
from inverse.samplers.data_step import Factor, correction
from inverse.samplers.problem import Problem


@dataclass(frozen=True, eq=False)
class Anchor:
    """A Gaussian of independent modes.

    Args:
        power: variance per real component of each mode (H, W), in the order of `inverse.linalg.transforms.Modes` (of
            the prior's own modes where it has learned some); or one number for white images.
        mean: mean of the images (*in_shape), or one for each (items, *in_shape), or 0.

    Raises:
        InputError: power that is negative or not finite.
    """

    power: Tensor | float
    mean: Tensor | float = 0.0

    def __post_init__(self) -> None:
        power = torch.as_tensor(self.power)
        if not bool(((power >= 0) & power.isfinite()).all()) or power.ndim not in (0, 2):
            raise InputError(
                "Anchor: power must be one number or (H, W), finite and not negative; "
                f"got shape {tuple(power.shape)}, smallest {float(power.min()):g}."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Anchor) and all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in ((self.power, other.power), (self.mean, other.mean))
        )

    def __hash__(self) -> int:
        return hash((Anchor, tuple(torch.as_tensor(self.power).shape)))

    def __repr__(self) -> str:
        power = torch.as_tensor(self.power)
        return f"Anchor(power of shape {tuple(power.shape)}, mean {float(power.double().mean()):.4g})"


def anchor_of_prior(prior: Denoiser, like: Tensor) -> Anchor:
    """The anchor of a prior for images like `like` (items, *in_shape); a prior without spectrum counts as white."""
    widest = prior.sigma_max
    if prior.calibration is None:
        return Anchor(prior.mse(widest))
    radius = modes_of(like, prior.calibration).radius
    return Anchor(prior.mse(widest) * prior.calibration.power_map(widest, radius))


def anchor_of(problem: Problem, prior: Denoiser) -> Anchor:
    """The anchor of the images given the data; one solve by conjugate gradients, no network evaluation.

    Without an adjoint, or without data, it is that of the prior.
    """
    like = problem.adjoint_y
    anchor = anchor_of_prior(prior, like)
    if not problem.operator.linear or problem.density == 0:
        return anchor
    power = torch.as_tensor(anchor.power, dtype=torch.float64, device=like.device)
    factor: Factor = Isotropic(float(power.sqrt())) if power.ndim == 0 else _factor(problem, prior, power)
    zero = torch.zeros_like(like)
    mean = correction(problem, zero, zero, factor, problem.sigma_y**2, iterations=100, rtol=1e-3)
    return Anchor(power * problem.sigma_y**2 / (problem.sigma_y**2 + problem.density * power), mean)


def _factor(problem: Problem, prior: Denoiser, power: Tensor) -> CovarianceFactor:
    like = problem.adjoint_y
    modes = modes_of(like, prior.calibration)
    return CovarianceFactor(modes, problem.restrict(torch.ones_like(like[:1].real)), power.sqrt().to(modes.radius))
