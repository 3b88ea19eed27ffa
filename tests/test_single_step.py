"""Heun, single-step DPM-Solver and stochastic DPM-Solver++: formulas, counts, odd grids, exact variances."""

import itertools
import math
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
from integrator_cases import LEVELS, Counted, curved, walked
from sampler_cases import EXACT, randn
from torch import Tensor

from inverse.errors import InputError
from inverse.priors import from_function
from inverse.samplers import DDIM, Estimate
from inverse.samplers.integrators import (
    Adams,
    Heun,
    Integrator,
    Path,
    SingleStep,
    StochasticAdams,
    sde_dpm_solver,
    sde_dpm_solver_2m,
    sde_dpm_solver_3m,
)

DETERMINISTIC = (Heun(), *(SingleStep(order, form) for order in (1, 2, 3) for form in ("data", "eps")))
X = torch.tensor([1.5, -4.0, 7.0], dtype=torch.float64)


def slope(x: Tensor, sigma: float) -> Tensor:
    """eps."""
    return (x - curved(x, sigma)) / sigma


def single_steps(x: Tensor, s: float, t: float) -> dict[tuple[int, str], Tensor]:
    """One step of each solver as published, from s to t."""
    h = math.log(s / t)
    one, two = s * math.exp(-h / 3), s * math.exp(-2 * h / 3)
    half = s * math.exp(-h / 2)
    d, e = curved(x, s), slope(x, s)
    middle = half / s * x - math.expm1(-h / 2) * d
    second = {
        (2, "data"): t / s * x - math.expm1(-h) * curved(middle, half),
        (2, "eps"): x - t * math.expm1(h) * slope(x - half * math.expm1(h / 2) * e, half),
    }
    d1 = curved(one / s * x - math.expm1(-h / 3) * d, one) - d
    weight = math.expm1(-2 * h / 3) / (2 * h / 3) + 1
    d2 = curved(two / s * x - math.expm1(-2 * h / 3) * d + 2 * weight * d1, two) - d
    e1 = slope(x - one * math.expm1(h / 3) * e, one) - e
    weight = math.expm1(2 * h / 3) / (2 * h / 3) - 1
    e2 = slope(x - two * math.expm1(2 * h / 3) * e - two * 2 * weight * e1, two) - e
    third = {
        (3, "data"): t / s * x - math.expm1(-h) * d + 1.5 * (math.expm1(-h) / h + 1) * d2,
        (3, "eps"): x - t * math.expm1(h) * e - 1.5 * t * (math.expm1(h) / h - 1) * e2,
    }
    return second | third


@pytest.mark.parametrize(("order", "form"), [(2, "data"), (2, "eps"), (3, "data"), (3, "eps")])
def test_single_steps_are_those_published(order, form):
    levels = (3.0, 2.0, 1.5, 0.4)[: order + 1]
    found = walked(SingleStep(order, form), levels)
    expected = single_steps(X, levels[0], levels[-1])[order, form]
    torch.testing.assert_close(found, [expected], rtol=EXACT, atol=EXACT)


