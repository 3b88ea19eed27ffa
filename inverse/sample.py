"""`sample`: images of a prior, without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser
from inverse.priors.files import load
from inverse.progress import progress as show_progress
from inverse.samplers.conditionings.unconditional import Unconditional
from inverse.samplers.diffusion import DiffusionSampler
from inverse.samplers.integrators.base import Integrator
from inverse.samplers.integrators.bridge import Bridge
from inverse.samplers.problem import Problem


def sample(
    prior: Denoiser | str = "brain-mr",
    shape: Sequence[int] | None = None,
    integrator: Integrator | None = None,
    grid: Tensor | Sequence[float] | None = None,
    *,
    samples: int = 1,
    steps: int = 20,
    seed: int = 0,
    batch: int = 16,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> Tensor:
    """Draw images from a prior.

    Args:
        prior: a prior, or the name of a shipped one.
        shape: shape of one image, (H, W), with channels in front for real images of more than one; None takes the
            prior's own.
        integrator: how x is carried down; None takes `Bridge(draw_last=True)`, which is exact for stationary Gaussian
            images in any number of steps.
        grid: decreasing noise levels, the last may be 0; None takes the default grid of `steps` evaluations.
        samples: how many.
        steps: network evaluations, where no grid is given.
        seed: sample i of seed s is the same whatever the batch.
        batch: images per network call; halved when the device runs out of memory.
        dtype: of the images; None: complex64 for priors of complex images, else float32.
        device: where they are drawn.
        progress: True or False; None shows a bar when it takes more than two seconds.

    Returns:
        The images (samples, *shape), in the prior's scale.

    Raises:
        InputError: something does not fit; before the first network evaluation.
        SamplingError: NaN or Inf appeared while sampling.
    """
    if samples < 1 or batch < 1:
        raise InputError(f"samples and batch: expected at least 1, got {samples} and {batch}.")
    prior = load(prior, device=device) if isinstance(prior, str) else prior.to(device)
    shape = prior.shape if shape is None else tuple(shape)
    if shape is None:
        raise InputError(f"shape: prior {prior.name} takes images of any size; give one, e.g. (256, 256).")
    dtype = dtype or (torch.complex64 if prior.channels == 2 else torch.float32)
    prior.check_image(shape, dtype)
    sampler = DiffusionSampler(
        Unconditional(),
        integrator or Bridge(draw_last=True),
        steps,
        None if grid is None else tuple(torch.as_tensor(grid).tolist()),
    )
    problem = Problem.without_data(shape, 1, dtype=dtype, device=device)
    with show_progress("sample", sampler.evaluations() * samples, progress) as bar:
        drawn = sampler.run(problem, prior, samples=samples, seed=seed, batch=batch, progress=bar)
    return drawn.samples[:, 0]
