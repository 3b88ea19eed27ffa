"""Pictures of a training run: the learning curve, and what the network denoises and draws."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inverse.data import atomic_write
from inverse.samplers.grids import karras

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from inverse.train.loop import Trainer

NOISE_LEVELS = (0.05, 0.2, 0.8)
COLUMNS, DRAW_STEPS, DRAW_SIDE = 6, 30, 96


def draw_pictures(trainer: Trainer) -> list[Path]:
    """Write curve.png and samples.png into the folder of the run.

    Args:
        trainer: a run that has reported at least once.

    Raises:
        InputError: the folder cannot be written.
    """
    written = []
    curve = trainer.out / "curve.csv"
    pictures = {"samples.png": sample_figure(trainer)}
    if curve.exists():
        pictures["curve.png"] = curve_figure(curve)
    for name, figure in sorted(pictures.items()):
        written.append(trainer.out / name)
        with atomic_write(written[-1]) as temporary:
            figure.savefig(temporary, format="png")
    return written


def curve_figure(path: Path) -> Figure:
    """Denoising error over noise level on held-out people against training steps, one line per noise level.

    Args:
        path: curve.csv with columns step, sigma, relative_rmse.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    lines: dict[float, dict[int, float]] = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            lines[float(row["sigma"])][int(row["step"])] = float(row["relative_rmse"])  # a resumed run repeats a step
    figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for place, (sigma, points) in enumerate(sorted(lines.items())):
        steps = sorted(points)
        values = [points[step] for step in steps]
        color = colormaps["viridis"](0.9 * place / max(1, len(lines) - 1))
        axes.plot(steps, values, color=color, marker="o" if len(steps) < 3 else None, linewidth=1.6)
        axes.annotate(f"σ = {sigma:g}", (steps[-1], values[-1]), (5, 0), textcoords="offset points", va="center",
                      fontsize=8, color=color)  # fmt: skip
    axes.set(yscale="log", xlabel="training steps", ylabel="root mean squared error / σ")
    axes.set_title("Denoising error on held-out people", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.margins(x=0.02)
    return figure


def sample_figure(trainer: Trainer) -> Figure:
    """Rows: held-out crops, then noisy and denoised ones for each noise level, then unconditional samples."""
    from matplotlib.figure import Figure

    clean = trainer.validation[0][:COLUMNS]
    rows = [("held out", clean)]
    for sigma in NOISE_LEVELS:
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = clean + sigma * noise
        rows += [(f"σ = {sigma:g}", noisy), ("denoised", denoise(trainer, noisy, sigma))]
    rows.append(("drawn", draw(trainer, COLUMNS)))
    columns = len(clean)
    figure = Figure(figsize=(1.3 * columns + 0.4, 1.3 * len(rows)), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for cells, (label, images) in zip(grid, rows, strict=True):
        cells[0].set_ylabel(label, fontsize=9)
        for axes in cells:
            axes.set_xticks([])
            axes.set_yticks([])
        for axes, image in zip(cells, images, strict=False):
            axes.imshow(image.square().sum(0).sqrt().numpy(), cmap="gray", vmin=0, vmax=1)
    return figure


@torch.no_grad()
def denoise(trainer: Trainer, images: Tensor, sigma: float) -> Tensor:
    """The averaged network's estimate of x0 for images (N, C, H, W) on the CPU."""
    level = torch.full((len(images),), sigma, device=trainer.device)
    with torch.autocast(trainer.device.type, dtype=torch.bfloat16):
        mean, _ = trainer.average(images.to(trainer.device), level, variance=False)
    return mean.float().cpu()


def draw(trainer: Trainer, count: int) -> Tensor:
    """Unconditional samples (count, channels, side, side) by ancestral steps; the same noise at every call."""
    config = trainer.config
    levels = karras(DRAW_STEPS, min(config.sigma_max, 25 * config.data_std), 0.02 * config.data_std).tolist()
    generator = torch.Generator().manual_seed(config.seed)
    shape = (count, config.network.channels, DRAW_SIDE, DRAW_SIDE)
    x = levels[0] * torch.randn(shape, generator=generator)
    for sigma, lower in pairwise(levels):
        mean = denoise(trainer, x, sigma)
        fresh = lower * math.sqrt(1 - lower**2 / sigma**2)
        kept = lower**2 / sigma**2  # sqrt(lower^2 - fresh^2) / sigma
        x = mean + kept * (x - mean) + fresh * torch.randn(shape, generator=generator)
    return x
