"""Priors as files: what is saved is loaded, and every damaged file ends in one line."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import check_one_line
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from inverse.priors import files
from inverse.priors.calibration import Calibration
from inverse.priors.files import NetworkPrior, load, load_prior, save_prior, shipped
from inverse.priors.network import DenoisingNetwork

SHAPE = {"channels": 2, "widths": [8, 12], "depths": [1, 1], "data_std": 0.25}
FACTS = {"name": "tiny", "sigma_min": 0.002, "sigma_max": 20.0, "network": SHAPE}


def make_network() -> DenoisingNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenoisingNetwork(**SHAPE)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def tables() -> Calibration:
    generator = torch.Generator().manual_seed(0)
    power = torch.rand(5, 4, generator=generator) + 0.5
    return Calibration(torch.logspace(-2, 1, 5), torch.rand(5, generator=generator) + 0.1, power)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_prior(path, make_network(), FACTS, tables())
    return path


def image() -> Tensor:
    return torch.randn(2, 9, 7, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))


def test_weights_come_back_in_half_precision(saved: Path) -> None:
    before, after = make_network().state_dict(), load_prior(saved).network.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value.half().float()), key
        assert after[key].dtype == torch.float32


def test_facts_and_tables_come_back(saved: Path) -> None:
    prior, calibration = load_prior(saved), tables()
    assert (prior.name, prior.sigma_min, prior.sigma_max, prior.data_std) == ("tiny", 0.002, 20.0, 0.25)
    assert prior.channels == 2 and prior.facts == FACTS and prior.peak == files.PEAK
    assert prior.calibration is not None
    for key in ("sigma", "mse", "power"):
        assert torch.equal(getattr(prior.calibration, key), getattr(calibration, key)), key
    # at a level of the table the interpolation returns its value; 1e-5: exp(log) in single precision
    assert abs(prior.mse(float(calibration.sigma[2])) / float(calibration.mse[2]) - 1) < 1e-5
    assert "tiny" in repr(prior)


def test_learned_modes_come_back(tmp_path: Path) -> None:
    axes = (torch.linalg.qr(torch.randn(n, n, dtype=torch.complex64, generator=torch.Generator()))[0] for n in (4, 6))
    given = Calibration(tables().sigma, tables().mse, torch.rand(len(tables().sigma), 4, 6) + 0.1, *axes)
    save_prior(tmp_path / "modes.safetensors", make_network(), FACTS, given)
    read = load_prior(tmp_path / "modes.safetensors").calibration
    assert read is not None and read.rows is not None
    for key in ("power", "rows", "columns"):
        assert torch.equal(getattr(read, key), getattr(given, key)), key


def test_without_tables_the_error_is_that_of_a_gaussian(tmp_path: Path) -> None:
    save_prior(tmp_path / "bare.safetensors", make_network(), FACTS, None)
    prior = load_prior(tmp_path / "bare.safetensors")
    assert prior.calibration is None
    assert prior.mse(0.25) == pytest.approx(0.25**2 / 2)


def test_second_round_trip_is_equal_to_the_bit(saved: Path, tmp_path: Path) -> None:
    prior = load_prior(saved)
    again = tmp_path / "again.safetensors"
    save_prior(again, prior.network, prior.facts, prior.calibration)
    assert again.read_bytes() == saved.read_bytes()
    assert torch.equal(load_prior(again).denoise(image(), 0.3), prior.denoise(image(), 0.3))


def test_saved_tables_replace_those_of_the_file(saved: Path) -> None:
    prior = load_prior(saved)
    save_prior(saved, prior.network, prior.facts, None)
    assert load_prior(saved).calibration is None
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    state = torch.get_rng_state()
    load_prior(saved).to("meta")
    assert torch.equal(torch.get_rng_state(), state)


def test_full_precision_can_be_asked_for(saved: Path) -> None:
    exact, auto = load_prior(saved, precision="float32"), load_prior(saved)
    assert (exact.precision, auto.precision) == ("float32", "auto")
    with torch.no_grad():
        x = torch.view_as_real(image()).movedim(-1, 1).contiguous()
        mean, _ = exact.network(x, torch.full((2,), 0.3))
    # 1e-4: single precision on outputs of order 10; bfloat16 would be off by 1e-2
    assert torch.allclose(torch.view_as_real(exact.denoise(image(), 0.3)).movedim(-1, 1), mean, atol=1e-4)
    check_one_line(lambda: load_prior(saved, precision="double"), "double", "float32")


def test_moves_to_a_device_and_leaves_the_original(saved: Path) -> None:
    prior = load_prior(saved)
    assert prior.to("cpu") is prior
    moved = prior.to("meta")
    assert moved.device.type == "meta" and prior.device.type == "cpu"
    assert (moved.name, moved.facts, moved.calibration) == (prior.name, prior.facts, prior.calibration)
    assert load_prior(saved, device="meta").device.type == "meta"


@pytest.mark.gpu
def test_gives_the_same_image_on_a_gpu(saved: Path) -> None:
    prior = load_prior(saved, precision="float32")
    moved = prior.to("cuda")
    # 1e-2: convolutions in TF32 keep three digits, outputs are of order 10
    assert torch.allclose(moved.denoise(image().cuda(), 0.3).cpu(), prior.denoise(image(), 0.3), atol=1e-2)


def rewrite(
    path: Path, *, facts: Any = FACTS, change: Callable[[dict[str, Tensor]], Any] = lambda tensors: None
) -> None:
    """The same file with other facts, or with its tensors changed."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    change(tensors)
    metadata = {} if facts is None else {"inverse.prior": facts if isinstance(facts, str) else json.dumps(facts)}
    save_file(tensors, path, metadata=metadata)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in FACTS.items() if k != key}


