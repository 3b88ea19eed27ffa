"""What computes line integrals: one protocol, several implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inverse.operators.ct.geometry import Geometry


@dataclass(frozen=True)
class Scan:
    """All that a projector is made from; equal scans have equal projectors.

    Attributes:
        geometry: source, detector and rays.
        shape: of the image, (y, x) or (z, y, x).
        pixel: edge of a pixel, mm.
        centre: rotation axis relative to the middle of the image, mm, (y, x).
        dtype: float32 or float64.
        device: where images and data are.
    """

    geometry: Geometry
    shape: tuple[int, ...]
    pixel: float
    centre: tuple[float, float]
    dtype: torch.dtype
    device: torch.device


class Projector(Protocol):
    """Line integrals of a batch of images and their adjoint; made from a Scan.

    `matched` says whether `adjoint` is exactly that of `forward`, `memory_bytes` what it holds between calls.
    """

    matched: bool

    @property
    def memory_bytes(self) -> int:
        """Memory kept between calls, bytes."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """Contiguous (batch, *image), batch at least 1 -> (batch, *data)."""
        ...

    def adjoint(self, y: Tensor) -> Tensor:
        """Contiguous (batch, *data), batch at least 1 -> (batch, *image)."""
        ...
