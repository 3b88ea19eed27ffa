"""What a file of any modality is made into before it is reconstructed, and what reports and pictures ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from inverse.operators.base import LinearOperator
from inverse.operators.noise import Noise
from inverse.priors.base import Denoiser

M = TypeVar("M", bound="Measurement")


class Measurement(Protocol):
    """Slices of a scan with their operators, noise and quick images; `Acquisition` (MR) and `Tomogram` (CT) are two."""

    @property
    def path(self) -> Path | None:
        """The file."""
        ...

    @property
    def slices(self) -> tuple[int, ...]:
        """Indices of the slices that were read."""
        ...

    @property
    def total_slices(self) -> int:
        """Number of slices in the file."""
        ...

    @property
    def data(self) -> Tensor:
        """y of every slice (slices, *operator.out_shape)."""
        ...

    @property
    def noise(self) -> float | Noise:
        """What `solve` takes for the noise of a slice."""
        ...

    @property
    def reference(self) -> Tensor | None:
        """Reference of the file (slices, y, x), or None."""
        ...

    @property
    def reference_title(self) -> str:
        """What the reference is, for a figure."""
        ...

    @property
    def quick_images(self) -> list[tuple[str, Tensor]]:
        """Title and images (slices, y, x) of direct reconstructions, on the CPU."""
        ...

    @property
    def window(self) -> tuple[float, float] | None:
        """Values shown black and white; None: from 0 to a high percentile."""
        ...

    @property
    def grid(self) -> tuple[tuple[float, float, float], np.ndarray | None]:
        """Voxel size (z, y, x) in mm and affine of the slices, or None."""
        ...

    def operator(self, index: int) -> LinearOperator:
        """The scanner as seen by slice `index` of those read."""
        ...

    def scale(self, prior: Denoiser) -> float:
        """What images are divided by for the prior, one number for all slices."""
        ...

    def settled(self: M, prior: Denoiser) -> M:
        """The same with a noise level that was only a bound refined."""
        ...

    def finish(self, images: Tensor) -> Tensor:
        """Images (..., y, x) of the operator as they are compared and shown: on the CPU, cropped."""
        ...

    def export(self, images: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Finished images as they are written, in the units of the field: reconstruction, std, mean, samples."""
        ...

    def facts(self) -> list[tuple[str, str]]:
        """What was measured and how, (label, text) for the terminal."""
        ...
