"""The denoising network: any image size, the limits of its preconditioning, a variance head that disturbs nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inverse.priors.files import NetworkPrior
from inverse.priors.network import LOG_VARIANCE_BOUND, DenoisingNetwork
from inverse.train.config import NetworkConfig, TrainConfig
from inverse.train.loop import build_network
from inverse.train.loss import denoising_loss

S = 0.25
SIZES = [(1, 1), (1, 9), (7, 5), (16, 16), (33, 18)]
# Single precision, a dozen layers: other batch sizes take other kernels, which add in another order.
ROUNDING = 2e-5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_network(channels: int = 2, *, scale: float = 0.1) -> DenoisingNetwork:
    """A network none of whose layers is zero, so that nothing is right by the zero start alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenoisingNetwork(channels, (8, 12), (1, 1), S)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator(parameter.numel())))
    return network


def make_prior(channels: int = 2) -> NetworkPrior:
    facts = {"name": "tiny", "sigma_min": 0.002, "sigma_max": 20.0}
    return NetworkPrior(make_network(channels), facts, precision="float32")


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=generator(seed))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [(), (0,), (1,), (3,), (2, 2)])
def test_takes_complex_images_of_any_size_and_batch(size: tuple[int, int], batch: tuple[int, ...]) -> None:
    x = noise(*batch, *size, dtype=torch.complex64)
    mean, variance = make_prior().moments(x, 0.3)
    assert mean.shape == variance.shape == x.shape
    assert mean.dtype == torch.complex64 and variance.dtype == torch.float32
    assert bool(torch.isfinite(mean.abs()).all()) and bool((variance > 0).all())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [(), (0,), (1,), (3,)])
def test_takes_real_images_of_any_size_and_batch(size: tuple[int, int], batch: tuple[int, ...]) -> None:
    x = noise(*batch, *size)
    mean, variance = make_prior(channels=1).moments(x, 0.3)
    assert mean.shape == variance.shape == x.shape
    assert mean.dtype == torch.float32 and bool((variance > 0).all())


@pytest.mark.parametrize("batch", [(), (1,), (2, 2)])
def test_takes_three_channels(batch: tuple[int, ...]) -> None:
    x = noise(*batch, 3, 7, 6)
    mean, variance = make_prior(channels=3).moments(x, 0.3)
    assert mean.shape == x.shape and variance.shape == (*batch, 7, 6)


def test_keeps_double_precision_at_the_border() -> None:
    mean = make_prior().denoise(noise(2, 6, 6, dtype=torch.complex128), 0.3)
    assert mean.dtype == torch.complex128


def test_complex_images_are_two_channels() -> None:
    prior = make_prior()
    x = noise(3, 7, 9, dtype=torch.complex64)
    channels = torch.view_as_real(x).movedim(-1, 1).contiguous()
    as_complex, as_real = prior.denoise(x, 0.3), prior.denoise(channels, 0.3)
    assert torch.equal(as_complex.real, as_real[:, 0]) and torch.equal(as_complex.imag, as_real[:, 1])
    mean, log_variance = prior.network(channels, torch.full((3,), 0.3))
    assert torch.allclose(mean, as_real, atol=ROUNDING)
    assert torch.allclose(log_variance[:, 0].exp(), prior.moments(x, 0.3)[1], rtol=ROUNDING * 10)


def test_does_not_confuse_rows_and_columns() -> None:
    """An impulse changes what lies around it, not around the transposed place."""
    prior, x = make_prior(), torch.zeros(24, 40, dtype=torch.complex64)
    poked = x.clone()
    poked[4, 33] = 1
    change = (prior.denoise(poked, 0.3) - prior.denoise(x, 0.3)).abs()
    assert divmod(int(change.argmax()), 40) == (4, 33)


@pytest.mark.parametrize("sigma", [0.0, 1e-6])
def test_returns_the_image_where_there_is_no_noise(sigma: float) -> None:
    x = noise(2, 9, 6, dtype=torch.complex64)
    mean, variance = make_prior().moments(x, sigma)
    # c_out = sigma: the network's output, of order 10 here, moves the mean by 1e-5 at most
    assert float((mean - x).abs().max()) <= 100 * sigma
    assert float(variance.max()) <= sigma**2 * math.exp(LOG_VARIANCE_BOUND) * 1.001  # 0.1 %: single precision


def test_forgets_the_image_where_there_is_only_noise() -> None:
    prior, sigma = make_prior(), 1e4
    mean, variance = prior.moments(sigma * noise(2, 9, 6, dtype=torch.complex64), sigma)
    # c_skip x = s^2 / sigma = 6e-6, c_out = s: what is left is s times the output, of order 10 for these weights
    assert float(mean.abs().max()) < 100 * S
    assert float(variance.max()) <= S**2 * math.exp(LOG_VARIANCE_BOUND) * 1.001  # 0.1 %: single precision


def test_starts_as_the_best_linear_denoiser_with_its_error() -> None:
    """A fresh network: D = s^2/(sigma^2 + s^2) x and v = sigma^2 s^2/(sigma^2 + s^2), for every sigma of a batch."""
    network = DenoisingNetwork(2, (8, 12), (1, 1), S)
    x, sigma = noise(4, 2, 8, 8), torch.tensor([0.01, 0.3, 2.0, 50.0])
    mean, log_variance = network(x, sigma)
    share = (S**2 / (sigma**2 + S**2)).reshape(-1, 1, 1, 1)
    # 1e-6 relative: a handful of single-precision operations
    assert torch.allclose(mean, share * x, rtol=2e-6, atol=0)
    assert torch.allclose(log_variance.exp(), (share * sigma.reshape(-1, 1, 1, 1) ** 2).expand(4, 1, 8, 8), rtol=1e-5)


