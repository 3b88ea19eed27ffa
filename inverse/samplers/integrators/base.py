"""What an integrator is: it carries x down the grid, for any estimate of x0, and never sees the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

from torch import Tensor

from inverse.priors.base import Denoiser
from inverse.samplers.anchor import Anchor
from inverse.samplers.conditionings.base import Estimate


class Estimator(Protocol):
    """The conditioned denoiser of a run; one call is one evaluation of the network."""

    def __call__(self, x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
        """Estimate of x0 given x at level sigma, or a draw; sigma_next is where the step leads."""
        ...


@dataclass(frozen=True)
class Path:
    """What an integrator is given of a run.

    Attributes:
        levels: the grid, decreasing, the last level may be 0.
        estimate: the conditioned denoiser.
        noise: draws standard normal noise in the shape of x.
        prior: the prior, for solvers that use its statistics; never to denoise with.
        anchor: makes a Gaussian that stands for the images given the data; None: nothing is known but the prior.
    """

    levels: tuple[float, ...]
    estimate: Estimator
    noise: Callable[[], Tensor]
    prior: Denoiser
    anchor: Callable[[], Anchor] | None = None


class Integrator(ABC):
    """Carries x from level to level.

    Attributes:
        draws: whether it asks the conditioning for draws of x0.
    """

    draws: ClassVar[bool] = False

    @abstractmethod
    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first; a generator, so that what a step remembers is a local variable.

        Args:
            path: grid, estimate and noise.
            x: at the first level (items, *in_shape).
        """

    def evaluations(self, levels: Sequence[float]) -> int:
        """Network evaluations on a grid; one for each step unless an integrator says otherwise."""
        return len(levels) - 1


class OneEvaluation(Integrator):
    """Integrators whose step follows from one estimate, without memory."""

    @abstractmethod
    def step(
        self, x: Tensor, estimate: Estimate, sigma: float, sigma_next: float, noise: Callable[[], Tensor]
    ) -> Tensor:
        """x at sigma_next; at 0 the estimate itself."""

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        for sigma, sigma_next in pairwise(path.levels):
            x = self.step(x, path.estimate(x, sigma, sigma_next), sigma, sigma_next, path.noise)
            yield x
