"""Density compensation: how much of k-space every sample stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inverse.errors import InputError
from inverse.operators.nufft import NUFFT, check_trajectory

# What a density is good for is approximate anyway: the iteration's transforms may be coarse.
_ACCURACY = 1e-4


def density_compensation(trajectory: Tensor, shape: Sequence[int], *, iterations: int = 20) -> Tensor:
    """Density compensation of any trajectory: weights w with A^H w A close to the identity where k-space is covered.

    The fixed point of w <- w / (K * w), K the Fourier transform of the triangle over twice the field of view, which
    is positive and falls to zero within the distance of samples that the field of view asks for.

    Args:
        trajectory: (*samples, axes) in radians per pixel, as for `NUFFT`.
        shape: image shape, the field of view.
        iterations: default 20.

    Returns:
        float64 (*samples), positive; in units in which w = 1 for the Cartesian grid of `shape`.

    Raises:
        InputError: a trajectory that `NUFFT` refuses.

    Notes:
        Two transforms on the doubled grid for each iteration.

    Reference: Pipe and Menon, "Sampling density compensation in MRI: rationale and an iterative numerical solution",
    MRM 41, 1999, Eq. (13) to (15).
    """
    doubled = [2 * n for n in shape]
    nufft = NUFFT(trajectory, doubled, accuracy=_ACCURACY, dtype=torch.complex128)
    window = torch.full((), float(2 ** len(doubled)), dtype=torch.float64, device=trajectory.device)
    for n in shape:
        r = torch.arange(2 * n, dtype=torch.float64, device=trajectory.device) - n
        window = window.unsqueeze(-1) * (1 - r.abs() / n)
    w = torch.ones((1, *trajectory.shape[:-1]), dtype=torch.float64, device=trajectory.device)
    for _ in range(iterations):
        # K is real; what the imaginary part holds is the error of the transform.
        w = w / nufft._forward(window * nufft._backward(w.to(torch.complex128))).real.clamp(min=1e-12)
    return w[0]


def radial_density(trajectory: Tensor, shape: Sequence[int]) -> Tensor:
    """Density compensation of spokes through the centre, evenly spread: the ramp |k|, or |k|^2 in three dimensions.

    Every sample stands for its part of the shell between half-way to its neighbours.

    Args:
        trajectory: (*spokes, samples, axes) in radians per pixel; evenly spaced samples along every spoke, which
            passes through the centre from one side to the other.
        shape: image shape.

    Returns:
        float64 (*spokes, samples), in units in which w = 1 for the Cartesian grid of `shape`.

    Raises:
        InputError: a trajectory that `NUFFT` refuses, or without spokes.

    Notes:
        Exact for evenly spread spokes; golden-angle spokes are that only nearly: see `density_compensation`.
    """
    axes = len(tuple(shape))
    check_trajectory(trajectory, axes)
    if trajectory.ndim < 3 or trajectory.shape[-2] < 2:
        raise InputError(
            f"trajectory: expected (*spokes, samples, {axes}), got {tuple(trajectory.shape)}; keep the axis of spokes."
        )
    k = trajectory.to(torch.float64)
    radius = torch.linalg.vector_norm(k, dim=-1)
    half = torch.linalg.vector_norm(k[..., 1:2, :] - k[..., :1, :], dim=-1) / 2
    spokes = math.prod(trajectory.shape[:-2])
    ball = math.pi if axes == 2 else 4 / 3 * math.pi
    inner, outer = radius - half, radius + half
    # Half of a shell, which every spoke meets twice; of the ball around the centre, which it meets once, all.
    cell = (outer**axes - inner.sign() * inner.abs() ** axes) / 2
    return ball * cell / spokes * (math.prod(shape) / (2 * math.pi) ** axes)
