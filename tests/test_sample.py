"""Samples of a prior without data: exact for stationary Gaussians, and what the call keeps to."""

import pytest
import torch
from sampler_cases import relative, stationary

import inverse
from inverse.errors import InputError
from inverse.priors import from_function
from inverse.sample import sample
from inverse.samplers import DDIM, dpm_solver_2m, geometric
from inverse.samplers.integrators import Anchored, Bridge, Heun, SingleStep
from inverse.samplers.problem import Problem

SHAPE = (8, 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("integrator", "steps"), [(None, 1), (None, 2), (None, 7), (Anchored(), 1), (Anchored(), 3)])
def test_samples_of_a_stationary_gaussian_have_its_spectrum(integrator, steps, dtype):
    prior, count = stationary(SHAPE, dtype), 2000
    images = sample(prior, integrator=integrator, samples=count, steps=steps, batch=count, dtype=dtype)
    assert images.shape == (count, *SHAPE) and images.dtype == dtype
    modes = prior.transform.forward(images)
    components = torch.view_as_real(modes) if dtype.is_complex else modes[..., None]
    numbers = count * components.shape[-1]
    # A variance of n numbers is off by sqrt(2/n), 3 % or 2 %; the largest of 48 by four of these.
    power = components.square().mean((0, -1))
    assert float((power / prior.power - 1).abs().max()) < 4.2 * (2 / numbers) ** 0.5
    assert float((power / prior.power).mean()) == pytest.approx(1, abs=4 * (2 / numbers / 48) ** 0.5)
    # And the mean: one standard deviation is 1 / sqrt(count).
    assert float((components.mean(0).abs() / prior.power[..., None].sqrt()).max()) < 4.5 / count**0.5


def test_plain_steps_lack_variance():
    prior = stationary(SHAPE, torch.float64)
    images = sample(prior, integrator=DDIM(1.0), samples=500, steps=5, batch=500, dtype=torch.float64)
    power = prior.transform.forward(images).square().mean(0)
    assert float((power / prior.power).mean()) < 0.8


def test_the_batch_and_the_number_of_samples_do_not_matter():
    prior = stationary(SHAPE)
    whole = sample(prior, samples=5, steps=3, seed=2, dtype=torch.complex128)
    for batch, count in ((1, 5), (2, 5), (16, 3)):
        part = sample(prior, samples=count, steps=3, seed=2, batch=batch, dtype=torch.complex128)
        assert relative(part, whole[:count]) < 1e-12
    assert relative(sample(prior, samples=5, steps=3, seed=3, dtype=torch.complex128), whole) > 0.1


@pytest.mark.parametrize("integrator", [Bridge(), Heun(), Heun(5.0), SingleStep(), dpm_solver_2m()], ids=str)
def test_any_integrator_on_any_grid(integrator):
    prior = stationary(SHAPE)
    for grid in (geometric(4, 20.0, 0.1), (5.0, 1.0, 0.0), [3.0, 0.0], (9.0, 4.0)):
        images = sample(prior, integrator=integrator, grid=grid, samples=2, dtype=torch.complex128)
        assert images.shape == (2, *SHAPE) and bool(torch.isfinite(images.abs()).all())


def test_kinds_of_images_follow_the_prior():
    colour = from_function(lambda x, sigma: x / (1 + sigma**2), channels=3)
    assert sample(colour, (3, 8, 6), samples=2, steps=2).shape == (2, 3, 8, 6)
    assert sample(from_function(lambda x, sigma: x), SHAPE, steps=2).dtype == torch.float32
    assert sample(from_function(lambda x, sigma: x, channels=2), SHAPE, steps=2).dtype == torch.complex64


def test_evaluations_are_those_asked_for():
    calls = []

    def denoise(x, sigma):
        calls.append(sigma)
        return x / (1 + sigma**2)

    for integrator, count in ((None, 7), (SingleStep(), 7), (Heun(), 7), (dpm_solver_2m(), 7)):
        calls.clear()
        sample(from_function(denoise), SHAPE, integrator, steps=7)
        assert len(calls) == count


def test_the_shipped_prior_draws_images():
    images = sample("brain-mr", (32, 32), samples=2, steps=4, seed=1)
    # In the prior's scale: bright and dark, nothing beyond twice its 99.9th percentile of 0.9.
    assert images.shape == (2, 32, 32) and 0.05 < float(images.abs().square().mean().sqrt()) < 1
    assert float(images.abs().max()) < 1.8


def test_a_problem_without_data_asks_for_nothing():
    problem = Problem.without_data(SHAPE, 3, dtype=torch.complex64)
    x = torch.ones(3, *SHAPE, dtype=torch.complex64)
    assert float(problem.gram(x).abs().max()) == 0 and float(problem.residual(x).max()) == 0
    assert problem.adjoint_y.shape == x.shape and problem.take([0, 2]).y.shape == (2, *SHAPE)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample(from_function(lambda x, sigma: x)),
        lambda: sample(stationary(SHAPE), (9, 9)),
        lambda: sample(stationary(SHAPE), dtype=torch.float64),
        lambda: sample(stationary(SHAPE), samples=0),
        lambda: sample(stationary(SHAPE), batch=0),
        lambda: sample(stationary(SHAPE), steps=0),
        lambda: sample(stationary(SHAPE), grid=[1.0, 2.0]),
        lambda: sample("no-such-prior", SHAPE),
    ],
)
def test_bad_input_is_one_line(call):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    assert inverse.InputError is InputError
