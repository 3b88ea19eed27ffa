"""The noise level of data that came without one: an upper bound first, then what the reconstruction leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.cg import cg
from inverse.operators.base import LinearOperator
from inverse.priors.base import Denoiser
from inverse.samplers.methods import learned_covariance
from inverse.samplers.problem import Problem

PILOT_STEPS, PILOT_RUNS, SETTLED = 8, 4, 0.93


@dataclass(frozen=True)
class AtMost:
    """A noise level known from above only: `solve(..., noise=AtMost(0.02))` refines it, see `refine_noise`.

    Args:
        value: upper bound of the standard deviation per real component, in the units of y.
    """

    value: float


def estimate_noise(y: Tensor, operator: LinearOperator) -> float:
    """Standard deviation of the noise per real component, from what no image can explain.

    x = (A^H A + t I)^-1 A^H y leaves the residual (I - H) y; for white noise E ||(I - H) e||^2 is found with one probe.
    Errors of the operator count as noise, as they should. Works where there are more data than unknowns.

    Args:
        y: the data (items, *out_shape).
        operator: A.

    Raises:
        InputError: as many unknowns as data: the residual says nothing.
    """
    weights = 1.0 if operator.weights is None else operator.weights
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(1, *operator.out_shape, 2, generator=generator)
    probe = torch.view_as_complex(parts) if y.is_complex() else parts[..., 0]
    probe = probe.to(y) * weights
    tikhonov = 1e-3 * operator.norm() ** 2
    rest = _unexplained(probe, operator, tikhonov)
    share = float((rest.abs() ** 2).sum()) / operator.measurements
    if share < 0.05:
        raise InputError(
            "noise: cannot be estimated, the operator has about as many unknowns as data; give noise=, the standard "
            "deviation per real component."
        )
    energy = (_unexplained(y * weights, operator, tikhonov).abs() ** 2).flatten(1).sum(1)
    return math.sqrt(float(energy.median()) / (operator.measurements * share))


def _unexplained(y: Tensor, operator: LinearOperator, tikhonov: float) -> Tensor:
    """(I - H) y, H the data that the regularised least-squares image explains, on measured positions."""
    x = cg(lambda v: operator.gram(v) + tikhonov * v, operator.H(y), rtol=1e-4, max_iterations=100).x
    return y - operator(x)


def refine_noise(problem: Problem, prior: Denoiser) -> float:
    """A noise level at which the residual is near 1, at most that of the problem.

    An estimate of the noise that is too high shows in its own residual: the image then misses the data by less than
    the noise should. Short pilot runs (8 evaluations, one sample) lower the level by their residual until it stays
    above 0.93, four at most. An estimate that is too low is left: errors of the operator look the same.

    Args:
        problem: the problem, its `sigma_y` an upper bound.
        prior: the prior, in the scale of the problem.

    Returns:
        The noise level per real component, in the units of the problem.
    """
    sigma_y = problem.sigma_y
    sampler = learned_covariance(PILOT_STEPS)
    for _ in range(PILOT_RUNS if sigma_y > 0 else 0):
        pilot = Problem.build(problem.operator, problem.y, sigma_y)
        residual = float(sampler.run(pilot, prior, samples=1, seed=0).residual.mean())
        if residual >= SETTLED:
            break
        sigma_y *= residual
    return sigma_y
