"""The training loop: a killed run ends with the same bits, and a run that goes wrong says so."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import check_one_line
from cli_cases import CONFIG, write_training
from torch import Tensor

from inverse.errors import SamplingError
from inverse.samplers.grids import karras
from inverse.train.config import NetworkConfig, TrainConfig, load_config
from inverse.train.loop import MAX_BAD_STEPS, VALIDATION_SIGMAS, Trainer, learning_rate
from inverse.train.loss import denoising_loss, draw_sigma
from inverse.train.pictures import DRAW_STEPS, curve_figure, draw, draw_pictures

STEPS = 11  # reports after 3, 6, 9 and at the end; the variance starts at step 3, the cooldown at 9


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_training(tmp_path)[1]


def make_trainer(data: Path, out: Path, **changes: Any) -> Trainer:
    config = dataclasses.replace(load_config(data.parent / "tiny.toml"), **{"steps": STEPS, **changes})
    return Trainer(config, data, out)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    state = {f"network.{k}": v.clone() for k, v in trainer.network.state_dict().items()}
    return state | {f"average.{k}": v.clone() for k, v in trainer.average.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def curve(out: Path) -> dict[tuple[int, float], str]:
    """The last entry for each step and noise level."""
    with (out / "curve.csv").open(newline="") as file:
        return {(int(r["step"]), float(r["sigma"])): r["relative_rmse"] for r in csv.DictReader(file)}


def test_run_stopped_at_any_step_and_resumed_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    whole = make_trainer(data, tmp_path / "whole")
    whole.run()
    expected = whole.checkpoint.read_bytes()
    for stop in (2, 6, 10):  # before, at and after a report
        out = tmp_path / f"stopped at {stop}"
        make_trainer(data, out).run(stop=stop)  # what it did since its last report is lost
        again = make_trainer(data, out)
        again.resume()
        assert again.step == stop // 3 * 3
        again.run()
        assert again.checkpoint.read_bytes() == expected, stop
        assert same(weights(again), weights(whole)), stop
        assert curve(out) == curve(tmp_path / "whole"), stop


def test_kill_while_saving_leaves_the_previous_checkpoint(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    trainer = make_trainer(data, tmp_path / "run")
    trainer.run(stop=3)
    before = trainer.checkpoint.read_bytes()

    def killed(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr("inverse.train.loop.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop=6)
    monkeypatch.undo()
    assert trainer.checkpoint.read_bytes() == before
    again = make_trainer(data, tmp_path / "run")
    again.resume()
    assert again.step == 3


KILLED = """
import sys, time, torch
from inverse.train.config import load_config
from inverse.train.loop import Trainer
config, data, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
trainer = Trainer(load_config(config), data, out)
trainer.resume()
trainer.run(on_step=lambda step, loss: time.sleep(0.03))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="sends a POSIX signal")
def test_killed_process_resumes_with_the_same_bits(tmp_path: Path) -> None:
    text = CONFIG.replace("steps = 6", "steps = 60").replace("report_every = 3", "report_every = 7")
    config, data = write_training(tmp_path, text)
    whole = Trainer(load_config(config), data, tmp_path / "whole")
    whole.run()
    out = tmp_path / "killed"
    arguments = [config, data, out, torch.get_num_threads()]
    for least in (7, 28):  # a kill some steps after the first report that a process makes beyond this step
        command = [sys.executable, "-c", KILLED, *(os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments)]
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                if (out / "curve.csv").exists() and max((s for s, _ in curve(out)), default=0) > least:
                    break
                time.sleep(0.01)
            time.sleep(0.1)  # somewhere between two reports
            process.kill()
        assert process.returncode == -signal.SIGKILL  # it had not come to its end
    last = Trainer(load_config(config), data, out)
    last.resume()
    assert 35 <= last.step < 60
    last.run()
    assert last.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_same_configuration_gives_the_same_bits_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    runs = [make_trainer(data, tmp_path / str(k), seed=seed) for k, seed in enumerate((5, 5, 6))]
    for trainer in runs:
        trainer.run(stop=4)
    first, second, other = (weights(trainer) for trainer in runs)
    assert same(first, second)
    assert not same(first, other)


