"""What the README promises: its Python runs, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def test_links_lead_to_files() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert len(targets) > 10
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing, missing


def test_first_example_is_ten_lines() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) == 10


@pytest.mark.slow
def test_examples_run() -> None:
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    assert names["image"].shape == names["error_bar"].shape == names["operator"].in_shape
    assert 0.8 < float(names["solution"].residual.mean()) < 1.25  # the image explains the data, no more and no less
