"""Path of the demonstration scan that ships with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SAMPLE = "colin27_8coil.h5"


def sample_path() -> Path:
    """The shipped scan: three slices of Colin27, 8 simulated coils, R = 4, in fastMRI's layout.

    The notice that must stay with the data lies beside it (colin27_NOTICE.txt). Made by experiments/make_sample.py.
    """
    return Path(str(files("inverse.data") / "samples" / SAMPLE))
