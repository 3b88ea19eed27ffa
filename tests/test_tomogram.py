"""CT files made ready: geometry, rotation axis, photons, units; and the command line on them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from checks import check_one_line
from cli_cases import SIDE, disc, write_prior
from click.testing import CliRunner

from inverse.cli import main
from inverse.data import WATER_ATTENUATION, Sinogram, to_attenuation, to_hounsfield, write_sinogram
from inverse.metrics import psnr
from inverse.operators.ct import CT, FanBeam, ParallelBeam, photons_of_air
from inverse.operators.noise import PhotonCounts
from inverse.priors.files import load_prior
from inverse.tomogram import is_sinogram, tomogram

PHOTONS, PIXEL, DETECTORS, VIEWS = 2e4, 2.0, 80, 40
ANGLES = np.arange(VIEWS) * math.pi / VIEWS


def hounsfield(slices: int) -> torch.Tensor:
    """Water with a piece of bone, air around."""
    return disc(slices) * 2000 - 1000


def write_ct(path: Path, *, slices: int = 2, geometry: str = "parallel", offset: float | None = 0.0) -> Path:
    """A simulated scan in this library's layout."""
    if geometry == "parallel":
        beam, distances = ParallelBeam(ANGLES, DETECTORS, PIXEL, offset or 0.0), (None, None)
    else:
        beam, distances = FanBeam(2 * ANGLES, DETECTORS, 2 * PIXEL, 300.0, 300.0), (300.0, 300.0)
    images = to_attenuation(hounsfield(slices))
    y = CT(beam, (SIDE, SIDE), PIXEL).measure(images, PhotonCounts(PHOTONS), torch.Generator().manual_seed(0))
    angles = torch.tensor(beam.angles, dtype=torch.float64)
    facts = {"spacing_mm": beam.spacing, "offset_mm": offset, "pixel_mm": PIXEL, "image_shape": (SIDE, SIDE)}
    scan = Sinogram(y, angles, None, geometry, source_distance_mm=distances[0], detector_distance_mm=distances[1],
                    reference_hu=hounsfield(slices), **facts)  # fmt: skip
    write_sinogram(path, scan)
    return path


