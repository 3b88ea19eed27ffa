"""What the tests of samplers, priors and `solve` share: small problems, exact priors, and the rows they run over."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inverse.linalg import norm
from inverse.operators import Identity, LinearOperator, Mask, MultiCoilMRI
from inverse.priors import GaussianPrior, StationaryGaussianPrior
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers import (
    DDIM,
    DDS,
    GHVB,
    PNDM,
    TMPD,
    Anchored,
    Bridge,
    Conditioning,
    DiffPIR,
    DiffusionSampler,
    Estimate,
    EulerMaruyama,
    HeavyBall,
    Heun,
    LearnedCovariance,
    MomentMatching,
    PiGDM,
    Problem,
    RedDiff,
    Sampler,
    SingleStep,
    SplitGibbs,
    Twisted,
    deis,
    dpm_solver_2m,
    geometric,
    karras,
    sde_dpm_solver_2m,
    unipc,
)

EXACT = 1e-12  # double precision, sums of up to a few thousand terms


def randn(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return float(norm(a - b, 0) / norm(b, 0))


def dense(operator: LinearOperator) -> Tensor:
    """Matrix of an operator, columns the images of unit vectors."""
    n = math.prod(operator.in_shape)
    units = torch.eye(n, dtype=operator.in_dtype).reshape(n, *operator.in_shape)
    return operator(units).reshape(n, -1).mT


def coil_maps(coils: int, shape: tuple[int, int]) -> Tensor:
    """Smooth sensitivities with unit sum of squares."""
    y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape)
    angles = (2 * math.pi * torch.arange(coils) / coils).tolist()
    maps = [
        torch.exp(-((y[:, None] - math.sin(a)) ** 2 + (x - math.cos(a)) ** 2) / 2 + 1j * a * (1 + x)) for a in angles
    ]
    maps = torch.stack(maps)
    return maps / maps.abs().square().sum(0).sqrt()


def mri(shape: tuple[int, int] = (8, 6), coils: int = 3, every: int = 2) -> MultiCoilMRI:
    """Every second (or n-th) line and the one in the centre."""
    mask = torch.zeros(shape[1], dtype=torch.bool)
    mask[::every] = True
    mask[shape[1] // 2] = True
    return MultiCoilMRI(coil_maps(coils, shape), mask)


@dataclass(frozen=True)
class ExactErrors:
    """The error table of a stationary Gaussian without a table's interpolation."""

    power: Tensor
    rows: None = None  # waves, no learned modes
    columns: None = None

    def mse_at(self, sigma: float) -> float:
        return float(self._error(sigma).mean())

    def power_map(self, sigma: float, radius: Tensor) -> Tensor:
        return (self._error(sigma) / self.mse_at(sigma)).to(radius)

    def _error(self, sigma: float) -> Tensor:
        return self.power * sigma**2 / (self.power + sigma**2)


def stationary(
    shape: tuple[int, int], dtype: torch.dtype = torch.complex128, *, spectrum: bool = True
) -> StationaryGaussianPrior:
    """Smooth random images; states its exact spectrum unless told otherwise."""
    radius = StationaryGaussianPrior(shape, torch.ones(shape), dtype).transform.radius
    power = 0.05 + 2 * torch.exp(-((radius / 0.2) ** 2))
    prior = StationaryGaussianPrior(shape, power, dtype)
    if spectrum:
        prior.calibration = ExactErrors(power)
    return prior


class FixedPrior(Denoiser):
    """Returns the same D whatever x, with a stated mean squared error: one data step under the microscope."""

    def __init__(self, denoised: Tensor, variance: float):
        self.denoised, self.variance = denoised, variance
        self.channels = 2 if denoised.is_complex() else 1

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.denoised

    def mse(self, sigma: float) -> float:
        return self.variance


def data_step(
    conditioning: DDS, operator: LinearOperator, y: Tensor, denoised: Tensor, *, variance: float, sigma_y: float
) -> Tensor:
    """x_hat of one data step from D, batch first."""
    problem = Problem.build(operator, y, sigma_y)
    random = SampleRandom(0, range(len(y)))
    prior = FixedPrior(denoised, variance)
    return conditioning.estimate(problem, prior, denoised, 1.0, random, sigma_next=0.0).x0


