"""`solve`: reproducible, in the user's units and shapes, and one line for every input that does not fit."""

import json
import math
import random

import h5py
import pytest
import torch
from sampler_cases import coil_maps, dense, mri, observe, randn, relative, stationary
from torch import Tensor

from inverse import AtMost, InputError, SamplingError, Solution, solve
from inverse.noise import estimate_noise
from inverse.operators import Identity, LinearOperator, MultiCoilMRI, Operator
from inverse.priors import from_function
from inverse.priors.base import Denoiser
from inverse.samplers import DDS, DiffusionSampler, Problem

SHAPE, SIGMA = (16, 16), 0.1
# Rounding of single precision through CG, where samples take other roads through A^H A in another batch.
SINGLE = 1e-4


class Counting(Denoiser):
    """Counts the evaluations of a prior of smooth images in single precision."""

    def __init__(self, shape: tuple[int, int] = SHAPE, peak: float | None = 2.5):
        self.inner = stationary(shape)
        self.channels, self.data_std, self.peak, self.calls = 2, self.inner.data_std, peak, 0
        self.calibration = self.inner.calibration

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls += 1
        return self.inner.denoise(x.to(torch.complex128), sigma).to(x.dtype)


def operator(coils: int = 4) -> MultiCoilMRI:
    return mri(SHAPE, coils).to(torch.float32)


def data(*batch: int, sigma: float = SIGMA, coils: int = 4) -> tuple[Tensor, Tensor]:
    """Scans of prior draws and the draws, (*batch, ...)."""
    count = math.prod(batch)
    x0 = stationary(SHAPE).sample(count, torch.Generator().manual_seed(3)).to(torch.complex64)
    y = observe(operator(coils), x0, sigma)
    return y.reshape(*batch, *y.shape[1:]), x0.reshape(*batch, *SHAPE)


def exact_mean(y: Tensor) -> Tensor:
    """Exact posterior means: (C^-1 + A^H A / sigma_y^2)^-1 A^H y / sigma_y^2, dense."""
    prior, matrix, n = stationary(SHAPE), dense(operator().to(torch.float64)), math.prod(SHAPE)
    units = torch.eye(n, dtype=torch.complex128).reshape(n, *SHAPE)
    precision = prior.transform.inverse(prior.transform.forward(units) / prior.power).reshape(n, n).mT
    right = matrix.mH @ y.reshape(len(y), -1).to(torch.complex128).mT / SIGMA**2
    means = torch.linalg.solve(precision + matrix.mH @ matrix / SIGMA**2, right)
    return means.mT.reshape(len(y), *SHAPE).to(y.dtype)


def quick(y: Tensor, **settings) -> Solution:
    """A short run."""
    chosen = {"noise": SIGMA, "steps": 4, "prior": Counting(), "operator": operator(), "progress": False} | settings
    return solve(y, chosen.pop("operator"), chosen.pop("prior"), **chosen)


@pytest.mark.parametrize("method", ["auto", "learned-covariance", "dds"])
def test_it_reconstructs(method):
    y, x0 = data(4)
    solution = quick(y, samples=4, method=method, steps=12)
    exact = exact_mean(y)
    spread = relative(exact, x0)
    # A quarter of the image is not known; the mean of four draws is off the exact one by half of that, and a fifth
    # is left for the few steps.
    assert relative(solution.mean, exact) < 1.2 * spread / 2 and relative(solution.mean, x0) < 1.2 * spread
    assert solution.std.shape == x0.shape
    assert 0.8 < float(solution.residual.mean()) < 1.25 and solution.info["notes"] == []
    assert solution.stats.nfe == 12 and "4 sample(s)" in repr(solution)


def test_the_same_seed_gives_the_same_bits():
    y, _ = data(2)
    first, second, other = quick(y, samples=2), quick(y, samples=2), quick(y, samples=2, seed=1)
    assert torch.equal(first.samples, second.samples) and torch.equal(first.residual, second.residual)
    assert relative(first.samples, other.samples) > 1e-2
    assert relative(first.samples[0], first.samples[1]) > 1e-2


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_a_sample_does_not_depend_on_the_batch_size(batch):
    y, _ = data(2)
    assert relative(quick(y, samples=3, batch=batch).samples, quick(y, samples=3).samples) < SINGLE


def test_a_sample_does_not_depend_on_the_number_of_samples_or_items():
    y, _ = data(3)
    many = quick(y, samples=4, scale=1.0).samples
    assert relative(quick(y, samples=2, scale=1.0).samples, many[:2]) < SINGLE
    assert relative(quick(y[:2], samples=2, scale=1.0).samples, many[:2, :2]) < SINGLE


