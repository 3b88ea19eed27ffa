"""A problem: data, operator and noise level, checked once; what conditionings receive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inverse.linalg.inner import inner, norm
from inverse.operators.base import LinearOperator, Operator
from inverse.operators.mask import Identity
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom


@dataclass
class Work:
    """What a run has cost so far, per sample.

    Attributes:
        nfe: network evaluations.
        nfe_backward: backward passes through the network.
        grams: applications of A^H A; an A or an A^H alone counts one half.
        cg_iterations: iterations of conjugate gradients, summed over steps; kept on the device until read.
    """

    nfe: int = 0
    nfe_backward: int = 0
    grams: float = 0.0
    cg_iterations: Tensor | int = 0

    def count_cg(self, iterations: Tensor) -> None:
        """Add the largest number of iterations of a batch."""
        self.cg_iterations = self.cg_iterations + iterations.max()


@dataclass(frozen=True)
class Problem:
    """y = A(x) + sigma_y n, with A^H y computed once; loops of linear operators need A^H A only.

    Attributes:
        operator: A; for the samplers that take it also a nonlinear one, and then `adjoint_y` is 0 and `density` NaN.
        y: the data (items, *out_shape).
        sigma_y: noise level per real component; 0 makes the data exact.
        adjoint_y: A^H y restricted to the support (items, *in_shape).
        energy: ||y||^2 per item (items,), double precision.
        support: where the image may differ from 0 (*in_shape), bool, or None.
        density: trace of A^H A per unknown, by one random probe; for preconditioning.
        work: counters of what was spent.
    """

    operator: LinearOperator | Operator
    y: Tensor
    sigma_y: float
    adjoint_y: Tensor
    energy: Tensor
    support: Tensor | None
    density: float
    work: Work = field(default_factory=Work)

    @classmethod
    def build(cls, operator: LinearOperator | Operator, y: Tensor, sigma_y: float) -> Problem:
        """Bundle checked parts; values of y that were not measured are set to 0."""
        if operator.weights is not None:
            y = y * operator.weights.to(y.dtype.to_real())
        support = operator.support
        density = math.nan
        if isinstance(operator, LinearOperator):
            adjoint = operator.H(y)
            density = _density(operator)
        else:
            adjoint = torch.zeros((len(y), *operator.in_shape), dtype=operator.in_dtype, device=operator.device)
        if support is not None:
            adjoint = adjoint * support
        energy = norm(y.to(_double(y.dtype))) ** 2
        return cls(operator, y, sigma_y, adjoint, energy, support, density)

    @classmethod
    def without_data(
        cls, shape: Sequence[int], items: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Problem:
        """The problem of drawing from the prior: nothing was measured.

        Args:
            shape: shape of one image.
            items: number of images.
            dtype: dtype of the images.
            device: where they live.
        """
        operator = 0.0 * Identity(shape, dtype=dtype, device=device)
        y = torch.zeros((items, *shape), dtype=dtype, device=device)
        return cls(operator, y, 1.0, y, norm(y) ** 2, None, 0.0)

    @property
    def unknowns(self) -> int:
        """Real numbers in one image, zeros outside the support included."""
        return self.adjoint_y.shape[1:].numel() * (2 if self.adjoint_y.is_complex() else 1)

    def take(self, rows: Sequence[int]) -> Problem:
        """The problem whose items are the given rows of this one, with counters of its own."""
        index = torch.as_tensor(list(rows), device=self.y.device)
        return replace(self, y=self.y[index], adjoint_y=self.adjoint_y[index], energy=self.energy[index], work=Work())

    def restrict(self, x: Tensor) -> Tensor:
        """x on the support of the operator, 0 elsewhere: there the data say nothing."""
        return x if self.support is None else x * self.support

    def denoise(self, prior: Denoiser, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma) on the support; one network evaluation."""
        self.work.nfe += 1
        return self.restrict(prior.denoise(x, sigma))

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient of ||A(x) - y||^2 / 2 on the support: A^H (A x - y), by automatic differentiation if nonlinear."""
        if self.operator.linear:
            return self.gram(x) - self.adjoint_y
        self.work.grams += 1
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            misfit = self.misfit(x)
            (gradient,) = torch.autograd.grad(misfit.abs().square().sum() / 2, x)
        return self.restrict(gradient)

    def misfit(self, x: Tensor) -> Tensor:
        """A(x) - y where it was measured (items, *out_shape)."""
        misfit = self.operator(x) - self.y
        weights = self.operator.weights
        return misfit if weights is None else misfit * weights.to(misfit.dtype.to_real())

    def gram(self, x: Tensor) -> Tensor:
        """A^H A x on the support."""
        self.work.grams += 1
        return self.restrict(self.operator.gram(x))

    def residual_energy(self, x: Tensor, gram_x: Tensor) -> Tensor:
        """||y - A x||^2 per item from A^H y and A^H A x alone, double precision: no k-space tensor in the loop."""
        wide = _double(x.dtype)
        x = x.to(wide)
        product = (x.conj() * (gram_x - 2 * self.adjoint_y).to(wide)).real
        return self.energy + product.flatten(1).sum(1)

    def residual(self, x: Tensor) -> Tensor:
        """||A x - y|| / (sigma_y sqrt(m)) per item, m real measured numbers; near 1 is right; sigma_y = 0: inf."""
        distance = norm(self.misfit(x))
        if self.sigma_y == 0:
            return torch.full_like(distance, torch.inf)
        return distance / (self.sigma_y * max(self.operator.measurements, 1) ** 0.5)


def _density(operator: LinearOperator) -> float:
    probe = SampleRandom(0, [0], operator.device).normal(operator.in_shape, dtype=operator.in_dtype)
    if operator.support is not None:
        probe = probe * operator.support
    return float(inner(probe, operator.gram(probe)).sum() / (norm(probe) ** 2).sum())


def _double(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64
