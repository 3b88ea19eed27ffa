"""What a sampler costs beside its network: the loop alone, with a denoiser that is free, and deepinv's loops beside it.

Usage: python experiments/overhead.py [--threads N] [--repeats N] [--only TEXT ...] [--fresh] [--report]

256 x 256 pixels, one image. The denoiser is D(x) = 0.9 x, so that all time is the sampler's: conditioning, integrator,
noise, Python. Shares are of a forward pass of a network of 0.5 M parameters at that size, or of a forward and a
backward pass where the method needs a gradient. Every repeat visits every method once in random order; medians.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from contests import normal, package
from tables import Column, Table, pivot
from torch import Tensor

from inverse.data import equispaced
from inverse.operators import LinearOperator, Mask, MultiCoilMRI
from inverse.operators.ct import CT, ParallelBeam
from inverse.priors import Denoiser, DenoisingNetwork, from_function
from inverse.samplers import METHODS, Problem

SIZE, STEPS, SIGMA_Y = 256, 12, 0.05
FORWARD = ("learned-covariance", "dds", "diffpir", "ddnm", "ddrm", "red-diff")
GRADIENT = ("dps", "pigdm")
COLUMNS = (
    Column("loop", "loop a step, ms", 2),
    Column("network", "network a step, ms", 0),
    Column("share", "loop / network", 3),
)


def inpainting() -> tuple[LinearOperator, Callable | None]:
    """Half of the pixels."""
    mask = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < 0.5
    dinv = package("deepinv")
    return Mask(mask), dinv and (lambda: dinv.physics.Inpainting((1, SIZE, SIZE), mask=mask[None].float()))


def mri() -> tuple[LinearOperator, Callable | None]:
    """8 coils, every fourth line and 24 of the centre."""
    maps = normal(8, SIZE, SIZE, complex_=True)
    maps = maps / maps.abs().square().sum(0).sqrt()
    mask = equispaced(SIZE, 4, center_fraction=24 / SIZE)
    dinv = package("deepinv")
    return MultiCoilMRI(maps, mask), dinv and (
        lambda: dinv.physics.MultiCoilMRI(
            mask=mask.expand(SIZE, SIZE).float(), coil_maps=maps[None], img_size=(1, 2, SIZE, SIZE)
        )
    )


def ct() -> tuple[LinearOperator, Callable | None]:
    """60 parallel views."""
    angles = np.arange(60) * np.pi / 60
    operator = CT(ParallelBeam(angles, math.ceil(math.sqrt(2) * SIZE), 1.0), (SIZE, SIZE), 1.0)
    scaled = (1 / operator.norm()) * operator
    dinv = package("deepinv")
    return scaled, dinv and (
        lambda: dinv.physics.Tomography(torch.as_tensor(np.rad2deg(angles)), SIZE, circle=False, normalize=True)
    )


PROBLEMS = {"inpainting": inpainting, "8-coil MRI": mri, "60-view CT": ct}


def main() -> None:
    """Time every method on every problem."""
    options = _options()
    if options.report:
        return report(Table("overhead", None))
    torch.set_num_threads(options.threads)
    table = Table("overhead", f"{options.repeats} repeats, {STEPS} steps a run", fresh=options.fresh)
    for name, build in PROBLEMS.items():
        if options.only and not any(text in name for text in options.only):
            continue
        operator, physics = build()
        loops = {m: ours(m, operator) for m in FORWARD + GRADIENT if m != "ddrm" or operator.svd is not None}
        if physics:
            loops |= peers(physics(), operator)
        channels = 2 if operator.in_dtype.is_complex else 1
        networks = network(channels)
        times = interleaved({**loops, **networks}, options.repeats)
        for method, steps in ((m, STEPS) for m in loops):
            gradient = method in GRADIENT or "DPS" in method or "PiGDM" in method
            bare = times["forward"] + (times["backward"] if gradient else 0.0)
            loop = times[method] / steps
            table.add(name, method, {"loop": (loop, "ms"), "network": (bare, "ms"), "share": (loop / bare, "")})
            print(name, method, f"{loop:.2f} ms, {loop / bare:.3f} of the network", flush=True)
    report(table)


def ours(method: str, operator: LinearOperator) -> Callable[[], object]:
    """One run of a method of this library."""
    complex_ = operator.in_dtype.is_complex
    prior: Denoiser = from_function(lambda x, sigma: 0.9 * x, channels=2 if complex_ else 1, sigma_max=40.0)
    y = operator(normal(1, SIZE, SIZE, complex_=complex_))
    problem = Problem.build(operator, y, SIGMA_Y)
    sampler = METHODS[method](STEPS)
    return lambda: sampler.run(problem, prior, samples=1, seed=0)


def peers(physics: object, operator: LinearOperator) -> dict[str, Callable[[], object]]:
    """One run of deepinv's samplers with as many steps."""
    dinv = package("deepinv")

    class Free(dinv.models.Denoiser):
        def forward(self, x: Tensor, sigma: object, *arguments: object, **options: object) -> Tensor:
            return 0.9 * x

    free, image = Free(), normal(1, 2 if operator.in_dtype.is_complex else 1, SIZE, SIZE)
    y = physics(image)
    likelihood = dinv.optim.data_fidelity.L2()
    runs = {
        "deepinv DiffPIR": lambda: dinv.sampling.DiffPIR(free, likelihood, sigma=SIGMA_Y, max_iter=STEPS)(y, physics),
        "deepinv DPS": lambda: dinv.sampling.DPS(free, num_steps=STEPS)(y, physics),
    }
    if operator.svd is not None:
        runs["deepinv DDRM"] = lambda: dinv.sampling.DDRM(free, sigmas=np.geomspace(1, 0.01, STEPS))(y, physics)
    return {name: run for name, run in runs.items() if _works(name, run)}


def _works(name: str, run: Callable[[], object]) -> bool:
    try:
        run()
    except Exception as error:  # of another package: its row is left out, and said so
        print(f"{name}: left out ({error})")
        return False
    return True


def network(channels: int) -> dict[str, Callable[[], object]]:
    """A forward and a backward pass of a network of 0.5 M parameters."""
    net = DenoisingNetwork(channels, (24, 40, 64), (2, 2, 2), 1.0).channels_last()
    x, sigma = normal(1, channels, SIZE, SIZE), torch.ones(1)

    def backward() -> None:
        with torch.enable_grad():
            torch.autograd.grad(held[0].sum(), held[1], retain_graph=True)

    point = x.clone().requires_grad_()
    held = (net(point, sigma, variance=False)[0], point)
    return {"forward": torch.no_grad()(lambda: net(x, sigma, variance=False)), "backward": backward}


def interleaved(entries: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of every entry."""
    times: dict[str, list[float]] = {name: [] for name in entries}
    order, shuffle = list(entries), random.Random(0)
    for work in entries.values():
        work()
    for _ in range(repeats):
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            entries[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def report(table: Table) -> None:
    """Write the Markdown file."""
    sections = [
        pivot([row for row in table.rows if row.case == case], COLUMNS, heading=case)
        for case in dict.fromkeys(row.case for row in table.rows)
    ]
    text = (
        f"{SIZE} x {SIZE} pixels, one image, {STEPS} steps a run, the start included; the denoiser of the loops is "
        "free. `network`: a forward pass of a network of 0.5 M parameters in single precision, with the backward pass "
        f"for methods that need one. Noise {SIGMA_Y:g}; deepinv with its defaults."
    )
    table.write_markdown("Cost of a sampler beside its network", text, sections)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--report", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
