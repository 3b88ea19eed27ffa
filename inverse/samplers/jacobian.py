"""D(x, sigma) with products of its Jacobian: one forward pass, whose graph is kept for the products asked of it."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.samplers.problem import Problem


class Linearised:
    """The denoiser at one point, D, and J^T v, J = dD/dx over real components.

    For an exact denoiser J is symmetric, and sigma^2 J is the covariance of x0 given x (Efron 2011, equation 2.8), so
    that J^T stands for J as well.

    Args:
        problem: whose support D is restricted to, and which counts the work.
        prior: the prior; its `denoise` must be differentiable.
        x: noisy images (items, *in_shape).
        sigma: their noise level.
    """

    def __init__(self, problem: Problem, prior: Denoiser, x: Tensor, sigma: float):
        self._problem = problem
        with torch.enable_grad():
            self._x = x.detach().requires_grad_()
            self._output = problem.denoise(prior, self._x, sigma)
        self.denoised = self._output.detach()

    def transposed(self, v: Tensor, *, last: bool = False) -> Tensor:
        """J^T v, one backward pass; `last` frees the graph."""
        self._problem.work.nfe_backward += 1
        (product,) = torch.autograd.grad(self._output, self._x, v, retain_graph=not last)
        return self._problem.restrict(product)
