"""What the commands do: files and options in, the library's functions called in order, text and files out."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from inverse import plot, report
from inverse.acquisition import acquire
from inverse.calibrate import calibrate
from inverse.data import sample_path
from inverse.errors import InputError
from inverse.measurement import Measurement
from inverse.priors.files import load, load_prior, save_prior, shipped
from inverse.progress import progress
from inverse.reconstruct import Reconstruction, reconstruct, save
from inverse.samplers.methods import choose
from inverse.tomogram import is_sinogram, tomogram
from inverse.train.config import ImagesConfig, TrainConfig, load_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEMO_SLICE = 1
DEMO_RUNS = (("DDS", "dds", 20, 4), ("learned covariance", "learned-covariance", 16, 8))
"""Title, method, evaluations, samples: about a minute and a half on two CPU cores."""
PICTURES_EVERY = 4  # reports
MR_PRIOR, CT_PRIOR = "brain-mr", "body-ct"
CALIBRATION = 24  # lines that coil maps are made from


def run_demo(out: Path, *, prior: str, seed: int, device: str) -> None:
    """Reconstruct the shipped scan by several methods; see `inverse demo --help`."""
    where = _device(device)
    network = load(prior, device=where)
    data = acquire(sample_path(), slices=DEMO_SLICE, device=where)
    network.check_image(data.operator(0).in_shape, data.kspace.dtype)
    _folder(out)
    data = data.settled(network)
    click.echo(report.describe(data, network, where))
    found = []
    for title, method, steps, samples in DEMO_RUNS:
        sampler, _ = choose(method, network)
        found.append(reconstruct(data, network, sampler.with_steps(steps), name=title, samples=samples, seed=seed))
    best = found[-1]
    figure = out / "demo.png"
    plot.save_figure(_figure(data, found, 0), figure)
    written = [figure, *save(best, data, out, "demo")]
    _finish(data, found, written)


def run_solve(
    file: Path,
    out: Path,
    *,
    prior: str,
    method: str,
    samples: int,
    steps: int | None,
    slices: str,
    batch: int | None,
    save_samples: bool,
    seed: int,
    device: str,
    **scan: Any,
) -> None:
    """Reconstruct the user's file; see `inverse solve --help`. All input is checked before the folder is made."""
    where = _device(device)
    projections = is_sinogram(file)
    network = load(_prior_for(prior, projections), device=where)
    sampler, _ = choose(method, network)
    sampler = sampler if steps is None else sampler.with_steps(steps)
    if samples < 1 or (batch is not None and batch < 1):
        raise InputError(f"samples and batch: expected at least 1, got {samples} and {batch}.")
    data = _read(file, projections, where, slices=_slices(slices), **scan)
    network.check_image(data.operator(0).in_shape, data.operator(0).in_dtype)
    stem = file.name.removesuffix(".h5").removesuffix(".hdf5")
    if (out / f"{stem}.h5").resolve() == file.resolve():
        raise InputError(f"--out {out}: would replace the input {file}; choose another folder.")
    _folder(out)
    data = data.settled(network)
    click.echo(report.describe(data, network, where))
    title = _title(method)
    result = reconstruct(data, network, sampler, name=title, samples=samples, seed=seed, batch=batch)
    picture = out / f"{stem}.png"
    written = save(result, data, out, stem, samples=save_samples)
    plot.save_figure(_figure(data, [result], len(data.data) // 2), picture)
    _finish(data, [result], [*written, picture])


def _prior_for(name: str, projections: bool) -> str:
    if name == "auto":
        return CT_PRIOR if projections else MR_PRIOR
    return name


def _read(
    file: Path,
    projections: bool,
    device: torch.device,
    *,
    slices: int | slice | None,
    noise: float | None,
    maps_calibration: int | None,
    photons: float | None,
    spacing: float | None,
    pixel: float | None,
) -> Measurement:
    """The scan; options of the other modality are refused."""
    given = {"--noise": noise, "--maps-calibration": maps_calibration} if projections else {}
    given |= {} if projections else {"--photons": photons, "--spacing": spacing, "--pixel": pixel}
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        kind = "projections" if projections else "k-space"
        raise InputError(f"{wrong[0]}: does not apply to {file}, which holds {kind}; leave it out.")
    if projections:
        return tomogram(file, slices=slices, photons=photons, spacing=spacing, pixel=pixel, device=device)
    calibration = CALIBRATION if maps_calibration is None else maps_calibration
    return acquire(file, slices=slices, noise=noise, calibration=calibration, device=device)


def run_train(config: str, data: Path, out: Path, *, threads: int | None, device: str) -> None:
    """Train, or continue; see `inverse train --help`."""
    from inverse.train.loop import Trainer
    from inverse.train.pictures import draw_pictures

    settings = _config(config)
    where = _device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    trainer = Trainer(settings, data, out, where)
    _folder(out)
    trainer.resume()
    if trainer.step:
        click.echo(f"continuing at step {trainer.step} of {settings.steps}")
    every = PICTURES_EVERY * settings.report_every
    smooth = [float("nan")]
    with progress(f"train {settings.name}", settings.steps - trainer.step, True) as bar:

        def on_step(step: int, loss: float) -> None:
            smooth[0] = loss if smooth[0] != smooth[0] else 0.98 * smooth[0] + 0.02 * loss
            bar.advance(1, f"step {step}, loss {smooth[0]:.4f}")

        while trainer.step < settings.steps:
            trainer.run(stop=(trainer.step // every + 1) * every, on_step=on_step)
            draw_pictures(trainer)
    pictures = draw_pictures(trainer)
    prior = out / f"{settings.name}.safetensors"
    save_prior(prior, trainer.average, prior_facts(settings), None)
    click.echo(report.files([prior, *pictures, out / "curve.csv"]))
    click.echo(f"\nNext: inverse calibrate {prior} --data {data} --config {config}")


def run_calibrate(
    prior: Path, data: Path, *, config: str | None, images: int, side: int, seed: int, device: str
) -> None:
    """Measure error tables and store them in the prior's file; see `inverse calibrate --help`."""
    from inverse.train.images import CropSampler

    where = _device(device)
    network = load_prior(prior, device=where)
    folder = data / "train" if (data / "train").is_dir() else data
    shape = _config(config).images if config else ImagesConfig()
    count = min(8, images)
    shape = ImagesConfig(shape.weights, ((side, count, 1.0),), shape.gain, shape.gamma, shape.phase)
    complex_ = network.channels == 2
    crops = CropSampler(folder, shape, seed=seed, complex_=complex_)
    batches = []
    for step in range(-(-images // count)):
        batch = crops.batch(step)
        batch = torch.view_as_complex(batch.movedim(1, -1).contiguous()) if complex_ else batch[:, 0]
        batches.append(batch.to(where))
    tables = calibrate(network, batches, seed=seed, show=True)
    save_prior(prior, network.network, network.facts, tables)
    levels = range(0, len(tables.sigma), 4)
    rows = [(f"{tables.sigma[k]:.4g}", f"{float(tables.mse[k]) ** 0.5 / float(tables.sigma[k]):.3f}") for k in levels]
    click.echo(report.table(("sigma", "error / sigma"), rows))
    click.echo("\n" + report.files([prior]))


def list_priors() -> None:
    """Names, sizes and the first paragraphs of the cards of the shipped priors."""
    names = shipped()
    if not names:
        click.echo("No priors are shipped with this installation; train one with `inverse train`.")
    folder = resources.files("inverse.priors") / "weights"
    for name in names:
        click.echo(f"{name}: {load(name)!r}")
        card = folder / f"{name}.md"
        if card.is_file():
            paragraphs = card.read_text(encoding="utf-8").split("\n\n")
            about = next((text for text in paragraphs if not text.startswith("#")), "")
            click.echo(report.facts([("", " ".join(about.split()))]))


def prior_facts(config: TrainConfig) -> dict:
    """The facts that `save_prior` stores beside the weights of a trained network."""
    shape = config.network
    network = {"channels": shape.channels, "widths": shape.widths, "depths": shape.depths, "data_std": config.data_std}
    facts = {"name": config.name, "sigma_min": config.sigma_min, "sigma_max": config.sigma_max, "network": network}
    return facts if config.unit is None else {**facts, "unit": config.unit}


def _figure(data: Measurement, found: list[Reconstruction], index: int) -> Figure:
    """Quick images, every method, error bar of the last one, reference if there is one."""
    images = list(data.quick_images)
    images += [(result.method[0].upper() + result.method[1:], result.mean) for result in found]
    items = [plot.Panel(title, image[index], report.caption(data, image, index)) for title, image in images]
    spread = found[-1].std
    if spread is not None:
        items.append(plot.Panel("Error bar", spread[index], error_bar=True))
    if data.reference is not None:
        items.append(plot.Panel("Reference", data.reference[index], data.reference_title))
    return plot.panels(items, window=data.window, columns=2 if len(items) == 4 else 3)


def _finish(data: Measurement, found: list[Reconstruction], written: list[Path]) -> None:
    parts = (report.results(data, found), report.remarks(data, found[-1]), report.files(written))
    click.echo("\n" + "\n\n".join(part for part in parts if part))


def _title(method: str) -> str:
    name = "learned covariance" if method == "auto" else method.replace("-", " ")
    return "DDS" + name[3:] if name.startswith("dds") else name


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: unknown; use auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device {name}: not available on this computer; use auto or cpu.")
    return device


def _slices(text: str) -> int | slice | None:
    """ "all", one index, or start:stop[:step]."""
    if text == "all":
        return None
    try:
        parts = [int(part) if part else None for part in text.split(":")]
        if len(parts) == 1 and parts[0] is not None:
            return parts[0]
        if 2 <= len(parts) <= 3 and (len(parts) < 3 or parts[2] is None or parts[2] > 0):
            return slice(*parts)
    except ValueError:
        pass
    raise InputError(f"--slices {text}: expected all, an index from 0, or start:stop[:step] with a positive step.")


def _config(name: str) -> TrainConfig:
    """A training configuration by path, or by the name of a shipped one."""
    configs = Path(str(resources.files("inverse.train") / "configs"))
    known = sorted(path.stem for path in configs.glob("*.toml"))
    if name in known:
        return load_config(configs / f"{name}.toml")
    if not Path(name).is_file():
        raise InputError(f"config {name}: no such file; give a TOML file or one of the shipped: {', '.join(known)}.")
    return load_config(name)


def _folder(path: Path) -> None:
    """Make the output folder and see whether it can be written, before any work is spent."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror}); choose another folder.") from error
