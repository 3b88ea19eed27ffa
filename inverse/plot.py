"""Figures: panels of one slice on one grey scale, the error bar in a colour map of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from inverse.data import atomic_write
from inverse.errors import InputError
from inverse.metrics import magnitude

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 2.6
BAND_INCHES = 0.5  # above each panel: a title and a line of numbers
GAP_INCHES = 0.06
DPI = 150


@dataclass(frozen=True)
class Panel:
    """One image of a figure.

    Attributes:
        title: what it is.
        image: (y, x), real or complex (its magnitude is shown).
        note: a line under the title, e.g. PSNR and SSIM.
        error_bar: True shows it in colour, with a colour bar in the place of the note.
    """

    title: str
    image: Tensor
    note: str = ""
    error_bar: bool = False


def panels(items: Sequence[Panel], *, window: tuple[float, float] | None = None, columns: int = 3) -> Figure:
    """A figure of equal panels; row 0 of an image is at the bottom, as for NIfTI volumes with y to anterior.

    Args:
        items: what to show, all of one shape.
        window: values shown as black and white in all grey panels; None goes from 0 to the 99.8th percentile of the
            last grey one.
        columns: panels a row.

    Raises:
        InputError: no panels, or shapes that differ.
    """
    from matplotlib.figure import Figure  # here, because most runs draw nothing

    shapes = {tuple(item.image.shape) for item in items}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InputError(f"panels: expected images of one shape (y, x), got {sorted(shapes) or 'none'}.")
    height, width = next(iter(shapes))
    columns = min(columns, len(items))
    rows = math.ceil(len(items) / columns)
    panel_width = PANEL_INCHES * min(1.0, width / height)
    panel_height = panel_width * height / width
    cell = panel_width + GAP_INCHES, panel_height + BAND_INCHES
    size = columns * cell[0] + GAP_INCHES, rows * cell[1] + GAP_INCHES
    figure = Figure(figsize=size, dpi=DPI, facecolor="white")
    grey = [_array(item.image) for item in items if not item.error_bar]
    window = window or (0.0, float(np.percentile(grey[-1], 99.8)) if grey else 1.0)
    for place, item in enumerate(items):
        row, column = divmod(place, columns)
        left = GAP_INCHES + column * cell[0]
        bottom = size[1] - (row + 1) * cell[1]
        axes = figure.add_axes(
            (left / size[0], bottom / size[1], panel_width / size[0], panel_height / size[1]), facecolor="black"
        )
        _draw(axes, item, window, panel_height)
    return figure


def _draw(axes: Axes, item: Panel, window: tuple[float, float], panel_height: float) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    title, line = 1 + 0.25 / panel_height, 1 + 0.09 / panel_height
    axes.text(0.5, title, item.title, transform=axes.transAxes, ha="center", va="bottom", fontsize=10, weight="bold")
    image = _array(item.image)
    if not item.error_bar:
        axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", interpolation="nearest")
        axes.text(0.5, line, item.note, transform=axes.transAxes, ha="center", va="bottom", fontsize=9, color="0.25")
        return
    white = (window[1] - window[0]) or 1.0
    top = _round(float(np.percentile(image, 99.5)) / white) * white
    shown = axes.imshow(image, cmap="inferno", vmin=0, vmax=top, origin="lower", interpolation="nearest")
    bar = axes.inset_axes((0.14, line + 0.01, 0.4, 0.08 / panel_height))
    axes.figure.colorbar(shown, cax=bar, orientation="horizontal", ticks=[])
    for x, text, side in ((0.11, "0", "right"), (0.57, f"{100 * top / white:.2g} % of white", "left")):
        size = 9 if text == "0" else 7.5
        axes.text(x, line, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=size, color="0.25")


def _round(value: float) -> float:
    """The next of 1, 2, 3, 5, 7 times a power of ten that is not below value."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 3, 5, 7, 10) if step * power >= value * (1 - 1e-9))


def _array(image: Tensor) -> np.ndarray:
    return magnitude(image).cpu().numpy()


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: what to write.
        path: a file name ending in .png.

    Raises:
        InputError: the folder cannot be written.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
