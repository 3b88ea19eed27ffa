"""DDRM: one step against its formulas in singular vectors, its variances, and what it refuses."""

import math
import pickle

import pytest
import torch
from sampler_cases import dense, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse.errors import InputError
from inverse.operators import Blur, Downsample, FourierMagnitude, Identity, LinearOperator, Mask, MultiCoilMRI
from inverse.priors import StationaryGaussianPrior, from_function
from inverse.samplers import Problem
from inverse.samplers.ddrm import DDRM

SHAPE = (8, 6)
FORMULA = 1e-10  # transforms of 48 pixels in double precision, singular values down to 1e-3
BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=torch.float64) / 16


def one_coil() -> MultiCoilMRI:
    return MultiCoilMRI(torch.ones(1, *SHAPE, dtype=torch.complex128), torch.arange(6) % 2 == 0)


OPERATORS = {
    "mask": lambda: Mask(torch.arange(48).reshape(SHAPE) % 3 > 0, dtype=torch.float64),
    "blur": lambda: Blur(BLUR, SHAPE, dtype=torch.float64),
    "blur, complex": lambda: Blur(BLUR, SHAPE, dtype=torch.complex128),
    "means of blocks": lambda: Downsample(2, SHAPE, dtype=torch.float64),
    "one coil": one_coil,
    "a third": lambda: (1j / 3) * one_coil(),
}


def setup(name: str, sigma_y: float = 0.2, items: int = 2) -> tuple[Problem, StationaryGaussianPrior]:
    operator = OPERATORS[name]()
    prior = stationary(SHAPE, operator.in_dtype)
    x = prior.sample(items, torch.Generator().manual_seed(4))
    return Problem.build(operator, observe(operator, x, sigma_y), sigma_y), prior


class Replay:
    """Gives out the noise it was given, in order."""

    def __init__(self, *noise: Tensor):
        self.noise = list(noise)

    def normal(self, shape, *, dtype):
        return self.noise.pop(0)


class Quiet:
    def evaluation(self, sigma, x0, denoised):
        pass


def step_by_svd(
    matrix: Tensor,
    y: Tensor,
    x: Tensor,
    d: Tensor,
    n: Tensor,
    levels: tuple[float, float],
    sampler: DDRM,
    sigma_y: float,
) -> Tensor:
    """One step in the singular vectors of a dense A, coefficient by coefficient, rows being items."""
    sigma, sigma_next = levels
    u, s, vh = torch.linalg.svd(matrix)
    s = torch.cat([s, s.new_zeros(vh.shape[0] - len(s))])
    x, d, n = (t.flatten(1) @ vh.mT for t in (x, d, n))
    ybar = y.flatten(1) @ u.conj()
    out = torch.empty_like(x)
    kept = math.sqrt(1 - sampler.eta**2)
    for i, value in enumerate(s.tolist()):
        if value < 1e-10:
            seen = d[:, i] + kept * sigma_next * (x[:, i] - d[:, i]) / sigma + sampler.eta * sigma_next * n[:, i]
        elif sigma_next >= sigma_y / value:
            known = (1 - sampler.eta_b) * d[:, i] + sampler.eta_b * ybar[:, i] / value
            seen = known + math.sqrt(sigma_next**2 - (sampler.eta_b * sigma_y / value) ** 2) * n[:, i]
        else:
            seen = d[:, i] + kept * sigma_next * (ybar[:, i] / value - d[:, i]) / (sigma_y / value)
            seen = seen + sampler.eta * sigma_next * n[:, i]
        out[:, i] = seen
    return out @ vh.conj()


