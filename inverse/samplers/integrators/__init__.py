"""Integrators: how x is carried from one noise level to the next, for any estimate of x0."""

from inverse.samplers.integrators.base import Estimator, Integrator, OneEvaluation, Path
from inverse.samplers.integrators.bridge import Bridge
from inverse.samplers.integrators.ddim import DDIM

__all__ = ["DDIM", "Bridge", "Estimator", "Integrator", "OneEvaluation", "Path"]
