"""Time of every operator beside other packages, where they are installed.

Usage: python experiments/operators.py [--threads 1 2] [--repeats N] [--only TEXT ...] [--fresh] [--report]

Every repeat visits every package once in random order; medians, and ratios of medians to ours. Peak memory is what one
call adds to the process (Linux). Packages that do not import are left out: deepinv, sigpy, mrpro, scikit-image, ASTRA,
finufft. Results in results/operators.csv and .md.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from contests import CONTESTS, OURS
from memory import peak, reset_peak
from tables import Column, Row, Table, pivot

REPEATS = 15
COLUMNS = (
    Column("time", "median, ms", 2),
    Column("ratio", "over ours", 2),
    Column("memory", "added by a call, MiB", 0),
)


def main() -> None:
    """Run the contests that are not in the table yet."""
    options = _options()
    if options.report:
        return report(Table("operators", None))
    table = Table("operators", f"{options.repeats} repeats", fresh=options.fresh)
    before = torch.get_num_threads()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, contest in CONTESTS.items():
            case = f"{name}, {threads} thread{'s' * (threads > 1)}"
            if (options.only and not any(text in name for text in options.only)) or table.has(case, OURS):
                continue
            for method, figures in measure(contest(threads), options.repeats).items():
                table.add(case, method, figures)
                print(case, method, {metric: round(value, 2) for metric, (value, _) in figures.items()}, flush=True)
    torch.set_num_threads(before)
    report(table)


def measure(entries: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict]:
    """Median time, ratio to ours and added memory of every entry; interleaved."""
    memory = {name: added_memory(work) for name, work in entries.items()}  # the first call also warms up
    times: dict[str, list[float]] = {name: [] for name in entries}
    order, shuffle = list(entries), random.Random(0)
    for _ in range(repeats):
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            entries[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ours = medians.get(OURS, float("nan"))
    return {
        name: {"time": (median, "ms"), "ratio": (median / ours, ""), "memory": (memory[name], "MiB")}
        for name, median in medians.items()
    }


def added_memory(work: Callable[[], object]) -> float:
    """MiB by which the largest resident size grows in one call, after a first one; nan where unknown."""
    work()
    before = reset_peak()
    work()
    return peak() - before


def report(table: Table) -> None:
    """Write the Markdown file, one table a contest."""
    cases = list(dict.fromkeys(row.case for row in table.rows))
    sections = [pivot(_of(table.rows, case), COLUMNS, heading=case) for case in cases]
    text = (
        "Single precision. Ours first; bare FFTs are the transforms alone, with no maps and no mask. Packages "
        "differ in what they compute exactly: see the docstring of each contest in contests.py."
    )
    table.write_markdown("Operators beside other packages", text, sections)


def _of(rows: list[Row], case: str) -> list[Row]:
    return [row for row in rows if row.case == case]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
