"""Classical reconstructions, run to convergence: CG-SENSE, L1-wavelet, total variation.

All minimise 1/2 ||A x - y||^2 + lambda R(x), A multi-coil MRI, through A^H A alone, so that a step costs one gram.
Their lambdas are tuned on training people, see `tune_baselines.py`, and depend on the mask and on the noise level in
units of the image's peak.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pywt
import torch
from torch import Tensor

from inverse.linalg import cg, inner
from inverse.operators import LinearOperator

TUNED = Path(__file__).resolve().parent / "results" / "baselines.json"
WINDOW = 10  # iterations over which the change of the objective is judged


@dataclass(frozen=True)
class Classical:
    """A reconstruction and how it was reached.

    Attributes:
        image: (y, x).
        objective: after every iteration.
        converged: whether the last change of the objective was below the tolerance.
    """

    image: Tensor
    objective: list[float]
    converged: bool


def cg_sense(y: Tensor, operator: LinearOperator, tikhonov: float, *, start: Tensor | None = None) -> Classical:
    """1/2 ||A x - y||^2 + t/2 ||x||^2 by conjugate gradients.

    Args:
        y: data (coils, y, x).
        operator: A.
        tikhonov: t, in units of ||A||^2 = 1.
        start: image to start from.

    Reference: Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", MRM 46, 2001.
    """
    start = None if start is None else start[None]
    solved = cg(lambda x: operator.gram(x) + tikhonov * x, operator.H(y)[None], x0=start, rtol=1e-5, max_iterations=400)
    return Classical(solved.x[0], [], bool((solved.codes == 0).all()))


def l1_wavelet(
    y: Tensor,
    operator: LinearOperator,
    lamda: float,
    *,
    start: Tensor | None = None,
    rtol: float = 1e-6,
    iterations: int = 1000,
) -> Classical:
    """1/2 ||A x - y||^2 + lambda ||W x||_1, W Daubechies 4: problem and proximal step of sigpy's L1WaveletRecon.

    FISTA with the restart of O'Donoghue and Candes; at convergence the image is that of sigpy.

    Args:
        y: data (coils, y, x).
        operator: A.
        lamda: weight of the wavelet coefficients.
        start: image to start from.
        rtol: relative change of the objective over 10 iterations at which to stop.
        iterations: cap.

    Reference: Lustig, Donoho and Pauly, "Sparse MRI", MRM 58, 2007; Beck and Teboulle, SIAM J. Imaging Sci. 2, 2009.
    """
    wavelet = Wavelet((y.shape[-2], y.shape[-1]))
    step = 1 / (1.001 * operator.norm() ** 2)
    right = operator.H(y)
    x = torch.zeros_like(right) if start is None else start
    gram = operator.gram(x)
    momentum, extra, objective = 1.0, (x, gram), []
    for k in range(iterations):
        z, gram_z = extra
        new, size = wavelet.shrink(z - step * (gram_z - right), lamda * step)
        gram_new = operator.gram(new)
        objective.append(_misfit(new, gram_new, right, y) + lamda * size)
        if _dot(z - new, new - x) > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        beta = (momentum - 1) / following
        extra = (new + beta * (new - x), gram_new + beta * (gram_new - gram))
        x, gram, momentum = new, gram_new, following
        if k >= 2 * WINDOW and _settled(objective, rtol):
            return Classical(x, objective, True)
    return Classical(x, objective, False)


def total_variation(
    y: Tensor,
    operator: LinearOperator,
    lamda: float,
    *,
    start: Tensor | None = None,
    rtol: float = 1e-6,
    iterations: int = 500,
    inner_iterations: int = 6,
    nonnegative: bool = False,
) -> Classical:
    """1/2 ||A x - y||^2 + lambda sum_p sqrt(|dx x|^2 + |dy x|^2), isotropic and complex, by ADMM.

    Args:
        y: data (coils, y, x).
        operator: A.
        lamda: weight of the gradient.
        start: image to start from.
        rtol: relative change of the objective over 10 iterations at which to stop.
        iterations: cap on the outer iterations.
        inner_iterations: warm-started conjugate gradients per outer iteration.
        nonnegative: keep a real image from going below 0, by a third part of the split that is the image itself.

    Reference: Block, Uecker and Frahm, MRM 57, 2007 (the problem); Boyd et al., "Distributed optimization and
    statistical learning via ADMM", 2011, sections 3.4.1 (penalty) and 3.4.3 (over-relaxation 1.6).
    """
    right = operator.H(y)
    x = right if start is None else start
    penalty = 10 * lamda / float(x.abs().quantile(0.99))
    apart, together = (_with_image, _with_image_adjoint) if nonnegative else (gradient, gradient_adjoint)
    split = apart(x)
    dual = torch.zeros_like(split)
    objective: list[float] = []
    for k in range(iterations):
        system = _augmented(operator, penalty, lambda v: together(apart(v)))
        target = right + penalty * together(split - dual)
        x = cg(system, target[None], x0=x[None], rtol=1e-7, max_iterations=inner_iterations, check_every=100).x[0]
        slope = apart(x)
        relaxed = 1.6 * slope - 0.6 * split
        before, split = split, _proximal(relaxed + dual, lamda / penalty)
        dual = dual + relaxed - split
        objective.append(
            _misfit(x, operator.gram(x), right, y) + lamda * float(_length(slope[:2]).sum(dtype=torch.float64))
        )
        if k < 60 and k % 5 == 4:  # a penalty that changes for ever need not converge
            ratio = _balance(slope - split, penalty * together(split - before))
            penalty, dual = penalty * ratio, dual / ratio
        if k >= 70 and _settled(objective, rtol):
            return Classical(split[2] if nonnegative else x, objective, True)
    return Classical(split[2] if nonnegative else x, objective, False)


METHODS: dict[str, Callable[..., Classical]] = {"CG-SENSE": cg_sense, "L1-wavelet": l1_wavelet, "TV": total_variation}


def best_on_grid(score: Callable[[float], float], guess: float) -> tuple[float, float]:
    """The number of the largest score, and that score.

    On a grid of ratio 2 that grows until its best is inside, refined by a parabola through the best and its neighbours.

    Args:
        score: of a number; larger is better.
        guess: where the search begins.
    """

    @cache
    def at(k: int) -> float:
        return score(guess * 2.0**k)

    k = 0
    while max(at(k - 1), at(k + 1)) > at(k):
        k += 1 if at(k + 1) > at(k - 1) else -1
    left, middle, right = at(k - 1), at(k), at(k + 1)
    bend = left - 2 * middle + right
    return guess * 2.0 ** (k + (0.5 * (left - right) / bend if bend < 0 else 0.0)), middle


def tuned_lambda(method: str, mask: str, sigma_y: float) -> float:
    """lambda of a method for a kind of mask and a noise level relative to the image's peak, from the tuning.

    Interpolated in the logarithms of both, and extended with the slope at the ends.

    Args:
        method: a name of `METHODS`.
        mask: "equispaced R=4", "equispaced R=8" or "Poisson R=8".
        sigma_y: noise level per real component, for an image whose 99.9th percentile is near 0.9.
    """
    table = json.loads(TUNED.read_text())["lambda"][method][mask]
    points = sorted((math.log(float(s)), math.log(v)) for s, v in table.items())
    place = math.log(max(sigma_y, 1e-6))
    last = len(points) - 2
    k = next((i for i in range(last) if place < points[i + 1][0]), last)
    (x0, y0), (x1, y1) = points[k], points[k + 1]
    return math.exp(y0 + (y1 - y0) * (place - x0) / (x1 - x0))


class Wavelet:
    """The orthogonal wavelet transform of sigpy (zero-padded, as deep as the size allows) as one small matrix a level.

    Args:
        shape: (y, x).
        name: wavelet of PyWavelets.
    """

    def __init__(self, shape: tuple[int, int], name: str = "db4"):
        self.even = tuple(n + n % 2 for n in shape)
        self.shape = shape
        depth = min(pywt.dwt_max_level(n, pywt.Wavelet(name).dec_len) for n in self.even)
        self.levels, size = [], self.even
        for _ in range(depth):
            self.levels.append((_level(size[0], name), _level(size[1], name)))
            size = tuple(level.shape[0] // 2 for level in self.levels[-1])

    def shrink(self, x: Tensor, threshold: float) -> tuple[Tensor, float]:
        """W^H soft(W x), and the sum of the magnitudes of its coefficients; x (y, x) complex."""
        pad = [e - n for e, n in zip(self.even, self.shape, strict=True)]
        padded = torch.nn.functional.pad(torch.view_as_real(x).movedim(-1, 0), (0, pad[1], 0, pad[0]))
        image, size = self._shrink(padded, threshold, 0)
        image = image[:, : self.shape[0], : self.shape[1]]
        return torch.view_as_complex(image.movedim(0, -1).contiguous()), size

    def _shrink(self, x: Tensor, threshold: float, depth: int) -> tuple[Tensor, float]:
        if depth == len(self.levels):
            return _soft(x, threshold)
        rows, columns = self.levels[depth]
        coefficients = rows @ x @ columns.mT
        half = rows.shape[0] // 2, columns.shape[0] // 2
        coarse, coarse_size = self._shrink(coefficients[:, : half[0], : half[1]], threshold, depth + 1)
        coefficients[:, : half[0], : half[1]] = 0
        out, size = _soft(coefficients, threshold)
        out[:, : half[0], : half[1]] = coarse
        return rows.mT @ out @ columns, size + coarse_size


@lru_cache(maxsize=32)
def _level(n: int, name: str) -> Tensor:
    """Low-pass rows over high-pass rows of one analysis step for n samples."""
    low, high = pywt.dwt(np.eye(n), name, mode="zero", axis=0)
    return torch.from_numpy(np.concatenate([low, high])).float()


def _soft(parts: Tensor, threshold: float) -> tuple[Tensor, float]:
    """Soft threshold of complex numbers given as two real parts (2, ...)."""
    size = torch.linalg.vector_norm(parts, dim=0)
    left = (size - threshold).clamp(min=0)
    return parts * (left / size.clamp(min=1e-20)), float(left.sum(dtype=torch.float64))


def gradient(x: Tensor) -> Tensor:
    """Forward differences along y and x, 0 at the far border: (2, y, x)."""
    out = x.new_zeros((2, *x.shape))
    torch.sub(x[1:], x[:-1], out=out[0, :-1])
    torch.sub(x[:, 1:], x[:, :-1], out=out[1, :, :-1])
    return out


def gradient_adjoint(g: Tensor) -> Tensor:
    """Adjoint of `gradient`."""
    out = torch.zeros_like(g[0])
    out[:-1] -= g[0, :-1]
    out[1:] += g[0, :-1]
    out[:, :-1] -= g[1, :, :-1]
    out[:, 1:] += g[1, :, :-1]
    return out


def _with_image(x: Tensor) -> Tensor:
    """The gradient and the image itself: (3, y, x)."""
    return torch.cat([gradient(x), x[None]])


def _with_image_adjoint(g: Tensor) -> Tensor:
    """Adjoint of `_with_image`."""
    return gradient_adjoint(g[:2]) + g[2]


def _augmented(
    operator: LinearOperator, penalty: float, normal: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    return lambda x: operator.gram(x) + penalty * normal(x[0])[None]


def _length(g: Tensor) -> Tensor:
    return (g.abs() ** 2).sum(0).sqrt()


def _proximal(parts: Tensor, threshold: float) -> Tensor:
    """Shorter gradients; of a third part, the image, what is not negative."""
    shrunk = _shrink(parts[:2], threshold)
    return shrunk if len(parts) == 2 else torch.cat([shrunk, parts[2:].clamp(min=0)])


def _shrink(g: Tensor, threshold: float) -> Tensor:
    length = _length(g)
    return g * ((length - threshold).clamp(min=0) / length.clamp(min=1e-20))


def _balance(primal: Tensor, dual: Tensor) -> float:
    """Factor of the penalty that brings both residuals to one size."""
    ratio = float(torch.linalg.vector_norm(primal)) / max(float(torch.linalg.vector_norm(dual)), 1e-30)
    return 2.0 if ratio > 5 else 0.5 if ratio < 0.2 else 1.0


def _misfit(x: Tensor, gram: Tensor, right: Tensor, y: Tensor) -> float:
    """1/2 ||A x - y||^2 in double precision from A^H A x and A^H y."""
    wide = x.to(torch.complex128)
    energy = float(torch.linalg.vector_norm(y).double()) ** 2
    return 0.5 * (energy + _dot(wide, (gram - 2 * right).to(torch.complex128)))


def _dot(a: Tensor, b: Tensor) -> float:
    return float(inner(a[None], b[None]))


def _settled(objective: list[float], rtol: float) -> bool:
    return abs(objective[-1 - WINDOW] - objective[-1]) <= rtol * abs(objective[-1])
