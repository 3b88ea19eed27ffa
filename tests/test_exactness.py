"""The certificate in short: problems with a known posterior, and samplers on them, see experiments/exactness.py."""

import importlib
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import inverse
from inverse.samplers import (
    DDIM,
    DDS,
    Bridge,
    DiffusionSampler,
    LearnedCovariance,
    MomentMatching,
    Sampler,
    SplitGibbs,
)
from inverse.samplers.methods import METHODS, dds

sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
exactness, problems, line, measured, samplers, tables = (
    importlib.import_module(name)
    for name in ("exactness", "exact_problems", "exact_line", "exact_figures", "exact_samplers", "tables")
)

SAMPLES = 500  # W2 of exact draws grows as 1 / sqrt(SAMPLES): all ratios to it are half of those of 2000 samples
ON_A_LINE = 20_000
TRAINING = 2000  # draws for measured covariances: 3 % per entry where it is one mode's
CHANCE = 2e-9  # the digits that are pinned


class Bench:
    """A problem, the floor of the distance for as many exact draws, and the figures of a sampler by name."""

    def __init__(self, problem, samples: int):
        self.problem, self.samples = problem, samples
        self.exact = measured.distances_of_exact_draws(problem, samples, 51)
        self.floor = float(self.exact.median())
        self.chance = float(self.exact.max()) / self.floor  # the largest of 51 sets of exact draws

    def figures(self, draws: torch.Tensor) -> dict[str, float]:
        return {k: float(v) for k, (v, _) in measured.figures(draws, self.problem, self.floor).items()}

    def run(self, sampler: Sampler, knows: str = samplers.PLAIN) -> dict[str, float]:
        prior = samplers.told(self.problem, knows)
        found = measured.measure(self.problem, sampler, prior, self.floor, samples=self.samples)
        return {k: float(v) for k, (v, _) in found.items()}

    def learned(self, knows: str, steps: int, *, draw_last: bool = True, **choices) -> dict[str, float]:
        return self.run(DiffusionSampler(LearnedCovariance(**choices), Bridge(draw_last), steps), knows)

    @property
    def useless(self) -> float:
        """Distance of draws of the prior."""
        found = self.figures(self.problem.prior.sample(self.samples, torch.Generator().manual_seed(2)))
        return found.get("W2", found.get("W1", math.nan))


@pytest.fixture(scope="module")
def bench():
    """Benches by the name of their problem, each made once."""
    made = {}

    def get(case: str) -> Bench:
        if case not in made:
            gaussian = case in problems.PROBLEMS
            problem = problems.PROBLEMS[case](TRAINING) if gaussian else line.LINES[case]()
            made[case] = Bench(problem, SAMPLES if gaussian else ON_A_LINE)
        return made[case]

    return get


@pytest.mark.parametrize(
    ("name", "means", "trace"),
    [
        ("A", (0.7211084637, 0.6009825249, 0.5898740696), 0.7816034258),
        ("A2", (0.7455922084, 0.5066082433, 0.4757676911), 1.1526779625),
    ],
)
def test_gaussian_fixtures_are_pinned(name, means, trace) -> None:
    """Numbers of an independent computation of the same fixtures, to the ten digits that it gave."""
    fixture = problems.fixture(name)
    posterior = fixture.posterior
    assert posterior.mean.flatten()[[0, 28, 63]].tolist() == pytest.approx(means, abs=CHANCE)
    assert float(posterior.covariance.trace()) == pytest.approx(trace, abs=CHANCE)
    if name == "A":
        std = posterior.covariance.diagonal().sqrt()
        assert std[[0, 28, 63]].tolist() == pytest.approx((0.0913345659, 0.1020316284, 0.0913345659), abs=CHANCE)
        assert float(posterior.covariance.diagonal()[fixture.seen].sum()) == pytest.approx(0.2213788614, abs=CHANCE)
        matrix = problems.dense(fixture.operator)[fixture.seen]
        evidence = fixture.prior.evidence(matrix, fixture.y.flatten()[fixture.seen], 0.1)
        assert float(evidence) - 16 * math.log(2 * math.pi) == pytest.approx(11.9736419213, abs=CHANCE)


