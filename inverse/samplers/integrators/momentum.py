"""Momentum: the slope of a multistep method is averaged over the steps, which widens its range of stable steps.

    HB       v_n = (1 - beta) v_(n-1) + beta p_n,   x' = kept x + W v_n
    NT       the same v_n,                          x' = kept x + W ((1 - beta) v_n + beta p_n)
    GHVB_k   v_n = (1 - beta) v_(n-1) + beta e_n,   x' = x + (sigma' - sigma) M_k(v) / beta

p_n = sum_j w_j F_j / W, W = sum_j w_j, is the slope of any Adams method: sum of weights 1. v starts at the first
slope. HB and NT are first order whatever they wrap: the average lags behind. GHVB undoes the lag by differences of v,
as Adams-Bashforth of order k does for even steps in sigma, and is second order on other grids; beta = 1 is PLMS.

For stiff conditionings at few evaluations, where higher orders overshoot. On the real axis (x' = z x, even steps) the
stable range of HB on AB_1 is z > -2 (2 - beta)/beta, on AB_2 -(2 - beta)/beta, of GHVB_2 -(2 - beta); AB_2 has -1.

Source: Wizadwongsa, Chinchuthakun, Khungurn, Raj and Suwajanakorn, Diffusion sampling with momentum for mitigating
divergence artifacts, ICLR 2024.

Certificate (experiments/exactness.py): Gaussian inpainting, exact D_y, levels even in log-SNR from 25 to 0.01, then 0;
W2 / floor at 5, 10 and 20 evaluations, beta 0.8: HB on 2M 3.9, 1.8, 1.4; GHVB_2 4.0, 1.6, 1.1; GHVB_4 1.4, 1.1, 1.0.
Nothing is stiff there: HB's lag costs variance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from inverse.errors import InputError
from inverse.samplers.integrators.adams import Adams, Node, combination
from inverse.samplers.integrators.base import Integrator, Path
from inverse.samplers.integrators.weights import even


@dataclass(frozen=True)
class HeavyBall(Integrator):
    """Heavy-ball momentum on an Adams method; one evaluation a step.

    Args:
        base: the method whose slope is averaged, without corrector.
        beta: share of the new slope, in (0, 1]; 1 is the method itself.
        nesterov: look ahead by one more share of the new slope.

    Raises:
        InputError: beta outside (0, 1], or a base with corrector.
    """

    base: Adams = field(default_factory=Adams)
    beta: float = 0.8
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check(self, self.beta)
        if self.base.corrector:
            raise InputError(f"HeavyBall: the base must have no corrector, got {self.base!r}; use corrector=False.")

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        base, beta = self.base, self.beta
        nodes: deque[Node] = deque(maxlen=base.order)
        average: Tensor | None = None
        for sigma, sigma_next in pairwise(path.levels):
            estimate = path.estimate(x, sigma, sigma_next).x0
            if sigma_next == 0:
                yield estimate
                return
            nodes.appendleft((sigma, base.value(x, estimate, sigma)))
            shares = base.coefficients([level for level, _ in nodes], sigma, sigma_next)
            slope = combination(shares, (value for _, value in nodes)) / sum(shares)
            average = slope if average is None else (1 - beta) * average + beta * slope
            ahead = (1 - beta) * average + beta * slope if self.nesterov else average
            x = base.kept(sigma, sigma_next) * x + sum(shares) * ahead
            yield x


@dataclass(frozen=True)
class GHVB(Integrator):
    """Generalised heavy-ball momentum; one evaluation a step. The authors' "r.f" is order floor(r.f) + 1, beta 0.f.

    Args:
        order: number of averages combined, 1 to 5.
        beta: share of the new eps, in (0, 1]; 1 is PLMS, smaller is more stable and less accurate.

    Raises:
        InputError: order outside 1 to 5, or beta outside (0, 1].
    """

    order: int = 2
    beta: float = 0.8

    def __post_init__(self) -> None:
        _check(self, self.beta)
        if not 1 <= self.order <= 5:
            raise InputError(f"GHVB: order must lie between 1 and 5, got {self.order}.")

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        return self._walk(path, x, ())

    def _walk(self, path: Path, x: Tensor, known: Sequence[Tensor]) -> Iterator[Tensor]:
        """As `walk`, from averages known at earlier levels, newest first."""
        averages = deque(known[: self.order], maxlen=self.order)
        for sigma, sigma_next in pairwise(path.levels):
            estimate = path.estimate(x, sigma, sigma_next).x0
            if sigma_next == 0:
                yield estimate
                return
            eps = (x - estimate) / sigma
            averages.appendleft((1 - self.beta) * averages[0] + self.beta * eps if averages else eps)
            x = x + (sigma_next - sigma) * combination(even(len(averages), self.beta), averages)
            yield x


def _check(integrator: Integrator, beta: float) -> None:
    if not 0 < beta <= 1:
        raise InputError(f"{type(integrator).__name__}: beta must lie in (0, 1], got {beta}.")
