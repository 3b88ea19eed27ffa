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
from inverse.data.coilmaps import espirit
from inverse.data.fastmaps import walsh_maps
from inverse.errors import InputError
from inverse.operators.mri import MultiCoilMRI


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
    volume = torch.zeros(9, 20, 30)
    volume[2:7, 6:14, 10:20] = 1
    assert calibration_region(volume) == (5, 8, 10)
    assert calibration_region(torch.ones(3, 5, 7)) == (3, 5, 7)
    assert calibration_region(torch.zeros(3, 5, 7)) == (0, 0, 0)
    with pytest.raises(InputError):
        calibration_region(torch.ones(2, 2, 2, 2))


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


def direction_error(maps, truth, inside):
    """Root mean square of the sine of the angle between maps, where there is an object."""
    overlap = (maps.conj() * truth).sum(0).abs()[inside]
    return float((1 - overlap.square()).clamp_min(0).mean().sqrt())


def test_eigenvalues_support_and_notes():
    kspace = scan(equispaced(80, 4, center_fraction=17 / 80)).kspace
    estimate = espirit(kspace)
    torch.testing.assert_close(estimate.maps, estimate_maps(kspace), atol=0, rtol=0)
    assert estimate.eigenvalues.shape == (96, 80) and estimate.eigenvalues.dtype == torch.float32
    assert bool((estimate.eigenvalues[disc() > 0.3] > 0.95).all())  # the lines predict each other up to the noise
    assert float(estimate.eigenvalues.max()) <= 1 and float(estimate.eigenvalues[0, 0]) < 0.9
    assert torch.equal(estimate.support, (estimate.maps != 0).any(0))
    operator = MultiCoilMRI(estimate.maps, torch.ones(80))
    assert torch.equal(operator.support, estimate.support)
    (note,) = estimate.notes
    cropped = 100 * (1 - estimate.support.float().mean())
    assert f"{cropped:.0f} % of the field of view" in note and "images are 0" in note and "lower crop" not in note
    assert estimate.lost < 1e-3  # nothing but noise outside
    whole = espirit(kspace, crop=0)
    assert whole.notes == [] and bool(whole.support.all()) and whole.lost == 0
    single = espirit(kspace[:1])
    assert single.notes == [] and torch.equal(single.eigenvalues, torch.ones(96, 80))


def test_signal_that_is_cropped_away_is_said():
    """Two objects: the smaller piece is not in the support, and the note tells what it held."""
    magnitude = torch.zeros(96, 80)
    magnitude[20:60, 15:45], magnitude[80:90, 64:76] = 0.8, 0.8
    generator = torch.Generator().manual_seed(1)
    simulated = simulate_scan(magnitude, mask=torch.ones(80), generator=generator, sigma_y=0.02)
    estimate = espirit(simulated.kspace, 40, grow=1, crop=0.98)
    assert not bool(estimate.support[85, 70])
    share = 120 / 1320  # pixels of the smaller piece
    assert abs(estimate.lost - share) < 0.04  # the edges of both are blurred by the 40 lines
    assert "lower crop" in estimate.notes[0]


def test_several_sets_live_where_the_object_is_folded():
    """A field of view of 0.6 of the object along y: where it overlaps itself, two maps are needed and found."""
    generator = torch.Generator().manual_seed(0)
    simulated = simulate_scan(disc(120, 80, 0.9), mask=torch.ones(80), generator=generator, sigma_y=0.002)
    coil_images = simulated.sens_maps * simulated.image
    folded = coil_images[:, 24:96].clone()
    folded[:, :24] += coil_images[:, 96:]
    folded[:, -24:] += coil_images[:, :24]
    shifted = torch.fft.ifftshift(folded, dim=(-2, -1))
    kspace = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))
    estimate = espirit(kspace, 32, sets=2, crop=0.9)
    assert estimate.maps.shape == (2, 8, 72, 80) and estimate.eigenvalues.shape == (2, 72, 80)
    second = estimate.support[1]
    assert bool(second[:10, 40:44].all()) and not bool(second[30:42, 36:44].any())
    inner = (estimate.maps[0].conj() * estimate.maps[1]).sum(0)
    assert float(inner.abs().max()) < 1e-4  # eigenvectors in single precision
    # soft SENSE explains the folded scan, one set does not
    power = float(kspace.abs().square().sum())
    misfit = []
    for maps in (estimate.maps, estimate.maps[:1]):
        operator = MultiCoilMRI(maps, torch.ones(80), sets=True)
        misfit.append(float((operator(operator.pinv(kspace)) - kspace).abs().square().sum()) / power)
    assert misfit[0] < 0.1 * misfit[1], misfit
    with pytest.raises(InputError, match="1 to 8"):
        espirit(kspace, sets=9)


