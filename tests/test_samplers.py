"""Grids, integrators and the loop: exact values, orders of convergence, and what every sampler keeps to."""

import itertools
import math
import pickle

import pytest
import torch
from sampler_cases import EXACT, GRIDS, PROBLEMS, SAMPLERS, Recorder, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError, SamplingError
from inverse.priors import from_function
from inverse.samplers import (
    DDIM,
    DDS,
    METHODS,
    DiffusionSampler,
    Estimate,
    LearnedCovariance,
    Problem,
    choose,
    ddpm_linear,
    default_grid,
    geometric,
    karras,
)

# Timestep of the linear-beta schedule of 1000 levels: sigma, four digits.
LINEAR = {
    0: 0.01000,
    20: 0.0794,
    40: 0.1437,
    60: 0.2085,
    100: 0.3423,
    200: 0.7236,
    300: 1.2402,
    500: 3.4430,
    800: 25.736,
    980: 130.144,
    999: 157.407,
}


@pytest.mark.parametrize("t", LINEAR)
def test_the_linear_schedule_has_the_published_levels(t):
    sigma = float(ddpm_linear(1000)[999 - t])
    # 1e-4, or half a unit of the last digit given.
    assert abs(sigma - LINEAR[t]) <= max(1e-4 * LINEAR[t], 5e-5)


@pytest.mark.parametrize(("steps", "first"), [(50, 980), (20, 950), (100, 990), (30, 966), (600, 998), (1, 0)])
def test_the_linear_grid_spreads_over_all_levels_down_to_the_first(steps, first):
    grid, all_levels = ddpm_linear(steps), ddpm_linear(1000)
    assert len(grid) == steps + 1 and float(grid[-1]) == 0.0
    assert float(grid[0]) == float(all_levels[999 - first]) and float(grid[-2]) == float(all_levels[999])


@pytest.mark.parametrize("steps", [2, 5, 40])
@pytest.mark.parametrize("name", GRIDS)
def test_grids_fall_from_the_largest_to_the_smallest_level_then_to_zero(name, steps):
    grid = GRIDS[name](steps)
    assert grid.shape == (steps + 1,) and grid.dtype == torch.float64 and float(grid[-1]) == 0.0
    assert bool((grid[1:] < grid[:-1]).all())
    ends = GRIDS[name](2)[:2]
    torch.testing.assert_close(grid[[0, -2]], ends, rtol=EXACT, atol=0)


def test_karras_levels_are_even_in_the_root():
    root = karras(9, 80.0, 0.002)[:-1] ** (1 / 7)
    torch.testing.assert_close(root[:-1] - root[1:], (root[0] - root[-1]).expand(8) / 8, rtol=1e-10, atol=0)
    assert abs(float(karras(3, 80.0, 0.002)[1]) - ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7) < 1e-10


def test_geometric_levels_have_one_ratio():
    grid = geometric(5, 16.0, 1.0)
    torch.testing.assert_close(grid, torch.tensor([16.0, 8, 4, 2, 1, 0], dtype=torch.float64), rtol=EXACT, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 20, 1000])
def test_the_default_grid_stays_in_the_range_of_the_prior(steps):
    narrow = from_function(lambda x, sigma: x, data_std=0.3, sigma_min=0.01, sigma_max=5.0)
    wide = from_function(lambda x, sigma: x, data_std=0.3, sigma_max=1000.0)
    assert float(default_grid(narrow, steps)[0]) == pytest.approx(5.0)
    assert float(default_grid(wide, steps)[0]) == pytest.approx(25 * 0.3)
    assert len(default_grid(wide, steps)) == steps + 1
    if steps > 1:
        assert float(default_grid(narrow, steps)[-2]) == pytest.approx(max(0.01, 0.8 * 0.3 / steps))


