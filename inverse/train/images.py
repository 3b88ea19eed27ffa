"""Training images: crops of volumes with flips, zoom, gain and gamma, complex ones with a random smooth phase.

Batch number `step` of seed `s` is a function of (s, step) alone: a resumed run sees the same images.
"""

from __future__ import annotations

import math
from fnmatch import fnmatch
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inverse.errors import InputError
from inverse.train.config import ImagesConfig

AIR = 8 / 255  # mean of a crop that shows hardly anything


class CropSampler:
    """Random crops from a folder of HDF5 files, each with one dataset `volume` (z, y, x).

    uint8 volumes are magnitudes: 255 is 1, the 99.9th percentile of a volume 0.9; the prior's scale follows from it.
    int16 volumes are CT in HU: images are attenuation over that of water, (HU + 1000) / 1000.

    Args:
        folder: the folder with the files.
        config: weights per file, crop sizes, augmentation.
        seed: seed of the stream of batches.
        complex_: True adds a smooth random phase and returns two channels, False returns one.

    Raises:
        InputError: no files, or a file without a volume.
    """

    def __init__(self, folder: str | Path, config: ImagesConfig, *, seed: int, complex_: bool = True):
        self.config, self.seed, self.complex = config, seed, complex_
        files = sorted(Path(folder).glob("*.h5"))
        if not files:
            raise InputError(f"{folder}: no .h5 files; give a folder of volumes, one dataset `volume` (z, y, x) each.")
        self.volumes = [_read_volume(f) for f in files]
        weights = np.array([_weight(f.name, config.weights) for f in files])
        if not weights.sum() > 0:
            raise InputError(f"{folder}: every file has weight 0; give one of them a weight above 0.")
        self.probability = weights / weights.sum()

    def batch(self, step: int) -> Tensor:
        """Batch number `step`: (images, channels, side, side), float32."""
        rng = np.random.default_rng([self.seed, step])
        shares = np.array([c[2] for c in self.config.crops])
        side, count, _ = self.config.crops[rng.choice(len(shares), p=shares / shares.sum())]
        magnitude = torch.from_numpy(np.stack([self._crop(rng, side) for _ in range(count)]))
        if not self.complex:
            return magnitude[:, None]
        phase = torch.from_numpy(np.stack([smooth_phase(rng, side, self.config.phase) for _ in range(count)]))
        return torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)

    def _crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        volume = self.volumes[rng.choice(len(self.volumes), p=self.probability)]
        window = side if self.config.zoom == 0 else round(side * (1 + rng.uniform(0, self.config.zoom)))
        for _ in range(20):  # crops of mere air teach little: keep one in ten of them
            size = (1, window, window)
            z, y, x = (int(rng.integers(max(1, n - s + 1))) for n, s in zip(volume.shape, size, strict=True))
            crop = _in_units(volume[z, y : y + window, x : x + window])
            if crop.mean() > AIR or rng.random() < 0.1:
                break
        crop = np.pad(crop, [(0, window - n) for n in crop.shape])
        if window > side:
            crop = _shrink(crop, side)
        if rng.random() < 0.5:
            crop = crop[::-1]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.5:
            crop = crop.T
        gamma, gain = np.exp(rng.normal(0, self.config.gamma)), np.exp(rng.normal(0, self.config.gain))
        return np.ascontiguousarray(crop**gamma * gain, dtype=np.float32)


def smooth_phase(rng: np.random.Generator, side: int, strength: float) -> np.ndarray:
    """A smooth random phase (side, side) in radians: a window of a bicubic surface with a random offset.

    The surface runs through independent normal values every 24 to 160 pixels (log-uniform): local fields near the
    sinuses as well as the slow phase of coils and shim.

    Args:
        rng: source of the random numbers.
        side: pixels a side.
        strength: largest standard deviation of the values, radians.
    """
    spacing = float(np.exp(rng.uniform(math.log(24), math.log(160))))
    knots = math.ceil(side / spacing) + 2
    values = torch.from_numpy(rng.normal(0, strength * rng.random(), (1, 1, knots, knots)).astype(np.float32))
    full = math.floor((knots - 1) * spacing)
    surface = F.interpolate(values, size=(full, full), mode="bicubic", align_corners=True)[0, 0].numpy()
    y, x = rng.integers(full - side + 1, size=2)
    return surface[y : y + side, x : x + side] + np.float32(rng.uniform(0, 2 * math.pi))


def _in_units(crop: np.ndarray) -> np.ndarray:
    """Grey values as magnitude, HU as attenuation over that of water."""
    if crop.dtype == np.uint8:
        return crop.astype(np.float32) / 255
    return np.maximum(crop.astype(np.float32) / 1000 + 1, 0)


def _shrink(crop: np.ndarray, side: int) -> np.ndarray:
    """A larger window in fewer pixels, without aliases; never enlarged: that would teach blur."""
    image = torch.from_numpy(crop)[None, None]
    return F.interpolate(image, size=(side, side), mode="bilinear", antialias=True)[0, 0].numpy()


def _read_volume(path: Path) -> np.ndarray:
    try:
        with h5py.File(path) as file:
            volume = file["volume"][:]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no readable dataset `volume` ({error}); remove or repair the file.") from error
    if volume.ndim != 3 or volume.dtype not in (np.uint8, np.int16) or volume.size == 0:
        raise InputError(
            f"{path}: volume is {volume.dtype} {volume.shape}; expected (z, y, x), uint8 grey values or int16 HU."
        )
    return volume


def _weight(name: str, weights: dict[str, float]) -> float:
    return next((w for pattern, w in weights.items() if fnmatch(name, pattern)), 1.0)
