"""Exponential Adams methods: the linear multistep formula of which most fast solvers are points.

    x' = kept x + sum_j w_j F_j,   F = D_y ("data") or eps = (x - D_y)/sigma ("eps"), at this level and the last ones

| method | prediction | variable | order | |
|---|---|---|---|---|
| DDIM(eta=0), DPM-Solver(++) 1 | any | any | 1 | the same formula |
| DPM-Solver++ 2M, 3M | data | lambda | 2, 3 | published: other weights |
| DPM-Solver, multistep | eps | lambda | 2, 3 | published: other weights |
| DEIS rho-AB, t-AB | eps | sigma, time | 2 to 4 | |
| iPNDM, PLMS | eps | sigma | 4 | published: the weights of even steps |
| UniPC-p | data or eps | lambda | p | with corrector |

Weights are exact on any grid (`inverse.samplers.integrators.weights`). The function B(h) of UniPC cancels out of them.
Published codes differ from the exact weights in three places; `published=True` reproduces them:

- two values: the slope has the weight of a trapezium, psi_0/2 in the place of psi_1/h; still second order;
- three values, DPM-Solver(++) 3M: half the weight on the second derivative: second order, slope 2.03 where the exact
  weight has 3.08 (`tests/test_integrator_order.py`);
- PLMS takes the weights of an even grid in sigma on every grid: second order (slope 2.00), 4.1 on an even one.

Order ranks methods at many steps; at few, damping counts, and either set of weights may be the better one. An estimate
that falls steeply with x (D_y = a x, a < 0) is stable for short steps only, the shorter the higher the order; those of
Gaussians (a in [0, 1]) up to order 3 for any sigma / sigma' up to 200.

Certificate (experiments/exactness.py): Gaussian inpainting, exact D_y, levels even in log-SNR from 25 to 0.01, then 0;
W2 / floor at 5, 10 and 20 evaluations: DDIM(eta=0) 6.7, 3.6, 2.1; 2M 1.6, 1.3, 1.0 (coverage .86, .91, .90), published
2.6, 1.1, 1.0; 3M 4.0, 1.4, 1.0, published 2.9, 1.3, 1.0; UniPC-2 1.5, 1.3, 1.0; UniPC-3 3.2, 1.5, 1.0; rho-AB 3 (DEIS)
6.2, 2.3, 1.2; iPNDM 1.4, 1.1, 1.0. On the default grid 2M has 8.0 at 5 and 2.3 at 20, DDIM 8.7 and 3.3: its last level,
0.8 / N, exceeds the posterior's deviations, and the last step removes what is finer. A conditioning that is not exact
wants noise: DDS, 20 evaluations, 2M 52, DDIM(eta=1) 31.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from inverse.errors import InputError
from inverse.samplers.integrators import weights
from inverse.samplers.integrators.base import Integrator, Path

Node = tuple[float, Tensor]  # a level, and the value D_y or eps there


@dataclass(frozen=True)
class Adams(Integrator):
    """Exponential Adams-Bashforth, with `corrector` Adams-Moulton: one evaluation a step, deterministic.

    It starts with order 1, 2, ... as values become known, and the step to level 0 returns the estimate itself.

    Args:
        prediction: what is interpolated, "data" or "eps".
        variable: in what it is a polynomial: "lambda" = -log sigma, "sigma", or "time" of a network trained on the
            linear schedule.
        order: number of values, 1 to 4.
        corrector: correct x, once its estimate is known, by the formula through that estimate as well, which raises
            the order by one; the estimate is kept, so that no evaluation is added (UniPC).
        published: the weights of the published codes where they differ from the exact ones.
        bh1: UniPC's B(h) = h in the published weights, instead of e^h - 1.
        lower_order_final: order at most the number of steps left, as in the published codes for few steps.

    Raises:
        InputError: an unknown name, an order outside 1 to 4, or published weights for what was not published.
    """

    prediction: str = "data"
    variable: str = "lambda"
    order: int = 2
    corrector: bool = False
    published: bool = False
    bh1: bool = False
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if self.prediction not in ("data", "eps") or self.variable not in weights.VARIABLES:
            raise InputError(
                "Adams: prediction is 'data' or 'eps', variable 'lambda', 'sigma' or 'time'; "
                f"got {self.prediction!r}, {self.variable!r}."
            )
        if not 1 <= self.order <= 4:
            raise InputError(f"Adams: order must lie between 1 and 4, got {self.order}.")
        if self.published and not (self._plms or (self.variable == "lambda" and self.order <= 3)):
            raise InputError(
                f"Adams: no published weights for {self.prediction!r} in {self.variable!r} of order {self.order}"
                f"{' with corrector' if self.corrector else ''}; use published=False."
            )
        if self.bh1 and not (self.published and self.corrector):
            raise InputError("Adams: bh1 is a choice of UniPC's published weights; give corrector and published, too.")

    @property
    def _plms(self) -> bool:
        return self.prediction == "eps" and self.variable == "sigma" and not self.corrector

    def walk(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """x at every level after the first."""
        return self._walk(path, x, ())

    def _walk(self, path: Path, x: Tensor, known: Sequence[Node]) -> Iterator[Tensor]:
        """As `walk`, from values known at earlier levels, newest first."""
        nodes = deque(known[: self.order], maxlen=self.order)
        steps = len(path.levels) - 1
        used: list[Node] = []
        origin = x
        for step, (sigma, sigma_next) in enumerate(pairwise(path.levels)):
            estimate = path.estimate(x, sigma, sigma_next).x0
            value = self.value(x, estimate, sigma)
            if self.corrector and used:
                x = self.move(origin, [(sigma, value), *used], path.levels[step - 1], sigma)
            if sigma_next == 0:
                yield estimate
                return
            nodes.appendleft((sigma, value))
            used = list(nodes)[: steps - step] if self.lower_order_final else list(nodes)
            origin, x = x, self.move(x, used, sigma, sigma_next)
            yield x

    def value(self, x: Tensor, estimate: Tensor, sigma: float) -> Tensor:
        """What is interpolated: the estimate of x0, or eps."""
        return estimate if self.prediction == "data" else (x - estimate) / sigma

    def move(self, x: Tensor, nodes: Collection[Node], sigma: float, sigma_next: float) -> Tensor:
        """x at sigma_next > 0, from x at sigma and values at any levels."""
        shares = self.coefficients([level for level, _ in nodes], sigma, sigma_next)
        return self.kept(sigma, sigma_next) * x + combination(shares, (value for _, value in nodes))

    def kept(self, sigma: float, sigma_next: float) -> float:
        """The factor on x."""
        return sigma_next / sigma if self.prediction == "data" else 1.0

    def coefficients(self, levels: Sequence[float], sigma: float, sigma_next: float) -> list[float]:
        """Weights of values at `levels`, newest first, in the step from sigma to sigma_next."""
        if not self.published:
            return weights.exact(self.prediction, self.variable, levels, sigma, sigma_next)
        if self._plms:
            return [(sigma_next - sigma) * share for share in weights.even(len(levels))]
        return weights.published(self.prediction, levels, sigma, sigma_next, corrector=self.corrector, bh1=self.bh1)


def combination(shares: Iterable[float], values: Iterable[Tensor]) -> Tensor:
    """sum_j w_j F_j."""
    first, *others = zip(shares, values, strict=True)
    total = first[0] * first[1]
    for share, value in others:
        total = total + share * value
    return total


def dpm_solver_2m(*, published: bool = False) -> Adams:
    """DPM-Solver++ 2M (Lu et al. 2022, algorithm 2); published puts psi_0/2 on the slope."""
    return Adams("data", "lambda", 2, published=published)


def dpm_solver_3m(*, published: bool = False) -> Adams:
    """DPM-Solver++ 3M (Lu et al. 2022) of order 3; published halves the third weight, which makes it order 2."""
    return Adams("data", "lambda", 3, published=published)


def deis(order: int = 3, variable: str = "sigma") -> Adams:
    """DEIS (Zhang and Chen 2023): rho-AB for the variable "sigma", t-AB for "time"; `order` values."""
    return Adams("eps", variable, order)


def ipndm(order: int = 4) -> Adams:
    """Improved PNDM, PLMS without Runge-Kutta (Liu et al. 2022, equation 12; Zhang and Chen 2023)."""
    return Adams("eps", "sigma", order, published=True)


def unipc(order: int = 3, *, prediction: str = "data", published: bool = False, bh1: bool = False) -> Adams:
    """UniPC (Zhao et al. 2023): predictor of an order, corrector of one more; N steps cost N evaluations."""
    return Adams(prediction, "lambda", order, corrector=True, published=published, bh1=bh1, lower_order_final=True)