@pytest.mark.parametrize("batch", [(), (1,), (2,), (2, 1, 2)])
def test_leading_dimensions_are_kept(batch):
    y, _ = data(*batch)
    solution = quick(y, samples=2)
    assert solution.samples.shape == (2, *batch, *SHAPE) and solution.residual.shape == (2, *batch)
    assert solution.mean.shape == solution.std.shape == (*batch, *SHAPE)
    flat = quick(y.reshape(-1, *y.shape[len(batch) :]), samples=2)
    assert torch.equal(solution.samples.reshape(flat.samples.shape), flat.samples)


@pytest.mark.parametrize("c", [2.0**20, 2.0**-20, 3e-5])
def test_the_result_follows_the_units_of_the_data(c):
    y, _ = data(2)
    plain, scaled = quick(y, samples=2), quick(c * y, samples=2, noise=c * SIGMA)
    assert relative(scaled.samples, c * plain.samples) < SINGLE
    assert scaled.info["scale"] == pytest.approx(c * plain.info["scale"], rel=1e-4)
    assert scaled.info["noise"] == pytest.approx(c * SIGMA, rel=1e-6)
    assert relative(scaled.residual, plain.residual) < SINGLE


def test_a_scale_by_hand_is_taken():
    y, _ = data(2)
    solution, plain = quick(4 * y, scale=4.0, noise=4 * SIGMA), quick(y, scale=1.0)
    assert solution.info["scale"] == 4.0 and torch.equal(solution.samples, 4 * plain.samples)  # a power of two
    assert quick(y, prior=Counting(peak=None)).info["scale"] == 1.0


@pytest.mark.parametrize("coils", [4, 1])
def test_exact_data_are_met(coils):
    y, _ = data(2, sigma=0.0, coils=coils)
    solution = quick(y, noise=0, operator=operator(coils), steps=10)
    # The default tolerance of CG is 1e-2 of the residual at each level, and levels add up.
    assert relative(operator(coils)(solution.mean), y) < 0.02
    assert solution.info["noise"] == 0.0 and bool(torch.isinf(solution.residual).all())
    assert bool(torch.isfinite(solution.samples.abs()).all())


@pytest.mark.parametrize("sigma", [0.03, 0.3])
def test_noise_is_estimated_where_there_are_more_data_than_unknowns(sigma):
    y, _ = data(4, sigma=sigma)
    # About 1200 unexplained numbers a scan: 0.02; the image explains a little of the noise more or less.
    assert estimate_noise(y, operator()) == pytest.approx(sigma, rel=0.1)
    solution = quick(y, noise=None, steps=8)
    assert solution.info["noise"] == pytest.approx(sigma, rel=0.2) and not solution.info["noise_given"]
    assert 0.8 < float(solution.residual.mean()) < 1.25


def test_a_bound_of_the_noise_is_lowered_until_the_residual_fits():
    y, _ = data(4)
    solution = quick(y, noise=AtMost(4 * SIGMA), steps=8)
    # A part of these images is as white as noise, so that the last factor of 1.5 stays open.
    assert SIGMA * 0.8 < solution.info["noise"] < SIGMA * 2 and not solution.info["noise_given"]
    stated = quick(y, noise=4 * SIGMA, steps=8)
    assert stated.info["noise"] == pytest.approx(4 * SIGMA) and stated.info["noise_given"]
    assert "too high" in stated.info["notes"][0]


def test_noise_that_is_stated_too_low_is_reported():
    y, _ = data(4)
    assert "too low" in quick(y, noise=SIGMA / 4, steps=8).info["notes"][0]


def test_noise_is_not_guessed_where_the_data_say_nothing():
    y, _ = data(2, coils=1)
    prior = Counting()
    with pytest.raises(InputError, match="give noise="):
        quick(y, operator=operator(1), noise=None, prior=prior)
    assert prior.calls == 0


def test_steps_are_network_evaluations():
    y, _ = data(1)
    prior = Counting()
    solution = quick(y, steps=7, prior=prior, samples=3, batch=1)
    assert solution.stats.nfe == 7 and prior.calls == 21
    assert quick(y, steps=None).stats.nfe == 20
    sampler = DiffusionSampler(DDS(), steps=5)
    assert quick(y, method=sampler, steps=None).stats.nfe == 5 and quick(y, method=sampler, steps=3).stats.nfe == 3


def test_the_callback_sees_every_step_in_the_units_of_the_data():
    y, _ = data(1)
    seen: list[tuple[int, float, Tensor]] = []
    solution = quick(y, noise=SIGMA, callback=lambda step, sigma, x0: seen.append((step, sigma, x0)))
    factor = solution.info["scale"]
    assert [s for s, _, _ in seen] == [0, 1, 2, 3]
    assert [s for _, s, _ in seen] == pytest.approx([factor * level for level in solution.info["grid"][:-1]])
    assert relative(seen[-1][2], solution.samples[0]) < 1e-6  # the last estimate is the sample


