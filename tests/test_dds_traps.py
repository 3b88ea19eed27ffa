"""Traps of DDS, each seen in published code, each as a test with the trap named in its docstring."""

import math

import pytest
import torch
from sampler_cases import (
    EXACT,
    Recorder,
    data_step,
    exact_moments,
    mri,
    randn,
    relative,
    scalar_problem,
    scene,
    stationary,
)
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import Identity, MultiCoilMRI, stack
from inverse.priors import from_function
from inverse.samplers import DDIM, DDS, DiffusionSampler, Problem, choose, ddpm_linear


def test_the_inner_product_is_hermitian():
    """Trap: complex inner product. A^H A is Hermitian, not symmetric; r^T r without conjugation never converges."""
    operator = mri((32, 32), coils=4, every=4)
    image, denoised = randn(1, 32, 32, seed=1), randn(1, 32, 32, seed=2)
    y = operator(image)
    reference = data_step(DDS(25.0, iterations=300, rtol=1e-14), operator, y, denoised, variance=1.0, sigma_y=0.1)
    errors = {}
    for iterations in (5, 10, 20, 40):
        x = data_step(DDS(25.0, iterations=iterations, rtol=0.0), operator, y, denoised, variance=1.0, sigma_y=0.1)
        errors[iterations] = float((x - reference).norm() / (denoised - reference).norm())
        root = math.sqrt(26)  # condition number at most 1 + gamma, maps being normalised
        # CG's bound holds in the energy norm, which exceeds the plain one by at most sqrt(condition).
        assert errors[iterations] <= 2 * root * ((root - 1) / (root + 1)) ** iterations
    # Without conjugation the error is above that of D from 5 iterations on and stays there.
    assert errors[5] < 0.1 and errors[40] < 1e-8, errors


def test_the_data_are_neither_scaled_nor_turned():
    """Trap: (1 + i). Complex data added to a real two-channel image turn by 45 degrees and grow by sqrt 2."""
    y = torch.full((1, 4, 5), 1.0 + 0.0j, dtype=torch.complex128)
    zero = torch.zeros_like(y)
    x = data_step(DDS(gamma=1.0), Identity((4, 5), dtype=torch.complex128), y, zero, variance=1.0, sigma_y=0.1)
    assert float((x - 0.5).abs().max()) < EXACT


def test_the_noise_free_branch_returns_an_image():
    """Trap: an empty right-hand side. The noise-free branch gives an image of full size that matches the data."""
    operator, y, denoised = scene()
    y = operator(randn(2, *operator.in_shape, seed=7))
    for gamma in (None, 5.0):
        conditioning = DDS(gamma, iterations=200, rtol=1e-10)
        x = data_step(conditioning, operator, y, denoised, variance=0.5, sigma_y=0.0)
        assert x.shape == denoised.shape and relative(operator(x), y) < 1e-6  # tolerance times condition


def test_samples_of_a_batch_have_their_own_step_sizes():
    """Trap: CG scalars over the whole batch. One sample scaled by 1e3, and a permutation, change no other sample."""
    operator, y, denoised = scene(batch=4)
    y[1], denoised[1] = 1e3 * y[1], 1e3 * denoised[1]
    settings = {"variance": 0.5, "sigma_y": 0.2}
    together = data_step(DDS(), operator, y, denoised, **settings)
    order = torch.tensor([2, 0, 3, 1])
    permuted = data_step(DDS(), operator, y[order], denoised[order], **settings)
    for i in range(4):
        alone = data_step(DDS(), operator, y[i : i + 1], denoised[i : i + 1], **settings)[0]
        assert relative(together[i], alone) < 1e-9  # rounding of two ways to apply A^H A
        assert relative(permuted[int((order == i).nonzero())], alone) < 1e-9


@pytest.mark.parametrize("c", [1e-6, 1e6])
def test_the_tolerance_is_relative(c):
    """Trap: absolute CG tolerance. Images in other units get the same number of iterations and the same result."""
    operator, y, denoised = scene()
    x = data_step(DDS(), operator, y, denoised, variance=0.5, sigma_y=0.2)
    scaled = data_step(DDS(), operator, c * y, c * denoised, variance=0.5 * c**2, sigma_y=0.2 * c)
    assert relative(scaled, c * x) < 1e-9  # an absolute tolerance of 1e-5 would leave D as it is at 1e-6


