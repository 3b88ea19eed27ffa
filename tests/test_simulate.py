"""Simulated scans: smooth normalised maps, stated noise, the same scan for the same generator."""

import pytest
import torch

from inverse.data import equispaced, simulate_maps, simulate_scan, smooth_phase
from inverse.errors import InputError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(64, 48), (63, 47)])
@pytest.mark.parametrize("jitter", [None, 3])
def test_maps(shape, jitter):
    maps = simulate_maps(shape, 8, generator=None if jitter is None else generator(jitter))
    assert maps.shape == (8, *shape) and maps.dtype == torch.complex64
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(shape))
    # smooth: a coil at 1.6 half fields of view changes by less than 0.3 per pixel of these coarse grids
    assert float((maps[:, 1:] - maps[:, :-1]).abs().max()) < 0.3
    assert float((maps[:, :, 1:] - maps[:, :, :-1]).abs().max()) < 0.3
    assert float(maps.abs().amax((1, 2)).min()) > 0.4  # every coil sees some place best


def test_one_coil():
    torch.testing.assert_close(simulate_maps((8, 8), 1).abs(), torch.ones(1, 8, 8))


def test_phase_is_smooth_and_as_strong_as_asked():
    phase = smooth_phase((64, 48), strength=0.8, generator=generator())
    assert abs(float(phase.square().mean().sqrt()) - 0.8) < 1e-4  # single precision
    assert float((phase[1:] - phase[:-1]).abs().max()) < 0.5  # far from a wrap between neighbours
    assert float(smooth_phase((8, 8), strength=0, generator=generator()).abs().max()) == 0


@pytest.mark.parametrize("shape", [(64, 48), (2, 64, 48)])
def test_noise_and_model(shape):
    magnitude, mask = torch.rand(shape, generator=generator(1)), equispaced(48, 4)
    scan = simulate_scan(magnitude, mask=mask, generator=generator(), sigma_y=0.5)
    assert scan.kspace.shape == (*shape[:-2], 8, *shape[-2:]) and scan.image.shape == shape
    torch.testing.assert_close(scan.image.abs(), magnitude)
    assert bool((scan.kspace[..., ~mask] == 0).all())
    coil_images = scan.image.unsqueeze(-3) * scan.sens_maps
    clean = torch.fft.fftshift(
        torch.fft.fft2(torch.fft.ifftshift(coil_images, dim=(-2, -1)), norm="ortho"), dim=(-2, -1)
    )
    noise = torch.view_as_real((scan.kspace - clean)[..., mask])
    # at least 7000 samples each: 0.9 % scatter
    assert abs(float(noise[..., 0].std()) - 0.5) < 0.02 and abs(float(noise[..., 1].std()) - 0.5) < 0.02


def test_deterministic_and_inputs_kept():
    magnitude = torch.rand(16, 12, generator=generator(1))
    before, state = magnitude.clone(), torch.get_rng_state()
    first, second = (simulate_scan(magnitude, mask=torch.ones(12), generator=generator(4)) for _ in range(2))
    assert torch.equal(first.kspace, second.kspace)
    assert torch.equal(magnitude, before) and torch.equal(state, torch.get_rng_state())
    other = simulate_scan(magnitude, mask=torch.ones(12), generator=generator(5))
    assert not torch.equal(first.kspace, other.kspace)


@pytest.mark.parametrize(
    "change",
    [
        {"mask": torch.zeros(12)},
        {"mask": torch.ones(13)},
        {"sigma_y": -1.0},
        {"sigma_y": float("nan")},
        {"coils": 0},
        {"magnitude": -torch.ones(16, 12)},
        {"magnitude": torch.ones(12)},
        {"magnitude": torch.full((16, 12), float("nan"))},
    ],
)
def test_silly_arguments(change):
    arguments = {"magnitude": torch.ones(16, 12), "mask": torch.ones(12), "generator": generator(), **change}
    with pytest.raises(InputError):
        simulate_scan(arguments.pop("magnitude"), **arguments)
