"""What a prior is: E[x0 | x0 + sigma n], the range of sigma it knows, and how wrong it expects to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.priors.calibration import Calibration


class Denoiser(ABC):
    """The prior p(x0), known through its denoiser D(x, sigma) = E[x0 | x], x = x0 + sigma n.

    Images are complex (*batch, H, W) when `channels` is 2, real (*batch, H, W) when it is 1 and real (*batch, C, H, W)
    otherwise; sigma is in the units of the image, for complex images of each real component.

    Attributes:
        channels: image channels; complex images have two.
        shape: the image shape it is bound to, None for any size.
        sigma_min, sigma_max: the noise levels it was trained for.
        data_std: standard deviation of the images, per real component.
        peak: magnitude of the 99.9th percentile of its images, to which `solve` scales; None keeps the user's scale.
        unit: what 1 in its images is in the units of the operator, e.g. the attenuation of water in 1/mm; None: any,
            `peak` decides.
        calibration: measured error tables, or None.
        name: how reports call it.
    """

    channels: int = 1
    shape: tuple[int, ...] | None = None
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    data_std: float = 1.0
    peak: float | None = None
    unit: float | None = None
    calibration: Calibration | None = None
    name: str = "prior"

    moments: Callable[[Tensor, float | Tensor], tuple[Tensor, Tensor]] | None = None
    """moments(x, sigma): mean and variance per pixel (per real component), where the prior knows it, else None."""

    @abstractmethod
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x].

        Args:
            x: noisy images (*batch, ...), complex or real as the prior's images are.
            sigma: noise level per real component, a number or one per sample.

        Returns:
            The denoised images, shape and dtype of x.
        """

    def mse(self, sigma: float) -> float:
        """Mean squared error of `denoise` per real component: the measured table, else a Gaussian's of `data_std`.

        sigma^2 s^2/(sigma^2 + s^2), s = data_std, is the error of the best linear denoiser.
        """
        if self.calibration is not None:
            return self.calibration.mse_at(sigma)
        return sigma**2 * self.data_std**2 / (sigma**2 + self.data_std**2)

    def to(self, device: torch.device | str) -> Denoiser:
        """The prior on another device; priors without tensors return themselves."""
        return self

    def check_image(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Refuse images that this prior cannot denoise.

        Args:
            shape: image shape without batch.
            dtype: dtype of the images.

        Raises:
            InputError: complex against real, wrong channels, wrong size.
        """
        given = 2 if dtype.is_complex else (shape[-3] if len(shape) == 3 else 1)
        if given != self.channels:
            kind = "complex" if dtype.is_complex else "real"
            raise InputError(
                f"prior {self.name}: has {self.channels} channel(s), but the operator's images are {kind} with "
                f"{given} channel(s); choose a prior of that kind."
            )
        if self.shape is not None and tuple(shape[-len(self.shape) :]) != tuple(self.shape):
            raise InputError(
                f"prior {self.name}: knows images of shape {self.shape} only, got {tuple(shape)}; resample."
            )


class FunctionPrior(Denoiser):
    """Any callable as a prior; see `from_function`."""

    def __init__(self, function: Callable[[Tensor, float | Tensor], Tensor], *, channels: int, data_std: float):
        self.function, self.channels, self.data_std = function, channels, data_std
        self.name = getattr(function, "__name__", type(function).__name__)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x] by the function."""
        return self.function(x, sigma)


def from_function(
    function: Callable[[Tensor, float | Tensor], Tensor],
    *,
    channels: int = 1,
    data_std: float = 1.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    shape: tuple[int, ...] | None = None,
    peak: float | None = None,
) -> Denoiser:
    """Make a prior of a callable denoiser(x, sigma).

    Args:
        function: maps noisy images (batch, ...) and sigma to denoised images of the same shape.
        channels: image channels; 2 for complex images, which the function receives as complex tensors.
        data_std: standard deviation of the images per real component.
        sigma_min: smallest noise level it was trained for.
        sigma_max: largest noise level it was trained for.
        shape: image shape, None for any.
        peak: 99.9th percentile of the magnitude of its images; None switches the automatic scale off.

    Raises:
        InputError: not callable, or numbers out of range.
    """
    if not callable(function):
        raise InputError(f"from_function: expected a callable denoiser(x, sigma), got {type(function).__name__}.")
    for label, value in (("data_std", data_std), ("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        check_positive(label, value)
    prior = FunctionPrior(function, channels=channels, data_std=data_std)
    prior.sigma_min, prior.sigma_max, prior.shape, prior.peak = sigma_min, sigma_max, shape, peak
    return prior


def sigma_per_sample(sigma: float | Tensor, x: Tensor) -> Tensor:
    """sigma as a real tensor (samples,) on the device of x, samples being the leading dimension of x."""
    real = x.dtype.to_real()
    level = torch.as_tensor(sigma, dtype=real, device=x.device)
    return level.expand(x.shape[0]) if level.ndim == 0 else level.reshape(-1)
