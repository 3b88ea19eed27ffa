"""Summaries for the terminal: one screen of plain text."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from inverse.acquisition import Acquisition
from inverse.data import acceleration
from inverse.metrics import coverage
from inverse.priors.files import NetworkPrior
from inverse.reconstruct import Reconstruction, quality

WIDTH = 100
LABEL = 12


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns of text: the first left-aligned, the others right-aligned, a rule under the header."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        "  ".join(
            cell.rjust(w) if column else cell.ljust(w)
            for column, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """One line per (label, text), labels in a column, long texts wrapped; empty texts left out."""
    indent = " " * LABEL
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent=label.ljust(LABEL), subsequent_indent=indent, break_long_words=False)
        for label, text in pairs
        if text
    )


def describe(data: Acquisition, prior: NetworkPrior, device: torch.device) -> str:
    """What is about to be reconstructed, and from what."""
    scan = data.scan
    coils, y, x = data.kspace.shape[1:]
    chosen = f"{len(scan.slices)} slices" if len(scan.slices) > 1 else f"slice {scan.slices[0] + 1}"
    chosen += f" of {scan.total_slices}" if scan.total_slices > len(scan.slices) else ""
    factor = acceleration(data.mask)
    sampled = f"{factor:.1f}-fold undersampled" if factor > 1.005 else "fully sampled"
    sampled += "" if scan.mask_from_file else " (mask found from the zeros of k-space)"
    full = scan.kspace.shape[-2]
    readout = f", readout cropped from {full}" if full != y else ""
    noise = f"{data.noise:.3g} per real component of k-space, {'estimated' if data.noise_estimated else 'as given'}"
    where = f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    parameters = sum(p.numel() for p in prior.network.parameters())
    tables = "" if prior.calibration else "; its errors were not measured, see `inverse calibrate`"
    return facts(
        [
            ("Scan", scan.path.name if scan.path else ""),
            ("", f"{chosen}, {y} x {x}{readout}, {_count(coils, 'coil')}, {sampled}"),
            ("Noise", noise),
            ("Prior", f"{prior.name}, {parameters / 1e6:.1f} M parameters{tables}"),
            ("Device", where),
        ]
    )


def results(data: Acquisition, found: Sequence[Reconstruction]) -> str:
    """Table of methods: quality where the file has a reference, residual, cost."""
    reference = data.reference
    scored = reference is not None
    header = ["Method", *(["PSNR dB", "SSIM"] if scored else []), "residual", "evaluations", "seconds"]
    images = [("zero-filled", data.zero_filled), ("CG-SENSE", data.classical)]
    rows = [[name, *_scores(image, reference), "", "", ""] for name, image in images] if scored else []
    for result in found:
        cost = [f"{result.residual:.2f}", f"{result.nfe} x {len(result.samples)}", f"{result.seconds:.1f}"]
        rows.append([f"{result.method}{_mean_of(result)}", *_scores(result.mean, reference), *cost])
    return table(header, rows)


def remarks(data: Acquisition, result: Reconstruction) -> str:
    """What the numbers mean for this scan: coverage of the error bar, warnings of the solver."""
    lines = []
    if data.reference is not None and len(result.samples) > 1:
        region = data.reference > 0.05 * data.reference.max()
        share = coverage(result.samples.abs(), data.reference, 0.9, region)
        lines.append(("Error bar", f"90 % intervals hold the reference at {100 * share:.0f} % of the object's pixels"))
    lines += [("Note", note) for note in result.info.get("notes", [])]
    return facts(lines)


def files(paths: Sequence[Path]) -> str:
    """The files that were written, one a line."""
    return facts([("Written" if place == 0 else "", os.fspath(path)) for place, path in enumerate(paths)])


def caption(data: Acquisition, images: torch.Tensor, index: int) -> str:
    """PSNR and SSIM of one slice as a line for a figure; empty without a reference."""
    if data.reference is None:
        return ""
    decibel, similarity = quality(images[index : index + 1], data.reference[index : index + 1])
    return "" if math.isnan(decibel) else f"{decibel:.1f} dB   SSIM {similarity:.3f}"


def _scores(images: torch.Tensor, reference: torch.Tensor | None) -> list[str]:
    if reference is None:
        return []
    decibel, similarity = quality(images, reference)
    return [f"{decibel:.2f}", f"{similarity:.3f}"]


def _mean_of(result: Reconstruction) -> str:
    return f", mean of {len(result.samples)}" if len(result.samples) > 1 else ", one sample"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
