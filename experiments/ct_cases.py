"""Simulated CT scans that the experiments share: a slice of one person, parallel or fan beam, few views, photon noise.

The data do not come from the operator that reconstructs them: they are made on a grid twice as fine, with two rays a
detector element and view whose intensities are averaged, and have the noise of their photons.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inverse.data import to_attenuation
from inverse.operators.ct import CT, FanBeam, ParallelBeam
from inverse.operators.noise import PhotonCounts

BEAMS = ("parallel", "fan")
VIEWS = (60, 30, 16)
PHOTONS = 1e5  # per ray
SOURCE_DISTANCE, DETECTOR_DISTANCE = 595.0, 490.0  # mm, those of a clinical scanner


@dataclass(frozen=True)
class CTCase:
    """A scan, the operator that a reconstruction may know, and the truth.

    Attributes:
        name: person, slice, beam and views.
        y: line integrals with noise (views, detectors).
        operator: A on the grid of the slice.
        image: the true attenuation, 1/mm (y, x).
    """

    name: str
    y: Tensor
    operator: CT
    image: Tensor

    @property
    def noise(self) -> PhotonCounts:
        """The noise of the photons."""
        return PhotonCounts(PHOTONS)

    @property
    def body(self) -> Tensor:
        """Where there is a person, bool (y, x): above -500 HU, lungs not included."""
        return self.image > 0.5 * float(to_attenuation(torch.zeros(())))


def geometry(beam: str, views: int, shape: tuple[int, int], pixel: float) -> ParallelBeam | FanBeam:
    """Views over half a turn (parallel) or a whole one (fan); one detector element a pixel, the whole slice seen.

    Args:
        beam: a name of `BEAMS`.
        views: how many.
        shape: of the slice (y, x).
        pixel: its pixels, mm.
    """
    radius = pixel * math.hypot(*shape) / 2
    turn = math.pi if beam == "parallel" else 2 * math.pi
    angles = (np.arange(views) * turn / views).tolist()
    if beam == "parallel":
        return ParallelBeam(angles, 2 * math.ceil(radius / pixel), pixel)
    distance = SOURCE_DISTANCE + DETECTOR_DISTANCE
    spacing = pixel * distance / SOURCE_DISTANCE
    edge = distance * math.tan(math.asin(radius / SOURCE_DISTANCE))
    return FanBeam(angles, 2 * math.ceil(edge / spacing), spacing, SOURCE_DISTANCE, DETECTOR_DISTANCE)


def read_slice(file: Path, z: int) -> tuple[Tensor, float]:
    """Attenuation (y, x) in 1/mm of slice z of a file with a dataset `volume` in HU, and its pixel in mm."""
    with h5py.File(file) as data:
        return to_attenuation(torch.from_numpy(data["volume"][z].astype(np.float32))), float(data.attrs["voxel_mm"][2])


def make_ct_case(file: Path, z: int, beam: str, views: int) -> CTCase:
    """Simulate a scan of slice z of a file; its noise follows from the name of the slice alone."""
    image, pixel = read_slice(file, z)
    slice_name = f"{file.stem} z={z}"
    seed = int.from_bytes(hashlib.blake2b(slice_name.encode(), digest_size=6).digest(), "little")
    scan = geometry(beam, views, (image.shape[0], image.shape[1]), pixel)
    fine_scan = replace(scan, detectors=2 * scan.detectors, spacing=scan.spacing / 2)
    fine = F.interpolate(image[None, None], scale_factor=2, mode="bilinear")[0, 0]
    rays = CT(fine_scan, fine.shape, pixel / 2, backend="on-the-fly")(fine)
    clean = -torch.exp(-rays.reshape(views, scan.detectors, 2)).mean(-1).log()
    y = PhotonCounts(PHOTONS).draw(clean, torch.Generator().manual_seed(seed))
    return CTCase(f"{slice_name}, {beam} {views}", y, CT(scan, image.shape, pixel), image)
