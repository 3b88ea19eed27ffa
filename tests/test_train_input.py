"""What a training run is given: configurations and volumes, checked before the first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from checks import check_one_line
from cli_cases import CONFIG, write_training

from inverse.train.config import _RULES, ImagesConfig, NetworkConfig, TrainConfig, load_config
from inverse.train.images import CropSampler, smooth_phase
from inverse.train.loop import Trainer, build_network

PLAIN = ImagesConfig(crops=((16, 4, 1.0),), gain=0.0, gamma=0.0, phase=0.0)
"""Crops as they are: no gain, no gamma, no bends in the phase."""


def write_volume(folder: Path, name: str, volume: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / name, "w") as file:
        file["volume"] = volume
    return folder


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_configuration_is_read(tmp_path: Path) -> None:
    config = load_config(write_training(tmp_path)[0])
    assert (config.name, config.steps, config.cooldown, config.report_every) == ("tiny", 6, 2, 3)
    assert (config.network.channels, config.network.widths, config.network.depths) == (2, (8, 8), (1, 1))
    assert config.images.crops == ((16, 2, 1.0),) and config.images.gamma == ImagesConfig().gamma
    assert config.ema == TrainConfig(name="", steps=1).ema  # what is not said is the default


def test_shipped_configurations_are_read() -> None:
    paths = [Path(str(p)) for p in (resources.files("inverse.train") / "configs").iterdir() if p.name.endswith("toml")]
    assert {"brain-mr", "body-ct"} <= {path.stem for path in paths}
    for path in paths:
        config = load_config(path)
        assert config.name == path.stem
        assert build_network(config).channels == config.network.channels


BAD_CONFIGS: dict[str, tuple[Callable[[str], str], str]] = {
    "unknown key": (lambda t: "speed = 3\n" + t, "'speed'"),
    "unknown key in a section": (lambda t: t + "\nblur = 1\n", "'blur'"),
    "unknown section": (lambda t: t + "\n[scanner]\nfield = 3\n", "'scanner'"),
    "no name": (lambda t: t.replace('name = "tiny"', ""), "'name' is missing"),
    "no steps": (lambda t: t.replace("steps = 6", ""), "'steps' is missing"),
    "not TOML": (lambda t: t + "\n= 3", "not valid TOML"),
    "twice the same key": (lambda t: "steps = 6\n" + t, "not valid TOML"),
    "section is a number": (lambda t: "network = 3\n" + t.replace("[network]", "[other]"), "network"),
    "negative steps": (lambda t: t.replace("steps = 6", "steps = -6"), "steps"),
    "no step": (lambda t: t.replace("steps = 6", "steps = 0"), "steps"),
    "half a step": (lambda t: t.replace("steps = 6", "steps = 6.5"), "steps"),
    "steps in words": (lambda t: t.replace("steps = 6", 'steps = "many"'), "'many'"),
    "true steps": (lambda t: t.replace("steps = 6", "steps = true"), "steps"),
    "negative seed": (lambda t: "seed = -1\n" + t, "seed"),
    "negative warmup": (lambda t: t.replace("warmup = 2", "warmup = -2"), "warmup"),
    "negative cooldown": (lambda t: t.replace("cooldown = 2", "cooldown = -2"), "cooldown"),
    "negative rate": (lambda t: "learning_rate = -1e-3\n" + t, "learning_rate"),
    "NaN rate": (lambda t: "learning_rate = nan\n" + t, "learning_rate"),
    "infinite rate": (lambda t: "learning_rate = inf\n" + t, "learning_rate"),
    "never a report": (lambda t: t.replace("report_every = 3", "report_every = 0"), "report_every"),
    "no ratio": (lambda t: "ratio = 0\n" + t, "ratio"),
    "negative sigma": (lambda t: "sigma_min = -0.1\n" + t, "sigma_min"),
    "reversed sigma": (lambda t: "sigma_min = 30.0\n" + t, "sigma_min below sigma_max"),
    "no data_std": (lambda t: "data_std = 0.0\n" + t, "data_std"),
    "share above 1": (lambda t: "uniform = 1.5\n" + t, "uniform"),
    "average above 1": (lambda t: "ema = 2\n" + t, "ema"),
    "name with a folder": (lambda t: t.replace('"tiny"', '"../tiny"'), "name"),
    "three channels": (lambda t: t.replace("channels = 2", "channels = 3"), "channels"),
    "width of nothing": (lambda t: t.replace("widths = [8, 8]", "widths = [8, 0]"), "widths"),
    "widths a number": (lambda t: t.replace("widths = [8, 8]", "widths = 8"), "widths"),
    "depths too few": (lambda t: t.replace("depths = [1, 1]", "depths = [1]"), "as many depths as widths"),
    "no crops": (lambda t: t.replace("[[16, 2, 1.0]]", "[]"), "crops"),
    "crop of two numbers": (lambda t: t.replace("[[16, 2, 1.0]]", "[[16, 2]]"), "crops"),
    "crop of no pixel": (lambda t: t.replace("[[16, 2, 1.0]]", "[[0, 2, 1.0]]"), "crops"),
    "crop never drawn": (lambda t: t.replace("[[16, 2, 1.0]]", "[[16, 2, -1.0]]"), "crops"),
    "negative weight": (lambda t: t + '\n[images.weights]\n"*" = -1\n', "weights"),
    "negative gamma": (lambda t: t + "\ngamma = -0.1\n", "gamma"),
}


def test_every_key_has_a_rule() -> None:
    ruled = {key for _, _, keys in _RULES for key in keys.split()}
    fields = [f.name for kind in (TrainConfig, NetworkConfig, ImagesConfig) for f in dataclasses.fields(kind)]
    assert set(fields) - {"network", "images"} == ruled  # the sections hold keys of their own


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_wrong_configuration_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    change, word = BAD_CONFIGS[name]
    assert change(CONFIG) != CONFIG
    path = tmp_path / "bad.toml"
    path.write_text(change(CONFIG))
    check_one_line(lambda: load_config(path), str(path), word)


def test_unreadable_configuration_is_refused_in_one_line(tmp_path: Path) -> None:
    check_one_line(lambda: load_config(tmp_path / "no.toml"), "no.toml", "cannot be read")
    check_one_line(lambda: load_config(tmp_path), str(tmp_path), "cannot be read")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    check_one_line(lambda: load_config(tmp_path / "latin.toml"), "not valid TOML")


def test_data_without_held_out_people_is_refused(tmp_path: Path) -> None:
    config, data = write_training(tmp_path)
    (data / "val" / "one.h5").unlink()
    check_one_line(lambda: Trainer(load_config(config), data, tmp_path / "run"), "val", "no .h5 files")
    assert not (tmp_path / "run").exists()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def stored(name: str, value: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file[name] = value

    return damage


def grouped(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("volume")


BAD_VOLUMES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "no readable dataset"),
    "not HDF5": (lambda p: p.write_text("hello") and None, "no readable dataset"),
    "empty file": (lambda p: p.write_bytes(b"") and None, "no readable dataset"),
    "another name": (stored("image", np.zeros((2, 20, 20), np.uint8)), "no readable dataset"),
    "a folder": (grouped, "no readable dataset"),
    "one number": (stored("volume", np.uint8(3)), "no readable dataset"),
    "float": (stored("volume", np.zeros((2, 20, 20))), "float64"),
    "two axes": (stored("volume", np.zeros((20, 20), np.uint8)), "(20, 20)"),
    "no slice": (stored("volume", np.zeros((0, 20, 20), np.uint8)), "(0, 20, 20)"),
    "real numbers": (stored("volume", np.zeros((1, 20, 20), np.float32)), "int16 HU"),
}


@pytest.mark.parametrize("name", BAD_VOLUMES)
def test_damaged_volume_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    damage, word = BAD_VOLUMES[name]
    folder = write_volume(tmp_path, "good.h5", np.full((2, 20, 20), 100, np.uint8))
    write_volume(tmp_path, "worse.h5", np.full((2, 20, 20), 100, np.uint8))
    damage(folder / "worse.h5")
    check_one_line(lambda: CropSampler(folder, PLAIN, seed=0), "worse.h5", word)


def test_folder_without_volumes_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no volumes")
    for folder in (tmp_path, tmp_path / "missing"):
        check_one_line(lambda folder=folder: CropSampler(folder, PLAIN, seed=0), str(folder), "no .h5 files")
    write_volume(tmp_path, "a.h5", np.full((2, 20, 20), 100, np.uint8))
    config = ImagesConfig({"*": 0.0})
    check_one_line(lambda: CropSampler(tmp_path, config, seed=0), "weight 0")


def head() -> np.ndarray:
    return rng().integers(30, 255, (3, 40, 36)).astype(np.uint8)


def test_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    folder = write_volume(tmp_path, "a.h5", head())
    config = ImagesConfig(crops=((16, 3, 0.5), (24, 2, 0.5)))
    forward = CropSampler(folder, config, seed=5)
    batches = [forward.batch(k) for k in range(6)]
    torch.rand(3)  # the library's streams do not hang on this one
    backward = CropSampler(folder, config, seed=5)
    for k in reversed(range(6)):
        assert torch.equal(backward.batch(k), batches[k])
        assert torch.equal(backward.batch(k), batches[k])  # asking again changes nothing
    other = CropSampler(folder, config, seed=6)
    assert not any(torch.equal(other.batch(k), batches[k]) for k in range(6))
    assert not any(torch.equal(a, b) for a, b in pairwise(batches))


def test_batches_leave_the_random_state_alone(tmp_path: Path) -> None:
    sampler = CropSampler(write_volume(tmp_path, "a.h5", head()), ImagesConfig(crops=((16, 3, 1.0),)), seed=0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global stream
    sampler.batch(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_crops_come_in_the_stated_sizes_and_shares(tmp_path: Path) -> None:
    config = ImagesConfig(crops=((8, 3, 0.75), (12, 2, 0.25)), phase=0.0)
    sampler = CropSampler(write_volume(tmp_path, "a.h5", head()), config, seed=0)
    shapes = [tuple(sampler.batch(k).shape) for k in range(300)]
    assert set(shapes) == {(3, 2, 8, 8), (2, 2, 12, 12)}
    # 300 draws scatter by 0.025
    assert abs(shapes.count((3, 2, 8, 8)) / 300 - 0.75) < 0.1


def test_complex_crops_have_the_magnitude_of_the_real_ones(tmp_path: Path) -> None:
    folder = write_volume(tmp_path, "a.h5", head())
    config = ImagesConfig(crops=((16, 3, 1.0),))
    real, pair = (CropSampler(folder, config, seed=1, complex_=c).batch(2) for c in (False, True))
    assert real.shape == (3, 1, 16, 16) and pair.shape == (3, 2, 16, 16)
    assert real.dtype == pair.dtype == torch.float32
    # 1e-6: sine and cosine in single precision
    torch.testing.assert_close(torch.hypot(pair[:, 0], pair[:, 1]), real[:, 0], atol=1e-6, rtol=1e-6)
    assert float(pair[:, 1].abs().max()) > 0.01  # and there is a phase


def test_grey_value_255_is_magnitude_1(tmp_path: Path) -> None:
    sampler = CropSampler(write_volume(tmp_path, "a.h5", np.full((2, 20, 20), 51, np.uint8)), PLAIN, seed=0)
    assert torch.allclose(torch.hypot(*sampler.batch(0).unbind(1)), torch.tensor(0.2), atol=1e-6)  # single precision


def test_hounsfield_units_become_attenuation_over_that_of_water(tmp_path: Path) -> None:
    volume = np.zeros((1, 4, 4), np.int16)
    volume[0, :2], volume[0, 2], volume[0, 3] = 1000, -1000, -1024  # bone, air, and less than nothing
    sampler = CropSampler(
        write_volume(tmp_path, "a.h5", volume),
        dataclasses.replace(PLAIN, crops=((4, 2, 1.0),)),
        seed=0,
        complex_=False,
    )
    for image in sampler.batch(0):
        assert sorted(image.flatten().tolist()) == [0.0] * 8 + [2.0] * 8


def test_zoom_shows_more_of_the_volume_without_aliases(tmp_path: Path) -> None:
    stripes = np.zeros((1, 64, 64), np.uint8)
    stripes[..., ::2] = 200  # would alias to any grey when shrunk by picking pixels
    folder = write_volume(tmp_path, "a.h5", stripes)
    config = dataclasses.replace(PLAIN, crops=((16, 8, 1.0),), zoom=1.0)
    images = torch.cat([CropSampler(folder, config, seed=0, complex_=False).batch(k) for k in range(8)])
    assert images.shape == (64, 1, 16, 16)
    contrast = images.flatten(1).std(1) * 255
    # nothing is left of stripes shrunk to half; unshrunk ones have a standard deviation of 100, and none is above
    assert float(contrast.min()) < 40 and float(contrast.max()) <= 101
    assert float((images.mean((1, 2, 3)) * 255 - 100).abs().max()) < 10  # 100 in the mean, borders apart


def test_gain_and_gamma_vary_as_stated(tmp_path: Path) -> None:
    """The log of value = 0.2^exp(gamma n) exp(gain n') has a known mean and spread."""
    config = ImagesConfig(crops=((4, 500, 1.0),), gain=0.1, gamma=0.05, phase=0.0)
    folder = write_volume(tmp_path, "a.h5", np.full((2, 8, 8), 51, np.uint8))
    values = CropSampler(folder, config, seed=0, complex_=False).batch(0)[:, 0, 0, 0].log()
    spread = math.hypot(0.1, 0.05 * math.log(0.2))  # first order in gamma; the second adds 0.1 %
    # 500 draws: 0.006 for the mean, 3 % for the spread
    assert abs(float(values.mean()) - math.log(0.2)) < 0.025
    assert abs(float(values.std()) / spread - 1) < 0.1


def test_all_eight_orientations_are_drawn(tmp_path: Path) -> None:
    volume = np.arange(100, 116, dtype=np.uint8).reshape(1, 4, 4)
    config = ImagesConfig(crops=((4, 200, 1.0),), gain=0.0, gamma=0.0)
    batch = CropSampler(write_volume(tmp_path, "a.h5", volume), config, seed=0, complex_=False).batch(0)
    found = {tuple((255 * image).round().int().flatten().tolist()) for image in batch}
    turned = [np.rot90(v, k) for v in (volume[0], volume[0].T) for k in range(4)]
    assert found == {tuple(v.flatten().tolist()) for v in turned}


@pytest.mark.parametrize("side", [1, 15, 16, 33])
def test_crops_larger_than_the_volume_are_padded_with_air(tmp_path: Path, side: int) -> None:
    folder = write_volume(tmp_path, "a.h5", np.full((1, 10, 7), 255, np.uint8))
    config = ImagesConfig(crops=((side, 3, 1.0),), gain=0.0, gamma=0.0)
    batch = CropSampler(folder, config, seed=0, complex_=False).batch(0)
    assert batch.shape == (3, 1, side, side)
    assert batch.sum(dim=(1, 2, 3)).tolist() == [min(side, 10) * min(side, 7)] * 3


def test_first_matching_weight_counts(tmp_path: Path) -> None:
    for name, grey in (("a_t1.h5", 51), ("a_t2.h5", 102), ("b_t1.h5", 204)):
        write_volume(tmp_path, name, np.full((1, 4, 4), grey, np.uint8))
    config = ImagesConfig({"a_t1*": 0.0, "a_*": 3.0}, ((4, 400, 1.0),), gain=0.0, gamma=0.0)
    values = CropSampler(tmp_path, config, seed=0, complex_=False).batch(0)[:, 0, 0, 0]
    shares = [float((values == grey / 255).float().mean()) for grey in (51, 102, 204)]
    assert shares[0] == 0 and shares[1] + shares[2] == 1
    assert abs(shares[1] - 0.75) < 0.08  # 3 to the 1 of no match; 400 draws scatter by 0.022


def test_mere_air_is_rare(tmp_path: Path) -> None:
    volume = np.zeros((1, 64, 64), np.uint8)
    volume[:, :16, :16] = 200
    config = ImagesConfig(crops=((8, 400, 1.0),))
    batch = CropSampler(write_volume(tmp_path, "a.h5", volume), config, seed=0, complex_=False).batch(0)
    share = float((batch.amax(dim=(1, 2, 3)) > 0).float().mean())
    # a blind draw sees the bright square in 8 % of the crops; with air kept once in ten, in 45 %
    assert 0.3 < share < 0.6


@pytest.mark.parametrize("side", [1, 2, 31, 64, 161, 400])
def test_phase_has_the_asked_size_and_is_smooth(side: int) -> None:
    for seed in range(20):
        phase = smooth_phase(rng(seed), side, 2.5)
        assert phase.shape == (side, side) and phase.dtype == np.float32
        assert np.isfinite(phase).all()
        for axis in (0, 1):
            # knots 24 pixels apart or more, each of at most 2.5 radians standard deviation: a step of 4 standard
            # deviations of their difference, steepest in its middle, is 1.5 * 14 / 24 per pixel
            assert np.abs(np.diff(phase, axis=axis)).max(initial=0) < 0.9
            # a cubic bends by at most 6 / 24^2 of that step per pixel squared, and kinks nowhere
            assert np.abs(np.diff(phase, 2, axis=axis)).max(initial=0) < 0.15


def test_phase_is_drawn_from_its_generator_with_its_strength() -> None:
    assert np.array_equal(smooth_phase(rng(3), 40, 2.5), smooth_phase(rng(3), 40, 2.5))
    assert not np.array_equal(smooth_phase(rng(3), 40, 2.5), smooth_phase(rng(4), 40, 2.5))
    flat = [smooth_phase(rng(seed), 40, 0.0) for seed in range(200)]
    assert all(np.ptp(phase) == 0 for phase in flat)
    offsets = np.array([phase[0, 0] for phase in flat])
    assert offsets.min() >= 0 and offsets.max() < 2 * math.pi
    assert abs(offsets.mean() - math.pi) < 0.5  # uniform over a turn: 200 draws scatter by 0.13
    bent = [np.ptp(smooth_phase(rng(seed), 160, 2.5)) for seed in range(50)]
    assert max(bent) > 3 and min(bent) < 1  # strong and weak ones
