"""Rows of the property tests: small scans of every geometry with every projector."""

from collections.abc import Callable

import torch

from inverse.operators import LinearOperator
from inverse.operators.ct import CT, ConeBeam, FanBeam, ParallelBeam

REAL = torch.float64
ANGLES = [0.1, 0.8, 1.7, 2.5, 3.3, 4.9]
PARALLEL = ParallelBeam(ANGLES, 13, 0.9, 0.17)
FAN = FanBeam(ANGLES, 14, 1.3, 11.0, 7.0, -0.23)
ARC = FanBeam(ANGLES, 21, 0.8, 9.0, 5.0, 0.31, curved=True)
CONE = ConeBeam(ANGLES[:4], 4, 9, (1.4, 1.7), 11.0, 7.0, (0.3, -0.23))


def ct(geometry: ParallelBeam | FanBeam | ConeBeam, *shape: int, backend: str = "auto", pixel: float = 0.8) -> CT:
    return CT(geometry, shape, pixel, centre=(0.21, -0.36), backend=backend, dtype=REAL)


CASES: dict[str, Callable[[], LinearOperator]] = {
    "parallel even": lambda: ct(PARALLEL, 8, 8),
    "parallel odd, computed": lambda: ct(PARALLEL, 7, 9, backend="on-the-fly"),
    "parallel torch": lambda: ct(PARALLEL, 6, 9, backend="torch"),
    "parallel one pixel": lambda: ct(ParallelBeam(ANGLES, 9, 0.3), 1, 1, pixel=1.7),
    "parallel one line": lambda: ct(PARALLEL, 1, 9),
    "parallel one ray": lambda: ct(ParallelBeam([0.4], 1, 1.0), 5, 4),
    "parallel short detector": lambda: ct(ParallelBeam([0.0, 0.3, 0.5], 4, 0.7), 9, 8),
    "fan": lambda: ct(FAN, 9, 8),
    "fan computed": lambda: ct(FAN, 8, 9, backend="on-the-fly"),
    "fan torch": lambda: ct(FAN, 7, 7, backend="torch"),
    "fan on an arc": lambda: ct(ARC, 8, 7),
    "cone": lambda: ct(CONE, 4, 6, 7),
    "cone torch": lambda: ct(CONE, 5, 6, 5, backend="torch"),
    "cone one slice": lambda: ct(ConeBeam(ANGLES[:3], 3, 9, (0.5, 1.7), 11.0, 7.0), 1, 5, 6),
    "views of a fan": lambda: ct(FAN, 7, 8).restrict([4, 1]),
}
