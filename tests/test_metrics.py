"""Figures of merit against values known by hand and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from sampler_cases import randn
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from inverse.errors import InputError
from inverse.metrics import coverage, gaussian_wasserstein, psnr, ssim


def pictures(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture and a noisy copy."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 24), torch.linspace(0, 2, 20), indexing="ij")
    reference = (2 + torch.sin(2 * y) + torch.cos(3 * x)).to(dtype)
    return reference + 0.1 * randn(24, 20, dtype=dtype), reference


def test_psnr_by_hand():
    reference = torch.tensor([[4.0, 2.0], [1.0, 0.0]])
    image = reference + torch.tensor([[0.2, -0.2], [0.2, 0.2]])
    assert psnr(image, reference) == pytest.approx(20 * math.log10(4 / 0.2), abs=1e-5)  # float32 input
    assert psnr(reference, reference) == math.inf
    # A gain error counts: nothing is normalised before the comparison. mse = 0.01 * mean(16, 4, 1, 0).
    assert psnr(1.1 * reference, reference) == pytest.approx(10 * math.log10(16 / (0.01 * 21 / 4)), abs=1e-5)


def test_psnr_in_a_region_keeps_the_peak_of_the_whole():
    reference = torch.tensor([[4.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    image, region = reference.clone(), torch.tensor([[False, True], [True, False]])
    image[0, 0], image[0, 1] = 100.0, 2.3
    assert psnr(image, reference, region) == pytest.approx(10 * math.log10(16 / (0.09 / 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_psnr_and_ssim_equal_scikit_image(dtype):
    image, reference = pictures(dtype)
    a, b = ((x.abs() if x.is_complex() else x).double().numpy() for x in (image, reference))
    peak = float(b.max())
    assert psnr(image, reference) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=peak), rel=1e-9)
    assert ssim(image, reference) == pytest.approx(structural_similarity(b, a, data_range=peak), rel=1e-9)


def test_ssim_of_an_image_with_itself_is_one_and_a_region_is_its_own_mean():
    image, reference = pictures()
    assert ssim(reference, reference) == pytest.approx(1.0)
    region = torch.zeros(24, 20, dtype=torch.bool)
    region[4:10, 3:9] = True
    peak = float(reference.max())
    _, full = structural_similarity(reference.numpy(), image.numpy(), data_range=peak, full=True)
    assert ssim(image, reference, region) == pytest.approx(float(np.mean(full[4:10, 3:9])))


def test_a_global_phase_does_not_count():
    image, reference = pictures(torch.complex128)
    turned = image * torch.exp(torch.tensor(0.7j))
    assert psnr(turned, reference) == pytest.approx(psnr(image, reference))
    assert ssim(turned, reference) == pytest.approx(ssim(image, reference))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_must_agree(metric):
    with pytest.raises(InputError, match="differ in shape"):
        metric(torch.ones(8, 8), torch.ones(8, 9))


def test_coverage_of_two_samples_by_hand():
    # mean 0, sd sqrt(2), one degree of freedom: t = tan(pi p / 2), width = t sqrt(2) sqrt(1.5).
    samples = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    width = math.tan(math.pi * 0.5 / 2) * math.sqrt(2) * math.sqrt(1.5)
    assert coverage(samples, torch.tensor([width - 1e-6, width + 1e-6]).double(), level=0.5) == 0.5
    assert coverage(samples, torch.tensor([-width + 1e-6, 0.0]).double(), level=0.5) == 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("count", [2, 4, 16])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_honest_samples_is_the_level_at_any_count(dtype, count, level):
    n = 40000
    draws = 3 + 0.7 * randn(count + 1, n, dtype=dtype, seed=count)
    parts = n * (2 if dtype.is_complex else 1)
    # 4 standard errors of a share.
    assert abs(coverage(draws[1:], draws[0], level) - level) < 4 * math.sqrt(level * (1 - level) / parts)


def test_coverage_sees_error_bars_that_are_too_small():
    draws = randn(9, 20000, dtype=torch.float64)
    draws[1:] *= 0.5
    assert coverage(draws[1:], draws[0]) < 0.75


def test_coverage_in_a_region():
    samples = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.complex128)
    truth, region = torch.tensor([0.0, 1e6 + 0j], dtype=torch.complex128), torch.tensor([True, False])
    assert coverage(samples, truth, region=region) == 1.0 and coverage(samples, truth, region=~region) == 0.5
    with pytest.raises(InputError, match="2 samples"):
        coverage(samples[:1], truth)


def test_wasserstein_of_normal_distributions_in_closed_form():
    # Points with mean (1, 2) and covariance diag(4, 9) exactly, against N(0, diag(1, 4)): 1 + 4 + (2-1)^2 + (3-2)^2.
    unit = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64) * math.sqrt(3 / 4)
    samples = unit * torch.tensor([2.0, 3.0]).double() + torch.tensor([1.0, 2.0]).double()
    distance = gaussian_wasserstein(samples, torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0])))
    assert distance == pytest.approx(math.sqrt(7.0))
    same = gaussian_wasserstein(samples, samples.mean(0), torch.cov(samples.mT))
    assert same < 1e-6  # the root of rounding
    angle = torch.tensor([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]], dtype=torch.float64)
    turned = angle @ torch.diag(torch.tensor([1.0, 4.0]).double()) @ angle.mT
    assert gaussian_wasserstein(samples @ angle.mT, torch.zeros(2), turned) == pytest.approx(math.sqrt(7.0))
