"""Learned covariance: exact for stationary Gaussian images, honest about its fit, alike with and without tricks."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from sampler_cases import EXACT, dense, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError
from inverse.linalg import inner, norm
from inverse.operators import LinearOperator, Mask, MultiCoilMRI
from inverse.priors import GaussianPrior, StationaryGaussianPrior
from inverse.random import SampleRandom
from inverse.samplers import DDIM, DDS, Bridge, DiffusionSampler, LearnedCovariance, Problem
from inverse.samplers.covariance import CovarianceFactor, draw, modes_of
from inverse.samplers.start import from_data

SOLVED = {"iterations": 300, "rtol": 1e-12, "tolerance": 0.0}
EXACT_DRAWS = LearnedCovariance(innovation=False, iterations=60, rtol=1e-6, tolerance=0.0)


def as_gaussian(prior: StationaryGaussianPrior) -> GaussianPrior:
    """The prior as a dense Gaussian: covariance F^H diag(power) F."""
    n = math.prod(prior.shape)
    units = torch.eye(n, dtype=prior.dtype).reshape(n, *prior.shape)
    columns = prior.transform.inverse(prior.power * prior.transform.forward(units)).reshape(n, n)
    return GaussianPrior(torch.zeros(prior.shape, dtype=prior.dtype), columns.mT)


def case(name: str) -> tuple[LinearOperator, StationaryGaussianPrior]:
    """Operator and prior of 20 pixels, under-determined."""
    if name == "complex":
        return mri((4, 5), coils=2, every=3), stationary((4, 5))
    mask = torch.arange(20).reshape(4, 5) % 2 == 0
    return Mask(mask, dtype=torch.float64), stationary((4, 5), torch.float64)


def whitened(samples: Tensor, posterior: GaussianPrior) -> Tensor:
    """Samples in the eigenvectors of the posterior's covariance, over its standard deviations, real (n, components)."""
    modes = (samples.flatten(1) - posterior.mean.flatten()) @ posterior.vectors.conj() / posterior.values.sqrt()
    return torch.view_as_real(modes).flatten(1) if modes.is_complex() else modes


