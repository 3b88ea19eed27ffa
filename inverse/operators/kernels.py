"""Kernels of blur: Gaussian, uniform, motion, or from a file; each sums to 1 and stays where its anchor is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError, check_positive


def gaussian_kernel(
    sigma: float | Sequence[float],
    size: int | Sequence[int] | None = None,
    *,
    angle: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Gaussian, sampled at the pixels around the anchor.

    Args:
        sigma: standard deviation in pixels; (along y, along x) before the rotation for an anisotropic one.
        size: pixels along a side or (ky, kx); None: odd, 4 standard deviations to each side.
        angle: rotation in radians, from the x axis towards the y axis (down).
        dtype: real dtype, default float32.

    Returns:
        (ky, kx), sum 1. The maximum is at size // 2, also of an even size: the image does not move.

    Raises:
        InputError: sigma or size not positive.
    """
    sy, sx = _pair("sigma", sigma)
    cos, sin = math.cos(angle), math.sin(angle)
    if size is None:
        spread = math.hypot(sy * cos, sx * sin), math.hypot(sy * sin, sx * cos)
        ky, kx = (2 * math.ceil(4 * s) + 1 for s in spread)
    else:
        ky, kx = (int(n) for n in _pair("size", size, whole=True))
    y, x = (torch.arange(n, dtype=torch.float64) - n // 2 for n in (ky, kx))
    along = cos * x + sin * y[:, None]
    across = cos * y[:, None] - sin * x
    kernel = torch.exp(-((along / sx) ** 2 + (across / sy) ** 2) / 2)
    return (kernel / kernel.sum()).to(dtype)


def uniform_kernel(size: int | Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Constant kernel, the mean over a box.

    Args:
        size: pixels along a side, or (ky, kx); an even size moves the image by half a pixel.
        dtype: real dtype, default float32.

    Returns:
        (ky, kx), sum 1.

    Raises:
        InputError: a size that is not a positive integer.
    """
    ky, kx = (int(n) for n in _pair("size", size, whole=True))
    return torch.full((ky, kx), 1 / (ky * kx), dtype=dtype)


def motion_kernel(length: float, angle: float = 0.0, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Straight motion at constant speed: every pixel weighs the length of the path inside of it.

    Args:
        length: length of the path in pixels; an odd whole number along an axis gives that many equal values.
        angle: direction in radians, from the x axis upwards.
        dtype: real dtype, default float32.

    Returns:
        (k, k), k odd, symmetric about its middle, sum 1.

    Raises:
        InputError: a length that is not positive.
    """
    check_positive("length", length)
    direction = np.array([-math.sin(angle), math.cos(angle)])
    path = np.stack([-0.5 * length * direction, 0.5 * length * direction])
    reach = math.ceil(float(np.abs(path).max()) - 0.5 - 1e-9)
    return torch.from_numpy(_drawn(path, 2 * max(reach, 0) + 1)).to(dtype)


def shake_kernel(
    size: int,
    generator: torch.Generator | None = None,
    *,
    steps: int = 64,
    jitter: float = 0.3,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Random path of a camera held by hand: a velocity with inertia, pulled back and kicked, drawn as it is passed.

    Args:
        size: pixels along a side; the path fills the inside of it along its longer extent.
        generator: source of the random numbers, on the CPU; None: the global one.
        steps: pieces of the path.
        jitter: how strongly the velocity changes from piece to piece, in parts of itself; 0 is straight motion.
        dtype: real dtype, default float32.

    Returns:
        (size, size), sum 1, the path's extent in the middle.

    Raises:
        InputError: size or steps not positive integers, or a negative jitter.

    Reference: Boracchi and Foi, "Modeling the performance of image restoration from motion blur", 2012, section IV-A.
    """
    size, steps = (int(_pair(name, n, whole=True)[0]) for name, n in (("size", size), ("steps", steps)))
    check_positive("jitter", jitter, zero=True)
    draws = torch.randn(steps + 1, 2, dtype=torch.float64, generator=generator).numpy()
    velocity = draws[0] / max(float(np.hypot(*draws[0])), 1e-12)
    place, path = np.zeros(2), [np.zeros(2)]
    for kick in draws[1:]:
        velocity = velocity + jitter * (kick - place / steps)
        velocity = velocity / max(float(np.hypot(*velocity)), 1e-12)
        place = place + velocity
        path.append(place)
    points = np.array(path)
    points -= (points.min(0) + points.max(0)) / 2
    extent = 2 * float(np.abs(points).max())
    points *= (size - 1) / max(extent, 1e-12)
    return torch.from_numpy(_drawn(points, size)).to(dtype)


def load_kernel(path: str | Path, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Kernel from a file: .npy, or a grey image (png, tif and what else Pillow reads).

    Args:
        path: the file.
        dtype: real dtype, default float32.

    Returns:
        (ky, kx), divided by its sum.

    Raises:
        InputError: the file cannot be read, is not one real finite plane, has negative values or is all zero.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .npy file or a grey image.")
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_image(path)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a kernel ({reason}); give a .npy file or a grey image.") from error
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "buif":
        raise InputError(f"{path}: expected one real plane (ky, kx), got {values.dtype} {values.shape}; convert it.")
    values = values.astype(np.float64)
    total = values.sum()
    if not np.isfinite(values).all() or values.min() < 0 or not total > 0:
        raise InputError(f"{path}: expected finite values of at least 0, not all 0, got a sum of {total:g}; repair it.")
    return torch.from_numpy(values / total).to(dtype)


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        if image.mode not in ("1", "L", "F") and not image.mode.startswith("I"):
            raise InputError(f"{path}: expected a grey image, got one of mode {image.mode}; convert it.")
        return np.array(image)


def _pair(name: str, value: float | Sequence[float], *, whole: bool = False) -> tuple[float, float]:
    """Two positive numbers, for y and x, from one or two."""
    numbers = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(numbers) != 2:
        raise InputError(f"{name}: expected one number or two, for y and x, got {len(numbers)}.")
    for number in numbers:
        check_positive(name, number)
        if whole and int(number) != number:
            raise InputError(f"{name}: expected whole numbers of pixels, got {number}.")
    return numbers[0], numbers[1]


def _drawn(path: np.ndarray, size: int) -> np.ndarray:
    """Part of the length of a polygon that lies inside of each pixel; points (n, 2) are (y, x) from the middle."""
    image = np.zeros((size, size))
    middle = (size - 1) / 2
    for start, stop in pairwise(path):
        step = stop - start
        cuts = [np.array([0.0, 1.0])]
        for a, b, d in zip(start, stop, step, strict=True):
            low, high = min(a, b), max(a, b)
            edges = np.arange(math.ceil(low - 0.5), math.floor(high + 0.5) + 1) + 0.5
            edges = edges[(edges > low) & (edges < high)]
            cuts.append((edges - a) / d)
        places = np.unique(np.concatenate(cuts))
        halfway = start + (places[:-1, None] + places[1:, None]) / 2 * step
        rows, columns = np.clip(np.rint(halfway + middle).astype(int), 0, size - 1).T
        np.add.at(image, (rows, columns), np.diff(places) * float(np.hypot(*step)))
    if size == 1:
        image[:] = 1
    return image / image.sum()
