"""Cost of a data step relative to a network evaluation, and of the sampler's own Python.

Usage: python experiments/timing.py --data FILE [--prior NAME] [--threads N ...] [--images N ...] [--repeats N]
    FILE  .h5 with a dataset `volume` (z, y, x): slice 75 gives the scan, 8 coils; colin27.h5 gives 224 x 184

A run of 8 evaluations is recorded; then at every level, interleaved, the network and the data step with the recorded
estimate in the place of the network are timed. Medians over the repeats, means over the levels. On a GPU where there is
one, else with the given numbers of threads. Results in results/timing.csv and .md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cases import MASKS, describe, make_case
from tables import Column, Table, pivot
from torch import Tensor

import inverse
from inverse.operators import Identity
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import METHODS, Problem

STEPS = 8
COLUMNS = (
    Column("network", "network evaluation, ms", 1),
    Column("data step", "data step, ms", 1),
    Column("ratio", "data step / network", 2),
    Column("CG iterations", "CG iterations a step", 1),
    Column("own Python", "own Python a step, ms", 2),
)


class Recorder(Denoiser):
    """A prior that remembers what it was asked and what it said."""

    def __init__(self, prior: Denoiser, *, moments: bool):
        self.prior, self.calls = prior, []
        for name in ("channels", "sigma_min", "sigma_max", "data_std", "peak", "calibration", "name"):
            setattr(self, name, getattr(prior, name))
        if moments and prior.moments is not None:
            self.moments = self._moments

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        out = self.prior.denoise(x, sigma)
        self.calls.append((x, float(sigma), out))
        return out

    def _moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        out = self.prior.moments(x, sigma)
        self.calls.append((x, float(sigma), out))
        return out


class Replay(Recorder):
    """A prior that gives a recorded answer at once."""

    answer: Tensor | tuple[Tensor, Tensor]

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.answer

    def _moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        return self.answer


class Trivial(Denoiser):
    """Nothing to compute: what is left of a step is the sampler's own."""

    channels, data_std, sigma_max = 2, 1.0, 20.0

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return x


def main() -> None:
    """Time both methods for every number of threads and images."""
    options = _options()
    prior = inverse.priors.load(options.prior, device="cuda" if torch.cuda.is_available() else "cpu")
    table = Table("timing", f"{describe(prior)}, 8 coils, {STEPS} evaluations", fresh=options.fresh)
    before = torch.get_num_threads()
    for threads in [before] if torch.cuda.is_available() else options.threads:
        torch.set_num_threads(threads)
        where = "GPU" if torch.cuda.is_available() else f"{threads} thread{'s' * (threads > 1)}"
        for mask in (MASKS[0], MASKS[2]):
            for images in options.images:
                name = f"{where}, {mask}, {images} image{'s' * (images > 1)}"
                for method in ("dds", "learned-covariance"):
                    if not table.has(name, method):
                        table.add(name, method, measure(options.data, mask, images, method, prior, options.repeats))
                        print(name, method, [(r.metric, r.value) for r in table.rows[-4:]], flush=True)
        for method in ("dds", "learned-covariance"):
            if not table.has(f"{where}, trivial prior and operator", method):
                table.add(f"{where}, trivial prior and operator", method, {"own Python": (own_python(method), "ms")})
    torch.set_num_threads(before)
    sections = [
        pivot([r for r in table.rows if r.case == case], COLUMNS, heading=case)
        for case in dict.fromkeys(r.case for r in table.rows)
    ]
    text = f"224 x 184 pixels, 8 coils, maps by ESPIRiT, mean over the levels of a run of {STEPS} evaluations."
    table.write_markdown("Cost of the data step", text, sections)


def measure(file: Path, mask: str, images: int, method: str, prior: Denoiser, repeats: int) -> dict:
    """Milliseconds of the network and of the data step, both for all images together."""
    case = make_case(file, 75, mask)
    device = prior.device
    operator, y = case.operator.to(device), case.y.to(device)
    recorder = Recorder(prior, moments=method == "learned-covariance")
    solution = inverse.solve(
        y, operator, recorder, method, noise=case.sigma_y, samples=images, steps=STEPS, batch=images, scale=1.0,
        progress=False,
    )  # fmt: skip
    conditioning = METHODS[method]().conditioning
    problem = Problem.build(operator, y[None], case.sigma_y).take([0] * images)
    replay = Replay(prior, moments=method == "learned-covariance")
    network, step = np.zeros((2, repeats, len(recorder.calls)))
    for repeat in range(repeats):
        for level, (x, sigma, answer) in enumerate(recorder.calls):
            replay.answer = answer
            random = SampleRandom(0, range(images), device)
            evaluate = prior.denoise if recorder.moments is None else prior.moments
            network[repeat, level] = _milliseconds(lambda: evaluate(x, sigma))  # noqa: B023 - called at once
            step[repeat, level] = _milliseconds(
                lambda: conditioning.estimate(problem, replay, x, sigma, random, sigma_next=0.0)  # noqa: B023
            )
    network_ms, step_ms = (float(np.median(t, axis=0).mean()) for t in (network, step))
    return {
        "network": (network_ms, "ms"),
        "data step": (step_ms, "ms"),
        "ratio": (step_ms / network_ms, ""),
        "CG iterations": (solution.stats.cg_iterations / STEPS, ""),
    }


def own_python(method: str, steps: int = 100, repeats: int = 5) -> float:
    """Milliseconds a step with a prior and an operator that do nothing, on 16 x 16 pixels."""
    operator = Identity((16, 16), dtype=torch.complex64)
    sampler = METHODS[method]().with_steps(steps)
    y = torch.view_as_complex(torch.randn(1, 16, 16, 2, generator=torch.Generator().manual_seed(0)))
    problem = Problem.build(operator, y, 0.1)
    runs = [_milliseconds(lambda: sampler.run(problem, Trivial(), samples=1, seed=0)) for _ in range(repeats)]
    return float(np.median(runs)) / steps


def _milliseconds(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument("--prior", default="brain-mr")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
