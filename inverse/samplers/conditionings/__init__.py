"""Conditionings: how the data enter, D(x, sigma) -> D_y(x, sigma)."""

from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.conditionings.ddnm import DDNM
from inverse.samplers.conditionings.dds import DDS
from inverse.samplers.conditionings.diffpir import DiffPIR
from inverse.samplers.conditionings.dps import DPS
from inverse.samplers.conditionings.learned_covariance import LearnedCovariance
from inverse.samplers.conditionings.moment_matching import MomentMatching
from inverse.samplers.conditionings.pigdm import PiGDM
from inverse.samplers.conditionings.tmpd import TMPD
from inverse.samplers.conditionings.unconditional import Unconditional

__all__ = [
    "DDNM",
    "DDS",
    "DPS",
    "TMPD",
    "Conditioning",
    "DiffPIR",
    "Estimate",
    "LearnedCovariance",
    "MomentMatching",
    "PiGDM",
    "Unconditional",
]
