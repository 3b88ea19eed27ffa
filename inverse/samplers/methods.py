"""Methods by name, and the choice that `method="auto"` makes.

Each takes its number of network evaluations (of levels, where a level costs several). Published constants are those of
the authors' papers or code, for images in [-1, 1]; what they mean is in the module of the method.
"""

from __future__ import annotations

from collections.abc import Callable

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.samplers.conditionings import (
    DDNM,
    DDS,
    DPS,
    TMPD,
    DiffPIR,
    LearnedCovariance,
    MomentMatching,
    PiGDM,
)
from inverse.samplers.daps import DAPS
from inverse.samplers.daps import published as daps_constants
from inverse.samplers.ddrm import DDRM
from inverse.samplers.diffusion import DiffusionSampler
from inverse.samplers.grids import ddpm_linear
from inverse.samplers.integrators import DDIM, Bridge
from inverse.samplers.mcgdiff import MCGDiff
from inverse.samplers.pnp_dm import PnPDM
from inverse.samplers.red_diff import RedDiff
from inverse.samplers.red_diff import published as red_diff_published
from inverse.samplers.sampler import Sampler
from inverse.samplers.split_gibbs import SplitGibbs
from inverse.samplers.tds import TDS
from inverse.samplers.twisted import Twisted


def learned_covariance(steps: int = 20) -> DiffusionSampler:
    """Learned covariance with the innovation, and the bridge through draws of x0 (error bars that hold)."""
    return DiffusionSampler(LearnedCovariance(), Bridge(), steps, largest=2.0, antithetic=True)


def spectral_covariance(steps: int = 20) -> DiffusionSampler:
    """The spectrum of the prior's error alone."""
    return DiffusionSampler(LearnedCovariance(variance=False), Bridge(), steps, largest=2.0, antithetic=True)


def variance_head(steps: int = 20) -> DiffusionSampler:
    """The prior's variance per pixel alone."""
    return DiffusionSampler(LearnedCovariance(spectrum=False), Bridge(), steps, largest=2.0, antithetic=True)


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


def moment_matching(steps: int = 5) -> DiffusionSampler:
    """The exact covariance by Jacobian products, and the bridge; up to 100 backward passes a step."""
    return DiffusionSampler(MomentMatching(), Bridge(), steps, largest=2.0, antithetic=True)


def tmpd(steps: int = 100) -> DiffusionSampler:
    """TMPD, ancestral."""
    return DiffusionSampler(TMPD(), DDIM(eta=1.0), steps, largest=2.0, antithetic=True)


def pigdm(steps: int = 100) -> DiffusionSampler:
    """PiGDM, ancestral."""
    return DiffusionSampler(PiGDM(), DDIM(eta=1.0), steps, largest=2.0, antithetic=True)


def dps(steps: int = 1000) -> DiffusionSampler:
    """DPS as published: the norm, zeta 1, ancestral steps from noise; takes nonlinear operators."""
    return DiffusionSampler(DPS(), DDIM(eta=1.0), steps, start="noise")


def diffpir(steps: int = 100) -> DiffusionSampler:
    """DiffPIR with lambda 1, which is Bayes' rule at small sigma, and all noise fresh (zeta 1)."""
    return DiffusionSampler(DiffPIR(weight=1.0), DDIM(eta=1.0, convention="dds"), steps, largest=2.0, antithetic=True)


def diffpir_published(steps: int = 100) -> DiffusionSampler:
    """DiffPIR with the published constants for blur: lambda 7, zeta 0.3."""
    return DiffusionSampler(DiffPIR(weight=7.0), DDIM(eta=0.3**0.5, convention="dds"), steps)


def ddnm(steps: int = 100) -> DiffusionSampler:
    """DDNM as published, for data without noise: eta 0.85, the unconditioned noise direction."""
    return DiffusionSampler(DDNM(), DDIM(eta=0.85, convention="dds", direction="unconditioned"), steps)


def ddrm(steps: int = 20) -> DDRM:
    """DDRM as published, for operators with an SVD: eta 0.85, eta_b 1."""
    return DDRM(steps=steps)


def red_diff(steps: int = 100) -> RedDiff:
    """RED-diff with the noise-aware weighting: an image, not a sample; takes nonlinear operators."""
    return RedDiff(steps=steps)


def split_gibbs(steps: int = 90) -> Sampler:
    """Exact split Gibbs, started from the learned covariance; 4 evaluations a sweep."""
    return SplitGibbs().with_steps(steps)


def pnp_dm(steps: int | None = None) -> Sampler:
    """PnP-DM as published, some thousand evaluations; a given number keeps its range of rho in fewer sweeps."""
    return PnPDM() if steps is None else PnPDM().with_steps(steps)


def daps(steps: int = 1000) -> Sampler:
    """DAPS with its published annealing, 200 levels of 5 evaluations, and exact draws for linear operators."""
    return DAPS().with_steps(steps)


def twisted(steps: int = 160) -> Sampler:
    """Twisted sequential Monte Carlo by the learned covariance, 8 particles; no gradient."""
    return Twisted().with_steps(steps)


def tds(steps: int = 800) -> Sampler:
    """The published twisted diffusion sampler, 8 particles, a backward pass for each."""
    return TDS().with_steps(steps)


def mcgdiff(steps: int = 6400) -> Sampler:
    """MCGDiff, 64 particles, for operators with an SVD."""
    return MCGDiff().with_steps(steps)


def daps_published(steps: int = 1000) -> Sampler:
    """DAPS with all constants of its authors: Langevin steps, and a likelihood far surer than the noise."""
    return daps_constants().with_steps(steps)


METHODS: dict[str, Callable[..., Sampler]] = {
    "learned-covariance": learned_covariance,
    "spectral-covariance": spectral_covariance,
    "variance-head": variance_head,
    "moment-matching": moment_matching,
    "split-gibbs": split_gibbs,
    "dds": dds,
    "dds-published": dds_published,
    "pigdm": pigdm,
    "tmpd": tmpd,
    "dps": dps,
    "diffpir": diffpir,
    "diffpir-published": diffpir_published,
    "ddnm": ddnm,
    "ddrm": ddrm,
    "red-diff": red_diff,
    "red-diff-published": red_diff_published,
    "twisted": twisted,
    "tds": tds,
    "mcgdiff": mcgdiff,
    "pnp-dm": pnp_dm,
    "daps": daps,
    "daps-published": daps_published,
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
