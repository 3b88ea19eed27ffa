"""Every sampler that is offered, with the numbers of evaluations at which it is certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exact_line import Line
from exact_problems import Known, Problem

from inverse.priors import Denoiser
from inverse.samplers import DDIM, DDS, Bridge, Conditioning, DiffusionSampler, Integrator, LearnedCovariance, Sampler
from inverse.samplers.conditionings.ddnm import DDNM
from inverse.samplers.conditionings.diffpir import DiffPIR
from inverse.samplers.conditionings.dps import DPS
from inverse.samplers.conditionings.moment_matching import MomentMatching
from inverse.samplers.conditionings.pigdm import PiGDM
from inverse.samplers.conditionings.tmpd import TMPD
from inverse.samplers.daps import DAPS
from inverse.samplers.daps import published as daps_published
from inverse.samplers.ddrm import DDRM
from inverse.samplers.grids import ddpm_linear, geometric
from inverse.samplers.integrators import (
    GHVB,
    PNDM,
    HeavyBall,
    deis,
    dpm_solver_2m,
    dpm_solver_3m,
    ipndm,
    unipc,
)
from inverse.samplers.integrators.anchored import Anchored
from inverse.samplers.integrators.euler_maruyama import EulerMaruyama
from inverse.samplers.integrators.heun import Heun
from inverse.samplers.integrators.single_step import SingleStep
from inverse.samplers.integrators.stochastic import sde_dpm_solver_2m, sde_dpm_solver_3m
from inverse.samplers.mcgdiff import MCGDiff
from inverse.samplers.methods import dds_published
from inverse.samplers.pnp_dm import PnPDM
from inverse.samplers.red_diff import RedDiff
from inverse.samplers.red_diff import published as red_diff_published
from inverse.samplers.split_gibbs import SplitGibbs
from inverse.samplers.tds import TDS
from inverse.samplers.twisted import Twisted

PLAIN = "plain"
"""The exact denoiser with its mean squared error and variance per pixel, without spectrum."""
UNTABLED = "no table"
"""The exact denoiser alone: its error is taken for sigma^2 s^2/(sigma^2 + s^2), as where a prior was not calibrated."""
ALL = ("exact", "calibrated", "calibrated waves", "calibrated in 32 bins")
TIGHT = {"iterations": 300, "rtol": 1e-4, "tolerance": 0.0}
FEW, OWN = (20, 100), (0,)


@dataclass(frozen=True)
class Offer:
    """One sampler as it is run.

    Attributes:
        make: the sampler for a number of steps.
        steps: numbers of steps; 0 stands for a sampler with a number of its own.
        knows: what it is told of the prior: `PLAIN`, `UNTABLED`, or a name in `Problem.learned`.
        share: of the usual number of samples, for what takes long.
    """

    make: Callable[[int], Sampler]
    steps: tuple[int, ...] = FEW
    knows: tuple[str, ...] = (PLAIN,)
    share: float = 1.0


def on(conditioning: Conditioning, integrator: Integrator, **choices: object) -> Callable[[int], Sampler]:
    """A constructor of `DiffusionSampler`."""
    return lambda steps: DiffusionSampler(conditioning, integrator, steps, **choices)  # type: ignore[arg-type]


def published(conditioning: Conditioning, integrator: Integrator, steps: int) -> Callable[[int], Sampler]:
    """On the grid of the papers, the linear DDPM schedule, from noise."""
    grid = tuple(ddpm_linear(steps).tolist())
    return lambda _: DiffusionSampler(conditioning, integrator, grid=grid, start="noise")


def own(sampler: Sampler) -> Callable[[int], Sampler]:
    """A sampler as it is."""
    return lambda _: sampler


def to_fine_levels(integrator: Integrator) -> Callable[[int], Sampler]:
    """The exact D_y of Gaussian images on levels even in log-SNR from 25 to 0.01."""
    return lambda steps: DiffusionSampler(EXACT, integrator, grid=tuple(geometric(steps, 25.0, 0.01).tolist()))


ODE, SDE, DRAWS = DDIM(0.0), DDIM(1.0), Bridge(draw_last=True)
EXACT = LearnedCovariance(innovation=False, **TIGHT)

CONDITIONINGS: dict[str, tuple[Conditioning, str]] = {
    "learned covariance": (EXACT, "exact"),
    "moment matching": (MomentMatching(), PLAIN),
    "PiGDM": (PiGDM(error=True), PLAIN),
    "TMPD": (TMPD(), PLAIN),
    "DDS": (DDS(), PLAIN),
    "DiffPIR, lambda 1": (DiffPIR(1.0), PLAIN),
    "DDNM": (DDNM(), PLAIN),
    "DPS, zeta 1": (DPS(1.0), PLAIN),
}
INTEGRATORS: dict[str, Integrator] = {
    "bridge": DRAWS,
    "ancestral": SDE,
    "ODE": ODE,
    "Euler-Maruyama": EulerMaruyama(),
    "SDE 2M": sde_dpm_solver_2m(),
    "SDE 3M": sde_dpm_solver_3m(),
    "2M": dpm_solver_2m(),
    "3M": dpm_solver_3m(),
    "DEIS 3": deis(3),
    "iPNDM 4": ipndm(4),
    "S-PNDM": PNDM(order=2),
    "UniPC 3": unipc(3),
    "single-step 2": SingleStep(2),
    "single-step 3": SingleStep(3),
    "Heun": Heun(),
    "Heun, churn": Heun(churn=10.0),
    "heavy ball": HeavyBall(),
    "GHVB 2": GHVB(),
    "anchored": Anchored(),
}

COVARIANCES: dict[str, Offer] = {
    "learned covariance x bridge": Offer(on(EXACT, DRAWS), (2, 3, 5, 20, 50), ALL),
    "learned covariance x bridge, as it ships": Offer(on(LearnedCovariance(), DRAWS, largest=2.0), (5, 20, 50), ALL),
    "learned covariance x bridge, images": Offer(on(LearnedCovariance(), Bridge(), largest=2.0), (5, 20), ALL[:2]),
    "learned covariance x ancestral": Offer(on(EXACT, SDE), (20, 100), ALL[:1]),
    "spectrum alone x bridge": Offer(on(LearnedCovariance(variance=False), DRAWS), (5, 20), ALL[1:2]),
    "variance alone x bridge": Offer(on(LearnedCovariance(spectrum=False), DRAWS), (20, 50)),
    "moment matching x bridge, levels 25 and 0.2": Offer(
        own(DiffusionSampler(MomentMatching(), DRAWS, grid=(25.0, 0.2, 0.0))), OWN
    ),
    "moment matching x bridge": Offer(on(MomentMatching(), DRAWS), (2, 5, 50)),
    "moment matching x ancestral": Offer(on(MomentMatching(), SDE), (20, 100)),
    "moment matching x ODE": Offer(on(MomentMatching(), ODE), (20, 100)),
    "moment matching by one product x ancestral": Offer(on(MomentMatching(iterations=1), SDE), (100,)),
    "moment matching x Heun": Offer(on(MomentMatching(), Heun()), (39,)),
    "TMPD x ancestral": Offer(on(TMPD(), SDE), (20, 100)),
    "TMPD x ODE": Offer(on(TMPD(), ODE), (20, 100)),
} | {
    f"learned covariance x {name}": Offer(on(EXACT, integrator), (5, 20), ("exact",))
    for name, integrator in INTEGRATORS.items()
    if name not in ("bridge", "ancestral")
}

FOLLOWED = {
    name: integrator
    for name, integrator in INTEGRATORS.items()
    if name in ("ODE", "2M", "3M", "DEIS 3", "iPNDM 4", "S-PNDM", "UniPC 3", "heavy ball", "GHVB 2", "single-step 3")
} | {
    "2M, published": dpm_solver_2m(published=True),
    "3M, published": dpm_solver_3m(published=True),
    "UniPC 2": unipc(2),
    "GHVB 4": GHVB(order=4),
    "F-PNDM": PNDM(),
}
FINE: dict[str, Offer] = {
    f"learned covariance x {name}, levels to 0.01": Offer(to_fine_levels(integrator), (5, 10, 20), ("exact",))
    for name, integrator in FOLLOWED.items()
}
"""What the order of an integrator is worth where the grid ends below the posterior's deviations."""