def test_fixtures_on_the_line_are_pinned() -> None:
    """B1 by its closed form (two Gaussians), B2 by a quadrature of 30 digits."""
    b1, b2 = line.b1(), line.b2()
    exact = b1.prior.posterior(torch.ones(1, 1, dtype=torch.float64), b1.y.flatten(), b1.sigma_y)
    assert exact.weights.tolist() == pytest.approx((0.4343355599, 0.5656644401), abs=CHANCE)
    assert [float(c.mean) for c in exact.components] == pytest.approx((-0.9653846154, 0.8482758621), abs=CHANCE)
    assert b1.log_evidence == pytest.approx(-2.1731289571, abs=CHANCE)
    moments = {"mean": 0.0605386231, "sd": 0.9120525824, "weight left": 0.4343369519}
    moments |= {"sd left": 0.0980720015, "sd right": 0.1856903598}
    # 1e-8: quadrature of steps of 2e-5, errors of the order of their square
    assert b1.moments() == pytest.approx(moments, abs=1e-8)
    assert b2.log_evidence == pytest.approx(0.739635295441, abs=1e-8)
    moments = {"mean": 0.192157325904, "sd": 0.984816631709, "weight left": 0.403921337048}
    moments |= {"sd left": 0.0707106781, "sd right": 0.0894427191}
    assert b2.moments() == pytest.approx(moments, abs=1e-8)


def test_problems_are_those_that_were_meant() -> None:
    """Posterior standard deviations of the squared-exponential prior, known from an independent computation."""
    for name, low, high in (("inpainting", 0.040, 0.254), ("blur", 0.070, 0.184), ("denoising", 0.144, 0.228)):
        std = problems.PROBLEMS[f"Gaussian {name}"](TRAINING).posterior.covariance.diagonal().sqrt()
        assert (float(std.min()), float(std.max())) == pytest.approx((low, high), abs=6e-4)  # the digits given


def test_figures_know_exact_draws_from_others(bench) -> None:
    gaussian = bench("Gaussian inpainting")
    posterior = gaussian.problem.posterior
    draws, mean = posterior.sample(SAMPLES, torch.Generator().manual_seed(5)), posterior.mean
    right = gaussian.figures(draws)
    assert right["W2"] <= gaussian.chance
    assert right["coverage"] == pytest.approx(0.9, abs=0.01)
    assert right["variance seen"] == pytest.approx(1, abs=0.05)  # sqrt(2 / 500) = .063 a pixel, less for their mean
    assert gaussian.figures(mean + 0.9 * (draws - mean))["coverage"] < 0.87  # a tenth less standard deviation
    std = posterior.covariance.diagonal().sqrt().reshape(mean.shape)
    shifted = gaussian.figures(draws + 0.3 * std)
    assert shifted["mean error"] == pytest.approx(0.3, abs=0.06)
    assert shifted["W2"] > 1.5 > gaussian.chance
    assert gaussian.useless > 100


def test_variances_of_a_blur_are_those_of_its_singular_vectors(bench) -> None:
    blur = bench("Gaussian blur")
    posterior, seen = blur.problem.posterior, blur.problem.directions[:, blur.problem.seen]
    assert seen.shape == (64, 32)
    draws = posterior.sample(SAMPLES, torch.Generator().manual_seed(5))
    along = (draws - posterior.mean).flatten(1) @ seen @ seen.mT
    wider = blur.figures(draws + along.reshape(draws.shape))
    assert wider["variance seen"] == pytest.approx(4, rel=0.05)  # chance as above
    assert wider["variance hidden"] == pytest.approx(1, abs=0.05)


def test_distances_on_the_line(bench) -> None:
    b1 = bench("fixture B1")
    draws = b1.problem.sample(ON_A_LINE, torch.Generator().manual_seed(5))
    assert b1.figures(draws)["W1"] <= float(b1.exact.max())
    assert b1.figures(draws + 0.3)["W1"] == pytest.approx(0.3, abs=float(b1.exact.max()))
    assert b1.figures(draws)["coverage"] == pytest.approx(0.9, abs=0.01)  # sqrt(.05 * .95 / 20000) = .0015 an end
    assert b1.useless == pytest.approx(
        0.341, abs=0.02
    )  # weight of a mode: sqrt(.3 * .7 / 20000) * 2 apart, three of it
    middle = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    assert torch.allclose(b1.problem.probability(b1.problem.quantile(middle)), middle, atol=1e-9)


CASES = [f"{kind} {name}" for kind in ("Gaussian", "stationary") for name in problems.OPERATORS]


