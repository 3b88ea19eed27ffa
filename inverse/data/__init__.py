"""Files, masks, coil maps and simulated scans."""

if __name__ != "inverse.data":
    raise ImportError(f"import inverse.data, not {__name__}: the root entry is a link for readers")

from inverse.data.atomic import atomic_write
from inverse.data.coilmaps import MapEstimate, calibration_region, espirit, estimate_maps
from inverse.data.compression import apply_compression, compress_coils
from inverse.data.fastmaps import walsh_maps
from inverse.data.fastmri import Scan, crop_image, crop_readout, read, write
from inverse.data.header import Header, format_header, parse_header
from inverse.data.hounsfield import WATER_ATTENUATION, to_attenuation, to_hounsfield
from inverse.data.masks import acceleration, equispaced, fastmri_mask, gaussian_lines, poisson_disc, random_lines
from inverse.data.nifti import write_nifti
from inverse.data.noise import estimate_noise, noise_covariance, noise_scan_covariance, prewhiten
from inverse.data.phantom import Ellipse, EllipsePhantom, shepp_logan
from inverse.data.sample import sample_path
from inverse.data.simulate import Simulation, simulate_maps, simulate_scan, smooth_phase
from inverse.data.sinogram import Sinogram, line_integrals, read_sinogram, write_sinogram
from inverse.data.trajectories import cartesian, golden_means, radial, spiral, stack_of_stars

__all__ = [
    "WATER_ATTENUATION",
    "Ellipse",
    "EllipsePhantom",
    "Header",
    "MapEstimate",
    "Scan",
    "Simulation",
    "Sinogram",
    "acceleration",
    "apply_compression",
    "atomic_write",
    "calibration_region",
    "cartesian",
    "compress_coils",
    "crop_image",
    "crop_readout",
    "equispaced",
    "espirit",
    "estimate_maps",
    "estimate_noise",
    "fastmri_mask",
    "format_header",
    "gaussian_lines",
    "golden_means",
    "line_integrals",
    "noise_covariance",
    "noise_scan_covariance",
    "parse_header",
    "poisson_disc",
    "prewhiten",
    "radial",
    "random_lines",
    "read",
    "read_sinogram",
    "sample_path",
    "shepp_logan",
    "simulate_maps",
    "simulate_scan",
    "smooth_phase",
    "spiral",
    "stack_of_stars",
    "to_attenuation",
    "to_hounsfield",
    "walsh_maps",
    "write",
    "write_nifti",
    "write_sinogram",
]
