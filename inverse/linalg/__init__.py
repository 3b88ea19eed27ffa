"""Linear algebra over callables: inner products, conjugate gradients, largest eigenvalue; no imaging in here."""

from inverse.linalg.cg import CGResult, Status, cg
from inverse.linalg.inner import flat_real, from_channels, inner, norm, scale_samples, to_channels, unflat_real
from inverse.linalg.lanczos import LanczosResult, lanczos
from inverse.linalg.power import largest_eigenvalue

__all__ = [
    "CGResult",
    "LanczosResult",
    "Status",
    "cg",
    "flat_real",
    "from_channels",
    "inner",
    "lanczos",
    "largest_eigenvalue",
    "norm",
    "scale_samples",
    "to_channels",
    "unflat_real",
]
