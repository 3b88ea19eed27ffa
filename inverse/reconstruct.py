"""A scan file in, images out: `solve` for every slice of an acquisition, files in fastMRI's and NIfTI's form."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from inverse.data import atomic_write, write_nifti
from inverse.errors import InputError
from inverse.measurement import Measurement
from inverse.metrics import magnitude, psnr, ssim
from inverse.priors.base import Denoiser
from inverse.progress import progress as show_progress
from inverse.samplers.sampler import Sampler
from inverse.samplers.solution import Solution
from inverse.solve import solve


@dataclass(frozen=True)
class Reconstruction:
    """What a method makes of an acquisition, slice by slice.

    Attributes:
        method: how reports call it.
        samples: (samples, slices, y, x), on the CPU.
        residual: ||A x - y|| over the noise, mean over samples and slices; near 1 is right.
        nfe: network evaluations per sample.
        seconds: wall time.
        info: of the solution of the first slice, with the notes of all.
    """

    method: str
    samples: Tensor
    residual: float
    nfe: int
    seconds: float
    info: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def mean(self) -> Tensor:
        """Mean of the samples (slices, y, x)."""
        return self.samples.mean(0)

    @functools.cached_property
    def std(self) -> Tensor | None:
        """Error bar: standard deviation over samples (slices, y, x), of complex ones of the magnitude; None for one."""
        return self.real_samples.std(0) if len(self.samples) > 1 else None

    @property
    def real_samples(self) -> Tensor:
        """The samples, of complex ones the magnitude."""
        return magnitude(self.samples)


def reconstruct(
    data: Measurement,
    prior: Denoiser,
    sampler: Sampler,
    *,
    name: str,
    samples: int = 4,
    seed: int = 0,
    batch: int | None = None,
    progress: bool | None = True,
) -> Reconstruction:
    """Draw samples for every slice with one progress bar.

    Args:
        data: the acquisition.
        prior: the prior, on the device of the data.
        sampler: the method.
        name: how reports call the method.
        samples: samples per slice; two or more give an error bar.
        seed: seed of the samples; slice k of the file uses seed + k.
        batch: images per network call; None chooses from free memory.
        progress: True or False; None shows a bar for what takes long.

    Raises:
        InputError: something does not fit, before the first network evaluation.
    """
    if samples < 1:
        raise InputError(f"samples: expected at least 1, got {samples}.")
    scale = data.scale(prior)
    solutions: list[Solution] = []
    with show_progress(name, sampler.evaluations() * samples * len(data.data), progress) as bar:
        for index, y in enumerate(data.data):
            place = data.slices[index]
            note = f"slice {place + 1} of {data.total_slices}" if data.total_slices > 1 else ""
            solutions.append(
                solve(
                    y,
                    data.operator(index),
                    prior,
                    sampler,
                    noise=data.noise,
                    samples=samples,
                    seed=seed + place,
                    scale=scale,
                    batch=batch,
                    progress=False,
                    callback=_advance(bar.advance, note),
                )
            )
    info = dict(solutions[0].info)
    info["notes"] = list(dict.fromkeys(note for s in solutions for note in s.info["notes"]))
    return Reconstruction(
        name,
        data.finish(torch.stack([s.samples.cpu() for s in solutions], dim=1)),
        float(torch.stack([s.residual for s in solutions]).mean()),
        solutions[0].stats.nfe,
        sum(s.stats.seconds for s in solutions),
        info,
    )


def _advance(advance: Callable[[int, str], None], note: str) -> Callable[[int, float, Tensor], None]:
    return lambda step, sigma, x0: advance(len(x0), note)


def quality(images: Tensor, reference: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM of magnitudes (slices, y, x), mean over slices; slices of zeros do not count."""
    pairs = [(a, b) for a, b in zip(images, reference, strict=True) if float(b.abs().max()) > 0]
    if not pairs:
        return math.nan, math.nan
    return (
        sum(psnr(a, b) for a, b in pairs) / len(pairs),
        sum(ssim(a, b) for a, b in pairs) / len(pairs),
    )


def save(result: Reconstruction, data: Measurement, folder: Path, stem: str, *, samples: bool = False) -> list[Path]:
    """Write STEM.h5, STEM.nii.gz and (with an error bar) STEM_std.nii.gz; each whole or not at all.

    The HDF5 file holds `reconstruction` (slices, y, x) as fastMRI's tools expect it (magnitude; HU for CT), `std` (its
    standard deviation), `mean` (complex for MR) and, if asked for, `samples` (samples, slices, y, x).

    Args:
        result: what to write.
        data: where it came from.
        folder: an existing folder.
        stem: file name without ending.
        samples: whether to store all samples.

    Raises:
        InputError: the folder cannot be written.
    """
    voxel, affine = data.grid
    images = data.export({"std": result.std, "mean": result.mean, "samples": result.samples if samples else None})
    written = [folder / f"{stem}.h5"]
    with atomic_write(written[0]) as temporary, h5py.File(temporary, "w") as file:
        for key, image in images.items():
            if image is not None:
                file.create_dataset(key, data=image.numpy(), compression="gzip", shuffle=True)
        if affine is not None:
            file["affine"] = affine
        source = data.path.name if data.path else ""
        noise = data.noise if isinstance(data.noise, float) else repr(data.noise)
        file.attrs.update(source=source, slices=list(data.slices), residual=result.residual, noise=noise)
        file.attrs["info"] = json.dumps(result.info, default=str)
    for key, ending in (("reconstruction", ""), ("std", "_std")):
        image = images[key]
        if image is not None:
            written.append(folder / f"{stem}{ending}.nii.gz")
            write_nifti(written[-1], image, voxel, affine=affine)
    return written
