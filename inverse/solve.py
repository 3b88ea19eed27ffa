"""`solve`: one call from data, operator and prior to an image with an error bar."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive, check_tensor, check_trailing_shape
from inverse.linalg.cg import cg
from inverse.noise import AtMost, estimate_noise, refine_noise
from inverse.operators.base import LinearOperator, Operator
from inverse.operators.mask import Identity
from inverse.operators.noise import Noise
from inverse.priors.base import Denoiser
from inverse.priors.files import load
from inverse.progress import progress as show_progress
from inverse.samplers.methods import choose
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler
from inverse.samplers.solution import Solution

RESIDUAL_RANGE = (0.8, 1.25)
"""A residual outside is reported: noise level, operator or prior do not fit the data."""


@torch.no_grad()
def solve(
    y: Tensor,
    operator: Operator,
    prior: Denoiser | str = "brain-mr",
    method: str | Sampler = "auto",
    *,
    noise: float | Noise | AtMost | None = None,
    samples: int = 1,
    steps: int | None = None,
    seed: int = 0,
    scale: float | str = "auto",
    batch: int | None = None,
    progress: bool | None = None,
    callback: Callable[[int, float, Tensor], None] | None = None,
) -> Solution:
    """Reconstruct x from y = A x + noise: samples of p(x | y), their mean, error bar and cost.

    Args:
        y: the data (*batch, *operator.out_shape).
        operator: A; nonlinear ones need a method that takes gradients, e.g. "dps".
        prior: a prior, or the name of a shipped one.
        method: a sampler or a name: "auto", "learned-covariance", "dds", "dds-published".
        noise: standard deviation per real component of y, in the units of y; 0 makes the data exact. Or a model of
            `inverse.operators.noise`: its white equivalent is solved. `AtMost(bound)` refines a bound by short pilot
            runs; None asks the operator what the data show, and else takes a bound from them (`inverse.noise`).
        samples: how many; two or more give an error bar. Methods by name drive them in pairs of opposite noise.
        steps: network evaluations per sample; None keeps the method's own number.
        seed: sample i of seed s is the same whatever the batch.
        scale: number that the image is divided by for the prior; "auto" takes the prior's unit where it has one, and
            else brings the 99.9th percentile of the image to the prior's.
        batch: images per network call; None chooses from free memory.
        progress: True or False; None shows a bar when it takes more than two seconds.
        callback: called with (step, sigma, estimate of x0) after every step.

    Returns:
        A `Solution`; samples are (samples, *batch, *operator.in_shape), in the units of the data.

    Raises:
        InputError: something does not fit; before the first network evaluation.
        SamplingError: NaN or Inf appeared while sampling.
    """
    prior = _prior(prior, operator)
    sampler, reason = choose(method, prior, steps)
    _check(y, operator, prior, sampler, samples, batch)
    lead = y.shape[: y.ndim - len(operator.out_shape)]
    rows = y.reshape(math.prod(lead), *operator.out_shape)
    model = operator.noise_of(rows) if noise is None else noise
    problem, factor = _prepare(rows, operator, prior, model, scale)
    rescaled = None if callback is None else (lambda step, sigma, x0: callback(step, sigma * factor, x0 * factor))
    with show_progress("solve", sampler.evaluations() * samples * len(rows), progress) as bar:
        solution = sampler.run(
            problem,
            prior,
            samples=samples,
            seed=seed,
            batch=batch or _batch(operator, samples * len(rows)),
            progress=bar,
            callback=rescaled,
        )
    facts = {
        "why": reason,
        "noise": repr(model) if isinstance(model, Noise) else problem.sigma_y * (factor if operator.linear else 1.0),
        "noise_given": noise is not None and not isinstance(noise, AtMost),
        "scale": factor,
        "notes": solution.info.get("notes", []) + _remarks(solution, problem.sigma_y, operator),
        "torch": torch.__version__,
    }
    return _in_units_of_y(replace(solution, info={**solution.info, **facts}), factor, (samples, *lead))


def _in_units_of_y(solution: Solution, factor: float, shape: tuple[int, ...]) -> Solution:
    """The solution with its samples in the scale and the batch shape of the data."""
    samples = solution.samples * factor
    return replace(
        solution,
        samples=samples.reshape(*shape, *samples.shape[2:]),
        residual=solution.residual.reshape(shape),
        maps={name: image.reshape(*shape, *image.shape[2:]) for name, image in solution.maps.items()},
    )


def _prior(prior: Denoiser | str, operator: Operator) -> Denoiser:
    """The prior on the device of the operator."""
    if isinstance(prior, str):
        return load(prior, device=operator.device)
    if not isinstance(prior, Denoiser):
        raise InputError(
            f"prior: expected a prior or the name of one, got {type(prior).__name__}; "
            "wrap a denoiser(x, sigma) by inverse.priors.from_function."
        )
    return prior.to(operator.device)


def _prepare(
    y: Tensor, operator: Operator, prior: Denoiser, noise: float | Noise | AtMost | None, scale: float | str
) -> tuple[Problem, float]:
    """The problem in the prior's scale, and the factor that brings its images back."""
    if len(y) == 0:
        raise InputError(f"y: shape {tuple(y.shape)} holds no data; give at least one item.")
    if isinstance(scale, str) and scale != "auto":
        raise InputError(f"scale: expected 'auto' or a number, got {scale!r}.")
    if not isinstance(operator, LinearOperator):
        return _prepare_nonlinear(y, operator, prior, noise, scale)
    bound = AtMost(estimate_noise(y, operator)) if noise is None else noise
    if isinstance(bound, Noise):
        operator, y, bound = bound.whiten(operator, y)
    sigma_y = bound.value if isinstance(bound, AtMost) else bound
    check_positive("noise", sigma_y, zero=True)
    factor = (prior.unit or _scale(y, operator, prior)) if isinstance(scale, str) else scale
    check_positive("scale", factor)
    problem = Problem.build(operator, y / factor, sigma_y / factor)
    if isinstance(bound, AtMost):
        problem = Problem.build(operator, problem.y, refine_noise(problem, prior))
    return problem, factor


