"""The part of an ISMRMRD header that a reconstruction needs: matrix sizes, fields of view, padding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"


@dataclass(frozen=True)
class Header:
    """Sizes of the encoded and the reconstructed grid, axes (y, x, z) with y the readout.

    ISMRMRD calls the readout x; here it is y, as in fastMRI's arrays.

    Attributes:
        encoded_size: points (y, x, z) of the encoded k-space, readout oversampling included.
        encoded_fov_mm: field of view (y, x, z) of the encoded grid in mm.
        recon_size: points (y, x, z) of the image to be reconstructed.
        recon_fov_mm: its field of view (y, x, z) in mm.
        padding: first and last-plus-one acquired phase-encode line of the encoded grid, or None if not stated.
    """

    encoded_size: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float]
    recon_size: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    padding: tuple[int, int] | None = None

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x) of the reconstructed image in mm."""
        y, x, z = (fov / size for fov, size in zip(self.recon_fov_mm, self.recon_size, strict=True))
        return z, y, x


def parse_header(xml: str | bytes) -> Header | None:
    """Read the sizes from an ISMRMRD header; None where it is not XML or lacks them, since they are not vital.

    Args:
        xml: text of the header, with or without its namespace.
    """
    try:
        root = ElementTree.fromstring(xml)
        encoded, recon = root.find(".//{*}encodedSpace"), root.find(".//{*}reconSpace")
        sizes = [_triple(space, "matrixSize", int) for space in (encoded, recon)]
        fields = [_triple(space, "fieldOfView_mm", float) for space in (encoded, recon)]
    except (ElementTree.ParseError, ValueError):
        return None
    if not all(0 < n < math.inf for triple in (*sizes, *fields) for n in triple):
        return None
    return Header(sizes[0], fields[0], sizes[1], fields[1], _padding(root, sizes[0][1]))


def format_header(header: Header) -> str:
    """ISMRMRD XML with the sizes of `header`; `parse_header` gives the same header back."""
    left, right = header.padding or (0, header.encoded_size[1])
    center = header.encoded_size[1] // 2 - left
    spaces = "".join(
        f"<{name}><matrixSize>{_tags(size)}</matrixSize><fieldOfView_mm>{_tags(fov)}</fieldOfView_mm></{name}>"
        for name, size, fov in (
            ("encodedSpace", header.encoded_size, header.encoded_fov_mm),
            ("reconSpace", header.recon_size, header.recon_fov_mm),
        )
    )
    limits = f"<minimum>0</minimum><maximum>{right - left - 1}</maximum><center>{center}</center>"
    return (
        f'<?xml version="1.0"?><ismrmrdHeader xmlns="{_NAMESPACE}"><encoding>{spaces}<encodingLimits>'
        f"<kspace_encoding_step_1>{limits}</kspace_encoding_step_1></encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
    )


def _triple(space: ElementTree.Element | None, name: str, kind: type) -> tuple:
    return tuple(kind(_text(space, f"{{*}}{name}/{{*}}{axis}")) for axis in "xyz")


def _text(element: ElementTree.Element | None, path: str) -> str:
    text = None if element is None else element.findtext(path)
    if text is None:
        raise ValueError(f"no {path} in the header")
    return text


def _tags(values: tuple) -> str:
    return "".join(f"<{axis}>{value}</{axis}>" for axis, value in zip("xyz", values, strict=True))


def _padding(root: ElementTree.Element, lines: int) -> tuple[int, int] | None:
    """As fastMRI computes it: the acquired lines sit around the centre line of the encoded grid."""
    limits = root.find(".//{*}encodingLimits/{*}kspace_encoding_step_1")
    try:
        left = lines // 2 - int(_text(limits, "{*}center"))
        return left, left + int(_text(limits, "{*}maximum")) + 1
    except ValueError:
        return None
