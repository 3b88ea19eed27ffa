"""Multistep integrators: weights to their digits, warm-up, last steps, the corrector and stability."""

import itertools
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from integrator_cases import INTEGRATORS, LEVELS, Counted, curved, growth, walked
from sampler_cases import EXACT, mri, observe, randn, relative, stationary
from scipy.integrate import quad
from torch import Tensor

import inverse
from inverse.errors import InputError
from inverse.samplers import DDIM, DDS, DiffusionSampler
from inverse.samplers.integrators import (
    GHVB,
    PNDM,
    Adams,
    HeavyBall,
    deis,
    dpm_solver_2m,
    dpm_solver_3m,
    ipndm,
    unipc,
    weights,
)

# Weights for levels 10, 6, 4, 3 (now) and 2 (next), newest first, to all digits given.
PINNED: dict[str, tuple[list[float], list[float]]] = {
    "data 1": (weights.exact("data", "lambda", [3], 3, 2), [0.333333333333]),
    "data 2": (weights.exact("data", "lambda", [3, 4], 3, 2), [0.584067674059, -0.250734340726]),
    "data 3": (weights.exact("data", "lambda", [3, 4, 6], 3, 2), [0.789123786858, -0.601280080916, 0.145489627391]),
    "data 4": (
        weights.exact("data", "lambda", [3, 4, 6, 10], 3, 2),
        [0.957317664824, -0.979083201650, 0.426753206180, -0.071654336020],
    ),
    "2M published": (dpm_solver_2m(published=True).coefficients([3, 4], 3, 2), [0.568236806609, -0.234903473276]),
    "UniP-2 bh2": (unipc(2, published=True).coefficients([3, 4], 3, 2), [0.568236806609, -0.234903473276]),
    "UniP-2 bh1": (unipc(2, published=True, bh1=True).coefficients([3, 4], 3, 2), [0.619068819893, -0.285735486560]),
    "3M published": (
        dpm_solver_3m(published=True).coefficients([3, 4, 6], 3, 2),
        [0.738627807338, -0.514956633758, 0.109662159754],
    ),
    "UniP-3": (
        unipc(3, published=True).coefficients([3, 4, 6], 3, 2),
        [0.789123786858, -0.601280080916, 0.145489627391],
    ),
    "corrector 1": (weights.exact("data", "lambda", [2, 3], 3, 2), [0.177898845875, 0.155434487459]),
    "corrector 1 bh2": (unipc(1, published=True).coefficients([2, 3], 3, 2), [0.166666666667, 0.166666666667]),
    "corrector 1 bh1": (
        unipc(1, published=True, bh1=True).coefficients([2, 3], 3, 2),
        [0.202732554054, 0.130600779279],
    ),
    "corrector 2": (
        unipc(2, published=True).coefficients([2, 3, 4], 3, 2),
        [0.145489627391, 0.233521933869, -0.045678227927],
    ),
    "corrector 3": (
        weights.exact("data", "lambda", [2, 3, 4, 6], 3, 2),
        [0.130780116479, 0.289695227223, -0.101851521281, 0.014709510912],
    ),
    "eps in lambda 2": (weights.exact("eps", "lambda", [3, 4], 3, 2), [-1.65721781748, 0.657217817476]),
    "eps in lambda 3": (
        weights.exact("eps", "lambda", [3, 4, 6], 3, 2),
        [-2.17740095117, 1.5464767581, -0.369075806927],
    ),
    "rho-AB 2": (deis(2).coefficients([3, 4], 3, 2), [-1.5, 0.5]),
    "rho-AB 3": (deis(3).coefficients([3, 4, 6], 3, 2), [-1.77777777778, 0.916666666667, -0.138888888889]),
    "rho-AB 4": (
        deis(4).coefficients([3, 4, 6, 10], 3, 2),
        [-1.9246031746, 1.17361111111, -0.267361111111, 0.0183531746032],
    ),
    "plms 4": (ipndm().coefficients([3, 4, 6, 10], 3, 2), [-55 / 24, 59 / 24, -37 / 24, 9 / 24]),
}


@pytest.mark.parametrize("name", PINNED)
def test_weights_have_their_known_values(name):
    found, known = PINNED[name]
    assert found == pytest.approx(known, rel=0, abs=1e-11)  # a unit of the last digit of the least precise


