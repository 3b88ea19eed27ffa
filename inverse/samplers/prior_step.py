"""A draw of x0 from the prior given x0 + sigma n: what samplers that alternate between data and prior ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.conditionings.unconditional import Unconditional
from inverse.samplers.grids import karras
from inverse.samplers.integrators.base import Integrator, Path
from inverse.samplers.integrators.bridge import Bridge
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Trace


class PriorStep(ABC):
    """Draws x0 given x0 + sigma n; constructed from numbers only. A prior that can draw exactly may have its own."""

    @abstractmethod
    def evaluations(self, sigma: float) -> int:
        """Network evaluations of one draw from level sigma."""

    @abstractmethod
    def draw(
        self, problem: Problem, prior: Denoiser, z: Tensor, sigma: float, random: SampleRandom, trace: Trace
    ) -> Tensor:
        """x0 ~ p(x0 | x0 + sigma n = z).

        Args:
            problem: whose support x0 is restricted to, and which counts the work; its data play no part.
            prior: the prior.
            z: noisy images (items, *in_shape).
            sigma: their noise level.
            random: one stream per row.
            trace: receives every evaluation.
        """


@dataclass(frozen=True)
class ReverseRun(PriorStep):
    """A short reverse run of the diffusion from sigma to 0.

    It must be stochastic: the probability-flow ODE maps z to one x0 and draws too little variance. The bridge through
    draws is exact for stationary Gaussian images at any number of steps; others come the nearer to one, given x, the
    smaller sigma is. Where sigma is far below all that separates images, one step does.

    Args:
        steps: noise levels from sigma down, on a Karras grid.
        smallest: last level before 0, in units of sigma; not below the prior's own.
        integrator: how x is carried to the next level.
        conditioning: the estimate without data.

    Raises:
        InputError: steps below 1, or `smallest` not between 0 and 1.
    """

    steps: int = 4
    smallest: float = 0.4
    integrator: Integrator = field(default_factory=lambda: Bridge(draw_last=True))
    conditioning: Conditioning = field(default_factory=Unconditional)

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.smallest < 1:
            raise InputError(
                f"ReverseRun: expected steps of at least 1 and smallest between 0 and 1, got {self.steps} and "
                f"{self.smallest}."
            )

    def evaluations(self, sigma: float) -> int:
        """Network evaluations of one draw, at every level the same."""
        return self.integrator.evaluations([float(n) for n in range(self.steps, -1, -1)])

    def levels(self, prior: Denoiser, sigma: float) -> tuple[float, ...]:
        """The grid from sigma to 0."""
        last = max(self.smallest * sigma, min(prior.sigma_min, 0.5 * sigma))
        return tuple(karras(self.steps, sigma, last).tolist())

    def draw(
        self, problem: Problem, prior: Denoiser, z: Tensor, sigma: float, random: SampleRandom, trace: Trace
    ) -> Tensor:
        """x0 at the end of the run."""
        levels = self.levels(prior, sigma)
        return reverse(problem, prior, z, levels, self.conditioning, self.integrator, random, trace)


def reverse(
    problem: Problem,
    prior: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    conditioning: Conditioning,
    integrator: Integrator,
    random: SampleRandom,
    trace: Trace,
) -> Tensor:
    """x carried from the first level to the last.

    Args:
        problem: what `conditioning` is given.
        prior: the prior.
        x: images at the first level (items, *in_shape).
        levels: decreasing noise levels, the last may be 0.
        conditioning: the estimate of x0.
        integrator: how x is carried to the next level.
        random: one stream per row.
        trace: receives every evaluation.
    """
    shape, dtype = x.shape[1:], x.dtype

    def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
        found = conditioning.estimate(problem, prior, x, sigma, random, sigma_next=sigma_next, draw=draw)
        trace.evaluation(sigma, found.x0, found.denoised)
        return found

    path = Path(tuple(levels), estimate, lambda: random.normal(shape, dtype=dtype), prior)
    return deque(integrator.walk(path, x), maxlen=1).pop()
