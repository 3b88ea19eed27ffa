"""The innovation: near 1 when all fits, led by what is wrong and not by chance, and the error along a phase."""

import pytest
import torch
from sampler_cases import mri, observe, randn, stationary
from torch import Tensor

from inverse.operators import Identity
from inverse.random import SampleRandom
from inverse.samplers import Bridge, DiffusionSampler, LearnedCovariance, Problem
from inverse.samplers.covariance import CovarianceFactor, modes_of
from inverse.samplers.innovation import beyond_chance, corrected, share_along


def innovation_curve(factor: float = 1.0, noise: float = 1.0) -> list[float]:
    """Innovation per level; images are `factor` times those of the prior, noise is `noise` times the stated."""
    operator, prior = mri((16, 16), coils=4, every=2), stationary((16, 16))
    x0 = factor * prior.sample(16, torch.Generator().manual_seed(5))
    y = observe(operator, x0, 0.1 * noise)
    sampler = DiffusionSampler(LearnedCovariance(), Bridge(), 8)
    return [k for _, k in sampler.run(Problem.build(operator, y, 0.1), prior, samples=1, seed=0).info["innovation"]]


def test_the_innovation_is_near_one_when_all_fits():
    curve = innovation_curve()
    # Mean of 16 images; the spread of one is about sqrt(2 / 2) / sqrt(20 independent modes), a standard error of 0.06.
    assert len(curve) == 8 and all(0.75 < k < 1.25 for k in curve), curve


def test_the_innovation_shows_a_wrong_scale_where_the_prior_decides():
    curve = innovation_curve(factor=3.0)
    assert min(curve[:3]) > 4, curve  # 9 at the first level, where x carries nothing


def test_the_innovation_shows_noise_that_is_stated_too_low():
    curve = innovation_curve(noise=3.0)
    assert curve[-1] > 3, curve  # the data miss the image by more than the stated noise explains
    assert innovation_curve(noise=0.2)[-1] < 0.75  # and by less where it is stated too high


def corrected_share(along: float, across: float, *, sigma_y: float = 0.05, every: int = 1) -> tuple[Tensor, Tensor]:
    """k and a of 8 images whose errors have these variances along the phase of D and across it, 1 being stated."""
    shape = (48, 40)
    operator, prior = mri(shape, coils=4, every=every), stationary(shape)
    error = prior.sample(8, torch.Generator().manual_seed(1))
    error = torch.complex(along**0.5 * error.real, across**0.5 * error.imag)
    turn = torch.linspace(0, 6, shape[0], dtype=torch.float64)[:, None] * torch.ones(shape, dtype=torch.float64)
    phase = torch.polar(torch.ones_like(turn), turn)
    denoised = (5 * phase).expand(8, *shape)
    problem = Problem.build(operator, observe(operator, denoised + phase * error, sigma_y), sigma_y)
    std = torch.ones(8, *shape, dtype=torch.float64)
    factor = CovarianceFactor(modes_of(denoised), std, prior.power.sqrt())
    fitted, k = corrected(problem, denoised, factor, SampleRandom(3, range(8)))
    assert fitted.phase is not None
    torch.testing.assert_close(fitted.phase, phase.expand(8, *shape))
    variance = fitted.std.square()
    a = (variance[..., 0] - variance[..., 1]) / variance.sum(-1)
    assert float((a - a[:, :1, :1]).abs().max()) < 1e-12  # one share per image
    torch.testing.assert_close(variance.mean(-1)[:, 0, 0], k * std[:, 0, 0] ** 2)
    return k, a[:, 0, 0]


@pytest.mark.parametrize(("along", "across", "share"), [(1.6, 0.4, 0.6), (0.4, 1.6, -0.6), (2.0, 0.0, 0.98)])
def test_the_share_of_the_error_along_the_phase_is_found(along, across, share):
    k, a = corrected_share(along, across)
    # Powers of some hundred modes: 0.1 in a for one image, 0.03 for the mean of 8.
    assert float(a.mean()) == pytest.approx(share, abs=0.04)
    assert float(k.mean()) == pytest.approx(1.0, abs=0.15)


def test_the_share_is_found_of_undersampled_data():
    a = corrected_share(1.8, 0.2, every=3)[1]
    assert float(a.mean()) == pytest.approx(0.8, abs=0.08)


def test_errors_without_a_preferred_phase_are_left_alone():
    assert float(corrected_share(1.0, 1.0)[1].abs().max()) < 0.15


def test_noise_above_all_errors_says_nothing_about_the_phase():
    assert float(corrected_share(1.8, 0.2, sigma_y=50.0)[1].abs().max()) < 0.3


def test_the_share_solves_its_equations():
    """Powers as they are expected, p = 3, q = 1 in one band and 2, 1.5 in the other."""
    k, a = 1.7, 0.4
    own = 2 * k * torch.tensor([[[3.0, 2.0], [1.0, 1.5]]], dtype=torch.float64)
    along, across = (1 + a) / 2, (1 - a) / 2
    power = torch.stack([along * own[:, 0] + across * own[:, 1], along * own[:, 1] + across * own[:, 0]], 1)
    many = torch.tensor([1e9, 1e9], dtype=torch.float64)
    assert float(share_along(power, own, torch.zeros_like(own), many)) == pytest.approx(a, rel=1e-6)
    few = torch.tensor([14.0, 14.0], dtype=torch.float64)
    assert float(share_along(power, own, torch.zeros_like(own), few)) == 0.0


def test_what_chance_explains_is_dropped_and_more_is_kept():
    value = torch.tensor([0.5, -2.0, 4.0, 1e6, 0.0])
    kept = beyond_chance(value, torch.ones(5))
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.0, 0.75, 1.0, 0.0]))


def test_a_real_image_has_no_phase():
    operator_image = randn(1, 8, 6, dtype=torch.float64)
    problem = Problem.build(Identity((8, 6), dtype=torch.float64), operator_image, 0.1)
    factor = CovarianceFactor(modes_of(operator_image), torch.ones(1, 8, 6).double(), torch.ones(8, 6).double())
    fitted, k = corrected(problem, 0 * operator_image, factor, SampleRandom(0, [0]))
    assert fitted.phase is None and torch.equal(fitted.std, k.sqrt() * factor.std)


def test_frames_share_what_is_found():
    """Images with more axes than rows and columns: one share for each item."""
    frames = stationary((24, 20)).sample(4 * 3, torch.Generator().manual_seed(1)).reshape(4, 3, 24, 20)
    denoised = torch.full_like(frames, 5.0)
    error = torch.complex(1.8**0.5 * frames.real, 0.2**0.5 * frames.imag)
    operator = Identity((3, 24, 20), dtype=torch.complex128)
    problem = Problem.build(operator, observe(operator, denoised + error, 0.05), 0.05)
    gain = stationary((24, 20)).power.sqrt()
    factor = CovarianceFactor(modes_of(denoised), torch.ones(4, 1, 24, 20).double(), gain)
    fitted, _ = corrected(problem, denoised, factor, SampleRandom(3, range(4)))
    variance = fitted.std.square()
    a = (variance[..., 0] - variance[..., 1]) / variance.sum(-1)
    assert a.shape == (4, 1, 24, 20) and float(a.mean()) == pytest.approx(0.8, abs=0.08)
    assert fitted.apply(denoised).shape == denoised.shape
