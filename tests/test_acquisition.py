"""A scan file made ready: what is cropped, which lines count, which noise and which maps, and CG-SENSE."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from checks import check_one_line
from cli_cases import SIDE, disc, write_scan
from torch import Tensor

from inverse.acquisition import Acquisition, acquire, cg_sense
from inverse.data import crop_readout, equispaced, poisson_disc, read, simulate_maps, simulate_scan, write
from inverse.operators.mri import MultiCoilMRI
from inverse.priors import from_function

LINES = equispaced(SIDE, 2, center_fraction=0.3)  # those of `write_scan`
SIGMA = 0.02  # that of `write_scan`


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative_error(images: Tensor, truth: Tensor) -> float:
    return float((images.abs() - truth).norm() / truth.norm())


def write_pattern(path: Path, *, seed: int = 0) -> Path:
    """A scan with a two-dimensional pattern, which has no whole lines."""
    mask = poisson_disc((SIDE, SIDE), 3, calibration=16, seed=seed)
    scan = simulate_scan(disc(1), mask=mask, generator=generator(seed), coils=4, sigma_y=SIGMA)
    write(path, scan.kspace, mask=mask)
    return path


def change(path: Path, **datasets: np.ndarray | None) -> Path:
    """Replace datasets of a file; None removes one."""
    with h5py.File(path, "a") as file:
        for name, values in datasets.items():
            del file[name]
            if values is not None:
                file[name] = values
    return path


def test_scan_of_several_slices_and_coils(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.h5", slices=3)
    before = path.read_bytes()
    data = acquire(path)
    assert data.kspace.shape == data.maps.shape == (3, 4, SIDE, SIDE) and data.kspace.dtype == torch.complex64
    assert torch.equal(data.kspace, read(path).kspace)
    assert torch.equal(data.mask, LINES)
    assert data.size == (SIDE, SIDE) and data.scan.slices == (0, 1, 2)
    assert (data.noise_estimated, data.noise_is_bound) == (True, False)
    # 20 %: 48 x 48, the smaller of two estimates from some 1000 samples each
    assert abs(data.noise / SIGMA - 1) < 0.2
    assert data.reference is not None and torch.equal(data.reference, disc(3))
    assert path.read_bytes() == before


@pytest.mark.parametrize("oversampling", [1, 2])
@pytest.mark.parametrize("coils", [1, 4])
def test_images_lie_where_the_truth_lies(tmp_path: Path, coils: int, oversampling: int) -> None:
    data = acquire(write_scan(tmp_path / "scan.h5", coils=coils, oversampling=oversampling))
    assert data.zero_filled.shape == data.classical.shape == (2, SIDE, SIDE)
    truth = disc(2)
    # measured 0.11 to 0.13: noise, aliases and Tikhonov's pull to zero; the flipped truth is at 0.36 and more
    assert relative_error(data.classical, truth) < 0.16
    assert min(relative_error(data.classical, truth.flip(axis)) for axis in (1, 2)) > 0.3
    if coils > 1:
        assert relative_error(data.classical, truth) < relative_error(data.zero_filled, truth)


def test_single_coil_sees_everything_alike(tmp_path: Path) -> None:
    data = acquire(write_scan(tmp_path / "scan.h5", coils=1))
    assert data.kspace.shape == (2, 1, SIDE, SIDE)
    assert torch.equal(data.maps, torch.ones_like(data.kspace))
    assert data.scan.reference_kind == "esc"


def test_oversampled_readout_is_cropped(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.h5", oversampling=2)
    data, scan = acquire(path), read(path)
    assert scan.kspace.shape[-2] == 2 * SIDE and data.kspace.shape == (2, 4, SIDE, SIDE)
    torch.testing.assert_close(data.kspace, crop_readout(scan.kspace, SIDE))
    assert torch.equal(data.mask, LINES)
    assert bool((data.kspace[..., ~LINES] == 0).all())  # exactly: the transform along y leaves no dust
    assert data.scan.kspace.shape[-2] == 2 * SIDE  # the air that the noise is measured in is still there


def test_readout_of_a_two_dimensional_pattern_is_left_alone(tmp_path: Path) -> None:
    path = write_pattern(tmp_path / "scan.h5")
    header = read(path).header
    assert header is not None
    scan = read(path)
    smaller = dataclasses.replace(header, recon_size=(SIDE - 8, SIDE - 4, 1))
    write(path, scan.kspace, mask=scan.mask, header=smaller)
    data = acquire(path)
    assert data.kspace.shape[-2:] == data.mask.shape == (SIDE, SIDE)
    assert data.classical.shape == (1, SIDE - 8, SIDE - 4)  # the images are cropped instead


def test_missing_mask_is_found_from_the_zeros(tmp_path: Path) -> None:
    with_mask = acquire(write_scan(tmp_path / "with.h5"))
    without = acquire(write_scan(tmp_path / "without.h5", mask=False))
    assert with_mask.scan.mask_from_file and not without.scan.mask_from_file
    assert torch.equal(without.mask, LINES) and torch.equal(without.kspace, with_mask.kspace)
    assert without.noise == with_mask.noise


def test_line_that_was_promised_but_never_measured_does_not_count(tmp_path: Path) -> None:
    wrong = LINES.clone()
    wrong[~LINES] = torch.arange(int((~LINES).sum())) % 5 == 0
    assert not torch.equal(wrong, LINES)
    path = change(write_scan(tmp_path / "scan.h5"), mask=wrong.numpy())
    assert torch.equal(acquire(path).mask, LINES)


def test_line_outside_the_mask_is_dropped(tmp_path: Path) -> None:
    fewer = LINES.clone()
    fewer[:6] = False
    data = acquire(change(write_scan(tmp_path / "scan.h5"), mask=fewer.numpy()))
    assert torch.equal(data.mask, fewer)
    assert bool((data.kspace[..., :6] == 0).all())


@pytest.mark.parametrize(("chosen", "expected"), [(1, (1,)), (-1, (2,)), (slice(0, 3, 2), (0, 2)), ([2, 0], (2, 0))])
def test_only_the_chosen_slices_are_read(tmp_path: Path, chosen: Any, expected: tuple[int, ...]) -> None:
    path = write_scan(tmp_path / "scan.h5", slices=3)
    data, whole = acquire(path, slices=chosen), acquire(path)
    assert data.scan.slices == expected and data.scan.total_slices == 3
    assert torch.equal(data.kspace, whole.kspace[list(expected)])
    assert torch.equal(data.maps, whole.maps[list(expected)])


@pytest.mark.parametrize("noise", [0, 0.0, 0.5])
def test_given_noise_is_taken_as_it_is(tmp_path: Path, noise: float) -> None:
    data = acquire(write_scan(tmp_path / "scan.h5"), noise=noise)
    assert data.noise == noise and isinstance(data.noise, float)
    assert (data.noise_estimated, data.noise_is_bound) == (False, False)
    assert bool(torch.isfinite(data.classical.abs()).all())
    assert data.settled(white_prior()) is data


def test_given_noise_smooths_the_image(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.h5")
    exact, loud = (acquire(path, noise=noise).classical.abs().mean() for noise in (0.0, 1.0))
    assert 0.4 < float(loud / exact) < 0.6  # (A^H A + 1)^-1 halves what the centre of k-space holds


def test_noise_of_a_two_dimensional_pattern_is_a_bound(tmp_path: Path) -> None:
    data = acquire(write_pattern(tmp_path / "scan.h5"))
    assert data.noise_estimated and data.noise_is_bound
    # 0.85: the scatter of a few hundred samples; 2: what `inverse.data.noise` promises
    assert 0.85 < data.noise / SIGMA < 2
    assert acquire(tmp_path / "scan.h5", noise=0.1).noise_is_bound is False


def white_prior() -> Any:
    return from_function(lambda x, sigma: x / (1 + sigma**2 / 0.09), channels=2, data_std=0.3, sigma_max=20)


def test_bound_is_lowered_by_the_residual_of_pilot_runs(tmp_path: Path) -> None:
    data = acquire(write_pattern(tmp_path / "scan.h5"))
    loud = dataclasses.replace(data, noise=4 * SIGMA)
    settled = loud.settled(white_prior())
    # the runs stop once the residual is above 0.93, within which a prior as plain as this one settles; measured 1.15
    assert 0.7 < settled.noise / SIGMA < 1.4
    assert torch.equal(settled.kspace, data.kspace) and loud.noise == 4 * SIGMA


def test_scale_brings_the_peak_of_the_volume_to_that_of_the_prior(tmp_path: Path) -> None:
    prior = white_prior()
    data = acquire(write_scan(tmp_path / "scan.h5", slices=2))
    assert data.scale(prior) == 1.0  # a prior without a peak keeps the user's scale
    prior.peak = 0.9
    expected = float(torch.quantile(data.sense.abs().flatten(), 0.999)) / 0.9
    assert data.scale(prior) == pytest.approx(expected, rel=1e-5)  # single precision
    silent = dataclasses.replace(data, kspace=0 * data.kspace)
    check_one_line(lambda: silent.scale(prior), "no signal")


def test_bad_input_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.h5")
    check_one_line(lambda: acquire(tmp_path / "no.h5"), "no.h5", "no such file")
    for noise in (-1.0, math.nan, math.inf):
        check_one_line(lambda noise=noise: acquire(path, noise=noise), "noise")
    check_one_line(lambda: acquire(path, calibration=5), "calibration", "at least 6", "got 5")
    check_one_line(lambda: acquire(path, slices=7), "slices", "7")


def test_file_without_signal_where_it_was_sampled_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.h5")
    check_one_line(lambda: acquire(change(path, mask=(~LINES).numpy())), str(path), "no signal")


def test_too_few_lines_for_maps_are_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.h5")
    sparse = LINES & (torch.arange(SIDE) % 4 == 0)
    check_one_line(lambda: acquire(change(path, mask=sparse.numpy())), str(path), "at least 6")


def test_noise_that_cannot_be_found_is_asked_for(tmp_path: Path) -> None:
    """Exact data: nothing is left that looks like noise."""
    few = torch.zeros(16)
    few[4:12] = 1
    kspace = torch.zeros(1, 1, 8, 16, dtype=torch.complex64)
    kspace[..., 4:12] = torch.randn(8, 8, dtype=torch.complex64, generator=generator())
    write(tmp_path / "scan.h5", kspace, mask=few)
    check_one_line(lambda: acquire(tmp_path / "scan.h5"), "noise level cannot be estimated", "--noise")
    assert acquire(tmp_path / "scan.h5", noise=0.1).noise == 0.1


def tiny(seed: int = 0, *, hole: bool = False) -> tuple[MultiCoilMRI, Tensor]:
    maps = simulate_maps((6, 5), 3, generator=generator(seed))
    if hole:
        maps = maps.clone()
        maps[:, :2] = 0
    operator = MultiCoilMRI(maps, torch.tensor([1, 0, 1, 1, 0]))
    return operator, operator(torch.randn(1, 6, 5, dtype=torch.complex64, generator=generator(seed + 1)))[0]


def dense_tikhonov(operator: MultiCoilMRI, y: Tensor, weight: float) -> Tensor:
    """(A^H A + weight)^-1 A^H y with A written out column by column, in double precision."""
    basis = torch.eye(30, dtype=torch.complex64).reshape(30, 6, 5)
    matrix = operator(basis).reshape(30, -1).T.to(torch.complex128)
    system = matrix.mH @ matrix + weight * torch.eye(30)
    return torch.linalg.solve(system, matrix.mH @ y.flatten().to(torch.complex128)).reshape(6, 5)


@pytest.mark.parametrize("hole", [False, True])
# CG stops at a residual of 1e-4, which the smallest eigenvalue, the weight, divides in the worst direction
@pytest.mark.parametrize(("weight", "tolerance"), [(0.3, 1e-3), (0.03, 5e-3), (1.0, 5e-4)])
def test_cg_sense_is_the_dense_tikhonov_solution(weight: float, tolerance: float, hole: bool) -> None:
    operator, y = tiny(hole=hole)
    start = operator.pinv(y[None])[0]
    seen = start[2:] if hole else start
    noise = math.sqrt(weight * float(seen.abs().square().mean()) / 2 / 8)
    found, expected = cg_sense(y, operator, noise), dense_tikhonov(operator, y, weight).to(torch.complex64)
    assert float((found - expected).norm() / expected.norm()) < tolerance
    assert not hole or bool((found[:2].abs() < 1e-6).all())  # where no coil sees anything there is nothing


def test_cg_sense_keeps_its_weight_within_bounds() -> None:
    operator, y = tiny()
    for noise, weight in ((0.0, 1e-3), (1e6, 1.0)):
        found, expected = cg_sense(y, operator, noise), dense_tikhonov(operator, y, weight).to(torch.complex64)
        # 0.05: a residual of 1e-4 over a weight of 1e-3, in the worst direction
        assert float((found - expected).norm() / expected.norm()) < 0.05
    assert bool((cg_sense(0 * y, operator, 0.1) == 0).all())


def test_acquisition_is_what_acquire_returns(tmp_path: Path) -> None:
    data = acquire(write_scan(tmp_path / "scan.h5"))
    assert isinstance(data, Acquisition)
    operator = data.operator(1)
    assert torch.equal(operator.maps, data.maps[1])
    # what was measured is what the operator of its slice can explain, up to noise and Tikhonov's pull; measured 0.11
    explained = operator(data.sense[1:2])[0]
    assert float((explained - data.kspace[1]).norm() / data.kspace[1].norm()) < 0.2
