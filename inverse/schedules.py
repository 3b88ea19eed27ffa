"""Noise grids found for a task: a coordinate search over the levels on a handful of problems.

    error(grid) = mean over items and samples of |x(grid) - x(fine)|^2,   both from the same start and noise

x(fine) is a run of the same conditioning with DPM-Solver++ 3M and many evaluations. Ours, cheap: some tens of runs of
as many evaluations as the grid has, where the published searches take hundreds of quality scores (Li et al.,
AutoDiffusion, 2023; Liu et al., USF, 2023). Their lesson holds: the best levels depend on the solver and on the task.

Measured on a mixture of three Gaussians of 256 modes whose amplitudes differ by 2, error of the end point on noise that
the search has not seen, with Karras levels / a geometric grid / the found one: DPM-Solver++ 2M .20 / .24 / .10 at 5
evaluations and .08 / .05 / .03 at 8, `Anchored` .12 / .06 / .03 and .04 / .016 / .011.

Measured on the same mixture, on a brain network and on MRI with it, at 5 to 12 evaluations, and not offered:

- DC-Solver's compensation, one fitted number per step (Zhao et al. 2024): DPM-Solver++ 2M between 30 % better and 130 %
  worse, on MRI the same; a number that makes each next step right does not make the end right;
- the network called at the level which the variance of x shows, within 2 or 10 % (Li et al. 2024): between 20 % better
  and 240 % worse;
- eps mixed with that of the first level (DualFast, 2025): a tenth to a quarter less error of DDIM, which is still twice
  that of 2M or more; of 2M up to 40 % less without data, the same on MRI.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.progress import progress as show_progress
from inverse.samplers.conditionings.base import Estimate
from inverse.samplers.diffusion import DiffusionSampler
from inverse.samplers.grids import geometric, karras
from inverse.samplers.integrators.adams import dpm_solver_3m
from inverse.samplers.integrators.base import Path
from inverse.samplers.problem import Problem

FIRST_MOVE, SHRINK = 0.4, 0.7
"""Length of a move in log sigma, and by what it shrinks from sweep to sweep."""
LEAST_GAP = 0.02
"""Smallest distance of two levels in log sigma."""


def search(
    problem: Problem,
    evaluations: int,
    *,
    prior: Denoiser,
    sampler: DiffusionSampler,
    truth: Tensor | None = None,
    samples: int = 8,
    sweeps: int = 6,
    fine: int = 100,
    seed: int = 0,
    batch: int | None = None,
    progress: bool | None = None,
) -> Tensor:
    """Find the noise grid with the least error for a sampler on problems of one kind.

    It starts from the better of the sampler's default grid and a geometric one. Use people that nobody tests on; the
    grid holds for the operator, the noise and the sampler that it was found with.

    Args:
        problem: a handful of items with data, in the scale of the prior; `Problem.without_data` for the prior alone.
        evaluations: network evaluations that the grid may cost.
        prior: the prior.
        sampler: conditioning, integrator and start; the first level stays that of its default grid.
        truth: true images (items, *in_shape), with which the mean of the samples is compared; None compares every
            sample with its own fine run, which takes an integrator without noise.
        samples: samples per item.
        sweeps: rounds over the levels.
        fine: evaluations of the fine run.
        seed: seed of the noise.
        batch: images per network call; None puts all into one.
        progress: True or False; None shows a bar when it takes more than two seconds.

    Returns:
        Decreasing levels, the last 0, float64: `dataclasses.replace(sampler, grid=tuple(levels.tolist()))` uses them.

    Raises:
        InputError: numbers below 1, truth of another shape, or no truth for an integrator that takes noise.
    """
    if min(evaluations, samples, fine) < 1 or sweeps < 0:
        raise InputError(
            "search: evaluations, samples and fine must be at least 1 and sweeps not negative; "
            f"got {evaluations}, {samples}, {fine}, {sweeps}."
        )
    sampler = sampler.with_steps(evaluations)
    levels = sampler.levels(prior)
    _check(problem, prior, sampler, levels, truth)

    def run(integrator_on: DiffusionSampler) -> Tensor:
        return integrator_on.run(problem, prior, samples=samples, seed=seed, batch=batch).samples

    if truth is None:
        dense = karras(fine, levels[0], min(prior.sigma_min, levels[0] / 2))
        target = run(replace(sampler, integrator=dpm_solver_3m(), grid=tuple(dense.tolist())))
    with show_progress("search", 2 + 2 * sweeps * (len(levels) - 2), progress) as bar:

        def error(grid: list[float]) -> float:
            found = run(replace(sampler, grid=(*grid, 0.0)))
            bar.advance()
            distance = found - target if truth is None else found.mean(0) - truth
            return float(distance.abs().square().mean())

        return torch.tensor([*_descend(error, list(levels[:-1]), prior.sigma_min, sweeps), 0.0], dtype=torch.float64)


def _descend(error: Callable[[list[float]], float], levels: list[float], smallest: float, sweeps: int) -> list[float]:
    """Move one level at a time, keep what has less error; the first level stays."""
    starts = [levels] if len(levels) < 3 else [levels, geometric(len(levels), levels[0], levels[-1])[:-1].tolist()]
    least, best = min((error(start), start) for start in starts)
    for sweep in range(sweeps):
        for place in range(1, len(best)):
            for sign in (1, -1):
                trial = list(best)
                trial[place] *= math.exp(sign * FIRST_MOVE * SHRINK**sweep)
                apart = all(math.log(a / b) >= LEAST_GAP for a, b in pairwise(trial))
                if not apart or trial[-1] < smallest:
                    continue
                found = error(trial)
                if found < least:
                    least, best = found, trial
                    break
    return best


def _check(
    problem: Problem, prior: Denoiser, sampler: DiffusionSampler, levels: tuple[float, ...], truth: Tensor | None
) -> None:
    """Refuse what cannot be compared, before any evaluation."""
    if truth is not None:
        if truth.shape != problem.adjoint_y.shape:
            raise InputError(
                f"truth: expected {tuple(problem.adjoint_y.shape)}, one image per item, got {tuple(truth.shape)}."
            )
        return
    noise: list[float] = []

    def take_noise() -> Tensor:
        noise.append(0.0)
        return torch.zeros_like(problem.adjoint_y)

    def halve(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
        return Estimate(x / 2, x / 2)

    for _ in sampler.integrator.walk(Path(levels, halve, take_noise, prior), torch.zeros_like(problem.adjoint_y)):
        pass
    if noise or sampler.integrator.draws:
        raise InputError(
            f"search: {sampler.integrator!r} takes noise, which parts it from any fine run; give the true images, or "
            "search with a deterministic integrator."
        )
