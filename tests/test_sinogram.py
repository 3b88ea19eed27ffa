"""CT files, from counts to line integrals, and Hounsfield units."""

import dataclasses
import math

import h5py
import numpy as np
import pytest
import torch
from checks import check_one_line

from inverse.data.hounsfield import WATER_ATTENUATION, to_attenuation, to_hounsfield
from inverse.data.sinogram import Sinogram, line_integrals, read_sinogram, write_sinogram

SLICES, VIEWS, DETECTORS = 3, 5, 8
ANGLES = torch.linspace(0, math.pi, VIEWS + 1, dtype=torch.float64)[:-1]
FACTS = {
    "geometry": "fan-curved",
    "spacing_mm": 1.25,
    "offset_mm": -0.3,
    "source_distance_mm": 540.0,
    "detector_distance_mm": 400.0,
    "pixel_mm": 0.7,
    "image_shape": (6, 7),
    "photons": 1e5,
}


def lines() -> torch.Tensor:
    return 3 * torch.rand(SLICES, VIEWS, DETECTORS, generator=torch.Generator().manual_seed(0))


def fields() -> tuple[np.ndarray, np.ndarray]:
    """Three shots of the flat field and two of the dark one, every element different."""
    base = 1000 + 10 * np.arange(SLICES * DETECTORS).reshape(SLICES, DETECTORS)
    return np.stack([base - 6.0, base, base + 6.0]), np.stack([base / 100 - 1, base / 100 + 1])


def write_raw(path, data, white, dark, degrees, layout="exchange"):
    names = {
        "exchange": ("exchange/data", "exchange/data_white", "exchange/data_dark", "exchange/theta"),
        "root": ("data", "white", "dark", "theta_deg"),
    }[layout]
    with h5py.File(path, "w") as file:
        for name, value in zip(names, (data, white, dark, degrees), strict=True):
            if value is not None:
                file[name] = value


def raw(y: torch.Tensor) -> tuple[np.ndarray, ...]:
    """Counts (views, slices, detectors) with these line integrals, and their fields."""
    white, dark = fields()
    flat, background = white.mean(0), dark.mean(0)
    return (flat - background) * np.exp(-y.numpy().transpose(1, 0, 2)) + background, white, dark


def test_line_integrals():
    counts, flat, dark = torch.tensor([[110.0, 60.0, 10.0 + 100 * math.exp(-2)]]), torch.full((3,), 110.0), 10.0
    y, weights = line_integrals(counts, flat, dark)
    torch.testing.assert_close(y, torch.tensor([[0.0, math.log(2), 2.0]]))
    torch.testing.assert_close(weights, counts - 10)
    # Air brighter than the flat field is negative, and stays so: its mean has to be 0.
    assert float(line_integrals(torch.tensor([121.0]), 110.0, 10.0)[0]) < 0


def test_weights_are_inverse_variances():
    generator = torch.Generator().manual_seed(0)
    expected = 1e4 * torch.exp(-torch.tensor([0.5, 2.0, 4.0]))
    y, weights = line_integrals(torch.poisson(expected.expand(20000, 3), generator=generator), 1e4)
    # Variance of 20000 draws: 1 %; the delta method at 183 counts: 1 %.
    torch.testing.assert_close(1 / y.var(0), expected, rtol=0.04, atol=0)
    torch.testing.assert_close(weights.mean(0), expected, rtol=0.01, atol=0)


def test_dead_elements_and_starved_rays_are_bridged():
    flat = torch.full((8,), 100.0)
    flat[0], flat[3] = 0.0, 0.05  # dead, and nearly so
    y = torch.tensor([1.0, 1.0, 2.0, 9.0, 4.0, 5.0, 6.0, 1.0]).expand(2, 8)
    counts = 100 * torch.exp(-y)
    counts[0, 5] = 0.0
    counts[0, 6] = -3.0
    counts[1, 7] = float("nan")
    kept = counts.clone()
    found, weights = line_integrals(counts, flat)
    assert torch.equal(counts.nan_to_num(), kept.nan_to_num())
    dead = torch.tensor([[1, 0, 0, 1, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0, 0, 1]], dtype=torch.bool)
    assert torch.equal(weights == 0, dead)
    expected = torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]])
    torch.testing.assert_close(found, expected)  # float32
    # A view without any ray stays 0.
    counts[0] = 0
    found, weights = line_integrals(counts, flat)
    assert not found[0].any() and not weights[0].any()


