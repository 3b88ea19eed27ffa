"""Tune lambda of the classical reconstructions on training people, and store it in results/baselines.json.

Usage: python experiments/tune_baselines.py --data FOLDER [--check]
    FOLDER holds train/*.h5, each with a dataset `volume` (z, y, x)

For every method, mask and noise level: the lambda of the largest mean PSNR over four slices of four scans, on a grid
of ratio 2 that grows until its best is inside, refined by a parabola. --check compares the stopping rule with a run
to the end, and L1-wavelet with sigpy's own, on one slice; results/baselines.csv.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import METHODS, TUNED, best_on_grid, tuned_lambda
from cases import MASKS, SIGMA_Y, Case, make_case
from tables import Column, Table, facts, pivot
from torch import Tensor

from inverse.data import atomic_write
from inverse.metrics import psnr

SLICES = (("adi_t1", 40), ("otsu_t1", 45), ("child3y_t1", 35), ("adi_t2", 14))
LEVELS = (SIGMA_Y / 3, SIGMA_Y, 3 * SIGMA_Y)
GUESS = {"CG-SENSE": 3.0, "L1-wavelet": 0.3, "TV": 0.3}  # lambda over sigma_y where the search begins
SEARCH_RTOL = 1e-5  # PSNR within 0.02 dB of the limit, see --check


def main() -> None:
    """Tune, or check the convergence of what was tuned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        check(options.data)
    else:
        tune(options.data)


def tune(data: Path) -> None:
    """Find and store all lambdas; prints each."""
    found: dict = {method: {mask: {} for mask in MASKS} for method in METHODS}
    for mask in MASKS:
        for sigma_y in LEVELS:
            cases = [make_case(data / "train" / f"{name}.h5", z, mask, sigma_y=sigma_y) for name, z in SLICES]
            for method in METHODS:
                lamda, score = best_lambda(method, cases, GUESS[method] * sigma_y)
                found[method][mask][f"{sigma_y:g}"] = float(f"{lamda:.4g}")
                print(f"{mask}, noise {sigma_y:g}, {method}: lambda {lamda:.4g}, {score:.2f} dB", flush=True)
    slices = [f"{name} z={z}" for name, z in SLICES]
    about = [line.lstrip("# ") for line in facts()]
    with atomic_write(TUNED) as temporary:
        temporary.write_text(json.dumps({"about": about, "slices": slices, "lambda": found}, indent=1) + "\n")


def case_psnr(case: Case, image: Tensor) -> float:
    """PSNR of an image of a simulated case, on the support of its maps."""
    return psnr(case.inside(image), case.magnitude)


def best_lambda(
    method: str, cases: Sequence[Any], guess: float, score: Callable[[Any, Tensor], float] = case_psnr
) -> tuple[float, float]:
    """The lambda of the largest mean score over some scans, and that score.

    Args:
        method: a name of `METHODS`.
        cases: scans with `y` and `operator`, and what the score needs.
        guess: where the search begins.
        score: of a scan and an image; larger is better.
    """
    starts: list = [None] * len(cases)

    def mean_score(lamda: float) -> float:
        values = []
        for i, case in enumerate(cases):
            options = {} if method == "CG-SENSE" else {"rtol": SEARCH_RTOL}
            starts[i] = METHODS[method](case.y, case.operator, lamda, start=starts[i], **options).image
            values.append(score(case, starts[i]))
        return float(np.mean(values))

    return best_on_grid(mean_score, guess)


def check(data: Path) -> None:
    """How far the stopping rule is from the limit, and sigpy's L1WaveletRecon from ours."""
    import sigpy.mri.app

    table = Table("baselines", "adi_t1 z=40, tuned lambda", fresh=True)
    for mask in MASKS:
        case = make_case(data / "train" / "adi_t1.h5", 40, mask)
        for method in ("L1-wavelet", "TV"):
            lamda = tuned_lambda(method, mask, case.sigma_y)
            stopped = METHODS[method](case.y, case.operator, lamda)
            limit = METHODS[method](case.y, case.operator, lamda, rtol=1e-10, iterations=4000)
            change = psnr(case.inside(stopped.image), case.magnitude) - psnr(case.inside(limit.image), case.magnitude)
            gap = stopped.objective[-1] / limit.objective[-1] - 1
            figures = {
                "iterations": (len(stopped.objective), ""),
                "objective over its limit": (gap, "relative"),
                "PSNR minus its limit": (change, "dB"),
            }
            if method == "L1-wavelet":
                maps = case.operator.maps.numpy()
                weights = np.broadcast_to(case.operator.mask.numpy(), maps.shape).astype(np.float32)
                app = sigpy.mri.app.L1WaveletRecon(
                    case.y.numpy(), maps, lamda, weights=weights, max_iter=1000, show_pbar=False
                )
                distance = torch.linalg.vector_norm(torch.as_tensor(app.run()) - limit.image)
                relative = float(distance / torch.linalg.vector_norm(limit.image))
                figures["distance of sigpy's image, 1000 iterations"] = (relative, "relative")
            table.add(mask, method, figures)
    metrics = dict.fromkeys(row.metric for row in table.rows)
    columns = [Column(metric, metric, 6 if metric != "iterations" else 0) for metric in metrics]
    sections = [pivot([r for r in table.rows if r.case == mask], columns, heading=mask) for mask in MASKS]
    lambdas = json.loads(TUNED.read_text())["lambda"]
    head = "| method | mask | " + " | ".join(f"noise {level:g}" for level in LEVELS) + " |\n|---|---|---:|---:|---:|"
    lines = [
        f"| {m} | {mask} | " + " | ".join(f"{v:.2g}" for v in lambdas[m][mask].values()) + " |"
        for m in METHODS
        for mask in MASKS
    ]
    sections.append("### Tuned lambda\n\n" + "\n".join([head, *lines]))
    text = "Distance of the stopping rule (objective changes by less than 1e-6 in 10 iterations) from the limit."
    table.write_markdown("Convergence of the baselines", text, sections)


if __name__ == "__main__":
    main()