def test_the_last_evaluation_sees_noise_and_its_estimate_is_the_result():
    """Trap: off by one at the end. x is never denoised at sigma 0, nor un-noised one step early."""
    problem, prior = scalar_problem(1)
    recorder = Recorder(DDS())
    grid = (10.0, 1.0, 0.1, 0.0)
    solution = DiffusionSampler(recorder, DDIM(0.0), grid=grid, start="noise").run(problem, prior, samples=1, seed=3)
    assert [call[0] for call in recorder.calls] == [10.0, 1.0, 0.1]
    assert [call[1] for call in recorder.calls] == [False, False, True]
    _, _, x, estimate = recorder.calls[-1]
    assert torch.equal(solution.samples[0], estimate.x0)
    _, _, before, previous = recorder.calls[-2]
    carried = previous.x0 + 0.1 * (before - previous.x0) / 1.0  # still noise of 0.1 times its direction
    assert relative(x, carried) < EXACT


def test_the_denoiser_is_called_at_the_level_of_x():
    """Trap: a shift of the timestep by one. abar_t includes beta_t: the last level is 0.0100, neither 0.0148 nor 0."""
    levels = []

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        levels.append(sigma)
        return x / (1 + sigma**2)

    sampler, _ = choose("dds-published", prior := from_function(denoiser))
    problem, _ = scalar_problem(1)
    sampler.run(problem, prior, samples=1, seed=0)
    assert levels == ddpm_linear(50)[:-1].tolist() and abs(levels[-1] - math.sqrt(1e-4 / (1 - 1e-4))) < EXACT


def test_eta_has_a_stated_convention():
    """Trap: eta of two meanings. The convention has a name, and the published method carries its own."""
    assert DDIM(0.85) != DDIM(0.85, convention="dds")
    published, _ = choose("dds-published", from_function(lambda x, sigma: x))
    assert published.integrator == DDIM(0.85, "dds", "unconditioned") and published.conditioning.gamma == 5.0
    ours, _ = choose("dds", from_function(lambda x, sigma: x))
    assert ours.integrator == DDIM(1.0, "ddim", "conditioned")
    with pytest.raises(InputError, match="convention"):
        DDIM(0.85, convention="code")


def test_the_noise_direction_comes_from_the_conditioned_estimate():
    """Trap: e from D. The data are then counted once per step: the mean of a run drifts from 0.8 to 1."""
    right, _ = exact_moments(DDIM(0.0), ddpm_linear(50))
    wrong, _ = exact_moments(DDIM(0.0, direction="unconditioned"), ddpm_linear(50))
    assert abs(right - 0.8) < 0.005 and wrong > 1.05
    assert DDIM().direction == "conditioned"


@pytest.mark.parametrize(
    ("factor", "variance", "sigma_y"), [(1, 0.5, 0.2), (1, 0.05, 0.2), (1, 0.5, 0.6), (3, 0.5, 0.2)]
)
def test_gamma_follows_the_level_the_noise_and_the_operator(factor, variance, sigma_y):
    """Trap: a constant gamma, tuned at one noise level and one scale of A. It is r^2(sigma) / sigma_y^2."""
    y, denoised = torch.full((1, 2, 2), 1.0).double(), torch.zeros(1, 2, 2).double()
    operator = factor * Identity((2, 2), dtype=torch.float64)
    x = data_step(DDS(), operator, y, denoised, variance=variance, sigma_y=sigma_y)
    gain = factor * variance / (factor**2 * variance + sigma_y**2)
    assert float((x - gain).abs().max()) < EXACT


