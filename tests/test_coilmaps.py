"""Coil maps, noise level and prewhitening, against simulated truth and sigpy."""

import math

import numpy as np
import pytest
import torch

from inverse.data import (
    calibration_region,
    equispaced,
    estimate_maps,
    estimate_noise,
    noise_covariance,
    prewhiten,
    read,
    sample_path,
    simulate_scan,
)
from inverse.errors import InputError


def disc(y=96, x=80, radius=0.7):
    """A smooth disc with some structure inside and air around."""
    v, u = torch.meshgrid(torch.linspace(-1, 1, y), torch.linspace(-1, 1, x), indexing="ij")
    r = torch.hypot(u, v)
    return torch.sigmoid((radius - r) * 40) * (0.7 + 0.2 * torch.cos(9 * u) * torch.cos(7 * v))


def scan(mask=None, sigma_y=0.01, seed=0, **options):
    mask = torch.ones(80) if mask is None else mask
    generator = torch.Generator().manual_seed(seed)
    return simulate_scan(disc(**options), mask=mask, generator=generator, sigma_y=sigma_y)


def test_calibration_region():
    assert calibration_region(equispaced(184, 4, center_fraction=0.08)) == (0, 17)
    mask = torch.zeros(20, 30)
    mask[6:14, 10:20] = 1
    assert calibration_region(mask) == (8, 10)
    mask[0, :] = 1
    assert calibration_region(mask) == (8, 10)
    assert calibration_region(torch.ones(5, 7)) == (5, 7)
    assert calibration_region(torch.zeros(9)) == (0, 0)
    assert calibration_region(torch.tensor([1, 1, 0, 1, 1])) == (0, 0)
    with pytest.raises(InputError):
        calibration_region(torch.ones(2, 2, 2))


# error of the direction of the maps: 17 lines resolve the simulated maps to about 1 %, 7 lines to about 5 %
@pytest.mark.parametrize(("lines", "tolerance"), [(80, 0.02), (17, 0.03), (7, 0.1)])
def test_maps_of_simulated_coils(lines, tolerance):
    simulated = scan(equispaced(80, 4, center_fraction=lines / 80))
    maps = estimate_maps(simulated.kspace)
    head = disc() > 0.3
    overlap = (maps.conj() * simulated.sens_maps).sum(0).abs()[head]
    error = (1 - overlap.square()).clamp_min(0).mean().sqrt()
    assert error < tolerance
    power = maps.abs().square().sum(0)
    assert bool(((power == 0) | ((power - 1).abs() < 1e-4)).all())  # rounding of single-precision eigenvectors
    assert bool((power[head] > 0).all())


def test_maps_are_those_of_sigpy():
    from sigpy.mri.app import EspiritCalib

    kspace = scan(equispaced(80, 4, center_fraction=16 / 80)).kspace
    region = min(calibration_region((kspace != 0).any(0)))
    theirs = EspiritCalib(kspace.numpy(), calib_width=region, crop=0, show_pbar=False).run()
    ours = estimate_maps(kspace, calibration=region, crop=0).numpy()
    overlap = np.abs((ours.conj() * theirs).sum(0))[disc().numpy() > 0.3]
    assert overlap.min() > 0.999  # sigpy stops its power iteration at 100 steps


def test_phase_of_the_maps():
    kspace = scan(seed=2).kspace
    maps = estimate_maps(kspace)
    center = kspace[:, 48 - 12 : 48 + 12, 40 - 12 : 40 + 12].flatten(1)
    u = torch.linalg.eigh(center @ center.mH)[1][:, -1]
    u = u * torch.polar(torch.tensor(1.0), -u[u.abs().argmax()].angle())
    projection = (u.conj()[:, None, None] * maps).sum(0)
    assert float(projection.imag.abs().max()) < 1e-4 and float(projection.real.min()) > -1e-4  # single precision
    rotated = estimate_maps(kspace * torch.polar(torch.tensor(1.0), torch.tensor(0.7)))
    torch.testing.assert_close(rotated, maps, atol=2e-3, rtol=0)  # a global phase of the scan stays in the image


