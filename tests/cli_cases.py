"""Small files for the tests of the command line: a scan, a prior, a training configuration with its data."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

from inverse.data import Header, equispaced, simulate_scan, write
from inverse.priors.files import save_prior
from inverse.priors.network import DenoisingNetwork

SIDE = 48
CONFIG = """
name = "tiny"
steps = 6
cooldown = 2
warmup = 2
variance_start = 3
report_every = 3

[network]
channels = 2
widths = [8, 8]
depths = [1, 1]

[images]
crops = [[16, 2, 1.0]]
"""


def write_prior(path: Path, channels: int = 2) -> Path:
    """A network with random weights, which denoises by its skip connection alone."""
    torch.manual_seed(0)
    shape = {"channels": channels, "widths": (8, 8), "depths": (1, 1), "data_std": 0.25}
    facts = {"name": "tiny", "sigma_min": 0.002, "sigma_max": 20.0, "network": shape}
    save_prior(path, DenoisingNetwork(**shape), facts, None)
    return path


def disc(slices: int) -> torch.Tensor:
    """(slices, SIDE, SIDE): a disc with a brighter square above the centre and to the right."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    image = np.where(np.hypot(y, x) < 18, 0.5, 0.0)
    image[28:34, 30:38] = 1.0
    return torch.from_numpy(np.stack([image] * slices)).float()


def write_scan(
    path: Path, *, slices: int = 2, coils: int = 4, oversampling: int = 1, mask: bool = True, reference: bool = True
) -> Path:
    """A simulated scan, R = 2, in fastMRI's layout; `oversampling` widens the field of view along the readout."""
    magnitude = disc(slices)
    wide = torch.zeros(slices, SIDE * oversampling, SIDE)
    top = (wide.shape[1] - SIDE) // 2
    wide[:, top : top + SIDE] = magnitude
    lines = equispaced(SIDE, 2, center_fraction=0.3)
    generator = torch.Generator().manual_seed(1)
    scan = simulate_scan(wide, mask=lines, generator=generator, coils=coils, sigma_y=0.02)
    rows = SIDE * oversampling
    encoded, fov = (rows, SIDE, 1), (float(2 * rows), float(2 * SIDE), 3.0)
    header = Header(encoded, fov, (SIDE, SIDE, 1), (2.0 * SIDE, 2.0 * SIDE, 3.0), (0, SIDE))
    write(
        path,
        scan.kspace if coils > 1 else scan.kspace[:, 0],
        mask=lines,
        header=header,
        reference=magnitude if reference else None,
    )
    if not mask:
        with h5py.File(path, "a") as file:
            del file["mask"]
    return path


def write_training(folder: Path, text: str = CONFIG) -> tuple[Path, Path]:
    """A configuration and a folder of data."""
    config = folder / "tiny.toml"
    config.write_text(text)
    for part in ("train", "val"):
        (folder / "data" / part).mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "data" / part / "one.h5", "w") as file:
            file["volume"] = (disc(4).numpy() * 230).astype(np.uint8)
    return config, folder / "data"
