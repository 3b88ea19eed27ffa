"""The warning of made-up detail on a scan: its map beside the error and beside the standard deviation of the samples.

Usage: python experiments/instability.py [--data FILE [--slice Z] [--mask TEXT]] [--prior NAME] [--pictures] [--fresh]
    FILE holds a dataset `volume` (z, y, x), uint8, of one person; without it the shipped scan of Colin27 is taken

Rows of results/instability.csv are kept by case, the Markdown table is made from all of them. --pictures: a picture of
the case too (results/instability-CASE.png); of the shipped scan it is always made. A minute on one core.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from cases import MASKS, SIGMA_Y, describe, make_case
from pictures import Shown, draw
from tables import RESULTS, Column, Table, pivot
from torch import Tensor

import inverse
from inverse.data import estimate_maps, read, sample_path
from inverse.operators import MultiCoilMRI
from inverse.samplers import METHODS
from inverse.samplers.instability import WINDOW, smoothed

STEPS, SAMPLES = 20, 8
METHOD = "learned-covariance"
EDGES = 0.25  # share of the head that counts as edges: where the true image is steepest
WORST = 0.05  # share of the region that is picked by a map
COLUMNS = (
    Column("map and error", "map, error", 2),
    Column("sd and error", "sd, error", 2),
    Column("map and sd", "map, sd", 2),
    Column("map and error given sd", "map, error given sd", 2),
    Column("own map and own error", "own map, own error", 2),
    Column("error found by map", "error in the worst 5 % of the map", 2),
    Column("error found by sd", "of the sd", 2),
    Column("error found by error", "of the error", 2),
    Column("map", "mean of the map", 2),
)

TEXT = f"""Learned covariance, {STEPS} evaluations, {SAMPLES} samples; noise {SIGMA_Y:g} per real component. The map is
that of `Solution.maps["instability"]`, the error that of the mean of the samples, sd their standard deviation; all of
magnitudes, as root mean squares over 3 x 3 pixels (the map also over the samples).

- the first columns are rank correlations (Spearman) over the pixels of a region; `given sd`: what remains of that of
  map and error when the ranks of sd are taken out of both; `own`: map and error of each sample, mean over the samples;
- error in the worst 5 %: share of the squared error of the region in its 5 % of pixels with the largest map, sd or
  error;
- edges: the quarter of the head where the true image is steepest; flat: the rest.

