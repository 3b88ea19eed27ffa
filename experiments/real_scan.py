"""Raw k-space of real scans: undersample, reconstruct, compare with the full data, or predict samples held out.

Usage: python experiments/real_scan.py FILE... [--prior NAME] [--samples N] [--masks TEXT ...] [--fresh] [--no-oracle]
    FILE  .h5 with a dataset `kspace`, or .npy: complex (coils, y, x), or (slices, coils, y, x): the middle slice is
          taken; zeros where nothing was sampled

A full file is undersampled (equispaced R = 4 with 8 % centre, Poisson disc R = 8) and its full reconstruction is the
reference; of an undersampled one 10 % of the samples are held out and predicted. Maps, scale and noise level come from
the undersampled data alone. The classical methods run with the lambda tuned on training people, and again with the best
lambda for this very scan ("best lambda"), which no user could know. Results in results/real_scan.csv, .md and pictures.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from baselines import METHODS, tuned_lambda
from cases import describe, make_mask
from pictures import Shown, draw
from tables import RESULTS, Column, Table, pivot
from torch import Tensor
from tune_baselines import best_lambda

import inverse
from inverse.data import calibration_region, estimate_maps, estimate_noise
from inverse.linalg import cg, norm
from inverse.metrics import psnr, ssim
from inverse.noise import estimate_noise as noise_of_residual
from inverse.operators import MultiCoilMRI
from inverse.priors.files import NetworkPrior

MASKS = ("equispaced R=4", "Poisson R=8")
HELD_OUT = "Poisson R=8"  # the tuning that files undersampled at the scanner are given
FULL = 0.9  # share of sampled positions above which a file counts as fully sampled
PEAK = 0.9
COLUMNS = (
    Column("PSNR", "PSNR, dB", 2, better=1),
    Column("SSIM", "SSIM", 3, better=1),
    Column("held-out error", "held-out error, relative", 4, better=-1),
    Column("held-out error over noise", "over noise", 3, better=-1),
    Column("residual", "residual", 3),
    Column("noise", "noise / peak", 5),
    Column("lambda", "lambda", 6),
    Column("evaluations", "evaluations", 0),
    Column("seconds", "s", 1),
)
LEARNED = ("learned covariance, 20", "learned-covariance", 20)
DDS = ("DDS, 20", "dds", 20)


@dataclass(frozen=True)
class Scan:
    """Undersampled data in units of the image's peak, the operator, and what to compare with.

    Attributes:
        name: file and mask.
        kind: the mask whose tuning applies.
        y: data (coils, y, x), every coil divided by its noise level.
        operator: with maps estimated from y.
        estimate: noise level per real component: from whole lines a number, else an upper bound to be refined.
        reference: full reconstruction (y, x), or None.
        region: where to compare, bool (y, x).
        held: held-out positions (y, x), or None.
        truth: data (coils, y, x) at all sampled positions.
    """

    name: str
    kind: str
    y: Tensor
    operator: MultiCoilMRI
    estimate: float | inverse.AtMost
    reference: Tensor | None
    region: Tensor
    held: Tensor | None
    truth: Tensor

    def score(self, image: Tensor) -> float:
        """What the best lambda maximises: PSNR, or the held-out error in dB."""
        if self.reference is not None:
            return psnr(image * self.region, self.reference, self.region)
        return -20 * float(np.log10(held_out_error(self, image)))


def main() -> None:
    """Measure all methods on every file; figures on disk are kept."""
    options = _options()
    prior = inverse.priors.load(options.prior)
    settings = f"{describe(prior)}, {options.samples} samples, seed 0"
    table = Table("real_scan", settings, fresh=options.fresh)
    for file in options.files:
        kspace = read_kspace(file)
        full = float((kspace != 0).any(0).float().mean()) > FULL
        for kind in MASKS if full else (HELD_OUT,):
            scan = undersample(file.stem, kspace, kind) if full else hold_out(file.stem, kspace)
            if any(text in scan.name for text in options.masks or [""]) and not table.has(scan.name, LEARNED[0]):
                run(scan, prior, table, options)
    report(table)


def read_kspace(file: Path) -> Tensor:
    """One slice of k-space (coils, y, x), complex64, centre at n // 2."""
    if file.suffix == ".npy":
        array = np.load(file, allow_pickle=False)
    else:
        with h5py.File(file) as data:
            if "kspace" not in data:
                raise SystemExit(f"{file}: no dataset `kspace`, only {', '.join(data)}.")
            array = data["kspace"][()]
    if array.ndim == 4:
        array = array[len(array) // 2]
    if array.ndim != 3 or not np.iscomplexobj(array):
        raise SystemExit(f"{file}: expected complex (coils, y, x), got {array.dtype} {array.shape}.")
    return torch.from_numpy(array.astype(np.complex64))


def undersample(name: str, kspace: Tensor, kind: str) -> Scan:
    """A fully sampled scan with a mask; its full reconstruction is the reference."""
    mask = make_mask(kind, tuple(kspace.shape[-2:]))
    scan = _scan(f"{name}, {kind}", kind, kspace, mask.expand(kspace.shape[-2:]), None)
    maps = estimate_maps(scan.truth, mask=torch.ones(kspace.shape[-2:], dtype=torch.bool))
    whole = MultiCoilMRI(maps, torch.ones(kspace.shape[-2:], dtype=torch.bool))
    reference = whole.pinv(scan.truth)
    region = whole.support if whole.support is not None else reference.abs() >= 0
    return replace(scan, reference=reference * region, region=region)


def hold_out(name: str, kspace: Tensor) -> Scan:
    """A scan undersampled at the scanner, without 10 % of its samples outside the calibration region."""
    mask = (kspace != 0).any(0)
    sides = calibration_region(mask)
    free = mask.clone()
    top, left = (n // 2 - side // 2 for n, side in zip(mask.shape, sides, strict=True))
    free[top : top + sides[0], left : left + sides[1]] = False
    chosen = free & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.1)
    return _scan(f"{name}, 10 % held out", HELD_OUT, kspace, mask & ~chosen, chosen)


def _scan(name: str, kind: str, kspace: Tensor, mask: Tensor, held: Tensor | None) -> Scan:
    """Whiten the coils, estimate maps, noise and scale from what the mask leaves."""
    levels = estimate_noise(kspace * mask, mask)
    levels = levels.clamp(0.5 * levels.median(), 2 * levels.median())
    white = kspace / levels[:, None, None]
    y = white * mask
    maps = estimate_maps(y, mask=mask)
    operator = MultiCoilMRI(maps, mask)
    level = 1.0
    if len(kspace) > 1:
        level = min(level, noise_of_residual(y[None], operator))
    quick = cg(lambda x: operator.gram(x) + 0.02 * x, operator.H(y)[None], rtol=1e-3, max_iterations=30).x[0]
    inside = quick if operator.support is None else quick[operator.support]
    scale = float(torch.quantile(inside.abs(), 0.999)) / PEAK
    lines = bool((mask == mask[:1]).all())  # then the air of the image was measured, see inverse.data.noise
    estimate = level / scale if lines else inverse.AtMost(level / scale)
    region = torch.ones_like(mask) if operator.support is None else operator.support
    return Scan(name, kind, y / scale, operator, estimate, None, region, held, white / scale)


def run(scan: Scan, prior: NetworkPrior, table: Table, options: argparse.Namespace) -> None:
    """Reconstruct one scan by all methods, write the figures and a picture."""
    shown: list[Shown] = []

    def add(method: str, image: Tensor, noise: float, extra: dict, *, draw_it: bool = True) -> None:
        image = image * scan.region
        figures = measure(scan, image, noise) | extra
        table.add(scan.name, method, figures)
        note = ", ".join(f"{metric} {value:.4g}" for metric, (value, _) in figures.items())
        print(f"{scan.name}, {method}: {note}", flush=True)
        if draw_it:
            first = [f"{value:.4g}" for value, _ in list(figures.values())[:2]]
            shown.append(Shown(method, image, ", ".join(first)))

    # the learned covariance first: where the noise is known from above only, its pilot runs settle it for all methods
    learned = inverse.solve(
        scan.y, scan.operator, prior, LEARNED[1], noise=scan.estimate, samples=options.samples,
        steps=LEARNED[2], scale=1.0, progress=False,
    )  # fmt: skip
    noise = float(learned.info["noise"])
    print(f"{scan.name}: noise estimated as {scan.estimate}, settled at {noise:.4g}; {learned}", flush=True)
    add("zero-filled", scan.operator.pinv(scan.y), noise, {})
    for method in METHODS:
        lamda = tuned_lambda(method, scan.kind, noise)
        add(method, METHODS[method](scan.y, scan.operator, lamda).image, noise, {"lambda": (lamda, "")})
        if not options.no_oracle:
            best, _ = best_lambda(method, [scan], lamda, score=lambda s, image: s.score(image))
            image = METHODS[method](scan.y, scan.operator, best).image
            add(f"{method}, best lambda", image, noise, {"lambda": (best, "")}, draw_it=False)
    dds = inverse.solve(
        scan.y, scan.operator, prior, DDS[1], noise=noise, samples=options.samples, steps=DDS[2], scale=1.0,
        progress=False,
    )  # fmt: skip
    for method, solution in ((DDS[0], dds), (LEARNED[0], learned)):
        extra = {
            "residual of one sample": (float(solution.residual.mean()), ""),
            "evaluations": (solution.stats.nfe, ""),
            "seconds": (solution.stats.seconds, "s"),
            "noise": (noise, "peak"),
        }
        curve = solution.info.get("innovation", [])
        extra |= {f"innovation at sigma {s:.3g}": (k, "") for s, k in curve[:: max(1, len(curve) // 8)]}
        add(method, solution.mean, noise, extra)
    name = scan.name.replace(", ", "-").replace(" ", "-").replace("=", "").replace("%", "percent").lower()
    print(draw(RESULTS / f"real-{name}.png", scan.reference, shown, origin="upper"))


def measure(scan: Scan, image: Tensor, noise: float) -> dict:
    """PSNR and SSIM against the full reconstruction, or the error of held-out samples; the residual over the noise."""
    misfit = (scan.operator(image) - scan.y) * scan.operator.weights
    figures = {}
    if scan.reference is not None:
        figures["PSNR"] = (psnr(image, scan.reference, scan.region), "dB")
        figures["SSIM"] = (ssim(image, scan.reference, scan.region), "")
    if scan.held is not None:
        relative = held_out_error(scan, image)
        size = float(torch.linalg.vector_norm(scan.truth[:, scan.held]))
        count = 2 * scan.held.sum().item() * len(scan.y)
        figures["held-out error"] = (relative, "relative")
        figures["held-out error over noise"] = (relative * size / (noise * count**0.5), "")
    figures["residual"] = (float(norm(misfit[None])) / (noise * scan.operator.measurements**0.5), "")
    return figures


def held_out_error(scan: Scan, image: Tensor) -> float:
    """||A' x - y'|| / ||y'|| over the held-out samples y'."""
    predicted = MultiCoilMRI(scan.operator.maps, scan.held)(image)
    truth = scan.truth * scan.held
    return float(norm((predicted - truth)[None]) / norm(truth[None]))


def report(table: Table) -> None:
    """Write the Markdown file."""
    sections = [
        pivot([row for row in table.rows if row.case == case], COLUMNS, heading=case)
        for case in dict.fromkeys(row.case for row in table.rows)
    ]
    text = (
        "Real scans, maps and noise from the undersampled data. Diffusion: mean of the samples. PSNR and SSIM of "
        "magnitudes against the full reconstruction on the support of its maps. The reference holds noise, and that of "
        "the samples themselves: images that fit it (residual below 1) are rewarded. "
        "Held out: 10 % of the samples of a scan that was undersampled at the scanner; over noise, 1 is the least."
    )
    if any("best lambda" in row.method for row in table.rows):
        text += " `best lambda`: chosen with the reference at hand, a bound on what tuning can do."
    table.write_markdown("Real scans", text, sections)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--masks", nargs="*", default=[])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--no-oracle", action="store_true")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
