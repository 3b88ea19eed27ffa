"""The training configuration: one TOML file says everything about a run."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inverse.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network, see `inverse.priors.network.DenoisingNetwork`."""

    channels: int = 2
    widths: tuple[int, ...] = (64, 96, 192)
    depths: tuple[int, ...] = (2, 3, 4)


@dataclass(frozen=True)
class ImagesConfig:
    """Which images, how often each file is drawn, and how crops are varied.

    `weights` maps a glob on file names to the weight of each matching file; the first match counts, no match is 1.
    `crops` lists (side, images per batch, share of the steps).
    """

    weights: dict[str, float] = field(default_factory=dict)
    crops: tuple[tuple[int, int, float], ...] = ((64, 12, 1.0),)
    gain: float = 0.12
    gamma: float = 0.15
    phase: float = 2.5


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run.

    Noise levels: log sigma normal with (`log_sigma_mean`, `log_sigma_std`), a share `uniform` log-uniform over the whole
    range instead. The learning rate warms up, stays, and falls linearly to zero over the last `cooldown` steps, so that
    a longer run shares its history with a shorter one up to the cooldown.
    """

    name: str
    steps: int
    seed: int = 0
    data_std: float = 0.2
    sigma_min: float = 0.002
    sigma_max: float = 20.0
    log_sigma_mean: float = -1.4
    log_sigma_std: float = 1.4
    uniform: float = 0.2
    learning_rate: float = 1e-3
    warmup: int = 500
    cooldown: int = 5000
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    variance_start: int = 2000
    report_every: int = 500
    network: NetworkConfig = field(default_factory=NetworkConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)


def load_config(path: str | Path) -> TrainConfig:
    """Read a TOML file into a `TrainConfig`.

    Args:
        path: the file.

    Raises:
        InputError: not readable, not TOML, an unknown or missing key, a value out of range.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a training config.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML ({error}); see the shipped configs for the form.") from error
    for section, kind in (("network", NetworkConfig), ("images", ImagesConfig)):
        if section in raw:
            raw[section] = _build(kind, raw[section], f"{path} [{section}]")
    config = _build(TrainConfig, raw, str(path))
    if config.steps < 1 or not 0 < config.sigma_min < config.sigma_max or config.learning_rate <= 0:
        raise InputError(f"{path}: steps, sigma range and learning_rate must be positive; correct the file.")
    return config


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(known)}.")
    missing = [
        n
        for n, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and n not in values
    ]
    if missing:
        raise InputError(f"{where}: key {missing[0]!r} is missing; add it.")
    return kind(**{k: _tuples(v) for k, v in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
