"""Adam with a state of its own per sample and without a fixed epsilon: the step has the scale of the rate alone."""

from __future__ import annotations

import torch
from torch import Tensor

from inverse.linalg.inner import flat_real, scale_samples, unflat_real

SMALL = 1e-12


class Adam:
    """Running means of gradients and of their squares; each call gives the direction to go against.

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,   direction = (m / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + e)

    The usual e = 1e-8 is a hidden rate: gradients of an image are as small as that when losses are means over pixels
    and batch, and then it shrinks the steps by how many pixels and images there are. Here e is 1e-12 of the root mean
    square of sqrt(v) in the sample, so that a factor on all gradients changes nothing. Complex gradients are pairs of
    real ones. No number couples the samples of a batch.

    Args:
        betas: b1 and b2.

    Source: Kingma and Ba 2015, algorithm 1.
    """

    def __init__(self, betas: tuple[float, float]):
        self.betas, self.steps = betas, 0
        self._mean: Tensor | float = 0.0
        self._square: Tensor | float = 0.0

    def direction(self, gradient: Tensor) -> Tensor:
        """What to subtract, times the rate; entries near +-1 where the gradients agree.

        Args:
            gradient: of the loss (items, *shape), real or complex.
        """
        b1, b2 = self.betas
        g = flat_real(gradient)
        self.steps += 1
        self._mean = b1 * self._mean + (1 - b1) * g
        self._square = b2 * self._square + (1 - b2) * g**2
        root = (self._square / (1 - b2**self.steps)).sqrt()
        floor = SMALL * root.square().mean(1).sqrt() + torch.finfo(g.dtype).tiny
        step = self._mean / (1 - b1**self.steps) / (root + scale_samples(floor, torch.ones_like(root)))
        return unflat_real(step, gradient)