def test_the_solution_knows_how_it_was_made():
    y, _ = data(1)
    info = quick(y, seed=5).info
    assert info["seed"] == 5 and "LearnedCovariance" in info["sampler"] and info["torch"] == torch.__version__
    assert {"prior", "grid", "innovation", "why", "noise", "scale"} <= set(info)


class Elsewhere(Tensor):
    """A tensor that says it is on a GPU; there may be none."""

    device = torch.device("cuda", 0)


class Huge(Operator):
    """Not linear."""

    def _apply(self, x: Tensor) -> Tensor:
        return x.abs().to(x.dtype)


def real_identity() -> LinearOperator:
    return Identity(SHAPE, dtype=torch.float32)


# Name: what is wrong, words of the message. y is a good scan of two items unless replaced.
BAD = {
    "y of another size": ({"y": lambda y: y[..., :-1]}, "expected shape"),
    "y with too few coils": ({"y": lambda y: y[:, :3]}, "expected shape"),
    "y without coils": ({"y": lambda y: y[0, 0]}, "expected shape"),
    "a batch of none": ({"y": lambda y: y[:0]}, "at least one item"),
    "NaN in y": ({"y": lambda y: y * math.nan}, "NaN or Inf"),
    "one infinite value in y": ({"y": lambda y: y.index_fill(3, torch.tensor(1), math.inf)}, "NaN or Inf"),
    "y all zero": ({"y": torch.zeros_like}, "no signal"),
    "y zero where it was measured": ({"y": lambda y: (1 - operator().weights) * torch.ones_like(y)}, "no signal"),
    "real y": ({"y": lambda y: y.real}, "complex"),
    "complex y for a real operator": ({"operator": real_identity}, "real"),
    "y in double precision": ({"y": lambda y: y.to(torch.complex128)}, "complex64"),
    "y as an array": ({"y": lambda y: y.numpy()}, "torch.Tensor"),
    "y as a list": ({"y": lambda y: y.tolist()}, "torch.Tensor"),
    "y on another device": ({"y": lambda y: y.as_subclass(Elsewhere)}, "y.to"),
    "negative noise": ({"noise": -0.1}, "noise"),
    "noise not a number": ({"noise": math.nan}, "noise"),
    "infinite noise": ({"noise": math.inf}, "noise"),
    "a negative bound of the noise": ({"noise": AtMost(-1.0)}, "noise"),
    "scale zero": ({"scale": 0.0}, "scale"),
    "scale negative": ({"scale": -2.0}, "scale"),
    "scale unknown": ({"scale": "big"}, "scale"),
    "no samples": ({"samples": 0}, "samples"),
    "batch zero": ({"batch": 0}, "batch"),
    "steps zero": ({"steps": 0}, "steps"),
    "steps zero of a sampler": ({"steps": 0, "method": DiffusionSampler(DDS())}, "steps"),
    "an unknown method": ({"method": "ddpm"}, "unknown"),
    "a prior of real images": ({"channels": 1}, "channel"),
    "a prior of three channels": ({"channels": 3}, "channel"),
    "a prior of another size": ({"shape": (8, 8)}, "shape"),
    "an operator that is not linear": ({"operator": lambda: Huge((16, 16), (16, 16))}, "linear"),
    "an unknown prior": ({"prior": "kidney-ct"}, "kidney-ct"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_the_first_evaluation(name):
    change, message = BAD[name]
    change, prior, (y, _) = dict(change), Counting(), data(2)
    for attribute in ("channels", "shape"):
        if attribute in change:
            setattr(prior, attribute, change.pop(attribute))
    y = change.pop("y", lambda y: y)(y)
    built = change.pop("operator", operator)()
    with pytest.raises(InputError, match=message) as error:
        quick(y, operator=built, **{"prior": prior, **change})
    assert "\n" not in str(error.value) and prior.calls == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: MultiCoilMRI(coil_maps(4, SHAPE), torch.zeros(16)),
        lambda: MultiCoilMRI(coil_maps(4, SHAPE), torch.ones(15)),
        lambda: MultiCoilMRI(coil_maps(4, (16, 14)), torch.ones(16, 16)),
        lambda: MultiCoilMRI(coil_maps(4, SHAPE).real, torch.ones(16)),
        lambda: quick(data(1)[0], operator=MultiCoilMRI(coil_maps(4, (16, 14)).to(torch.complex64), torch.ones(14))),
        lambda: quick(data(1)[0], operator=MultiCoilMRI(coil_maps(3, SHAPE).to(torch.complex64), torch.ones(16))),
    ],
    ids=["mask all zero", "short mask", "small maps", "real maps", "maps of another size", "maps of fewer coils"],
)
def test_maps_and_masks_that_do_not_fit_are_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value)