def test_moments_have_their_known_values():
    half = [0.393469340287, 0.106530659713, 0.018469340287, 0.002363993046]
    tiny = [9.9995000167e-5, 4.9998333375e-9, 1.6666250008e-13, 4.1665833347e-18]
    assert [weights.psi(i, 0.5) for i in range(4)] == pytest.approx(half, rel=0, abs=1e-12)
    assert [weights.psi(i, 1e-4) for i in range(4)] == pytest.approx(tiny, rel=1e-10)  # eleven digits are given
    for h in (0.3, 2.0, 7.0):
        for i in range(1, 4):  # integration by parts
            step = h**i / math.factorial(i)
            assert weights.psi(i, h) == pytest.approx(step - weights.psi(i - 1, h), rel=1e-11)
            assert weights.chi(i, h) == pytest.approx(weights.chi(i - 1, h) - step, rel=1e-11)


@pytest.mark.parametrize(("sigma", "sigma_next"), [(3.0, 2.0), (3.0, 2.9997), (10.0, 0.1), (80.0, 0.01)])
@pytest.mark.parametrize("variable", weights.VARIABLES)
@pytest.mark.parametrize("prediction", ["data", "eps"])
def test_polynomials_are_integrated_exactly(prediction, variable, sigma, sigma_next):
    change = weights.VARIABLES[variable]
    nodes = [sigma * ratio for ratio in (1, 1.3, 2, 3.1)]
    if sigma_next == 2.0:
        nodes[3] = sigma_next  # as in a corrector

    def kernel(u: float) -> float:
        return math.exp(u) * sigma_next / sigma if prediction == "data" else -sigma * math.exp(-u)

    for degree in range(4):

        def polynomial(level: float, degree: int = degree) -> float:
            return (change(level) / change(nodes[2]) - 0.4) ** degree if degree else 1.0

        whole = quad(
            lambda u, p=polynomial: kernel(u) * p(sigma * math.exp(-u)),
            0,
            math.log(sigma / sigma_next),
            epsabs=0,
            epsrel=1e-12,
            limit=200,
        )[0]
        found = weights.exact(prediction, variable, nodes[:1] if degree == 0 else nodes, sigma, sigma_next)
        terms = [w * polynomial(node) for w, node in zip(found, nodes, strict=False)]
        # Rounding of the terms, which cancel; the time is no entire function: 2e-11 of the largest at ratio 8000.
        bound = 1e-10 if variable == "time" and sigma / sigma_next > 1000 else 1e-12
        assert sum(terms) == pytest.approx(whole, rel=0, abs=bound * max(map(abs, terms)))


@pytest.mark.parametrize("integrator", [i for i in INTEGRATORS if isinstance(i, Adams)], ids=str)
def test_weights_sum_to_the_step_of_a_constant(integrator):
    for k in range(1, integrator.order + 1):
        total = sum(integrator.coefficients([3.0, 4.0, 6.0, 10.0][:k], 3.0, 2.0))
        assert total == pytest.approx(1 / 3 if integrator.prediction == "data" else -1.0, rel=1e-12)


@pytest.mark.parametrize("scale", [lambda z: z, math.expm1], ids=["bh1", "bh2"])
@pytest.mark.parametrize("places", [(4, 6), (2, 4), (2, 4, 6)], ids=["UniP-3", "UniC-2", "UniC-3"])
def test_the_function_b_of_unipc_cancels(places, scale):
    # UniPC's own system: sum_k rho_k r_k^(i-1) = b_i, x' = kept x + psi_0 D_0 - B sum_k rho_k (D_k - D_0) / r_k.
    h = math.log(3 / 2)
    ratios = [math.log(3 / place) / h for place in places]
    matrix = [[r**i for r in ratios] for i in range(len(places))]
    right = [-weights.psi(i, h) * math.factorial(i) / h**i / scale(-h) for i in range(1, len(places) + 1)]
    shares = -scale(-h) * np.linalg.solve(matrix, right) / ratios
    wanted = [1 - math.exp(-h) - shares.sum(), *shares]
    assert weights.exact("data", "lambda", [3, *places], 3, 2) == pytest.approx(wanted, rel=1e-11)


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=str)
def test_a_constant_estimate_is_followed_exactly(integrator):
    known = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    start = torch.tensor([1.5, -4.0, 7.0], dtype=torch.float64)
    xs = walked(integrator, LEVELS, lambda x, sigma: known, start)
    for level, x in zip(LEVELS[1:], xs, strict=True):
        torch.testing.assert_close(x, known + level / 9 * (start - known), rtol=0, atol=1e-13)  # rounding of 6 steps


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
def test_short_grids_end_at_the_estimate_and_cost_what_is_said(integrator, steps):
    for levels in ((*LEVELS[:steps], 0.0), LEVELS[: steps + 1]):
        path = Counted(levels, curved)
        xs = list(integrator.walk(path, torch.tensor([1.5, -4.0], dtype=torch.float64)))
        assert len(xs) == steps and bool(torch.isfinite(torch.stack(xs)).all())
        assert len(path.calls) == integrator.evaluations(levels)
        if levels[-1] == 0:
            sigma, x = path.calls[-1]
            assert sigma == levels[-2] and torch.equal(xs[-1], curved(x, sigma))


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=str)
def test_one_evaluation_a_step_except_for_pndm(integrator):
    extra = {(PNDM, 4): 9, (PNDM, 2): 1}.get((type(integrator), getattr(integrator, "order", 0)), 0)
    for levels in (LEVELS, (*LEVELS, 0.0)):
        assert integrator.evaluations(levels) == len(levels) - 1 + extra