SCALARS: dict[str, Offer] = {
    "DDS x ancestral": Offer(on(DDS(), SDE), (5, 20, 100)),
    "DDS x ancestral, no table": Offer(on(DDS(), SDE), FEW, (UNTABLED,)),
    "DDS x ODE": Offer(on(DDS(), ODE)),
    "DDS x bridge": Offer(on(DDS(), DRAWS), (20, 50)),
    "DDS x unconditioned ancestral": Offer(on(DDS(), DDIM(1.0, direction="unconditioned"))),
    "DDS, published, 50": Offer(own(dds_published()), OWN),
    "DDS, published, 100": Offer(own(dds_published(100)), OWN),
    "PiGDM x ancestral": Offer(on(PiGDM(error=True), SDE)),
    "PiGDM x ODE": Offer(on(PiGDM(error=True), ODE)),
    "PiGDM, data_std 1, x ancestral": Offer(on(PiGDM(1.0), SDE)),
    "PiGDM, data_std 1, x ODE": Offer(on(PiGDM(1.0), ODE)),
    "DiffPIR, lambda 1, zeta 1": Offer(on(DiffPIR(1.0), DDIM(1.0, "dds"))),
    "DiffPIR, published, lambda 7, zeta 0.3, 100": Offer(published(DiffPIR(7.0), DDIM(0.3**0.5, "dds"), 100), OWN),
    "DDNM, published direction": Offer(on(DDNM(), DDIM(0.85, "dds", "unconditioned"))),
    "DPS, published, zeta 0.3, 1000": Offer(published(DPS(0.3), SDE, 1000), OWN),
    "DPS, published, zeta 1, 1000": Offer(published(DPS(1.0), SDE, 1000), OWN),
    "DDRM": Offer(lambda steps: DDRM(steps=steps)),
    "DDRM, published levels": Offer(lambda steps: DDRM(grid=tuple(ddpm_linear(steps).tolist()))),
}