def test_heun_is_as_published():
    first, last = walked(Heun(), (3.0, 1.0, 0.0))
    euler = X - 2 * slope(X, 3.0)
    torch.testing.assert_close(first, X - (slope(X, 3.0) + slope(euler, 1.0)), rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(last, curved(first, 1.0), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("form", ["data", "eps"])
def test_first_order_is_ddim(form):
    torch.testing.assert_close(walked(SingleStep(1, form), LEVELS), walked(DDIM(0.0), LEVELS), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(
    ("order", "levels", "orders"),
    [
        (3, 10, [3, 3, 3, 1]),
        (3, 9, [3, 3, 2, 1]),
        (3, 8, [3, 3, 1, 1]),
        (2, 6, [2, 2, 1, 1]),
        (3, 3, [2, 1]),
        (3, 2, [1, 1]),
        (3, 1, [1]),
        (1, 3, [1, 1, 1]),
    ],
)
def test_the_last_blocks_spend_what_is_left(order, levels, orders):
    grid = [float(n) for n in range(levels, -1, -1)]
    assert SingleStep(order).orders(grid) == orders
    above = [n + 1.0 for n in grid]
    assert sum(SingleStep(order).orders(above)) == levels and max(SingleStep(order).orders(above)) == min(order, levels)


@pytest.mark.parametrize("integrator", DETERMINISTIC, ids=str)
@pytest.mark.parametrize("levels", [LEVELS, (*LEVELS, 0.0), (3.0, 0.0), (3.0, 1.0), (3.0, 1.0, 0.0)])
def test_as_many_evaluations_as_promised_and_none_at_zero(integrator, levels):
    path = Counted(levels, curved)  # refuses level 0
    *_, last = integrator.walk(path, X)
    assert len(path.calls) == integrator.evaluations(levels)
    assert bool(torch.isfinite(last).all())
    if levels[-1] == 0:
        sigma, x = path.calls[-1]
        torch.testing.assert_close(last, curved(x, sigma))


def test_third_order_is_exact_for_a_line_in_log_sigma():
    def line(x: Tensor, sigma: float) -> Tensor:
        return 0.3 - 0.7 * math.log(sigma) + 0 * x

    (found,) = walked(SingleStep(3), (3.0, 2.0, 1.5, 0.4), line)
    (expected,) = walked(SingleStep(3), (3.0, 2.0, 1.5, 0.4), lambda x, sigma: 0 * x)
    h, start = math.log(3.0 / 0.4), 0.3 - 0.7 * math.log(3.0)
    total = -math.expm1(-h) * start + 0.7 * (h + math.expm1(-h))
    torch.testing.assert_close(found, expected + total, rtol=EXACT, atol=EXACT)


def noisy_walk(integrator: Integrator, levels: Sequence[float], denoise: Callable, x: Tensor, noise: Callable) -> list:
    def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
        assert sigma_next < sigma <= levels[0]
        return Estimate(denoise(x, sigma), denoise(x, sigma))

    path = Path(tuple(levels), estimate, noise, from_function(denoise))
    return list(integrator.walk(path, x))


def variance(integrator: Integrator, levels: Sequence[float], denoise: Callable, start: float) -> float:
    """Variance at the end of a run that is linear in its start and in each of its noises: a row of x for each."""
    rows = 2 * len(levels)
    taken = itertools.count(1)

    def one() -> Tensor:
        return torch.zeros(rows, 1, dtype=torch.float64).index_fill_(0, torch.tensor([next(taken)]), 1.0)

    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[0] = math.sqrt(start)
    return float(noisy_walk(integrator, levels, denoise, x, one)[-1].square().sum())


STOCHASTIC = (
    sde_dpm_solver(),
    sde_dpm_solver(0.3),
    sde_dpm_solver_2m(),
    sde_dpm_solver_2m(midpoint=False),
    sde_dpm_solver_2m(0.5),
    sde_dpm_solver_3m(),
    sde_dpm_solver_3m(published=True),
    Heun(2.0),
    Heun(100.0),
)


@pytest.mark.parametrize("integrator", STOCHASTIC, ids=str)
def test_noise_keeps_its_level_where_the_image_is_known(integrator):
    # D does not depend on x, so that x - (something) is noise of the level of each step.
    found = variance(integrator, LEVELS, lambda x, sigma: 0 * x, LEVELS[0] ** 2)
    assert found == pytest.approx(LEVELS[-1] ** 2, rel=EXACT)


POWER = 0.25


def wiener(x: Tensor, sigma: float) -> Tensor:
    """D of N(0, POWER)."""
    return POWER / (POWER + sigma**2) * x


def recursion(order: int, eta: float, levels: Sequence[float], *, midpoint: bool) -> float:
    """The same variance by the covariance of (x, D, D before), each step a matrix, weights by their closed forms."""
    covariance = torch.zeros(3, 3, dtype=torch.float64)
    covariance[0, 0] = POWER + levels[0] ** 2
    for place, (s, t) in enumerate(itertools.pairwise(levels)):
        big, gain = (1 + eta) * math.log(s / t), POWER / (POWER + s**2)
        shares = [-math.expm1(-big), 0.0, 0.0]  # of D at this level, the last and the one before
        known = min(order, place + 1)
        if known > 1:
            before = (1 + eta) * math.log(levels[place - 1] / s)
            linear = shares[0] * big / 2 if midpoint else big - shares[0]
            if known == 2:
                shares[0], shares[1] = shares[0] + linear / before, -linear / before
            else:
                older = before + (1 + eta) * math.log(levels[place - 2] / levels[place - 1])
                square = big**2 - 2 * (big - shares[0])  # int e^(v - H) v^2 dv
                first = (square + older * linear) / (-before * (older - before))
                second = (square + before * linear) / (older * (older - before))
                shares = [shares[0] - first - second, first, second]
        matrix = torch.zeros(3, 3, dtype=torch.float64)
        matrix[0] = matrix.new_tensor([math.exp(-big) + shares[0] * gain, *shares[1:]])
        matrix[1, 0], matrix[2, 1] = gain, 1.0
        covariance = matrix @ covariance @ matrix.mT
        covariance[0, 0] += t**2 * -math.expm1(-2 * eta * math.log(s / t))
    return float(covariance[0, 0])


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("order", "midpoint"), [(1, False), (2, True), (2, False), (3, False)])
def test_the_variance_of_a_stochastic_run_is_exact(order, midpoint, eta):
    found = variance(StochasticAdams(order, eta, published=midpoint), LEVELS, wiener, POWER + LEVELS[0] ** 2)
    assert found == pytest.approx(recursion(order, eta, LEVELS, midpoint=midpoint), rel=1e-10)  # weights of quadrature


@pytest.mark.parametrize("integrator", [i for i in STOCHASTIC if i != Heun(100.0)], ids=str)
def test_stochastic_runs_converge_to_the_variance_of_the_images(integrator):
    def error(steps: int) -> float:
        levels = (5.0 * (0.05 / 5.0) ** (torch.arange(steps + 1, dtype=torch.float64) / steps)).tolist()
        return abs(variance(integrator, levels, wiener, POWER + 25.0) / (POWER + 0.05**2) - 1)

    # At least first order, a quarter less for the finite steps, until rounding.
    assert error(128) < 1e-10 + error(64) * 2**-0.75
    assert error(128) < 0.06


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("published", [False, True])
def test_without_noise_it_is_the_deterministic_method(order, published):
    found = walked(StochasticAdams(order, 0.0, published), LEVELS)
    torch.testing.assert_close(found, walked(Adams(order=order, published=published), LEVELS), rtol=EXACT, atol=EXACT)


def test_first_order_with_all_the_noise_is_the_ancestral_step():
    noises = [randn(3, dtype=torch.float64, seed=n) for n in range(len(LEVELS))]
    runs = []
    for integrator in (sde_dpm_solver(), DDIM(1.0)):
        queue = iter(noises)
        runs.append(noisy_walk(integrator, (*LEVELS, 0.0), curved, X, lambda queue=queue: next(queue)))
    torch.testing.assert_close(*runs, rtol=EXACT, atol=EXACT)


def last_integral(integrator: StochasticAdams, denoise: Callable) -> float:
    """What the last of three steps of a path without noise adds to x."""
    before, last = walked(integrator, (4.0, 3.0, 2.0, 1.0), denoise, torch.ones(1, dtype=torch.float64))[1:]
    return float(last - (1.0 / 2.0) ** (1 + integrator.eta) * before)


def test_the_third_weight_is_that_of_a_second_derivative():
    def parabola(x: Tensor, sigma: float) -> Tensor:
        return (math.log(sigma) - 0.2) ** 2 + 0 * x

    # int_0^H e^(v - H) D dv with D = (b - v/2)^2, H = 2 log 2.
    big, b = 2 * math.log(2.0), math.log(2.0) - 0.2
    moments = [-math.expm1(-big), big + math.expm1(-big)]
    moments.append(big**2 - 2 * moments[1])
    exact = moments[2] / 4 - b * moments[1] + b**2 * moments[0]
    assert last_integral(StochasticAdams(3), parabola) == pytest.approx(exact, rel=1e-12)
    assert abs(last_integral(StochasticAdams(3, published=True), parabola) - exact) > 0.01


def test_churn_adds_noise_within_its_levels_and_never_above_the_first():
    def added(heun: Heun) -> list[float]:
        seen: list[float] = []
        path_levels = (10.0, 5.0, 2.0, 1.0, 0.5)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            seen.append(sigma)
            return 0 * x

        def estimate(x: Tensor, sigma: float, sigma_next: float, *, draw: bool = False) -> Estimate:
            return Estimate(denoise(x, sigma), x)

        path = Path(path_levels, estimate, lambda: torch.ones_like(X), from_function(denoise))
        list(heun.walk(path, X))
        return seen[::2]

    assert added(Heun()) == [10.0, 5.0, 2.0, 1.0]
    assert added(Heun(0.4)) == pytest.approx([10.0, 5.5, 2.2, 1.1])
    assert added(Heun(100.0)) == pytest.approx([10.0, *(math.sqrt(2) * n for n in (5.0, 2.0, 1.0))])
    assert added(Heun(0.4, lowest=1.5, highest=4.0)) == pytest.approx([10.0, 5.0, 2.2, 1.0])


def test_noise_above_one_makes_samples_wider():
    def found(noise: float) -> float:
        return variance(Heun(1.0, noise=noise), LEVELS, wiener, POWER + LEVELS[0] ** 2)

    assert found(1.1) > 1.05 * found(1.0)


@pytest.mark.parametrize("integrator", [*DETERMINISTIC, *STOCHASTIC], ids=str)
def test_integrators_compare_print_and_pickle(integrator):
    assert pickle.loads(pickle.dumps(integrator)) == integrator and type(integrator).__name__ in repr(integrator)


@pytest.mark.parametrize(
    "build",
    [
        lambda: SingleStep(0),
        lambda: SingleStep(4),
        lambda: SingleStep(2, "v"),
        lambda: StochasticAdams(4),
        lambda: StochasticAdams(2, -0.1),
        lambda: Heun(-1.0),
        lambda: Heun(1.0, 2.0, 1.0),
        lambda: Heun(1.0, noise=0.0),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value)
