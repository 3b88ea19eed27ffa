"""Summaries for the terminal: one screen of plain text."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from inverse.measurement import Measurement
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


def describe(data: Measurement, prior: NetworkPrior, device: torch.device) -> str:
    """What is about to be reconstructed, and from what."""
    where = f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    parameters = sum(p.numel() for p in prior.network.parameters())
    tables = "" if prior.calibration else "; its errors were not measured, see `inverse calibrate`"
    return facts(
        [
            *data.facts(),
            ("Prior", f"{prior.name}, {parameters / 1e6:.1f} M parameters{tables}"),
            ("Device", where),
        ]
    )


def results(data: Measurement, found: Sequence[Reconstruction]) -> str:
    """Table of methods: quality where the file has a reference, residual, cost."""
    reference = data.reference
    scored = reference is not None
    header = ["Method", *(["PSNR dB", "SSIM"] if scored else []), "residual", "evaluations", "seconds"]
    images = data.quick_images if scored else []
    rows = [[name, *_scores(image, reference), "", "", ""] for name, image in images]
    for result in found:
        cost = [f"{result.residual:.2f}", f"{result.nfe} x {len(result.samples)}", f"{result.seconds:.1f}"]
        rows.append([f"{result.method}{_mean_of(result)}", *_scores(result.mean, reference), *cost])
    return table(header, rows)


def remarks(data: Measurement, result: Reconstruction) -> str:
    """What the numbers mean for this scan: coverage of the error bar, warnings of the solver."""
    lines = []
    if data.reference is not None and len(result.samples) > 1:
        region = data.reference > 0.05 * data.reference.max()
        share = coverage(result.real_samples, data.reference, 0.9, region)
        lines.append(("Error bar", f"90 % intervals hold the reference at {100 * share:.0f} % of the object's pixels"))
    lines += [("Note", note) for note in result.info.get("notes", [])]
    return facts(lines)


def files(paths: Sequence[Path]) -> str:
    """The files that were written, one a line."""
    return facts([("Written" if place == 0 else "", os.fspath(path)) for place, path in enumerate(paths)])


def caption(data: Measurement, images: torch.Tensor, index: int) -> str:
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