# what blurring by the window and the neighbourhood leaves: measured 0.019, 0.025 and 0.047
@pytest.mark.parametrize(("lines", "tolerance"), [(80, 0.03), (17, 0.04), (9, 0.06)])
def test_fast_maps_of_simulated_coils(lines, tolerance):
    simulated = scan(equispaced(80, 4, center_fraction=lines / 80))
    estimate, slow = walsh_maps(simulated.kspace), espirit(simulated.kspace)
    head = disc() > 0.3
    assert direction_error(estimate.maps, simulated.sens_maps, head) < tolerance
    assert bool(estimate.support[head].all()) and not bool(estimate.support.all()) and estimate.notes
    power = estimate.maps.abs().square().sum(0)
    torch.testing.assert_close(power, estimate.support.float(), atol=1e-5, rtol=0)  # single precision
    # same phase as ESPIRiT's: both follow the dominant combination of the coils
    angle = (estimate.maps.conj() * slow.maps).sum(0)[head].angle()
    assert float(angle.abs().max()) < 0.05


def volume(shape=(24, 40, 36), coils=6):
    """Smooth coils on two rings around an ellipsoid, complex k-space and maps."""
    axes = (torch.linspace(-1, 1, n) for n in shape)
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    angle = 2 * math.pi * torch.arange(coils) / coils
    places = torch.stack([0.8 * (-1.0) ** torch.arange(coils), 1.6 * torch.sin(angle), 1.6 * torch.cos(angle)], 1)
    square = sum((g - p[:, None, None, None]) ** 2 for g, p in zip((z, y, x), places.T, strict=True))
    turn = 0.5 * places[:, 1, None, None, None] * y + angle[:, None, None, None]
    maps = torch.polar(1 / torch.sqrt(square + 0.1), turn)
    maps = maps / maps.abs().square().sum(0).sqrt()
    image = torch.sigmoid((0.7 - torch.sqrt(z**2 + y**2 + x**2)) * 30) * (
        0.7 + 0.2 * torch.cos(7 * x) * torch.cos(5 * y)
    )
    axes3 = (-3, -2, -1)
    kspace = torch.fft.fftshift(
        torch.fft.fftn(torch.fft.ifftshift(maps * image, axes3), dim=axes3, norm="ortho"), axes3
    )
    noise = torch.randn(kspace.shape, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    return kspace + 0.003 * noise, maps, image > 0.3


def test_fast_maps_of_a_volume():
    kspace, maps, head = volume()
    mask = torch.zeros(24, 40, 1)
    mask[6:18, 12:28], mask[::3, ::2] = 1, 1
    estimate = walsh_maps(kspace * mask, 16)
    assert estimate.maps.shape == kspace.shape and estimate.eigenvalues.shape == head.shape
    assert direction_error(estimate.maps, maps, head) < 0.04  # 12 planes resolve the maps to 2.5 %
    assert bool(estimate.support[head].all()) and not bool(estimate.support.all())
    same = walsh_maps(kspace, 16, mask=mask)
    torch.testing.assert_close(same.maps, estimate.maps)
    few = walsh_maps(kspace[:, 10:14])  # a slab of 4 slices
    assert few.maps.shape == (6, 4, 40, 36)


def test_fast_maps_refuse_what_they_cannot_use():
    kspace = scan().kspace
    assert torch.equal(walsh_maps(kspace[:1]).maps, torch.ones(1, 96, 80, dtype=torch.complex64))
    for call in (
        lambda: walsh_maps(kspace.abs()),
        lambda: walsh_maps(kspace[0]),
        lambda: walsh_maps(kspace, block=2),
        lambda: walsh_maps(kspace * (torch.arange(80) % 2)),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert "\n" not in str(error.value)


def test_solution_is_zero_where_the_maps_are_cropped_away():
    """There the data say nothing, and what a prior would invent is not shown."""
    from inverse import solve
    from inverse.priors import from_function

    simulated = scan(equispaced(80, 3, center_fraction=0.2))
    operator = MultiCoilMRI(espirit(simulated.kspace).maps, simulated.mask)
    prior = from_function(lambda x, sigma: 0.9 * x + 0.1, channels=2, data_std=1.0, sigma_max=10.0)
    solution = solve(simulated.kspace, operator, prior, noise=0.01, samples=2, steps=3, scale=1.0, progress=False)
    outside = ~operator.support
    assert bool(outside.any()) and bool((solution.samples[..., outside] == 0).all())
    assert bool((solution.mean[outside] == 0).all()) and bool((solution.mean[operator.support] != 0).any())


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
