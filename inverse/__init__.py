"""Medical image reconstruction with diffusion priors: samples from p(x | y), with error bars."""

from inverse import data, linalg, metrics, operators, priors, samplers, schedules
from inverse.calibrate import calibrate
from inverse.errors import InputError, SamplingError
from inverse.noise import AtMost
from inverse.sample import sample
from inverse.samplers.solution import Solution
from inverse.solve import solve

__version__ = "0.1.0"

__all__ = [
    "AtMost",
    "InputError",
    "SamplingError",
    "Solution",
    "__version__",
    "calibrate",
    "data",
    "linalg",
    "metrics",
    "operators",
    "priors",
    "sample",
    "samplers",
    "schedules",
    "solve",
]
