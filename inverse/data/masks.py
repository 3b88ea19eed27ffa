"""Cartesian sampling masks: phase-encode lines (x,) and two-dimensional patterns (y, x), True where sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inverse.errors import InputError

FASTMRI_KINDS = ("random", "equispaced", "equispaced_fraction")


def acceleration(mask: Tensor) -> float:
    """True acceleration of a mask: positions over sampled positions.

    Args:
        mask: any shape; nonzero where sampled.

    Raises:
        InputError: nothing is sampled.
    """
    sampled = int(torch.count_nonzero(mask))
    if sampled == 0:
        raise InputError(f"mask: all {mask.numel()} positions are zero; at least one line must be sampled.")
    return mask.numel() / sampled


def equispaced(lines: int, acceleration: float, *, center_fraction: float = 0.08, offset: int | None = None) -> Tensor:
    """Every R-th line exactly, plus a fully sampled centre around line `lines // 2`.

    The true acceleration is below R because of the centre; `acceleration(mask)` states it.

    Args:
        lines: number of phase-encode lines.
        acceleration: spacing R of the lines, a whole number of at least 1.
        center_fraction: part of all lines sampled in the centre, default 0.08 as in fastMRI at R = 4.
        offset: first sampled line; None puts a sampled line at the centre, so that masks of any size are alike.

    Returns:
        Boolean mask of shape (x,).

    Raises:
        InputError: lines, acceleration, fraction or offset out of range.
    """
    _check_lines(lines, acceleration, center_fraction)
    if acceleration != int(acceleration):
        raise InputError(f"acceleration: expected a whole number for equispaced lines, got {acceleration:g}.")
    step = int(acceleration)
    offset = (lines // 2) % step if offset is None else offset
    if not 0 <= offset < step:
        raise InputError(f"offset: expected 0 to {step - 1} for R = {step}, got {offset}.")
    mask = _center(lines, center_fraction)
    mask[offset::step] = True
    return mask


def random_lines(lines: int, acceleration: float, *, center_fraction: float = 0.08, seed: int = 0) -> Tensor:
    """Lines drawn uniformly without replacement plus a full centre; exactly round(lines / R) lines in all.

    Args:
        lines: number of phase-encode lines.
        acceleration: true acceleration R, centre included.
        center_fraction: part of all lines sampled in the centre.
        seed: of the draw; same seed, same mask.

    Returns:
        Boolean mask of shape (x,).

    Raises:
        InputError: arguments out of range, or a centre that alone has more lines than R allows.
    """
    return _draw_lines(torch.ones(lines, dtype=torch.float64), lines, acceleration, center_fraction, seed)


def gaussian_lines(
    lines: int, acceleration: float, *, center_fraction: float = 0.08, width: float = 0.2, seed: int = 0
) -> Tensor:
    """Lines drawn without replacement with Gaussian density around the centre; exactly round(lines / R) lines.

    Args:
        lines: number of phase-encode lines.
        acceleration: true acceleration R, centre included.
        center_fraction: part of all lines sampled in the centre.
        width: standard deviation of the density as a part of all lines; smaller is denser in the centre.
        seed: of the draw; same seed, same mask.

    Returns:
        Boolean mask of shape (x,).

    Raises:
        InputError: arguments out of range, or a centre that alone has more lines than R allows.
    """
    if not 0 < width <= 10:
        raise InputError(f"width: expected a part of all lines in (0, 10], got {width:g}.")
    distance = (torch.arange(lines, dtype=torch.float64) - lines // 2) / (width * lines)
    # the floor keeps the far lines drawable when the density underflows
    density = torch.exp(-0.5 * distance**2).clamp_min(1e-12)
    return _draw_lines(density, lines, acceleration, center_fraction, seed)


def poisson_disc(
    shape: Sequence[int], acceleration: float, *, calibration: int | Sequence[int] = 24, seed: int = 0
) -> Tensor:
    """Variable-density Poisson-disc sampling of two phase-encode directions, with a full calibration block.

    The true acceleration differs a little from the wanted one; `acceleration(mask)` states it.

    Args:
        shape: (y, x).
        acceleration: wanted acceleration, above 1; corners of k-space are left out and count as unsampled.
        calibration: side of the fully sampled centre block, one number or (y, x); default 24 for ESPIRiT.
        seed: of the draw; same seed, same mask.

    Returns:
        Boolean mask of shape (y, x).

    Raises:
        InputError: arguments out of range, or no such pattern exists.

    Reference: R. Bridson, "Fast Poisson disk sampling in arbitrary dimensions", SIGGRAPH sketches, 2007.
    """
    shape = tuple(int(n) for n in shape)
    block = (calibration, calibration) if isinstance(calibration, int) else tuple(calibration)
    if len(shape) != 2 or min(shape) < 8:
        raise InputError(f"shape: expected (y, x) of at least 8 x 8, got {shape}.")
    if not 1 < acceleration <= shape[0] * shape[1] / max(1, block[0] * block[1]):
        raise InputError(f"acceleration: expected above 1, with room for the {block} centre, got {acceleration:g}.")
    if len(block) != 2 or not all(0 <= b <= n for b, n in zip(block, shape, strict=True)):
        raise InputError(f"calibration: expected a block inside {shape}, got {block}.")
    mask = torch.from_numpy(_sigpy_poisson(shape, acceleration, block, seed))
    (y, x), (h, w) = (n // 2 - b // 2 for n, b in zip(shape, block, strict=True)), block
    mask[y : y + h, x : x + w] = True  # sigpy centres its block at (n - b) / 2, one off for odd sizes
    return mask


def fastmri_mask(
    kind: str,
    lines: int,
    center_fractions: float | Sequence[float] = 0.08,
    accelerations: int | Sequence[int] = 4,
    *,
    seed: int | str | Sequence[int] | None = None,
    offset: int | None = None,
) -> Tensor:
    """The mask that fastMRI's own code gives for the same name, numbers and seed, bit for bit.

    Args:
        kind: "random", "equispaced" or "equispaced_fraction" (that of the public multi-coil test data).
        lines: number of phase-encode lines.
        center_fractions: part of the lines in the centre; several: one pair of the lists is drawn.
        accelerations: acceleration for each fraction.
        seed: whole number, or a file name, or its character codes (fastMRI seeds validation masks by file name);
            None draws anew.
        offset: first line of the equispaced kinds; None draws it.

    Returns:
        Boolean mask of shape (x,). Its centre lies where fastMRI puts it, at most one line from lines // 2.

    Raises:
        InputError: unknown name or arguments out of range.

    Reference: J. Zbontar et al., "fastMRI: an open dataset and benchmarks for accelerated MRI", 2018,
    arXiv:1811.08839; fastmri/data/subsample.py.
    """
    if kind not in FASTMRI_KINDS:
        raise InputError(f"mask: unknown kind {kind!r}; choose one of {', '.join(FASTMRI_KINDS)}.")
    fractions = [center_fractions] if isinstance(center_fractions, (int, float)) else list(center_fractions)
    factors = [accelerations] if isinstance(accelerations, (int, float)) else list(accelerations)
    if len(fractions) != len(factors) or not fractions:
        raise InputError(f"mask: expected one acceleration per centre fraction, got {factors} for {fractions}.")
    for fraction, factor in zip(fractions, factors, strict=True):
        _check_lines(lines, factor, fraction)
    rng = np.random.RandomState(tuple(map(ord, seed)) if isinstance(seed, str) else seed)
    choice = rng.randint(len(fractions))
    fraction, factor = fractions[choice], factors[choice]
    low = round(lines * fraction)
    mask = np.zeros(lines, dtype=bool)
    start = (lines - low + 1) // 2
    mask[start : start + low] = True
    mask |= _FASTMRI[kind](rng, lines, factor, low, offset)
    return torch.from_numpy(mask)


def _fastmri_random(rng: np.random.RandomState, lines: int, factor: float, low: int, offset: int | None) -> np.ndarray:
    probability = (lines / factor - low) / (lines - low) if lines > low else 1.0
    return rng.uniform(size=lines) < probability


def _fastmri_equispaced(
    rng: np.random.RandomState, lines: int, factor: float, low: int, offset: int | None
) -> np.ndarray:
    mask = np.zeros(lines, dtype=bool)
    mask[rng.randint(0, high=round(factor)) if offset is None else offset :: factor] = True
    return mask


def _fastmri_fraction(
    rng: np.random.RandomState, lines: int, factor: float, low: int, offset: int | None
) -> np.ndarray:
    if low * factor >= lines:
        raise InputError(f"mask: the {low} centre lines of {lines} already exceed acceleration {factor:g}; lower one.")
    spacing = (factor * (low - lines)) / (low * factor - lines)
    offset = rng.randint(0, high=round(spacing)) if offset is None else offset
    mask = np.zeros(lines, dtype=bool)
    mask[np.around(np.arange(offset, lines - 1, spacing)).astype(np.uint)] = True
    return mask


_FASTMRI = {"random": _fastmri_random, "equispaced": _fastmri_equispaced, "equispaced_fraction": _fastmri_fraction}


def _check_lines(lines: int, factor: float, fraction: float) -> None:
    if not isinstance(lines, int) or lines < 2:
        raise InputError(f"lines: expected a whole number of at least 2, got {lines}.")
    if not 1 <= factor <= lines:
        raise InputError(f"acceleration: expected 1 to {lines} (the number of lines), got {factor:g}.")
    if not 0 <= fraction <= 1:
        raise InputError(f"center_fraction: expected 0 to 1, got {fraction:g}.")


def _center(lines: int, fraction: float) -> Tensor:
    """Full centre of round(lines * fraction) lines, symmetric around lines // 2 as sizes allow."""
    low = round(lines * fraction)
    mask = torch.zeros(lines, dtype=torch.bool)
    start = lines // 2 - low // 2
    mask[start : start + low] = True
    return mask


def _draw_lines(density: Tensor, lines: int, factor: float, fraction: float, seed: int) -> Tensor:
    _check_lines(lines, factor, fraction)
    mask = _center(lines, fraction)
    missing = round(lines / factor) - int(mask.sum())
    if missing < 0:
        raise InputError(
            f"center_fraction: the {int(mask.sum())} centre lines exceed the {round(lines / factor)} lines that "
            f"acceleration {factor:g} allows; lower one of the two."
        )
    if missing:
        generator = torch.Generator().manual_seed(seed)
        mask[torch.multinomial(density * ~mask, missing, generator=generator)] = True
    return mask


def _sigpy_poisson(shape: tuple[int, int], factor: float, block: tuple[int, int], seed: int) -> np.ndarray:
    """sigpy's pattern; its bisection may miss a narrow tolerance, so that it is widened before giving up."""
    from sigpy.mri import poisson

    for tolerance in (0.02, 0.05, 0.15):
        try:
            return poisson(shape, factor, calib=block, dtype=bool, seed=seed, tol=tolerance * factor)
        except ValueError:
            continue
    raise InputError(f"acceleration: no Poisson-disc pattern of shape {shape} reaches {factor:g}; change it a little.")