def test_line_integrals_refuse():
    counts = torch.ones(2, 3, 4)
    check_one_line(lambda: line_integrals(counts, torch.ones(5)), "(2, 3, 4)", "(5,)")
    check_one_line(lambda: line_integrals(counts, 1.0, 1.0), "flat field above dark")
    check_one_line(lambda: line_integrals(counts * 1j, 1.0), "real")
    integers = torch.full((2, 3), 5, dtype=torch.int32)
    assert line_integrals(integers, 10)[0].dtype == torch.float32


@pytest.mark.parametrize("layout", ["exchange", "root"])
def test_raw_layouts(tmp_path, layout):
    path, y = tmp_path / "scan.h5", lines()
    write_raw(path, *raw(y), np.rad2deg(ANGLES.numpy()), layout)
    scan = read_sinogram(path)
    # Counts of about 1000 in float32, at worst exp(-3) of them.
    torch.testing.assert_close(scan.data, y, rtol=0, atol=1e-5)
    torch.testing.assert_close(scan.angles, ANGLES, rtol=0, atol=1e-12)
    assert scan.weights is not None and scan.weights.shape == y.shape and bool((scan.weights > 0).all())
    assert (scan.geometry, scan.spacing_mm, scan.offset_mm, scan.path) == ("parallel", 1.0, None, path)
    assert scan.slices == (0, 1, 2) and scan.total_slices == 3


def test_some_slices(tmp_path):
    path, y = tmp_path / "scan.h5", lines()
    write_raw(path, *raw(y), np.rad2deg(ANGLES.numpy()))
    own = tmp_path / "own.h5"
    write_sinogram(own, Sinogram(y, ANGLES))
    for file in (path, own):
        last = read_sinogram(file, slices=-1)
        assert last.slices == (2,) and last.total_slices == 3
        torch.testing.assert_close(last.data, y[2:], rtol=0, atol=1e-5)
        assert read_sinogram(file, slices=[2, 0]).slices == (2, 0)
        check_one_line(lambda file=file: read_sinogram(file, slices=3), "3 slices", str(file))


def test_one_shot_fields_and_radians(tmp_path):
    path, y = tmp_path / "scan.h5", lines()
    counts, white, dark = raw(y)
    write_raw(path, counts, white.mean(0), dark.mean(0), ANGLES.numpy())
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = "radians"
        file.attrs["spacing_mm"] = 0.01
    scan = read_sinogram(path)
    torch.testing.assert_close(scan.data, y, rtol=0, atol=1e-5)
    torch.testing.assert_close(scan.angles, ANGLES)
    assert scan.spacing_mm == 0.01


def test_own_layout_comes_back(tmp_path):
    y = lines()
    reference = torch.randn(SLICES, 6, 7, generator=torch.Generator().manual_seed(1)) * 500
    scan = Sinogram(y, ANGLES, weights=1 + y, reference_hu=reference, **FACTS)
    write_sinogram(tmp_path / "scan.h5", scan)
    back = read_sinogram(tmp_path / "scan.h5")
    for field in dataclasses.fields(Sinogram):
        value, found = getattr(scan, field.name), getattr(back, field.name)
        if field.name not in ("slices", "total_slices", "path"):
            assert torch.equal(value, found) if isinstance(value, torch.Tensor) else value == found, field.name
    assert [p.name for p in tmp_path.iterdir()] == ["scan.h5"]


