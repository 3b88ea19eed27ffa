"""Gaussians over images by a factor of their covariance, and draws from them given the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.transforms import LearnedModes, Modes
from inverse.priors.calibration import Calibration
from inverse.random import SampleRandom
from inverse.samplers.data_step import Factor, correction
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class Isotropic:
    """L = r I: every pixel is equally uncertain, and independent of the others.

    Args:
        std: r, a number, or one per item as a tensor that broadcasts to the image.
    """

    std: float | Tensor

    def apply(self, z: Tensor) -> Tensor:
        """r z."""
        return self.std * z

    def adjoint(self, x: Tensor) -> Tensor:
        """r x."""
        return self.std * x

    def balance(self, noise_variance: float, density: float) -> float:
        """1: a multiple of the identity needs no scaling."""
        return 1.0

    def scaled(self, k: Tensor) -> Isotropic:
        """The factor of k C, k one number per item."""
        return Isotropic(self.std * k.sqrt().reshape(-1, 1, 1))


@dataclass(frozen=True)
class CovarianceFactor:
    """L = S V^(1/2) F^H diag(c_k^(1/2)), S the support; z lives in the modes, so that each way costs one transform.

    Args:
        modes: the transform F.
        std: V^(1/2) on the support, broadcastable to the image (items, *in_shape).
        gain: c_k^(1/2) (H, W).
    """

    modes: Modes
    std: Tensor
    gain: Tensor

    def apply(self, z: Tensor) -> Tensor:
        """L z."""
        return self.std * self.modes.inverse(self.gain * z)

    def adjoint(self, x: Tensor) -> Tensor:
        """L^H x."""
        return self.gain * self.modes.forward(self.std * x)

    def balance(self, noise_variance: float, density: float) -> Tensor:
        """(v + density c_k mean(V))^(-1/2): the diagonal of v I + L^H A^H A L, were A^H A = density I."""
        spread = (self.std**2).flatten(1).mean(1).reshape(-1, *(1,) * (self.std.ndim - 1))
        smallest = torch.finfo(self.gain.dtype).tiny
        return (noise_variance + density * self.gain**2 * spread).clamp(min=smallest).rsqrt()

    def scaled(self, k: Tensor) -> CovarianceFactor:
        """The factor of k C, k one number per item."""
        return CovarianceFactor(self.modes, self.std * k.sqrt().reshape(-1, *(1,) * (self.std.ndim - 1)), self.gain)


def draw(
    problem: Problem, mean: Tensor, factor: Factor, random: SampleRandom, *, iterations: int, rtol: float
) -> Tensor:
    """A draw of x0 given y, x0 ~ N(mean, C) before the data, by one perturbed solve.

        x0 = mean + e0 + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A (mean + e0) - e1),
        e0 ~ N(0, C),  e1 ~ N(0, sigma_y^2 I)

    Args:
        problem: data and operator.
        mean: mean of x0 before the data (items, *in_shape).
        factor: L, C = L L^H.
        random: source of e0 and e1.
        iterations: cap on the iterations of conjugate gradients.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.

    Source: perturb and optimise, Papandreou and Yuille 2010; Orieux, Feron and Giovannelli 2012.
    """
    start = mean + factor.apply(random.normal(mean.shape[1:], dtype=mean.dtype))
    data_noise = None
    if problem.sigma_y > 0:
        e1 = problem.sigma_y * random.normal(problem.y.shape[1:], dtype=problem.y.dtype)
        data_noise = problem.restrict(problem.operator.H(e1))
        problem.work.grams += 0.5
    return start + correction(
        problem,
        start,
        problem.gram(start),
        factor,
        problem.sigma_y**2,
        iterations=iterations,
        rtol=rtol,
        data_noise=data_noise,
    )


def modes_of(x: Tensor, calibration: Calibration | None = None) -> Modes:
    """The transform for images like x, kept between calls: waves, or the modes that the calibration has learned.

    Raises:
        InputError: learned modes are those of images of another size.
    """
    rows, columns = (None, None) if calibration is None else (calibration.rows, calibration.columns)
    return _modes(rows, columns, (x.shape[-2], x.shape[-1]), x.dtype, x.device)


@lru_cache(maxsize=8)
def _modes(
    rows: Tensor | None, columns: Tensor | None, shape: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Modes:
    if rows is None or columns is None:
        return Modes(shape, dtype, device)
    if shape != (len(rows), len(columns)):
        raise InputError(
            f"prior: knows its error on images of {len(rows)} x {len(columns)}, got {shape[0]} x {shape[1]}; resample, "
            "or calibrate it without a basis."
        )
    return LearnedModes(rows.to(device, dtype), columns.to(device, dtype))
