"""Compiled loops for panels: bilinear interpolation as one line along z per step, shared by all rows of a column.

The rays of a detector column cross a line of pixels at one place of the plane. The two lines of voxels along z there
are mixed once, and every row of the panel reads the mixed line, at the cost of an interpolation in one dimension.
"""

# Compiled functions take their types from the call.
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit

from inverse.operators.ct.kernels import interpolate_line, scatter_line


@njit(cache=True, nogil=True)
def fill_heights(index, fraction, height, magnification, middle, pixels):
    """Voxel along z and fraction of the next one for all rows of the panel; outside it reads the PAD, which is 0."""
    for r in range(len(height)):
        p = min(max(middle + height[r] * magnification, 0.0), pixels + 1.0)
        j = np.int32(p)
        index[r] = j
        fraction[r] = p - j


@njit(cache=True, nogil=True)
def forward_cone(x, y, strides, runs, low, high, alpha, beta, heights, lines, part):
    """y += line integrals per unit of length.

    x: (y x, z), y: (views, columns, rows); strides: rows of x from one step, and from one pixel across, to the next.
    heights: start, speed, height, middle of `joseph.Heights`; part: runs first ... last - 1.
    """
    start, speed, height, middle = heights
    steps, nz = low.shape[1], x.shape[1]
    across = x.shape[0] // steps
    index, fraction = np.empty(len(height), np.uint16), np.empty(len(height), x.dtype)
    mixed = np.zeros(nz + 3, x.dtype)
    inner = mixed[1 : nz + 1]
    for block in range((steps + lines - 1) // lines):
        for s in range(part[0], part[1]):
            v = runs[s]
            for k in range(block * lines, min((block + 1) * lines, steps)):
                for q in range(low[s, k], high[s, k]):
                    p = alpha[v, q] + beta[v, q] * k
                    j = np.int64(p)
                    f = x.dtype.type(p - j)
                    at = k * strides[0] + (j - 1) * strides[1]
                    if j == 0:
                        mix_one(inner, x[at + strides[1]], f)
                    elif j == across:
                        mix_one(inner, x[at], x.dtype.type(1) - f)
                    else:
                        mix(inner, x[at], x[at + strides[1]], f)
                    fill_heights(index, fraction, height, start[v, q] + speed[v, q] * k, middle, nz)
                    interpolate_line(mixed, index, fraction, y[v, q])


@njit(cache=True, nogil=True)
def adjoint_cone(x, y, strides, runs, low, high, alpha, beta, heights, lines, part):
    """x += adjoint of `forward_cone`. part: blocks of lines first ... last - 1, which write to lines of their own."""
    start, speed, height, middle = heights
    steps, nz = low.shape[1], x.shape[1]
    across = x.shape[0] // steps
    index, fraction = np.empty(len(height), np.uint16), np.empty(len(height), x.dtype)
    pairs = np.empty(2 * nz + 6, x.dtype)
    for block in range(part[0], part[1]):
        for s in range(len(runs)):
            v = runs[s]
            for k in range(block * lines, min((block + 1) * lines, steps)):
                for q in range(low[s, k], high[s, k]):
                    p = alpha[v, q] + beta[v, q] * k
                    j = np.int64(p)
                    f = x.dtype.type(p - j)
                    fill_heights(index, fraction, height, start[v, q] + speed[v, q] * k, middle, nz)
                    pairs[:] = 0
                    scatter_line(pairs, index, fraction, y[v, q])
                    at = k * strides[0] + (j - 1) * strides[1]
                    if j > 0:
                        add_share(x[at], pairs, x.dtype.type(1) - f)
                    if j < across:
                        add_share(x[at + strides[1]], pairs, f)


@njit(cache=True, nogil=True)
def mix(out, a, b, f):
    """out = (1 - f) a + f b."""
    for z in range(len(out)):
        out[z] = a[z] + f * (b[z] - a[z])


@njit(cache=True, nogil=True)
def mix_one(out, a, factor):
    """out = factor a: the other line of voxels is outside of the image."""
    for z in range(len(out)):
        out[z] = factor * a[z]


@njit(cache=True, nogil=True)
def add_share(out, pairs, factor):
    """out += factor times the line of voxels that `scatter_line` gathered."""
    for z in range(len(out)):
        out[z] += factor * (pairs[2 * z + 2] + pairs[2 * z + 1])