def test_not_a_number_from_the_prior_names_the_step_and_the_level():
    prior = Counting()
    bad = from_function(
        lambda x, sigma: prior.denoise(x, sigma) * (math.nan if sigma < 1 else 1),
        channels=2,
        data_std=prior.data_std,
        peak=2.5,
    )
    y, _ = data(1)
    with pytest.raises(SamplingError, match=r"prior's estimate at step \d+ \(sigma 0\.\d+\)") as error:
        quick(y, prior=bad, steps=8)
    assert "\n" not in str(error.value)


def test_inputs_and_the_global_state_are_left_alone():
    y, _ = data(2)
    built, kept = operator(), y.clone()
    maps, mask = built.maps.clone(), built.mask.clone()
    before = torch.random.get_rng_state(), random.getstate()
    settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    solution = quick(y, samples=2, operator=built, noise=None)
    assert torch.equal(y, kept) and torch.equal(built.maps, maps) and torch.equal(built.mask, mask)
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert settings == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
    torch.manual_seed(1234)  # and it does not read it either
    assert torch.equal(quick(y, samples=2, operator=built, noise=None).samples, solution.samples)


def test_no_graph_is_kept_for_data_or_priors_that_need_gradients():
    y, _ = data(1)
    assert not quick(y.clone().requires_grad_()).samples.requires_grad
    weight, inner = torch.ones((), requires_grad=True), Counting()
    trained = from_function(lambda x, sigma: weight * inner.denoise(x, sigma), channels=2)
    assert not quick(y, prior=trained).samples.requires_grad and weight.grad is None
    sampler = DiffusionSampler(DDS(), steps=2)
    assert not sampler.run(Problem.build(operator(), y, SIGMA), trained, samples=1, seed=0).samples.requires_grad


def test_one_sample_has_no_error_bar_and_more_have_that_of_both_components():
    y, _ = data(1)
    assert quick(y).std is None
    solution = quick(y, samples=5)
    spread = torch.view_as_real(solution.samples).var(0).sum(-1).sqrt()
    assert relative(solution.std, spread) < 1e-5


@pytest.mark.parametrize("samples", [1, 3])
def test_a_saved_solution_is_read_back(samples, tmp_path):
    y, x0 = data(2)
    solution = quick(y, samples=samples)
    path = solution.save(tmp_path / "out.h5", truth=x0)
    with h5py.File(path) as file:
        wanted = {"mean", "samples", "residual", "truth"} | ({"std"} if samples > 1 else set())
        assert set(file) == wanted
        for name in wanted - {"truth"}:
            assert torch.equal(torch.from_numpy(file[name][()]), getattr(solution, name))
        assert torch.equal(torch.from_numpy(file["truth"][()]), x0)
        info = json.loads(file.attrs["info"])
        assert info["seed"] == 0 and info["grid"] == solution.info["grid"]
        assert json.loads(file.attrs["stats"])["nfe"] == 4
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]
    solution.save(path)  # again, over the old file
    with h5py.File(path) as file:
        assert "truth" not in file


def test_long_runs_can_be_saved(tmp_path):
    # A thousand levels and their innovations: more than the 64 KiB of a plain HDF5 attribute.
    y, _ = data(1)
    solution = quick(y)
    solution.info["innovation"] = [[1 / 3, 1.2345]] * 5000
    with h5py.File(solution.save(tmp_path / "long.h5")) as file:
        assert len(json.loads(file.attrs["info"])["innovation"]) == 5000


@pytest.mark.parametrize("where", ["missing/out.h5", "file/out.h5"])
def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(where, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    y, _ = data(1)
    with pytest.raises(InputError, match="cannot be written") as error:
        quick(y).save(tmp_path / where)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_real_images_are_solved_as_complex_ones_are():
    prior = stationary(SHAPE, torch.float64)
    x0 = prior.sample(2, torch.Generator().manual_seed(1))
    denoising = Identity(SHAPE, dtype=torch.float64)
    y = x0 + 0.2 * randn(2, *SHAPE, dtype=torch.float64)
    solution = solve(y, denoising, prior, noise=0.2, samples=3, steps=8, progress=False)
    assert solution.samples.dtype == torch.float64 and relative(solution.mean, x0) < relative(y, x0)


def test_a_bare_function_is_no_prior_and_the_message_says_how_to_make_it_one() -> None:
    y, operator = torch.zeros(4, 4), Identity((4, 4), dtype=torch.float32)
    with pytest.raises(InputError, match="from_function"):
        solve(y, operator, lambda x, sigma: x, noise=0.1)


def test_noise_that_is_no_number_is_refused() -> None:
    y, operator = torch.zeros(4, 4), Identity((4, 4), dtype=torch.float32)
    with pytest.raises(InputError, match="noise: expected a number"):
        solve(y, operator, from_function(lambda x, sigma: x), noise="loud")
