"""The training configuration: one TOML file says everything about a run."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
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
    `crops` lists (side, images per batch, share of the steps); a crop shows up to 1 + `zoom` times its side, shrunk.
    """

    weights: dict[str, float] = field(default_factory=dict)
    crops: tuple[tuple[int, int, float], ...] = ((64, 12, 1.0),)
    gain: float = 0.12
    gamma: float = 0.15
    phase: float = 2.5
    zoom: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Everything about a training run.

    `unit`: what 1 in the images is in the operator's units, see `inverse.priors.Denoiser`; None for magnitudes.
    Noise levels: log sigma normal with (`log_sigma_mean`, `log_sigma_std`), a share `uniform` log-uniform over the
    whole range instead. The learning rate warms up, stays, and falls linearly to zero over the last `cooldown` steps,
    so that a longer run shares its history with a shorter one up to the cooldown. `ratio`: learning rate of the
    convolutions over that of the rest, see `inverse.train.muon`.
    """

    name: str
    steps: int
    unit: float | None = None
    seed: int = 0
    data_std: float = 0.2
    sigma_min: float = 0.002
    sigma_max: float = 20.0
    log_sigma_mean: float = -1.4
    log_sigma_std: float = 1.4
    uniform: float = 0.2
    learning_rate: float = 1e-3
    ratio: float = 20.0
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
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a training config.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error}); see the shipped configs for the form.") from error
    for section, kind in (("network", NetworkConfig), ("images", ImagesConfig)):
        if section in raw:
            raw[section] = _build(kind, raw[section], f"{path} [{section}]")
    config = _build(TrainConfig, raw, str(path))
    if config.sigma_min >= config.sigma_max:
        raise InputError(f"{path}: expected sigma_min below sigma_max, got {config.sigma_min}, {config.sigma_max}.")
    if len(config.network.widths) != len(config.network.depths):
        raise InputError(f"{path} [network]: expected as many depths as widths, got {config.network}.")
    return config


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _crop(value: Any) -> bool:
    right = isinstance(value, tuple) and len(value) == 3 and _whole(value[0]) and _whole(value[1]) and _number(value[2])
    return right and value[0] > 0 and value[1] > 0 and value[2] > 0


_RULES: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (lambda v: isinstance(v, str) and v not in ("", ".", "..") and Path(v).name == v, "a plain name", "name"),
    (lambda v: _whole(v) and v > 0, "a whole number above 0", "steps report_every"),
    (lambda v: _whole(v) and v >= 0, "a whole number, at least 0", "seed warmup cooldown variance_start"),
    (lambda v: _number(v) and v > 0, "a number above 0", "unit data_std sigma_min sigma_max learning_rate ratio clip"),
    (lambda v: _number(v) and v >= 0, "a number, at least 0", "log_sigma_std weight_decay gain gamma phase zoom"),
    (lambda v: _number(v), "a number", "log_sigma_mean"),
    (lambda v: _number(v) and 0 <= v <= 1, "a number from 0 to 1", "uniform ema"),
    (lambda v: _whole(v) and v in (1, 2), "1 (real images) or 2 (complex images)", "channels"),
    (lambda v: isinstance(v, tuple) and len(v) > 0 and all(_whole(n) and n > 0 for n in v),
     "a list of whole numbers above 0", "widths depths"),
    (lambda v: isinstance(v, dict) and all(_number(w) and w >= 0 for w in v.values()),
     "pattern = weight, none below 0", "weights"),
    (lambda v: isinstance(v, tuple) and len(v) > 0 and all(_crop(c) for c in v),
     "a list of [side, images, share], all above 0", "crops"),
)  # fmt: skip
"""What the value of each key must be; keys separated by spaces."""


def _build(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a section of keys and values, got {values!r}.")
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
    values = {k: _tuples(v) for k, v in values.items()}
    for key, value in values.items():
        for right, expected, keys in _RULES:
            if key in keys.split() and not right(value):
                raise InputError(f"{where}: {key}: expected {expected}, got {value!r}; correct the file.")
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
