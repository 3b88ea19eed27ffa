"""Work on a part of a batch at a time, as much as the memory or the cache should hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, count: int) -> Tensor:
    """function(x) of a function that acts on every item of the first axis alone, `count` items at once, at least 1."""
    parts = [function(part) for part in x.split(max(1, count))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
