"""Gaussians over images by a factor of their covariance, and draws from them given the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg.inner import scale_samples
from inverse.linalg.transforms import LearnedModes, Modes
from inverse.priors.base import Denoiser
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

    def preconditioner(self, noise_variance: float, density: float) -> Callable[[Tensor], Tensor]:
        """r -> r / (v + density r^2)."""
        smallest = torch.finfo(torch.float32).tiny
        total = torch.as_tensor(noise_variance + density * self.std**2).clamp(min=smallest)
        return lambda r: r / total

    def scaled(self, k: Tensor) -> Isotropic:
        """The factor of k C, k one number per item."""
        return Isotropic(self.std * k.sqrt().reshape(-1, 1, 1))


@dataclass(frozen=True)
class CovarianceFactor:
    """L = S V^(1/2) F^H diag(c_k^(1/2)), S the support; z lives in the modes, so that each way costs one transform.

    Complex images may have one variance along a phase u (|u| = 1) and one across it, as those do that are nearly real
    up to a smooth phase: L = u S (V_1^(1/2) Re + i V_2^(1/2) Im) F^H diag(c_k^(1/2)), linear over real numbers.

    Args:
        modes: the transform F.
        std: V^(1/2) on the support, broadcastable to the image (items, *in_shape); with a phase (items, *in_shape, 2),
            along it and across it.
        gain: c_k^(1/2) (H, W), or broadcastable to the modes (items, *in_shape).
        phase: u (items, *in_shape); None: every phase is alike.
    """

    modes: Modes
    std: Tensor
    gain: Tensor
    phase: Tensor | None = None

    def apply(self, z: Tensor) -> Tensor:
        """L z."""
        x = self.modes.inverse(self.gain * z)
        return self.std * x if self.phase is None else _by_parts(x, self.std).mul_(self.phase)

    def adjoint(self, x: Tensor) -> Tensor:
        """L^H x."""
        x = self.std * x if self.phase is None else _by_parts(self.phase.conj() * x, self.std)
        return self.modes.forward(x).mul_(self.gain)

    def preconditioner(self, noise_variance: float, density: float) -> Callable[[Tensor], Tensor]:
        """v q^2 + p F W F^H p with q = 1 / (v + density V c_k), p = (density V c_k)^(1/2) q, V a typical variance.

        W = V / variance where that is above V, else 1: (v I + density L^H L)^-1 if all variances are V, and for v = 0.
        A density per frequency makes more iterations, not fewer: with samples missing A^H A is far from diagonal.
        """
        variance = self.std**2
        axes = tuple(range(1, variance.ndim - (self.phase is not None)))
        each = variance.sum(axes, keepdim=True) / (variance > 0).sum(axes, keepdim=True).clamp(min=1)
        typical = each if self.phase is None else each.amax(-1, keepdim=True)
        weight = torch.where(variance > typical, typical / variance, 1.0)
        if self.phase is not None:
            typical = typical[..., 0]
        smallest = torch.finfo(self.gain.dtype).tiny
        signal = density * typical * self.gain**2
        inverse = 1 / (noise_variance + signal).clamp(min=smallest)
        direct, outer = noise_variance * inverse**2, signal.sqrt() * inverse

        def improved(r: Tensor) -> Tensor:
            x = self.modes.inverse(outer * r)
            x = x.mul_(weight) if self.phase is None else _by_parts(x, weight)
            return self.modes.forward(x).mul_(outer).add_(direct * r)

        one_variance = weight.shape[1:].numel() == 1
        return (lambda r: inverse * r) if one_variance else improved

    def scaled(self, k: Tensor) -> CovarianceFactor:
        """The factor of k C, k one number per item."""
        return replace(self, std=scale_samples(k.sqrt(), self.std))


def _by_parts(x: Tensor, weight: Tensor) -> Tensor:
    """x, overwritten: its real and imaginary part times their own weights (*shape, 2)."""
    torch.view_as_real(x).mul_(weight)
    return x


def draw(
    problem: Problem,
    mean: Tensor,
    factor: Factor,
    random: SampleRandom,
    *,
    iterations: int,
    rtol: float,
    tolerance: float = 0.0,
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
        tolerance: error at which they stop as well, in posterior standard deviations, see `correction`.

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
        tolerance=tolerance,
        data_noise=data_noise,
    )


def images_factor(problem: Problem, prior: Denoiser) -> CovarianceFactor:
    """L of the Gaussian N(0, L L^H) of the images: the spectrum of the prior's error at its largest noise level.

    There the denoiser knows next to nothing, so that its error is the image. White without a calibration.
    """
    like, widest, calibration = problem.adjoint_y, prior.sigma_max, prior.calibration
    modes = modes_of(like, calibration)
    power = torch.ones_like(modes.radius) if calibration is None else calibration.power_map(widest, modes.radius)
    std = problem.restrict(like.real.new_full(like.shape[1:], prior.mse(widest) ** 0.5))[None]
    return CovarianceFactor(modes, std, power.sqrt())


def modes_of(x: Tensor, calibration: Calibration | None = None) -> Modes:
    """The transform for images like x (items, *in_shape), kept between calls: waves, or what the calibration learned.

    Raises:
        InputError: learned modes are those of images of another size, or the images are vectors.
    """
    if x.ndim < 3:
        raise InputError("learned covariance: images need rows and columns; give vectors as images of one row, (1, n).")
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
