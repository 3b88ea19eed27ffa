"""PnP-DM: split Gibbs with a coupling rho that falls from sweep to sweep.

    pi_rho(x, z) ~ p(x) N(z; x, rho^2 I) N(y; A(z), sigma_y^2 I),   rho_k = max(rho_0 d^k, rho_min)

    z | x, y   linear A: one perturbed solve by conjugate gradients; others: Langevin steps
    x | z      the reverse diffusion from level rho, started at z

(Wu, Sun, Chen, Zhang, Yue and Bouman, Principled probabilistic imaging using diffusion models as plug-and-play priors,
NeurIPS 2024, algorithm 1; constants of their public code.) For a fixed rho its limit is p(x) N(y; A x, sigma_y^2 I +
rho^2 A A^H): too wide by rho, and right only for rho_min well below sigma_y, where it mixes slowly; `SplitGibbs` has no
such error. Falling rho freezes the weights of separate modes at the rho where jumps cease. Langevin steps do not cross
from one solution of a nonlinear problem to another; the sign of x, given |x|, then has the prior's odds squared.

Certificate (experiments/exactness.py), published constants, 3573 evaluations: Gaussian inpainting: mean off by 2.1
posterior standard deviations, W2 21 x floor, coverage 1.00, since rho 0.3 stands against noise of 0.05; with rho to
0.03 0.13, 1.9 x, .93. Bimodal on a line: W1 0.10; prior draws 0.34. Sign of x given |x|: weight .20 instead of .40.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from torch import Tensor

from inverse.errors import InputError, check_positive
from inverse.operators.base import Operator
from inverse.priors.base import Denoiser
from inverse.random import SampleRandom
from inverse.samplers.conditionings.unconditional import Unconditional
from inverse.samplers.covariance import Isotropic, draw
from inverse.samplers.grids import karras
from inverse.samplers.integrators.base import Integrator
from inverse.samplers.integrators.euler_maruyama import EulerMaruyama
from inverse.samplers.langevin import Langevin
from inverse.samplers.prior_step import PriorStep, ReverseRun, reverse
from inverse.samplers.problem import Problem
from inverse.samplers.sampler import Sampler, Trace

FEW = 10
"""Evaluations of one prior step where `with_steps` asks for a number of evaluations in all."""


@dataclass(frozen=True)
class EnteredGrid(PriorStep):
    """A reverse run on one grid for all levels, entered at its first level below sigma, as published.

    z is taken for an image at that level though it has a little more noise.

    Args:
        levels: levels of the Karras grid of which the run is a part, before 0.
        largest: its first level.
        smallest: its last level before 0.
        integrator: how x is carried to the next level.

    Raises:
        InputError: fewer than one level, or levels out of order.
    """

    levels: int = 100
    largest: float = 80.0
    smallest: float = 0.002
    integrator: Integrator = field(default_factory=EulerMaruyama)

    def __post_init__(self) -> None:
        karras(self.levels, self.largest, self.smallest)

    def below(self, sigma: float) -> tuple[float, ...]:
        """The levels of the grid below sigma, the last is 0."""
        return tuple(level for level in _grid(self.levels, self.largest, self.smallest) if level < sigma)

    def evaluations(self, sigma: float) -> int:
        """Network evaluations of one draw from level sigma."""
        return self.integrator.evaluations(self.below(sigma))

    def draw(
        self, problem: Problem, prior: Denoiser, z: Tensor, sigma: float, random: SampleRandom, trace: Trace
    ) -> Tensor:
        """x0 at the end of the run; z itself where sigma is below all levels of the grid."""
        levels = self.below(sigma)
        if len(levels) == 1:
            return z
        return reverse(problem, prior, z, levels, Unconditional(), self.integrator, random, trace)


@lru_cache(maxsize=8)
def _grid(levels: int, largest: float, smallest: float) -> tuple[float, ...]:
    return tuple(karras(levels, largest, smallest).tolist())


@dataclass(frozen=True)
class PnPDM(Sampler):
    """PnP-DM; the defaults are those published for linear problems on images in [-1, 1] with noise 0.05.

    Each sample is the last state of a chain of its own; the authors keep 20 states of one chain, which are correlated.

    Args:
        sweeps: likelihood and prior steps.
        rho: rho_0, in units of the image.
        decay: d.
        smallest: rho_min; published: 0.3 for linear problems, 0.1 for phase retrieval.
        prior_step: how x0 is drawn given z; published: the stochastic reverse diffusion on a part of 100 levels.
        langevin: the likelihood step of nonlinear operators.
        iterations: cap on the iterations of conjugate gradients, for linear ones.
        rtol: relative residual at which they stop; a truncated solve draws too little variance.

    Raises:
        InputError: numbers out of range, or a prior that does not know level rho_0.
    """

    sweeps: int = 100
    rho: float = 10.0
    decay: float = 0.9
    smallest: float = 0.3
    prior_step: PriorStep = field(default_factory=EnteredGrid)
    langevin: Langevin = field(default_factory=lambda: Langevin(rate=1e-4))
    iterations: int = 100
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("smallest", self.smallest)
        if self.sweeps < 1 or self.rho < self.smallest or not 0 < self.decay <= 1:
            raise InputError(
                f"PnPDM: expected sweeps of at least 1, rho at or above smallest and decay in (0, 1], got "
                f"{self.sweeps}, {self.rho}, {self.smallest} and {self.decay}."
            )

    def with_steps(self, steps: int) -> PnPDM:
        """At most so many evaluations: sweeps of about 10 each, through the same range of rho."""
        sweeps = max(1, steps // FEW)
        step = ReverseRun(steps // sweeps, integrator=EulerMaruyama())
        return replace(self, sweeps=sweeps, decay=self.decay ** (self.sweeps / sweeps), prior_step=step)

    def evaluations(self) -> int:
        """Network evaluations per sample."""
        return sum(self.prior_step.evaluations(rho) for rho in self.couplings())

    def levels(self, prior: Denoiser) -> tuple[float, ...]:
        """The values of rho, at which the prior steps begin, and 0, at which they end."""
        return (*self.couplings(), 0.0)

    def couplings(self) -> Iterator[float]:
        """rho_k of every sweep."""
        return (max(self.rho * self.decay**k, self.smallest) for k in range(self.sweeps))

    def check(self, operator: Operator, prior: Denoiser) -> None:
        """Refuse a prior that does not know the first level; the operator may be nonlinear.

        Raises:
            InputError: rho_0 above the largest level of the prior.
        """
        if self.rho > prior.sigma_max:
            raise InputError(
                f"PnPDM: begins at rho = {self.rho:g}, but the prior knows levels up to {prior.sigma_max:g}; "
                "give a smaller rho."
            )

    def sample(self, problem: Problem, prior: Denoiser, random: SampleRandom, trace: Trace) -> Tensor:
        """The ends of the chains, one for every item of the problem."""
        like = problem.adjoint_y
        x = problem.restrict(random.normal(like.shape[1:], dtype=like.dtype))
        for rho in self.couplings():
            if problem.operator.linear:
                z = draw(problem, x, Isotropic(rho), random, iterations=self.iterations, rtol=self.rtol)
            else:
                z = self.langevin.draw(problem, x, rho, random)
            x = self.prior_step.draw(problem, prior, z, rho, random, trace)
        return x
