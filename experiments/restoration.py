"""Every sampler on real images: inpainting, super-resolution, deblurring and MRI of held-out people, and real scans.

Usage: python experiments/restoration.py --data FOLDER [--scans FILE ...] [--prior NAME] [--tasks TEXT ...]
                                         [--methods TEXT ...] [--claims] [--pictures] [--fresh] [--report]
    FOLDER holds colin27.h5 and studyforrest02_t1.h5; FILE is a fully sampled k-space (see experiments/real_scan.py)

Rows are appended to results/restoration.csv as they come, and a run that was cut off goes on. --claims measures in one
run what is said of RED-diff and DPS, and of DDS and a predictor-corrector sampler of 2000 levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cases import describe
from memory import peak, reset_peak
from pictures import Shown, draw
from predictor_corrector import PredictorCorrector
from restoration_cases import MASKS, OPERATORS, REAL_MASKS, Task, mri, real, restoration
from tables import RESULTS, Column, Row, Table, pivot
from torch import Tensor

import inverse
from inverse.metrics import coverage, psnr, ssim
from inverse.samplers import METHODS, Bridge, DiffusionSampler, MomentMatching, Sampler, SplitGibbs
from inverse.samplers.prior_step import ReverseRun

SLICES = (("colin27", 75), ("studyforrest02_t1", 25))
SAMPLES = 4


@dataclass(frozen=True)
class Entry:
    """A row of the table: how the sampler is made, and what it is asked for.

    Attributes:
        make: the sampler.
        samples: samples per problem.
        once: run on the first slice of each problem only, where it is dear.
        svd: needs the operator's singular value decomposition.
    """

    make: Callable[[], Sampler]
    samples: int = SAMPLES
    once: bool = False
    svd: bool = False


def method(name: str, steps: int | None = None, **choices: int | bool) -> Entry:
    """A method of `inverse.samplers.METHODS` with a number of steps."""
    wanted = {} if steps is None else {"steps": steps}
    return Entry(lambda: METHODS[name](**wanted), **choices)


ENTRIES: dict[str, Entry] = {
    "learned covariance, 8": method("learned-covariance", 8),
    "learned covariance, 20": method("learned-covariance", 20),
    "its spectrum alone, 20": method("spectral-covariance", 20),
    "its variance alone, 20": method("variance-head", 20),
    "split Gibbs, 60": Entry(lambda: SplitGibbs(40, METHODS["learned-covariance"](20), ReverseRun(1))),
    "moment matching, 5": Entry(
        lambda: DiffusionSampler(MomentMatching(iterations=5), Bridge(), 5, largest=2.0, antithetic=True), once=True
    ),
    "TMPD, 20": method("tmpd", 20, once=True),
    "PiGDM, 20": method("pigdm", 20),
    "DPS, 100": method("dps", 100, samples=1, once=True),
    "DDS, 20": method("dds", 20),
    "DDS, 100": method("dds", 100, once=True),
    "DiffPIR, 20": method("diffpir", 20),
    "DDRM, 20": method("ddrm", 20, svd=True),
    "RED-diff, 100": method("red-diff", 100, samples=1),
    "PnP-DM, 100": method("pnp-dm", 100, samples=2, once=True),
    "DAPS, 100": method("daps", 100, samples=2, once=True),
}
CLAIMS: dict[str, Entry] = {
    "RED-diff, 100": method("red-diff", 100, samples=1),
    "DPS, 100": method("dps", 100, samples=1),
    "DDS, 20": method("dds", 20, samples=1),
    "DDS, 49": method("dds", 49, samples=1),
    "predictor-corrector, 2000 levels": Entry(lambda: PredictorCorrector(2000), samples=1),
}
COLUMNS = (
    Column("PSNR of one sample", "PSNR of one, dB", 2),
    Column("PSNR", "PSNR of the mean, dB", 2, better=1),
    Column("SSIM", "SSIM of the mean", 3, better=1),
    Column("coverage", "coverage of 90 %", 3),
    Column("residual", "residual", 3),
    Column("evaluations", "forward", 0),
    Column("backward", "backward", 0),
    Column("seconds", "s a sample", 1),
    Column("peak memory", "peak memory, MiB", 0),
)
EACH = Column("seconds an evaluation", "s an evaluation", 3)


def main() -> None:
    """Measure all methods on every problem; figures on disk are kept."""
    options = _options()
    if options.report:
        return report(Table("restoration", None))
    prior = inverse.priors.load(options.prior)
    table = Table("restoration", f"{describe(prior)}, {SAMPLES} samples unless said, seed 0", fresh=options.fresh)
    if options.claims:
        return claims(options, prior, table)
    seen: set[str] = set()
    for kind, build in tasks(options):
        if not _kept(kind, options.tasks):
            continue
        first = kind not in seen
        seen.add(kind)
        run_task(build(), first, prior, table, options)
        report(table)


def tasks(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Task]]]:
    """Kinds of problem and how to build them, the first slice of every kind first."""
    for person, z in SLICES:
        file = options.data / f"{person}.h5"
        for kind in OPERATORS:
            yield kind, lambda file=file, z=z, kind=kind: restoration(file, z, kind)
        for mask in MASKS:
            yield f"MRI {mask}", lambda file=file, z=z, mask=mask: mri(file, z, mask)
    for scan in options.scans:
        for mask in REAL_MASKS:
            yield f"real {mask}", lambda scan=scan, mask=mask: real(scan, mask)


def run_task(task: Task, first: bool, prior: inverse.priors.NetworkPrior, table: Table, options) -> None:
    """Measure all methods on one problem."""
    images: dict[str, Tensor] = {}
    for name, entry in ENTRIES.items():
        if (entry.once and not first) or (entry.svd and task.operator.svd is None) or not _kept(name, options.methods):
            continue
        if table.has(task.name, name) and not options.pictures:
            continue
        images[name], figures = measure(task, entry.make(), entry.samples, prior)
        table.add(task.name, name, figures)
        note = ", ".join(f"{metric} {value:.4g}" for metric, (value, _) in figures.items())
        print(f"{task.name}, {name}: {note}", flush=True)
    if options.pictures and images:
        shown = [Shown(m, x, f"{psnr(x, task.magnitude, task.region):.1f} dB") for m, x in images.items()]
        path = RESULTS / f"restoration-{task.name.replace(', ', '-').replace(' ', '-').replace('=', '').lower()}.png"
        print(draw(path, task.magnitude, shown))


def measure(
    task: Task, sampler: Sampler, samples: int, prior: inverse.priors.NetworkPrior
) -> tuple[Tensor, dict[str, tuple[float, str]]]:
    """Samples of one problem, their mean, and its figures."""
    held = reset_peak()
    solution = inverse.solve(task.y, task.operator, prior, sampler, noise=task.noise, samples=samples, progress=False)
    grown = peak() - held
    mean = solution.mean * task.region
    ones = [psnr(x * task.region, task.magnitude, task.region) for x in solution.samples]
    figures = {
        "PSNR of one sample": (sum(ones) / samples, "dB"),
        "PSNR": (psnr(mean, task.magnitude, task.region), "dB"),
        "SSIM": (ssim(mean, task.magnitude, task.region), ""),
        "residual": (float(solution.residual.mean()), ""),
        "evaluations": (solution.stats.nfe, ""),
        "backward": (solution.stats.nfe_backward, ""),
        "seconds": (solution.stats.seconds / samples, "s"),
        "peak memory": (grown, "MiB"),
        "samples": (samples, ""),
    }
    if samples > 1 and task.image is not None:
        figures["coverage"] = (coverage(solution.samples, task.image, 0.9, task.head), "")
    return mean, figures


def claims(options: argparse.Namespace, prior: inverse.priors.NetworkPrior, table: Table) -> None:
    """RED-diff beside DPS and a bare forward pass; DDS beside a predictor-corrector sampler of 2000 levels."""
    person, z = SLICES[0]
    task = mri(options.data / f"{person}.h5", z, MASKS[0])
    case = f"claims: {task.name}"
    for name, entry in CLAIMS.items():
        if _kept(name, options.methods) and not table.has(case, name):
            _, figures = measure(task, entry.make(), entry.samples, prior)
            figures["seconds an evaluation"] = (figures["seconds"][0] / figures["evaluations"][0], "s")
            table.add(case, name, figures)
            print(name, figures, flush=True)
    report(table)


def report(table: Table) -> None:
    """Write the Markdown file: for each kind of problem means over its slices, and the first slice with all methods."""
    found: dict[str, list[Row]] = {}
    for row in table.rows:
        subject, kind = row.case.split(", ", 1)
        group = "claims: " if subject.startswith("claims") else "real scans, " if subject.startswith("real") else ""
        found.setdefault(group + kind, []).append(row)
    sections = []
    for kind, rows in found.items():
        cases = list(dict.fromkeys(row.case for row in rows))
        everywhere = {m for m in ENTRIES if all(any(r.case == c and r.method == m for r in rows) for c in cases)}
        if len(cases) > 1:
            shared = [row for row in rows if row.method in everywhere]
            sections.append(pivot(shared, COLUMNS, methods=list(ENTRIES), heading=f"{kind}, mean of {len(cases)}"))
        first = [row for row in rows if row.case == cases[0]]
        columns = (*COLUMNS, EACH) if kind.startswith("claims") else COLUMNS
        sections.append(pivot(first, columns, methods=list(ENTRIES | CLAIMS), heading=cases[0]))
    table.write_markdown("Every sampler on real images", TEXT, sections)


TEXT = f"""Slices of held-out people with a smooth phase, as complex images: 50 % of the pixels, a missing square,
block means of 4 x 4, a Gaussian and a motion blur, noise 0.05 per real component; 8-coil MRI as in mri.md;
complex noise throughout. Mean of {SAMPLES} samples, of 2 for PnP-DM and DAPS, of 1 for DPS and RED-diff.
Coverage of 90 % intervals where the head is. Forward and backward: passes through the network a sample.
Seconds of one thread; peak memory is what the run added to the process.
Dear methods ran on the first slice only."""


def _kept(name: str, texts: list[str]) -> bool:
    return not texts or any(text in name for text in texts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the held-out volumes")
    parser.add_argument("--scans", type=Path, nargs="*", default=[], help="fully sampled k-space files")
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--claims", action="store_true")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.data is None and not options.report:
        parser.error("--data FOLDER: where are the held-out volumes?")
    return options


if __name__ == "__main__":
    main()
