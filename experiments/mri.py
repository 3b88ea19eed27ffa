"""Accelerated MRI of held-out people: classical reconstructions, DDS and the learned covariance.

Usage: python experiments/mri.py --data FOLDER [--prior NAME] [--quick] [--cases TEXT ...] [--methods TEXT ...]
                                 [--all] [--pictures] [--fresh] [--report] [--true-maps] [--threads N]
    FOLDER holds colin27.h5 and studyforrest02_t1.h5, each with a dataset `volume` (z, y, x)

Rows are appended to results/mri.csv as they come, and a run that was cut off goes on. --quick: one slice, in a table of
its own (mri-quick). --cases and --methods keep what contains one of the texts. Runs of 50 and more
evaluations are made for the first slice only, unless --all. --report: tables from the rows on disk.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from baselines import METHODS as CLASSICAL
from baselines import tuned_lambda
from cases import MASKS, SIGMA_Y, Case, describe, make_case
from pictures import Shown, draw
from tables import RESULTS, Column, Table, pivot
from torch import Tensor

import inverse
from inverse.linalg import norm
from inverse.metrics import coverage, psnr, ssim
from inverse.priors.files import NetworkPrior

SLICES = (("colin27", 75), ("colin27", 110), ("studyforrest02_t1", 25))
SAMPLES = 8
LONG = 50  # evaluations; from here on the first slice only, unless --all
DIFFUSION = {
    f"{label}, {steps}": (name, steps)
    for label, name, numbers in (
        ("learned covariance", "learned-covariance", (20, 8, 50)),
        ("DDS", "dds", (20, 50, 100)),
    )
    for steps in numbers
}
ORDER = [
    "zero-filled",
    *CLASSICAL,
    *sorted(DIFFUSION, key=lambda m: (not m.startswith("DDS"), int(m.rsplit(" ", 1)[1]))),
]
COLUMNS = (
    Column("PSNR of one sample", "PSNR of one, dB", 2),
    Column("PSNR", "PSNR of the mean, dB", 2, better=1),
    Column("SSIM of one sample", "SSIM of one", 3),
    Column("SSIM", "SSIM of the mean", 3, better=1),
    Column("coverage", "coverage of 90 %", 3),
    Column("residual", "residual", 3),
    Column("evaluations", "evaluations", 0),
    Column("seconds", "s a sample", 1),
)


def main() -> None:
    """Measure all methods on every scan; figures on disk are kept."""
    options = _options()
    name = "mri-quick" if options.quick else "mri"
    if options.report:
        return report(Table(name, None))
    prior = inverse.priors.load(options.prior)
    maps = "true" if options.true_maps else "estimated"
    settings = f"{describe(prior)}, noise {SIGMA_Y:g} per real component, {maps} maps, {SAMPLES} samples, seed 0"
    table = Table(name, settings, fresh=options.fresh)
    for person, z in SLICES[:1] if options.quick else SLICES:
        for mask in MASKS:
            if _kept(f"{person} z={z}, {mask}", options.cases):
                case = make_case(options.data / f"{person}.h5", z, mask, true_maps=options.true_maps)
                run_case(case, mask, table, prior, options)
    report(table)


def run_case(case: Case, mask: str, table: Table, prior: NetworkPrior, options: argparse.Namespace) -> None:
    """Measure all methods on one scan; methods already in the table are left out unless a picture needs them."""
    images: dict[str, Tensor] = {}
    for method in ["zero-filled", *CLASSICAL, *DIFFUSION]:
        pictured = options.pictures and method in ("zero-filled", *CLASSICAL, "DDS, 20", "learned covariance, 20")
        long = method in DIFFUSION and DIFFUSION[method][1] >= LONG and not options.all
        if not _kept(method, options.methods) or (table.has(case.name, method) and not pictured):
            continue
        if long and not case.name.startswith(f"{SLICES[0][0]} z={SLICES[0][1]},"):
            continue
        if method in DIFFUSION:
            image, figures = run_diffusion(case, method, prior)
        else:
            image, figures = run_classical(case, mask, method)
        images[method] = image
        table.add(case.name, method, figures)
        note = ", ".join(f"{metric} {value:.4g}" for metric, (value, _) in figures.items())
        print(f"{case.name}, {method}: {note}", flush=True)
    if options.pictures and images:
        shown = [
            Shown(m, x, f"{psnr(x, case.magnitude):.1f} dB, {ssim(x, case.magnitude):.3f}") for m, x in images.items()
        ]
        name = case.name.replace(", ", "-").replace(" ", "-").replace("=", "").lower()
        print(draw(RESULTS / f"mri-{name}.png", case.magnitude, shown))


def run_classical(case: Case, mask: str, method: str) -> tuple[Tensor, dict]:
    """One classical reconstruction with its tuned lambda, and its figures."""
    start = time.perf_counter()
    if method == "zero-filled":
        image = case.operator.pinv(case.y)
    else:
        image = CLASSICAL[method](case.y, case.operator, tuned_lambda(method, mask, case.sigma_y)).image
    seconds = time.perf_counter() - start
    image = case.inside(image)
    figures = {
        "PSNR": (psnr(image, case.magnitude), "dB"),
        "SSIM": (ssim(image, case.magnitude), ""),
        "residual": (residual(case, image), ""),
        "seconds": (seconds, "s"),
    }
    return image, figures


def run_diffusion(case: Case, method: str, prior: NetworkPrior) -> tuple[Tensor, dict]:
    """Samples by diffusion, their mean, and its figures; PSNR and SSIM of one sample are means over the samples."""
    name, steps = DIFFUSION[method]
    solution = inverse.solve(
        case.y, case.operator, prior, name, noise=case.sigma_y, samples=SAMPLES, steps=steps, progress=False
    )
    mean = case.inside(solution.mean)
    ones = [(psnr(x, case.magnitude), ssim(x, case.magnitude)) for x in solution.samples]
    figures = {
        "PSNR of one sample": (sum(p for p, _ in ones) / SAMPLES, "dB"),
        "PSNR": (psnr(mean, case.magnitude), "dB"),
        "SSIM of one sample": (sum(s for _, s in ones) / SAMPLES, ""),
        "SSIM": (ssim(mean, case.magnitude), ""),
        "coverage": (coverage(solution.samples, case.image, 0.9, case.head), ""),
        "residual": (float(solution.residual.mean()), ""),
        "residual of the mean": (residual(case, mean), ""),
        "evaluations": (solution.stats.nfe, ""),
        "seconds": (solution.stats.seconds / SAMPLES, "s"),
    }
    if curve := solution.info.get("innovation"):
        figures |= {f"innovation at sigma {sigma:.3g}": (k, "") for sigma, k in curve[:: max(1, len(curve) // 8)]}
    return mean, figures


def residual(case: Case, image: Tensor) -> float:
    """||A x - y|| over what the noise gives."""
    misfit = case.operator(image) - case.y
    return float(norm(misfit[None])) / (case.sigma_y * case.operator.measurements**0.5)


def report(table: Table) -> None:
    """Write the Markdown file: means over the slices for each mask, then every case."""
    masks = [mask for mask in MASKS if any(row.case.endswith(mask) for row in table.rows)]
    sections = []
    for mask in masks:
        rows = [row for row in table.rows if row.case.endswith(mask)]
        count = len({row.case for row in rows})
        whole = {m for m in ORDER if len({row.case for row in rows if row.method == m}) == count}
        rows = [row for row in rows if row.method in whole]
        sections.append(pivot(rows, COLUMNS, methods=ORDER, heading=f"{mask}, mean over {count} scan(s)"))
    for case in dict.fromkeys(row.case for row in table.rows):
        rows = [row for row in table.rows if row.case == case]
        sections.append(pivot(rows, COLUMNS, methods=ORDER, heading=case))
    text = (
        f"8 simulated coils, complex noise of {SIGMA_Y:g} per real component for a peak near 0.9, 8 % or 24 x 24 "
        "centre, maps estimated by ESPIRiT from the undersampled, noisy data. People that neither training nor tuning "
        f"saw. Diffusion: mean of {SAMPLES} samples; `one` is the mean over single samples. Lambdas of the classical "
        "methods are tuned on training people (tune_baselines.py), each run to convergence. Every image is "
        "restricted to the support of the maps; PSNR and SSIM over the whole field of view; coverage where the image "
        "is above 0.05."
    )
    table.write_markdown("Accelerated MRI of held-out people", text, sections)


def _kept(name: str, texts: Sequence[str]) -> bool:
    return not texts or any(text in name for text in texts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the held-out volumes")
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--true-maps", action="store_true")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.data is None and not options.report:
        parser.error("--data FOLDER: where are the held-out volumes?")
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