def shrink_inlet(tensors: dict[str, Tensor]) -> None:
    tensors["network.unet.inlet.weight"] = tensors["network.unet.inlet.weight"][:4].clone()


def spoil_table(value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["calibration.mse"][1] = value

    return change


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda p: p.write_bytes(b""),
    "a few bytes": lambda p: p.write_bytes(p.read_bytes()[:6]),
    "half a header": lambda p: p.write_bytes(p.read_bytes()[:200]),
    "half the weights": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "all but a byte": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "a picture": lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "text": lambda p: p.write_text("brain"),
    "no facts": lambda p: rewrite(p, facts=None),
    "facts not JSON": lambda p: rewrite(p, facts="{name: tiny"),
    "facts not a table": lambda p: rewrite(p, facts=[1, 2]),
    "no name": lambda p: rewrite(p, facts=without("name")),
    "no sigma_min": lambda p: rewrite(p, facts=without("sigma_min")),
    "no network": lambda p: rewrite(p, facts=without("network")),
    "sigma a word": lambda p: rewrite(p, facts={**FACTS, "sigma_max": "much"}),
    "sigma negative": lambda p: rewrite(p, facts={**FACTS, "sigma_min": -1}),
    "sigma reversed": lambda p: rewrite(p, facts={**FACTS, "sigma_min": 50.0}),
    "sigma NaN": lambda p: rewrite(p, facts={**FACTS, "sigma_max": float("nan")}),
    "data_std zero": lambda p: rewrite(p, facts={**FACTS, "network": {**SHAPE, "data_std": 0}}),
    "unknown argument": lambda p: rewrite(p, facts={**FACTS, "network": {**SHAPE, "heads": 4}}),
    "wrong widths": lambda p: rewrite(p, facts={**FACTS, "network": {**SHAPE, "widths": [8, 16]}}),
    "widths a word": lambda p: rewrite(p, facts={**FACTS, "network": {**SHAPE, "widths": "wide"}}),
    "lengths differ": lambda p: rewrite(p, facts={**FACTS, "network": {**SHAPE, "depths": [1]}}),
    "weight missing": lambda p: rewrite(p, change=lambda t: t.pop("network.unet.inlet.weight")),
    "weight too small": lambda p: rewrite(p, change=shrink_inlet),
    "table missing": lambda p: rewrite(p, change=lambda t: t.pop("calibration.mse")),
    "table negative": lambda p: rewrite(p, change=spoil_table(-1.0)),
    "table infinite": lambda p: rewrite(p, change=spoil_table(float("inf"))),
    "table NaN": lambda p: rewrite(p, change=spoil_table(float("nan"))),
    "table of other size": lambda p: rewrite(p, change=lambda t: t.update({"calibration.mse": torch.ones(3)})),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_file_is_refused_in_one_line(saved: Path, name: str) -> None:
    DAMAGE[name](saved)
    check_one_line(lambda: load_prior(saved), str(saved), "not a prior")


def test_unchanged_rewrite_still_loads(saved: Path) -> None:
    """The damage above is what is refused, not the way it is done."""
    rewrite(saved)
    assert load_prior(saved).name == "tiny"


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickle_is_never_opened(tmp_path: Path, writer: str) -> None:
    path, trace = tmp_path / "evil.safetensors", tmp_path / "it ran"
    if writer == "pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    else:
        torch.save({"weights": Bomb(trace)}, path)
    check_one_line(lambda: load_prior(path), "not a prior")
    assert not trace.exists()
    if writer == "pickle":  # the trap works
        pickle.loads(path.read_bytes())
        assert trace.exists()


def test_missing_file_is_named(tmp_path: Path) -> None:
    check_one_line(lambda: load_prior(tmp_path / "no.safetensors"), "no.safetensors", "no such prior")
    check_one_line(lambda: load_prior(tmp_path), str(tmp_path), "not a prior")


def test_folder_that_cannot_be_written_is_left_clean(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.safetensors").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for place in ("missing/p.safetensors", "file/p.safetensors", "folder.safetensors"):
        check_one_line(lambda place=place: save_prior(tmp_path / place, make_network(), FACTS, None), place, "written")
    assert sorted(tmp_path.rglob("*")) == before


def test_failed_write_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(files, "save_file", disk_full)
    check_one_line(lambda: save_prior(saved, make_network(), FACTS, None), "No space left")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_unknown_name_lists_the_shipped_ones(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved.parent / "other.safetensors").write_bytes(saved.read_bytes())
    monkeypatch.setattr(files, "_weights", lambda: saved.parent)
    assert shipped() == ["other", "tiny"]
    assert load("tiny").name == "tiny"
    check_one_line(lambda: load("brain"), "'brain'", "other, tiny", ".safetensors")
    check_one_line(lambda: load_prior("nowhere.safetensors"), "other, tiny")


def test_loads_by_path(saved: Path) -> None:
    assert isinstance(load(str(saved)), NetworkPrior)
    assert isinstance(load(saved), NetworkPrior)  # type: ignore[arg-type]  # a Path is what people have at hand


@pytest.mark.skipif(not shipped(), reason="no prior is in this tree")
@pytest.mark.parametrize("name", shipped())
def test_shipped_priors_are_complete(name: str) -> None:
    prior = load(name)
    assert prior.name == name
    assert prior.calibration is not None
    assert (Path(str(files._weights())) / f"{name}.md").is_file()
