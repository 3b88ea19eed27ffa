"""Simulated scans from magnitude images: smooth coil maps and phase, k-space noise, a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive, check_tensor


@dataclass(frozen=True)
class Simulation:
    """A simulated scan and the truth behind it.

    Attributes:
        kspace: (*batch, coils, y, x) complex64, exactly 0 where the mask is False.
        image: (*batch, y, x) complex64, the magnitude with its smooth phase.
        sens_maps: (coils, y, x) complex64, sum |s|^2 = 1 at every pixel.
        mask: (x,) or (y, x) bool.
        sigma_y: standard deviation of the noise of real and imaginary part each.
    """

    kspace: Tensor
    image: Tensor
    sens_maps: Tensor
    mask: Tensor
    sigma_y: float


def simulate_maps(shape: Sequence[int], coils: int = 8, *, generator: torch.Generator | None = None) -> Tensor:
    """Smooth coil maps: small loops on a ring around the object, s_c ~ exp(i phi) / (d^2 + a^2)^(1/2).

    Args:
        shape: (y, x).
        coils: number of coils on the ring, at least 1.
        generator: jitters places, gains and phases of the coils; None gives the regular ring.

    Returns:
        complex64 maps (coils, y, x) with sum |s|^2 = 1 at every pixel.

    Raises:
        InputError: shape or number of coils out of range.

    Reference: the birdcage model of B. Guerquin-Kern et al., IEEE Trans. Med. Imaging 31(3), 2012, simplified.
    """
    shape = _check_shape(shape)
    if not isinstance(coils, int) or coils < 1:
        raise InputError(f"coils: expected a whole number of at least 1, got {coils}.")
    y, x = _grid(shape)
    jitter = torch.zeros(4, coils, dtype=torch.float64)
    if generator is not None:
        jitter = torch.randn(4, coils, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    angle = 2 * math.pi * torch.arange(coils, dtype=torch.float64) / coils + 0.1 * jitter[0]
    # beyond the corners of the field of view (1.41): the phase winds around a coil that lies inside
    radius = 1.6 * (1 + 0.03 * jitter[1].clamp(-2, 2))
    dy = y - (radius * torch.sin(angle))[:, None, None]
    dx = x - (radius * torch.cos(angle))[:, None, None]
    # 0.3: size of a loop in half fields of view; keeps the field finite at the loop itself
    strength = (1 + 0.1 * jitter[2])[:, None, None] / torch.sqrt(dy**2 + dx**2 + 0.3**2)
    # the field turns with the direction to the coil; seen from inside the ring the angle never jumps
    turn = torch.atan2(dy, dx) - angle[:, None, None] - math.pi
    phase = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi + (angle + jitter[3])[:, None, None]
    maps = torch.polar(strength, phase)
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def smooth_phase(shape: Sequence[int], *, strength: float = 1.0, generator: torch.Generator) -> Tensor:
    """Smooth random phase: a sum of cosines of at most 2 periods per field of view.

    Args:
        shape: (y, x).
        strength: root mean square of the phase in radians.
        generator: source of the draws.

    Returns:
        float32 phase in radians, (y, x).
    """
    y, x = _grid(_check_shape(shape))
    waves = torch.randn(12, 4, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    # standard deviation 0.5 period per half field: long waves, as off-resonance and coil phase give
    arguments = 2 * math.pi * 0.5 * (waves[:, 0, None, None] * y + waves[:, 1, None, None] * x)
    phase = (waves[:, 2, None, None] * torch.cos(arguments) + waves[:, 3, None, None] * torch.sin(arguments)).sum(0)
    return (strength * phase / phase.square().mean().sqrt().clamp_min(1e-9)).float()


def simulate_scan(
    magnitude: Tensor,
    *,
    mask: Tensor,
    generator: torch.Generator,
    coils: int = 8,
    sigma_y: float = 0.01,
    phase: float = 1.0,
) -> Simulation:
    """Scan of a magnitude image: k_c = M (F (s_c m exp(i phi)) + n), F centred and orthonormal.

    The maps are returned for checks; a fair reconstruction estimates its own from `kspace`.

    Args:
        magnitude: (y, x) or (slices, y, x), not negative; sigma_y is in its unit.
        mask: (x,) or (y, x), nonzero where sampled.
        generator: source of maps' jitter, phase and noise; same state, same scan.
        coils: number of coils; 1 gives a map of ones up to its phase.
        sigma_y: standard deviation of the noise of real and imaginary part each; 0 is allowed.
        phase: root mean square of the image's smooth phase in radians; 0 gives a real image.

    Returns:
        The scan and its truth.

    Raises:
        InputError: shapes that do not fit, negative or non-finite values, an all-zero mask.
    """
    check_tensor("magnitude", magnitude, complex_=False)
    check_positive("sigma_y", sigma_y, zero=True)
    if magnitude.ndim not in (2, 3) or bool((magnitude < 0).any()):
        raise InputError(f"magnitude: expected values >= 0 of shape (slices, y, x), got {tuple(magnitude.shape)}.")
    shape = tuple(magnitude.shape[-2:])
    mask = mask.bool()
    if tuple(mask.shape) not in (shape, shape[-1:]) or not mask.any():
        raise InputError(f"mask: expected shape {shape[-1:]} or {shape} with a sampled line, got {tuple(mask.shape)}.")
    maps = simulate_maps(shape, coils, generator=generator)
    phases = [smooth_phase(shape, strength=phase, generator=generator) for _ in magnitude.reshape(-1, *shape)]
    image = torch.polar(magnitude.float(), torch.stack(phases).reshape(magnitude.shape))
    kspace = _fft2(image.unsqueeze(-3) * maps)
    noise = torch.randn((*kspace.shape, 2), generator=generator, device=generator.device).cpu()
    kspace = (kspace + sigma_y * torch.view_as_complex(noise)) * mask
    return Simulation(kspace, image, maps, mask, float(sigma_y))


def _check_shape(shape: Sequence[int]) -> tuple[int, int]:
    shape = tuple(int(n) for n in shape)
    if len(shape) != 2 or min(shape) < 2:
        raise InputError(f"shape: expected (y, x) of at least 2 x 2, got {shape}.")
    return shape


def _grid(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixel centres, -1 to 1 across the field of view, 0 at index n // 2."""
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in shape)
    return y[:, None], x[None, :]


def _fft2(image: Tensor) -> Tensor:
    shifted = torch.fft.ifftshift(image, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))
