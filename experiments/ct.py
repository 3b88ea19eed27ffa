"""Sparse-view CT of held-out people: FBP, total variation, DDS and the learned covariance.

Usage: python experiments/ct.py --data FOLDER [--tune] [--prior NAME] [--cases TEXT ...] [--methods TEXT ...]
                                [--pictures] [--fresh] [--report] [--threads N]
    FOLDER holds train/ and test/ with HDF5 files, each with a dataset `volume` (z, y, x) in HU

--tune finds the window of FBP and the lambda of total variation on training people, for every beam and number of
views, and stores them in results/ct_baselines.json. Otherwise rows are appended to results/ct.csv as they come, and a
run that was cut off goes on. --cases and --methods keep what contains one of the texts. --report: tables from the rows
on disk.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from baselines import best_on_grid, total_variation
from cases import describe
from ct_cases import BEAMS, PHOTONS, VIEWS, CTCase, make_ct_case
from pictures import Shown, draw
from tables import RESULTS, Column, Table, facts, pivot
from torch import Tensor

import inverse
from inverse.data import WATER_ATTENUATION, atomic_write, to_hounsfield
from inverse.linalg import norm
from inverse.metrics import coverage, psnr, ssim
from inverse.operators.ct import WINDOWS, fbp
from inverse.priors.files import NetworkPrior

TUNED = RESULTS / "ct_baselines.json"
TUNING = (("cptac_c3n00247_chest", 25), ("ge_head", 14), ("totalseg_abdomen", 5))
SLICES = (("invesalius_head", 26), ("lidc0314_chest", 27), ("nysbu_a067967", 1), ("nysbu_a098752", 0))
SAMPLES, STEPS = 4, 20
GUESS = 5.0  # lambda where the search begins, for attenuation over that of water and data of unit noise
DIFFUSION = {f"DDS, {STEPS}": "dds", f"learned covariance, {STEPS}": "learned-covariance"}
TRUTH = "true image"
ORDER = [TRUTH, "FBP", "TV", *DIFFUSION]
COLUMNS = (
    Column("PSNR of one sample", "PSNR of one, dB", 2),
    Column("PSNR", "PSNR, dB", 2, better=1),
    Column("SSIM", "SSIM", 3, better=1),
    Column("error", "error in the body, HU", 1, better=-1),
    Column("coverage", "coverage of 90 %", 3),
    Column("residual", "residual", 3),
    Column("seconds", "s a sample", 1),
)
WINDOW = (-300.0, 500.0)  # HU shown black and white


def main() -> None:
    """Tune, measure or report."""
    options = _options()
    if options.tune:
        return tune(options.data / "train")
    if options.report:
        return report(Table("ct", None))
    prior = inverse.priors.load(options.prior)
    table = Table("ct", f"{describe(prior)}, {PHOTONS:g} photons a ray, {SAMPLES} samples, seed 0", fresh=options.fresh)
    for person, z in SLICES:
        for beam in BEAMS:
            for views in VIEWS:
                case = make_ct_case(options.data / "test" / f"{person}.h5", z, beam, views)
                if _kept(case.name, options.cases):
                    run_case(case, table, prior, f"{beam} {views}", options)
    report(table)


def tune(folder: Path) -> None:
    """The window of FBP and the lambda of total variation with the largest mean PSNR on training people."""
    found = {}
    for beam in BEAMS:
        for views in VIEWS:
            cases = [make_ct_case(folder / f"{person}.h5", z, beam, views) for person, z in TUNING]
            window = max(WINDOWS, key=lambda w: np.mean([psnr(reconstruct_fbp(c, w), c.image) for c in cases]))
            lamda, score = best_lambda(cases)
            found[f"{beam} {views}"] = {"window": window, "lambda": float(f"{lamda:.4g}")}
            print(f"{beam} {views}: FBP {window}, TV lambda {lamda:.4g}, {score:.2f} dB", flush=True)
    about = [line.lstrip("# ") for line in facts()]
    slices = [f"{person} z={z}" for person, z in TUNING]
    with atomic_write(TUNED) as temporary:
        temporary.write_text(json.dumps({"about": about, "slices": slices, "tuned": found}, indent=1) + "\n")


def best_lambda(cases: Sequence[CTCase]) -> tuple[float, float]:
    """The lambda of the largest mean PSNR over some scans, and that PSNR."""

    def score(lamda: float) -> float:
        return float(np.mean([psnr(reconstruct_tv(case, lamda, rtol=1e-5), case.image) for case in cases]))

    return best_on_grid(score, GUESS)


def reconstruct_fbp(case: CTCase, window: str) -> Tensor:
    """Filtered backprojection, negative attenuation set to 0."""
    return fbp(case.operator, case.y, window).clamp(min=0)


def reconstruct_tv(case: CTCase, lamda: float, *, rtol: float = 1e-6) -> Tensor:
    """Total variation, not negative, weighted by the photons; lambda in units of the attenuation of water."""
    operator, y, _ = case.noise.whiten(case.operator, case.y)
    start = reconstruct_fbp(case, "hann") / WATER_ATTENUATION
    found = total_variation(
        y, WATER_ATTENUATION * operator, lamda, start=start, rtol=rtol, inner_iterations=10, nonnegative=True
    )
    return found.image * WATER_ATTENUATION


def run_case(case: CTCase, table: Table, prior: NetworkPrior, kind: str, options: argparse.Namespace) -> None:
    """Measure all methods on one scan; methods already in the table are left out unless a picture needs them."""
    images: dict[str, Tensor] = {}
    for method in ORDER:
        if not _kept(method, options.methods) or (table.has(case.name, method) and not options.pictures):
            continue
        image, figures = run_diffusion(case, method, prior) if method in DIFFUSION else run_direct(case, method, kind)
        images[method] = image
        table.add(case.name, method, figures)
        note = ", ".join(f"{metric} {value:.4g}" for metric, (value, _) in figures.items())
        print(f"{case.name}, {method}: {note}", flush=True)
    if options.pictures and images:
        shown = [
            Shown(m, to_hounsfield(x), f"{psnr(x, case.image):.1f} dB, {ssim(x, case.image):.3f}")
            for m, x in images.items()
            if m != TRUTH
        ]
        name = case.name.replace(", ", "-").replace(" ", "-").replace("=", "").lower()
        print(draw(RESULTS / f"ct-{name}.png", to_hounsfield(case.image), shown, window=WINDOW))


def run_direct(case: CTCase, method: str, kind: str) -> tuple[Tensor, dict]:
    """FBP or total variation as tuned for this beam and number of views, and its figures."""
    if method == TRUTH:  # what is left of the data because they come from a finer grid
        return case.image, {"residual": quality(case, case.image)["residual"]}
    tuned = json.loads(TUNED.read_text())["tuned"][kind]
    start = time.perf_counter()
    if method == "FBP":
        image = reconstruct_fbp(case, tuned["window"])
    else:
        image = reconstruct_tv(case, tuned["lambda"])
    return image, quality(case, image) | {"seconds": (time.perf_counter() - start, "s")}


def run_diffusion(case: CTCase, method: str, prior: NetworkPrior) -> tuple[Tensor, dict]:
    """Samples by diffusion, their mean, and its figures; PSNR of one sample is a mean over the samples."""
    solution = inverse.solve(
        case.y,
        case.operator,
        prior,
        DIFFUSION[method],
        noise=case.noise,
        samples=SAMPLES,
        steps=STEPS,
        progress=False,
    )
    mean = solution.mean.clamp(min=0)
    figures = quality(case, mean) | {
        "PSNR of one sample": (float(np.mean([psnr(x, case.image) for x in solution.samples])), "dB"),
        "coverage": (coverage(solution.samples, case.image, 0.9, case.body), ""),
        "residual": (float(solution.residual.mean()), ""),
        "evaluations": (solution.stats.nfe, ""),
        "iterations of CG": (solution.stats.cg_iterations / STEPS, "a step"),
        "seconds": (solution.stats.seconds / SAMPLES, "s"),
    }
    return mean, figures


def quality(case: CTCase, image: Tensor) -> dict:
    """PSNR and SSIM of the attenuation, root mean squared error in the body, residual over the noise."""
    operator, y, _ = case.noise.whiten(case.operator, case.y)
    misfit = float(norm((operator(image) - y)[None])) / math.sqrt(operator.measurements)
    error = (to_hounsfield(image) - to_hounsfield(case.image))[case.body]
    return {
        "PSNR": (psnr(image, case.image), "dB"),
        "SSIM": (ssim(image, case.image), ""),
        "error": (float(error.square().mean().sqrt()), "HU"),
        "residual": (misfit, ""),
    }


def report(table: Table) -> None:
    """Write the Markdown file: means over the slices for each beam and number of views, then every case."""
    sections = []
    for beam in BEAMS:
        for views in VIEWS:
            rows = [row for row in table.rows if row.case.endswith(f"{beam} {views}")]
            if rows:
                count = len({row.case for row in rows})
                heading = f"{beam} beam, {views} views, mean over {count} people"
                sections.append(pivot(rows, COLUMNS, methods=ORDER, heading=heading))
    for case in dict.fromkeys(row.case for row in table.rows):
        sections.append(pivot([row for row in table.rows if row.case == case], COLUMNS, methods=ORDER, heading=case))
    text = (
        f"{PHOTONS:g} photons a ray; data simulated on a grid twice as fine with two rays a detector element, so that "
        "the true image itself misses them by more than the noise. People that neither training nor tuning saw. "
        "Window of FBP and lambda of total variation (weighted by the photons, not negative, run to convergence) tuned "
        f"on training people. Diffusion: mean of {SAMPLES} samples of {STEPS} evaluations; one is the mean over single "
        "samples. PSNR and SSIM of the attenuation over the whole slice, peak the largest of the reference; error and "
        "coverage where the reference is above -500 HU."
    )
    table.write_markdown("Sparse-view CT of held-out people", text, sections)


def _kept(name: str, texts: Sequence[str]) -> bool:
    return not texts or any(text in name for text in texts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--prior", default="body-ct")
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.data is None and not options.report:
        parser.error("--data FOLDER: where are the volumes?")
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