def test_own_layout_of_counts(tmp_path):
    y = lines()
    scan = Sinogram(y, ANGLES, **FACTS)
    write_sinogram(tmp_path / "scan.h5", scan, counts=1e5 * torch.exp(-y))
    back = read_sinogram(tmp_path / "scan.h5")
    torch.testing.assert_close(back.data, y, rtol=0, atol=1e-5)
    torch.testing.assert_close(back.weights, 1e5 * torch.exp(-y))
    check_one_line(lambda: write_sinogram(tmp_path / "b.h5", Sinogram(y, ANGLES), counts=y), "photons")
    check_one_line(lambda: write_sinogram(tmp_path / "b.h5", scan, counts=y[:1]), "(1, 5, 8)")
    assert not (tmp_path / "b.h5").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": torch.zeros(3, 4)}, ("slices, views, detectors", "(3, 4)")),
        ({"data": torch.full((1, VIEWS, 2), float("nan"))}, ("NaN",)),
        ({"angles": ANGLES[1:]}, ("5 views", "(4,)")),
        ({"weights": torch.zeros(1)}, ("weights",)),
        ({"weights": -torch.ones(SLICES, VIEWS, DETECTORS)}, ("negative",)),
        ({"geometry": "cone"}, ("fan-curved", "cone")),
        ({"geometry": "fan"}, ("source_distance_mm",)),
        ({"spacing_mm": 0.0}, ("spacing_mm",)),
        ({"offset_mm": math.inf}, ("offset_mm",)),
        ({"photons": -1.0}, ("photons",)),
        ({"image_shape": (0, 3)}, ("image_shape",)),
        ({"reference_hu": torch.zeros(2, 6, 7)}, ("reference_hu", "(2, 6, 7)")),
    ],
)
def test_sinogram_refuses(change, words):
    check_one_line(lambda: Sinogram(**{"data": lines(), "angles": ANGLES, **change}), *words)


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "scan.h5"
    check_one_line(lambda: read_sinogram(path), "no such file")
    path.write_bytes(b"not HDF5")
    check_one_line(lambda: read_sinogram(path), str(path), "not a readable HDF5 file")
    write_sinogram(path, Sinogram(lines(), ANGLES))
    path.write_bytes(path.read_bytes()[:-200])
    check_one_line(lambda: read_sinogram(path), str(path), "truncated")
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros(3)
    check_one_line(lambda: read_sinogram(path), "sinogram", "found kspace")
    counts, white, dark = raw(lines())
    degrees = np.rad2deg(ANGLES.numpy())
    for arguments, words in (
        ((counts, white[..., 1:], dark, degrees), ("data_white", "(shots, 3, 8)")),
        ((counts, white, None, degrees), ("data_dark",)),
        ((counts, white, dark, None), ("theta",)),
        ((counts, white, dark, degrees[1:]), ("5 views",)),
        ((counts[0], white, dark, degrees), ("exchange/data", "(3, 8)")),
        ((0 * counts, white, dark, degrees), ("no ray has counts",)),
    ):
        write_raw(path, *arguments)
        check_one_line(lambda: read_sinogram(path), str(path), *words)


def test_bad_own_files_are_refused(tmp_path):
    path = tmp_path / "scan.h5"
    for name, value, words in (
        ("sinogram", np.zeros((3, 8)), ("(slices, views, detectors)",)),
        ("counts", np.ones((3, 5, 8)), ("photons",)),
        ("weights", np.ones((2, 5, 8)), ("weights", "(3, ...)")),
        ("reconstruction_hu", np.full((3, 2, 2), np.inf), ("reconstruction_hu", "slice 0")),
        ("angles", np.zeros((5, 1)), ("angles",)),
    ):
        write_sinogram(path, Sinogram(lines(), ANGLES))
        with h5py.File(path, "a") as file:
            for old in {name, "sinogram"} if name == "counts" else {name}:
                if old in file:
                    del file[old]
            file[name] = value
        check_one_line(lambda: read_sinogram(path), str(path), *words)
    write_sinogram(path, Sinogram(lines(), ANGLES))
    with h5py.File(path, "a") as file:
        file.attrs["geometry"] = "helix"
    check_one_line(lambda: read_sinogram(path), str(path), "helix")


def test_hounsfield():
    hu = torch.tensor([-1000, 0, 1000], dtype=torch.int16)
    mu = to_attenuation(hu)
    torch.testing.assert_close(mu, torch.tensor([0.0, WATER_ATTENUATION, 2 * WATER_ATTENUATION]))
    torch.testing.assert_close(to_hounsfield(mu), hu.float(), rtol=0, atol=1e-3)  # float32 of 1000
    exact = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(to_attenuation(to_hounsfield(exact, 0.02), 0.02), exact)
    # NIST at 60 and 80 keV, interpolated in logarithms.
    at_70 = math.exp(np.interp(math.log(70), np.log([60, 80]), np.log([0.02059, 0.01837])))
    assert pytest.approx(at_70, rel=0.01) == WATER_ATTENUATION
    check_one_line(lambda: to_attenuation(hu, 0.0), "water")
    check_one_line(lambda: to_hounsfield(exact * 1j), "real")
