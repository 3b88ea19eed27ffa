"""The command line: files in, files out, and one line for every kind of bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from cli_cases import CONFIG, SIDE, disc, write_prior, write_scan, write_training
from click.testing import CliRunner, Result

from inverse import __version__
from inverse.cli import main
from inverse.priors.files import load_prior, shipped

QUICK = ["--samples", "2", "--steps", "3", "--device", "cpu"]
COMMANDS = ("demo", "solve", "train", "calibrate", "priors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    return write_prior(tmp_path / "tiny.safetensors")


def expect_error(result: Result, *words: str, code: int = 2) -> None:
    """One line on stderr with the words, nothing that looks like a traceback."""
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], lines[0]


def test_version_and_help() -> None:
    assert run("--version").output.strip() == f"inverse {__version__}"
    for arguments in ([], ["--help"], *([c, "--help"] for c in COMMANDS)):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "Usage: " in result.output
        assert max(len(line) for line in result.output.splitlines()) <= 100
    assert all(command in run("--help").output for command in COMMANDS)


@pytest.mark.parametrize(("coils", "oversampling", "mask"), [(4, 1, True), (4, 2, False), (1, 1, False), (1, 2, True)])
def test_solve_writes_every_file(tmp_path: Path, prior: Path, coils: int, oversampling: int, mask: bool) -> None:
    scan = write_scan(tmp_path / "scan.h5", coils=coils, oversampling=oversampling, mask=mask)
    out = tmp_path / "new" / "out"
    result = run("solve", scan, "--out", out, "--prior", prior, "--save-samples", *QUICK)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == ["scan.h5", "scan.nii.gz", "scan.png", "scan_std.nii.gz"]
    with h5py.File(out / "scan.h5") as file:
        image = file["reconstruction"][()]
        assert image.shape == file["std"].shape == file["mean"].shape == (2, SIDE, SIDE)
        assert file["samples"].shape == (2, 2, SIDE, SIDE)
        assert np.allclose(image, np.abs(file["mean"][()]))
    volume = nibabel.load(out / "scan.nii.gz")
    assert np.allclose(volume.get_fdata(), image.transpose(2, 1, 0), atol=1e-6)
    assert nibabel.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert np.allclose(volume.header.get_zooms(), (2, 2, 3))
    # the untrained network leaves aliases, but the image must lie where the truth lies
    truth = disc(2).numpy().ravel()
    right, *flipped = (np.corrcoef(i.ravel(), truth)[0, 1] for i in (image, image[:, ::-1], image[:, :, ::-1]))
    assert right > 0.8
    assert right > max(flipped) + 0.02
    for word in ("PSNR", "SSIM", "residual", "scan.png", "estimated", "2 slices"):
        assert word in result.output
    assert ("readout cropped from 96" in result.output) == (oversampling == 2)


def test_solve_without_reference_and_error_bar(tmp_path: Path, prior: Path) -> None:
    scan = write_scan(tmp_path / "scan.h5", reference=False)
    result = run(
        "solve", scan, "--out", tmp_path / "out", "--prior", prior, "--samples", 1, "--steps", 2, "--slices", 1
    )
    assert result.exit_code == 0, result.output
    assert "PSNR" not in result.output
    assert not (tmp_path / "out" / "scan_std.nii.gz").exists()
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        assert sorted(file) == ["mean", "reconstruction"]
        assert file["mean"].shape == (1, SIDE, SIDE)
        assert list(file.attrs["slices"]) == [1]


def test_solve_is_reproducible_and_slices_are_independent(tmp_path: Path, prior: Path) -> None:
    scan = write_scan(tmp_path / "scan.h5")
    common = ["solve", scan, "--prior", prior, "--noise", 0.02, *QUICK]
    found = []
    for name, options in (("a", []), ("b", ["--batch", 1]), ("c", ["--seed", 1])):
        assert run(*common, "--out", tmp_path / name, *options).exit_code == 0
        with h5py.File(tmp_path / name / "scan.h5") as file:
            found.append(file["mean"][()])
    assert np.allclose(found[0], found[1], atol=1e-5)
    assert not np.allclose(found[0], found[2], atol=1e-3)


def test_affine_follows_the_slices(tmp_path: Path, prior: Path) -> None:
    scan = write_scan(tmp_path / "scan.h5", slices=4)
    affine = np.array([[2.0, 0, 0, -10], [0, 2, 0, -20], [0, 0, 3, -30], [0, 0, 0, 1]])
    with h5py.File(scan, "a") as file:
        file["affine"] = affine
    result = run("solve", scan, "--out", tmp_path / "out", "--prior", prior, "--slices", "1:4:2", *QUICK)
    assert result.exit_code == 0, result.output
    found = nibabel.load(tmp_path / "out" / "scan.nii.gz").affine
    assert np.allclose(found @ [5, 6, 1, 1], affine @ [5, 6, 3, 1])


def change(path: Path, name: str, edit: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Replace one dataset of a file, or remove it."""
    with h5py.File(path, "a") as file:
        values = file[name][()]
        del file[name]
        if edit is not None:
            file[name] = edit(values)


