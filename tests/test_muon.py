"""The optimiser: orthogonalised steps for convolutions, AdamW for the rest."""

import pytest
import torch

from inverse.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 12, 12)], ids=str)
def test_orthogonalise_keeps_vectors_and_levels_singular_values(shape: tuple[int, ...]) -> None:
    """Values from a tenth of the largest on end in about [0.7, 1.2]: the quintic's range, and 0.02 for bfloat16."""
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    values = torch.linspace(1, 0.1, u.shape[-1])
    projected = u.mT @ orthogonalise(u * values @ vh) @ vh.mT
    levels = projected.diagonal(dim1=1, dim2=2)
    assert levels.min() > 0.66
    assert levels.max() < 1.23
    assert (projected - torch.diag_embed(levels)).abs().max() < 0.02


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_orthogonalise_survives_matrices_without_full_rank(rank: int) -> None:
    """The first gradients behind layers that start at zero have next to no rank; rounding must not blow up."""
    generator = torch.Generator().manual_seed(rank)
    left, right = torch.randn(1, 64, rank, generator=generator), torch.randn(1, rank, 200, generator=generator)
    values = torch.linalg.svdvals(orthogonalise(left @ right))[0]
    assert values.max() < 1.23
    assert (values > 0.66).sum() == rank


def test_other_parameters_follow_adamw() -> None:
    start = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muon = Muon([ours], 1e-2, weight_decay=0.1)
    adam = torch.optim.AdamW([theirs], 1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for k in range(5):
        ours.grad = torch.randn(5, 7, generator=torch.Generator().manual_seed(k))
        theirs.grad = ours.grad.clone()
        muon.step()
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # rounding of float32 over five steps


def test_no_step_of_a_convolution_exceeds_its_rate() -> None:
    """However large the gradient, the response changes by at most 1.23 rate: what AdamW does not promise."""
    weight = torch.nn.Parameter(torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0)))
    optimiser = Muon([weight], 1e-3, ratio=20)
    for size in (1.0, 1e6):
        before = weight.detach().clone()
        weight.grad = size * torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(1))
        optimiser.step()
        change = torch.linalg.matrix_norm((weight.detach() - before).flatten(1), 2)
        assert 0.5 * 0.02 < change < 1.23 * 0.02


def test_a_parameter_without_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2, 3, 3))
    Muon([weight], 1e-3).step()
    assert (weight == 1).all()