def _prepare_nonlinear(
    y: Tensor, operator: Operator, prior: Denoiser, noise: float | Noise | AtMost | None, scale: float | str
) -> tuple[Problem, float]:
    """A(f x) = y in the place of A(x) = y / f, which only linear operators allow; the noise stays as it is."""
    factor = (prior.unit or (1.0 if prior.peak is None else None)) if isinstance(scale, str) else scale
    if factor is None or not isinstance(noise, float | int):
        raise InputError("nonlinear operator: noise and scale cannot be found from the data; give both as numbers.")
    check_positive("noise", noise, zero=True)
    check_positive("scale", factor)
    scaled = operator @ (factor * Identity(operator.in_shape, dtype=operator.in_dtype, device=operator.device))
    return Problem.build(scaled, y, noise), factor


def _scale(y: Tensor, operator: LinearOperator, prior: Denoiser) -> float:
    """What brings the 99.9th percentile of a quick regularised reconstruction to the prior's."""
    if prior.peak is None:
        return 1.0
    tikhonov = 0.02 * operator.norm() ** 2
    x = cg(lambda v: operator.gram(v) + tikhonov * v, operator.H(y), rtol=1e-2, max_iterations=15).x
    magnitude = x.abs() if operator.support is None else x.abs()[:, operator.support]
    peak = float(torch.quantile(magnitude.flatten(1).float(), 0.999, dim=1).median()) if magnitude.numel() else 0.0
    if not peak > 0:
        raise InputError("y: holds no signal (all zero where it was measured); check the file and the mask.")
    return peak / prior.peak


def _batch(operator: Operator, wanted: int) -> int:
    """Images per network call that fit in a quarter of the free memory."""
    pixels = math.prod(operator.in_shape)
    needed = 64 * math.prod(operator.out_shape) + 4096 * pixels  # data-step tensors, network activations
    device = operator.device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(wanted, free // (4 * needed)))


def _check(y: Tensor, operator: Operator, prior: Denoiser, sampler: Sampler, samples: int, batch: int | None) -> None:
    if not isinstance(operator, Operator):
        raise InputError(f"operator: expected an operator, got {type(operator).__name__}; see inverse.operators.")
    check_tensor("y", y, complex_=operator.out_dtype.is_complex)
    check_trailing_shape("y", y, operator.out_shape, "the operator's data")
    if y.dtype != operator.out_dtype or y.device != operator.device:
        raise InputError(
            f"y: is {y.dtype} on {y.device}, the operator takes {operator.out_dtype} on {operator.device}; "
            "use y.to(...)."
        )
    if samples < 1 or (batch is not None and batch < 1):
        raise InputError(f"samples and batch: expected at least 1, got {samples} and {batch}.")
    prior.check_image(operator.in_shape, operator.in_dtype)
    sampler.check(operator, prior)


def _remarks(solution: Solution, sigma_y: float, operator: Operator) -> list[str]:
    notes = (
        []
        if getattr(operator, "matched", True)
        else ["A^H is not the adjoint of A: the data step solves an approximation"]
    )
    residual = float(solution.residual.mean())
    if sigma_y == 0 or RESIDUAL_RANGE[0] <= residual <= RESIDUAL_RANGE[1]:
        return notes
    likely = "the noise is set too high" if residual < 1 else "the noise is set too low, or maps or model do not fit"
    return [*notes, f"residual {residual:.2f} of the noise level, near 1 is right: {likely}"]
