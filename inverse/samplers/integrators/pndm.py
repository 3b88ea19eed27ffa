"""PNDM: pseudo linear multistep methods with pseudo Runge-Kutta steps at the start.

Its "transfer" from sigma to sigma' by a given eps is x + (sigma' - sigma) eps, DDIM in the variance-exploding frame, so
that it is a multistep method for dx/dsigma = eps with the weights of even steps (`ipndm` in
`inverse.samplers.integrators.adams`). Its own is the start, which costs evaluations within the step:

    F-PNDM  three steps of Runge-Kutta 4 through the middle of the step, then Adams-Bashforth 4
    S-PNDM  one step by the mean of eps at both ends (Heun), then Adams-Bashforth 2

The middle is that of the network's time, as published, or of sigma, where Runge-Kutta 4 is fourth order.

Source: Liu, Ren, Lin and Zhao, Pseudo numerical methods for diffusion models on manifolds, ICLR 2022, eq. 9 to 13.

Certificate (experiments/exactness.py): Gaussian inpainting, exact D_y, levels even in log-SNR from 25 to 0.01, then 0;
W2 / floor at 5, 10 and 20 levels: F-PNDM 4.8, 1.1, 1.0 at nine evaluations more; S-PNDM 3.3, 1.4, 1.1 at one more;
iPNDM, without such a start, 1.4, 1.1, 1.0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from inverse.errors import InputError
from inverse.samplers.integrators.adams import Node, ipndm
from inverse.samplers.integrators.base import Integrator, Path
from inverse.samplers.integrators.weights import network_time, noise_at

STAGES = {2: 2, 4: 4}  # order: evaluations in a step of the start


@dataclass(frozen=True)
class PNDM(Integrator):
    """Pseudo Runge-Kutta steps, then PLMS: N steps cost N + 9 (order 4) or N + 1 (order 2) evaluations.

    Args:
        order: 4 for F-PNDM, 2 for S-PNDM.
        middle: "time" halves the first steps in the time of a network of the linear schedule, "sigma" in sigma.

    Raises:
        InputError: another order, or an unknown middle.
    """

    order: int = 4
    middle: str = "time"

    def __post_init__(self) -> None:
        if self.order not in STAGES or self.middle not in ("time", "sigma"):
            raise InputError(
                f"PNDM: order is 2 or 4, middle 'time' or 'sigma'; got {self.order}, {self.middle!r}; "
                "for other orders use ipndm(order)."
            )

    def evaluations(self, levels: Sequence[float]) -> int:
        """Network evaluations: several in each of the first order - 1 steps, but one in the step to 0."""
        starts = sum(level > 0 for level in levels[1 : self.order])
        return len(levels) - 1 + starts * (STAGES[self.order] - 1)

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        nodes: deque[Node] = deque(maxlen=self.order)
        plms = ipndm(self.order)
        after = [*path.levels[2:], 0.0]  # where an evaluation at the end of a step would lead
        for (sigma, sigma_next), following in zip(pairwise(path.levels), after, strict=True):
            estimate = path.estimate(x, sigma, sigma_next).x0
            if sigma_next == 0:
                yield estimate
                return
            nodes.appendleft((sigma, (x - estimate) / sigma))
            if len(nodes) < self.order:
                x = self._start(path, x, nodes[0][1], (sigma, sigma_next, following))
            else:
                x = plms.move(x, nodes, sigma, sigma_next)
            yield x

    def _start(self, path: Path, x: Tensor, first: Tensor, levels: tuple[float, float, float]) -> Tensor:
        """One Runge-Kutta step from the first level to the second, of which only the first slope is kept."""
        sigma, sigma_next, following = levels

        def slope(level: float, before: Tensor) -> Tensor:
            there = x + (level - sigma) * before
            leads_to = sigma_next if level > sigma_next else following
            return (there - path.estimate(there, level, leads_to).x0) / level

        if self.order == 2:
            return x + (sigma_next - sigma) * (first + slope(sigma_next, first)) / 2
        middle = (sigma + sigma_next) / 2
        if self.middle == "time":
            middle = noise_at((network_time(sigma) + network_time(sigma_next)) / 2)
        second = slope(middle, first)
        third = slope(middle, second)
        fourth = slope(sigma_next, third)
        return x + (sigma_next - sigma) * (first + 2 * second + 2 * third + fourth) / 6
