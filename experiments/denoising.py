"""Denoising error of a prior per noise level: held-out people, training people, and total variation beside them.

Usage: python experiments/denoising.py --data FOLDER [--prior NAME] [--fresh]
    FOLDER holds train/*.h5 and val/*.h5, each with a dataset `volume` (z, y, x)

Crops as in training, complex or real as the prior's images are, their noise the same for all. Lambda of the total
variation is tuned per noise level on crops of the training people. The difference between held-out and training people
is what the network has learned by heart. Results in results/denoising.csv and .md, of other priors than brain-mr in
results/denoising-NAME.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from baselines import total_variation
from cases import describe
from tables import Column, Table, pivot
from torch import Tensor

import inverse
from inverse.operators import Identity
from inverse.operators.noise import normal_like
from inverse.priors.files import NetworkPrior
from inverse.train.config import ImagesConfig
from inverse.train.images import CropSampler

SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SIDE, BATCH, CROPS = 96, 16, 48
TV_LARGEST = 0.3  # above, the total variation flattens all and says nothing
RATIOS = (0.35, 0.5, 0.7, 1.0, 1.4)  # lambda over sigma
METHODS = ("held-out people", "training people", "total variation, held-out people")


def main() -> None:
    """Measure one noise level after another; figures on disk are kept."""
    options = _options()
    prior = inverse.priors.load(options.prior)
    name = "denoising" if prior.name == "brain-mr" else f"denoising-{prior.name}"
    table = Table(name, f"{describe(prior)}, {CROPS} crops of {SIDE} x {SIDE}, seed 0", fresh=options.fresh)
    complex_ = prior.channels == 2
    held_out, training = (crops(options.data / part, complex_) for part in ("val", "train"))
    for sigma in SIGMAS:
        case = f"sigma {sigma:g}"
        for method, images in zip(METHODS, (held_out, training), strict=False):
            if not table.has(case, method):
                table.add(case, method, network_error(prior, images, sigma))
        if sigma <= TV_LARGEST and not table.has(case, METHODS[2]):
            table.add(case, METHODS[2], variation_error(held_out, training, sigma))
    report(table)


def crops(folder: Path, complex_: bool) -> Tensor:
    """Crops (CROPS, SIDE, SIDE) as in training, all files alike; real ones without gain and gamma."""
    vary = {} if complex_ else {"gain": 0.0, "gamma": 0.0}
    sampler = CropSampler(folder, ImagesConfig(crops=((SIDE, BATCH, 1.0),), **vary), seed=1, complex_=complex_)
    batches = torch.cat([sampler.batch(k) for k in range(CROPS // BATCH)])
    return torch.view_as_complex(batches.movedim(1, -1).contiguous()) if complex_ else batches[:, 0]


def noise_like(images: Tensor) -> Tensor:
    """The same noise at every call, variance 1 per real component."""
    return normal_like(images, torch.Generator().manual_seed(0))


def relative(error: Tensor, sigma: float) -> float:
    """Root mean square per real component over sigma."""
    return float((error.abs().square().mean() / (2 if error.is_complex() else 1)).sqrt()) / sigma


def network_error(prior: NetworkPrior, images: Tensor, sigma: float) -> dict:
    """Error of the mean, and the error that the variance head expects, both over sigma."""
    noisy = images + sigma * noise_like(images)
    parts = [prior.moments(batch, sigma) for batch in noisy.split(BATCH)]
    mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
    return {
        "error": (relative(mean - images, sigma), "sigma"),
        "expected": (float(variance.mean().sqrt()) / sigma, "sigma"),
    }


def variation_error(held_out: Tensor, training: Tensor, sigma: float) -> dict:
    """Error of the total variation over sigma, lambda tuned on a few training crops."""
    tuned = min(RATIOS, key=lambda ratio: _variation(training[:8], sigma, ratio))
    return {"error": (_variation(held_out[:16], sigma, tuned), "sigma"), "lambda": (tuned * sigma, "")}


def _variation(images: Tensor, sigma: float, ratio: float) -> float:
    noisy = images + sigma * noise_like(images)
    identity = Identity(images.shape[-2:], dtype=images.dtype)
    found = [total_variation(x, identity, ratio * sigma, rtol=1e-5, inner_iterations=10).image for x in noisy]
    return relative(torch.stack(found) - images, sigma)


def report(table: Table) -> None:
    """Write the Markdown file: one line a method, one column a noise level."""
    rows = [row._replace(metric=row.case) for row in table.rows if row.metric == "error"]
    expected = [
        row._replace(metric=row.case, method=f"{row.method}: as the variance head expects")
        for row in table.rows
        if row.metric == "expected"
    ]
    columns = [Column(f"sigma {sigma:g}", f"sigma {sigma:g}", 3, better=-1) for sigma in SIGMAS]
    text = "Root mean squared error over sigma, per real component; crops as in training."
    table.write_markdown("Denoising error", text, [pivot(rows, columns), pivot(expected, columns)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