@pytest.mark.parametrize(
    "build",
    [
        lambda: karras(0, 1.0, 0.1),
        lambda: karras(5, 0.1, 1.0),
        lambda: karras(5, 1.0, 0.0),
        lambda: karras(5, math.inf, 0.1),
        lambda: geometric(5, 1.0, -0.1),
        lambda: ddpm_linear(0),
        lambda: ddpm_linear(1001),
        lambda: DiffusionSampler(DDS(), steps=0),
        lambda: DiffusionSampler(DDS(), start="image"),
        lambda: DiffusionSampler(DDS(), grid=(1.0,)),
        lambda: DiffusionSampler(DDS(), grid=(1.0, 2.0)),
        lambda: DiffusionSampler(DDS(), grid=(1.0, 1.0, 0.0)),
        lambda: DiffusionSampler(DDS(), grid=(1.0, -1.0)),
        lambda: DiffusionSampler(DDS(), grid=(math.nan, 0.0)),
        lambda: DDIM(1.1),
        lambda: DDIM(-0.1),
        lambda: DDIM(1.0, direction="prior"),
        lambda: choose("ddpm", stationary((8, 6))),
        lambda: choose("dds-published", stationary((8, 6)), 2000),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def parts(integrator: DDIM, sigma: float, sigma_next: float) -> tuple[float, float]:
    """Share of e = (x - x0) / sigma and of fresh noise in x at sigma_next, x0 = 0."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    estimate = Estimate(zero, zero)
    kept = integrator.step(sigma * one, estimate, sigma, sigma_next, lambda: zero)
    fresh = integrator.step(zero, estimate, sigma, sigma_next, lambda: one)
    return float(kept), float(fresh)


@pytest.mark.parametrize(("t", "factor"), [(980, 0.57), (500, 0.44), (300, 0.43), (100, 0.60), (40, 0.83)])
def test_eta_of_ddim_shrinks_with_the_step_and_eta_of_dds_does_not(t, factor):
    # 50 steps: 20 timesteps apart; two digits.
    levels = ddpm_linear(1000)
    sigma, sigma_next = float(levels[999 - t]), float(levels[999 - t + 20])
    assert parts(DDIM(1.0), sigma, sigma_next)[1] == pytest.approx(factor * sigma_next, abs=0.005 * sigma_next)
    assert parts(DDIM(0.5), sigma, sigma_next)[1] == pytest.approx(0.5 * factor * sigma_next, abs=0.005 * sigma_next)
    kept, fresh = parts(DDIM(0.85, "dds"), sigma, sigma_next)
    assert fresh == pytest.approx(0.85 * sigma_next) and kept == pytest.approx(math.sqrt(1 - 0.85**2) * sigma_next)


@pytest.mark.parametrize("integrator", [DDIM(0.0), DDIM(0.5), DDIM(1.0), DDIM(0.85, "dds")], ids=str)
def test_a_step_keeps_the_variance_of_the_noise(integrator):
    for sigma, sigma_next in ((10.0, 9.0), (10.0, 0.1), (0.01, 0.009)):
        kept, fresh = parts(integrator, sigma, sigma_next)
        assert kept**2 + fresh**2 == pytest.approx(sigma_next**2, rel=1e-12)


def test_an_ancestral_step_is_the_bridge_between_x_and_x0():
    # x' | x, x0 of a variance-exploding diffusion: weight sigma'^2/sigma^2, variance sigma'^2 (1 - sigma'^2/sigma^2).
    kept, fresh = parts(DDIM(1.0), 2.0, 1.5)
    assert kept / 2.0 == pytest.approx(1.5**2 / 2.0**2, rel=1e-12)
    assert fresh**2 == pytest.approx(1.5**2 * (1 - 1.5**2 / 2.0**2), rel=1e-12)


def test_a_deterministic_step_draws_nothing_and_the_last_step_returns_the_estimate():
    estimate = Estimate(torch.tensor([2.0]), torch.tensor([1.0]))
    x = torch.tensor([5.0])
    assert float(DDIM(0.0).step(x, estimate, 2.0, 1.0, no_noise)) == 3.5
    assert float(DDIM(0.0, direction="unconditioned").step(x, estimate, 2.0, 1.0, no_noise)) == 4.0
    assert DDIM(1.0).step(x, estimate, 2.0, 0.0, no_noise) is estimate.x0


def no_noise() -> Tensor:
    raise AssertionError("drew noise")


def end_of_ode(steps: int, s: float = 0.7) -> float:
    """DDIM on the ODE of N(0, s^2) from x = 1 at sigma 10 to 0.05."""
    x = torch.ones(1, dtype=torch.float64)
    for sigma, sigma_next in itertools.pairwise(karras(steps + 1, 10.0, 0.05)[:-1].tolist()):
        x0 = s**2 / (s**2 + sigma**2) * x
        x = DDIM(0.0).step(x, Estimate(x0, x0), sigma, sigma_next, no_noise)
    return float(x)


def test_deterministic_ddim_converges_with_order_one():
    exact = math.sqrt((0.7**2 + 0.05**2) / (0.7**2 + 10.0**2))
    errors = [abs(end_of_ode(n) - exact) for n in (50, 100, 200, 400)]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # Order 1; the next term of the error is of relative size 1/n.
    assert all(0.9 < slope < 1.1 for slope in slopes) and abs(slopes[-1] - 1) < 0.03, slopes


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_variance_preserving_and_exploding_frames_agree(eta):
    # 50 steps of the usual DDIM formula on x_vp = alpha x, with the same noise; float32 would add 1e-5.
    levels = ddpm_linear(50).tolist()
    noises = randn(50, 4, dtype=torch.float64)
    x = levels[0] * randn(4, dtype=torch.float64, seed=1)
    vp = x / math.sqrt(1 + levels[0] ** 2)
    for (sigma, sigma_next), noise in zip(itertools.pairwise(levels), noises, strict=True):
        abar, abar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
        x0_vp = 0.49 * (vp / math.sqrt(abar)) / (0.49 + sigma**2)
        eps = (vp - math.sqrt(abar) * x0_vp) / math.sqrt(1 - abar)
        k = eta * math.sqrt((1 - abar_next) / (1 - abar)) * math.sqrt(1 - abar / abar_next)
        vp = math.sqrt(abar_next) * x0_vp + math.sqrt(1 - abar_next - k**2) * eps + k * noise
        x0 = 0.49 * x / (0.49 + sigma**2)
        x = DDIM(eta).step(x, Estimate(x0, x0), sigma, sigma_next, lambda noise=noise: noise)
    assert relative(x, vp) < 1e-9  # alpha is 1 at the end; 50 steps of rounding


def problem_of(name: str, items: int = 2) -> tuple[Problem, object, Tensor]:
    operator, prior = PROBLEMS[name]()
    x0 = prior.sample(items, torch.Generator().manual_seed(4)).to(operator.in_dtype)
    return Problem.build(operator, observe(operator, x0, 0.1), 0.1), prior, x0


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_fits_every_problem(sampler, problem):
    built, prior, _ = problem_of(problem)
    kept = built.y.clone()
    solution = SAMPLERS[sampler].run(built, prior, samples=3, seed=0)
    assert solution.samples.shape == (3, 2, *built.operator.in_shape)
    assert solution.samples.dtype == built.operator.in_dtype and bool(torch.isfinite(solution.samples.abs()).all())
    assert solution.residual.shape == (3, 2) and solution.stats.nfe == SAMPLERS[sampler].evaluations()
    assert torch.equal(built.y, kept) and solution.info["grid"][-1] == 0.0
    assert built.work.nfe == 0  # counters belong to the run


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_do_not_depend_on_the_batch(sampler):
    built, prior, _ = problem_of("mri", items=2)
    whole = SAMPLERS[sampler].run(built, prior, samples=3, seed=5)
    for batch in (1, 4):
        parts = SAMPLERS[sampler].run(built, prior, samples=3, seed=5, batch=batch)
        # Rounding of two ways to apply A^H A, carried through CG.
        assert relative(parts.samples, whole.samples) < 1e-8
    fewer = SAMPLERS[sampler].run(built, prior, samples=1, seed=5)
    assert relative(fewer.samples[0], whole.samples[0]) < 1e-8
    other = SAMPLERS[sampler].run(built, prior, samples=1, seed=6)
    assert relative(other.samples[0], whole.samples[0]) > 1e-3


# published constants and one step promise less, and so do TMPD's row sums, for which coils are not near enough diagonal
@pytest.mark.parametrize(
    "sampler", [name for name in SAMPLERS if not any(word in name for word in ("published", "one step", "tmpd"))]
)
def test_the_posterior_is_nearer_than_the_prior(sampler):
    built, prior, x0 = problem_of("mri", items=8)
    solution = SAMPLERS[sampler].run(built, prior, samples=4, seed=0)
    error = float((solution.mean - x0).abs().square().mean())
    # The prior's own draws are off by twice the variance of the images; measured are 3 of 5 lines by 3 coils.
    assert error < 0.2 * float(x0.abs().square().mean())
    assert 0.3 < float(solution.residual.mean()) < 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_compare_print_and_pickle(sampler):
    sampler = SAMPLERS[sampler]
    assert pickle.loads(pickle.dumps(sampler)) == sampler and type(sampler).__name__ in repr(sampler)
    more = sampler.with_steps(32)
    assert sampler.evaluations() != more.evaluations() and more != sampler


def test_levels_are_visited_in_order_and_the_callback_sees_them():
    built, prior, _ = problem_of("mri")
    recorder, seen = Recorder(DDS()), []
    sampler = DiffusionSampler(recorder, steps=4)
    sampler.run(built, prior, samples=1, seed=0, callback=lambda step, sigma, x0: seen.append((step, sigma, x0.shape)))
    levels = default_grid(prior, 4)[:-1].tolist()
    assert [call[0] for call in recorder.calls] == levels
    assert seen == [(k, sigma, (2, 8, 6)) for k, sigma in enumerate(levels)]


def test_a_grid_that_ends_above_zero_leaves_its_noise():
    built, prior, _ = problem_of("mri")
    ending = DiffusionSampler(DDS(), grid=(20.0, 5.0, 2.0)).run(built, prior, samples=20, seed=0)
    # x at sigma 2: noise of 2 per real component and little else.
    assert float(ending.samples.abs().square().mean()) == pytest.approx(2 * 2.0**2, rel=0.3)


def test_progress_counts_images_times_levels():
    class Count:
        steps = 0

        def advance(self, steps: int = 1, note: str = "") -> None:
            self.steps += steps

    built, prior, _ = problem_of("mri")
    count = Count()
    DiffusionSampler(DDS(), steps=4).run(built, prior, samples=3, seed=0, batch=2, progress=count)
    assert count.steps == 4 * 3 * 2


def test_out_of_memory_halves_the_batch_and_says_so():
    built, prior, _ = problem_of("mri")

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("no room")
        return prior.denoise(x, sigma)

    small = from_function(denoiser, channels=2)
    solution = DiffusionSampler(DDS(), steps=3).run(built, small, samples=4, seed=0)
    expected = DiffusionSampler(DDS(), steps=3).run(built, small, samples=4, seed=0, batch=2)
    assert relative(solution.samples, expected.samples) < 1e-8
    assert solution.info["notes"] == [f"out of device memory: went on with {n} images per network call" for n in (4, 2)]


def test_out_of_memory_with_one_image_is_passed_on():
    def denoiser(x: Tensor, sigma: float) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    built, _, _ = problem_of("mri")
    with pytest.raises(torch.OutOfMemoryError):
        DiffusionSampler(DDS(), steps=3).run(built, from_function(denoiser, channels=2), samples=1, seed=0)


class BrokenVariance(type(stationary((2, 2)))):
    """States NaN for its own error below sigma 1."""

    def mse(self, sigma: float) -> float:
        return math.nan if sigma < 1 else super().mse(sigma)


def test_not_a_number_names_the_part_the_step_and_the_level():
    built, prior, _ = problem_of("mri")
    grid = (20.0, 4.0, 0.5, 0.0)
    bad = from_function(lambda x, sigma: prior.denoise(x, sigma) / (0.0 if sigma < 1 else 1.0), channels=2)
    with pytest.raises(SamplingError, match=r"the prior's estimate at step 2 \(sigma 0\.5\)"):
        DiffusionSampler(DDS(), grid=grid).run(built, bad, samples=1, seed=0)
    broken = BrokenVariance(prior.shape, prior.power, prior.dtype)
    with pytest.raises(SamplingError, match=r"the data step at step 2 \(sigma 0\.5\)"):
        DiffusionSampler(DDS(), grid=grid).run(built, broken, samples=1, seed=0)


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_names(name):
    prior = stationary((8, 6))
    sampler, reason = choose(name, prior)
    assert reason == "by name" and choose(sampler, prior) == (sampler, "given")
    for chosen in (choose(name, prior, 640)[0], choose(sampler, prior, 640)[0]):
        assert 600 <= chosen.evaluations() <= 640  # whole sweeps, and one level of 64 particles, are the coarsest steps


def test_auto_takes_the_learned_covariance_and_says_why():
    sampler, reason = choose("auto", stationary((8, 6)))
    assert isinstance(sampler.conditioning, LearnedCovariance) and "spectrum" in reason
    assert "neither" in choose("auto", stationary((8, 6), spectrum=False))[1]


def test_the_residual_is_near_one_for_the_truth():
    operator, prior = mri((16, 16), coils=4), stationary((16, 16))
    x0 = prior.sample(8, torch.Generator().manual_seed(4))
    built = Problem.build(operator, observe(operator, x0, 0.2), 0.2)
    # sqrt(chi^2_m / m), m about 1100: a standard deviation of 0.021.
    assert bool(((built.residual(x0) - 1).abs() < 4 * 0.0215).all())
    energy = built.residual_energy(x0, operator.gram(x0))
    assert relative(energy, (built.residual(x0) * 0.2) ** 2 * operator.measurements) < 1e-9


def test_what_was_not_measured_is_ignored():
    operator = mri()
    y = observe(operator, randn(1, 8, 6), 0.1)
    dirty = y + 5 * (1 - operator.weights)
    clean, other = (Problem.build(operator, data, 0.1) for data in (y, dirty))
    assert torch.equal(clean.y, other.y) and torch.equal(clean.energy, other.energy)
