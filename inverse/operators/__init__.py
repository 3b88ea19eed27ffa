"""What the scanner does: operators with adjoint, gram, norm and algebra."""

if __name__ != "inverse.operators":
    raise ImportError(f"import inverse.operators, not {__name__}: the root entry is a link for readers")

from inverse.operators.algebra import Stack, stack
from inverse.operators.base import SVD, LinearOperator, Operator
from inverse.operators.blocks import BlockDiagonal, BlockRow, block_diagonal, block_row
from inverse.operators.blur import Blur, VaryingBlur
from inverse.operators.coils import CoilMaps
from inverse.operators.colour import Grey
from inverse.operators.ct import CT, ConeBeam, FanBeam, ParallelBeam
from inverse.operators.density import density_compensation, radial_density
from inverse.operators.downsample import Downsample
from inverse.operators.dynamic import DynamicMRI
from inverse.operators.foreign import as_tensor
from inverse.operators.fourier import Fourier
from inverse.operators.function import from_function
from inverse.operators.interop import from_deepinv, from_scipy, from_sigpy, to_deepinv, to_scipy
from inverse.operators.kernels import gaussian_kernel, load_kernel, motion_kernel, shake_kernel, uniform_kernel
from inverse.operators.lift import lift
from inverse.operators.mask import Identity, Mask
from inverse.operators.matrix import Matrix, SparseMatrix
from inverse.operators.mri import MultiCoilMRI
from inverse.operators.noise import CorrelatedGaussian, Gaussian, Noise, PhotonCounts, Rician
from inverse.operators.noncartesian import NonCartesianMRI
from inverse.operators.nonlinear import FourierMagnitude, Quantisation, Saturation
from inverse.operators.nufft import NUFFT, accuracy_for
from inverse.operators.resize import Resize
from inverse.operators.weighting import Mixed, Weighted

__all__ = [
    "CT",
    "NUFFT",
    "SVD",
    "BlockDiagonal",
    "BlockRow",
    "Blur",
    "CoilMaps",
    "ConeBeam",
    "CorrelatedGaussian",
    "Downsample",
    "DynamicMRI",
    "FanBeam",
    "Fourier",
    "FourierMagnitude",
    "Gaussian",
    "Grey",
    "Identity",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Mixed",
    "MultiCoilMRI",
    "Noise",
    "NonCartesianMRI",
    "Operator",
    "ParallelBeam",
    "PhotonCounts",
    "Quantisation",
    "Resize",
    "Rician",
    "Saturation",
    "SparseMatrix",
    "Stack",
    "VaryingBlur",
    "Weighted",
    "accuracy_for",
    "as_tensor",
    "block_diagonal",
    "block_row",
    "density_compensation",
    "from_deepinv",
    "from_function",
    "from_scipy",
    "from_sigpy",
    "gaussian_kernel",
    "lift",
    "load_kernel",
    "motion_kernel",
    "radial_density",
    "shake_kernel",
    "stack",
    "to_deepinv",
    "to_scipy",
    "uniform_kernel",
]
