"""Samplers: how operator and prior are combined, as conditioning x integrator x grid."""

from inverse.samplers.conditioning import Conditioning, Estimate
from inverse.samplers.dds import DDS
from inverse.samplers.diffusion import DiffusionSampler, default_grid
from inverse.samplers.grids import ddpm_linear, geometric, karras
from inverse.samplers.integrators import DDIM, Integrator
from inverse.samplers.learned_covariance import LearnedCovariance
from inverse.samplers.methods import METHODS, choose
from inverse.samplers.problem import Problem
from inverse.samplers.solution import Solution, Stats

__all__ = [
    "DDIM",
    "DDS",
    "METHODS",
    "Conditioning",
    "DiffusionSampler",
    "Estimate",
    "Integrator",
    "LearnedCovariance",
    "Problem",
    "Solution",
    "Stats",
    "choose",
    "ddpm_linear",
    "default_grid",
    "geometric",
    "karras",
]
