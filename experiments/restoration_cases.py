"""Restoration problems on held-out brain slices, and real scans: data, operator, and what to compare with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from cases import SIGMA_Y as SIGMA_MRI
from cases import make_case
from real_scan import read_kspace, undersample
from torch import Tensor

import inverse
from inverse.data import simulate_scan
from inverse.operators import Blur, Downsample, LinearOperator, Mask
from inverse.operators.kernels import gaussian_kernel, motion_kernel

SIGMA_Y = 0.05  # per real component, for a 99.9th percentile of the magnitude of 0.9


@dataclass(frozen=True)
class Task:
    """One problem.

    Attributes:
        name: slice and problem.
        y: data, no batch.
        operator: A.
        noise: noise level per real component, or an upper bound.
        magnitude: the reference (y, x).
        image: the true complex image, or None where only a magnitude is known: no coverage.
        region: where to compare, bool (y, x).
        head: where coverage is counted, bool (y, x).
    """

    name: str
    y: Tensor
    operator: LinearOperator
    noise: float | inverse.AtMost
    magnitude: Tensor
    image: Tensor | None
    region: Tensor
    head: Tensor


def half_of_the_pixels(shape: tuple[int, int], generator: torch.Generator) -> LinearOperator:
    """Every pixel is seen with probability one half."""
    return Mask(torch.rand(shape, generator=generator) < 0.5, dtype=torch.complex64)


def box(shape: tuple[int, int], generator: torch.Generator) -> LinearOperator:
    """A square of 48 pixels near the centre is missing."""
    mask = torch.ones(shape, dtype=torch.bool)
    top, left = shape[0] // 2 - 36, shape[1] // 2 - 12
    mask[top : top + 48, left : left + 48] = False
    return Mask(mask, dtype=torch.complex64)


OPERATORS: dict[str, Callable[[tuple[int, int], torch.Generator], LinearOperator]] = {
    "inpainting 50 %": half_of_the_pixels,
    "inpainting box": box,
    "super-resolution 4 x": lambda shape, _: Downsample(4, shape, dtype=torch.complex64),
    "Gaussian blur": lambda shape, _: Blur(gaussian_kernel(2.0), shape, dtype=torch.complex64),
    "motion blur": lambda shape, _: Blur(motion_kernel(15.0, 0.6), shape, dtype=torch.complex64),
}
MASKS = ("equispaced R=4", "equispaced R=8")
REAL_MASKS = ("equispaced R=4", "Poisson R=8")


def restoration(file: Path, z: int, kind: str) -> Task:
    """A slice with a smooth phase, seen through one of `OPERATORS`; phase and noise follow from the name alone."""
    with h5py.File(file) as data:
        magnitude = torch.from_numpy(data["volume"][z].astype(np.float32) / 255)
    name = f"{file.stem} z={z}"
    generator = torch.Generator().manual_seed(
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "little")
    )
    whole = torch.ones(magnitude.shape[1], dtype=torch.bool)
    image = simulate_scan(magnitude, mask=whole, generator=generator, coils=1).image
    operator = OPERATORS[kind]((magnitude.shape[0], magnitude.shape[1]), generator)
    y = operator.measure(image, SIGMA_Y, generator)
    everywhere = torch.ones_like(magnitude, dtype=torch.bool)
    return Task(f"{name}, {kind}", y, operator, SIGMA_Y, magnitude, image, everywhere, magnitude > 0.05)


def mri(file: Path, z: int, mask: str) -> Task:
    """The simulated scan of experiments/mri.py: 8 coils, maps estimated from the data."""
    case = make_case(file, z, mask)
    everywhere = torch.ones_like(case.magnitude, dtype=torch.bool)
    return Task(case.name, case.y, case.operator, SIGMA_MRI, case.magnitude, case.image, everywhere, case.head)


def real(file: Path, mask: str) -> Task:
    """A fully sampled scan of a scanner, undersampled; the full reconstruction is the reference."""
    scan = undersample(file.stem, read_kspace(file), mask)
    assert scan.reference is not None  # a fully sampled scan has one
    return Task(
        f"real {scan.name}", scan.y, scan.operator, scan.estimate, scan.reference.abs(), None, scan.region, scan.region
    )
