"""Randomness: one generator per sample, so that sample i of seed s does not depend on batch size, order or devices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


class SampleRandom:
    """Normal draws for a batch of samples, sample i of seed s always from the same stream.

    Draws are made in float32 on the device of the run: same kind of device and same seed, same numbers.

    Args:
        seed: seed of the run; 0 is a seed like any other.
        indices: which samples this batch holds, e.g. range(4, 8), or pairs (sample, item).
        device: where the numbers are drawn.
        signs: factors +1 or -1 of all draws, one per index; None is +1.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int] | Sequence[tuple[int, int]],
        device: torch.device | str = "cpu",
        *,
        signs: Sequence[float] | None = None,
    ):
        self.seed = int(seed)
        self.indices = list(indices)
        self.device = torch.device(device)
        self._generators = [torch.Generator(self.device).manual_seed(_mix(self.seed, i)) for i in self.indices]
        self._signs = None if signs is None else torch.tensor(list(signs), device=self.device)

    def __len__(self) -> int:
        return len(self.indices)

    def normal(self, shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal noise, shape (samples, *shape); complex: real and imaginary part each have variance 1."""
        shape = tuple(shape)
        if dtype.is_complex:
            return torch.view_as_complex(self.normal((*shape, 2), dtype=dtype.to_real()))
        draws = torch.empty((len(self), *shape), device=self.device)
        for out, generator in zip(draws, self._generators, strict=True):
            torch.randn(shape, generator=generator, device=self.device, out=out)
        if self._signs is not None:
            draws = draws * self._signs.reshape(-1, *(1,) * len(shape))
        return draws.to(dtype)


def _mix(seed: int, index: object) -> int:
    """A 63-bit seed from (seed, index); hashed, so that neighbouring pairs give unrelated streams."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
