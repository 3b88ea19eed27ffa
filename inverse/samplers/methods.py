"""Methods by name, and the choice that `method="auto"` makes."""

from __future__ import annotations

from collections.abc import Callable

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.samplers.conditionings import DDS, LearnedCovariance
from inverse.samplers.diffusion import DiffusionSampler
from inverse.samplers.grids import ddpm_linear
from inverse.samplers.integrators import DDIM, Bridge
from inverse.samplers.sampler import Sampler


def dds(steps: int = 20) -> DiffusionSampler:
    """DDS with the noise-aware gamma, the conditioned noise direction and ancestral steps."""
    return DiffusionSampler(DDS(), DDIM(eta=1.0), steps, largest=2.0, antithetic=True)


def dds_published(steps: int = 50) -> DiffusionSampler:
    """DDS with the constants of its authors: gamma 5, five iterations, eta 0.85, the unconditioned noise direction.

    Its grid is the linear-beta DDPM schedule, whose largest level is 157: for a prior trained on less, use `dds`.
    """
    integrator = DDIM(eta=0.85, convention="dds", direction="unconditioned")
    grid = tuple(ddpm_linear(steps).tolist())
    return DiffusionSampler(DDS(gamma=5.0, iterations=5, rtol=0.0), integrator, grid=grid, start="noise")


def learned_covariance(steps: int = 20) -> DiffusionSampler:
    """Learned covariance with the innovation, and the bridge through draws of x0 (error bars that hold)."""
    return DiffusionSampler(LearnedCovariance(), Bridge(), steps, largest=2.0, antithetic=True)


METHODS: dict[str, Callable[..., Sampler]] = {
    "learned-covariance": learned_covariance,
    "dds": dds,
    "dds-published": dds_published,
}


def choose(method: str | Sampler, prior: Denoiser, steps: int | None = None) -> tuple[Sampler, str]:
    """The sampler of a name, and why it was chosen.

    "auto" takes the learned covariance: it is DDS where the prior states neither variance nor spectrum, and better
    where it does (experiments/results/mri.md, experiments/results/exactness.md).

    Args:
        method: a sampler, a name of `METHODS`, or "auto".
        prior: the prior.
        steps: network evaluations; None keeps the method's own number.

    Raises:
        InputError: an unknown name.
    """
    if not isinstance(method, str):
        return (method if steps is None else method.with_steps(steps)), "given"
    wanted = {} if steps is None else {"steps": steps}
    if method == "auto":
        known = [n for n, has in (("variance", prior.moments), ("spectrum", prior.calibration)) if has is not None]
        stated = " and ".join(known) or "neither variance nor spectrum"
        return learned_covariance(**wanted), f"auto: learned covariance, the prior states {stated}"
    if method not in METHODS:
        raise InputError(f"method {method!r}: unknown; choose auto, {', '.join(METHODS)} or give a sampler.")
    return METHODS[method](**wanted), "by name"
