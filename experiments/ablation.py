"""What each part of the learned covariance is worth, on a scan of a training person: nothing is tuned on test people.

Usage: python experiments/ablation.py --data FOLDER [--prior NAME] [--fresh]
    FOLDER holds train/adi_t1.h5 with a dataset `volume` (z, y, x)

Every row changes one thing of the method as it ships. Results in results/ablation.csv and .md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cases import MASKS, Case, describe, make_case
from mri import COLUMNS
from tables import Table, pivot

import inverse
from inverse.metrics import coverage, psnr, ssim
from inverse.priors.files import NetworkPrior
from inverse.samplers import DDIM, METHODS, DiffusionSampler, LearnedCovariance

PERSON, SLICE = "adi_t1", 40
SAMPLES, STEPS = 4, 16
SHIPPED = METHODS["learned-covariance"](STEPS)
VARIANTS: dict[str, DiffusionSampler] = {
    "as it ships": SHIPPED,
    "solves to 0.03 deviations": replace(SHIPPED, conditioning=LearnedCovariance(tolerance=0.03)),
    "solves to 0.003 deviations": replace(SHIPPED, conditioning=LearnedCovariance(tolerance=0.003)),
    "no innovation": replace(SHIPPED, conditioning=LearnedCovariance(innovation=False)),
    "no draws": replace(SHIPPED, integrator=DDIM()),
    "from 25 standard deviations": replace(SHIPPED, largest=25.0),
    "independent samples": replace(SHIPPED, antithetic=False),
    "DDS": METHODS["dds"](STEPS),
    "DDS from 25 standard deviations": replace(METHODS["dds"](STEPS), largest=25.0),
}


def main() -> None:
    """Measure every variant on every mask; figures on disk are kept."""
    options = _options()
    prior = inverse.priors.load(options.prior)
    settings = f"{describe(prior)}, {PERSON} z={SLICE}, {SAMPLES} samples, {STEPS} evaluations, seed 0"
    table = Table("ablation", settings, fresh=options.fresh)
    for mask in MASKS:
        case = make_case(options.data / "train" / f"{PERSON}.h5", SLICE, mask)
        for name, sampler in VARIANTS.items():
            if not table.has(case.name, name):
                table.add(case.name, name, measure(case, prior, sampler))
                print(case.name, name, *(f"{r.metric} {r.value:.4g}" for r in table.rows[-7:]), flush=True)
    sections = [
        pivot([row for row in table.rows if row.case == case], COLUMNS, methods=list(VARIANTS), heading=case)
        for case in dict.fromkeys(row.case for row in table.rows)
    ]
    text = f"One part of the learned covariance changed at a time; mean of {SAMPLES} samples, {STEPS} evaluations."
    table.write_markdown("What the parts are worth", text, sections)


def measure(case: Case, prior: NetworkPrior, sampler: DiffusionSampler) -> dict:
    """Figures of the mean and of single samples."""
    solution = inverse.solve(case.y, case.operator, prior, sampler, noise=case.sigma_y, samples=SAMPLES, progress=False)
    mean = case.inside(solution.mean)
    return {
        "PSNR of one sample": (sum(psnr(case.inside(x), case.magnitude) for x in solution.samples) / SAMPLES, "dB"),
        "PSNR": (psnr(mean, case.magnitude), "dB"),
        "SSIM": (ssim(mean, case.magnitude), ""),
        "coverage": (coverage(solution.samples, case.image, 0.9, case.head), ""),
        "residual": (float(solution.residual.mean()), ""),
        "evaluations": (solution.stats.nfe, ""),
        "seconds": (solution.stats.seconds / SAMPLES, "s"),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
