"""What the scanner does: operators with adjoint, gram, norm and algebra."""

if __name__ != "inverse.operators":
    raise ImportError(f"import inverse.operators, not {__name__}: the root entry is a link for readers")

from inverse.operators.algebra import Stack, stack
from inverse.operators.base import SVD, LinearOperator, Operator
from inverse.operators.coils import CoilMaps
from inverse.operators.fourier import Fourier
from inverse.operators.mask import Identity, Mask
from inverse.operators.mri import MultiCoilMRI

__all__ = [
    "SVD",
    "CoilMaps",
    "Fourier",
    "Identity",
    "LinearOperator",
    "Mask",
    "MultiCoilMRI",
    "Operator",
    "Stack",
    "stack",
]
