"""The report of exactness.py: what the figures mean, and a table for each problem."""

from __future__ import annotations

from collections.abc import Sequence

from tables import Column, Row, Table, pivot

GAUSSIAN = (
    Column("mean error", "mean error, sd", 2),
    Column("variance seen", "variance, seen", 2),
    Column("variance hidden", "variance, hidden", 2),
    Column("W2", "W2 / floor", 2),
    Column("coverage", "coverage of 90 %", 3),
    Column("evaluations", "forward", 0),
    Column("backward", "backward", 0),
    Column("CG iterations", "CG iterations", 0),
    Column("seconds", "s", 1),
    Column("samples", "samples", 0),
)
LINE = (
    Column("W1", "W1", 3),
    Column("mean", "mean", 3),
    Column("sd", "sd", 3),
    Column("weight left", "weight left of 0", 3),
    Column("coverage", "coverage of 90 %", 3),
    Column("evaluations", "forward", 0),
    Column("backward", "backward", 0),
    Column("samples", "samples", 0),
)
CROSSED = {"W2": "W2 / floor", "coverage": "coverage of 90 %"}

TEXT = """Denoisers are exact, so that what is left is the sampler's own error. Samples: 2000 images, 20000 on the
line, or fewer for what takes long, whose floor is higher and ratio to it smaller: W2 of n exact draws is
proportional to n^(-1/2).

- mean error: root mean square over the pixels of (mean of the samples - exact mean) / exact standard deviation;
- variance: of the samples over the exact one, in the seen and in the hidden directions (blur: upper and lower half of
  the singular vectors), 1 is right;
- W2 / floor: Wasserstein-2 distance of mean and covariance of the samples to the posterior's, over the median of the
  same for as many exact draws, 1 is right; W1: of the samples themselves, on the line;
- coverage: posterior mass between the 5th and 95th percentile of the samples, mean over the pixels, 0.900 is right.

A name is conditioning x integrator, what is known of the prior, number of evaluations. `exact`: the covariance by
formula; `calibrated`: measured on 20000 draws of the prior in modes learned from them; `calibrated waves`: in radial
bins of cosines, as the shipped priors; nothing said: variance per pixel and mean squared error. `as it ships`:
innovation, its tolerances, and a start at two standard deviations; `images`: the mean, not a draw, at the last step.

What it says:

- The bridge through draws with the right covariance is at the floor in 2 to 5 evaluations, without a gradient, also
  where the covariance was measured on draws; with Jacobian products (moment matching) as well, at some hundred
  backward passes. Radial waves fit images of 8 x 8 pixels less well. This is why `method="auto"` is the learned
  covariance with the bridge.
- Ancestral steps lack variance at few evaluations; deterministic ones gain with the order of the integrator.
- An isotropic covariance (DDS, DiffPIR, DAPS) leads to a limit that is not the posterior, at any number of
  evaluations.
- For images, not samples, the last step is a mean: right in the mean, too narrow in its spread.
"""


def report(table: Table) -> None:
    """Write the Markdown file, one table for each problem; with two axes for conditionings x integrators."""
    sections = []
    for case in dict.fromkeys(row.case for row in table.rows):
        rows = [row for row in table.rows if row.case == case]
        methods = dict.fromkeys(row.method for row in rows)
        if "exact draws" in methods:
            sections.append(pivot(rows, LINE if any(row.metric == "W1" for row in rows) else GAUSSIAN, heading=case))
        else:
            sections += [_crossed(rows, metric, f"{case}: {title}") for metric, title in CROSSED.items()]
    table.write_markdown("The certificate: samplers against exact posteriors", TEXT, sections)


def _crossed(rows: Sequence[Row], metric: str, heading: str) -> str:
    """Integrators as lines, conditionings as columns."""
    pairs = [(row.method.split(" x "), row) for row in rows if row.metric == metric]
    turned = [Row(row.case, integrator, conditioning, row.value, row.unit) for (conditioning, integrator), row in pairs]
    columns = [Column(name, name, 2) for name in dict.fromkeys(row.metric for row in turned)]
    return pivot(turned, columns, heading=heading).replace("| method |", "| integrator |", 1)
