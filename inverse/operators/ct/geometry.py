"""Where source, detector and rays are: parallel, fan and cone beams on circular orbits.

Lab frame in mm, the rotation axis at the origin. At angle t the detector axis is u = (cos t, sin t) in (x, y) and rays
run along d = (-sin t, cos t): a parallel ray is the line x cos t + y sin t = u_k. A source sits at -source_distance d,
the middle of its detector at +detector_distance d, rows of a flat panel along z. Coordinates of points are given in
the order of the image's axes: (y, x) or (z, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from inverse.errors import InputError, check_positive

G = TypeVar("G", bound="Geometry")
EVERY = slice(None)


class Geometry(Protocol):
    """What a projector needs to know of a scan."""

    @property
    def angles(self) -> Sequence[float]:
        """Angle of every view, radians."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data: (views, detectors) or (views, rows, columns)."""
        ...

    def rays(self, views: slice = EVERY) -> tuple[Tensor, Tensor]:
        """A point on every ray and its direction, float64, each broadcasts to (views, *detector, 2 or 3)."""
        ...


class _Beam:
    """What all beams share."""

    angles: Sequence[float]

    def __repr__(self) -> str:
        """All fields, of the angles only how many."""
        rest = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self)[1:])  # type: ignore[arg-type]
        return f"{type(self).__name__}({len(self.angles)} views, {', '.join(rest)})"


class _Row(_Beam):
    """What beams in the plane share: one row of detector elements."""

    detectors: int
    spacing: float
    offset: float

    @property
    def shape(self) -> tuple[int, int]:
        """(views, detectors)."""
        return len(self.angles), self.detectors

    @property
    def positions(self) -> Tensor:
        """u_k of every element along the detector, mm, float64 (detectors,)."""
        return element_positions(self.detectors, self.spacing, self.offset)


class _Source(_Beam):
    """What beams of a point source share."""

    source_distance: float
    detector_distance: float

    @property
    def reach(self) -> float:
        """From the source to the detector, mm."""
        return self.source_distance + self.detector_distance


@dataclass(frozen=True, repr=False)
class ParallelBeam(_Row):
    """Parallel rays in the plane; a list of angles makes it full, sparse or limited in angle.

    Args:
        angles: angles of the views in radians, any one-dimensional sequence or tensor.
        detectors: number n of detector elements.
        spacing: their distance, mm; element k is at u_k = (k - (n - 1) / 2) spacing + offset.
        offset: shift of the detector along its axis, mm.

    Raises:
        InputError: no angle or one that is not finite, no detector element, a spacing that is not positive.
    """

    angles: Sequence[float]
    detectors: int
    spacing: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        _check(self, counts=("detectors",), positive=("spacing",), finite=("offset",))

    def rays(self, views: slice = EVERY) -> tuple[Tensor, Tensor]:
        """A point on every ray (views, detectors, 2) and directions (views, 1, 2), in mm, axes (y, x)."""
        u, d = frame(self.angles[views])
        return self.positions[:, None] * u[:, None], d[:, None]


@dataclass(frozen=True, repr=False)
class FanBeam(_Row, _Source):
    """Rays of a point source in the plane, on a straight detector or on an arc around the source.

    Args:
        angles: angles of the views in radians, any one-dimensional sequence or tensor.
        detectors: number n of detector elements.
        spacing: their distance on the detector, mm; on an arc the length of arc.
        source_distance: from the source to the rotation axis, mm.
        detector_distance: from the axis to the middle of the detector, mm; 0 for a virtual detector in the axis.
        offset: shift of the detector along its axis, mm.
        curved: whether the elements lie on an arc around the source, at equal angles.

    Raises:
        InputError: as for ParallelBeam; distances that are not positive; an arc of half a turn or more.
    """

    angles: Sequence[float]
    detectors: int
    spacing: float
    source_distance: float
    detector_distance: float
    offset: float = 0.0
    curved: bool = False

    def __post_init__(self) -> None:
        finite = ("offset", "detector_distance")
        _check(self, counts=("detectors",), positive=("spacing", "source_distance"), finite=finite)
        check_positive("FanBeam: detector_distance", self.detector_distance, zero=True)
        arc = float(self.positions.abs().max()) / self.reach
        if self.curved and arc >= math.pi / 2:
            raise InputError(
                f"FanBeam: the arc reaches {math.degrees(arc):.0f} degrees from its middle, less than 90 are needed; "
                "check detectors, spacing and the distances, all in mm."
            )

    def rays(self, views: slice = EVERY) -> tuple[Tensor, Tensor]:
        """Sources (views, 1, 2) and directions (views, detectors, 2) to the elements, in mm, axes (y, x)."""
        u, d = frame(self.angles[views])
        across, along = self.positions, torch.full((), self.reach, dtype=torch.float64)
        if self.curved:
            gamma = self.positions / self.reach
            across, along = self.reach * torch.sin(gamma), self.reach * torch.cos(gamma)[:, None]
        return -self.source_distance * d[:, None], across[:, None] * u[:, None] + along * d[:, None]


