"""Imports inside the library go downwards only; the rows of LAYERS are the law, and every module has a row."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "inverse"

# Top to bottom. A module imports from rows below its own, and from its row-mates unless the row is in INDEPENDENT.
LAYERS = (
    ("cli", "commands", "plot", "report"),
    (
        "solve",
        "sample",
        "schedules",
        "noise",
        "measurement",
        "acquisition",
        "tomogram",
        "reconstruct",
        "train",
        "calibrate",
        "testing",
    ),
    ("samplers",),
    ("priors", "operators", "data"),
    ("linalg", "metrics", "errors", "random", "progress"),
)
INDEPENDENT = (("priors", "operators", "data"),)
ROW = {module: row for row, modules in enumerate(LAYERS) for module in modules}
ANYWHERE = {"__version__"}  # the one public name that is a constant


def imported_modules(source: str, path: Path) -> set[str]:
    """Top-level modules of the library that a file imports, however it spells it.

    Importing the package itself, or a public name from it, counts as "inverse".
    """
    package = path.parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        inner = [name[1] if len(name) > 1 else "inverse" for name in names if name[0] == "inverse"]
        found |= {name if name in ROW else "inverse" for name in inner if name not in ANYWHERE}
    return found


def violations(source: str, path: Path) -> list[str]:
    """One line for each import of the file that does not go downwards."""
    own = path.with_suffix("").parts[1]
    if own == "__init__":  # the public face: may re-export from every row
        return []
    if own not in ROW:
        return [f"{path}: {own} has no row in LAYERS; give it one"]
    wrong = []
    for other in sorted(imported_modules(source, path) - {own}):
        if other not in ROW:
            wrong.append(f"{path}: imports the public names of inverse; import from the module that defines them")
        elif ROW[other] < ROW[own]:
            wrong.append(f"{path}: imports {other} from a row above")
        elif any(own in row and other in row for row in INDEPENDENT):
            wrong.append(f"{path}: imports {other}, which must stay independent of {own}")
    return wrong


def test_imports_go_downwards() -> None:
    wrong = [
        line
        for file in sorted(PACKAGE.rglob("*.py"))
        for line in violations(file.read_text(encoding="utf-8"), file.relative_to(ROOT))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("inverse/linalg/cg.py", "from inverse.operators import MRI"),
        ("inverse/linalg/cg.py", "from ..operators.mri import MRI"),
        ("inverse/errors.py", "from .solve import solve"),
        ("inverse/errors.py", "from . import solve"),
        ("inverse/errors.py", "from inverse import solve"),
        ("inverse/priors/network.py", "import inverse.operators.mri as m"),
        ("inverse/operators/mri.py", "from ..priors import load"),
        ("inverse/data/io.py", "def f():\n    from inverse import operators"),
        ("inverse/samplers/dds.py", "if True:\n    from inverse.solve import solve"),
        ("inverse/samplers/dds.py", "import inverse"),
        ("inverse/samplers/dds.py", "from inverse import InputError"),
        ("inverse/samplers/dds.py", "from .. import InputError"),
        ("inverse/train/loop.py", "from inverse.cli import main"),
        ("inverse/unknown.py", ""),
    ],
)
def test_planted_violation_is_found(path: str, source: str) -> None:
    assert violations(source, Path(path))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("inverse/cli.py", "from inverse.solve import solve\nfrom inverse import plot, __version__"),
        (
            "inverse/samplers/dds.py",
            "from ..linalg import cg\nfrom .base import Sampler\nimport inverse.priors",
        ),
        (
            "inverse/operators/algebra.py",
            "from . import base\nfrom inverse.operators.base import A\nimport torch",
        ),
        ("inverse/operators/__init__.py", "from .base import Operator\nfrom inverse.errors import InputError"),
        ("inverse/metrics.py", "from inverse.errors import InputError"),
        ("inverse/__init__.py", "from inverse.cli import main"),
    ],
)
def test_allowed_imports_pass(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []
