"""Noise of a measurement: how it is drawn, and how data are weighted so that it is white and of one level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive, check_tensor
from inverse.operators.base import LinearOperator
from inverse.operators.weighting import Mixed, Weighted

FLOOR = 0.5
"""Counts below are taken for it before the logarithm: a ray that no photon passed."""


class Noise:
    """What a measurement adds to A x. A subclass implements `draw` and `whiten`."""

    def draw(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A x as it would be measured.

        Args:
            clean: A x (*batch, *out_shape).
            generator: source of the random numbers, on the device of `clean`; None: the global one.

        Returns:
            y, of the shape of `clean`.
        """
        raise NotImplementedError

    def whiten(self, operator: LinearOperator, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
        """An equivalent problem whose noise is white.

        Args:
            operator: A.
            y: the data (*batch, *out_shape).

        Returns:
            Operator, data and the standard deviation of their noise per real component.

        Raises:
            InputError: the noise does not fit the data.
        """
        raise NotImplementedError


class Gaussian(Noise):
    """y = A x + n, n normal, independent; real and imaginary part each of standard deviation sigma.

    Args:
        sigma: a number, or positive values that broadcast to the data, e.g. (coils, 1, 1) for one per coil.
    """

    def __init__(self, sigma: float | Tensor):
        if isinstance(sigma, Tensor):
            check_tensor("sigma", sigma, complex_=False)
            if not bool((sigma > 0).all()):
                raise InputError("sigma: expected positive values, got others; leave unmeasured values to a mask.")
        else:
            check_positive("sigma", sigma, zero=True)
        self.sigma = sigma

    def __repr__(self) -> str:
        text = f"{tuple(self.sigma.shape)}" if isinstance(self.sigma, Tensor) else f"{self.sigma:g}"
        return f"Gaussian({text})"

    def draw(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A x + n."""
        return clean + self.sigma * normal_like(clean, generator)

    def whiten(self, operator: LinearOperator, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
        """Data over sigma where it varies, unchanged where it does not."""
        if not isinstance(self.sigma, Tensor):
            return operator, y, float(self.sigma)
        factor = 1 / self.sigma.to(y.device)
        return Weighted(operator, factor), y * factor.to(y.dtype.to_real()), 1.0


class CorrelatedGaussian(Noise):
    """Normal noise that is correlated between channels (coils), and equal in law at every position.

    Args:
        covariance: E[n n^H] / 2 of complex noise, E[n n^T] of real noise, (channels, channels), as measured by
            `inverse.data.noise_covariance`.
        axis: where the channels are, from the end: -3 for (coils, y, x); the first axis of the data.

    Raises:
        InputError: not square, or not Hermitian and positive definite.

    Reference: K. P. Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories",
    Magnetic Resonance in Medicine 46, 2001, Appendix B.
    """

    def __init__(self, covariance: Tensor, *, axis: int = -3):
        check_tensor("covariance", covariance)
        if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
            raise InputError(f"covariance: expected (channels, channels), got {tuple(covariance.shape)}.")
        factor, failed = torch.linalg.cholesky_ex(covariance)
        rounding = 1e-4 * float(covariance.abs().max())  # of a covariance measured in single precision
        if int(failed) or float((covariance - covariance.mH).abs().max()) > rounding:
            raise InputError("covariance: expected a Hermitian positive definite matrix; measure it from more samples.")
        self.covariance, self.axis, self._factor = covariance, axis, factor

    def __repr__(self) -> str:
        return f"CorrelatedGaussian({len(self.covariance)} channels)"

    def draw(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A x + L n with covariance L L^H."""
        factor, white = self._factor.to(clean), normal_like(clean, generator)
        return clean + torch.tensordot(white, factor, dims=([self.axis], [1])).movedim(-1, self.axis)

    def whiten(self, operator: LinearOperator, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
        """L^-1 over the channels of data and operator."""
        factor = self._factor.to(y)
        channels = len(factor)
        if len(operator.out_shape) != -self.axis or operator.out_shape[0] != channels:
            raise InputError(
                f"noise: covariance of {channels} channels at axis {self.axis} does not fit data {operator.out_shape}."
            )
        eye = torch.eye(channels, dtype=factor.dtype, device=factor.device)
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        mixed = torch.tensordot(y, inverse, dims=([self.axis], [1])).movedim(-1, self.axis)
        return Mixed(operator, inverse), mixed, 1.0


class PhotonCounts(Noise):
    """Poisson counts of transmitted photons, and their logarithm: y = -ln(N / N0), N ~ Poisson(N0 exp(-A x)).

    The variance of y is (N + e^2) / N^2, so data are weighted by N / sqrt(N + e^2) with N = N0 exp(-y).

    Args:
        photons: N0, incident photons per ray: a number, or values that broadcast to the data (a bow-tie filter).
        electronic: e, standard deviation of the read-out noise in photons.

    Reference: J. Hsieh, "Computed tomography", 2nd edition, 2009, section 3.4; K. Sauer and C. Bouman, "A local update
    strategy for iterative reconstruction from projections", IEEE Transactions on Signal Processing 41, 1993, Eq. (15).
    """

    def __init__(self, photons: float | Tensor, electronic: float = 0.0):
        if isinstance(photons, Tensor):
            check_tensor("photons", photons, complex_=False)
            if not bool((photons > 0).all()):
                raise InputError("photons: expected positive numbers, got others; mask dead detector elements.")
        else:
            check_positive("photons", photons)
        check_positive("electronic", electronic, zero=True)
        self.photons, self.electronic = photons, float(electronic)

    def __repr__(self) -> str:
        text = f"{tuple(self.photons.shape)}" if isinstance(self.photons, Tensor) else f"{self.photons:g}"
        return f"PhotonCounts({text}, electronic={self.electronic:g})"

    def _incident(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.photons, dtype=torch.float64, device=like.device)

    def draw(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Line integrals with the noise of their photons."""
        _check_real(clean)
        incident = self._incident(clean)
        counts = torch.poisson(incident * torch.exp(-clean.double()), generator=generator)
        if self.electronic:
            counts = counts + self.electronic * normal_like(counts, generator)
        return -(counts.clamp(min=FLOOR) / incident).log().to(clean.dtype)

    def whiten(self, operator: LinearOperator, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
        """Data times N / sqrt(N + e^2); the weights are those of the data, so of one item."""
        _check_real(y)
        if y.numel() != math.prod(operator.out_shape):
            raise InputError(
                f"noise: photon counts give every item weights of its own, got {tuple(y.shape)}; solve one item a call."
            )
        counts = self._incident(y) * torch.exp(-y.double().reshape(operator.out_shape))
        factor = (counts / (counts + self.electronic**2).sqrt()).to(y.dtype)
        return Weighted(operator, factor), y * factor, 1.0


class Rician(Noise):
    """Magnitude of complex data with noise: y = |A x + n|, real and imaginary part of n of standard deviation sigma.

    Args:
        sigma: the standard deviation.

    Notes:
        `whiten` takes the noise for Gaussian after y -> sqrt(y^2 - sigma^2), which is right to a few percent where
        A x is above 3 sigma; below it the law is not Gaussian and the background comes out positive.

    Reference: H. Gudbjartsson and S. Patz, "The Rician distribution of noisy MRI data", Magnetic Resonance in Medicine
    34, 1995, Eq. (1) and (5).
    """

    def __init__(self, sigma: float):
        check_positive("sigma", sigma)
        self.sigma = float(sigma)

    def __repr__(self) -> str:
        return f"Rician({self.sigma:g})"

    def draw(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """|A x + n|, real."""
        clean = clean if clean.is_complex() else torch.complex(clean, torch.zeros_like(clean))
        return (clean + self.sigma * normal_like(clean, generator)).abs()

    def whiten(self, operator: LinearOperator, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
        """Data with their bias removed to first order."""
        _check_real(y)
        return operator, (y.square() - self.sigma**2).clamp(min=0).sqrt(), self.sigma


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal values in the shape of x; complex: variance 1 for real and imaginary part each."""
    if x.is_complex():
        parts = torch.randn(*x.shape, 2, dtype=x.dtype.to_real(), device=x.device, generator=generator)
        return torch.view_as_complex(parts)
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def _check_real(y: Tensor) -> None:
    if y.is_complex():
        raise InputError(f"noise: this model describes real data, got {y.dtype}; use Gaussian.")
