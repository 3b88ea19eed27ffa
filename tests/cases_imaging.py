"""Rows of the property tests: imaging operators, small and in double precision."""

from collections.abc import Callable

import torch
from torch import Tensor

from inverse.operators import LinearOperator, Mask
from inverse.operators.blur import Blur, VaryingBlur
from inverse.operators.colour import Grey
from inverse.operators.downsample import Downsample
from inverse.operators.resize import Resize

PADDINGS = ("circular", "zero", "reflect", "replicate", "valid")


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def separable(ky: int, kx: int) -> Tensor:
    return randn(ky, 1, seed=1) * randn(kx, seed=2)


def blur(ky: int, kx: int, shape: tuple[int, ...], padding: str, method: str, **options) -> Callable[[], Blur]:
    return lambda: Blur(randn(ky, kx), shape, padding=padding, method=method, dtype=torch.float64, **options)


def by_products(padding: str, dtype: torch.dtype) -> Callable[[], Blur]:
    return lambda: Blur(separable(4, 3), (2, 7, 6), padding=padding, method="direct", dtype=dtype)


def varying(padding: str, dtype: torch.dtype) -> Callable[[], VaryingBlur]:
    return lambda: VaryingBlur(randn(3, 3, 4), randn(3, 7, 6, seed=1), (2, 7, 6), padding=padding, dtype=dtype)


CASES: dict[str, Callable[[], LinearOperator]] = {}
for padding in PADDINGS:
    for method in ("fft", "direct"):
        CASES[f"blur {padding} {method} odd in even"] = blur(3, 5, (6, 8), padding, method)
        CASES[f"blur {padding} {method} even in odd"] = blur(4, 2, (7, 5), padding, method)
        CASES[f"blur {padding} {method} one pixel"] = blur(1, 1, (1, 1), padding, method)
    CASES[f"blur {padding} products"] = by_products(padding, torch.float64)
    CASES[f"blur {padding} products complex"] = by_products(padding, torch.complex128)
    CASES[f"blur {padding} varying"] = varying(padding, torch.float64)
    CASES[f"blur {padding} stack of kernels"] = lambda padding=padding: Blur(
        randn(2, 4, 3), (3, 2, 7, 6), padding=padding, dtype=torch.float64
    )
    CASES[f"blur {padding} complex fft"] = lambda padding=padding: Blur(
        randn(4, 3), (7, 6), padding=padding, method="fft", dtype=torch.complex128
    )
CASES |= {
    "blur complex direct": lambda: Blur(
        randn(2, 3), (5, 6), padding="reflect", method="direct", dtype=torch.complex128
    ),
    "blur zero kernel larger than the image": blur(9, 8, (3, 2), "zero", "fft"),
    "blur zero kernel larger than the image, direct": blur(9, 8, (3, 2), "zero", "direct"),
    "blur replicate kernel larger than the image": blur(9, 8, (3, 2), "replicate", "fft"),
    "blur reflect largest kernel": blur(7, 5, (4, 3), "reflect", "fft"),
    "blur valid one pixel left": blur(4, 3, (4, 3), "valid", "fft"),
    "varying blur complex": varying("reflect", torch.complex128),
}

CASES |= {
    f"resize {kernel} {boundary} {before} to {after}": (
        lambda kernel=kernel, boundary=boundary, before=before, after=after: Resize(
            before, after, kernel=kernel, boundary=boundary, dtype=torch.float64
        )
    )
    for kernel in ("bicubic", "box", "bilinear", "lanczos")
    for boundary in ("symmetric", "renormalise")
    for before, after in (((8, 6), (4, 3)), ((2, 7, 5), (3, 9)))
}
CASES |= {
    "resize one pixel": lambda: Resize((1, 1), (1, 1), dtype=torch.float64),
    "resize one pixel to many": lambda: Resize((1, 3), (4, 1), dtype=torch.float64),
    "resize aliased": lambda: Resize((9, 8), (4, 4), antialias=False, dtype=torch.float64),
    "resize complex": lambda: Resize((7, 6), (3, 4), dtype=torch.complex128),
    "downsample box": lambda: Downsample(2, (3, 6, 4), dtype=torch.float64),
    "downsample box complex": lambda: Downsample(3, (6, 9), dtype=torch.complex128),
    "downsample by 1": lambda: Downsample(1, (5, 4), dtype=torch.float64),
    "downsample to one pixel": lambda: Downsample(4, (4, 4), dtype=torch.float64),
    "downsample bicubic": lambda: Downsample(2, (2, 6, 8), "bicubic", dtype=torch.float64),
    "downsample kernel": lambda: Downsample(2, (7, 6), randn(3, 3), padding="reflect", dtype=torch.float64),
    "downsample kernel valid": lambda: Downsample(3, (2, 8, 9), randn(2, 3), padding="valid", dtype=torch.float64),
    "downsample kernel phase": lambda: Downsample(3, (7, 9), randn(3, 3), phase=2, dtype=torch.complex128),
    "downsample separable": lambda: Downsample(2, (7, 6), separable(4, 3), padding="reflect", dtype=torch.float64),
    "grey": lambda: Grey((3, 5, 4), dtype=torch.float64),
    "grey mean of a batch, complex": lambda: Grey((2, 4, 3, 5), "mean", keep_channel=True, dtype=torch.complex128),
    "grey one channel": lambda: Grey((1, 1, 1), (-2.0,), dtype=torch.float64),
    "mask for each item": lambda: Mask(randn(3, 5, 4) > 0, dtype=torch.float64),
    "mask for each item, shared by channels": lambda: Mask(randn(3, 1, 5, 4) > 0, (3, 2, 5, 4), dtype=torch.complex128),
}
