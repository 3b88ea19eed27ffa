"""The network of the shipped priors: a U-Net with EDM preconditioning and a variance head.

No statistic is taken over space, so that a dark region does not depend on how bright the rest is, and a network trained
on crops runs on any image size. Features are normalised per pixel: without it the residual blocks amplified one another
at rarely drawn noise levels, and single batches threw the training off.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_VARIANCE_BOUND = 6.0
"""The variance head may move the log variance by at most this much from its base; unbounded it diverged in training."""

RMS_FLOOR = 0.01
"""Mean square of the features below which they are no longer normalised."""


class ResidualBlock(nn.Module):
    """x + conv(silu(film(conv(rms_norm(x))))), FiLM-modulated by the noise level; the last layer starts at zero.

    Args:
        width: number of channels in and out.
        embedding: length of the noise-level embedding.
    """

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        _start_at_zero(self.conv2, self.film)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        return x + self.conv2(F.silu(self.conv1(rms_norm(x)) * (1 + scale) + shift))


def rms_norm(x: Tensor) -> Tensor:
    """x over the root mean square of its channels at every pixel, features (N, C, H, W).

    The floor keeps what is far below the level of the features from being blown up.
    """
    return x * (x.square().mean(dim=1, keepdim=True) + RMS_FLOOR).rsqrt()


class Stage(nn.ModuleList):
    """Residual blocks of one width, one after another.

    Args:
        width: number of channels.
        depth: number of blocks.
        embedding: length of the noise-level embedding.
    """

    def __init__(self, width: int, depth: int, embedding: int):
        super().__init__(ResidualBlock(width, embedding) for _ in range(depth))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """U-Net on pixel-unshuffled images: residual blocks per level, strided convolutions between, additive skips.

    Args:
        channels: image channels; a complex image has two.
        widths: channels per level, finest first.
        depths: residual blocks per level on the way down, and again on the way up.
        embedding: length of the noise-level embedding.
    """

    frequencies: Tensor
    fold = 2  # pixel unshuffle: the finest level runs at half the resolution, four times cheaper

    def __init__(self, channels: int, widths: tuple[int, ...], depths: tuple[int, ...], embedding: int = 128):
        super().__init__()
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(math.log(0.25), math.log(8), 32)), persistent=False
        )
        self.embed = nn.Sequential(nn.Linear(64, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.inlet = nn.Conv2d(channels * self.fold**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Stage(w, d, embedding) for w, d in zip(widths, depths, strict=True))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Stage(w, d, embedding) for w, d in zip(widths[:-1], depths[:-1], strict=True))
        self.outlet = nn.Conv2d(widths[0], channels * self.fold**2, 3, padding=1)
        _start_at_zero(self.outlet)

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this."""
        return int(self.fold * 2 ** len(self.shrink))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output, last features and embedding for images (N, C, H, W) and noise condition ln(sigma)/4, shape (N,)."""
        angles = condition[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        h = self.inlet(F.pixel_unshuffle(x, self.fold))
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, embedding)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            h = self.up[level](self.grow[level](h) + skips[level], embedding)
        return F.pixel_shuffle(self.outlet(h), self.fold), h, embedding


class VarianceHead(nn.Module):
    """Log of the expected squared error per pixel, shared by real and imaginary part, from the U-Net's last features.

    Args:
        channels: image channels.
        features: channels of the U-Net's last features.
        embedding: length of the noise-level embedding.
        hidden: channels between its two convolutions.
    """

    def __init__(self, channels: int, features: int, embedding: int, hidden: int = 48):
        super().__init__()
        self.conv1 = nn.Conv2d(features + channels * UNet.fold**2, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, UNet.fold**2, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * hidden)
        _start_at_zero(self.conv2, self.film)

    def forward(self, features: Tensor, x0: Tensor, embedding: Tensor) -> Tensor:
        """Offset of the log variance from its base, (N, 1, H, W), within +-`LOG_VARIANCE_BOUND`."""
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(torch.cat([features, F.pixel_unshuffle(x0, UNet.fold)], dim=1))
        out = F.pixel_shuffle(self.conv2(F.silu(h * (1 + scale) + shift)), UNet.fold)
        return LOG_VARIANCE_BOUND * torch.tanh(out / LOG_VARIANCE_BOUND)


class DenoisingNetwork(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma)/4) and the variance of its error.

    c_skip = s^2/(sigma^2 + s^2), c_out = sigma s/sqrt(sigma^2 + s^2), c_in = 1/sqrt(sigma^2 + s^2), s = data_std
    (Karras, Aittala, Aila and Laine, Elucidating the design space of diffusion-based generative models, 2022, table 1).

    Args:
        channels: image channels; a complex image has two.
        widths: channels per level, finest first.
        depths: residual blocks per level.
        data_std: standard deviation s of the training images, per channel.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], depths: tuple[int, ...], data_std: float):
        super().__init__()
        self.channels, self.data_std = channels, float(data_std)
        self.unet = UNet(channels, tuple(widths), tuple(depths))
        self.head = VarianceHead(channels, widths[0], 128)

    def channels_last(self) -> DenoisingNetwork:
        """This network, its weights moved to the memory layout in which convolutions are fastest."""
        return self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, sigma: Tensor, *, variance: bool = True) -> tuple[Tensor, Tensor | None]:
        """Mean (N, C, H, W) and log variance (N, 1, H, W), float32, for noisy images and noise levels (N,).

        The head sees mean and features detached: learning the variance does not disturb the mean.
        """
        if len(x) == 0:  # pixel_unshuffle does not fold an empty batch
            return x, x[:, :1] if variance else None
        height, width = x.shape[-2:]
        multiple = self.unet.multiple
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        level = sigma.to(x).reshape(-1, 1, 1, 1)
        total = level**2 + self.data_std**2
        out, features, embedding = self.unet(x / total.sqrt(), level.flatten().clamp(min=1e-12).log() / 4)
        mean = self.data_std**2 / total * x + level * self.data_std / total.sqrt() * out.float()
        if not variance:
            return mean[..., :height, :width], None
        scaled = (mean.detach() / self.data_std).to(features.dtype)
        offset = self.head(features.detach(), scaled, embedding.detach())
        log_variance = (level**2 * self.data_std**2 / total).log() + offset.float()
        return mean[..., :height, :width], log_variance[..., :height, :width]


def _start_at_zero(*layers: nn.Conv2d | nn.Linear) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