def poke(value: complex) -> Callable[[np.ndarray], np.ndarray]:
    def edit(values: np.ndarray) -> np.ndarray:
        values[0, 0, SIDE // 2, SIDE // 2] = value
        return values

    return edit


BAD_FILES = {
    "no kspace": (lambda p: change(p, "kspace", None), "kspace"),
    "NaN": (lambda p: change(p, "kspace", poke(complex("nan"))), "NaN"),
    "Inf": (lambda p: change(p, "kspace", poke(complex("inf"))), "Inf"),
    "real": (lambda p: change(p, "kspace", np.abs), "complex"),
    "two axes": (lambda p: change(p, "kspace", lambda k: k[0, 0]), "shape"),
    "zero mask": (lambda p: change(p, "mask", lambda m: 0 * m), "zero"),
    "wrong mask": (lambda p: change(p, "mask", lambda m: m[:-3]), "mask"),
    "no data": (lambda p: change(p, "kspace", lambda k: 0 * k), "signal"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "truncated"),
    "not HDF5": (lambda p: p.write_text("hello"), "HDF5"),
    "missing": (lambda p: p.unlink(), "no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(tmp_path: Path, prior: Path, name: str) -> None:
    scan = write_scan(tmp_path / "scan.h5")
    damage, word = BAD_FILES[name]
    damage(scan)
    expect_error(run("solve", scan, "--out", tmp_path / "out", "--prior", prior, *QUICK), word)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--method", "magic"], "magic"),
        (["--noise", "-1"], "noise"),
        (["--noise", "nan"], "noise"),
        (["--noise", "much"], "much"),
        (["--samples", "0"], "samples"),
        (["--steps", "0"], "steps"),
        (["--batch", "0"], "batch"),
        (["--slices", "9"], "slices"),
        (["--slices", "1:x"], "--slices"),
        (["--slices", "4:4"], "slices"),
        (["--device", "abacus"], "abacus"),
        (["--maps-calibration", "2"], "calibration"),
        (["--prior", "nobody"], "nobody"),
        (["--prior", "nobody.safetensors"], "no such prior"),
        (["--bogus"], "--bogus"),
    ],
)
def test_bad_option(tmp_path: Path, prior: Path, options: list[str], word: str) -> None:
    scan = write_scan(tmp_path / "scan.h5")
    expect_error(run("solve", scan, "--out", tmp_path / "out", "--prior", prior, *options), word)
    assert not (tmp_path / "out").exists()


def test_prior_with_wrong_channels(tmp_path: Path) -> None:
    prior, scan = write_prior(tmp_path / "real.safetensors", channels=1), write_scan(tmp_path / "scan.h5")
    expect_error(run("solve", scan, "--out", tmp_path / "out", "--prior", prior, *QUICK), "channel")
    assert not (tmp_path / "out").exists()


def test_unwritable_output(tmp_path: Path, prior: Path) -> None:
    scan = write_scan(tmp_path / "scan.h5")
    (tmp_path / "file").write_text("in the way")
    config, data = write_training(tmp_path)
    expect_error(run("solve", scan, "--out", tmp_path / "file" / "out", "--prior", prior, *QUICK), "--out", "folder")
    expect_error(run("solve", scan, "--out", tmp_path / "file", "--prior", prior, *QUICK), "--out", "folder")
    expect_error(run("train", config, "--data", data, "--out", tmp_path / "file"), "--out", "folder")
    expect_error(run("solve", scan, "--out", tmp_path, "--prior", prior, *QUICK), "replace the input")


def test_train_resumes_and_leaves_a_prior(tmp_path: Path) -> None:
    config, data = write_training(tmp_path)
    out = tmp_path / "run"
    result = run("train", config, "--data", data, "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    names = {"checkpoint.safetensors", "curve.csv", "curve.png", "samples.png", "tiny.safetensors"}
    assert {p.name for p in out.iterdir()} == names
    first = (out / "tiny.safetensors").read_bytes()
    again = run("train", config, "--data", data, "--out", out, "--device", "cpu")
    assert again.exit_code == 0
    assert "continuing at step 6 of 6" in again.output
    assert (out / "tiny.safetensors").read_bytes() == first
    calibrated = run("calibrate", out / "tiny.safetensors", "--data", data, "--images", 2, "--side", 32)
    assert calibrated.exit_code == 0, calibrated.output
    assert load_prior(out / "tiny.safetensors").calibration is not None


def test_bad_training_input(tmp_path: Path) -> None:
    config, data = write_training(tmp_path)
    out = tmp_path / "run"
    expect_error(run("train", "nothing.toml", "--data", data, "--out", out), "no such file", "brain-mr")
    expect_error(run("train", config, "--data", tmp_path / "empty", "--out", out), "no .h5 files")
    config.write_text("speed = 3\n" + CONFIG)
    expect_error(run("train", config, "--data", data, "--out", out), "speed")
    config.write_text("= 3")
    expect_error(run("train", config, "--data", data, "--out", out), "TOML")
    expect_error(run("calibrate", tmp_path / "no.safetensors", "--data", data), "no such prior")
    assert not out.exists()


def test_priors_lists_what_is_shipped() -> None:
    result = run("priors")
    assert result.exit_code == 0
    assert all(name in result.output for name in shipped())


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "inverse.cli", *(str(a) for a in arguments)]


def test_errors_of_a_real_process(tmp_path: Path, prior: Path) -> None:
    scan = write_scan(tmp_path / "scan.h5")
    scan.write_bytes(scan.read_bytes()[:2000])
    for arguments in (
        ["solve", scan, "--out", tmp_path / "out", "--prior", prior],
        ["solve", tmp_path / "no.h5", "--out", tmp_path / "out", "--prior", prior],
        ["fly"],
    ):
        result = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_interrupt(tmp_path: Path, prior: Path) -> None:
    config, data = write_training(tmp_path, CONFIG.replace("steps = 6", "steps = 100000"))
    process = subprocess.Popen(
        command("train", config, "--data", data, "--out", tmp_path / "run"), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "curve.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [line for line in stderr.splitlines() if not line.startswith("train tiny: ")]
    assert lines == ["interrupted; the same command continues from the last checkpoint"]


@pytest.mark.slow
@pytest.mark.skipif("brain-mr" not in shipped(), reason="the shipped prior is not in this tree")
def test_demo(tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    names = ["demo.h5", "demo.nii.gz", "demo.png", "demo_std.nii.gz"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    scores = {line.split("  ")[0].split(",")[0]: float(line.split()[-7]) for line in result.output.splitlines()
              if " x " in line and "mean of" in line}  # fmt: skip
    assert scores["learned covariance"] > scores["DDS"]