def write_ct_prior(path: Path) -> Path:
    """The tiny network with a unit: it denoises by its skip connection alone."""
    from inverse.priors.files import save_prior

    write_prior(path, channels=1)
    prior = load_prior(path)
    save_prior(path, prior.network, {**prior.facts, "unit": WATER_ATTENUATION}, None)
    return path


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
def test_images_have_the_units_and_the_place_of_the_truth(tmp_path: Path, geometry: str) -> None:
    data = tomogram(write_ct(tmp_path / "ct.h5", geometry=geometry))
    assert data.reference is not None and data.reference.shape == (2, SIDE, SIDE)
    title, images = data.quick_images[0]
    # 40 views of a disc of 36 pixels: 24 dB and more; mirrored, or off by 2 %, it would be below 20
    assert title == "FBP" and psnr(images, data.reference) > 22
    water = images[:, SIDE // 2 - 3 : SIDE // 2 + 3, SIDE // 2 - 12 : SIDE // 2 - 6].mean()
    assert abs(float(to_hounsfield(water))) < 25  # noise of 144 pixels and streaks


def test_photons_are_counted_from_rays_through_air(tmp_path: Path) -> None:
    data = tomogram(write_ct(tmp_path / "ct.h5"))
    # 1.35 / sqrt(n) relative error of a variance by the median, n of some 1000 rays; 4 of those
    assert data.noise_estimated and abs(float(data.noise.photons) / PHOTONS - 1) < 0.2
    given = tomogram(tmp_path / "ct.h5", photons=500.0)
    assert not given.noise_estimated and float(given.noise.photons) == 500.0


def test_no_air_no_photons(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.h5")
    with h5py.File(path, "a") as file:
        file["sinogram"][...] = file["sinogram"][...] + 2.0
    check_one_line(lambda: tomogram(path), "rays through air", "--photons")
    assert photons_of_air(torch.zeros(100, 80)) is None  # no noise at all
    assert photons_of_air(torch.randn(100, 5)) is None  # too narrow to tell


def test_rotation_axis_is_found_where_the_file_does_not_say(tmp_path: Path) -> None:
    shifted = write_ct(tmp_path / "shifted.h5", offset=3.4)
    with h5py.File(shifted, "a") as file:
        del file.attrs["offset_mm"]
    data = tomogram(shifted)
    # a tenth of an element of 2 mm, with the noise of the photons
    assert data.axis_found and abs(data.scanner.geometry.offset - 3.4) < 0.2
    assert "rotation axis found" in dict(data.facts())[""]
    assert not tomogram(write_ct(tmp_path / "ct.h5")).axis_found


def test_size_of_the_image_where_the_file_does_not_say(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["image_shape"], file.attrs["pixel_mm"]
    assert (tomogram(path).scanner.in_shape, tomogram(path).scanner.pixel) == ((DETECTORS, DETECTORS), PIXEL)
    assert tomogram(path, pixel=4.0).scanner.in_shape == (DETECTORS // 2, DETECTORS // 2)
    assert tomogram(path, spacing=1.0).scanner.pixel == 1.0


def test_lengths_that_cannot_be_right_are_noted(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.h5")
    assert dict(tomogram(path).facts())["Note"] == ""
    assert "--spacing" in dict(tomogram(path, spacing=PIXEL / 50).facts())["Note"]


def test_rays_that_were_not_measured_do_not_count(tmp_path: Path) -> None:
    data = tomogram(write_ct(tmp_path / "ct.h5"))
    weights = torch.ones_like(data.data)
    weights[1, :, 7] = 0
    dead = dataclasses.replace(data, sinogram=dataclasses.replace(data.sinogram, weights=weights))
    assert dead.operator(0) is dead.scanner
    assert dead.operator(1).measurements == VIEWS * (DETECTORS - 1)


def test_scale_is_the_unit_of_the_prior_or_follows_its_peak(tmp_path: Path) -> None:
    data = tomogram(write_ct(tmp_path / "ct.h5"))
    assert data.scale(load_prior(write_ct_prior(tmp_path / "ct.safetensors"))) == WATER_ATTENUATION
    expected = float(torch.quantile(data.fbp.flatten(1), 0.999, dim=1).max()) / 0.9
    assert data.scale(load_prior(write_prior(tmp_path / "mr.safetensors", channels=1))) == pytest.approx(expected)


def test_files_are_told_apart(tmp_path: Path) -> None:
    from cli_cases import write_scan

    assert is_sinogram(write_ct(tmp_path / "ct.h5")) and not is_sinogram(write_scan(tmp_path / "mr.h5"))
    (tmp_path / "text.h5").write_text("no")
    assert not is_sinogram(tmp_path / "text.h5") and not is_sinogram(tmp_path / "missing.h5")


def test_solve_writes_hounsfield_units(tmp_path: Path) -> None:
    scan, prior = write_ct(tmp_path / "scan.h5", slices=1), write_ct_prior(tmp_path / "p.safetensors")
    command = ["solve", str(scan), "--out", str(tmp_path / "out"), "--prior", str(prior)]
    result = CliRunner().invoke(main, [*command, "--samples", "2", "--steps", "3", "--save-samples"])
    assert result.exit_code == 0, result.output
    assert "parallel beam, 40 views over 176 degrees" in result.output and "photons a ray" in result.output
    assert "FBP" in result.output and "learned covariance, mean of 2" in result.output
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        image, spread, samples = file["reconstruction"][:], file["std"][:], file["samples"][:]
        assert "PhotonCounts" in file.attrs["noise"] and "mean" not in file
    assert image.shape == spread.shape == (1, SIDE, SIDE) and samples.shape == (2, 1, SIDE, SIDE)
    np.testing.assert_allclose(image, samples.mean(0), atol=0.01)  # HU, single precision
    np.testing.assert_allclose(spread, samples.std(0, ddof=1), atol=0.05)
    inside = hounsfield(1)[0].numpy() == 0
    assert abs(float(image[0][inside].mean())) < 60 and float(image[0, :3].mean()) < -900
    voxel = nibabel.load(tmp_path / "out" / "scan.nii.gz").header.get_zooms()
    assert tuple(float(v) for v in voxel) == (PIXEL, PIXEL, 1.0) and (tmp_path / "out" / "scan.png").exists()


def test_options_of_the_other_modality_are_refused(tmp_path: Path) -> None:
    from cli_cases import write_scan

    prior, run = write_ct_prior(tmp_path / "p.safetensors"), CliRunner()
    for file, option in (
        (write_ct(tmp_path / "ct.h5"), "--noise"),
        (tmp_path / "ct.h5", "--maps-calibration"),
        (write_scan(tmp_path / "mr.h5"), "--photons"),
        (tmp_path / "mr.h5", "--spacing"),
        (tmp_path / "mr.h5", "--pixel"),
    ):
        arguments = ["solve", str(file), "--out", str(tmp_path / "o"), "--prior", str(prior), option, "9"]
        result = run.invoke(main, arguments)
        assert result.exit_code == 2 and result.output.count("\n") == 1 and option in result.output, result.output
        assert not (tmp_path / "o").exists()


def test_truncated_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "ct.h5")
    path.write_bytes(path.read_bytes()[:3000])
    check_one_line(lambda: tomogram(path), str(path))
    check_one_line(lambda: tomogram(tmp_path / "no.h5"), "no.h5", "no such file")


@pytest.mark.parametrize("name", ["pixel", "spacing", "photons"])
def test_numbers_that_are_not_positive_are_refused(tmp_path: Path, name: str) -> None:
    path = write_ct(tmp_path / "ct.h5")
    for value in (0.0, -1.0, math.nan):
        check_one_line(lambda value=value: tomogram(path, **{name: value}), name)
