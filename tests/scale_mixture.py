"""Images of one spectrum whose amplitude differs from image to image: not Gaussian, and known exactly."""

import math

import torch
from sampler_cases import ExactErrors
from torch import Tensor

from inverse.linalg.transforms import Modes
from inverse.priors.base import Denoiser


class ScaleMixture(Denoiser):
    """Equal parts of stationary Gaussians, row images (1, modes) of cosines with power a^2 (1 + (k/8)^2)^(-3/2)."""

    def __init__(self, squares: tuple[float, ...] = (0.4, 1.0, 1.6), modes: int = 256):
        self.squares = torch.tensor(squares, dtype=torch.float64)
        self.spectrum = (1 + (torch.arange(modes, dtype=torch.float64) / 8) ** 2)[None] ** -1.5
        self.transform, self.shape = Modes((1, modes), torch.float64), (1, modes)
        self.power = self.squares.mean() * self.spectrum
        self.calibration = ExactErrors(self.power)  # of the Gaussian of this power: exact at large noise
        self.data_std = math.sqrt(float(self.power.mean()))

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        z = self.transform.forward(x)
        variance = self.squares.reshape(-1, 1, 1, 1) * self.spectrum + sigma**2
        scores = -0.5 * (z**2 / variance + variance.log()).sum((-2, -1), keepdim=True)
        return self.transform.inverse((torch.softmax(scores, dim=0) * (1 - sigma**2 / variance) * z).sum(0))

    def noisy(self, count: int, sigma: float, seed: int) -> Tensor:
        """Draws of x0 + sigma n (count, 1, modes)."""
        generator = torch.Generator().manual_seed(seed)
        square = self.squares[torch.randint(len(self.squares), (count,), generator=generator)]
        noise = torch.randn(count, *self.shape, generator=generator, dtype=torch.float64)
        return self.transform.inverse((square[:, None, None] * self.spectrum + sigma**2).sqrt() * noise)