def check_standard_normal(white: Tensor) -> None:
    """Mean 0 and covariance 1 in every entry; refuses draws that are right once in 3000 times.

    The eigenvectors of equal values are arbitrary, so that rounding alone picks the entries anew: the bound must hold
    for the largest of all of them, not only for the one set that was once seen.
    """
    n, size = white.shape
    covariance = white.mT @ white / n
    error = (covariance - torch.eye(size, dtype=white.dtype)).abs()
    assert float(white.mean(0).abs().max()) < largest_of(size) / math.sqrt(n)
    assert float(error.diagonal().max()) < largest_of(size) * math.sqrt(2 / n)
    assert float((error - torch.diag(error.diagonal())).max()) < largest_of(size * (size - 1) // 2) / math.sqrt(n)


def largest_of(count: int) -> float:
    """What the largest magnitude of so many standard normal values exceeds once in 10000 times, at most."""
    return NormalDist().inv_cdf(1 - 1e-4 / (2 * count))


@pytest.mark.parametrize("kind", ["complex", "real"])
@pytest.mark.parametrize("levels", [(60.0, 0.0), (60.0, 1.0, 0.0), (60.0, 4.0, 0.7, 0.2, 0.0)], ids=len)
def test_draws_have_the_exact_posterior_at_any_number_of_steps(kind, levels):
    operator, prior = case(kind)
    y = observe(operator, prior.sample(1, torch.Generator().manual_seed(5)), 0.3)
    sampler = DiffusionSampler(EXACT_DRAWS, Bridge(draw_last=True), grid=levels)
    samples = sampler.run(Problem.build(operator, y, 0.3), prior, samples=4000, seed=1).samples[:, 0]
    posterior = as_gaussian(prior).posterior(dense(operator), y[0].flatten(), 0.3)
    check_standard_normal(whitened(samples, posterior))


def test_the_check_of_draws_finds_wrong_draws():
    # DDS ignores the spectrum of the error: the same check must refuse its draws.
    operator, prior = case("complex")
    y = observe(operator, prior.sample(1, torch.Generator().manual_seed(5)), 0.3)
    sampler = DiffusionSampler(DDS(), DDIM(1.0), grid=(60.0, 4.0, 0.7, 0.2, 0.0))
    samples = sampler.run(Problem.build(operator, y, 0.3), prior, samples=1000, seed=1).samples[:, 0]
    posterior = as_gaussian(prior).posterior(dense(operator), y[0].flatten(), 0.3)
    with pytest.raises(AssertionError):
        check_standard_normal(whitened(samples, posterior))


@pytest.mark.parametrize("kind", ["complex", "real"])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
def test_the_estimate_is_the_exact_mean_given_x_and_y(kind, sigma):
    operator, prior = case(kind)
    x0 = prior.sample(3, torch.Generator().manual_seed(5))
    y, x = observe(operator, x0, 0.3), x0 + sigma * randn(3, 4, 5, dtype=prior.dtype, seed=3)
    exact = LearnedCovariance(innovation=False, **SOLVED)
    problem, random = Problem.build(operator, y, 0.3), SampleRandom(0, range(3))
    estimate = exact.estimate(problem, prior, x, sigma, random, sigma_next=0.0)
    for i in range(3):
        given_x = as_gaussian(prior).posterior(torch.eye(20, dtype=prior.dtype), x[i].flatten(), sigma)
        both = given_x.posterior(dense(operator), y[i].flatten(), 0.3)
        assert relative(estimate.x0[i], both.mean) < 1e-9  # CG to 1e-12 times the condition number
        assert relative(estimate.denoised[i], given_x.mean) < 1e-9


def factor_of(kind: str, items: int) -> CovarianceFactor:
    """A factor on 4 x 5 pixels with variances of its own, along a phase and across it if asked for."""
    dtype = torch.float64 if kind == "real" else torch.complex128
    std, gain = randn(items, 4, 5, dtype=torch.float64).abs() + 0.2, randn(4, 5, dtype=torch.float64, seed=1).abs()
    modes = modes_of(torch.zeros(1, 4, 5, dtype=dtype))
    if kind != "along a phase":
        return CovarianceFactor(modes, std, gain)
    phase = randn(items, 4, 5, seed=7).sgn()
    return CovarianceFactor(modes, torch.stack([std, 0.3 * std], -1), gain, phase)


KINDS = ["complex", "real", "along a phase"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_and_its_adjoint_agree(kind):
    factor, dtype = factor_of(kind, 2), torch.float64 if kind == "real" else torch.complex128
    z, x = randn(2, 4, 5, dtype=dtype, seed=2), randn(2, 4, 5, dtype=dtype, seed=3)
    before = z.clone(), x.clone()
    assert torch.allclose(inner(x, factor.apply(z)), inner(factor.adjoint(x), z), rtol=EXACT, atol=EXACT)
    assert torch.equal(z, before[0]) and torch.equal(x, before[1])  # nothing is overwritten
    k = torch.tensor([4.0, 9.0], dtype=torch.float64)
    assert relative(factor.scaled(k).apply(z), k.sqrt()[:, None, None] * factor.apply(z)) < EXACT


@pytest.mark.parametrize("kind", ["complex", "along a phase"])
def test_a_perturbed_solve_draws_from_the_posterior(kind):
    """In real components, over which a factor along a phase is linear."""
    operator, factor = mri((4, 5), coils=2, every=3), factor_of(kind, 1)

    def real(x: Tensor) -> Tensor:
        return torch.view_as_real(x).flatten(-3)

    units = torch.eye(40, dtype=torch.float64)
    images = torch.view_as_complex(units.reshape(40, 4, 5, 2))
    root, matrix = real(factor.apply(images)).mT, torch.view_as_real(operator(images)).flatten(1).mT
    mean, y = randn(4, 5, seed=1), observe(operator, randn(1, 4, 5, seed=2), 0.3)
    problem = Problem.build(operator, y.expand(4000, -1, -1, -1), 0.3)
    draws = draw(problem, mean.expand(4000, 4, 5), factor, SampleRandom(2, range(4000)), iterations=90, rtol=1e-6)
    prior = GaussianPrior(real(mean), root @ root.mT)
    check_standard_normal(whitened(real(draws), prior.posterior(matrix, torch.view_as_real(y[0]).flatten(), 0.3)))


@pytest.mark.parametrize("kind", ["complex", "real"])
def test_the_start_is_a_draw_given_the_data_plus_noise(kind):
    # The prior's error at its largest level s has the power p s^2 / (p + s^2): x0 is drawn as if that were the prior.
    (operator, prior), sigma = case(kind), 1.0
    y = observe(operator, prior.sample(1, torch.Generator().manual_seed(5)), 0.3)
    problem = Problem.build(operator, y.expand(4000, *y.shape[1:]), 0.3)
    x = from_data(problem, prior, sigma, SampleRandom(2, range(4000)))
    power = prior.power / (1 + prior.power / prior.sigma_max**2)
    error = as_gaussian(StationaryGaussianPrior(prior.shape, power, prior.dtype))
    x0 = error.posterior(dense(operator), y[0].flatten(), 0.3)
    covariance = x0.covariance + sigma**2 * torch.eye(20, dtype=prior.dtype)
    check_standard_normal(whitened(x, GaussianPrior(x0.mean, covariance)))


@pytest.mark.parametrize("antithetic", [True, False])
def test_opposite_noise_cancels_in_the_mean_of_a_pair_and_nowhere_else(antithetic):
    """Gaussian images: every step is linear in the noise, so that the mean of a pair is the posterior's."""
    operator, prior = case("complex")
    y = observe(operator, prior.sample(1, torch.Generator().manual_seed(5)), 0.3)
    exact = as_gaussian(prior).posterior(dense(operator), y[0].flatten(), 0.3).mean
    sampler = DiffusionSampler(EXACT_DRAWS, Bridge(draw_last=True), grid=(60.0, 4.0, 0.7, 0.0), antithetic=antithetic)
    samples = sampler.run(Problem.build(operator, y, 0.3), prior, samples=2, seed=0).samples[:, 0]
    alone = DiffusionSampler(EXACT_DRAWS, Bridge(draw_last=True), grid=(60.0, 4.0, 0.7, 0.0)).run(
        Problem.build(operator, y, 0.3), prior, samples=1, seed=0
    )
    torch.testing.assert_close(samples[0], alone.samples[0, 0], rtol=0, atol=1e-5)  # each alone is what it was
    off = [relative(x.flatten(), exact.flatten()) for x in (samples.mean(0), samples[0])]
    assert off[1] > 0.05
    # 1e-3: the start's solve stops at 1e-2 of a right-hand side that later levels forget
    assert off[0] < 1e-3 if antithetic else off[0] > 0.02


def test_only_a_prior_with_a_spectrum_starts_low():
    sampler = DiffusionSampler(LearnedCovariance(), steps=4, largest=2.0)
    for spectrum, factor in ((True, 2.0), (False, 25.0)):
        prior, operator = stationary((8, 6), spectrum=spectrum), mri()
        y = observe(operator, prior.sample(1, torch.Generator().manual_seed(5)), 0.3)
        info = sampler.run(Problem.build(operator, y, 0.3), prior, samples=1, seed=0).info
        assert info["grid"][0] == pytest.approx(min(factor * prior.data_std, prior.sigma_max))


def test_without_variance_and_spectrum_it_is_dds():
    operator, prior = mri(), stationary((8, 6), spectrum=False)
    y, x = observe(operator, prior.sample(2, torch.Generator().manual_seed(5)), 0.2), randn(2, 8, 6)
    problem, random = Problem.build(operator, y, 0.2), SampleRandom(0, range(2))
    plain = LearnedCovariance(innovation=False, **SOLVED)
    ours = plain.estimate(problem, prior, x, 0.5, random, sigma_next=0.0)
    dds = DDS(**SOLVED).estimate(problem, prior, x, 0.5, random, sigma_next=0.0)
    assert relative(ours.x0, dds.x0) < 1e-9  # both solved to 1e-12


def test_the_variance_of_the_prior_is_used_per_pixel():
    # A denoising problem with independent pixels has a closed form.
    variance = torch.linspace(0.1, 3, 48, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(8, 6, dtype=torch.complex128), torch.diag(variance))
    problem = Problem.build(mri(every=1), torch.zeros(1, 3, 8, 6, dtype=torch.complex128), 0.5)
    mean, factor = LearnedCovariance().gaussian(problem, prior, randn(1, 8, 6), 0.7)
    expected = (variance * 0.49 / (variance + 0.49)).reshape(8, 6)
    assert relative(factor.std[0] ** 2, expected) < EXACT and mean.shape == (1, 8, 6)
    assert float(factor.gain.min()) == 1.0 and problem.work.nfe == 1


@pytest.mark.parametrize("draw_last", [False, True])
def test_exact_data_are_met_exactly(draw_last):
    operator, prior = mri(coils=1), stationary((8, 6))
    truth = prior.sample(2, torch.Generator().manual_seed(5))
    y = operator(truth)
    conditioning = LearnedCovariance(iterations=200, rtol=1e-8, tolerance=0.0)
    solution = DiffusionSampler(conditioning, Bridge(draw_last), 4).run(
        Problem.build(operator, y, 0.0), prior, samples=2, seed=0
    )
    assert bool(torch.isfinite(solution.samples).all())
    # rtol times the condition of A^H A on its range; the prior's 40 dB of dynamics.
    assert relative(operator(solution.samples), y.expand(2, -1, -1, -1, -1)) < 1e-5
    assert relative(solution.samples[0], truth) > 1e-3  # what was not measured is not known


@pytest.mark.parametrize("sigma_y", [0.3, 1e-3])
@pytest.mark.parametrize("kind", ["complex", "real"])
def test_the_preconditioner_does_not_change_the_result(kind, sigma_y, monkeypatch):
    operator, prior = case(kind)
    y = observe(operator, prior.sample(2, torch.Generator().manual_seed(5)), sigma_y)
    x = randn(2, 4, 5, dtype=prior.dtype)

    def estimate() -> Tensor:
        exact = LearnedCovariance(**SOLVED)
        problem = Problem.build(operator, y, sigma_y)
        return exact.estimate(problem, prior, x, 0.5, SampleRandom(0, range(2)), sigma_next=0.0).x0

    found = estimate()
    monkeypatch.setattr(CovarianceFactor, "preconditioner", lambda self, noise_variance, density: lambda r: r)
    assert relative(found, estimate()) < 1e-6  # CG to 1e-12 times a condition number of up to 1e6


@pytest.mark.parametrize("kind", KINDS)
def test_the_preconditioner_is_the_inverse_for_one_variance(kind):
    """P (v I + density L^H L) = I where all variances are alike."""
    factor = factor_of(kind, 2)
    factor = replace(factor, std=torch.full_like(factor.std, 1.5))
    z = randn(2, 4, 5, dtype=torch.float64 if kind == "real" else torch.complex128, seed=2)
    system = 0.3 * z + 0.4 * factor.adjoint(factor.apply(z))
    assert relative(factor.preconditioner(0.3, 0.4)(system), z) < EXACT


@pytest.mark.parametrize("kind", KINDS)
def test_the_preconditioner_is_the_inverse_without_noise_where_variances_are_large(kind):
    """White errors, two pixels of three with three times the deviation of the others: exact on the larger."""
    factor, loud = factor_of(kind, 2), torch.arange(20).reshape(4, 5) % 3 != 0
    std = torch.where(loud, 3.0, 1.0).double().expand(2, 4, 5)
    std = torch.stack([std, std], -1) if kind == "along a phase" else std
    factor = replace(factor, std=std, gain=torch.ones_like(factor.gain))
    z = randn(2, 4, 5, dtype=torch.float64 if kind == "real" else torch.complex128, seed=2)
    found = factor.modes.inverse(factor.preconditioner(0.0, 0.4)(0.4 * factor.adjoint(factor.apply(z))))
    expected = torch.where(loud, std.new_ones(()), 1 / std[0].square().mean()) * factor.modes.inverse(z)
    assert relative(found, expected) < EXACT


def test_the_preconditioner_saves_iterations():
    operator, prior = mri((16, 16), coils=4), stationary((16, 16))
    y = observe(operator, prior.sample(2, torch.Generator().manual_seed(5)), 0.01)
    counts = []
    for rule in (CovarianceFactor.preconditioner, lambda self, noise_variance, density: lambda r: r):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CovarianceFactor, "preconditioner", rule)
            problem = Problem.build(operator, y, 0.01)
            exact = LearnedCovariance(innovation=False, **SOLVED)
            exact.estimate(problem, prior, randn(2, 16, 16), 0.5, SampleRandom(0, range(2)), sigma_next=0.0)
            counts.append(int(problem.work.cg_iterations))
    assert counts[0] < 0.7 * counts[1], counts


@pytest.mark.parametrize("tolerance", [0.3, 0.03])
@pytest.mark.parametrize("sigma", [0.2, 2.0])
def test_a_solve_errs_by_its_tolerance_in_posterior_deviations(tolerance, sigma):
    """(x - x*)^H (C^-1 + A^H A / sigma_y^2) (x - x*) over the unknowns is about the square of the tolerance."""
    operator, prior = mri((32, 32), coils=4, every=4), stationary((32, 32))
    problem = Problem.build(operator, observe(operator, prior.sample(2, torch.Generator().manual_seed(5)), 0.02), 0.02)
    x, random = randn(2, 32, 32), SampleRandom(0, range(2))

    def mean(**solve: float) -> Tensor:
        rule = LearnedCovariance(innovation=False, iterations=1000, **solve)
        return rule.estimate(problem, prior, x, sigma, random, sigma_next=0.0).x0

    factor = LearnedCovariance().gaussian(problem, prior, x, sigma)[1]
    error = mean(rtol=0.0, tolerance=tolerance) - mean(rtol=1e-12, tolerance=0.0)
    z = factor.modes.forward(error / factor.std) / factor.gain
    energy = inner(z, z) + norm(operator(error)) ** 2 / 0.02**2
    found = (energy / problem.unknowns).sqrt()
    # The preconditioner stands for the inverse, and takes unseen directions for seen ones.
    assert tolerance / 2 < float(found.min()) and float(found.max()) < 4 * tolerance


@pytest.mark.parametrize("integrator", [DDIM(), Bridge(), Bridge(draw_last=True)], ids=str)
def test_the_image_is_empty_where_no_coil_sees(integrator):
    maps = mri().maps.clone()
    maps[:, :, 4:] = 0
    operator = MultiCoilMRI(maps, mri().mask)
    y = observe(operator, randn(2, 8, 6), 0.1)
    x = DiffusionSampler(LearnedCovariance(), integrator, steps=3).run(
        Problem.build(operator, y, 0.1), stationary((8, 6)), samples=1, seed=0
    )
    assert float(x.samples[..., 4:].abs().max()) == 0.0 and float(x.samples[..., :4].abs().min()) > 0.0


def test_it_costs_one_network_evaluation_a_step():
    operator, prior = case("complex")
    problem = Problem.build(operator, observe(operator, randn(1, 4, 5), 0.1), 0.1)
    stats = DiffusionSampler(LearnedCovariance(), Bridge(), steps=5).run(problem, prior, samples=1, seed=0).stats
    assert stats.nfe == 5 and stats.nfe_backward == 0
    # A step: one gram for D or for the drawn image, one for the probe, one per iteration; the start adds its own.
    assert stats.grams >= stats.cg_iterations + 2 * 5


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="iterations"):
        LearnedCovariance(iterations=0)


def test_vectors_are_refused():
    # Items would be taken for rows, and mixed.
    prior = GaussianPrior(torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64))
    problem = Problem.build(Mask(torch.ones(6, dtype=torch.bool), dtype=torch.float64), torch.zeros(2, 6).double(), 0.1)
    with pytest.raises(InputError, match=r"\(1, n\)"):
        LearnedCovariance().gaussian(problem, prior, torch.zeros(2, 6).double(), 1.0)
