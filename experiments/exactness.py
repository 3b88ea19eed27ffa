"""The certificate: every sampler against posteriors that are known exactly.

Usage: python experiments/exactness.py [--only TEXT] [--methods TEXT] [--again] [--fresh]

Gaussian images of 8 x 8 pixels (`exact_problems`) and mixtures on the line (`exact_line`); mixtures in up to 800
dimensions have a command of their own (`mixture25`). Rows of results/exactness.csv are written as they come, and a run
that was cut off goes on. deepinv's samplers are run where deepinv is installed (`exact_peers`); their rows stay when it
is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import lru_cache

import exact_peers
import torch
from exact_figures import Figures, distances_of_exact_draws, figures, measure
from exact_line import LINES, Line
from exact_problems import BINS, PROBLEMS, TRAINING, Problem
from exact_samplers import CONDITIONINGS, INTEGRATORS, OFFERS, PLAIN, Offer, on, told
from exact_text import report
from tables import Table
from torch import Tensor

import inverse

SAMPLES, ON_A_LINE, REPEATS = 2000, 20_000, 51
CROSS, CROSSED, AT = "Gaussian inpainting", "conditionings x integrators", 20
"""Every conditioning with every integrator, on one problem, with so many evaluations."""


def main() -> None:
    """Measure every sampler on every problem; figures on disk are kept."""
    options = _options()
    settings = (
        f"{SAMPLES} samples of images, {ON_A_LINE} on the line, seed 0; {TRAINING} draws for covariances, waves in "
        f"{BINS} bins; float64"
    )
    table = Table("exactness", settings, fresh=options.fresh)
    cases = {**PROBLEMS, **LINES, CROSSED: PROBLEMS[CROSS]}
    for case, make in cases.items():
        if options.only.lower() not in case.lower():
            continue
        problem = lru_cache(make)
        if case != CROSSED and not options.again:
            _check_data(table, case, problem)
        runs = crossed(problem) if case == CROSSED else methods(problem, case)
        for method, run in runs:
            if options.methods.lower() not in method.lower() or (table.has(case, method) and not options.again):
                continue
            try:
                values = run()
            except inverse.InputError:
                continue  # not for this problem
            table.add(case, method, values)
            note = ", ".join(f"{metric} {float(value):.4g}" for metric, (value, _) in values.items())
            print(f"{case}, {method}: {note}", flush=True)
    report(table)


def _check_data(table: Table, case: str, problem: Callable[[], Problem | Line]) -> None:
    """Refuse to go on with rows of other data: truths are drawn in eigenvectors, which are those of one machine.

    Raises:
        SystemExit: the norm of y is another one.
    """
    known = [row.value for row in table.rows if row.case == case and row.metric == "data"]
    if known and abs(float(problem().y.norm()) / known[0] - 1) > 1e-5:  # six digits are kept
        raise SystemExit(f"{table.path}: {case}: rows of other data; give --again to measure all of them.")


def methods(problem: Callable[[], Problem | Line], case: str) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """What to run on a problem, (method, figures), the problem being made when the first is run."""
    yield "exact draws", lambda: _drawn(problem(), exact=True)
    yield "prior draws", lambda: _drawn(problem(), exact=False)
    for name, offer in OFFERS.items():
        for knows in offer.knows:
            for steps in offer.steps:
                method = name + (f", {knows}" if knows != PLAIN else "") + (f", {steps}" if steps else "")
                yield method, lambda offer=offer, knows=knows, steps=steps: certified(problem(), offer, knows, steps)
    if case.startswith(exact_peers.PROBLEMS):
        for name, run in exact_peers.samplers().items():
            yield name, lambda run=run: _compared(problem(), run)


def crossed(problem: Callable[[], Problem]) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Every conditioning with every integrator."""
    for conditioning, (rule, knows) in CONDITIONINGS.items():
        for integrator, how in INTEGRATORS.items():
            method = f"{conditioning} x {integrator}"
            yield (
                method,
                lambda rule=rule, how=how, knows=knows: certified(problem(), Offer(on(rule, how)), knows, AT),
            )


def certified(problem: Problem | Line, offer: Offer, knows: str, steps: int) -> Figures:
    """Figures of one sampler.

    Raises:
        InputError: it cannot solve this problem, or does not combine, or this is not known of the prior.
    """
    prior = told(problem, knows)
    if prior is None:
        raise inverse.InputError(f"the prior is not known by {knows!r}.")
    samples = int(offer.share * _count(problem))
    return measure(problem, offer.make(steps), prior, float(floor(problem, samples).median()), samples=samples)


@lru_cache(maxsize=4)
def floor(problem: Problem | Line, samples: int) -> Tensor:
    """Distances of as many exact draws."""
    return distances_of_exact_draws(problem, samples, REPEATS)


def _count(problem: Problem | Line) -> int:
    return ON_A_LINE if isinstance(problem, Line) else SAMPLES


def _drawn(problem: Problem | Line, *, exact: bool) -> Figures:
    count = _count(problem)
    distances = floor(problem, count)
    source = (problem if isinstance(problem, Line) else problem.posterior) if exact else problem.prior
    found = figures(source.sample(count, torch.Generator().manual_seed(2)), problem, float(distances.median()))
    if exact:
        found |= {"floor": (distances.median(), ""), "largest exact": (distances.max() / distances.median(), "")}
        found |= {"data": (problem.y.norm(), "")}
    return found


def _compared(problem: Problem, run: Callable) -> Figures:
    samples, cost = run(problem, SAMPLES)
    return figures(samples, problem, float(floor(problem, SAMPLES).median())) | cost


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="forget the figures on disk")
    parser.add_argument("--again", action="store_true", help="measure what is selected even if it is there")
    parser.add_argument("--only", default="", metavar="TEXT", help="problems whose name contains this")
    parser.add_argument("--methods", default="", metavar="TEXT", help="samplers whose name contains this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
