"""Split-R-hat and effective sample size against values known by hand and from autoregressive chains."""

import math

import pytest
import torch
from sampler_cases import randn
from torch import Tensor

from inverse.samplers.chains import effective_samples, rank_normalised, split_rhat


def autoregressive(correlation: float, chains: int = 8, n: int = 4000, quantities: int = 3) -> Tensor:
    """x_k = correlation x_(k-1) + noise, variance 1, started in equilibrium."""
    noise = randn(n, chains, quantities, dtype=torch.float64)
    x = [noise[0]]
    for fresh in noise[1:]:
        x.append(correlation * x[-1] + math.sqrt(1 - correlation**2) * fresh)
    return torch.stack(x, 1)


def test_split_rhat_is_the_formula_by_hand():
    # Halves 0 1 and 2 3 of two chains: W = 1/2, B/n = var(1/2, 5/2, 1/2, 5/2) = 4/3, var+ = W/2 + B/n = 19/12.
    chains = torch.tensor([[0.0, 1, 2, 3], [0, 1, 2, 3]])
    assert float(split_rhat(chains)) == pytest.approx(math.sqrt(19 / 6), rel=1e-12)
    # The middle of an odd number is left out.
    assert float(split_rhat(torch.tensor([[0.0, 1, 77, 2, 3]] * 2))) == pytest.approx(math.sqrt(19 / 6), rel=1e-12)


def test_independent_draws_have_rhat_one_and_their_own_number():
    draws = randn(8, 2000, 5, dtype=torch.float64)
    # R-hat - 1 is about B / (2 W), below 16 standard errors squared of a mean of 1000: 0.005 is ten times that.
    assert bool((split_rhat(draws) - 1).abs().max() < 0.005)
    # The estimated autocorrelation time has a relative error of a few per cent.
    assert bool((effective_samples(draws) / 16000 - 1).abs().max() < 0.1)


@pytest.mark.parametrize("correlation", [-0.5, 0.3, 0.8, 0.95])
def test_effective_samples_of_autoregressive_chains(correlation):
    found = effective_samples(autoregressive(correlation))
    exact = 32000 * (1 - correlation) / (1 + correlation)
    # 32 000 draws hold 820 to 96 000 independent ones; the time is estimated to 10 % at the slowest.
    assert bool((found / exact - 1).abs().max() < 0.15), (found, exact)


def test_effective_samples_have_an_upper_limit():
    alternating = torch.tensor([1.0, -1.0]).repeat(50).expand(2, 100) + 1e-3 * randn(2, 100, dtype=torch.float64)
    assert float(effective_samples(alternating)) == pytest.approx(200 * math.log10(200), rel=1e-12)


def test_chains_that_disagree_are_found():
    draws = randn(4, 200, dtype=torch.float64)
    shifted = draws + 2 * torch.arange(4)[:, None]
    # Means 0, 2, 4, 6: var+ is about 1 + 6.7 (each twice: 20/3 x 8/7 x 3/4 + 1).
    assert 2.3 < float(split_rhat(shifted)) < 2.9 and float(effective_samples(shifted)) < 10


def test_one_chain_that_drifts_is_found():
    drift = randn(1, 200, dtype=torch.float64) + torch.linspace(-3, 3, 200, dtype=torch.float64)
    assert float(split_rhat(drift)) > 1.5
    assert float(split_rhat(randn(1, 200, dtype=torch.float64))) < 1.05


def test_what_stands_still_is_not_a_fault_unless_it_stands_apart():
    still = torch.ones(3, 10, 2)
    still[1, :, 1] = 2
    assert split_rhat(still).tolist() == [1.0, math.inf]
    assert float(effective_samples(still)[0]) == 30


def test_quantities_are_treated_alone():
    draws = autoregressive(0.7, n=300)
    for measure in (split_rhat, effective_samples):
        alone = torch.stack([measure(draws[..., k]) for k in range(3)])
        torch.testing.assert_close(measure(draws), alone, rtol=1e-9, atol=0)


def test_ranks_are_normal_quantiles_and_ties_share_one():
    z = rank_normalised(torch.tensor([[3.0, 1.0], [2.0, 2.0]]))
    quantile = torch.special.ndtri((torch.tensor([4.0, 1.0, 2.5, 2.5]).double() - 0.375) / 4.25)
    torch.testing.assert_close(z.flatten(), quantile, rtol=1e-12, atol=1e-12)


def test_ranks_show_a_difference_that_heavy_tails_hide():
    heavy = randn(4, 500, dtype=torch.float64) / randn(4, 500, dtype=torch.float64, seed=1)
    heavy[0] += 3
    plain, ranked = float(split_rhat(heavy)), float(split_rhat(rank_normalised(heavy)))
    assert plain < 1.03 < 1.1 < ranked
