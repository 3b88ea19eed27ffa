"""Muon for the convolutions, AdamW for the rest: the optimiser of the training loop.

A convolution's weight is a matrix (channels out, channels in x taps). Its step is the momentum with all singular values
set to about 1: no direction is changed by more than the learning rate, and none is left behind.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic of Jordan et al.: five iterations bring singular values into about [0.7, 1.2]."""


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for parameters of four dimensions, AdamW for all others.

    Args:
        parameters: the parameters of a network.
        lr: learning rate of AdamW; that of the convolutions is `ratio` times as large.
        ratio: largest change of a convolution's singular values per step over `lr`.
        momentum: momentum of the convolutions (Nesterov).
        betas: decay of the moments of AdamW.
        weight_decay: decoupled weight decay, of both.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        ratio: float = 20.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "ratio": ratio, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients of the parameters."""
        for group in self.param_groups:
            convolutions: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim == 4:
                    convolutions[parameter.shape[0], parameter[0].numel()].append(parameter)
                else:
                    self._adam(parameter, group)
            for same in convolutions.values():  # equal shapes in one batched product
                self._orthogonal(same, group)

    def _orthogonal(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        momentum, rate = group["momentum"], group["lr"] * group["ratio"]
        steps = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = _gradient(parameter)
            state["momentum"].lerp_(gradient, 1 - momentum)
            steps.append(gradient.lerp(state["momentum"], momentum).flatten(1))
        for parameter, step in zip(parameters, orthogonalise(torch.stack(steps)), strict=True):
            growth = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.sub_(step.reshape(parameter.shape), alpha=rate * growth)

    def _adam(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], _gradient(parameter)
        if not state:
            state["step"] = torch.zeros(())
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        state["first"].lerp_(gradient, 1 - first)
        state["second"].lerp_(gradient.square(), 1 - second)
        count = float(state["step"])
        size = (state["second"] / (1 - second**count)).sqrt_().add_(1e-8)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(state["first"], size, value=-group["lr"] / (1 - first**count))


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values in about [0.7, 1.2], singular vectors kept.

    Newton-Schulz iterations x <- p x, p = a I + b g + c g^2 with g = x x^T. They run on g and on the product of the p
    alone, both of the short side: two products with the long side in all instead of ten.

    Args:
        matrices: (count, rows, columns).
        iterations: how many.

    Returns:
        Matrices of the same shape.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-12)
    g = x @ x.mT  # float32: in bfloat16 rounding makes eigenvalues negative, and those grow twelvefold an iteration
    whole = torch.eye(g.shape[-1]).to(g).expand_as(g)
    for k in range(iterations):
        p = b * g + c * (g @ g)
        p.diagonal(dim1=1, dim2=2).add_(a)
        whole = p @ whole if k else p
        if k < iterations - 1:
            g = p @ g @ p
    x = (whole.bfloat16() @ x.bfloat16()).float()
    return x if wide else x.mT


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None  # `step` skips the others
    return parameter.grad
