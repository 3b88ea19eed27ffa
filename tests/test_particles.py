"""Particles: resampling, weights and evidence by exact values, and systems that know nothing of each other."""

import math

import pytest
import torch
from sampler_cases import EXACT, mri, observe, randn, stationary

from inverse.errors import InputError
from inverse.random import SampleRandom
from inverse.samplers import Problem
from inverse.samplers.particles import (
    ParticleRandom,
    Particles,
    checked_particles,
    effective_size,
    number_of_levels,
    squares,
    systematic,
)
from inverse.samplers.problem import Work

WEIGHTS = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)


def test_systematic_resampling_by_hand():
    # Points .125, .375, .625, .875 in cumulated weights .1, .3, .6, 1 and .97, .98, .99, 1.
    found = systematic(WEIGHTS.log(), torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert found.tolist() == [[1, 2, 3, 3], [0, 0, 0, 0]]


def test_every_particle_is_taken_floor_or_ceil_of_its_share_and_that_on_average():
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    for weights in WEIGHTS:
        found = systematic(weights.log().expand(1000, 4), uniform)
        counts = torch.stack([(found == p).sum(1) for p in range(4)], 1).double()
        assert bool((counts >= (4 * weights - 1e-9).floor()).all()) and bool((counts <= (4 * weights).ceil()).all())
        # Midpoints of 1000 intervals: exact to one of them.
        torch.testing.assert_close(counts.mean(0), 4 * weights, rtol=0, atol=1.1e-3)


def test_weights_far_apart_and_far_from_zero_are_harmless():
    log_weights = torch.tensor([[-1e6, -1e6 - 800.0, -1e6 + 1.0]], dtype=torch.float64)
    assert systematic(log_weights, torch.tensor([0.999999], dtype=torch.float64)).max() == 2
    share = torch.tensor([1.0, math.e], dtype=torch.float64) / (1 + math.e)
    assert float(effective_size(log_weights)) == pytest.approx(float(1 / share.square().sum()), rel=1e-9)


def test_effective_size_by_hand():
    weights = torch.tensor([[1.0, 1, 1, 1], [0, 1, 0, 0], [3, 3, 0, 0], [1, 2, 3, 4]], dtype=torch.float64)
    expected = torch.tensor([4.0, 1, 2, 100 / 30], dtype=torch.float64)
    torch.testing.assert_close(effective_size(weights.log()), expected, rtol=EXACT, atol=0)


def test_resampling_happens_below_the_threshold_alone_and_equals_the_weights():
    cloud = Particles(SampleRandom(0, range(2)), 4)
    size = cloud.reweight(torch.tensor([[2.0, 2, 2, 2], [100, 0, 0, 0]]).flatten())
    torch.testing.assert_close(size, torch.tensor([4.0, 1.0], dtype=torch.float64), rtol=1e-9, atol=0)
    assert cloud.resample(0.5).tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert cloud.log_weights.tolist() == [[2.0] * 4, [0.0] * 4]
    assert cloud.resample(2.0).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]  # equal weights, every particle once
    assert Particles(SampleRandom(0, range(2)), 4).resample(0.0).tolist() == list(range(8))


def test_the_evidence_is_the_product_of_mean_weights_across_resampling():
    increments = randn(3, 2, 5, dtype=torch.float64)
    cloud = Particles(SampleRandom(0, range(2)), 5)
    expected = torch.zeros(2, dtype=torch.float64)
    for step in increments:
        cloud.reweight(step.flatten())
        expected += step.exp().mean(1).log()
        cloud.resample(2.0)
    torch.testing.assert_close(cloud.log_evidence, expected, rtol=EXACT, atol=EXACT)
    # Without resampling: the mean of the products.
    cloud = Particles(SampleRandom(0, range(2)), 5)
    for step in increments:
        cloud.reweight(step.flatten())
    torch.testing.assert_close(cloud.log_evidence, increments.sum(0).exp().mean(1).log(), rtol=EXACT, atol=EXACT)


def test_one_particle_is_chosen_by_weight():
    systems = 4000
    cloud = Particles(SampleRandom(0, range(systems)), 4)
    cloud.reweight(WEIGHTS[0].log().repeat(systems))
    rows = cloud.choose()
    assert bool((rows // 4 == torch.arange(systems)).all())
    shares = torch.bincount(rows % 4, minlength=4) / systems
    assert float((shares - WEIGHTS[0]).abs().max()) < 4 * math.sqrt(0.25 / systems)  # four standard deviations


def test_systems_have_streams_of_their_own():
    whole = ParticleRandom(SampleRandom(3, range(4)), 5)
    part = ParticleRandom(SampleRandom(3, [2]), 5)
    noise = whole.normal((2, 3), dtype=torch.complex64)
    assert noise.shape == (20, 2, 3) and len(whole) == 20
    assert torch.equal(noise[10:15], part.normal((2, 3), dtype=torch.complex64))
    uniform = whole.uniform()
    assert uniform.shape == (4,) and torch.equal(uniform[2:3], part.uniform())
    assert bool(((uniform > 0) & (uniform < 1)).all())
    mirrored = ParticleRandom(SampleRandom(3, [2], signs=[-1.0]), 5)
    mirrored.normal((2, 3), dtype=torch.complex64)
    torch.testing.assert_close(mirrored.uniform(), 1 - uniform[2:3], rtol=1e-12, atol=0)


def test_rows_are_repeated_and_their_work_is_booked_on_the_sample():
    operator = mri()
    problem = Problem.build(operator, observe(operator, randn(2, 8, 6), 0.1), 0.1)
    cloud = Particles(SampleRandom(0, range(2)), 3)
    many = cloud.spread(problem)
    assert torch.equal(many.y, problem.y[[0, 0, 0, 1, 1, 1]]) and torch.equal(
        many.energy[3:], problem.energy[[1, 1, 1]]
    )
    assert torch.equal(many.adjoint_y[2:4], problem.adjoint_y)
    many.denoise(stationary((8, 6)), many.adjoint_y, 1.0)
    many.gram(many.adjoint_y)
    assert problem.work == Work()
    cloud.charge(problem, many.work)
    assert problem.work == Work(nfe=3, grams=3.0)


def test_squares_are_summed_in_double_precision():
    x = torch.full((1, 2**20), 0.1, dtype=torch.float32)
    assert float(squares(x)) == pytest.approx(2**20 * float(torch.tensor(0.1)) ** 2, rel=1e-10)
    assert float(squares(torch.tensor([[3 + 4j]], dtype=torch.complex64))) == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("steps", "particles", "threshold", "grid"),
    [
        (0, 8, 0.5, None),
        (8, 0, 0.5, None),
        (8, 8, -0.1, None),
        (8, 8, math.nan, None),
        (8, 8, 0.5, (1.0, 0.5)),
        (8, 8, 0.5, (0.5, 1.0, 0.0)),
    ],
)
def test_bad_settings_are_one_line(steps, particles, threshold, grid):
    with pytest.raises(InputError) as error:
        checked_particles(steps, particles, threshold, grid)
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def test_levels_are_as_many_as_the_evaluations_allow():
    assert [number_of_levels(n, 8, None) for n in (1, 8, 15, 16, 160)] == [1, 1, 1, 2, 20]
    assert number_of_levels(160, 8, checked_particles(160, 8, 0.5, (2.0, 1.0, 0.0))) == 2
