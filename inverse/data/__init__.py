"""Files, masks, coil maps and simulated scans."""

if __name__ != "inverse.data":
    raise ImportError(f"import inverse.data, not {__name__}: the root entry is a link for readers")

from inverse.data.atomic import atomic_write
from inverse.data.coilmaps import calibration_region, estimate_maps
from inverse.data.fastmri import Scan, crop_image, crop_readout, read, write
from inverse.data.header import Header, format_header, parse_header
from inverse.data.masks import acceleration, equispaced, fastmri_mask, gaussian_lines, poisson_disc, random_lines
from inverse.data.nifti import write_nifti
from inverse.data.noise import estimate_noise, noise_covariance, prewhiten
from inverse.data.sample import sample_path
from inverse.data.simulate import Simulation, simulate_maps, simulate_scan, smooth_phase

__all__ = [
    "Header",
    "Scan",
    "Simulation",
    "acceleration",
    "atomic_write",
    "calibration_region",
    "crop_image",
    "crop_readout",
    "equispaced",
    "estimate_maps",
    "estimate_noise",
    "fastmri_mask",
    "format_header",
    "gaussian_lines",
    "noise_covariance",
    "parse_header",
    "poisson_disc",
    "prewhiten",
    "random_lines",
    "read",
    "sample_path",
    "simulate_maps",
    "simulate_scan",
    "smooth_phase",
    "write",
    "write_nifti",
]
