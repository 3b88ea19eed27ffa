"""Compiled loops over rays and lines of pixels.

Order: blocks of lines, runs of rays, lines, rays. A line of pixels and the data of a run stay in the nearest cache.
Sums are made in this order whatever the number of images or threads.
"""

# Compiled functions take their types from the call.
# mypy: disable-error-code="no-untyped-def, call-arg"
from __future__ import annotations

import numpy as np
from numba import njit

from inverse.operators.ct.vector import LANES, interpolate_images, interpolate_rays, scatter_images, scatter_rays

ONE = np.uint64(1)
EIGHT = np.uint64(LANES)
SIXTEEN = np.uint64(2 * LANES)


@njit(cache=True, nogil=True)
def crossings(alpha, beta, view, first, last, steps, across):
    """Rays of every run that cross line k inside of the image: low[run, k] ... high[run, k] - 1, by bisection."""
    low = np.empty((len(view), steps), np.int32)
    high = np.empty((len(view), steps), np.int32)
    for s in range(len(view)):
        a, b = alpha[view[s]], beta[view[s]]
        for k in range(steps):
            rising = a[last[s] - 1] + b[last[s] - 1] * k >= a[first[s]] + b[first[s]] * k
            # Along a run p rises or falls: rays inside are neighbours.
            for end in range(2):
                i, j = first[s], last[s]
                while i < j:
                    h = (i + j) >> 1
                    p = a[h] + b[h] * k
                    before = (p <= 0 if end == 0 else p < across + 1) if rising else (
                        p >= across + 1 if end == 0 else p > 0)  # fmt: skip
                    if before:
                        i = h + 1
                    else:
                        j = h
                if end == 0:
                    low[s, k] = i
                else:
                    high[s, k] = max(i, low[s, k])
    return low, high


@njit(cache=True, nogil=True)
def fill(index, fraction, alpha, beta, k):
    """Pixel and fraction of the next one where rays cross line k."""
    for q in range(len(alpha)):
        p = alpha[q] + beta[q] * k
        j = np.int32(p)
        index[q] = j
        fraction[q] = p - j


@njit(cache=True, nogil=True)
def fill_table(index, fraction, alpha, beta, view, low, high, start, lines, block):
    """`fill` of all runs, for the lines of one block."""
    for s in range(len(view)):
        a, b = alpha[view[s]], beta[view[s]]
        i = start[block, s]
        for k in range(block * lines, min((block + 1) * lines, low.shape[1])):
            left, count = low[s, k], high[s, k] - low[s, k]
            right = left + count
            fill(index[i : i + count], fraction[i : i + count], a[left:right], b[left:right], k)
            i += count


@njit(cache=True, nogil=True)
def interpolate_line(row, index, fraction, y):
    """y += values of a line of pixels, or of detector elements, between index and the next one."""
    count = np.uint64(len(y))
    q = np.uint64(0)
    while q + EIGHT <= count:
        interpolate_rays(row, index, fraction, q, y, q)
        q += EIGHT
    while q < count:
        j = np.uint64(index[q])
        y[q] += row[j] + fraction[q] * (row[j + ONE] - row[j])
        q += ONE


@njit(cache=True, nogil=True)
def scatter_line(pairs, index, fraction, y):
    """Adjoint of `interpolate_line`; pairs[2 j] is for pixel j, pairs[2 j + 1] for the next one."""
    count = np.uint64(len(y))
    q = np.uint64(0)
    while q + EIGHT <= count:
        scatter_rays(pairs, index, fraction, q, y, q)
        q += EIGHT
    while q < count:
        j = np.uint64(2) * np.uint64(index[q])
        second = y[q] * fraction[q]
        pairs[j] += y[q] - second
        pairs[j + ONE] += second
        q += ONE


