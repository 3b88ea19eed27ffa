"""What every sampler shares: batches of images, seeds, memory, and the solution put together."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from inverse.errors import InputError, SamplingError
from inverse.operators.base import Operator
from inverse.priors.base import Denoiser
from inverse.progress import Progress, Silent
from inverse.random import SampleRandom
from inverse.samplers.problem import Problem
from inverse.samplers.solution import Solution, Stats

Callback = Callable[[int, float, Tensor], None]
SomeSampler = TypeVar("SomeSampler", bound="Sampler")


class Trace:
    """What a running sampler reports of one batch: its evaluations, and tensors to keep.

    Args:
        rows: images in the batch.
        progress: receives one step per image and evaluation.
        callback: called with (evaluation, sigma, estimate of x0).
    """

    def __init__(self, rows: int, progress: Progress, callback: Callback | None):
        self.rows, self._progress, self._callback = rows, progress, callback
        self.evaluations = 0
        self.kept: dict[str, Tensor] = {}

    def evaluation(self, sigma: float, x0: Tensor, denoised: Tensor, *, count: int = 1) -> None:
        """Report network evaluations at one level.

        Args:
            sigma: the noise level.
            x0: the estimate that the sampler goes on with.
            denoised: the prior's estimate D.
            count: evaluations per image that this report stands for.

        Raises:
            SamplingError: NaN or Inf appeared.
        """
        if x0.device.type == "cpu" or self.evaluations % 8 == 7:  # the check waits for the device
            check_finite(denoised, "the prior's estimate", self.evaluations, sigma)
            check_finite(x0, "the data step", self.evaluations, sigma)
        if self._callback is not None:
            self._callback(self.evaluations, sigma, x0)
        self.evaluations += count
        self._progress.advance(self.rows * count)

    def keep(self, name: str, value: Tensor) -> None:
        """Keep a tensor (rows, ...) for the report of the run."""
        self.kept[name] = value


@dataclass(frozen=True)
class Sampler(ABC):
    """Draws samples of p(x | y); constructed from numbers only, comparable, printable, picklable.

    Args:
        antithetic: samples 2j and 2j + 1 are driven by the same noise with opposite signs. Each alone is what it was;
            their mean converges faster, since what is linear in the noise cancels (Hammersley and Morton 1956).
    """

    antithetic: bool = field(default=False, kw_only=True)

    @abstractmethod
    def evaluations(self) -> int:
        """Network evaluations per sample."""

    @abstractmethod
    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """Noise levels that a run with this prior visits, for the report."""

    @abstractmethod
    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """One sample for every item of the problem (items, *in_shape).

        Args:
            problem: data, operator and noise level, one row per sample.
            prior: the prior.
            random: one stream per row.
            trace: receives every evaluation.
        """

    def check(self, operator: Operator, prior: Denoiser) -> None:
        """Refuse problems that this sampler cannot solve, before any work.

        Args:
            operator: A.
            prior: the prior.

        Raises:
            InputError: an operator without what the method needs; here, a nonlinear one.
        """
        if not operator.linear:
            raise InputError(
                f"operator {operator!r}: nonlinear, but {type(self).__name__} needs an adjoint; use a method "
                "that takes gradients, e.g. 'dps'."
            )

    def report(self, kept: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Facts for `Solution.info` and images for `Solution.maps` from what the batches kept.

        Args:
            kept: tensors (samples, items, ...) by name.
        """
        return {}, {}

    def with_steps(self: SomeSampler, steps: int) -> SomeSampler:
        """The same sampler with another number of steps."""
        return replace(self, steps=steps)  # type: ignore[call-arg]

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
            progress: receives one step per image and network evaluation.
            callback: called with (evaluation, sigma, x0) after every network evaluation.

        Returns:
            A Solution whose samples are (samples, items, *in_shape).

        Raises:
            InputError: the sampler cannot solve this problem.
            SamplingError: NaN or Inf appeared.
        """
        self.check(problem.operator, prior)
        started = time.monotonic()
        items = len(problem.y)
        jobs = [(i, b) for i in range(samples) for b in range(items)]
        run = _Run(self, problem, prior, seed, progress or Silent(), callback)
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


class _Run:
    """One call of `run`: what its chunks share and collect."""

    def __init__(
        self,
        sampler: Sampler,
        problem: Problem,
        prior: Denoiser,
        seed: int,
        progress: Progress,
        callback: Callback | None,
    ):
        self.sampler, self.problem, self.prior, self.seed = sampler, problem, prior, seed
        self.progress, self.callback = progress, callback
        self.images: list[Tensor] = []
        self.residuals: list[Tensor] = []
        self.kept: dict[str, list[Tensor]] = {}
        self.works: list[tuple[int, int, float, int]] = []
        self.notes: list[str] = []

    def chunk(self, jobs: Sequence[tuple[int, int]]) -> None:
        """Sample the given (sample, item) pairs in one batch."""
        problem = self.problem.take([b for _, b in jobs])
        random = _random(self.seed, jobs, problem.y.device, antithetic=self.sampler.antithetic)
        trace = Trace(len(jobs), self.progress, self.callback)
        x = self.sampler.sample(problem, self.prior, random, trace)
        check_finite(x, "the samples", trace.evaluations, 0.0)
        self.images.append(x)
        self.residuals.append(problem.residual(x))
        for name, value in trace.kept.items():
            self.kept.setdefault(name, []).append(value)
        work = problem.work
        self.works.append((work.nfe, work.nfe_backward, work.grams, int(work.cg_iterations)))

    def solution(self, samples: int, items: int, seconds: float) -> Solution:
        """Put the chunks together."""
        shape = self.problem.adjoint_y.shape[1:]
        images = torch.cat(self.images) if self.images else self.problem.adjoint_y.new_empty((0, *shape))
        residuals = torch.cat(self.residuals) if self.residuals else images.real.new_empty((0,))
        nfe, backward, grams, cg = (max((w[k] for w in self.works), default=0) for k in range(4))
        kept = {k: torch.cat(v).reshape(samples, items, *v[0].shape[1:]) for k, v in self.kept.items()}
        facts, maps = self.sampler.report(kept)
        info = {
            "sampler": repr(self.sampler),
            "prior": self.prior.name,
            "seed": self.seed,
            "grid": list(self.sampler.levels(self.prior)),
            **facts,
        }
        if self.notes:
            info["notes"] = self.notes
        return Solution(
            images.reshape(samples, items, *shape),
            residuals.reshape(samples, items),
            Stats(int(nfe), int(backward), grams, int(cg), seconds, _peak_memory(images.device)),
            info,
            maps,
        )


def check_finite(x: Tensor, part: str, evaluation: int, sigma: float) -> None:
    """Stop on NaN or Inf.

    Raises:
        SamplingError: with the part that made it, the evaluation and the noise level.
    """
    if not bool(torch.isfinite(x).all()):
        raise SamplingError(
            f"sampling: NaN or Inf in {part} at step {evaluation} (sigma {sigma:.3g}); "
            "check scale, noise level and prior."
        )


def _random(seed: int, jobs: Sequence[tuple[int, int]], device: torch.device, *, antithetic: bool) -> SampleRandom:
    if not antithetic:
        return SampleRandom(seed, jobs, device)
    pairs = [(sample // 2, item) for sample, item in jobs]
    return SampleRandom(seed, pairs, device, signs=[-1.0 if sample % 2 else 1.0 for sample, _ in jobs])


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
