"""All tables of small operators as one, for the tests that hold for every operator."""

from collections.abc import Callable

import cases_ct
import cases_imaging
import cases_lift
import cases_mri
import cases_nufft
from operator_cases import OPERATORS

from inverse.operators import LinearOperator

FAMILIES = {
    "ct": cases_ct.CASES,
    "imaging": cases_imaging.CASES,
    "mri": cases_mri.CASES,
    "nufft": cases_nufft.CASES,
    "lift": cases_lift.CASES,
}

ALL: dict[str, Callable[[], LinearOperator]] = dict(OPERATORS)
for family, cases in FAMILIES.items():
    ALL |= {f"{family}: {name}": build for name, build in cases.items()}