@pytest.mark.parametrize(("case", "steps"), [*((case, 2) for case in [*CASES, "fixture A"]), (CASES[0], 5)])
def test_drawn_x0_with_the_exact_covariance_is_exact(case: str, steps: int, bench) -> None:
    """At any number of steps, without a gradient: as near the posterior as exact draws are by chance."""
    found = bench(case).learned("exact", steps, innovation=False, **samplers.TIGHT)
    assert found["W2"] <= bench(case).chance
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert (found["evaluations"], found["backward"]) == (steps, 0)


@pytest.mark.parametrize("case", CASES)
def test_drawn_x0_with_a_covariance_measured_on_draws(case: str, bench) -> None:
    """As it ships: its own tolerance, and the innovation, which must not mistake chance for a wrong prior."""
    found = bench(case).learned("calibrated", 5)
    assert found["W2"] <= 1.25  # (1.5 for 2000 samples - 1) / 2; found 1.0 to 1.1
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["mean error"] < 0.1  # sqrt(1 / 500) = .045 is chance


def test_waves_fit_an_image_without_edges_of_its_own(bench) -> None:
    """Radial bins of cosines are near the posterior of smooth images of 8 x 8, and not at it: borders fill them."""
    found = bench("Gaussian inpainting").learned("calibrated waves", 20)
    assert bench("Gaussian inpainting").chance < found["W2"] < 2  # found 1.4
    assert found["coverage"] == pytest.approx(0.9, abs=0.03)
    assert found["mean error"] < 0.2


def test_moment_matching_is_exact_with_some_hundred_products(bench) -> None:
    blur = bench("Gaussian blur")
    found = blur.run(DiffusionSampler(MomentMatching(), Bridge(draw_last=True), 5))
    assert found["W2"] <= blur.chance
    assert found["evaluations"] == 5 and 0 < found["backward"] <= 250


def test_images_have_the_mean_of_the_samples_and_too_little_variance(bench) -> None:
    """Without the last draw the estimate is a mean: right for an image, not for an error bar of few steps."""
    stationary = bench("stationary inpainting")
    samples, images = (stationary.learned("exact", 10, draw_last=last) for last in (True, False))
    assert images["mean error"] < samples["mean error"] + 0.045  # sqrt(1 / 500)
    assert images["variance seen"] < 0.6 < 0.9 < samples["variance seen"]
    assert images["coverage"] < 0.85


def test_dds_converges_with_the_conditioned_direction(bench) -> None:
    """To a limit that is not the posterior, as r^2 I is not the covariance of a smooth image, but it stays there."""
    gaussian = Bench(bench("Gaussian inpainting").problem, 4 * SAMPLES)  # so that the last difference is no chance
    runs = [gaussian.run(dds(steps)) for steps in (5, 20, 80, 240)]
    w2, error = [run["W2"] for run in runs], [run["mean error"] for run in runs]
    assert w2[0] - w2[1] > 3 * (w2[1] - w2[2]) > 9 * (w2[2] - w2[3]) > 0  # error of order 1 / steps, or faster
    assert error == sorted(error, reverse=True)
    assert runs[3]["variance seen"] == pytest.approx(runs[2]["variance seen"], rel=0.05)  # chance is below 2 %
    assert w2[1] < gaussian.useless / 10


def test_dds_does_not_converge_with_the_published_direction(bench) -> None:
    """The data are counted once per step: what they determine loses its variance as the steps grow."""
    gaussian = bench("Gaussian inpainting")
    runs = [gaussian.run(DiffusionSampler(DDS(), DDIM(direction="unconditioned"), steps)) for steps in (20, 80, 240)]
    seen = [run["variance seen"] for run in runs]
    assert seen[1] < 0.5 * seen[0]
    assert seen[2] < 0.5 * seen[1]
    assert runs[2]["W2"] > runs[1]["W2"]
    assert runs[2]["coverage"] < 0.6 < runs[1]["coverage"] < runs[0]["coverage"]
    assert max(run["W2"] for run in runs) < gaussian.useless / 10


