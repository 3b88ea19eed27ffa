"""Conditionings: how the data enter, D(x, sigma) -> D_y(x, sigma)."""

from inverse.samplers.conditionings.base import Conditioning, Estimate
from inverse.samplers.conditionings.dds import DDS
from inverse.samplers.conditionings.learned_covariance import LearnedCovariance
from inverse.samplers.conditionings.unconditional import Unconditional

__all__ = ["DDS", "Conditioning", "Estimate", "LearnedCovariance", "Unconditional"]
