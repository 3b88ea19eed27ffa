"""What readers and writers of HDF5 files share: opening, choosing slices, and checks that name the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError

Slices = int | slice | Iterable[int] | None


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read.

    Raises:
        InputError: no such file, not HDF5, or truncated, whenever that comes out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not a readable HDF5 file, or truncated ({reason}); copy it again.") from error


def find_dataset(path: Path, file: h5py.File, name: str, advice: str) -> h5py.Dataset:
    """A dataset of a file; `advice` ends the message where there is none."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        keys = ", ".join(sorted(file)) or "nothing"
        raise InputError(f"{path}: expected a dataset '{name}', found {keys}; {advice}.")
    return found


def choose_slices(path: Path, slices: Slices, total: int) -> tuple[int, ...]:
    """Indices of the wanted slices, none negative."""
    if slices is None:
        return tuple(range(total))
    if isinstance(slices, slice):
        chosen = tuple(range(total))[slices]
    else:
        chosen = tuple(int(i) for i in ([slices] if isinstance(slices, (int, np.integer)) else slices))
    if not chosen or any(not -total <= i < total for i in chosen):
        raise InputError(f"{path}: slices: expected indices of its {total} slices, got {slices}.")
    return tuple(i % total for i in chosen)


def read_slices(path: Path, dataset: h5py.Dataset, chosen: tuple[int, ...], dtype: type) -> Tensor:
    """The chosen slices of a dataset, one at a time into place, so that nothing is held twice.

    Raises:
        InputError: NaN or Inf.
    """
    values = np.empty((len(chosen), *dataset.shape[1:]), dtype=dtype)
    for place, index in enumerate(chosen):
        values[place] = dataset[index]
    tensor = torch.from_numpy(values)
    check_finite(path, dataset.name.strip("/"), tensor)
    return tensor


def read_images(path: Path, dataset: h5py.Dataset, chosen: tuple[int, ...], total: int) -> Tensor:
    """The chosen slices of what goes with data of `total` slices, float32 (slices, ...) of three axes.

    Raises:
        InputError: another number of axes or of slices, NaN or Inf.
    """
    if dataset.ndim != 3 or dataset.shape[0] != total:
        name = dataset.name.strip("/")
        raise InputError(f"{path}: expected {name} of shape ({total}, ...), got {dataset.shape}; remove it.")
    return read_slices(path, dataset, chosen, np.float32)


def check_finite(path: Path, name: str, values: Tensor) -> None:
    """Refuse slices with NaN or Inf."""
    for i, part in enumerate(values):
        # one sum per slice instead of a mask of the whole: NaN and Inf survive the sum
        if not torch.isfinite(torch.view_as_real(part).double().sum() if part.is_complex() else part.double().sum()):
            raise InputError(f"{path}: {name} has NaN or Inf in slice {i} of those read; repair or leave out the file.")


def store(file: h5py.File, name: str, values: Tensor) -> None:
    """Write a tensor, compressed, one chunk for each image: reading one slice or coil never unpacks another."""
    array = values.detach().cpu().numpy()
    chunk = (1,) * (array.ndim - 2) + array.shape[-2:]
    file.create_dataset(name, data=array, chunks=chunk, compression="gzip", compression_opts=6, shuffle=True)