@dataclass(frozen=True, repr=False)
class ConeBeam(_Source):
    """Rays of a point source on a circle in the plane z = 0, on a flat panel whose rows lie along z.

    Args:
        angles: angles of the views in radians, any one-dimensional sequence or tensor.
        rows: number of detector rows.
        columns: number of detector columns.
        spacing: distance of rows and of columns on the panel, mm.
        source_distance: from the source to the rotation axis, mm.
        detector_distance: from the axis to the panel, mm; 0 for a virtual panel in the axis.
        offset: shift of the panel along z and along u, mm.

    Raises:
        InputError: as for FanBeam; a cone of 45 degrees or more from the plane of the orbit.
    """

    angles: Sequence[float]
    rows: int
    columns: int
    spacing: tuple[float, float]
    source_distance: float
    detector_distance: float
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        _check(self, counts=("rows", "columns"), positive=("source_distance",), finite=("detector_distance",))
        check_positive("ConeBeam: detector_distance", self.detector_distance, zero=True)
        for name in ("spacing", "offset"):
            value = getattr(self, name)
            if not isinstance(value, Sequence) or len(value) != 2:
                raise InputError(f"ConeBeam: {name}: expected two numbers in mm (along z, along u), got {value!r}.")
            object.__setattr__(self, name, (_finite(self, name, value[0]), _finite(self, name, value[1])))
        for value in self.spacing:
            check_positive("ConeBeam: spacing", value)
        steepest = float(self.row_positions.abs().max()) / self.reach
        if steepest >= 1:
            raise InputError(
                f"ConeBeam: the cone reaches {math.degrees(math.atan(steepest)):.0f} degrees from the plane of the "
                "orbit, less than 45 are needed; check rows, spacing, offset and the distances, all in mm."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(views, rows, columns)."""
        return len(self.angles), self.rows, self.columns

    @property
    def positions(self) -> Tensor:
        """u_k of every column, mm, float64 (columns,)."""
        return element_positions(self.columns, self.spacing[1], self.offset[1])

    @property
    def row_positions(self) -> Tensor:
        """z of every row on the panel, mm, float64 (rows,)."""
        return element_positions(self.rows, self.spacing[0], self.offset[0])

    def rays(self, views: slice = EVERY) -> tuple[Tensor, Tensor]:
        """Sources (views, 1, 1, 3) and directions (views, rows, columns, 3) to the elements, in mm, axes (z, y, x)."""
        u, d = frame(self.angles[views])
        plane = self.positions[:, None] * u[:, None] + self.reach * d[:, None]
        shape = (len(d), self.rows, self.columns)
        heights = self.row_positions[:, None, None].expand(*shape, 1)
        direction = torch.cat([heights, plane[:, None].expand(*shape, 2)], dim=-1)
        source = torch.nn.functional.pad(-self.source_distance * d, (1, 0))
        return source[:, None, None], direction


def element_positions(count: int, spacing: float, offset: float) -> Tensor:
    """Centres of equally spaced detector elements, mm, float64 (count,)."""
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * spacing + offset


def frame(angles: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Detector axis u and ray direction d of every view, float64 (views, 2), axes (y, x)."""
    t = torch.tensor(angles, dtype=torch.float64)
    # A quarter turn has a cosine of exactly 0, so that turned images give equal data.
    cos, sin = (torch.where(v.abs() < 1e-15, 0.0, v) for v in (torch.cos(t), torch.sin(t)))
    return torch.stack([sin, cos], -1), torch.stack([cos, -sin], -1)


def select_views(geometry: G, views: Sequence[int]) -> G:
    """The same scan with some of its views, in the order given."""
    return replace(geometry, angles=tuple(geometry.angles[i] for i in views))  # type: ignore[type-var]


def _finite(geometry: object, name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"{type(geometry).__name__}: {name}: expected a number in mm, got {value!r}.") from error
    if not math.isfinite(number):
        raise InputError(f"{type(geometry).__name__}: {name}: expected a finite number in mm, got {number}.")
    return number


def _check(geometry: object, *, counts: Sequence[str], positive: Sequence[str], finite: Sequence[str] = ()) -> None:
    """Bring the fields of a frozen geometry into plain numbers, and refuse what makes no scan."""
    kind = type(geometry).__name__
    object.__setattr__(geometry, "angles", _angles(kind, geometry.angles))  # type: ignore[attr-defined]
    for name in counts:
        value = getattr(geometry, name)
        if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
            raise InputError(f"{kind}: {name}: expected a whole number, at least 1, got {value!r}.")
        object.__setattr__(geometry, name, value.__index__())
    for name in positive:
        check_positive(f"{kind}: {name}", getattr(geometry, name))
        object.__setattr__(geometry, name, float(getattr(geometry, name)))
    for name in finite:
        object.__setattr__(geometry, name, _finite(geometry, name, getattr(geometry, name)))


def _angles(kind: str, angles: object) -> tuple[float, ...]:
    try:
        values = torch.as_tensor(angles, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{kind}: angles: expected a list of numbers in radians, got {angles!r:.60}.") from error
    if values.ndim != 1 or not len(values):
        raise InputError(f"{kind}: angles: expected one list with at least one angle, got shape {tuple(values.shape)}.")
    if not torch.isfinite(values).all():
        bad = int((~torch.isfinite(values)).sum())
        raise InputError(f"{kind}: angles: {bad} of {len(values)} are NaN or Inf; remove these views and their data.")
    return tuple(values.tolist())