@pytest.mark.parametrize("variable", weights.VARIABLES)
@pytest.mark.parametrize("prediction", ["data", "eps"])
def test_order_one_is_ddim(prediction, variable):
    levels = (*LEVELS, 0.0)
    for x, other in zip(walked(Adams(prediction, variable, 1), levels), walked(DDIM(0.0), levels), strict=True):
        torch.testing.assert_close(x, other, rtol=EXACT, atol=EXACT)


def test_the_order_grows_as_values_become_known_and_falls_at_the_end_if_asked():
    for integrator in (Adams(order=3), Adams("eps", "sigma", 3), Adams(order=3, lower_order_final=True)):
        path = Counted(LEVELS, curved)
        xs = list(integrator.walk(path, torch.tensor([1.5, -4.0, 7.0], dtype=torch.float64)))
        nodes: list[tuple[float, Tensor]] = []
        orders = (1, 2, 3, 3, 2, 1) if integrator.lower_order_final else (1, 2, 3, 3, 3, 3)
        for (sigma, x), sigma_next, after, order in zip(path.calls, LEVELS[1:], xs, orders, strict=True):
            nodes.insert(0, (sigma, integrator.value(x, curved(x, sigma), sigma)))
            used = nodes[:order]
            shares = weights.exact(
                integrator.prediction, integrator.variable, [level for level, _ in used], sigma, sigma_next
            )
            kept = sigma_next / sigma if integrator.prediction == "data" else 1.0
            wanted = kept * x + sum(w * value for w, (_, value) in zip(shares, used, strict=True))
            torch.testing.assert_close(after, wanted, rtol=EXACT, atol=EXACT)


def test_the_corrector_moves_x_by_the_estimate_at_the_predicted_x():
    path = Counted(LEVELS[:4], curved)
    start = torch.tensor([1.5, -4.0, 7.0], dtype=torch.float64)
    last = list(Adams(order=2, corrector=True).walk(path, start))[-1]
    (a, _), (b, predicted_b), (c, predicted_c) = path.calls
    d_a, d_b, d_c = curved(start, a), curved(predicted_b, b), curved(predicted_c, c)

    def step(x: Tensor, values: Sequence[Tensor], nodes: Sequence[float], sigma: float, sigma_next: float) -> Tensor:
        shares = weights.exact("data", "lambda", nodes, sigma, sigma_next)
        return sigma_next / sigma * x + sum(w * v for w, v in zip(shares, values, strict=True))

    torch.testing.assert_close(predicted_b, step(start, [d_a], [a], a, b), rtol=EXACT, atol=EXACT)
    x_b = step(start, [d_b, d_a], [b, a], a, b)
    torch.testing.assert_close(predicted_c, step(x_b, [d_b, d_a], [b, a], b, c), rtol=EXACT, atol=EXACT)
    x_c = step(x_b, [d_c, d_b, d_a], [c, b, a], b, c)
    torch.testing.assert_close(last, step(x_c, [d_c, d_b], [c, b], c, LEVELS[3]), rtol=EXACT, atol=EXACT)


# Estimate D = a x, even steps h in lambda: the first h at which the run grows, two digits.
UNSTABLE = [
    (Adams(order=4), 0.75, 2.1),
    (ipndm(), 0.0, 0.72),
    (Adams(order=2), -1.0, 1.01),
    (Adams(order=3), -1.0, 0.53),
    (ipndm(), -1.0, 0.20),
    (Adams(order=1), -3.0, 0.70),
    (Adams(order=2), -3.0, 0.33),
    (Adams(order=3), -3.0, 0.18),
    (deis(2), -3.0, 0.39),
    (deis(4), -3.0, 0.12),
    (Adams(order=2), -10.0, 0.10),
]


