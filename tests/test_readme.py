"""What the README promises: its Python runs, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

import inverse
from inverse.data import to_hounsfield

PARTS = {"Operator", "LinearOperator", "Stack", "BlockRow", "BlockDiagonal"}  # bases, and what functions return
ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
OPERATORS = ROOT / "inverse" / "operators" / "README.md"
SAMPLERS = ROOT / "inverse" / "samplers" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.mark.parametrize("page", [ROOT / "README.md", OPERATORS, SAMPLERS])
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in target]
    assert len(targets) > 10
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, missing


def test_page_of_operators_names_all_of_them() -> None:
    text = OPERATORS.read_text()
    operators = [name for name, thing in vars(inverse.operators).items() if isinstance(thing, type)]
    operators = [n for n in operators if issubclass(getattr(inverse.operators, n), inverse.operators.Operator)]
    missing = [name for name in operators if f"`{name}" not in text and name not in PARTS]
    assert not missing, missing


def test_page_of_samplers_names_all_of_them() -> None:
    text = SAMPLERS.read_text()
    kinds = (inverse.samplers.Conditioning, inverse.samplers.Integrator, inverse.samplers.Sampler)
    names = [
        name for name, thing in vars(inverse.samplers).items() if isinstance(thing, type) and issubclass(thing, kinds)
    ]
    bases = {kind.__name__ for kind in kinds} | {"DiffusionSampler"}
    missing = [name for name in names if f"`{name}" not in text and name not in bases]
    assert not missing, missing


def test_example_of_samplers_draws_from_the_posterior() -> None:
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", SAMPLERS.read_text(), flags=re.S):
        exec(block, names)
    error = (names["solution"].mean - names["image"]).abs().square().mean()
    # seen pixels are known to 0.1, the others not at all: 0.5 * 2 * (1 + 1/4) for the mean of 4 samples
    assert 0.9 < float(error) < 1.6
    assert 0.8 < float(names["solution"].residual.mean()) < 1.2


def test_example_of_a_scan_gives_the_phantom_back() -> None:
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", OPERATORS.read_text(), flags=re.S):
        exec(block, names)
    inside = names["hu"] > -900
    error = to_hounsfield(names["image"])[inside] - names["hu"][inside]
    assert abs(float(error.mean())) < 20  # HU; streaks and noise, which the mean does not see


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
