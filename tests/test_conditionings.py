"""Published conditionings: each against its formula in dense matrices, its limits, and the traps of public code."""

import cmath
import math

import pytest
import torch
from conditioning_cases import ALL, DATA, NEXT, PIXELS, SIGMA, Case, estimate
from sampler_cases import EXACT, FixedPrior, Recorder, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import FourierMagnitude, Identity, Mask
from inverse.operators.matrix import Matrix
from inverse.priors import GaussianPrior, from_function
from inverse.random import SampleRandom
from inverse.samplers import DDIM, DDS, DiffusionSampler, Problem
from inverse.samplers.conditionings import DDNM, DPS, TMPD, DiffPIR, MomentMatching, PiGDM

SOLVED = {"iterations": 400, "rtol": 1e-13}  # conjugate gradients to rounding: the equation is compared, not the stop
DENSE = 1e-10  # solves of condition 1e3 to 1e4 in double precision
DTYPES = [torch.float64, torch.complex128]


def rows(matrix: Tensor, vectors: Tensor) -> Tensor:
    """matrix times every row."""
    return vectors @ matrix.mT


def eye(n: int, dtype: torch.dtype) -> Tensor:
    return torch.eye(n, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("choices", [{"error": True}, {"data_std": 1.7}, {}], ids=str)
@pytest.mark.parametrize("sigma_y", [0.3, 0.0])
def test_pigdm_is_its_formula(dtype, choices, sigma_y):
    case = Case(dtype, sigma_y)
    s = choices.get("data_std", case.prior.data_std)
    variance = case.prior.mse(SIGMA) if "error" in choices else (SIGMA * s) ** 2 / (SIGMA**2 + s**2)
    a = case.matrix
    inverse = torch.linalg.inv(variance * a @ a.mH + sigma_y**2 * eye(DATA, dtype))  # m < n: A A^H has full rank
    expected = case.denoised + SIGMA**2 * rows(case.jacobian.mH @ a.mH @ inverse, case.misfit)
    assert relative(case.run(PiGDM(**choices, **SOLVED)), expected) < DENSE


@pytest.mark.parametrize("dtype", DTYPES)
def test_pigdm_is_bayes_where_the_covariance_is_isotropic(dtype):
    case = Case(dtype)
    prior = GaussianPrior(case.mean, 1.44 * eye(PIXELS, dtype))
    variance = 1.44 * SIGMA**2 / (1.44 + SIGMA**2)
    a, d = case.matrix, prior.denoise(case.x, SIGMA).flatten(1)
    gain = variance * a.mH @ torch.linalg.inv(variance * a @ a.mH + 0.09 * eye(DATA, dtype))
    found = estimate(PiGDM(1.2, **SOLVED), case.problem, prior, case.x).flatten(1)
    assert relative(found, d + rows(gain, case.y - rows(a, d))) < DENSE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma_y", [0.3, 0.0])
def test_diffpir_is_the_proximal_step(dtype, sigma_y):
    case = Case(dtype, sigma_y)
    a, rho = case.matrix, 7 * sigma_y**2 / SIGMA**2
    # argmin |y - A x|^2 + rho |x - D|^2 in the space of the data, where rho = 0 is no special case
    gain = a.mH @ torch.linalg.inv(a @ a.mH + rho * eye(DATA, dtype))
    assert relative(case.run(DiffPIR(**SOLVED)), case.denoised + rows(gain, case.misfit)) < DENSE


def test_diffpir_is_dds_with_another_variance():
    case = Case(torch.complex128)
    gamma = SIGMA**2 / 3 / case.sigma_y**2
    assert relative(case.run(DiffPIR(3.0, **SOLVED)), case.run(DDS(gamma, **SOLVED))) < DENSE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("data", [DATA, 20])
def test_ddnm_replaces_what_the_data_determine(dtype, data):
    case = Case(dtype, 0.3)
    case.matrix = randn(data, PIXELS, dtype=dtype, seed=3)
    case.operator, case.y = Matrix(case.matrix, (3, 4)), randn(2, data, dtype=dtype, seed=4)
    found = case.run(DDNM(**SOLVED))
    assert relative(found, case.denoised + rows(torch.linalg.pinv(case.matrix), case.misfit)) < DENSE
    case.sigma_y = 0.0
    assert torch.equal(case.run(DDNM(**SOLVED)), found)  # noise-blind
    if data < PIXELS:
        assert relative(rows(case.matrix, found), case.y) < DENSE
        assert relative(case.run(DiffPIR(**SOLVED)), found) < DENSE  # the limit of all conditionings by a Gaussian
        assert relative(case.run(DDS(**SOLVED)), found) < DENSE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma_y", [0.3, 0.0])
def test_tmpd_divides_by_row_sums(dtype, sigma_y):
    case = Case(dtype, sigma_y)
    a, covariance = case.matrix, SIGMA**2 * case.jacobian
    sums = (a @ covariance @ a.mH).sum(1).abs() + sigma_y**2
    pull = torch.where(sums > 0, case.misfit / sums, 0)
    assert bool((sums > 0).any())
    assert relative(case.run(TMPD()), case.denoised + rows(covariance.mH @ a.mH, pull)) < DENSE


def test_tmpd_is_exact_where_the_covariance_of_the_data_is_diagonal():
    operator = Mask(torch.arange(12).reshape(3, 4) % 2 == 0, dtype=torch.float64)
    power = torch.linspace(0.2, 2, 12, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(3, 4, dtype=torch.float64), torch.diag(power))
    y, x = operator(randn(1, 3, 4, dtype=torch.float64)), randn(1, 3, 4, dtype=torch.float64, seed=5)
    c = (power * SIGMA**2 / (power + SIGMA**2)).reshape(3, 4)
    d = prior.denoise(x, SIGMA)
    expected = d + operator.mask * c / (c + 0.09) * (y - d)
    assert relative(estimate(TMPD(), Problem.build(operator, y, 0.3), prior, x), expected) < EXACT


def dps_shift(case: Case) -> Tensor:
    """J^H A^H (A D - y) / ||y - A D||, one row per item."""
    pull = rows(case.jacobian.mH @ case.matrix.mH, -case.misfit)
    return pull / torch.linalg.vector_norm(case.misfit, dim=1, keepdim=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dps_is_its_formula(dtype):
    case = Case(dtype)
    alphas = 1 / math.sqrt((1 + SIGMA**2) * (1 + NEXT**2))
    weight = 0.4 / (alphas * (1 - NEXT**2 / SIGMA**2))
    shift, length = dps_shift(case), torch.linalg.vector_norm(case.misfit, dim=1, keepdim=True)
    assert relative(case.run(DPS(0.4)), case.denoised - weight * shift) < DENSE
    assert relative(case.run(DPS(0.4, "squared")), case.denoised - 2 * weight * length * shift) < DENSE
    bayes = case.denoised - (SIGMA / case.sigma_y) ** 2 * length * shift
    assert relative(case.run(DPS(0.4, "likelihood")), bayes) < DENSE


@pytest.mark.parametrize("sigma_next", [0.5, 0.0])
def test_dps_with_ancestral_steps_is_the_published_algorithm(sigma_next):
    """One step in the variance-preserving frame, DDPM's mean and noise, then minus zeta times the gradient there."""
    case, noise = Case(torch.float64, items=1), randn(1, 3, 4, dtype=torch.float64, seed=8)
    abar, abar_next = 1 / (1 + SIGMA**2), 1 / (1 + sigma_next**2)
    state = (case.x * math.sqrt(abar)).requires_grad_()
    d = case.prior.denoise(state / math.sqrt(abar), SIGMA)
    misfit = torch.linalg.vector_norm(case.y - case.operator(d))
    (gradient,) = torch.autograd.grad(misfit, state)
    alpha, beta = abar / abar_next, 1 - abar / abar_next
    mean = math.sqrt(abar_next) * beta / (1 - abar) * d + math.sqrt(alpha) * (1 - abar_next) / (1 - abar) * state
    expected = mean + math.sqrt(beta * (1 - abar_next) / (1 - abar)) * noise - 0.3 * gradient
    random = SampleRandom(0, [0])
    found = DPS(0.3).estimate(case.problem, case.prior, case.x, SIGMA, random, sigma_next=sigma_next)
    x = DDIM(1.0).step(case.x, found, SIGMA, sigma_next, lambda: noise)
    assert relative(math.sqrt(abar_next) * x, expected.detach()) < EXACT


def test_dps_takes_the_norm_of_one_sample_and_sums_over_its_data():
    case = Case(torch.complex128)
    case.y = case.y * torch.tensor([[1.0], [1e3]])  # a norm over the batch would be that of the second alone
    alone = Case(torch.complex128, items=1)
    assert relative(case.run(DPS())[:1], alone.run(DPS())) < EXACT
    twice = Case(torch.complex128, items=1)
    twice.matrix = torch.cat([alone.matrix, alone.matrix])
    twice.operator, twice.y = Matrix(twice.matrix, (3, 4)), torch.cat([alone.y, alone.y], dim=1)
    shifts = [c.run(DPS(zeta)) - c.denoised for c, zeta in ((alone, 1.0), (alone, 2.0), (twice, 1.0))]
    assert relative(shifts[1], 2 * shifts[0]) < EXACT
    assert relative(shifts[2], math.sqrt(2) * shifts[0]) < EXACT  # a mean over the data would not notice


def test_dps_norm_ignores_the_scale_of_the_data_and_sigma_y_and_the_square_does_not():
    case, scaled = Case(torch.complex128), Case(torch.complex128, sigma_y=0.0)
    scaled.matrix, scaled.y = 10 * case.matrix, 10 * case.y
    scaled.operator = Matrix(scaled.matrix, (3, 4))
    for form, power in (("norm", 1), ("squared", 2)):
        small, large = (c.run(DPS(1.0, form)) - c.denoised for c in (case, scaled))
        assert relative(large, 10**power * small) < EXACT


def test_dps_leaves_an_image_that_fits():
    prior = FixedPrior(randn(2, 3, 4, dtype=torch.float64), 1.0)
    moving = from_function(lambda x, sigma: prior.denoised + 0 * x)
    problem = Problem.build(Identity((3, 4), dtype=torch.float64), prior.denoised.clone(), 0.1)
    assert torch.equal(estimate(DPS(), problem, moving, randn(2, 3, 4, dtype=torch.float64)), prior.denoised)


def test_dps_takes_nonlinear_operators():
    operator = FourierMagnitude((3, 4), dtype=torch.complex128)
    case = Case(torch.complex128)
    y = operator(randn(2, 3, 4, seed=4))
    problem = Problem.build(operator, y, 0.0)
    state = case.x.clone().requires_grad_()
    misfit = torch.linalg.vector_norm((operator(case.prior.denoise(state, SIGMA)) - y).flatten(1), dim=1)
    (gradient,) = torch.autograd.grad(misfit.sum(), state)
    weight = math.sqrt((1 + SIGMA**2) * (1 + NEXT**2)) / (1 - NEXT**2 / SIGMA**2)
    found = estimate(DPS(), problem, case.prior, case.x)
    assert relative(found, case.prior.denoise(case.x, SIGMA) - weight * gradient) < DENSE
    run = DiffusionSampler(DPS(), DDIM(1.0), 4, start="noise").run(problem, case.prior, samples=2, seed=0)
    assert run.stats.nfe == run.stats.nfe_backward == 4 and bool(torch.isfinite(run.samples.abs()).all())
    with pytest.raises(InputError, match="gradients"):
        DiffusionSampler(PiGDM(), DDIM(1.0), 4, start="noise").run(problem, case.prior, samples=2, seed=0)


@pytest.mark.parametrize("conditioning", ALL, ids=str)
def test_phases_of_the_data_are_phases_of_the_image(conditioning):
    """Catches a lost imaginary part, and products without conjugation."""
    case = Case(torch.complex128)
    case.prior = GaussianPrior(0 * case.mean, case.covariance)
    phase = cmath.exp(0.7j)
    straight = case.run(conditioning)
    case.y, case.x = case.y * phase, case.x * phase
    assert relative(case.run(conditioning), straight * phase) < 1e-9  # rounding, through truncated solves


@pytest.mark.parametrize("conditioning", ALL, ids=str)
def test_samples_of_a_batch_do_not_see_each_other(conditioning):
    case = Case(torch.complex128)
    case.y = case.y * torch.tensor([[1.0], [1e3]])
    whole = case.run(conditioning)
    for k in range(2):
        alone = Case(torch.complex128)
        alone.y, alone.x = case.y[k : k + 1], case.x[k : k + 1]
        assert relative(alone.run(conditioning), whole[k : k + 1]) < 1e-9  # rounding, through truncated solves


@pytest.mark.parametrize("conditioning", [DiffPIR(), PiGDM(**SOLVED), DDNM()], ids=str)
def test_far_above_the_images_only_what_is_known_of_them_counts(conditioning):
    """Large sigma: D tends to the mean; DiffPIR projects onto the data, PiGDM keeps the spread of the images."""
    case = Case(torch.float64)
    random = SampleRandom(0, range(2))
    x = 1e6 * case.x
    found = conditioning.estimate(case.problem, case.prior, x, 1e6, random, sigma_next=1e5).x0.flatten(1)
    a, m = case.matrix, case.mean.flatten().expand(2, -1) + rows(case.covariance, x.flatten(1)) / 1e12
    if isinstance(conditioning, PiGDM):
        s2 = float(case.covariance.diagonal().mean())
        gain = case.covariance @ a.mH @ torch.linalg.inv(s2 * a @ a.mH + 0.09 * eye(DATA, a.dtype))
    else:
        gain = torch.linalg.pinv(a)
    tolerance = 1e-4 if isinstance(conditioning, PiGDM) else 2e-2  # x / sigma^2 and r^2 A^H A; rtol 1e-3, condition 10
    assert relative(found, m + rows(gain, case.y - rows(a, m))) < tolerance


@pytest.mark.parametrize("conditioning", ALL, ids=str)
def test_support_is_kept(conditioning):
    maps = mri().maps.clone()
    maps[..., :3, :] = 0  # nobody sees these rows
    operator = type(mri())(maps, torch.arange(6) % 2 == 0)
    prior = stationary((8, 6))
    problem = Problem.build(operator, observe(operator, randn(2, 8, 6), 0.1), 0.1)
    found = estimate(conditioning, problem, prior, randn(2, 8, 6, seed=1))
    assert float(found[:, :3].abs().max()) == 0 < float(found[:, 3:].abs().min())


@pytest.mark.parametrize(
    "build",
    [
        lambda: DPS(0.0),
        lambda: DPS(math.inf),
        lambda: DPS(form="mean"),
        lambda: PiGDM(0.0),
        lambda: PiGDM(iterations=0),
        lambda: DiffPIR(0.0),
        lambda: DiffPIR(iterations=0),
        lambda: DDNM(iterations=0),
        lambda: MomentMatching(iterations=0),
        lambda: MomentMatching(residual=0.0),
        lambda: MomentMatching(rtol=-1.0),
        lambda: Case(torch.float64, sigma_y=0.0).run(DPS(form="likelihood")),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def test_the_step_reaches_the_conditioning():
    """DPS needs the level that the step leads to; a run hands it on."""
    case = Case(torch.float64)
    recorder = Recorder(DPS(0.1))
    DiffusionSampler(recorder, DDIM(1.0), grid=(2.0, 1.0, 0.0), start="noise").run(
        case.problem, case.prior, samples=1, seed=0
    )
    sigma, last, x, found = recorder.calls[0]
    assert (sigma, last) == (2.0, False)
    with torch.no_grad():
        expected = DPS(0.1).estimate(case.problem, case.prior, x, 2.0, SampleRandom(0, range(2)), sigma_next=1.0)
    assert relative(found.x0, expected.x0) < EXACT
