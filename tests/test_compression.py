"""Coil compression: exact where the coils are redundant, white noise stays white, geometric keeps at least as much."""

from __future__ import annotations

import math

import pytest
import torch
from checks import check_one_line
from torch import Tensor

from inverse.data import equispaced, simulate_maps, simulate_scan
from inverse.data.compression import apply_compression, compress_coils
from inverse.operators.mri import MultiCoilMRI


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def white(*shape: int, seed: int = 0) -> Tensor:
    """Complex noise of 1 per real component."""
    return math.sqrt(2) * torch.randn(*shape, dtype=torch.complex64, generator=generator(seed))


def head(y: int = 48, x: int = 40) -> Tensor:
    v, u = torch.meshgrid(torch.linspace(-1, 1, y), torch.linspace(-1, 1, x), indexing="ij")
    return torch.sigmoid((0.8 - torch.hypot(v, u)) * 30) * (0.7 + 0.2 * torch.cos(9 * u) * torch.cos(7 * v))


def scan(coils: int = 12, sigma: float = 0.0) -> Tensor:
    return simulate_scan(head(), mask=torch.ones(40), generator=generator(), coils=coils, sigma_y=sigma).kspace


@pytest.mark.parametrize("shape", [(9, 8), (4, 5, 6)])
@pytest.mark.parametrize("readout", [None, -2, -1])
def test_exact_where_coils_are_redundant(shape, readout):
    """Seven coils that are mixtures of three: three virtual ones hold everything."""
    mix = white(7, 3, seed=1)
    kspace = torch.tensordot(mix, white(3, *shape), 1)
    virtual, matrix = compress_coils(kspace, energy=1 - 1e-9, readout=readout)
    assert virtual.shape == (3, *shape) and matrix.shape[-2:] == (3, 7)
    # single precision
    torch.testing.assert_close(virtual.abs().square().sum(), kspace.abs().square().sum(), rtol=1e-5, atol=0)
    eye = torch.eye(3, dtype=matrix.dtype)
    torch.testing.assert_close(matrix @ matrix.mH, eye.expand(*matrix.shape[:-1], 3), atol=1e-10, rtol=0)
    if readout is None:
        back = torch.tensordot(matrix.mH.to(torch.complex64), virtual, 1)
        torch.testing.assert_close(back, kspace, atol=1e-4, rtol=0)


@pytest.mark.parametrize("readout", [None, -2])
def test_white_noise_stays_white(readout):
    """The matrices of a scan applied to noise: covariance of the virtual coils is the identity."""
    _, matrix = compress_coils(scan(), 5, readout=readout)
    noise = white(12, 48, 400, seed=3)
    virtual = apply_compression(noise, matrix, readout=readout).flatten(1)
    covariance = virtual @ virtual.mH / virtual.shape[1] / 2
    # 19,200 samples: entries scatter by 0.7 %
    torch.testing.assert_close(covariance, torch.eye(5, dtype=torch.complex64), atol=0.04, rtol=0)


@pytest.mark.parametrize("virtual", [2, 3, 4, 6])
def test_geometric_compression_keeps_at_least_as_much(virtual):
    kspace = scan()
    total = float(kspace.abs().square().sum())
    kept = [float(compress_coils(kspace, virtual, readout=r)[0].abs().square().sum()) / total for r in (None, -2)]
    assert kept[1] >= kept[0] - 1e-6  # single precision
    if virtual == 3:
        assert 1 - kept[1] < 0.2 * (1 - kept[0])  # clearly less is lost, measured 0.06


