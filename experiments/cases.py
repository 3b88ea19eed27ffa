"""Simulated scans that the experiments share: one slice of one person, 8 coils, noise, a mask, coil maps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from inverse.data import equispaced, estimate_maps, poisson_disc, simulate_scan
from inverse.operators import MultiCoilMRI
from inverse.priors.files import NetworkPrior

MASKS = ("equispaced R=4", "equispaced R=8", "Poisson R=8")
COILS = 8
SIGMA_Y = 0.012  # per real component, for a 99.9th percentile of the magnitude of 0.9


@dataclass(frozen=True)
class Case:
    """A scan, the operator that a reconstruction may know, and the truth.

    Attributes:
        name: person, slice and mask.
        y: noisy k-space (coils, y, x), zeros where not sampled.
        operator: with maps estimated from y, or the true ones.
        magnitude: the true magnitude (y, x).
        image: the true complex image as these maps see it, sum_c conj(s_c) (true coil image)_c.
        sigma_y: noise level per real component.
    """

    name: str
    y: Tensor
    operator: MultiCoilMRI
    magnitude: Tensor
    image: Tensor
    sigma_y: float

    @property
    def head(self) -> Tensor:
        """Where there is an image, bool (y, x)."""
        return self.magnitude > 0.05

    def inside(self, x: Tensor) -> Tensor:
        """x on the support of the maps, 0 elsewhere: the same for every method."""
        support = self.operator.support
        return x if support is None else x * support


def describe(prior: NetworkPrior) -> str:
    """Name of a prior and a digest of its weights, so that figures of two versions are never mixed."""
    digest = hashlib.blake2b(digest_size=4)
    for value in prior.network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return f"prior {prior.name} ({digest.hexdigest()})"


def make_mask(kind: str, shape: tuple[int, int]) -> Tensor:
    """A mask of `MASKS` for images (y, x): lines with 8 % centre, or a Poisson disc with a 24 x 24 centre."""
    name, factor = kind.split(" R=")
    if name == "equispaced":
        return equispaced(shape[1], int(factor), center_fraction=0.08)
    return poisson_disc(shape, int(factor), calibration=24, seed=0)


def make_case(file: Path, z: int, mask: str, *, sigma_y: float = SIGMA_Y, true_maps: bool = False) -> Case:
    """Simulate a scan of slice z of a file with a dataset `volume` (z, y, x), uint8.

    Coils, phase and noise follow from the name of the slice alone; the maps are estimated from the undersampled, noisy
    data by ESPIRiT unless `true_maps`.
    """
    with h5py.File(file) as data:
        magnitude = torch.from_numpy(data["volume"][z].astype(np.float32) / 255)
    slice_name = f"{file.stem} z={z}"
    seed = int.from_bytes(hashlib.blake2b(slice_name.encode(), digest_size=6).digest(), "little")
    pattern = make_mask(mask, tuple(magnitude.shape))
    generator = torch.Generator().manual_seed(seed)
    scan = simulate_scan(magnitude, mask=pattern, generator=generator, coils=COILS, sigma_y=sigma_y)
    maps = scan.sens_maps if true_maps else estimate_maps(scan.kspace, mask=pattern)
    image = (maps.conj() * scan.sens_maps).sum(0) * scan.image
    return Case(f"{slice_name}, {mask}", scan.kspace, MultiCoilMRI(maps, pattern), magnitude, image, sigma_y)
