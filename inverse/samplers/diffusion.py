"""The one loop: conditioning x integrator x grid."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.operators.base import Operator
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.anchor import anchor_of
from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.grids import check_grid, karras
from inverse.samplers.instability import Instability, check_levels
from inverse.samplers.integrators.base import Integrator, Path
from inverse.samplers.integrators.ddim import DDIM
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace
from inverse.samplers.start import from_data, from_noise

STARTS = {"data": from_data, "noise": from_noise}
LARGEST = 25.0


@dataclass(frozen=True)
class DiffusionSampler(Sampler):
    """Posterior sampling from the largest noise level down: the conditioning estimates x0, the integrator moves on.

    Args:
        conditioning: how the data enter, e.g. `DDS()`.
        integrator: how x is carried to the next level.
        steps: network evaluations, where no grid is given; an integrator that needs several a step makes fewer steps.
        grid: decreasing noise levels, the last may be 0; None takes `default_grid(prior, steps)`.
        start: "data" starts from a coarse image drawn given the data plus noise, "noise" from noise alone.
        largest: first level of the default grid, in data standard deviations, for priors that state a spectrum: with it
            the start already carries the coarse image. Others begin at 25.
        instability: warn of detail that the prior may have made up: `Solution.maps["instability"]`, how much its
            estimate changes at the end of the run over what is expected (samples, items, *in_shape); not validated
            clinically, see `inverse.samplers.instability`.
        antithetic: opposite noise in pairs of samples, see `Sampler`.

    Raises:
        InputError: steps below 1, a grid that does not decrease, or an integrator that asks for draws which the
            conditioning does not make.
    """

    conditioning: Conditioning
    integrator: Integrator = field(default_factory=DDIM)
    steps: int = 20
    grid: tuple[float, ...] | None = None
    start: str = "data"
    largest: float = LARGEST
    instability: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps: expected at least 1, got {self.steps}.")
        check_positive("largest", self.largest)
        if self.start not in STARTS:
            raise InputError(f"start: expected one of {', '.join(STARTS)}, got {self.start!r}.")
        if self.integrator.draws and not self.conditioning.draws:
            raise InputError(
                f"{self.integrator!r} asks for draws of x0, which {self.conditioning!r} cannot make; "
                "use DDIM(eta=1.0) or a conditioning with a covariance."
            )
        if self.grid is not None:
            levels = torch.as_tensor(self.grid, dtype=torch.float64)
            check_grid(levels)
            object.__setattr__(self, "grid", tuple(levels.tolist()))

    def with_steps(self, steps: int) -> DiffusionSampler:
        """The same sampler on its default grid with another number of evaluations."""
        return replace(self, steps=steps, grid=None)

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.integrator.evaluations(self.grid or _counted(self._grid_steps()))

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The grid, or the default one for this prior."""
        largest = self.largest if prior.calibration is not None and self.start == "data" else LARGEST
        return self.grid or tuple(default_grid(prior, self._grid_steps(), largest).tolist())

    def _grid_steps(self) -> int:
        """As many steps as `steps` evaluations allow, at least one."""
        count = self.steps
        while count > 1 and self.integrator.evaluations(_counted(count)) > self.steps:
            count -= 1
        return count

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item of the problem."""
        innovations: list[Tensor] = []
        watch = Instability(prior) if self.instability else None

        def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
            found = self.conditioning.estimate(problem, prior, x, sigma, random, sigma_next=sigma_next, draw=draw)
            trace.evaluation(sigma, found.x0, found.denoised)
            if watch is not None:
                watch.add(sigma, found.denoised)
            if found.innovation is not None:
                innovations.append(torch.stack([torch.full_like(found.innovation, sigma), found.innovation], dim=-1))
            return found

        levels, shape, dtype = self.levels(prior), problem.adjoint_y.shape[1:], problem.adjoint_y.dtype
        path = Path(
            levels, estimate, lambda: random.normal(shape, dtype=dtype), prior, lambda: anchor_of(problem, prior)
        )
        x = STARTS[self.start](problem, prior, levels[0], random)
        x = deque(self.integrator.walk(path, x), maxlen=1).pop()
        if levels[-1] == 0:
            x = problem.restrict(x)
        if innovations:
            trace.keep("innovation", torch.stack(innovations, dim=1))
        if watch is not None:
            trace.keep("instability", watch.map())
        return x

    def report(self, kept: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The noise level and the mean innovation of every evaluation, and the map of instability if asked for."""
        maps = {name: kept[name] for name in ("instability",) if name in kept}
        if "innovation" not in kept:
            return {}, maps
        curve = kept["innovation"].double().mean((0, 1)).tolist()
        return {"innovation": [[sigma, round(k, 4)] for sigma, k in curve]}, maps

    def check(self, operator: Operator, prior: Denoiser) -> None:
        """Refuse nonlinear operators, unless conditioning and start take them, and too few levels for `instability`.

        Raises:
            InputError: the operator has no adjoint, which conditioning or start need; or the grid has fewer than two
                levels where `instability` looks.
        """
        if self.instability:
            check_levels(self.levels(prior), prior)
        if not (self.conditioning.nonlinear and self.start == "noise"):
            super().check(operator, prior)


def default_grid(prior: Denoiser, steps: int, largest: float = LARGEST) -> Tensor:
    """Karras levels from `largest` data standard deviations down to 0.8 / steps of one, then 0.

    The image loses what is finer than the last level before 0, so that level falls as the steps allow.
    """
    sigma_max = min(prior.sigma_max, largest * prior.data_std)
    sigma_min = min(max(prior.sigma_min, 0.8 * prior.data_std / steps), 0.5 * sigma_max)
    return karras(steps, sigma_max, sigma_min)


def _counted(steps: int) -> tuple[float, ...]:
    """Some grid of so many steps that ends at 0."""
    return tuple(float(n) for n in range(steps, -1, -1))