def test_two_modes_of_a_posterior(bench) -> None:
    """The variance of x0 is right, its law is not a Gaussian: near in 50 evaluations, and nearer by split Gibbs."""
    b1 = bench("fixture B1")
    chance = 0.01  # exact draws reach it, half of it on average
    single = b1.run(DiffusionSampler(LearnedCovariance(), Bridge(draw_last=True), 50, largest=2.0), "exact")
    assert single["W1"] <= 0.06 + chance
    gibbs = b1.run(SplitGibbs(), "exact")
    assert gibbs["W1"] <= 0.01 + chance
    assert gibbs["W1"] < single["W1"] < b1.useless / 5


def test_the_innovation_is_not_led_by_chance(bench) -> None:
    """One number, or noise far above what is left of the image, say nothing about the scale of the prior's error."""
    for case, steps in (("fixture B1", 20), ("stationary denoising", 20)):
        with_it, without = (bench(case).learned("exact", steps, innovation=use) for use in (True, False))
        assert with_it["coverage"] == pytest.approx(without["coverage"], abs=0.01)
        assert with_it["sd" if "sd" in with_it else "variance seen"] == pytest.approx(
            without["sd" if "sd" in without else "variance seen"], rel=0.03
        )


SLOW = {
    "twisted",
    "dps",
    "tds",
    "mcgdiff",
    "pnp-dm",
    "daps",
    "daps-published",
}  # a thousand evaluations or more, or many particles
NO_SAMPLERS = {"red-diff", "red-diff-published"}  # images, whose spread is not a posterior's


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in METHODS])
def test_every_method_is_far_nearer_to_the_posterior_than_draws_of_the_prior(name: str, bench) -> None:
    """At its own number of steps, on inpainting; the bar is 5 times, and a method's row in the table far above it."""
    gaussian = bench("Gaussian inpainting")
    few = Bench(gaussian.problem, 100)
    found = few.run(METHODS[name](), samplers.PLAIN)
    assert found["W2"] < few.useless / 5
    assert found["mean error"] < 3  # of prior draws: 18
    assert name in NO_SAMPLERS or math.isfinite(found["coverage"])


def test_every_offer_can_be_made() -> None:
    """Rows of the table are samplers; printable, comparable, and no two alike under one name."""
    for name, offer in samplers.OFFERS.items():
        for steps in offer.steps:
            made = offer.make(steps)
            assert isinstance(made, Sampler) and made == offer.make(steps), name
            assert made.evaluations() > 0


def test_every_conditioning_runs_with_every_integrator(bench) -> None:
    """Or is refused in one line, as draws are that a conditioning cannot make; steps may be as few as four."""
    few = Bench(bench("Gaussian inpainting").problem, 3)
    for rule, knows in samplers.CONDITIONINGS.values():
        for how in samplers.INTEGRATORS.values():
            if how.draws and not rule.draws:
                with pytest.raises(inverse.InputError, match="draws"):
                    DiffusionSampler(rule, how, 4)
            else:
                found = few.run(DiffusionSampler(rule, how, 4), knows)
                assert math.isfinite(found["mean error"]) and found["evaluations"] <= 5


def test_the_command_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(exactness, "Table", partial(tables.Table, folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["exactness.py", "--only", "fixture A2"])
    monkeypatch.setattr(exactness, "OFFERS", {})
    exactness.main()
    first = (tmp_path / "exactness.csv").read_text()
    assert "fixture A2,exact draws,W2" in first and "fixture A2,prior draws,W2" in first
    assert "W2 / floor" in (tmp_path / "exactness.md").read_text()
    monkeypatch.setattr(exactness, "measure", lambda *a, **k: pytest.fail("measured again"))
    monkeypatch.setattr(exactness, "figures", lambda *a, **k: pytest.fail("measured again"))
    exactness.main()
    assert (tmp_path / "exactness.csv").read_text() == first
    assert capsys.readouterr().out.count("fixture A2, exact draws:") == 1
    other = first.replace("data,", "data,1")
    (tmp_path / "exactness.csv").write_text(other)
    with pytest.raises(SystemExit, match="other data"):
        exactness.main()


def test_a_sampler_that_cannot_solve_a_problem_has_no_row() -> None:
    with pytest.raises(inverse.InputError):  # nonlinear
        exactness.certified(line.b2(), samplers.OFFERS["DDS x ancestral"], samplers.PLAIN, 20)
    with pytest.raises(inverse.InputError):  # not known of this prior
        exactness.certified(line.b1(), samplers.OFFERS["learned covariance x bridge"], "calibrated", 5)