The map counts levels from {WINDOW[1]:g} down to {WINDOW[0]:g} data standard deviations. It is shown beside the standard
deviation, never in its place: it says that the network changes its mind, not that the data leave a choice. It has not
been validated clinically, and nothing here says which detail of an image is false."""


@dataclass(frozen=True)
class Scan:
    """One slice.

    Attributes:
        name: of the case.
        y: k-space (coils, y, x).
        operator: with maps estimated from y.
        magnitude: the true magnitude (y, x).
    """

    name: str
    y: Tensor
    operator: MultiCoilMRI
    magnitude: Tensor

    @property
    def regions(self) -> dict[str, Tensor]:
        """Head, its edges and its flat parts, bool (y, x)."""
        head = self.magnitude > 0.05
        rise, run = torch.gradient(self.magnitude)
        slope = torch.hypot(rise, run)
        edges = head & (slope > torch.quantile(slope[head], 1 - EDGES))
        return {"head": head, "edges": edges, "flat": head & ~edges}


def main() -> None:
    """Measure one case; the table shows all that are on disk."""
    options = _options()
    prior = inverse.priors.load(options.prior)
    settings = f"{describe(prior)}, {METHOD}, {STEPS} evaluations, {SAMPLES} samples, noise {SIGMA_Y:g}, seed 0"
    table = Table("instability", settings, fresh=options.fresh)
    scan = shipped() if options.data is None else simulated(options.data, options.slice, options.mask)
    sampler = replace(METHODS[METHOD](steps=STEPS), instability=True)
    solution = inverse.solve(scan.y, scan.operator, prior, sampler, noise=SIGMA_Y, samples=SAMPLES, progress=False)
    images, maps = solution.samples.abs(), solution.maps["instability"]
    for region, inside in scan.regions.items():
        table.add(scan.name, region, figures(images, maps, scan.magnitude, inside))
    if options.pictures or options.data is None:
        print(picture(scan, images, maps))
    report(table)


def shipped() -> Scan:
    """The middle slice of the scan that comes with the library."""
    scan = read(sample_path(), slices=1)
    maps = estimate_maps(scan.kspace[0], mask=scan.mask)
    return Scan("shipped scan of colin27", scan.kspace[0], MultiCoilMRI(maps, scan.mask), scan.reference[0])


def simulated(file: Path, z: int, mask: str) -> Scan:
    """A slice of a person, seen by 8 coils."""
    case = make_case(file, z, mask)
    return Scan(case.name, case.y, case.operator, case.magnitude)


def figures(images: Tensor, maps: Tensor, truth: Tensor, inside: Tensor) -> dict[str, tuple[float, str]]:
    """Rank correlations and shares of the error in one region.

    Args:
        images: magnitudes of the samples (samples, y, x).
        maps: the map of each (samples, y, x).
        truth: true magnitude (y, x).
        inside: the region, bool (y, x).
    """
    error = around(images.mean(0) - truth)[inside]
    spread, shown = around(images.std(0))[inside], together(maps)[inside]
    own = [spearman(around(m)[inside], around(x - truth)[inside]) for m, x in zip(maps, images, strict=True)]
    with_error, with_spread, both = spearman(shown, error), spearman(spread, error), spearman(shown, spread)
    partial = (with_error - with_spread * both) / ((1 - with_spread**2) * (1 - both**2)) ** 0.5
    return {
        "map and error": (with_error, ""),
        "sd and error": (with_spread, ""),
        "map and sd": (both, ""),
        "map and error given sd": (partial, ""),
        "own map and own error": (sum(own) / len(own), ""),
        "error found by map": (found(shown, error), ""),
        "error found by sd": (found(spread, error), ""),
        "error found by error": (found(error, error), ""),
        "map": (float(shown.mean()), ""),
    }


def together(maps: Tensor) -> Tensor:
    """One map (y, x) of all samples, for showing."""
    return around(maps.square().mean(0).sqrt())


def around(image: Tensor) -> Tensor:
    """Root mean square over 3 x 3 pixels (y, x)."""
    return smoothed(image.square()).sqrt()


def spearman(a: Tensor, b: Tensor) -> float:
    """Correlation of the ranks of two lists of values."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def found(score: Tensor, error: Tensor) -> float:
    """Share of the squared error where the score is largest."""
    worst = score.topk(max(1, round(WORST * len(score)))).indices
    return float(error[worst].square().sum() / error.square().sum())


def picture(scan: Scan, images: Tensor, maps: Tensor) -> Path:
    """True image, mean, error, standard deviation and map side by side."""
    mean = images.mean(0)
    error, spread, shown = (mean - scan.magnitude).abs(), images.std(0), together(maps)
    bright = float(torch.quantile(scan.magnitude, 0.998))
    gain, inside = bright / 8, scan.regions["head"]
    top = float(torch.quantile(shown[inside], 0.995))
    name = scan.name.replace(", ", "-").replace(" ", "-").replace("=", "").lower()
    columns = [
        Shown("true image", scan.magnitude),
        Shown("mean of the samples", mean),
        Shown("|error| x 8", error * bright / gain),
        Shown("standard deviation x 8", spread * bright / gain),
        Shown("instability", shown * inside * bright / top, f"white: {top:.2g}"),
    ]
    return draw(RESULTS / f"instability-{name}.png", None, columns, window=(0.0, bright))


def report(table: Table) -> None:
    """Write the Markdown file."""
    cases = dict.fromkeys(row.case for row in table.rows)
    sections = [pivot([row for row in table.rows if row.case == case], COLUMNS, heading=case) for case in cases]
    image = "instability-shipped-scan-of-colin27.png"
    if (RESULTS / image).exists():
        sections.append(f"![The shipped scan: true image, mean, error, standard deviation, map]({image})")
    table.write_markdown("Warning of made-up detail", TEXT, sections)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="volume of one person; the shipped scan without it")
    parser.add_argument("--slice", type=int, default=0)
    parser.add_argument("--mask", choices=MASKS, default=MASKS[0])
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