@pytest.mark.parametrize("readout", [None, -2, -1])
def test_energy_decides_the_number_of_coils(readout):
    kspace = scan(sigma=0.01)
    total, before = kspace.abs().square().sum(), 0
    for energy in (0.5, 0.9, 0.99, 0.999, 1.0):
        virtual, matrix = compress_coils(kspace, energy=energy, readout=readout)
        assert float(virtual.abs().square().sum() / total) >= energy - 1e-5  # single precision
        assert len(virtual) >= before
        if len(virtual) > 1:
            fewer, _ = compress_coils(kspace, len(virtual) - 1, readout=readout)
            assert float(fewer.abs().square().sum() / total) < energy
        before = len(virtual)
        assert matrix.shape[-2] == before
    assert before == 12


def test_geometric_matrices_are_aligned():
    """Without alignment the virtual maps jump from one position of the readout to the next."""
    _, matrices = compress_coils(scan(sigma=0.002), 4, readout=-2)
    steps = torch.linalg.matrix_norm(matrices[1:] - matrices[:-1])
    # where the object is; unrelated matrices of 4 rows differ by 2.8, one row of wrong sign by 2
    assert float(steps[10:37].max()) < 1


@pytest.mark.parametrize("readout", [None, -2])
def test_compressed_maps_fit_the_compressed_scan(readout):
    """y of the virtual coils is the virtual maps' scan of the same image."""
    mask = equispaced(40, 2, center_fraction=0.2)
    simulated = simulate_scan(head(), mask=mask, generator=generator(), coils=12, sigma_y=0.0)
    virtual, matrix = compress_coils(simulated.kspace, 5, readout=readout)
    maps = apply_compression(simulated.sens_maps, matrix, readout=readout)
    operator = MultiCoilMRI(maps, simulated.mask)
    expected = operator(simulated.image)
    assert float((virtual - expected).abs().max()) < 1e-4 * float(expected.abs().max())  # single precision
    assert bool((virtual[..., ~mask] == 0).all())


def test_volumes_and_batches_of_maps():
    maps = torch.stack([simulate_maps((8, 6), 5, generator=generator(s)) for s in range(3)], 1)  # (5, 3, 8, 6)
    kspace = torch.fft.fftn(maps, dim=(1, 2, 3))
    virtual, matrix = compress_coils(kspace, 3, readout=-3)
    assert virtual.shape == (3, 3, 8, 6) and matrix.shape == (3, 3, 5)
    assert apply_compression(maps, matrix, readout=-3).shape == (3, 3, 8, 6)
    _, single = compress_coils(kspace, 2)
    one = apply_compression(maps, single)
    assert one.shape == (2, 3, 8, 6)
    slices = apply_compression(maps.transpose(0, 1).contiguous(), single)  # (slices, coils, y, x)
    torch.testing.assert_close(slices.transpose(0, 1), one, atol=1e-6, rtol=0)


def test_input_is_kept():
    kspace = scan()
    kept = kspace.clone()
    compress_coils(kspace, 3, readout=-2)
    assert torch.equal(kspace, kept)


def test_bad_input_is_refused_in_one_line():
    kspace = scan(4)
    check_one_line(lambda: compress_coils(kspace.real), "complex")
    check_one_line(lambda: compress_coils(kspace[0]), "(48, 40)")
    check_one_line(lambda: compress_coils(kspace, 5), "1 to 4", "got 5")
    check_one_line(lambda: compress_coils(kspace, 0), "1 to 4", "got 0")
    check_one_line(lambda: compress_coils(kspace, energy=1.5), "energy", "1.5")
    check_one_line(lambda: compress_coils(0 * kspace), "all zeros")
    check_one_line(lambda: compress_coils(kspace, 2, readout=0), "readout", "-2 to -1")
    lines = kspace * (torch.arange(40) % 2)
    check_one_line(lambda: compress_coils(lines, 2, readout=-1), "whole lines", "readout=-1")
    _, matrix = compress_coils(kspace, 2, readout=-2)
    check_one_line(lambda: apply_compression(kspace, matrix), "readout=")
    check_one_line(lambda: apply_compression(kspace[:3], matrix[0]), "4 coils")
    check_one_line(lambda: apply_compression(kspace[:, :40], matrix, readout=-2), "48 positions")
