"""Largest memory of this process between two moments, where the system says (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import math
from pathlib import Path


def reset_peak() -> float:
    """Forget the largest resident size so far; what is held now, in MiB, or NaN."""
    with contextlib.suppress(OSError, AttributeError):  # what was freed is given back first, else it hides what is used
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return math.nan


def peak() -> float:
    """Largest resident size since `reset_peak`, in MiB, or NaN."""
    try:
        return _status("VmHWM")
    except OSError:
        return math.nan


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024