def observe(operator: LinearOperator, x: Tensor, sigma_y: float, seed: int = 9) -> Tensor:
    """y = A x + sigma_y n where the operator measures."""
    noise = randn(len(x), *operator.out_shape, dtype=torch.complex128, seed=seed) * math.sqrt(2)
    noise = noise.to(operator.out_dtype) if operator.out_dtype.is_complex else noise.real.to(operator.out_dtype)
    weights = 1.0 if operator.weights is None else operator.weights
    return operator(x) + sigma_y * noise * weights


class Recorder(Conditioning):
    """A conditioning that keeps what it was given and passes it on."""

    draws = True

    def __init__(self, inner: Conditioning):
        self.inner, self.calls = inner, []

    def estimate(self, problem, prior, x, sigma, random, *, sigma_next, draw=False) -> Estimate:
        estimate = self.inner.estimate(problem, prior, x, sigma, random, sigma_next=sigma_next, draw=draw)
        self.calls.append((sigma, sigma_next == 0, x, estimate))
        return estimate


def bayes(matrix: Tensor, y: Tensor, denoised: Tensor, variance: float, sigma_y: float) -> Tensor:
    """(I/r^2 + A^H A/sigma_y^2)^-1 (D/r^2 + A^H y/sigma_y^2), one column per sample."""
    n = matrix.shape[1]
    left = torch.eye(n, dtype=matrix.dtype) / variance + matrix.mH @ matrix / sigma_y**2
    right = denoised.reshape(-1, n) / variance + y.reshape(len(y), -1) @ matrix.conj() / sigma_y**2
    return torch.linalg.solve(left, right.mT).mT.reshape(denoised.shape)


def scene(seed: int = 0, batch: int = 2) -> tuple[MultiCoilMRI, Tensor, Tensor]:
    """Operator, data and a D that does not fit them."""
    operator = mri()
    y = randn(batch, *operator.out_shape, seed=seed + 1) * operator.weights
    return operator, y, randn(batch, *operator.in_shape, seed=seed + 2)


