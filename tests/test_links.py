"""The links `operators` and `data` at the root are for readers: relative, and refused as imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("operators", "data")


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter whose working directory is the root."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_link_is_relative(name: str) -> None:
    assert os.readlink(ROOT / name) == f"inverse/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_import_through_the_link_is_refused(name: str) -> None:
    result = run(f"import {name}")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError:"), result.stderr
    assert f"import inverse.{name}" in last, last


@pytest.mark.parametrize("name", NAMES)
def test_import_by_its_own_name_works(name: str) -> None:
    """The counterpart: the guard refuses the second name only."""
    result = run(f"import inverse.{name}")
    assert result.returncode == 0, result.stderr
