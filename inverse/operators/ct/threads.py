"""Threads for compiled loops, as many as torch may use."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Pieces that a thread takes one after another: one whose core is busy elsewhere delays the others by one piece at most.
PIECES = 8
# With two threads a projection takes as long as with one, as it waits for memory, and several times longer where a
# neighbour keeps one of the cores busy.
FEWEST = 3


def in_threads(work: Callable[[NDArray[np.int64]], Any], count: int) -> None:
    """Call work(first, last) on `count` pieces in runs, with as many threads as torch may use, if three or more.

    The caller works too and does not wait for a thread that has not begun: torch's own threads go on spinning for a
    while after their work, on the very cores that these need.
    """
    threads = min(torch.get_num_threads(), count)
    if threads < FEWEST:
        work(np.array([0, count]))
        return
    bounds = np.linspace(0, count, min(count, PIECES * threads) + 1).astype(np.int64)
    todo = iter([bounds[i : i + 2].copy() for i in range(len(bounds) - 1)])

    def take() -> None:
        for part in todo:
            work(part)

    others = [_pool(os.getpid()).submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        if not other.cancel():
            other.result()


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process, kept: starting them would cost as much as a small projection."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="projector")
