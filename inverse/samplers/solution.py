"""What a run returns: image, error bar, samples, and what it cost."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
from torch import Tensor

from inverse.errors import InputError


@dataclass(frozen=True)
class Stats:
    """Cost of a run.

    Attributes:
        nfe: network evaluations per sample, forward.
        nfe_backward: network evaluations per sample, backward.
        grams: applications of A^H A per sample; A or A^H alone counts one half.
        cg_iterations: iterations of conjugate gradients per sample.
        seconds: wall time.
        peak_memory: largest memory held on a GPU in bytes, 0 on the CPU.
    """

    nfe: int
    nfe_backward: int
    grams: float
    cg_iterations: int
    seconds: float
    peak_memory: int = 0


@dataclass(frozen=True)
class Solution:
    """Samples of p(x | y) and what follows from them.

    Attributes:
        samples: (samples, *batch, *in_shape), in the units of the data.
        residual: ||A x - y|| / (sigma_y sqrt(m)) per sample (samples, *batch); near 1 is right, infinite without noise.
        stats: what it cost.
        info: method, seed, noise, scale, versions, innovation: enough to run it again.
        maps: further images per sample by name (samples, *batch, *in_shape), e.g. "instability" where it was asked for.
    """

    samples: Tensor
    residual: Tensor
    stats: Stats
    info: dict[str, Any] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Mean of the samples (*batch, *in_shape)."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor | None:
        """Standard deviation per pixel, complex images: of real and imaginary part together; None for one sample."""
        if len(self.samples) < 2:
            return None
        spread = (self.samples - self.mean).abs() ** 2
        return (spread.sum(0) / (len(self.samples) - 1)).sqrt()

    def __repr__(self) -> str:
        residual = ", ".join(f"{r:.2f}" for r in self.residual.flatten()[:4].tolist())
        return (
            f"Solution({len(self.samples)} sample(s) of shape {tuple(self.samples.shape[1:])}, residual {residual}, "
            f"{self.stats.nfe} evaluations, {self.stats.seconds:.1f} s)"
        )

    def save(self, path: str | Path, **extra: Tensor) -> Path:
        """Write mean, std, samples, residual, maps and info to an HDF5 file; a failed write leaves no file.

        Args:
            path: the file.
            extra: further tensors to store under their names.

        Raises:
            InputError: the folder cannot be written.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        tensors = {"mean": self.mean, "std": self.std, "samples": self.samples, "residual": self.residual}
        tensors |= self.maps | extra
        try:
            with h5py.File(temporary, "w") as file:
                for name, tensor in tensors.items():
                    if tensor is not None:
                        file.create_dataset(name, data=tensor.detach().cpu().numpy(), compression="gzip", shuffle=True)
                file.attrs["info"] = json.dumps(self.info, default=str)
                file.attrs["stats"] = json.dumps(vars(self.stats))
            temporary.replace(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error}); choose a folder that can.") from error
        finally:
            with suppress(OSError):  # a folder that is none has nothing to remove
                temporary.unlink(missing_ok=True)
        return path
