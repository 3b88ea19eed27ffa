"""Priors as files: weights in half precision, error tables and facts in one safetensors file (never pickle)."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inverse.errors import InputError
from inverse.priors.base import Denoiser, sigma_per_sample
from inverse.priors.calibration import Calibration
from inverse.priors.network import DenoisingNetwork

PEAK = 0.9
"""99.9th percentile of the magnitude of the training images, see `inverse.train.images`."""


class NetworkPrior(Denoiser):
    """A trained `DenoisingNetwork` as a prior, with the variance of its error per pixel.

    Args:
        network: the network.
        facts: name, sigma_min, sigma_max, unit if it has one, and the shape of the network, as stored in its file.
        calibration: measured error tables.
        precision: "auto" computes convolutions in bfloat16 where the hardware does, "float32" never.
    """

    def __init__(
        self, network: DenoisingNetwork, facts: dict, calibration: Calibration | None = None, precision: str = "auto"
    ):
        self.network = network.eval().requires_grad_(False).channels_last()
        self.facts, self.calibration, self.precision = facts, calibration, precision
        self.channels, self.data_std = network.channels, network.data_std
        self.sigma_min, self.sigma_max = float(facts["sigma_min"]), float(facts["sigma_max"])
        self.name, self.unit = str(facts["name"]), facts.get("unit")
        self.peak = PEAK if self.unit is None else None

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.network.parameters()) / 1e6
        return f"NetworkPrior({self.name!r}, {parameters:.1f} M parameters, channels={self.channels})"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> NetworkPrior:
        """The same prior with its weights on `device`."""
        if torch.device(device) == self.device:
            return self
        network = copy.deepcopy(self.network).to(device)
        return NetworkPrior(network, self.facts, self.calibration, self.precision)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x] for images (*batch, H, W) or (*batch, C, H, W)."""
        return self._call(x, sigma, variance=False)[0]

    def moments(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x] and its expected squared error per pixel and real component, (*batch, H, W)."""
        mean, variance = self._call(x, sigma, variance=True)
        assert variance is not None
        return mean, variance

    def _call(self, x: Tensor, sigma: float | Tensor, *, variance: bool) -> tuple[Tensor, Tensor | None]:
        images = _as_channels(x, self.channels)
        level = sigma_per_sample(sigma, images).float()
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self._half(images.device)):
            mean, log_variance = self.network(images, level, variance=variance)
        mean = _as_images(mean.float(), x)
        if log_variance is None:
            return mean, None
        return mean, log_variance.float().exp().reshape(*x.shape[: x.ndim - 2 - (self.channels > 2)], *x.shape[-2:])

    def _half(self, device: torch.device) -> bool:
        if self.precision == "float32":
            return False
        return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def save_prior(path: str | Path, network: DenoisingNetwork, facts: dict, calibration: Calibration | None) -> None:
    """Write weights (float16), facts (JSON in the header) and error tables (float32) to one file.

    Args:
        path: the file to write.
        network: the network.
        facts: name, sigma_min, sigma_max and `network`, the arguments of `DenoisingNetwork`.
        calibration: error tables, or None.

    Raises:
        InputError: the folder cannot be written.
    """
    path = Path(path)
    tensors = {f"network.{k}": v.detach().half().cpu().contiguous() for k, v in network.state_dict().items()}
    if calibration is not None:
        for key in ("sigma", "mse", "power", "rows", "columns"):
            table = getattr(calibration, key)
            if table is not None:
                single = torch.complex64 if table.is_complex() else torch.float32
                tensors[f"calibration.{key}"] = table.to("cpu", single).contiguous()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary, metadata={"inverse.prior": json.dumps(facts)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be written ({error}); choose a folder that can.") from error
    finally:
        with contextlib.suppress(OSError):  # where a file stands in the place of the folder
            temporary.unlink(missing_ok=True)


def load_prior(path: str | Path, *, device: torch.device | str = "cpu", precision: str = "auto") -> NetworkPrior:
    """Read a prior from a file written by `save_prior`.

    Args:
        path: the file.
        device: where the weights go.
        precision: "auto" or "float32", see `NetworkPrior`.

    Raises:
        InputError: missing, truncated, or not a prior.
    """
    path = Path(path)
    if precision not in ("auto", "float32"):
        raise InputError(f"precision: expected 'auto' or 'float32', got {precision!r}.")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["inverse.prior"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and then replaced
            network = DenoisingNetwork(**facts["network"])
        network.load_state_dict({k.removeprefix("network."): v.float() for k, v in tensors.items() if "network." in k})
        calibration = None
        if "calibration.sigma" in tensors:
            tables = (tensors[f"calibration.{key}"] for key in ("sigma", "mse", "power"))
            calibration = Calibration(*tables, *(tensors.get(f"calibration.{key}") for key in ("rows", "columns")))
        prior = NetworkPrior(network, facts, calibration, precision)
        if not 0 < prior.sigma_min < prior.sigma_max < math.inf or not 0 < prior.data_std < math.inf:
            raise ValueError(f"sigma {prior.sigma_min} to {prior.sigma_max}, data_std {prior.data_std}")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such prior file; shipped priors are {', '.join(shipped())}.") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: not a prior of this library ({reason}); train one or fetch the file again."
        ) from error
    return prior.to(device)


def load(name: str = "brain-mr", *, device: torch.device | str = "cpu", precision: str = "auto") -> NetworkPrior:
    """A shipped prior by name, or any prior by the path of its file; works offline.

    Args:
        name: "brain-mr", "body-ct", or a path ending in .safetensors.
        device: where the weights go.
        precision: "auto" or "float32", see `NetworkPrior`.

    Raises:
        InputError: no such prior.
    """
    if name in shipped():
        return load_prior(_weights() / f"{name}.safetensors", device=device, precision=precision)
    if str(name).endswith(".safetensors"):
        return load_prior(name, device=device, precision=precision)
    raise InputError(f"prior {name!r}: not shipped; choose one of {', '.join(shipped())} or give a .safetensors file.")


def shipped() -> list[str]:
    """Names of the priors that come with the library."""
    return sorted(p.stem for p in _weights().glob("*.safetensors"))


def _weights() -> Path:
    return Path(str(resources.files("inverse.priors") / "weights"))


def _as_channels(x: Tensor, channels: int) -> Tensor:
    """Images of any batch shape as real (N, C, H, W), channels last."""
    if x.is_complex():
        x = torch.view_as_real(x).movedim(-1, -3)
    count = math.prod(x.shape[:-2] if channels == 1 else x.shape[:-3])
    images = x.float().reshape(count, channels, *x.shape[-2:])
    return images.contiguous(memory_format=torch.channels_last)


def _as_images(images: Tensor, like: Tensor) -> Tensor:
    """Undo `_as_channels`."""
    if like.is_complex():
        pairs = images.movedim(-3, -1).reshape(*like.shape, 2).to(like.dtype.to_real())
        return torch.view_as_complex(pairs.contiguous())
    return images.reshape(like.shape).to(like.dtype)