@pytest.mark.parametrize("sampler", [DDRM(), DDRM(0.3, 0.6)], ids=["published", "other"])
@pytest.mark.parametrize("sigma_next", [1.0, 0.3, 0.1, 0.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_step_is_the_published_one(name, sigma_next, sampler):
    """Above, between and below the noise of the data, sigma_y / s; the start is checked through it."""
    problem, prior = setup(name)
    dtype = problem.operator.in_dtype
    start, noise = (randn(2, *SHAPE, dtype=dtype, seed=s) for s in (1, 2))
    levels = (2.0, sigma_next) if sigma_next > 0 else (2.0, 0.0)
    found = DDRM(sampler.eta, sampler.eta_b, grid=levels).sample(problem, prior, Replay(start, noise), Quiet())
    matrix = dense(problem.operator)
    # From S = infinity on the start is one step of eta = 1 to S with eta_b = 1 and D = 0.
    zero = torch.zeros_like(start)
    x = step_by_svd(matrix, problem.y, zero, zero, start, (1e9, 2.0), DDRM(1.0, 1.0), 0.2).reshape(start.shape)
    d = prior.denoise(x, 2.0)
    expected = step_by_svd(matrix, problem.y, x, d, noise, levels, sampler, 0.2)
    assert relative(found.flatten(1), expected) < FORMULA


def test_the_variance_is_the_one_that_is_asked_for():
    """At a level above the noise of the data x has the variance sigma^2, seen or not: no factor of 1/2 is lost."""
    problem, _ = setup("one coil", sigma_y=0.5, items=1)
    prior = from_function(lambda x, sigma: torch.zeros_like(x), channels=2)
    solution = DDRM(grid=(20.0, 2.0)).run(problem, prior, samples=3000, seed=0)
    x = torch.view_as_real(problem.operator.svd.Vh(solution.samples[:, 0]))
    variance = x.var(0).mean(-1)
    seen = problem.operator.svd.s > 0
    chance = 5 * math.sqrt(2 / 6000)  # of 48 coefficients
    assert float((variance[seen] - (4 - 0.25)).abs().max()) < chance * 4
    assert float((variance[~seen] - 4).abs().max()) < chance * 4  # sqrt(1 - eta^2) of the noise it had, and eta fresh


@pytest.mark.parametrize("name", ["mask", "means of blocks", "one coil"])
def test_data_without_noise_are_met_exactly(name):
    problem, prior = setup(name, sigma_y=0.0)
    solution = DDRM(steps=6).run(problem, prior, samples=2, seed=0)
    assert relative(problem.operator(solution.samples), problem.y.expand(2, *problem.y.shape)) < FORMULA
    hidden = solution.samples[0] - solution.samples[1]
    assert float(hidden.abs().square().mean()) > 1e-3


def test_a_level_of_noise_in_the_last_step_returns_the_denoised_image():
    problem, prior = setup("mask")
    seen = []
    solution = DDRM(steps=5).run(
        problem, prior, samples=1, seed=0, callback=lambda step, sigma, x0: seen.append((sigma, x0))
    )
    assert torch.equal(solution.samples[0], seen[-1][1]) and solution.stats.nfe == len(seen) == 5


def test_singular_values_that_are_rounding_are_not_divided_by():
    problem, prior = setup("blur", sigma_y=0.0)  # the kernel has zeros in its spectrum
    s = problem.operator.svd.s
    assert float(s.min()) < 1e-12
    solution = DDRM(steps=6).run(problem, prior, samples=2, seed=0)
    assert float(solution.samples.abs().max()) < 100


@pytest.mark.parametrize("name", OPERATORS)
def test_samples_do_not_depend_on_the_batch(name):
    problem, prior = setup(name)
    whole = DDRM(steps=6).run(problem, prior, samples=3, seed=5)
    for batch in (1, 4):
        parts = DDRM(steps=6).run(problem, prior, samples=3, seed=5, batch=batch)
        assert relative(parts.samples, whole.samples) < FORMULA
    assert relative(DDRM(steps=6).run(problem, prior, samples=1, seed=6).samples[0], whole.samples[0]) > 1e-3


def test_phases_of_the_data_are_phases_of_the_image():
    problem, prior = setup("one coil")
    turned = Problem.build(problem.operator, problem.y * 1j, 0.2)
    noise = [randn(2, *SHAPE, seed=s) for s in range(4)]
    runs = [
        DDRM(grid=(2.0, 1.0, 0.1, 0.0)).sample(p, prior, Replay(*(f * n for n in noise)), Quiet())
        for p, f in ((problem, 1), (turned, 1j))
    ]
    assert relative(runs[1], 1j * runs[0]) < FORMULA


def test_the_posterior_is_nearer_than_the_prior():
    problem, prior = setup("mask", items=8)
    x0 = prior.sample(8, torch.Generator().manual_seed(4))
    solution = DDRM().run(problem, prior, samples=4, seed=0)
    error = float((solution.mean - x0).square().mean())
    assert error < 0.5 * float(x0.square().mean())  # prior draws: twice it


@pytest.mark.parametrize(
    ("operator", "word"),
    [
        (mri(SHAPE), "singular value decomposition"),
        (FourierMagnitude(SHAPE, dtype=torch.complex128), "nonlinear"),
    ],
)
def test_operators_without_singular_vectors_are_refused_in_one_line(operator: LinearOperator, word: str):
    prior = stationary(SHAPE)
    calls = []
    counting = from_function(lambda x, sigma: calls.append(0) or prior.denoise(x, sigma), channels=2)
    y = torch.zeros(1, *operator.out_shape, dtype=operator.out_dtype)
    with pytest.raises(InputError, match=word) as error:
        DDRM().run(Problem.build(operator, y, 0.1), counting, samples=1, seed=0)
    assert "\n" not in str(error.value) and not calls


@pytest.mark.parametrize(
    "build",
    [
        lambda: DDRM(eta=1.2),
        lambda: DDRM(eta_b=-0.1),
        lambda: DDRM(steps=0),
        lambda: DDRM(grid=(1.0, 2.0)),
        lambda: DDRM(grid=(math.nan, 0.0)),
    ],
)
def test_bad_settings_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10


def test_it_compares_prints_and_pickles():
    sampler = DDRM(0.5, 0.9, antithetic=True)
    assert pickle.loads(pickle.dumps(sampler)) == sampler != DDRM() and "eta_b=0.9" in repr(sampler)
    assert sampler.with_steps(9) == DDRM(0.5, 0.9, 9, antithetic=True) and sampler.with_steps(9).evaluations() == 9
    assert DDRM(grid=(2.0, 1.0, 0.0)).evaluations() == 2 and DDRM(grid=[2.0, 1.0]).grid == (2.0, 1.0)


def test_for_denoising_it_is_all_data():
    """A = I: no coefficient is hidden, and above the noise x is the data with more noise; the prior has no say."""
    operator, prior = Identity(SHAPE, dtype=torch.float64), stationary(SHAPE, torch.float64)
    problem = Problem.build(operator, observe(operator, prior.sample(1), 0.3), 0.3)
    x = DDRM(grid=(5.0, 1.0)).run(problem, prior, samples=400, seed=0).samples[:, 0]
    chance = 5 / math.sqrt(400)
    assert float((x.mean(0) - problem.y[0]).abs().max()) < chance * math.sqrt(1 - 0.09)
