"""The training loop: one step after another, resumable after a kill at any step with the same bits."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inverse.errors import InputError, SamplingError
from inverse.priors.network import DenoisingNetwork
from inverse.train.config import TrainConfig
from inverse.train.images import CropSampler
from inverse.train.loss import denoising_loss, draw_sigma
from inverse.train.muon import Muon

VALIDATION_SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
MAX_BAD_STEPS = 10


class Trainer:
    """State of a run: network, its exponential moving average, optimiser, step number.

    Everything random in step k comes from (seed, k), and a checkpoint holds all state, so that a run that was killed
    and resumed ends with the same bits as one that was not (same device, same number of threads).

    Args:
        config: the configuration.
        data: folder with `train/` and `val/` volumes.
        out: folder for checkpoint, curve and pictures.
        device: where to train.
    """

    def __init__(self, config: TrainConfig, data: str | Path, out: str | Path, device: torch.device | str = "cpu"):
        self.config, self.out, self.device = config, Path(out), torch.device(device)
        complex_ = config.network.channels == 2
        self.images = CropSampler(Path(data) / "train", config.images, seed=config.seed, complex_=complex_)
        held_out = CropSampler(Path(data) / "val", config.images, seed=config.seed + 1, complex_=complex_)
        self.validation = [held_out.batch(k) for k in range(4)]
        self.network = build_network(config).to(self.device).channels_last()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = Muon(
            self.network.parameters(), config.learning_rate, ratio=config.ratio, weight_decay=config.weight_decay
        )
        self.step = 0
        self._bad_steps = 0

    @property
    def checkpoint(self) -> Path:
        """The file that holds the whole state."""
        return self.out / "checkpoint.safetensors"

    def run(self, *, stop: int | None = None, on_step: Callable[[int, float], None] | None = None) -> None:
        """Train until step `stop` (default: the end), saving and reporting every `report_every` steps.

        Args:
            stop: step at which to leave early.
            on_step: called with (step, loss) after each step, e.g. to move a progress bar.

        Raises:
            SamplingError: ten batches in a row gave a loss that is not finite.
        """
        stop = self.config.steps if stop is None else min(stop, self.config.steps)
        while self.step < stop:
            loss = self.train_step()
            if on_step is not None:
                on_step(self.step, loss)
            if self.step % self.config.report_every == 0 or self.step == self.config.steps:
                self.report()
                self.save()

    def train_step(self) -> float:
        """One optimiser step on batch number `step`; returns the loss of mean plus variance."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        x0 = self.images.batch(self.step)
        sigma = draw_sigma(config, len(x0), generator).to(self.device)
        noise = torch.randn(x0.shape, generator=generator).to(self.device).contiguous(memory_format=torch.channels_last)
        x0 = x0.to(self.device).contiguous(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, self.step)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            mean, variance = denoising_loss(self.network, x0, sigma, noise, variance=self.step >= config.variance_start)
        loss = mean + variance
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if torch.isfinite(norm) and torch.isfinite(loss):
            self.optimiser.step()
            self._bad_steps = 0
        else:
            self._bad_steps += 1
            if self._bad_steps >= MAX_BAD_STEPS:
                raise SamplingError(
                    f"training: {MAX_BAD_STEPS} batches in a row gave a loss that is not finite, the last at step "
                    f"{self.step}; lower learning_rate or start the variance later, and resume from {self.checkpoint}."
                )
        self._update_average()
        self.step += 1
        return float(loss.detach())

    def validate(self) -> dict[float, float]:
        """Root mean squared error over sigma of the averaged network on held-out people, per noise level."""
        result = {}
        for sigma in VALIDATION_SIGMAS:
            total, count = 0.0, 0
            for k, x0 in enumerate(self.validation):
                generator = torch.Generator().manual_seed(k)
                noisy = x0 + sigma * torch.randn(x0.shape, generator=generator)
                noisy = noisy.to(self.device).contiguous(memory_format=torch.channels_last)
                with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16):
                    mean, _ = self.average(noisy, torch.full((len(x0),), sigma, device=self.device), variance=False)
                total += float(((mean.cpu() - x0) ** 2).sum())
                count += x0.numel()
            result[sigma] = (total / count) ** 0.5 / sigma
        return result

    def report(self) -> None:
        """Append the validation errors to curve.csv."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "curve.csv"
        new = not path.exists()
        errors = self.validate()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "sigma", "relative_rmse"])
            writer.writerows([self.step, sigma, f"{error:.6f}"] for sigma, error in errors.items())

    def save(self) -> None:
        """Write the whole state; a kill while writing leaves the previous file."""
        self.out.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for prefix, module in (("network", self.network), ("average", self.average)):
            tensors |= {f"{prefix}.{k}": v.contiguous() for k, v in module.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v.contiguous() for k, v in state.items()}
        tensors["step"] = torch.tensor([self.step, self._bad_steps])
        temporary = self.checkpoint.with_suffix(".tmp")
        save_file(tensors, temporary)
        temporary.replace(self.checkpoint)

    def resume(self) -> None:
        """Continue from the checkpoint in `out`, if there is one.

        Raises:
            InputError: the checkpoint is damaged or belongs to another network.
        """
        if not self.checkpoint.exists():
            return
        try:
            tensors = load_file(self.checkpoint)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self.checkpoint}: cannot be read ({error}); delete it to start again, or put a copy of it there."
            ) from error
        try:
            for prefix, module in (("network", self.network), ("average", self.average)):
                module.load_state_dict(_strip(tensors, prefix))
        except RuntimeError as error:
            raise InputError(f"{self.checkpoint}: holds another network; choose another output folder.") from error
        parameters = list(self.network.parameters())
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _strip(tensors, "optimiser").items():
            index, name = key.split(".", 1)
            if value.ndim:  # moments in the memory layout of their parameter: the same sums, the same bits
                value = torch.empty_like(parameters[int(index)]).copy_(value)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step, self._bad_steps = (int(v) for v in tensors["step"])

    def _update_average(self) -> None:
        decay = min(self.config.ema, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)


def build_network(config: TrainConfig) -> DenoisingNetwork:
    """The network of a configuration, with weights drawn from its seed."""
    shape = config.network
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would seed the devices as well
        return DenoisingNetwork(shape.channels, shape.widths, shape.depths, config.data_std)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear fall to zero over the last `cooldown` steps."""
    rise = (step + 1) / max(1, config.warmup)
    fall = (config.steps - step) / max(1, config.cooldown)
    return config.learning_rate * min(1.0, rise, fall)


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
