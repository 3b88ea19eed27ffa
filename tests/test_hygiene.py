"""Rules that hold for every file: tests check something, files stay short and portable, the wheel is the tree."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES = 400
FUNCTION_LINES = 70
FILE_BYTES = 10 * 2**20
IMPORT_SECONDS = 1.5
LOCAL = {"build", "dist", "demo", "runs", "scratch", "__pycache__", "inverse.egg-info"}  # never part of a change
CHECK = re.compile(r"_?(assert|check|raises$|warns$|fail$|expect)")
# A folder of one machine; not the middle of an address, of a relative path or of a pattern.
ABSOLUTE = re.compile(r"(?<![\w.~})\]*-])/(work|root|home|Users)/")


def files() -> list[Path]:
    """What belongs to the project: tracked or about to be; all but local folders where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        found = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not hidden_or_local(path.relative_to(ROOT))]
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and not behind_link(path))


def hidden_or_local(path: Path) -> bool:
    return any(part in LOCAL or part.startswith(".") for part in path.parts)


def behind_link(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] in ("operators", "data")


def sources(*folders: str) -> list[Path]:
    """Python files of the project, under the given folders of the root."""
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def checks(function: ast.AST) -> bool:
    """Whether a test can fail by something it looks at: an assert, or a call of a named check."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if CHECK.match(name):
                return True
    return False


def idle_tests(source: str) -> list[str]:
    return [f.name for f in functions(source) if f.name.startswith("test_") and not checks(f)]


def long_functions(source: str) -> list[str]:
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(source)}
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > FUNCTION_LINES]


def undocumented(source: str) -> list[str]:
    """Public functions and classes of a module without a docstring."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    return [node.name for node in nodes if not node.name.startswith("_") and not ast.get_docstring(node)]


def findings(paths: list[Path], rule: Callable[[str], list[str]]) -> list[str]:
    assert paths
    return [f"{path.relative_to(ROOT)}: {what}" for path in paths for what in rule(path.read_text(encoding="utf-8"))]


def test_every_test_checks_something() -> None:
    wrong = findings(sources("tests"), idle_tests)
    assert not wrong, "\n".join(wrong)


def test_functions_are_short() -> None:
    wrong = findings(sources("inverse", "tests", "experiments"), long_functions)
    assert not wrong, "\n".join(wrong)


def test_files_are_short() -> None:
    lengths = {path: len(path.read_bytes().splitlines()) for path in sources("inverse", "tests", "experiments")}
    wrong = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > FILE_LINES]
    assert not wrong, "\n".join(wrong)


def test_public_names_are_documented() -> None:
    wrong = findings(sources("inverse"), undocumented)
    assert not wrong, "\n".join(wrong)


def test_rules_find_planted_faults() -> None:
    assert idle_tests("def test_a():\n    compute()\n") == ["test_a"]
    assert idle_tests("def test_a():\n    with pytest.raises(ValueError):\n        f()\n") == []
    assert idle_tests("def test_a():\n    check_operator(A)\n") == []
    assert long_functions("def f():\n" + "    pass\n" * FUNCTION_LINES) == [f"f: {FUNCTION_LINES + 1} lines"]
    assert long_functions("def f():\n" + "    pass\n" * (FUNCTION_LINES - 1)) == []
    assert undocumented("def f(): ...\nclass C: ...\ndef _g(): ...\n") == ["f", "C"]
    home = "/" + "home/"
    assert ABSOLUTE.search(f'open("{home}me/x")')
    assert not ABSOLUTE.search(f"https://example.org{home}me and ~{home}me")


def test_no_paths_of_one_machine() -> None:
    wrong = []
    for path in files():
        content = path.read_bytes()
        if b"\0" in content:  # not text
            continue
        lines = content.decode("utf-8", errors="replace").splitlines()
        wrong += [f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if ABSOLUTE.search(line)]
    assert not wrong, "\n".join(wrong)


def test_files_are_small() -> None:
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in files()}
    wrong = [f"{path}: {size} bytes" for path, size in sizes.items() if size > FILE_BYTES]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_wheel_is_the_tree(tmp_path: Path) -> None:
    """Sdist, then the wheel from it: neither may lose a file (inverse/data above all) or gain one."""
    copy = tmp_path / "tree"
    for path in files():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name in ("operators", "data"):
        (copy / name).symlink_to(f"inverse/{name}")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT).as_posix() for path in files() if path.is_relative_to(ROOT / "inverse")}
    assert packed == wanted


@pytest.mark.slow
def test_import_is_light() -> None:
    """`import inverse` costs little beyond `import torch`; the median of three, as other work runs beside it."""
    code = "import time, torch; t = time.perf_counter(); import inverse; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert statistics.median(float(run.stdout) for run in runs) < IMPORT_SECONDS