def test_batch_single_coil_and_support():
    kspace = torch.stack([scan(seed=s).kspace for s in (0, 1)])
    maps = estimate_maps(kspace)
    torch.testing.assert_close(maps[1], estimate_maps(kspace[1]))
    assert torch.equal(estimate_maps(kspace[:, :1]), torch.ones_like(kspace[:, :1]))
    small = (estimate_maps(kspace[0], grow=0, crop=0.99).abs().sum(0) > 0).sum()
    assert small < (estimate_maps(kspace[0], grow=6, crop=0.99).abs().sum(0) > 0).sum()


def test_too_few_lines():
    kspace = scan(equispaced(80, 4, center_fraction=0)).kspace
    with pytest.raises(InputError, match=r"at least 6 fully sampled lines.*found 1"):
        estimate_maps(kspace)
    with pytest.raises(InputError):
        estimate_maps(kspace.abs())
    with pytest.raises(InputError):
        estimate_maps(kspace[0])


# 10 %: median of 400 samples scatters by 4 %, and the least of several strips is lower than their mean
@pytest.mark.parametrize("factor", [1, 4, 8])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_noise_level(factor, scale):
    simulated = scan(equispaced(80, factor, center_fraction=0.1), sigma_y=0.02)
    levels = estimate_noise(scale * simulated.kspace, simulated.mask)
    assert levels.shape == (8,)
    assert abs(float(levels.mean()) / (0.02 * scale) - 1) < 0.1


def test_noise_level_with_oversampling():
    generator = torch.Generator().manual_seed(3)
    magnitude = torch.nn.functional.pad(disc(), (0, 0, 48, 48))
    simulated = simulate_scan(magnitude, mask=equispaced(80, 4), generator=generator, sigma_y=0.02)
    # 5 %: many strips of air, whose median counts
    assert abs(float(estimate_noise(simulated.kspace).mean()) / 0.02 - 1) < 0.05


def test_noise_ignores_padding_and_filters():
    simulated = scan(sigma_y=0.02)
    kspace = simulated.kspace.clone()
    kspace[:, :6], kspace[..., -5:] = 0, 0
    assert abs(float(estimate_noise(kspace).mean()) / 0.02 - 1) < 0.1  # as above
    taper = torch.ones(96)
    taper[:8] = torch.linspace(0.02, 0.4, 8)
    assert abs(float(estimate_noise(simulated.kspace * taper[:, None]).mean()) / 0.02 - 1) < 0.1  # as above


def test_noise_of_two_dimensional_pattern_is_an_upper_bound():
    pattern = torch.rand(96, 80, generator=torch.Generator().manual_seed(0)) < 0.3
    levels = estimate_noise(scan(pattern, sigma_y=0.02).kspace)
    assert 0.9 < float(levels.mean()) / 0.02 < 2.5  # signal at high frequencies adds to it


def test_noise_of_the_sample():
    part = read(sample_path(), slices=1)
    # 10 %: as above; the head fills the field of view up to 6 pixels
    assert abs(float(estimate_noise(part.kspace[0], part.mask).mean()) / part.attributes["sigma_y"] - 1) < 0.1


def test_noise_needs_samples():
    with pytest.raises(InputError, match="too few"):
        estimate_noise(torch.ones(2, 4, 4, dtype=torch.complex64))
    with pytest.raises(InputError):
        estimate_noise(torch.zeros(2, 96, 80, dtype=torch.complex64))


def test_prewhitening():
    generator = torch.Generator().manual_seed(5)
    mix = torch.randn(4, 4, generator=generator, dtype=torch.complex64)
    white = math.sqrt(2) * torch.randn(4, 96, 80, generator=generator, dtype=torch.complex64)
    kspace = torch.einsum("ab,byx->ayx", mix, white)
    whitened = prewhiten(kspace, mix @ mix.mH).flatten(1)
    covariance = whitened @ whitened.mH / whitened.shape[1] / 2
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.complex64), atol=0.05, rtol=0)  # 7680 samples
    measured = prewhiten(kspace, noise_covariance(kspace)).flatten(1)
    covariance = measured @ measured.mH / measured.shape[1] / 2
    # 0.3: the covariance comes from some 200 to 400 samples of 4 coils
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.complex64), atol=0.3, rtol=0)
    with pytest.raises(InputError, match="positive definite"):
        prewhiten(kspace, -torch.eye(4))
    with pytest.raises(InputError, match="shape"):
        prewhiten(kspace, torch.eye(3))