def scalar_problem(copies: int) -> tuple[Problem, GaussianPrior]:
    """Prior N(0, 1), A = 1, sigma_y = 0.5, y = 1: posterior mean 0.8, variance 0.2."""
    prior = GaussianPrior(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    return Problem.build(Identity((1,), dtype=torch.float64), torch.ones(copies, 1, dtype=torch.float64), 0.5), prior


def exact_moments(integrator: DDIM, levels: Tensor) -> tuple[float, float]:
    """Mean and variance of a run from sigma_0 n: each step is affine, so three probes of it give the recursion."""
    problem, prior = scalar_problem(3)
    probes, noise = torch.tensor([[0.0], [1.0], [0.0]]).double(), torch.tensor([[0.0], [0.0], [1.0]]).double()
    random = SampleRandom(0, range(3))
    levels = levels.tolist()
    mean, variance = 0.0, levels[0] ** 2
    for sigma, sigma_next in itertools.pairwise(levels):
        estimate = DDS().estimate(problem, prior, probes, sigma, random, sigma_next=0.0)
        out = integrator.step(probes, estimate, sigma, sigma_next, lambda: noise)
        shift, slope, fresh = float(out[0]), float(out[1] - out[0]), float(out[2] - out[0])
        mean, variance = shift + slope * mean, slope**2 * variance + fresh**2
    return mean, variance


# One row per road through the library: name, sampler.
SAMPLERS: dict[str, Sampler] = {
    "dds ancestral": DiffusionSampler(DDS(), DDIM(1.0), 6),
    "dds deterministic": DiffusionSampler(DDS(), DDIM(0.0), 6),
    "dds from noise": DiffusionSampler(DDS(), DDIM(1.0), 6, start="noise"),
    "dds constant gamma": DiffusionSampler(DDS(gamma=5.0, iterations=5, rtol=0.0), DDIM(0.85, "dds"), 6),
    "dds published direction": DiffusionSampler(DDS(5.0), DDIM(0.85, "dds", "unconditioned"), 6),
    "dds on a geometric grid": DiffusionSampler(DDS(), grid=tuple(geometric(6, 20.0, 0.1).tolist())),
    "learned covariance": DiffusionSampler(LearnedCovariance(), Bridge(), 6),
    "learned covariance, no draws": DiffusionSampler(LearnedCovariance(innovation=False), DDIM(1.0), 6),
    "learned covariance, last drawn": DiffusionSampler(LearnedCovariance(), Bridge(draw_last=True), 6),
    "dds 2M": DiffusionSampler(DDS(), dpm_solver_2m(), 6),
    "dds unipc": DiffusionSampler(DDS(), unipc(3), 6),
    "dds deis": DiffusionSampler(DDS(), deis(3, "time"), 6),
    "dds pndm": DiffusionSampler(DDS(), PNDM(2), 6),
    "dds ghvb": DiffusionSampler(DDS(), GHVB(3), 6),
    "dds heavy ball": DiffusionSampler(DDS(), HeavyBall(), 6),
    "dds heun": DiffusionSampler(DDS(), Heun(churn=4.0), 7),
    "dds single-step": DiffusionSampler(DDS(), SingleStep(3), 6),
    "dds sde 2M": DiffusionSampler(DDS(), sde_dpm_solver_2m(), 6),
    "dds euler-maruyama": DiffusionSampler(DDS(), EulerMaruyama(), 16),
    "learned covariance, anchored": DiffusionSampler(LearnedCovariance(), Anchored(), 6),
    "learned covariance, anchored, one step": DiffusionSampler(LearnedCovariance(), Anchored(), 1),
    "diffpir": DiffusionSampler(DiffPIR(weight=1.0), DDIM(1.0, "dds"), 6),
    "pigdm": DiffusionSampler(PiGDM(), DDIM(1.0), 6),
    "tmpd": DiffusionSampler(TMPD(), DDIM(1.0), 6),
    "moment matching": DiffusionSampler(MomentMatching(), Bridge(), 6),
    "split gibbs": SplitGibbs(2, start=DiffusionSampler(LearnedCovariance(), Bridge(draw_last=True), 6)),
    "red-diff": RedDiff(6),
    "red-diff particles": RedDiff(6, particles=3, repulsion=1.0),
    "twisted": Twisted(24, particles=4),
    "learned covariance, one step": DiffusionSampler(LearnedCovariance(), Bridge(), steps=1),
}

# Name, operator, prior: complex and real, with and without spectrum.
PROBLEMS: dict[str, Callable[[], tuple[LinearOperator, Denoiser]]] = {
    "mri": lambda: (mri(), stationary((8, 6))),
    "mri odd": lambda: (mri((7, 9), every=3), stationary((7, 9))),
    "mri without spectrum": lambda: (mri(), stationary((8, 6), spectrum=False)),
    "mri single precision": lambda: (
        mri().to(torch.float32),
        single(stationary((8, 6), torch.complex64)),
    ),
    "inpainting": lambda: (
        Mask(torch.arange(48).reshape(8, 6) % 3 > 0, dtype=torch.float64),
        stationary((8, 6), torch.float64),
    ),
    "denoising": lambda: (Identity((8, 6), dtype=torch.float64), stationary((8, 6), torch.float64)),
}

# Name, grid of n evaluations that ends at 0.
GRIDS: dict[str, Callable[[int], Tensor]] = {
    "karras": lambda n: karras(n, 80.0, 0.002),
    "karras rho 3": lambda n: karras(n, 20.0, 0.01, rho=3.0),
    "geometric": lambda n: geometric(n, 80.0, 0.002),
}


def single(prior: StationaryGaussianPrior) -> StationaryGaussianPrior:
    """The prior in single precision."""
    prior.power = prior.power.float()
    prior.calibration = ExactErrors(prior.power)
    return prior
