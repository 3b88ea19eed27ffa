"""Samplers: how operator and prior are combined: conditioning x integrator x grid, and methods with their own loop."""

from inverse.samplers.anchor import Anchor
from inverse.samplers.conditionings import (
    DDNM,
    DDS,
    DPS,
    TMPD,
    Conditioning,
    DiffPIR,
    Estimate,
    LearnedCovariance,
    MomentMatching,
    PiGDM,
    Unconditional,
)
from inverse.samplers.daps import DAPS
from inverse.samplers.ddrm import DDRM
from inverse.samplers.diffusion import DiffusionSampler, default_grid
from inverse.samplers.grids import cosine, ddpm_linear, ddpm_time, geometric, karras
from inverse.samplers.integrators import (
    DDIM,
    GHVB,
    PNDM,
    Adams,
    Anchored,
    Bridge,
    EulerMaruyama,
    HeavyBall,
    Heun,
    Integrator,
    SingleStep,
    StochasticAdams,
    deis,
    dpm_solver_2m,
    dpm_solver_3m,
    ipndm,
    sde_dpm_solver,
    sde_dpm_solver_2m,
    sde_dpm_solver_3m,
    unipc,
)
from inverse.samplers.mcgdiff import MCGDiff
from inverse.samplers.methods import METHODS, choose
from inverse.samplers.pnp_dm import PnPDM
from inverse.samplers.problem import Problem
from inverse.samplers.red_diff import RedDiff
from inverse.samplers.sampler import Sampler, Trace
from inverse.samplers.solution import Solution, Stats
from inverse.samplers.split_gibbs import SplitGibbs
from inverse.samplers.tds import TDS
from inverse.samplers.twisted import Twisted

__all__ = [
    "DAPS",
    "DDIM",
    "DDNM",
    "DDRM",
    "DDS",
    "DPS",
    "GHVB",
    "METHODS",
    "PNDM",
    "TDS",
    "TMPD",
    "Adams",
    "Anchor",
    "Anchored",
    "Bridge",
    "Conditioning",
    "DiffPIR",
    "DiffusionSampler",
    "Estimate",
    "EulerMaruyama",
    "HeavyBall",
    "Heun",
    "Integrator",
    "LearnedCovariance",
    "MCGDiff",
    "MomentMatching",
    "PiGDM",
    "PnPDM",
    "Problem",
    "RedDiff",
    "Sampler",
    "SingleStep",
    "Solution",
    "SplitGibbs",
    "Stats",
    "StochasticAdams",
    "Trace",
    "Twisted",
    "Unconditional",
    "choose",
    "cosine",
    "ddpm_linear",
    "ddpm_time",
    "default_grid",
    "deis",
    "dpm_solver_2m",
    "dpm_solver_3m",
    "geometric",
    "ipndm",
    "karras",
    "sde_dpm_solver",
    "sde_dpm_solver_2m",
    "sde_dpm_solver_3m",
    "unipc",
]
