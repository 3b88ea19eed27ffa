"""What the tests of integrators share: the multistep ones, a path that counts, and walks along it."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inverse.priors import from_function
from inverse.samplers import Estimate
from inverse.samplers.integrators import (
    GHVB,
    PNDM,
    Adams,
    HeavyBall,
    Integrator,
    Path,
    deis,
    dpm_solver_2m,
    dpm_solver_3m,
    ipndm,
    unipc,
)

LEVELS = (9.0, 6.0, 4.0, 3.0, 2.0, 1.1, 0.4)
INTEGRATORS: tuple[Integrator, ...] = (
    dpm_solver_2m(),
    dpm_solver_2m(published=True),
    dpm_solver_3m(),
    dpm_solver_3m(published=True),
    Adams(order=4, lower_order_final=True),
    Adams("data", "time", 3),
    deis(4),
    deis(3, "time"),
    ipndm(),
    unipc(2),
    unipc(3),
    unipc(3, prediction="eps"),
    unipc(2, published=True, bh1=True),
    PNDM(),
    PNDM(middle="sigma"),
    PNDM(2),
    HeavyBall(),
    HeavyBall(deis(2), 0.5, nesterov=True),
    GHVB(4, 0.7),
)
Denoise = Callable[[Tensor, float], Tensor]


class Counted(Path):
    """A path whose estimate is a function, and which counts and lists its calls."""

    def __init__(self, levels: Sequence[float], denoise: Denoise):
        calls: list[tuple[float, Tensor]] = []

        def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
            assert sigma > 0 and not draw
            calls.append((sigma, x))
            denoised = denoise(x, sigma)
            return Estimate(denoised, denoised)

        super().__init__(tuple(levels), estimate, lambda: torch.zeros(1), from_function(lambda x, sigma: x))
        object.__setattr__(self, "calls", calls)


def curved(x: Tensor, sigma: float) -> Tensor:
    """Some smooth estimate of x0."""
    return torch.tanh(x / (1 + sigma)) + 0.3 * math.sin(sigma)


def walked(integrator: Integrator, levels: Sequence[float], denoise: Denoise = curved, x: Tensor | None = None) -> list:
    """x at every level after the first."""
    start = torch.tensor([1.5, -4.0, 7.0], dtype=torch.float64) if x is None else x
    return list(integrator.walk(Counted(levels, denoise), start))


def growth(integrator: Integrator, levels: Sequence[float], denoise: Denoise) -> float:
    """How much larger than its start x becomes."""
    first, *_, last = walked(integrator, levels, denoise, torch.ones(1, dtype=torch.float64))
    return float(abs(last / first))
