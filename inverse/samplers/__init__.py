"""Samplers: how operator and prior are combined, as conditioning x integrator x grid."""

from inverse.samplers.conditionings import DDS, Conditioning, Estimate, LearnedCovariance, Unconditional
from inverse.samplers.diffusion import DiffusionSampler, default_grid
from inverse.samplers.grids import ddpm_linear, geometric, karras
from inverse.samplers.integrators import DDIM, Bridge, Integrator
from inverse.samplers.methods import METHODS, choose
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace
from inverse.samplers.solution import Solution, Stats

__all__ = [
    "DDIM",
    "DDS",
    "METHODS",
    "Bridge",
    "Conditioning",
    "DiffusionSampler",
    "Estimate",
    "Integrator",
    "LearnedCovariance",
    "Problem",
    "Sampler",
    "Solution",
    "Stats",
    "Trace",
    "Unconditional",
    "choose",
    "ddpm_linear",
    "default_grid",
    "geometric",
    "karras",
]
