"""A scan file made ready: readout cropped, noise level, coil maps and classical images."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inverse.data import Scan, crop_image, crop_readout, estimate_maps, estimate_noise, read
from inverse.data.coilmaps import MIN_CALIBRATION
from inverse.errors import InputError, check_positive
from inverse.linalg.cg import cg
from inverse.noise import estimate_noise as noise_of_residual
from inverse.noise import refine_noise
from inverse.operators.mri import MultiCoilMRI
from inverse.priors.base import Denoiser
from inverse.samplers.problem import Problem


@dataclass(frozen=True)
class Acquisition:
    """A scan made ready: readout cropped, unsampled lines known, noise level found.

    Attributes:
        scan: the file as read.
        kspace: (slices, coils, y, x) complex64, readout oversampling removed.
        mask: (x,) or (y, x) bool, True where a sample was taken.
        maps: (slices, coils, y, x) coil sensitivities.
        noise: standard deviation per real component, in the unit of the k-space.
        noise_estimated: False where the user gave it.
        noise_is_bound: True where the estimate may be up to twice too high: patterns without whole lines, see
            `inverse.data.noise`.
        size: (y, x) of the images that are written: those of the header, as in fastMRI's references.
    """

    scan: Scan
    kspace: Tensor
    mask: Tensor
    maps: Tensor
    noise: float
    noise_estimated: bool
    noise_is_bound: bool
    size: tuple[int, int]

    def operator(self, index: int) -> MultiCoilMRI:
        """The scanner as seen by slice `index`."""
        return MultiCoilMRI(self.maps[index], self.mask)

    @functools.cached_property
    def zero_filled(self) -> Tensor:
        """Inverse transform of the samples, coils combined, (slices, *size)."""
        images = [self.operator(i).pinv(y[None])[0] for i, y in enumerate(self.kspace)]
        return crop_image(torch.stack(images), self.size).cpu()

    @functools.cached_property
    def sense(self) -> Tensor:
        """CG-SENSE images before the crop to `size`, on the device of the data."""
        return torch.stack([cg_sense(y, self.operator(i), self.noise) for i, y in enumerate(self.kspace)])

    @property
    def classical(self) -> Tensor:
        """CG-SENSE, (slices, *size)."""
        return crop_image(self.sense, self.size).cpu()

    @property
    def reference(self) -> Tensor | None:
        """Reference of the file where it has the size of the images, (slices, *size)."""
        reference = self.scan.reference
        return reference if reference is not None and tuple(reference.shape[1:]) == self.size else None

    def scale(self, prior: Denoiser) -> float:
        """One scale for the volume, so that a slice of little signal is not blown up; 1 if the prior has no scale."""
        if prior.peak is None:
            return 1.0
        peak = float(np.percentile(self.sense.abs().cpu().numpy(), 99.9))
        if not peak > 0:
            raise InputError(f"{self.scan.path}: holds no signal where it was sampled; check the file.")
        return peak / prior.peak


def acquire(
    path: str | os.PathLike,
    *,
    slices: int | slice | Iterable[int] | None = None,
    noise: float | None = None,
    calibration: int = 24,
    device: torch.device | str = "cpu",
) -> Acquisition:
    """Read a file in fastMRI's layout and find all that a reconstruction needs.

    The noise is the smaller of two estimates, both upper bounds: from the air of the image, and from what no image can
    explain given the coil maps. Lines that are zero throughout the file count as not sampled, whatever its mask says.

    Args:
        path: the HDF5 file.
        slices: which slices, see `inverse.data.read`.
        noise: standard deviation per real component of k-space; None estimates it.
        calibration: longest side of the fully sampled centre that the coil maps are made from.
        device: where to compute.

    Raises:
        InputError: the file is not usable, or its noise or maps cannot be estimated.
    """
    if noise is not None:
        check_positive("noise", noise, zero=True)
    if calibration < MIN_CALIBRATION:
        raise InputError(f"maps calibration: expected at least {MIN_CALIBRATION} lines, got {calibration}; take more.")
    scan = read(path, slices=slices)
    y, x = scan.kspace.shape[-2:]
    rows, columns = scan.header.recon_size[:2] if scan.header else (y, x)
    lines = scan.mask.ndim == 1
    mask = scan.mask & (scan.kspace != 0).flatten(0, 2).any(0) if lines else scan.mask
    kspace = crop_readout(scan.kspace, rows) if lines and rows < y else scan.kspace
    kspace = (kspace * mask).to(device)
    if not kspace.any():
        raise InputError(f"{path}: kspace holds no signal where the mask samples it; check the file.")
    size = (min(rows, y), min(columns, x))
    try:
        maps = estimate_maps(kspace, calibration, mask=mask.to(device))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    mask = mask.to(device)
    level = _noise(scan, mask.cpu(), kspace, maps, mask) if noise is None else float(noise)
    return Acquisition(scan, kspace, mask, maps, level, noise is None, noise is None and not lines, size)


def _noise(scan: Scan, sampled: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor) -> float:
    """The smaller of the noise of the air and of the noise that no image explains, middle slice for the latter."""
    found = []
    with contextlib.suppress(InputError):
        found.append(float(estimate_noise(scan.kspace, sampled).square().mean(1).sqrt().median()))
    middle = len(kspace) // 2
    with contextlib.suppress(InputError):
        found.append(noise_of_residual(kspace[middle : middle + 1], MultiCoilMRI(maps[middle], mask)))
    if not any(value > 0 for value in found):
        raise InputError(f"{scan.path}: the noise level cannot be estimated from this scan; give it with --noise.")
    return min(value for value in found if value > 0)


def settle_noise(data: Acquisition, prior: Denoiser) -> Acquisition:
    """The same acquisition; a noise level that is only a bound is lowered to what the residual of pilot runs allows.

    Args:
        data: the acquisition.
        prior: the prior, on the device of the data.
    """
    if not data.noise_is_bound:
        return data
    middle, scale = len(data.kspace) // 2, data.scale(prior)
    problem = Problem.build(data.operator(middle), data.kspace[middle : middle + 1] / scale, data.noise / scale)
    return replace(data, noise=refine_noise(problem, prior) * scale)


def cg_sense(y: Tensor, operator: MultiCoilMRI, noise: float) -> Tensor:
    """CG-SENSE: (A^H A + t I) x = A^H y by conjugate gradients, t = 8 noise^2 / mean power of the image.

    8 because most frequencies hold far less than the mean power; best or nearly so among 1, 4, 8, 16 and 32 on real
    brain scans at R = 4 and 8.

    Args:
        y: k-space (coils, y, x).
        operator: the scanner.
        noise: standard deviation per real component.

    Returns:
        The image (y, x).

    Reference: Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", Magnetic
    Resonance in Medicine 46, 2001.
    """
    start = operator.pinv(y[None])
    support = operator.support
    inside = start if support is None else start[:, support]
    power = float(inside.abs().square().mean()) / 2
    tikhonov = max(1e-3, min(1.0, 8 * noise**2 / power)) if power > 0 else 1.0
    system = functools.partial(_regularised, operator, tikhonov)
    return cg(system, operator.H(y[None]), rtol=1e-4, max_iterations=50).x[0]


def _regularised(operator: MultiCoilMRI, tikhonov: float, x: Tensor) -> Tensor:
    return operator.gram(x) + tikhonov * x
