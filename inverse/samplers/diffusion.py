"""The one loop: conditioning x integrator x grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inverse.errors import InputError, SamplingError, check_positive
from inverse.priors.base import Denoiser
from inverse.progress import Progress, Silent
from inverse.random import SampleRandom
from inverse.samplers.conditioning import Conditioning
from inverse.samplers.grids import check_grid, karras
from inverse.samplers.integrators import DDIM, Integrator
from inverse.samplers.problem import Problem
from inverse.samplers.solution import Solution, Stats
from inverse.samplers.start import from_data, from_noise

STARTS = {"data": from_data, "noise": from_noise}
LARGEST = 25.0
Callback = Callable[[int, float, Tensor], None]


@dataclass(frozen=True)
class DiffusionSampler:
    """Posterior sampling from the largest noise level down: the conditioning estimates x0, the integrator moves on.

        for sigma, sigma_next in the grid:
            estimate = conditioning.estimate(problem, prior, x, sigma)
            x = integrator.step(x, estimate, sigma, sigma_next)

    Args:
        conditioning: how the data enter, e.g. `DDS()`.
        integrator: how x is carried to the next level.
        steps: network evaluations, where no grid is given.
        grid: decreasing noise levels, the last may be 0; None takes `default_grid(prior, steps)`.
        start: "data" starts from a coarse image drawn given the data plus noise, "noise" from noise alone.
        largest: first level of the default grid, in data standard deviations, for priors that state a spectrum: with it
            the start already carries the coarse image. Others begin at 25.
        antithetic: samples 2j and 2j + 1 are driven by the same noise with opposite signs. Each alone is what it was;
            their mean converges faster, since what is linear in the noise cancels (Hammersley and Morton 1956).

    Raises:
        InputError: steps below 1, or a grid that does not decrease.
    """

    conditioning: Conditioning
    integrator: Integrator = field(default_factory=DDIM)
    steps: int = 20
    grid: tuple[float, ...] | None = None
    start: str = "data"
    largest: float = LARGEST
    antithetic: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps: expected at least 1, got {self.steps}.")
        check_positive("largest", self.largest)
        if self.start not in STARTS:
            raise InputError(f"start: expected one of {', '.join(STARTS)}, got {self.start!r}.")
        if self.grid is not None:
            levels = torch.as_tensor(self.grid, dtype=torch.float64)
            check_grid(levels)
            object.__setattr__(self, "grid", tuple(levels.tolist()))

    def with_steps(self, steps: int) -> DiffusionSampler:
        """The same sampler on its default grid with another number of evaluations."""
        return replace(self, steps=steps, grid=None)

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return self.steps if self.grid is None else len(self.grid) - 1

    @torch.no_grad()  # a prior with parameters of its own would keep the graph of all steps
    def run(
        self,
        problem: Problem,
        prior: Denoiser,
        *,
        samples: int,
        seed: int,
        batch: int | None = None,
        progress: Progress | None = None,
        callback: Callback | None = None,
    ) -> Solution:
        """Draw samples of p(x | y) for every item of the problem.

        Args:
            problem: data, operator and noise level; `problem.y` is (items, *out_shape).
            prior: the prior, on the device of the data.
            samples: samples per item.
            seed: sample i of item b is the same whatever the batch.
            batch: images per network call; None puts all into one. Halved when the device runs out of memory.
            progress: receives one step per image and level.
            callback: called with (step, sigma, x0) after every level.

        Returns:
            A Solution whose samples are (samples, items, *in_shape).

        Raises:
            SamplingError: NaN or Inf appeared.
        """
        started = time.monotonic()
        largest = self.largest if prior.calibration is not None and self.start == "data" else LARGEST
        levels = self.grid or tuple(default_grid(prior, self.steps, largest).tolist())
        items = len(problem.y)
        jobs = [(i, b) for i in range(samples) for b in range(items)]
        run = _Run(self, problem, prior, levels, seed, progress or Silent(), callback)
        batch = min(batch or len(jobs), max(1, len(jobs)))
        done = 0
        while done < len(jobs):
            chunk = jobs[done : done + batch]
            try:
                run.chunk(chunk)
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                batch = batch // 2
                run.notes.append(f"out of device memory: went on with {batch} images per network call")
                torch.cuda.empty_cache()
                continue
            done += len(chunk)
        return run.solution(samples, items, time.monotonic() - started)


def default_grid(prior: Denoiser, steps: int, largest: float = LARGEST) -> Tensor:
    """Karras levels from `largest` data standard deviations down to 0.8 / steps of one, then 0.

    The image loses what is finer than the last level before 0, so that level falls as the steps allow.
    """
    sigma_max = min(prior.sigma_max, largest * prior.data_std)
    sigma_min = min(max(prior.sigma_min, 0.8 * prior.data_std / steps), 0.5 * sigma_max)
    return karras(steps, sigma_max, sigma_min)


class _Run:
    """One call of `run`: what its chunks share and collect."""

    def __init__(
        self,
        sampler: DiffusionSampler,
        problem: Problem,
        prior: Denoiser,
        levels: Sequence[float],
        seed: int,
        progress: Progress,
        callback: Callback | None,
    ):
        self.sampler, self.problem, self.prior, self.levels, self.seed = sampler, problem, prior, levels, seed
        self.progress, self.callback = progress, callback
        self.images: list[Tensor] = []
        self.residuals: list[Tensor] = []
        self.innovations: list[Tensor] = []
        self.works: list[tuple[int, float, int]] = []
        self.notes: list[str] = []

    def chunk(self, jobs: Sequence[tuple[int, int]]) -> None:
        """Sample the given (sample, item) pairs in one batch."""
        problem = self.problem.take([b for _, b in jobs])
        device, dtype = problem.adjoint_y.device, problem.adjoint_y.dtype
        random = _random(self.seed, jobs, device, antithetic=self.sampler.antithetic)
        shape = problem.adjoint_y.shape[1:]
        x = STARTS[self.sampler.start](problem, self.prior, self.levels[0], random)
        curve: list[Tensor] = []
        for step, (sigma, sigma_next) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            final = step == len(self.levels) - 2
            estimate = self.sampler.conditioning.estimate(problem, self.prior, x, sigma, random, final=final)
            x = self.sampler.integrator.step(x, estimate, sigma, sigma_next, lambda: random.normal(shape, dtype=dtype))
            if final or device.type == "cpu" or step % 8 == 7:  # the check waits for the device
                _check_finite(estimate.denoised, "the prior's estimate", step, sigma)
                _check_finite(x, "the data step", step, sigma)
            if estimate.innovation is not None:
                curve.append(estimate.innovation)
            if self.callback is not None:
                self.callback(step, sigma, estimate.x0)
            self.progress.advance(len(jobs))
        self.images.append(x)
        self.residuals.append(problem.residual(x))
        if curve:
            self.innovations.append(torch.stack(curve))
        self.works.append((problem.work.nfe, problem.work.grams, int(problem.work.cg_iterations)))

    def solution(self, samples: int, items: int, seconds: float) -> Solution:
        """Put the chunks together."""
        shape = self.problem.adjoint_y.shape[1:]
        images = torch.cat(self.images) if self.images else self.problem.adjoint_y.new_empty((0, *shape))
        residuals = torch.cat(self.residuals) if self.residuals else images.real.new_empty((0,))
        nfe, grams, cg = (max((w[k] for w in self.works), default=0) for k in range(3))
        info = {"sampler": repr(self.sampler), "prior": self.prior.name, "seed": self.seed, "grid": list(self.levels)}
        if self.innovations:
            mean = torch.cat(self.innovations, dim=1).double().mean(1)
            info["innovation"] = [[s, round(float(k), 4)] for s, k in zip(self.levels, mean, strict=False)]
        if self.notes:
            info["notes"] = self.notes
        return Solution(
            images.reshape(samples, items, *shape),
            residuals.reshape(samples, items),
            Stats(int(nfe), 0, grams, int(cg), seconds, _peak_memory(images.device)),
            info,
        )


def _random(seed: int, jobs: Sequence[tuple[int, int]], device: torch.device, *, antithetic: bool) -> SampleRandom:
    if not antithetic:
        return SampleRandom(seed, jobs, device)
    pairs = [(sample // 2, item) for sample, item in jobs]
    return SampleRandom(seed, pairs, device, signs=[-1.0 if sample % 2 else 1.0 for sample, _ in jobs])


def _check_finite(x: Tensor, part: str, step: int, sigma: float) -> None:
    if not bool(torch.isfinite(x).all()):
        raise SamplingError(
            f"sampling: NaN or Inf in {part} at step {step} (sigma {sigma:.3g}); check scale, noise level and prior."
        )


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
