"""Integrators: how x is carried from one noise level to the next, for any estimate of x0."""

from inverse.samplers.integrators.adams import Adams, deis, dpm_solver_2m, dpm_solver_3m, ipndm, unipc
from inverse.samplers.integrators.anchored import Anchored
from inverse.samplers.integrators.base import Estimator, Integrator, OneEvaluation, Path
from inverse.samplers.integrators.bridge import Bridge
from inverse.samplers.integrators.ddim import DDIM
from inverse.samplers.integrators.euler_maruyama import EulerMaruyama
from inverse.samplers.integrators.heun import Heun
from inverse.samplers.integrators.momentum import GHVB, HeavyBall
from inverse.samplers.integrators.pndm import PNDM
from inverse.samplers.integrators.single_step import SingleStep
from inverse.samplers.integrators.stochastic import (
    StochasticAdams,
    sde_dpm_solver,
    sde_dpm_solver_2m,
    sde_dpm_solver_3m,
)

__all__ = [
    "DDIM",
    "GHVB",
    "PNDM",
    "Adams",
    "Anchored",
    "Bridge",
    "Estimator",
    "EulerMaruyama",
    "HeavyBall",
    "Heun",
    "Integrator",
    "OneEvaluation",
    "Path",
    "SingleStep",
    "StochasticAdams",
    "deis",
    "dpm_solver_2m",
    "dpm_solver_3m",
    "ipndm",
    "sde_dpm_solver",
    "sde_dpm_solver_2m",
    "sde_dpm_solver_3m",
    "unipc",
]
