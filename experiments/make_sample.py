"""Make the demonstration scan that ships with the package, from the Colin27 volume.

Usage: python experiments/make_sample.py FILE OUT
    FILE  HDF5 with a dataset `volume` (z, y, x), RAS+, and attributes `voxel_mm` and `notice`
    OUT   the scan to write, e.g. inverse/data/samples/colin27_8coil.h5; its notice goes beside it
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import h5py
import numpy as np
import torch

from inverse.data import Header, equispaced, simulate_scan, write

SLICES = (60, 75, 90)  # basal ganglia to centrum semiovale
SIGMA_Y = 0.012  # of the head's bright tissue at about 0.9: signal to noise of a good clinical scan
SEED = 27


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with h5py.File(options.file) as file:
        magnitude = torch.from_numpy(file["volume"][list(SLICES)].astype(np.float32) / 255)
        voxel = [float(v) for v in file.attrs["voxel_mm"]]
        notice = file.attrs["notice"]
        depth, height, width = file["volume"].shape
    scan = simulate_scan(
        magnitude,
        mask=equispaced(width, 4, center_fraction=0.08),
        generator=torch.Generator().manual_seed(SEED),
        sigma_y=SIGMA_Y,
    )
    spacing = voxel[0] * (SLICES[1] - SLICES[0])
    size, fov = (height, width, 1), (height * voxel[1], width * voxel[2], spacing)
    affine = np.diag([voxel[2], voxel[1], spacing, 1.0])
    affine[:3, 3] = -voxel[2] * (width // 2), -voxel[1] * (height // 2), voxel[0] * (SLICES[0] - depth // 2)
    attributes = {
        "acquisition": "SIMULATED_AXT1",
        "patient_id": "colin27",
        "sigma_y": SIGMA_Y,
        "simulation": "8 coils, smooth phase, complex Gaussian noise, equispaced lines R = 4 with 8 % centre",
        "source_slices": np.array(SLICES),
        "notice": notice,
    }
    write(
        options.out,
        scan.kspace,
        mask=scan.mask,
        header=Header(size, fov, size, fov, (0, width)),
        reference=magnitude,
        attributes=attributes,
        affine=affine,
    )
    text = "Notice for Colin27, the source of colin27_8coil.h5; it must stay with the data.\n\n"
    text += "\n".join(textwrap.wrap(notice, 110)) + "\n"
    text += "\nChanges made here: three axial slices, with coils, phase, noise and undersampling simulated.\n"
    (options.out.parent / "colin27_NOTICE.txt").write_text(text)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB, k-space {tuple(scan.kspace.shape)}")


if __name__ == "__main__":
    main()
