"""DDS: one data step against Bayes and dense algebra, the whole run against its exact moments, the known traps.

Posterior means are those of x0 ~ N(D, r^2 I), for which DDS with gamma = r^2 / sigma_y^2 is exact (Chung, Lee and Ye,
"Decomposed diffusion sampler for accelerating large-scale inverse problems", ICLR 2024).
"""

import cmath
import math

import pytest
import torch
from sampler_cases import EXACT, FixedPrior, bayes, data_step, dense, exact_moments, randn, relative, scene
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import Fourier, Identity, LinearOperator, Mask
from inverse.priors import GaussianPrior
from inverse.random import SampleRandom
from inverse.samplers import DDIM, DDS, Problem, ddpm_linear, karras

SOLVED = DDS(iterations=300, rtol=1e-13)  # CG run to rounding: what is compared is the equation, not its stopping


class Dense(LinearOperator):
    """A matrix on vectors."""

    def __init__(self, matrix: Tensor):
        super().__init__(matrix.shape[1:], matrix.shape[:1], in_dtype=matrix.dtype)
        self.matrix = matrix

    def _apply(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT

    def _adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix.conj()


UNCONDITIONED, PUBLISHED = DDIM(0.0, "dds", "unconditioned"), DDIM(0.85, "dds", "unconditioned")
# Integrator: steps -> mean, variance, to the four digits of the table.
MOMENTS = {
    PUBLISHED: {20: (0.9160, 0.0669), 50: (0.9112, 0.0723), 100: (0.9058, 0.0751), 1000: (0.8969, 0.0794)},
    UNCONDITIONED: {20: (1.1449, 0.0015), 50: (1.0760, 0.0000), 100: (1.0416, 0.0000), 1000: (1.0082, 0.0000)},
    DDIM(0.85, "dds"): {20: (0.8, 0.1125), 50: (0.8, 0.1318), 100: (0.8, 0.1399), 1000: (0.8, 0.1500)},
    DDIM(0.0): {20: (0.7968, 0.1466), 50: (0.7974, 0.1767), 100: (0.7976, 0.1879), 1000: (0.7977, 0.1987)},
    DDIM(1.0): {20: (0.8, 0.1186), 50: (0.8, 0.1548), 100: (0.8, 0.1734), 1000: (0.8, 0.1966)},
}


@pytest.mark.parametrize(
    ("integrator", "steps"), [(integrator, steps) for integrator, row in MOMENTS.items() for steps in row], ids=str
)
def test_a_run_has_the_moments_of_its_linear_recursion(integrator, steps):
    expected_mean, expected_variance = MOMENTS[integrator][steps]
    mean, variance = exact_moments(integrator, ddpm_linear(steps))
    # The table has four digits.
    assert abs(mean - expected_mean) < 1e-4 and abs(variance - expected_variance) < 1e-4


def test_the_variance_of_deterministic_dds_converges_like_one_over_n_on_a_karras_grid():
    steps = (20, 50, 100, 1000)
    variances = [exact_moments(DDIM(0.0), karras(n, 80.0, 0.002))[1] for n in steps]
    for variance, expected in zip(variances, (0.1476, 0.1778, 0.1887, 0.1988), strict=True):
        assert abs(variance - expected) < 1e-4  # four digits
    errors = [0.2 - v for v in variances]
    slope = math.log(errors[2] / errors[3]) / math.log(10)
    assert 0.95 < slope < 1.05  # order 1, from n = 100 to 1000


def test_the_scalar_example_is_bayes():
    prior = GaussianPrior(torch.tensor([0.2], dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    problem = Problem.build(0.8 * Identity((1,), dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64), 0.1)
    x = torch.tensor([[1.2]], dtype=torch.float64)
    estimate = DDS().estimate(problem, prior, x, 0.5, SampleRandom(0, [0]), sigma_next=0.0)
    assert abs(float(estimate.denoised) - 1.0) < EXACT and abs(prior.mse(0.5) - 0.2) < EXACT
    assert abs(float(estimate.x0) - 0.8840579710144928) < EXACT
    assert problem.work.nfe == 1


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_the_data_step_equals_the_dense_solve(dtype, shape):
    operator = Dense(randn(*shape, dtype=dtype))
    y, denoised = randn(3, shape[0], dtype=dtype, seed=1), randn(3, shape[1], dtype=dtype, seed=2)
    x = data_step(SOLVED, operator, y, denoised, variance=0.7, sigma_y=0.3)
    assert relative(x, bayes(operator.matrix, y, denoised, 0.7, 0.3)) < 1e-8  # condition number up to 300


def test_the_data_step_of_multicoil_mri_equals_the_dense_solve():
    operator, y, denoised = scene()
    x = data_step(SOLVED, operator, y, denoised, variance=0.5, sigma_y=0.2)
    assert relative(x, bayes(dense(operator), y, denoised, 0.5, 0.2)) < 1e-8


def test_the_default_tolerance_is_ample():
    operator, y, denoised = scene()
    exact = bayes(dense(operator), y, denoised, 0.5, 0.2)
    x = data_step(DDS(), operator, y, denoised, variance=0.5, sigma_y=0.2)
    # rtol 1e-3 of the residual of the correction, times the condition number 1 + gamma of about 13.
    assert float((x - exact).norm() / (exact - denoised).norm()) < 13e-3


@pytest.mark.parametrize("form", ["I + gamma A^H A", "A^H A + I / gamma", "measurement space"])
def test_the_three_forms_agree(form):
    operator, y, denoised = scene()
    gamma, matrix = 25.0, dense(operator)
    columns, data = denoised.reshape(2, -1).mT, y.reshape(2, -1).mT
    gram, unit = matrix.mH @ matrix, torch.eye(matrix.shape[1], dtype=matrix.dtype)
    if form == "I + gamma A^H A":
        expected = torch.linalg.solve(unit + gamma * gram, columns + gamma * matrix.mH @ data)
    elif form == "A^H A + I / gamma":
        expected = torch.linalg.solve(gram + unit / gamma, matrix.mH @ data + columns / gamma)
    else:
        inner = matrix @ matrix.mH + torch.eye(len(matrix), dtype=matrix.dtype) / gamma
        expected = columns + matrix.mH @ torch.linalg.solve(inner, data - matrix @ columns)
    solved = DDS(gamma, iterations=300, rtol=1e-13)
    x = data_step(solved, operator, y, denoised, variance=1.0, sigma_y=0.1)
    assert relative(x.reshape(2, -1).mT, expected) < 1e-6


def test_gamma_zero_returns_the_denoised_image_bit_for_bit():
    operator, y, denoised = scene()
    assert torch.equal(data_step(DDS(gamma=0.0), operator, y, denoised, variance=1.0, sigma_y=0.1), denoised)


@pytest.mark.parametrize(("gamma", "sigma_y"), [(1e12, 0.1), (None, 0.0), (5.0, 0.0), (None, 1e-7)])
def test_a_huge_gamma_projects_onto_the_data(gamma, sigma_y):
    operator, y, denoised = scene()
    matrix = dense(operator)
    rest = y.reshape(2, -1) - denoised.reshape(2, -1) @ matrix.mT
    expected = denoised + (rest @ torch.linalg.pinv(matrix).mT).reshape(denoised.shape)
    solved = DDS(gamma, iterations=300, rtol=1e-9)
    x = data_step(solved, operator, y, denoised, variance=1.0, sigma_y=sigma_y)
    assert relative(x, expected) < 1e-6  # 1 / gamma and CG's tolerance times the condition of A^H A on its range


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_denoising_has_a_closed_form(dtype):
    y, denoised, gamma = randn(2, 4, 5, dtype=dtype), randn(2, 4, 5, dtype=dtype, seed=1), 3.0
    x = data_step(DDS(gamma), Identity((4, 5), dtype=dtype), y, denoised, variance=1.0, sigma_y=0.1)
    assert relative(x, (denoised + gamma * y) / (1 + gamma)) < EXACT


def test_data_that_fit_need_no_iteration():
    # Powers of two under a full mask of zeros and ones: A^H y - A^H A D is exactly 0, and 0/0 would show as NaN.
    operator = Mask(torch.arange(20).reshape(4, 5) % 2 == 0, dtype=torch.float64)
    denoised = 2.0 ** torch.arange(20, dtype=torch.float64).reshape(1, 4, 5)
    problem = Problem.build(operator, operator(denoised), 0.1)
    random = SampleRandom(0, [0])
    estimate = DDS().estimate(problem, FixedPrior(denoised, 1.0), denoised, 1.0, random, sigma_next=0.0)
    assert torch.equal(estimate.x0, denoised) and int(problem.work.cg_iterations) == 0


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_the_noise_aware_step_does_not_see_the_units_of_the_data(c):
    operator, y, denoised = scene()
    operator, y, denoised = operator.to(torch.float32), y.to(torch.complex64), denoised.to(torch.complex64)
    conditioning = DDS(iterations=100, rtol=1e-6)
    reference = data_step(conditioning, operator, y, denoised, variance=0.5, sigma_y=0.2)
    x = data_step(conditioning, c * operator, c * y, denoised, variance=0.5, sigma_y=0.2 * c)
    assert relative(x, reference) < 1e-5  # float32


@pytest.mark.parametrize("phi", [0.3, math.pi / 2, 2.5])
def test_a_global_phase_passes_through(phi):
    # Catches a real part, a clip or a lost imaginary part.
    operator, y, denoised = scene()
    turn = cmath.exp(1j * phi)
    x = data_step(DDS(), operator, y, denoised, variance=0.5, sigma_y=0.2)
    turned = data_step(DDS(), operator, turn * y, turn * denoised, variance=0.5, sigma_y=0.2)
    assert relative(turned, turn * x) < EXACT


def test_a_real_image_stays_real_under_a_real_operator():
    operator = Identity((4, 5), dtype=torch.complex128) * 0.8
    y, denoised = randn(2, 4, 5).real + 0j, randn(2, 4, 5, seed=1).real + 0j
    x = data_step(DDS(), operator, y, denoised, variance=0.5, sigma_y=0.2)
    assert float(x.imag.abs().max()) == 0.0


def test_the_imaginary_part_of_fourier_data_is_kept():
    operator = Fourier((4, 5), dtype=torch.complex128)
    image, denoised = randn(2, 4, 5), randn(2, 4, 5, seed=1).real + 0j
    x = data_step(DDS(), operator, operator(image), denoised, variance=0.5, sigma_y=0.2)
    gamma = 0.5 / 0.2**2
    assert relative(x, (denoised + gamma * image) / (1 + gamma)) < EXACT


@pytest.mark.parametrize("bad", [{"gamma": -1.0}, {"iterations": 0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(InputError, match="DDS"):
        DDS(**bad)