@njit(cache=True, nogil=True)
def forward_plane(x, y, table, runs, low, high, alpha, beta, kept, lines, part):
    """y += line integrals per unit of length. x: lines with PAD, (steps, across + 2); y: (views, columns).

    table: index, fraction, start (blocks, runs) of `fill_table`; not read unless `kept`. part: runs first ... last - 1.
    """
    index, fraction, start = table
    steps = low.shape[1]
    scratch_index = np.empty(y.shape[1], index.dtype)
    scratch_fraction = np.empty(y.shape[1], fraction.dtype)
    for block in range((steps + lines - 1) // lines):
        for s in range(part[0], part[1]):
            v = runs[s]
            i = start[block, s] if kept else 0
            for k in range(block * lines, min((block + 1) * lines, steps)):
                left, count = low[s, k], high[s, k] - low[s, k]
                if kept:
                    interpolate_line(x[k], index[i : i + count], fraction[i : i + count], y[v, left : left + count])
                    i += count
                elif count > 0:
                    j, f, right = scratch_index[:count], scratch_fraction[:count], left + count
                    fill(j, f, alpha[v, left:right], beta[v, left:right], k)
                    interpolate_line(x[k], j, f, y[v, left:right])


@njit(cache=True, nogil=True)
def adjoint_plane(x, y, table, runs, low, high, alpha, beta, kept, lines, part):
    """x = adjoint of `forward_plane` without PAD, (steps, across). part: blocks of lines first ... last - 1."""
    index, fraction, start = table
    steps, across = x.shape
    scratch_index = np.empty(y.shape[1], index.dtype)
    scratch_fraction = np.empty(y.shape[1], fraction.dtype)
    pairs = np.empty((lines, 2 * across + 4), x.dtype)
    for block in range(part[0], part[1]):
        pairs[:] = 0
        begin, end = block * lines, min((block + 1) * lines, steps)
        for s in range(len(runs)):
            v = runs[s]
            i = start[block, s] if kept else 0
            for k in range(begin, end):
                left, count = low[s, k], high[s, k] - low[s, k]
                if kept:
                    scatter_line(
                        pairs[k - begin], index[i : i + count], fraction[i : i + count], y[v, left : left + count]
                    )
                    i += count
                elif count > 0:
                    j, f, right = scratch_index[:count], scratch_fraction[:count], left + count
                    fill(j, f, alpha[v, left:right], beta[v, left:right], k)
                    scatter_line(pairs[k - begin], j, f, y[v, left:right])
        for k in range(begin, end):
            collect(x[k], pairs[k - begin])


@njit(cache=True, nogil=True)
def collect(row, pairs):
    """A line of pixels from what `scatter_line` gathered."""
    for j in range(len(row)):
        row[j] = pairs[2 * j + 2] + pairs[2 * j + 1]


@njit(cache=True, nogil=True)
def forward_plane_batch(x, y, table, runs, low, high, alpha, beta, kept, lines, part):
    """`forward_plane` of LANES images. x: (steps, (across + 2) LANES), y: (views, columns LANES)."""
    index, fraction, start = table
    steps, columns = low.shape[1], alpha.shape[1]
    scratch_index = np.empty(columns, index.dtype)
    scratch_fraction = np.empty(columns, fraction.dtype)
    for block in range((steps + lines - 1) // lines):
        for s in range(part[0], part[1]):
            v = runs[s]
            i = start[block, s] if kept else 0
            for k in range(block * lines, min((block + 1) * lines, steps)):
                left, count = low[s, k], high[s, k] - low[s, k]
                j, f = (index[i:], fraction[i:]) if kept else (scratch_index, scratch_fraction)
                if not kept and count > 0:
                    right = left + count
                    fill(j[:count], f[:count], alpha[v, left:right], beta[v, left:right], k)
                for q in range(np.uint64(count)):
                    place = (np.uint64(left) + q) * EIGHT
                    interpolate_images(x[k], np.uint64(j[q]) * EIGHT, f[q], y[v], place)
                i += count


@njit(cache=True, nogil=True)
def adjoint_plane_batch(x, y, table, runs, low, high, alpha, beta, kept, lines, part):
    """`adjoint_plane` of LANES images. x: (steps, across, LANES), y: (views, columns LANES)."""
    index, fraction, start = table
    steps, across, _ = x.shape
    scratch_index = np.empty(alpha.shape[1], index.dtype)
    scratch_fraction = np.empty(alpha.shape[1], fraction.dtype)
    pairs = np.empty((lines, (across + 2) * 2 * LANES), x.dtype)
    for block in range(part[0], part[1]):
        pairs[:] = 0
        begin, end = block * lines, min((block + 1) * lines, steps)
        for s in range(len(runs)):
            v = runs[s]
            i = start[block, s] if kept else 0
            for k in range(begin, end):
                left, count = low[s, k], high[s, k] - low[s, k]
                j, f = (index[i:], fraction[i:]) if kept else (scratch_index, scratch_fraction)
                if not kept and count > 0:
                    right = left + count
                    fill(j[:count], f[:count], alpha[v, left:right], beta[v, left:right], k)
                for q in range(np.uint64(count)):
                    place = (np.uint64(left) + q) * EIGHT
                    scatter_images(pairs[k - begin], np.uint64(j[q]) * SIXTEEN, f[q], y[v], place)
                i += count
        for k in range(begin, end):
            for j in range(across):
                for b in range(LANES):
                    at = (2 * j + 2) * LANES + b
                    x[k, j, b] = pairs[k - begin, at] + pairs[k - begin, at - LANES]