@pytest.mark.parametrize("push", [1e3, -1e3])
def test_variance_stays_within_its_bound(push: float) -> None:
    network = make_network()
    with torch.no_grad():
        network.head.conv2.bias.fill_(push)
    sigma = 0.3
    with torch.no_grad():
        _, log_variance = network(noise(2, 2, 8, 8), torch.full((2,), sigma))
    offset = log_variance - math.log(sigma**2 * S**2 / (sigma**2 + S**2))
    assert float(offset.abs().max()) <= LOG_VARIANCE_BOUND + 1e-5  # single precision of the base, which is near -4
    assert bool((offset * push > 0.99 * LOG_VARIANCE_BOUND * abs(push)).all())  # and it does reach it


def loss_gradients(network: DenoisingNetwork, which: int) -> dict[str, bool]:
    """Whether the loss of the mean (0) or of the variance (1) reaches each weight."""
    x0, sigma = noise(2, 2, 8, 8), torch.tensor([0.1, 0.5])
    losses = denoising_loss(network, x0, sigma, noise(2, 2, 8, 8, seed=2), variance=True)
    network.zero_grad()
    losses[which].backward()
    return {n: p.grad is not None and bool((p.grad != 0).any()) for n, p in network.named_parameters()}


def test_learning_the_variance_does_not_reach_the_mean() -> None:
    reached = loss_gradients(make_network(), 1)
    assert {name for name, touched in reached.items() if touched} == {n for n in reached if n.startswith("head.")}


def test_learning_the_mean_does_not_reach_the_head() -> None:
    reached = loss_gradients(make_network(), 0)
    assert {name for name, touched in reached.items() if touched} == {n for n in reached if n.startswith("unet.")}


def test_mean_is_the_same_with_and_without_the_variance() -> None:
    prior, x = make_prior(), noise(2, 9, 6, dtype=torch.complex64)
    assert torch.equal(prior.denoise(x, 0.3), prior.moments(x, 0.3)[0])


def test_variance_loss_is_least_at_the_true_error() -> None:
    """With a head that shifts all log variances alike, the best shift is the log of error over base."""
    network = DenoisingNetwork(2, (8, 12), (1, 1), S)
    x0, sigma = S * noise(8, 2, 16, 16), torch.full((8,), 0.3)
    shift = network.head.conv2.bias
    for _ in range(200):
        _, loss = denoising_loss(network, x0, sigma, noise(8, 2, 16, 16, seed=2), variance=True)
        (gradient,) = torch.autograd.grad(loss, shift)
        with torch.no_grad():
            shift -= 2 * gradient  # four biases share the pixels: curvature 1/4
    with torch.no_grad():
        mean, log_variance = network(x0 + 0.3 * noise(8, 2, 16, 16, seed=2), sigma)
    error = ((mean - x0) ** 2).mean(dim=1, keepdim=True)
    for row in range(2):
        for column in range(2):  # each bias owns one of the four places of a folded pixel
            mine = (..., slice(row, None, 2), slice(column, None, 2))
            # 1 %: what plain gradient descent leaves after 200 steps
            assert abs(float(log_variance[mine].exp().mean() / error[mine].mean()) - 1) < 0.01


def test_batched_equals_one_by_one() -> None:
    prior = make_prior()
    x, sigma = noise(4, 11, 14, dtype=torch.complex64), torch.tensor([0.02, 0.2, 1.0, 5.0])
    mean, variance = prior.moments(x, sigma)
    for i in range(4):
        one, spread = prior.moments(x[i], float(sigma[i]))
        assert torch.allclose(mean[i], one, atol=ROUNDING * 10, rtol=0)  # images of order 1, outputs of order 10
        assert torch.allclose(variance[i], spread, rtol=ROUNDING * 10)


def test_padding_does_not_shift_the_image() -> None:
    """An odd-sized image is padded below and to the right: far from there nothing changes."""
    prior, x = make_prior(), noise(64, 64, dtype=torch.complex64)
    whole, cut = prior.denoise(x, 0.3), prior.denoise(x[:61, :59], 0.3)
    # 8 conv layers on half and quarter resolution see less than 40 pixels
    assert torch.allclose(whole[:20, :18], cut[:20, :18], atol=ROUNDING * 10)
    assert not torch.allclose(whole[:61, :59], cut, atol=ROUNDING * 10)


def test_inputs_and_random_state_are_left_alone() -> None:
    prior, x, sigma = make_prior(), noise(2, 9, 6, dtype=torch.complex64), torch.tensor([0.1, 0.2])
    kept, state = (x.clone(), sigma.clone()), torch.get_rng_state()
    prior.moments(x, sigma)
    build_network(TrainConfig(name="tiny", steps=1, network=NetworkConfig(2, (8,), (1,))))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept[0]) and torch.equal(sigma, kept[1])


def test_building_seeds_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    build_network(TrainConfig(name="tiny", steps=1, seed=3, network=NetworkConfig(2, (8,), (1,))))
    assert seeded == []


def test_same_seed_builds_the_same_weights() -> None:
    first, second, other = (
        build_network(TrainConfig(name="tiny", steps=1, seed=seed, network=NetworkConfig(2, (8,), (1,)))).state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
