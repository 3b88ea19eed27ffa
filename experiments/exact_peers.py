"""deepinv's samplers on the same Gaussian problems, at its defaults and at the best settings that were found for it.

Run where deepinv is installed; elsewhere there are none, and the rows that a table has stay. Its samplers get the exact
denoiser. Images are in its convention, 0.5 + 0.125 x in [0, 1], or "native": as they are, of unit variance.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from exact_problems import DOUBLE, SIZE, Problem, dense
from torch import Tensor

Cost = dict[str, tuple[float, str]]
Peer = Callable[[Problem, int], tuple[Tensor, Cost]]
SPREAD, MIDDLE = 0.125, 0.5  # of images in [0, 1]
PROBLEMS = ("Gaussian",)
"""Problems on which peers are run, by the beginning of the name."""


def samplers() -> dict[str, Peer]:
    """Samplers by name, none where deepinv is missing."""
    if importlib.util.find_spec("deepinv") is None:
        return {}
    deepinv = _deepinv()
    version = getattr(deepinv, "__version__", "")
    rows: dict[str, Peer] = {
        "DDRM, defaults": _ddrm(deepinv, unit=True),
        "DDRM, 100 levels 40 to 0.001, native": _ddrm(deepinv, unit=False),
        "DiffPIR, defaults": _diffpir(deepinv),
        "DiffPIR, lambda 2, zeta 1": _diffpir(deepinv, lambda_=2.0, zeta=1.0),
        "DPS, defaults": _dps(deepinv),
        "DPS, weight 100, native": _dps(deepinv, weight=100.0, minus_one_one=False),
        "PiGDM, DDPM 100": _posterior(deepinv, "PiGDM", 100),
        "PiGDM, DDPM 1000": _posterior(deepinv, "PiGDM", 1000),
        "moment matching, defaults (3 CG), DDPM 100": _posterior(deepinv, "MomentMatching", 100),
        "moment matching, 64 CG, DDPM 100": _posterior(deepinv, "MomentMatching", 100, cg_max_iter=64),
        "moment matching, 64 CG, DDIM 100": _posterior(deepinv, "MomentMatching", 100, cg_max_iter=64, ddim=True),
        "moment matching, 64 CG, DDPM 1000": _posterior(deepinv, "MomentMatching", 1000, cg_max_iter=64),
    }
    return {f"deepinv {version} {name}": run for name, run in rows.items()}


def _deepinv() -> ModuleType:
    # Beside a torch of another build torchvision lacks two operators that deepinv never calls.
    library = torch.library.Library("torchvision", "FRAGMENT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what deepinv imports warns about itself
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import deepinv
    return deepinv


class Counted(torch.nn.Module):
    """The exact denoiser as deepinv calls it: (samples, 1, H, W), sigma a number or one per sample.

    Args:
        problem: whose prior it is.
        unit: images in [0, 1].
    """

    def __init__(self, problem: Problem, *, unit: bool):
        super().__init__()
        self.prior, self.calls = problem.prior, 0
        self.spread, self.middle = (SPREAD, MIDDLE) if unit else (1.0, 0.0)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls += 1
        level = torch.as_tensor(sigma, dtype=DOUBLE).flatten() / self.spread
        image = (x[:, 0].double() - self.middle) / self.spread
        denoised = self.prior.denoise(image, level if level.numel() > 1 else float(level))
        return (self.middle + self.spread * denoised)[:, None].to(x.dtype)


def _physics(deepinv: ModuleType, problem: Problem, *, unit: bool) -> tuple[torch.nn.Module, Tensor]:
    """The operator with its noise, and the data (1, 1, H, W)."""
    spread, middle = (SPREAD, MIDDLE) if unit else (1.0, 0.0)
    noise = deepinv.physics.GaussianNoise(spread * problem.sigma_y)
    shape, weights = (1, SIZE, SIZE), problem.operator.weights
    ones = torch.full((1, SIZE, SIZE), middle, dtype=DOUBLE)
    y = problem.operator(ones) + spread * problem.y
    if weights is not None:
        physics = deepinv.physics.Inpainting(shape, mask=weights[None].double(), noise_model=noise)
    elif torch.equal(dense(problem.operator), torch.eye(SIZE**2, dtype=DOUBLE)):
        physics = deepinv.physics.Denoising(noise)
    else:
        filter_ = torch.full((1, 1, 3, 3), 1 / 9, dtype=DOUBLE)
        physics = deepinv.physics.BlurFFT(shape, filter=filter_, noise_model=noise)
    probe = torch.randn(1, SIZE, SIZE, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    error = (physics.A(probe[None]) - problem.operator(probe)).abs().max()
    if float(error) > 1e-6:
        raise RuntimeError(f"deepinv's operator is another one: data differ by {float(error):.2g}.")
    return physics, y[None]


def _run(
    deepinv: ModuleType, problem: Problem, samples: int, make: Callable[[Counted], torch.nn.Module], *, unit: bool
) -> tuple[Tensor, Cost]:
    """Samples (samples, H, W) in units of the problem, and what they cost."""
    physics, y = _physics(deepinv, problem, unit=unit)
    denoiser = Counted(problem, unit=unit)
    torch.manual_seed(0)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deepinv warns of its own deprecations
        x = make(denoiser)(y.expand(samples, -1, -1, -1).clone(), physics)
    x = x.detach()[:, 0].double()
    seconds = time.process_time() - started
    if unit:
        x = (x - MIDDLE) / SPREAD
    return x, {"evaluations": (denoiser.calls, ""), "seconds": (seconds, "s")}


def _ddrm(deepinv: ModuleType, *, unit: bool) -> Peer:
    def make(denoiser: Counted) -> torch.nn.Module:
        if unit:
            return deepinv.sampling.DDRM(denoiser)
        return deepinv.sampling.DDRM(denoiser, sigmas=torch.logspace(1.602, -3, 100, dtype=DOUBLE).tolist())

    return lambda problem, samples: _run(deepinv, problem, samples, make, unit=unit)


def _diffpir(deepinv: ModuleType, **choices: float) -> Peer:
    def make(denoiser: Counted) -> torch.nn.Module:
        return deepinv.sampling.DiffPIR(denoiser, deepinv.optim.data_fidelity.L2(), **choices)

    return lambda problem, samples: _run(deepinv, problem, samples, make, unit=True)


def _dps(deepinv: ModuleType, *, minus_one_one: bool = True, **choices: float) -> Peer:
    def make(denoiser: Counted) -> torch.nn.Module:
        sampler = deepinv.sampling.DPS(denoiser, minus_one_one=minus_one_one, **choices)
        if not minus_one_one:
            sampler.data_fidelity.clip = None
        return sampler

    return lambda problem, samples: _run(deepinv, problem, samples, make, unit=minus_one_one)


def _posterior(deepinv: ModuleType, name: str, steps: int, *, ddim: bool = False, **choices: int) -> Peer:
    def make(denoiser: Counted) -> torch.nn.Module:
        fidelity = getattr(deepinv.sampling, f"{name}DataFidelity")(denoiser=denoiser, **choices)
        solver = deepinv.sampling.DDIMSolver if ddim else deepinv.sampling.DDPMSolver
        levels = torch.linspace(1, 0, steps + 1, dtype=DOUBLE)
        return deepinv.sampling.PosteriorDiffusion(
            data_fidelity=fidelity,
            denoiser=denoiser,
            sde=deepinv.sampling.VariancePreservingDiffusion(alpha=0.0 if ddim else 1.0, dtype=DOUBLE),
            solver=solver(timesteps=levels),
            dtype=DOUBLE,
            minus_one_one=False,
        )

    return lambda problem, samples: _run(deepinv, problem, samples, make, unit=False)
