"""Pictures of reconstructions over their errors, as small PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from inverse.data import atomic_write

ERROR_GAIN = 5
LARGEST = 200_000  # bytes


class Shown(NamedTuple):
    """One column: title, image (y, x), a line of figures."""

    title: str
    image: Tensor
    note: str = ""


def draw(
    path: Path,
    reference: Tensor | None,
    items: Sequence[Shown],
    *,
    origin: str = "lower",
    window: tuple[float, float] | None = None,
) -> Path:
    """Draw the reference and some images (magnitudes of complex ones) in a row, their errors times 5 below.

    At most 200 kB.

    Args:
        path: the PNG file.
        reference: the truth (y, x), or None: no errors.
        items: what to show.
        origin: "lower" for volumes with y to anterior, "upper" for images as a scanner stores them.
        window: values shown black and white; None goes from 0 to the 99.8th percentile of the first image.
    """
    from matplotlib.figure import Figure

    if reference is not None:
        items = [Shown("reference", reference), *items]
    height, width = items[0].image.shape
    black, white = window or (0.0, float(np.quantile(_real(items[0].image), 0.998)))
    rows = 1 if reference is None else 2
    figure = Figure(figsize=(1.6 * len(items), (1.6 * height / width + 0.36) * rows), facecolor="black")
    axes = figure.subplots(rows, len(items), squeeze=False)
    for column, item in enumerate(items):
        top = axes[0, column]
        top.imshow(_real(item.image), cmap="gray", vmin=black, vmax=white, origin=origin)
        top.set_title(f"{item.title}\n{item.note}", color="white", fontsize=7)
        if reference is not None and column > 0:
            error = ERROR_GAIN * np.abs(_real(item.image) - _real(reference))
            axes[1, column].imshow(error, cmap="gray", vmin=0, vmax=white - black, origin=origin)
    if rows == 2:
        axes[1, 0].text(
            0.5, 0.5, f"|error| x {ERROR_GAIN}", color="white", ha="center", fontsize=8, transform=axes[1, 0].transAxes
        )
    for ax in axes.flat:
        ax.axis("off")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=1 - 0.32 / figure.get_figheight(), wspace=0.03)
    data = b""
    for dpi in (150, 120, 100, 80, 60):
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=dpi, facecolor="black")
        data = _palette(buffer)
        if len(data) <= LARGEST:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return path


def _real(image: Tensor) -> np.ndarray:
    return (image.abs() if image.is_complex() else image).numpy()


def _palette(buffer: io.BytesIO) -> bytes:
    """The PNG in 256 greys: a third of the size."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(buffer) as image:
        image.convert("L").save(out, format="PNG", optimize=True)
    return out.getvalue()