def test_noise_is_counted_per_real_component():
    """Trap: E|n|^2 against the variance of a component, a factor 2. Means of draws from the posterior agree."""
    operator = Identity((1, 1), dtype=torch.complex128)
    count, r, sigma_y = 40000, 1.0, 0.5
    x0 = r * torch.view_as_complex(randn(count, 1, 1, 2, dtype=torch.float64, seed=1))
    y = x0 + sigma_y * torch.view_as_complex(randn(count, 1, 1, 2, dtype=torch.float64, seed=2))
    x = data_step(DDS(), operator, y, torch.zeros_like(y), variance=r**2, sigma_y=sigma_y)
    slope = float((x.conj() * (x0 - x)).real.mean() / x.abs().square().mean())
    # The error of a posterior mean is orthogonal to it; 4 standard errors sqrt(v / (2 n E)) of the slope, v / E = 1/4.
    # A gamma that is off by 2 gives a slope of 0.11 or more.
    assert abs(slope) < 4 * math.sqrt(0.25 / (2 * count))


def test_the_data_term_is_a_sum():
    """Trap: sum against mean. Measuring twice is half the noise variance, so gamma counts every measurement."""
    operator, y, denoised = scene()
    twice = stack([operator, operator])
    doubled = torch.cat([y.unsqueeze(1), y.unsqueeze(1)], 1).reshape(len(y), *twice.out_shape)
    solved = DDS(iterations=300, rtol=1e-13)
    x = data_step(solved, twice, doubled, denoised, variance=0.5, sigma_y=0.2)
    expected = data_step(solved, operator, y, denoised, variance=0.5, sigma_y=0.2 / math.sqrt(2))
    assert relative(x, expected) < 1e-9  # both solved to 1e-13


def test_nothing_is_clipped():
    """Trap: clipping D to [-1, 1] destroys phase and contrast. Values of 1e3 pass, phase and all."""
    y = 1e3 * randn(2, 4, 5)
    denoised = 1e3 * randn(2, 4, 5, seed=1)
    x = data_step(DDS(gamma=1.0), Identity((4, 5), dtype=torch.complex128), y, denoised, variance=1.0, sigma_y=1.0)
    assert relative(x, (y + denoised) / 2) < EXACT


def test_the_adjoint_is_not_taken_for_an_inverse():
    """Trap: A^H in the place of a pseudo-inverse. With maps of any size the projection reproduces the data."""
    operator = MultiCoilMRI(3 * mri().maps * torch.linspace(0.5, 2, 6), mri().mask)
    truth = randn(1, 8, 6, seed=3)
    y = operator(truth)
    projecting = DDS(iterations=400, rtol=1e-10)
    x = data_step(projecting, operator, y, torch.zeros_like(truth), variance=1.0, sigma_y=0.0)
    assert relative(operator(x), y) < 1e-6 and relative(operator(operator.H(y)), y) > 1


def test_early_stopping_starts_at_the_denoised_image():
    """Trap: warm start. In the noise-free form few iterations stay in D + span{v, G v, ...}, v = A^H (y - A D)."""
    operator, y, denoised = scene(batch=1)
    x = data_step(DDS(5.0, iterations=3, rtol=0.0), operator, y, denoised, variance=1.0, sigma_y=0.0)
    v = operator.H(y - operator(denoised))
    krylov = [v, operator.gram(v), operator.gram(operator.gram(v))]
    basis = torch.linalg.qr(torch.stack([k.flatten() for k in krylov], 1)).Q
    move = (x - denoised).flatten()
    assert float(move.norm()) > 0.1 * float(v.norm())  # it did move
    assert float((move - basis @ (basis.mH @ move)).norm() / move.norm()) < 1e-10  # three Krylov vectors, rounding


@pytest.mark.parametrize("sigma_y", [0.1, 0.0])
def test_what_no_coil_sees_stays_empty(sigma_y):
    maps = mri().maps.clone()
    maps[:, :2] = 0
    operator = MultiCoilMRI(maps, mri().mask)
    y = randn(2, *operator.out_shape) * operator.weights
    sampler = DiffusionSampler(DDS(), steps=3)
    x = sampler.run(Problem.build(operator, y, sigma_y), stationary((8, 6)), samples=1, seed=0).samples
    assert float(x[..., :2, :].abs().max()) == 0.0 and float(x[..., 2:, :].abs().min()) > 0.0
