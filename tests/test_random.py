"""Randomness: one stream per sample, whatever the batch, the order, or what else draws."""

import pytest
import torch

from inverse.random import SampleRandom


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_a_sample_draws_the_same_in_any_batch_and_order(dtype):
    together = SampleRandom(7, range(5))
    order = [3, 0, 4]
    picked = SampleRandom(7, order)
    for shape in ((4, 3), (2,)):  # the second draw continues the stream
        all_of_them, some = together.normal(shape, dtype=dtype), picked.normal(shape, dtype=dtype)
        assert all_of_them.shape == (5, *shape) and all_of_them.dtype == dtype
        assert torch.equal(some, all_of_them[order])


def test_draws_go_on():
    random = SampleRandom(0, [0])
    assert not torch.equal(random.normal((8,)), random.normal((8,)))


def test_precisions_share_the_numbers():
    single, double = (SampleRandom(1, [2]).normal((9,), dtype=d) for d in (torch.complex64, torch.complex128))
    assert torch.equal(single.to(torch.complex128), double)


@pytest.mark.parametrize("other", [(1, [0]), (0, [1]), (-1, [0]), (2**40, [0])], ids=str)
def test_neighbouring_seeds_and_samples_are_unrelated(other):
    n = 20000
    a, b = SampleRandom(0, [0]).normal((n,)), SampleRandom(*other).normal((n,))
    # Correlation of independent draws: 4 standard errors 1 / sqrt(n).
    assert abs(float((a * b).mean())) < 4 / n**0.5


def test_pairs_of_seed_and_sample_do_not_collide():
    first = {float(SampleRandom(s, [i]).normal((1,), dtype=torch.float64)) for s in range(12) for i in range(12)}
    pairs = {float(SampleRandom(0, [(i, b)]).normal((1,))) for i in range(12) for b in range(12)}
    # 24 bits of a float32 draw: two of 144 agree by chance once in 1000.
    assert len(first) == 144 and len(pairs) == 144


def test_each_part_is_standard_normal():
    n = 40000
    draws = SampleRandom(3, [0]).normal((n,), dtype=torch.complex128)
    for part in (draws.real, draws.imag):
        # 4 standard errors of mean, variance and fourth moment (variance 96 / n).
        assert abs(float(part.mean())) < 4 / n**0.5
        assert abs(float((part**2).mean()) - 1) < 4 * (2 / n) ** 0.5
        assert abs(float((part**4).mean()) - 3) < 4 * (96 / n) ** 0.5
    assert abs(float((draws.real * draws.imag).mean())) < 4 / n**0.5


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    SampleRandom(0, range(3)).normal((4,))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    first = SampleRandom(0, [1]).normal((4,))
    torch.manual_seed(100)
    assert torch.equal(SampleRandom(0, [1]).normal((4,)), first)


def test_a_batch_of_none_draws_none():
    empty = SampleRandom(0, [])
    assert len(empty) == 0 and empty.normal((3, 2)).shape == (0, 3, 2)
