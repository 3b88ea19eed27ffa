"""A real synchrotron scan of a tooth: rotation axis found from the data, images by FBP and total variation.

Usage: python experiments/tooth.py FILE [--fresh]
    FILE  tooth.h5 as tomopy ships it: counts, flat and dark fields of 181 views over half a turn, 640 elements

From all views and from every sixth (30): the axis, as both rows of the detector show it, and the image of the first
row, its residual and how far it is from that of all views. Total variation from few views only.
Results in results/tooth.csv and .md, picture in results/tooth.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from baselines import total_variation
from pictures import Shown, draw
from tables import RESULTS, Column, Table, pivot
from torch import Tensor

from inverse.data import Sinogram, read_sinogram
from inverse.linalg import norm
from inverse.metrics import psnr
from inverse.operators.ct import CT, ParallelBeam, fbp, find_centre

SIZE = 512  # of 640 elements: the tooth lies inside
COLUMNS = (
    Column("column of the axis", "column of the axis", 2),
    Column("residual", "residual", 3),
    Column("PSNR", "PSNR to FBP of all views, dB", 2),
    Column("seconds", "s", 2),
)


def main() -> None:
    """Reconstruct both rows of the detector from all views and from 30."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    scan = read_sinogram(options.file)
    table = Table("tooth", "lengths in detector elements", fresh=options.fresh)
    every, few = slice(None), slice(0, 180, 6)
    reference = fbp(operator_of(scan, every), scan.data[0])
    shown = []
    for views, methods in ((every, ("FBP",)), (few, ("FBP", "FBP, Hann", "TV"))):
        operator = operator_of(scan, views)
        y, name = scan.data[0, views], f"{len(scan.angles[views])} views"
        for method in methods:
            start = time.perf_counter()
            image = reconstruct(operator, y, method)
            seconds = time.perf_counter() - start
            column = (operator.geometry.detectors - 1) / 2 - operator.geometry.offset
            figures = {
                "column of the axis": (column, "elements"),
                "residual": (float(norm(operator(image) - y, 0) / norm(y, 0)), "relative"),
                "seconds": (seconds, "s"),
            }
            if views is few:
                figures["PSNR"] = (psnr(image, reference), "dB")
            table.add(name, method, figures)
            shown.append(Shown(f"{method}, {name}", image, f"axis at {column:.2f}"))
    window = (0.0, float(torch.quantile(reference, 0.998)))
    print(draw(RESULTS / "tooth.png", None, shown, origin="upper", window=window))
    cases = dict.fromkeys(row.case for row in table.rows)
    sections = [pivot([r for r in table.rows if r.case == case], COLUMNS, heading=case) for case in cases]
    text = (
        "181 views over half a turn, 640 elements; the axis is searched for in the data of both rows of the detector, "
        "lengths are in elements. Residual: ||A x - y|| / ||y||. The PSNR compares with FBP of all views, noise and "
        "all, so that it rewards keeping that noise.\n\n![reconstructions](tooth.png)"
    )
    table.write_markdown("A tooth from real projections", text, sections)


def operator_of(scan: Sinogram, views: slice) -> CT:
    """Some of the views, with the axis as these show it."""
    angles = scan.angles[views]
    offset = find_centre(scan.data[:, views], angles)
    return CT(ParallelBeam(angles, scan.data.shape[-1], 1.0, offset), (SIZE, SIZE), 1.0)


def reconstruct(operator: CT, y: Tensor, method: str) -> Tensor:
    """FBP, or total variation of moderate weight."""
    if method == "FBP":
        return fbp(operator, y)
    smooth = fbp(operator, y, "hann")
    if method == "FBP, Hann":
        return smooth
    # In units of the tooth, and of an operator of norm 1: 0.002 leaves its cracks and takes the streaks.
    unit = float(smooth.quantile(0.99))
    scaled = (1 / operator.norm()) * operator
    return unit * total_variation(y / (unit * operator.norm()), scaled, 0.002, start=smooth / unit, rtol=1e-5).image


if __name__ == "__main__":
    main()