def test_training_leaves_the_random_state_alone(data: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    trainer = make_trainer(data, tmp_path / "run")
    trainer.run(stop=3)
    draw(trainer, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_loss_falls_and_the_averaged_network_learns(data: Path, tmp_path: Path) -> None:
    plan = {"steps": 120, "cooldown": 40, "learning_rate": 1e-3, "report_every": 120, "variance_start": 120}
    trainer = make_trainer(data, tmp_path / "run", **plan)
    before, losses = trainer.validate(), []
    trainer.run(on_step=lambda step, loss: losses.append(loss))
    after = trainer.validate()
    assert len(losses) == 120
    # measured 0.45 to 0.65 over three seeds: a mean over 20 batches of two crops is noisy
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    for sigma, share in ((0.1, 0.9), (0.3, 0.8), (1.0, 0.85)):
        # measured 0.74 to 0.77, 0.51 to 0.54, 0.68 to 0.72 of the untrained error over three seeds
        assert after[sigma] < share * before[sigma], (sigma, before[sigma], after[sigma])


def test_validation_looks_at_the_average(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path / "run")
    trainer.run(stop=2)
    before = trainer.validate()
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.zero_()
    assert trainer.validate() == before
    with torch.no_grad():
        for parameter in trainer.average.parameters():
            parameter.zero_()
    assert trainer.validate() != before


def test_untrained_network_validates_as_the_best_linear_denoiser(data: Path, tmp_path: Path) -> None:
    """D = s^2/(sigma^2 + s^2) x keeps the noise far below s and the image not at all far above."""
    errors = make_trainer(data, tmp_path / "run").validate()
    assert tuple(errors) == VALIDATION_SIGMAS
    # 5 %: at sigma = 0.01, s = 0.2 the weight is 0.9975, which moves an image of 1 by 0.0025; 4096 values, 1.1 %
    assert abs(errors[0.01] - 1) < 0.05
    assert errors[10.0] < 0.1  # images of at most 1.3 per component, over sigma


def test_average_follows_with_a_short_memory_at_first(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path / "run", ema=0.9)
    for step, decay in ((0, 1 / 10), (1, 2 / 11), (80, 81 / 90), (81, 0.9), (10_000, 0.9)):
        with torch.no_grad():
            for parameter in trainer.network.parameters():
                parameter.fill_(3.0)
            for parameter in trainer.average.parameters():
                parameter.fill_(1.0)
        trainer.step = step
        trainer._update_average()
        expected = torch.lerp(torch.tensor(1.0), torch.tensor(3.0), 1 - decay)
        assert all(bool((p == expected).all()) for p in trainer.average.parameters()), step
        assert all(bool((p == 3).all()) for p in trainer.network.parameters())


def make_config(**changes: Any) -> TrainConfig:
    return TrainConfig(name="tiny", **{"steps": 100, "warmup": 10, "cooldown": 40, "learning_rate": 0.5, **changes})


def test_learning_rate_rises_stays_and_falls() -> None:
    config = make_config()
    assert [learning_rate(config, k) for k in (0, 4, 9, 10, 59, 60)] == [0.05, 0.25, 0.5, 0.5, 0.5, 0.5]
    assert [learning_rate(config, k) for k in (61, 80, 99, 100)] == [0.5 * 39 / 40, 0.25, 0.5 / 40, 0.0]
    assert learning_rate(make_config(warmup=0, cooldown=0), 0) == 0.5


def test_longer_run_shares_its_history_up_to_the_cooldown(data: Path, tmp_path: Path) -> None:
    short, long = make_config(), make_config(steps=1000)
    assert all(learning_rate(short, k) == learning_rate(long, k) for k in range(61))
    assert learning_rate(short, 61) < learning_rate(long, 61)
    runs = [make_trainer(data, tmp_path / str(steps), steps=steps, cooldown=2) for steps in (8, 20)]
    for trainer in runs:
        trainer.run(stop=7)  # step 6 is the first of the cooldown, still at the full rate
    assert same(*(weights(trainer) for trainer in runs))
    for trainer in runs:
        trainer.run(stop=8)
    assert not same(*(weights(trainer) for trainer in runs))


def test_learning_rate_reaches_the_optimiser(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path / "run", warmup=10**9)
    before = weights(trainer)
    trainer.run(stop=2)
    # a rate of 1e-12, 20 times that for convolutions: a step of any optimiser moves a weight by about that much
    assert all(torch.allclose(v, before[k], rtol=0, atol=1e-9) for k, v in weights(trainer).items())


class Spoilt:
    """Batches of NaN at some steps."""

    def __init__(self, batch: Callable[[int], Tensor], bad: set[int]):
        self.good, self.bad = batch, bad

    def batch(self, step: int) -> Tensor:
        return self.good(step) * (float("nan") if step in self.bad else 1)


def spoil(trainer: Trainer, bad: set[int]) -> None:
    trainer.images = Spoilt(trainer.images.batch, bad)  # type: ignore[assignment]


def test_ten_bad_batches_in_a_row_stop_the_run(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path / "run", steps=40)
    spoil(trainer, set(range(2, 40)))
    trainer.run(stop=2)
    before = weights(trainer)["network.unet.inlet.weight"]
    check_one_line(trainer.run, "10 batches", f"step {1 + MAX_BAD_STEPS}", "checkpoint", error=SamplingError)
    assert torch.equal(weights(trainer)["network.unet.inlet.weight"], before)  # no bad step was taken


def test_a_good_batch_in_between_lets_the_run_go_on(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path / "run", steps=19, report_every=19)
    spoil(trainer, set(range(19)) - {9})
    trainer.run()
    assert trainer.step == 19
    assert all(bool(torch.isfinite(v).all()) for v in weights(trainer).values())


def test_bad_batches_are_counted_across_a_resume(data: Path, tmp_path: Path) -> None:
    first = make_trainer(data, tmp_path / "run", steps=40)
    spoil(first, set(range(40)))
    first.run(stop=6)
    again = make_trainer(data, tmp_path / "run", steps=40)
    again.resume()
    spoil(again, set(range(40)))
    check_one_line(again.run, "step 9", error=SamplingError)


def test_checkpoint_of_another_network_is_refused(data: Path, tmp_path: Path) -> None:
    make_trainer(data, tmp_path / "run").run(stop=3)
    other = make_trainer(data, tmp_path / "run", network=NetworkConfig(2, (8, 16), (1, 1)))
    check_one_line(other.resume, "checkpoint.safetensors", "another network")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_checkpoint_is_refused_in_one_line(data: Path, tmp_path: Path, share: float) -> None:
    trainer = make_trainer(data, tmp_path / "run")
    trainer.run(stop=3)
    whole = trainer.checkpoint.read_bytes()
    trainer.checkpoint.write_bytes(whole[: int(share * len(whole))])
    check_one_line(make_trainer(data, tmp_path / "run").resume, "checkpoint.safetensors", "cannot be read", "delete")


def test_nothing_to_resume_starts_at_the_beginning(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path / "never")
    trainer.resume()
    assert trainer.step == 0
    assert not (tmp_path / "never").exists()


def test_noise_levels_have_the_stated_distribution() -> None:
    normal = draw_sigma(make_config(uniform=0.0), 100_000, torch.Generator().manual_seed(0)).log()
    # 100000 draws scatter by 0.0044; the range, (-6.2, 3.0) = -1.4 -+ 3.1 and 3.4 standard deviations, cuts off little
    assert abs(float(normal.mean()) + 1.4) < 0.02 and abs(float(normal.std()) - 1.4) < 0.02
    flat = draw_sigma(make_config(uniform=1.0), 100_000, torch.Generator().manual_seed(0)).log()
    low, high = torch.tensor([0.002, 20.0]).log()
    assert bool((flat >= low - 1e-6).all()) and bool((flat <= high + 1e-6).all())
    assert abs(float(flat.mean() - (low + high) / 2)) < 0.03  # standard error 0.008
    assert abs(float(flat.std() - (high - low) / 12**0.5)) < 0.03


def test_loss_of_the_mean_is_weighted_to_be_even_over_noise_levels(data: Path, tmp_path: Path) -> None:
    """Untrained, x0 = 0: w |D|^2 = n^2 s^2/(sigma^2 + s^2), worked out by hand."""
    network = make_trainer(data, tmp_path / "run").network
    noise = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.01, 0.2, 5.0])
    mean, variance = denoising_loss(network, torch.zeros_like(noise), sigma, noise, variance=False)
    expected = (noise**2 * (0.04 / (sigma**2 + 0.04)).reshape(3, 1, 1, 1)).mean()
    assert float(mean.detach()) == pytest.approx(float(expected), rel=1e-5)  # single precision
    assert float(variance) == 0


