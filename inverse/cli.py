"""The command line: `inverse demo`, `solve`, `train`, `calibrate`, `priors`. It parses and calls, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from inverse import __version__
from inverse.errors import InputError, SamplingError

INTERRUPTED = 130  # what shells report for a process stopped by Ctrl-C


class _Commands(click.Group):
    """A group whose failures are one line on stderr: exit code 2 for bad input, 130 for Ctrl-C."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Parse and run; on the command line (`standalone_mode`) this leaves with an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            place = getattr(error, "ctx", None)
            hint = f" Try '{place.command_path} --help'." if place is not None else ""
            click.echo(f"error: {' '.join(error.format_message().split())}{hint}", err=True)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors of input and sampling become one line."""
        try:
            return super().invoke(ctx)
        except (InputError, SamplingError) as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            hint = "; the same command continues from the last checkpoint" if ctx.invoked_subcommand == "train" else ""
            click.echo(f"interrupted{hint}", err=True)
            ctx.exit(INTERRUPTED)


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=_Commands, invoke_without_command=True, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="inverse", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Medical image reconstruction with diffusion priors.

    An image from undersampled data, with an error bar: samples of p(image | data), their mean and their spread.

    \b
    First steps
      inverse demo --out demo                 a shipped scan: picture, files, summary
      inverse solve FILE.h5 --out results     your own scan, k-space or CT projections
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_OUT = click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Output folder.")
_DEVICE = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto takes a GPU if there is one; cpu, cuda."
)
_SEED = click.option("--seed", default=0, show_default=True, help="Same seed, same samples.")
_PRIOR = click.option(
    "--prior", default="brain-mr", show_default=True, metavar="NAME", help="A shipped prior or a .safetensors file."
)


@main.command()
@_OUT
@_PRIOR
@_SEED
@_DEVICE
def demo(out: Path, prior: str, seed: int, device: str) -> None:
    """Reconstruct one slice of the shipped scan and compare methods.

    The scan: a slice of Colin27, 8 simulated coils, complex noise, every fourth line of k-space measured. Writes
    demo.png (zero-filled, CG-SENSE, DDS, learned covariance, error bar, reference) and the result as HDF5 and NIfTI.
    """
    from inverse.commands import run_demo

    run_demo(out, prior=prior, seed=seed, device=device)


@main.command()
@click.argument("file", metavar="FILE.h5", type=click.Path(path_type=Path))
@_OUT
@click.option(
    "--prior",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto: brain-mr for k-space, body-ct for projections; a shipped prior or a .safetensors file.",
)
@click.option(
    "--method", default="auto", show_default=True, metavar="NAME", help="auto, learned-covariance, dds, dds-published."
)
@click.option("--samples", default=4, show_default=True, help="Samples per slice; 2 or more give an error bar.")
@click.option("--steps", type=int, help="Network evaluations per sample.  [default: the method's own]")
@click.option(
    "--noise",
    type=float,
    help="MR: standard deviation of the noise per real component, in units of the k-space; 0: exact data.  "
    "[default: estimated]",
)
@click.option("--slices", default="all", show_default=True, metavar="RANGE", help="From 0: 7, 4:12, 0:20:5 or all.")
@click.option(
    "--maps-calibration",
    type=int,
    metavar="LINES",
    help="Largest side of the fully sampled centre that the coil maps are estimated from.  [default: 24]",
)
@click.option("--photons", type=float, help="CT: incident photons per ray.  [default: counted from rays through air]")
@click.option("--spacing", type=float, metavar="MM", help="CT: distance of detector elements.  [default: the file's]")
@click.option("--pixel", type=float, metavar="MM", help="CT: edge of a pixel.  [default: the file's, or one element]")
@click.option("--batch", type=int, help="Images per network call.  [default: from free memory]")
@click.option("--save-samples", is_flag=True, help="Store every sample in the HDF5 file.")
@_SEED
@_DEVICE
def solve(file: Path, out: Path, **options: Any) -> None:
    """Reconstruct a scan: k-space in the HDF5 layout of fastMRI, or projections of a CT.

    \b
    Read from FILE.h5, k-space
      kspace              complex (slices, coils, y, x), or (slices, y, x) for one coil
      mask                found from the zeros of the k-space where missing
      ismrmrd_header      sizes: an oversampled readout (y) is cropped
      reconstruction_rss  or _esc: PSNR and SSIM are measured against it

    \b
    Read from FILE.h5, projections
      sinogram            line integrals (slices, views, detectors), or counts
      angles              of the views, radians
      attributes          geometry: parallel, fan or fan-curved; spacing_mm, offset_mm,
                          source_distance_mm, detector_distance_mm, pixel_mm, image_shape, photons
      reconstruction_hu   PSNR and SSIM are measured against it
      or exchange/...     of Data Exchange: data, data_white, data_dark, theta

    \b
    Written to DIR, named after FILE
      FILE.h5             reconstruction (magnitude; HU for CT), std, mean (complex, MR)
      FILE.nii.gz         the reconstruction;  FILE_std.nii.gz: its error bar
      FILE.png            the middle slice
    """
    from inverse.commands import run_solve

    run_solve(file, out, **options)


@main.command()
@click.argument("config")
@click.option("--data", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Holds train/ and val/.")
@_OUT
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: as many as PyTorch takes]")
@_DEVICE
def train(config: str, data: Path, out: Path, threads: int | None, device: str) -> None:
    """Train a prior, or continue a run that was stopped.

    CONFIG is a TOML file or the name of a shipped one (brain-mr, body-ct). The folders train/ and val/ hold HDF5 files
    with a dataset `volume` (z, y, x) each, uint8 (magnitude) or int16 (HU). Writes checkpoint, curve.csv, curve.png,
    samples.png and at the end the prior, NAME.safetensors; measure its errors with `inverse calibrate` before use.
    """
    from inverse.commands import run_train

    run_train(config, data, out, threads=threads, device=device)


@main.command()
@click.argument("prior", metavar="PRIOR.safetensors", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Training volumes, or holds train/."
)
@click.option(
    "--config", metavar="CONFIG", help="Training configuration: its weights per file.  [default: all files alike]"
)
@click.option("--images", default=64, show_default=True, type=click.IntRange(min=1), help="How many crops.")
@click.option("--side", default=160, show_default=True, type=click.IntRange(min=16), help="Pixels a side of a crop.")
@_SEED
@_DEVICE
def calibrate(prior: Path, data: Path, config: str | None, images: int, side: int, seed: int, device: str) -> None:
    """Measure how wrong a prior is and store the tables in its file.

    Mean squared error and spectrum of the denoising error at 24 noise levels, on images of people it was trained on;
    the learned covariance and DDS read them. Data of people that you test on must not be used.
    """
    from inverse.commands import run_calibrate

    run_calibrate(prior, data, config=config, images=images, side=side, seed=seed, device=device)


@main.command()
def priors() -> None:
    """List the priors that come with the library."""
    from inverse.commands import list_priors

    list_priors()


if __name__ == "__main__":
    main(prog_name="inverse")
