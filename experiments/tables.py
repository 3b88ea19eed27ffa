"""The one writer of measured figures: tidy rows in results/NAME.csv, and a Markdown table NAME.md made from them.

A CSV begins with `#` lines (command, commit, device, threads, versions, settings); then one figure a row. Rows are
written as they come, so that a run that was cut off goes on where it stopped; other settings need a fresh start.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sigpy
import torch

import inverse
from inverse.data import atomic_write

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = ("case", "method", "metric", "value", "unit")


class Row(NamedTuple):
    """One figure."""

    case: str
    method: str
    metric: str
    value: float
    unit: str


class Table:
    """Rows of one experiment, kept on disk.

    Args:
        name: the files are results/NAME.csv and results/NAME.md.
        settings: what the figures depend on; rows measured under others are refused. None: rows are only read.
        fresh: True drops the rows of earlier runs.
        folder: where the files go.

    Raises:
        SystemExit: rows on disk were measured under other settings.
    """

    def __init__(self, name: str, settings: str | None, *, fresh: bool = False, folder: Path = RESULTS):
        self.path = folder / f"{name}.csv"
        self.markdown = folder / f"{name}.md"
        self.rows: list[Row] = []
        self.header: list[str] = []
        self.settings = "" if settings is None else f"# settings: {settings}"
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not fresh:
            self._resume()
        if settings is not None:
            self.header += [line for line in [*facts(), self.settings] if line not in self.header]

    def _resume(self) -> None:
        lines = self.path.read_text().splitlines()
        self.header = [line for line in lines if line.startswith("#")]
        if self.settings and self.settings not in self.header:
            found = next((line for line in self.header if line.startswith("# settings:")), "# settings: none")
            raise SystemExit(f"{self.path}: measured under other settings; give --fresh.\n  {found}\n  {self.settings}")
        body = csv.DictReader(line for line in lines if not line.startswith("#"))
        self.rows = [Row(r["case"], r["method"], r["metric"], float(r["value"]), r["unit"]) for r in body]

    def has(self, case: str, method: str) -> bool:
        """Whether figures of this case and method are there."""
        return any(row.case == case and row.method == method for row in self.rows)

    def add(self, case: str, method: str, figures: Mapping[str, tuple[float, str]]) -> None:
        """Replace the figures of a case and method, {metric: (value, unit)}, and write the file."""
        self.rows = [row for row in self.rows if (row.case, row.method) != (case, method)]
        self.rows += [Row(case, method, metric, float(value), unit) for metric, (value, unit) in figures.items()]
        self.write()

    def write(self) -> None:
        """Write the CSV, whole or not at all."""
        text = io.StringIO()
        text.write("\n".join(self.header) + "\n")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([(*row[:3], f"{row.value:.6g}", row.unit) for row in self.rows])
        with atomic_write(self.path) as temporary:
            temporary.write_text(text.getvalue())

    def write_markdown(self, title: str, text: str, sections: Sequence[str]) -> None:
        """Write the Markdown file and print it.

        Args:
            title: heading.
            text: what was measured, and how.
            sections: tables as Markdown, see `pivot`.
        """
        notes = "\n".join(f"    {line.lstrip('# ')}" for line in self.header)
        whole = "\n\n".join([f"# {title}", text, *sections, "Measured with", notes]) + "\n"
        with atomic_write(self.markdown) as temporary:
            temporary.write_text(whole)
        print(whole)


class Column(NamedTuple):
    """A column of a Markdown table.

    Attributes:
        metric: which rows fill it.
        title: heading.
        digits: digits after the point.
        better: +1 the largest is bold, -1 the smallest, 0 none.
    """

    metric: str
    title: str
    digits: int = 2
    better: int = 0


def pivot(rows: Sequence[Row], columns: Sequence[Column], *, methods: Sequence[str] = (), heading: str = "") -> str:
    """A Markdown table: one line a method, one column a metric, means over the cases in `rows`, the best in bold."""
    present = list(dict.fromkeys(row.method for row in rows))
    order = [m for m in methods if m in present] + [m for m in present if m not in methods]
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cells.setdefault((row.method, row.metric), []).append(row.value)
    used = [c for c in columns if any((m, c.metric) in cells for m in order)]
    means = {c.metric: {m: float(np.mean(cells[m, c.metric])) for m in order if (m, c.metric) in cells} for c in used}
    lines = ["| method | " + " | ".join(c.title for c in used) + " |", "|---|" + "---:|" * len(used)]
    for method in order:
        entries = [_cell(means[c.metric], method, c) for c in used]
        lines.append(f"| {method} | " + " | ".join(entries) + " |")
    return (f"### {heading}\n\n" if heading else "") + "\n".join(lines)


def _cell(values: Mapping[str, float], method: str, column: Column) -> str:
    if method not in values:
        return ""
    shown = f"{values[method]:.{column.digits}f}"
    if column.better == 0:
        return shown
    best: Callable = max if column.better > 0 else min
    return f"**{shown}**" if shown == f"{best(values.values()):.{column.digits}f}" else shown


def facts() -> list[str]:
    """Command, commit, device, threads and versions as `#` lines."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    changed = " with changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = {"inverse": inverse.__version__, "torch": torch.__version__, "sigpy": sigpy.__version__}
    versions |= {"numpy": np.__version__, "python": platform.python_version()}
    return [
        f"# command: {_command()}",
        f"# commit: {commit}{changed}",
        f"# device: {device}",
        f"# threads: {torch.get_num_threads()}",
        "# versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]


def _command() -> str:
    """The command, absolute paths cut to their last two parts: where data lie is nobody's concern."""
    words = [os.path.join(*Path(word).parts[-2:]) if os.path.isabs(word) else word for word in sys.argv]
    return shlex.join(["python", *words])


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=RESULTS.parent, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
