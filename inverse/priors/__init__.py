"""Priors: what images look like, as denoisers E[x0 | x0 + sigma n]."""

from inverse.priors.analytic import GaussianMixturePrior, GaussianPrior, StationaryGaussianPrior
from inverse.priors.base import Denoiser, from_function
from inverse.priors.calibration import Calibration
from inverse.priors.files import NetworkPrior, load, load_prior, save_prior, shipped
from inverse.priors.network import DenoisingNetwork

__all__ = [
    "Calibration",
    "Denoiser",
    "DenoisingNetwork",
    "GaussianMixturePrior",
    "GaussianPrior",
    "NetworkPrior",
    "StationaryGaussianPrior",
    "from_function",
    "load",
    "load_prior",
    "save_prior",
    "shipped",
]
