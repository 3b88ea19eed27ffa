"""Gradients through the network: how often it is passed, what is kept of its graph, and shipped networks' own."""

import gc

import pytest
import torch
from conditioning_cases import ALL, DATA, Case, estimate
from sampler_cases import mri, observe, randn
from torch import Tensor

from inverse.linalg import inner
from inverse.operators import Identity
from inverse.priors import DenoisingNetwork, NetworkPrior, from_function
from inverse.samplers import DDIM, DDS, DiffusionSampler, Problem
from inverse.samplers.conditionings import DDNM, DPS, TMPD, DiffPIR, MomentMatching, PiGDM
from inverse.samplers.jacobian import Linearised


class Counting(torch.autograd.Function):
    """D = x / (1 + sigma^2) that counts its passes."""

    passes = [0, 0]  # noqa: RUF012 - shared on purpose

    @staticmethod
    def forward(ctx, x, level):
        Counting.passes[0] += 1
        ctx.level = level
        return x / level

    @staticmethod
    def backward(ctx, gradient):
        Counting.passes[1] += 1
        return gradient / ctx.level, None


PASSES = {
    DPS(): (1, 1),
    DPS(form="squared"): (1, 1),
    DPS(form="likelihood"): (1, 1),
    PiGDM(): (1, 1),
    TMPD(): (1, 2),
    DDS(): (1, 0),
    DiffPIR(): (1, 0),
    DDNM(): (1, 0),
}


@pytest.mark.parametrize("conditioning", PASSES, ids=str)
def test_the_network_is_passed_once_each_way(conditioning):
    case = Case(torch.complex128)
    prior = from_function(lambda x, sigma: Counting.apply(x, 1 + sigma**2), channels=2)
    Counting.passes[:] = [0, 0]
    problem = case.problem
    estimate(conditioning, problem, prior, case.x)
    assert tuple(Counting.passes) == PASSES[conditioning] == (problem.work.nfe, problem.work.nfe_backward)


def test_moment_matching_passes_the_network_once_forward():
    case = Case(torch.complex128)
    prior = from_function(lambda x, sigma: Counting.apply(x, 1 + sigma**2), channels=2)
    for draw in (False, True):
        Counting.passes[:] = [0, 0]
        problem = case.problem
        estimate(MomentMatching(), problem, prior, case.x, draw=draw)
        assert tuple(Counting.passes) == (1, problem.work.nfe_backward) == (problem.work.nfe, problem.work.nfe_backward)
        # C is a multiple of I: the square root takes one product to see it, the solve as many as A has values.
        assert int(problem.work.cg_iterations) <= DATA
        assert problem.work.nfe_backward == int(problem.work.cg_iterations) + (1 if draw else 0)


class Held:
    """A tensor that autograd keeps for the way back."""

    alive = 0

    def __init__(self, tensor: Tensor):
        self.tensor = tensor.detach()  # an output that its own step keeps would hold itself
        Held.alive += 1

    def __del__(self):
        Held.alive -= 1


@pytest.mark.parametrize("conditioning", ALL, ids=str)
def test_nothing_of_the_graph_outlives_its_step(conditioning):
    """Without waiting for the garbage collector: on a device the next step would start with the memory of two."""
    prior, case = network_prior("float32"), Case(torch.complex64)
    operator = mri((8, 8)).to(torch.float32)
    problem = Problem.build(operator, observe(operator, randn(2, 8, 8, dtype=torch.complex64), 0.1), 0.1)
    gc.disable()
    try:
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            found = estimate(conditioning, problem, prior, randn(2, 8, 8, dtype=torch.complex64))
        assert Held.alive == 0
    finally:
        gc.enable()
    assert not found.requires_grad and case.mean.grad is None


def network_prior(precision: str, channels: int = 2) -> NetworkPrior:
    """A small network with random weights, none of them zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = DenoisingNetwork(channels, (8, 12), (1, 1), data_std=0.5)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    facts = {"name": "small", "sigma_min": 0.002, "sigma_max": 20.0}
    return NetworkPrior(network, facts, precision=precision)


@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.parametrize("channels", [1, 2])
def test_network_priors_can_be_differentiated(precision, channels):
    """|J^T v|^2 = <v, J J^T v>, J by a difference quotient along J^T v; odd sizes are padded."""
    dtype = torch.complex64 if channels == 2 else torch.float32
    prior, exact = network_prior(precision, channels), network_prior("float32", channels)
    x, v = (randn(2, 9, 10, dtype=dtype, seed=s) for s in range(2))
    problem = Problem.build(Identity((9, 10), dtype=dtype), x, 0.1)
    with torch.no_grad():  # as samplers run
        product = Linearised(problem, prior, x, 0.7).transposed(v, last=True)
        step = 1e-2 * product
        quotient = (exact.denoise(x + step, 0.7) - exact.denoise(x - step, 0.7)) / 2e-2
    assert product.dtype == dtype and product.shape == x.shape
    # The quotient is good to 1e-3 in single precision; bfloat16 rounds to 4e-3 in each of some ten layers.
    tolerance = 5e-3 if precision == "float32" else 5e-2
    torch.testing.assert_close(inner(v, quotient), inner(product, product), rtol=tolerance, atol=0)
    assert all(p.grad is None for p in prior.network.parameters())


@pytest.mark.parametrize("conditioning", ALL, ids=str)
def test_network_priors_go_through_every_conditioning(conditioning):
    operator = mri((8, 8)).to(torch.float32)
    prior = network_prior("auto")
    problem = Problem.build(operator, observe(operator, randn(2, 8, 8, dtype=torch.complex64), 0.1), 0.1)
    solution = DiffusionSampler(conditioning, DDIM(1.0), 3).run(problem, prior, samples=1, seed=0)
    assert solution.samples.dtype == torch.complex64 and bool(torch.isfinite(solution.samples.abs()).all())
    assert solution.stats.nfe == 3