LOOPS: dict[str, Offer] = {
    "split Gibbs": Offer(own(SplitGibbs()), OWN, ALL[:2]),
    "twisted, 8 particles": Offer(own(Twisted()), OWN, (*ALL[:1], PLAIN), share=0.1),
    "TDS, 8 particles": Offer(own(TDS()), OWN, share=0.1),
    "MCGDiff, 64 particles": Offer(own(MCGDiff()), OWN, share=0.05),
    "PnP-DM, published": Offer(own(PnPDM()), OWN, share=0.2),
    "PnP-DM, rho to 0.03": Offer(own(PnPDM(smallest=0.03)), OWN, share=0.2),
    "DAPS, exact draws, 200 x 5": Offer(own(DAPS()), OWN),
    "DAPS, exact draws, 200 x 1": Offer(own(DAPS(ode_steps=1)), OWN),
    "DAPS, published": Offer(own(daps_published()), OWN, share=0.2),
    "RED-diff, an image": Offer(lambda steps: RedDiff(steps=steps)),
    "RED-diff, strength 1, an image": Offer(lambda steps: RedDiff(steps=steps, strength=1.0)),
    "RED-diff, published, an image": Offer(red_diff_published, (100, 1000)),
}

OFFERS = COVARIANCES | FINE | SCALARS | LOOPS


def told(problem: Problem | Line, knows: str) -> Denoiser | None:
    """The prior of a problem as a sampler is told of it; None where this is not known of it."""
    if knows == UNTABLED:
        return Known(problem.prior, None, moments=False, table=False)
    return problem.plain if knows == PLAIN else problem.learned.get(knows)