@pytest.mark.parametrize(("integrator", "a", "h"), UNSTABLE, ids=str)
def test_stiff_estimates_are_followed_up_to_the_known_step(integrator, a, h):
    def kicked(x: Tensor, sigma: float) -> Tensor:  # else some runs hit the one solution that no method amplifies
        return a * x + (sigma == 1)

    # An eighth to both sides of h; 150 steps turn so much into growth or decay.
    for factor, grows in ((0.875, False), (1.125, True)):
        levels = [math.exp(-factor * h * n) for n in range(151)]
        assert (growth(integrator, levels, kicked) > 1) == grows


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0])
def test_exact_weights_are_stable_for_exact_gaussian_denoisers(a):
    levels = [math.exp(-4.0 * n) for n in range(40)]
    for k in (1, 2, 3):
        for integrator in (Adams(order=k), Adams("eps", "lambda", k), deis(k)):
            kicked = growth(integrator, levels, lambda x, sigma: a * x + (sigma == 1))
            assert kicked < 3  # a = 1 keeps what the kick leaves; a root of 1.03 would triple it in 39 steps


def test_the_time_of_the_network_and_its_levels():
    # Levels of the continuous linear schedule at u = 1, 0.75025, ..., 0.001.
    known = (152.166970, 17.0491226, 3.42224476, 0.957526482, 0.0104859928)
    for time, level in zip(np.linspace(1, 1e-3, 5).tolist(), known, strict=True):
        assert weights.noise_at(time) == pytest.approx(level, rel=1e-8)  # nine digits
        assert weights.network_time(level) == pytest.approx(time, rel=1e-8)


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=str)
def test_a_run_counts_its_evaluations_and_keeps_the_dtype(integrator):
    operator, prior = mri(), stationary((8, 6))
    y = observe(operator, randn(1, *operator.in_shape), 0.1)[0]
    sampler = DiffusionSampler(DDS(), integrator, 12, start="noise")
    solution = inverse.solve(y, operator, prior, sampler, noise=0.1, samples=2, progress=False)
    assert solution.stats.nfe == sampler.evaluations() <= 12
    single = walked(integrator, LEVELS, x=torch.ones(2, dtype=torch.float32))
    assert {x.dtype for x in single} == {torch.float32}


def test_samples_do_not_depend_on_the_batch():
    operator, prior = mri(), stationary((8, 6))
    y = observe(operator, randn(1, *operator.in_shape), 0.1)[0]
    for integrator in (unipc(3), GHVB(3), PNDM(2)):
        sampler = DiffusionSampler(DDS(), integrator, 8)
        alone, together = (
            inverse.solve(y, operator, prior, sampler, noise=0.1, samples=3, batch=batch, progress=False).samples
            for batch in (1, 3)
        )
        assert relative(alone, together) < 1e-10  # sums in another order, over eight steps


@pytest.mark.parametrize(
    "build",
    [
        lambda: Adams("noise"),
        lambda: Adams(variable="t"),
        lambda: Adams(order=0),
        lambda: Adams(order=5),
        lambda: Adams(order=4, published=True),
        lambda: Adams("eps", "time", 3, published=True),
        lambda: Adams("eps", "sigma", 3, corrector=True, published=True),
        lambda: Adams(order=2, bh1=True),
        lambda: Adams(order=2, published=True, bh1=True),
        lambda: PNDM(3),
        lambda: PNDM(middle="lambda"),
        lambda: HeavyBall(beta=0.0),
        lambda: HeavyBall(unipc()),
        lambda: GHVB(6),
        lambda: GHVB(2, 1.2),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def test_history_holds_the_estimates_of_earlier_levels_alone():
    # A walk from values known at two earlier levels is the rest of the whole walk.
    path = Counted(LEVELS, curved)
    whole = list(dpm_solver_3m().walk(path, torch.tensor([2.0, -3.0], dtype=torch.float64)))
    known = [(sigma, curved(x, sigma)) for sigma, x in itertools.islice(path.calls, 2)][::-1]
    rest = dpm_solver_3m()._walk(Counted(LEVELS[2:], curved), whole[1], known)
    torch.testing.assert_close(deque(rest, maxlen=1).pop(), whole[-1], rtol=EXACT, atol=EXACT)