def test_curve_and_pictures_are_written(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trainer = make_trainer(data, out)
    trainer.run()
    assert {step for step, _ in curve(out)} == {3, 6, 9, 11}
    assert {sigma for _, sigma in curve(out)} == set(VALIDATION_SIGMAS)
    assert all(float(value) > 0 for value in curve(out).values())
    assert draw_pictures(trainer) == [out / "curve.png", out / "samples.png"]
    first = {p.name: p.read_bytes() for p in out.glob("*.png")}
    assert all(content.startswith(b"\x89PNG") for content in first.values())
    draw_pictures(trainer)
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == first
    names = {"checkpoint.safetensors", "curve.csv", "curve.png", "samples.png"}
    assert {p.name for p in out.iterdir()} == names


def test_curve_shows_a_repeated_step_once(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,sigma,relative_rmse\n3,0.1,0.9\n6,0.1,0.8\n6,0.1,0.7\n9,0.1,0.6\n")
    (line,) = curve_figure(path).axes[0].lines
    assert line.get_xydata().tolist() == [[3, 0.9], [6, 0.7], [9, 0.6]]


def test_pictures_of_real_images_without_a_curve(data: Path, tmp_path: Path) -> None:
    trainer = make_trainer(data, tmp_path, network=NetworkConfig(1, (8,), (1,)))
    assert draw_pictures(trainer) == [tmp_path / "samples.png"]
    gone = make_trainer(data, tmp_path / "gone", network=NetworkConfig(1, (8,), (1,)))
    check_one_line(lambda: draw_pictures(gone), "does not exist")


def test_samples_of_a_linear_denoiser_have_the_power_of_its_chain(data: Path, tmp_path: Path) -> None:
    """Untrained, D = s^2/(sigma^2 + s^2) x: the variance of the chain is a recursion in numbers."""
    trainer = make_trainer(data, tmp_path)
    images = draw(trainer, 2)
    assert torch.equal(images, draw(trainer, 2))
    levels = karras(DRAW_STEPS, 25 * 0.2, 0.02 * 0.2).tolist()
    variance = levels[0] ** 2
    for sigma, lower in pairwise(levels):
        share, kept = 0.04 / (sigma**2 + 0.04), lower**2 / sigma**2
        variance = (share + kept * (1 - share)) ** 2 * variance + lower**2 - lower**4 / sigma**2
    # 1 %: 36864 values scatter by 0.4 %
    assert abs(float(images.std()) / variance**0.5 - 1) < 0.01
    assert 0.8 < variance**0.5 / 0.2 < 1  # 30 ancestral steps leave out the spread of x0 given x
    assert abs(float(images.mean())) < 0.004  # 36864 values of 0.2 scatter by 0.001
