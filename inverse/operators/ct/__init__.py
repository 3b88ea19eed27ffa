"""Computed tomography: geometries, line integrals and their adjoint, filtered back-projection, the rotation axis."""

from inverse.operators.ct.air import photons_of_air
from inverse.operators.ct.centre import find_centre
from inverse.operators.ct.fbp import fbp
from inverse.operators.ct.filters import WINDOWS
from inverse.operators.ct.geometry import ConeBeam, FanBeam, ParallelBeam
from inverse.operators.ct.operator import CT

__all__ = ["CT", "WINDOWS", "ConeBeam", "FanBeam", "ParallelBeam", "fbp", "find_centre", "photons_of_air"]
