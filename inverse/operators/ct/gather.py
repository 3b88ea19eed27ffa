"""Compiled loops of back-projection: pixels gather what lies behind them, a line of the image at a time.

Where a line of pixels falls on the detector is found once for all images of a batch. Sums are made view after view
whatever the number of images or threads. Data have a zero before their first and after their last element, and places
are counted from that zero on.
"""

# Compiled functions take their types from the call.
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
from numba import njit

from inverse.operators.ct.kernels import interpolate_line

PARALLEL, FLAT, ARC = 0, 1, 2


@njit(cache=True, nogil=True, error_model="numpy")
def inside(start, step, count, end):
    """first and last + 1 of the j below count with start + step j in [0, end)."""
    first, last = 0, count
    if abs(step) * count > 1e-9:
        a, b = -start / step, (end - start) / step
        first = max(first, math.ceil(min(a, b) - 1e-9))
        last = min(last, math.ceil(max(a, b) + 1e-9))
    # The edges once more, as numbers are rounded.
    while first < last and not 0 <= start + step * first < end:
        first += 1
    while first < last and not 0 <= start + step * (last - 1) < end:
        last -= 1
    return first, max(first, last)


@njit(cache=True, nogil=True, error_model="numpy")
def fill(index, fraction, start, step):
    """Element below start + step j and the fraction of the next one."""
    for j in range(len(index)):
        place = start + step * j
        k = np.int32(place)
        index[j] = k
        fraction[j] = place - k


@njit(cache=True, nogil=True, error_model="numpy")
def arctangent(t):
    """atan in operations that a processor does eight at once: two halvings of the angle, then its series.

    Error below 1e-15 up to 40 degrees, 1e-9 at 89.
    """
    for _ in range(2):
        t /= 1 + math.sqrt(1 + t * t)
    x = t * t
    series = 1 / 19
    for n in range(17, 0, -2):
        series = 1 / n - x * series
    return 4 * t * series


@njit(cache=True, nogil=True, error_model="numpy")
def fill_behind(index, fraction, weight, arc, s, s_step, depth, depth_step, scale, origin, end):
    """`fill` for rays of a source: at s and depth, which change from pixel to pixel; weight 0 beyond the detector."""
    for j in range(len(index)):
        aside, ahead = s + s_step * j, depth + depth_step * j
        near = 1 / ahead
        slope = aside * near
        square = near * near
        if arc:
            square = 1 / (aside * aside + ahead * ahead)
            slope = arctangent(slope)
        place = origin + scale * slope
        seen = 0 <= place < end and ahead > 0
        k = np.int32(place) if seen else np.int32(0)
        index[j] = k
        fraction[j] = place - k if seen else 0
        weight[j] = square if seen else 0


@njit(cache=True, nogil=True, error_model="numpy")
def gather_plane(out, data, kind, y, s, depth, scale, origin, first, last):
    """Lines first ... last - 1 of images (batch, y, x) from data (batch, views, elements).

    A pixel is s aside of the central ray and depth ahead of the source. s, depth (views, 3): value at y = 0 and the
    first pixel, change with y, change from pixel to pixel. On a flat detector it falls on origin + scale s / depth and
    weighs 1 / depth^2, on an arc on origin + scale atan(s / depth) and weighs 1 / (s^2 + depth^2).
    """
    count, end = out.shape[2], data.shape[2] - 1
    index, fraction = np.empty(count, np.int32), np.empty(count, out.dtype)
    weight, line = np.empty(count, out.dtype), np.empty(count, out.dtype)
    for i in range(first, last):
        for v in range(len(s)):
            aside, ahead = s[v, 0] + s[v, 1] * y[i], depth[v, 0] + depth[v, 1] * y[i]
            if kind == PARALLEL:
                start, step = origin + scale * aside, scale * s[v, 2]
                a, b = inside(start, step, count, end)
                fill(index[a:b], fraction[a:b], start + step * a, step)
                for image in range(len(out)):
                    interpolate_line(data[image, v], index[a:b], fraction[a:b], out[image, i, a:b])
            else:
                arc = kind == ARC
                fill_behind(index, fraction, weight, arc, aside, s[v, 2], ahead, depth[v, 2], scale, origin, end)
                for image in range(len(out)):
                    line[:] = 0
                    interpolate_line(data[image, v], index, fraction, line)
                    total = out[image, i]
                    for j in range(count):
                        total[j] += weight[j] * line[j]


@njit(cache=True, nogil=True, error_model="numpy")
def blend(out, left, right, fraction, weight):
    """out = weight times the interpolation of two columns."""
    kind = out.dtype.type
    a, b = kind(weight * (1 - fraction)), kind(weight * fraction)
    for r in range(len(out)):
        out[r] = a * left[r] + b * right[r]


@njit(cache=True, nogil=True, error_model="numpy")
def gather_cone(out, data, y, z, s, depth, scale, origin, scale_z, origin_z, first, last):
    """Lines first ... last - 1 of volumes (batch, y, x, z) from panels (batch, views, columns, rows).

    z: of the first pixel, and the distance to the next; otherwise as `gather_plane`.
    """
    count, rows, end = out.shape[3], data.shape[3], data.shape[2] - 1
    index, fraction = np.empty(count, np.int32), np.empty(count, out.dtype)
    column = np.empty(rows, out.dtype)
    for i in range(first, last):
        for v in range(len(s)):
            aside, ahead = s[v, 0] + s[v, 1] * y[i], depth[v, 0] + depth[v, 1] * y[i]
            for j in range(out.shape[2]):
                near = 1 / (ahead + depth[v, 2] * j)
                place = origin + scale * (aside + s[v, 2] * j) * near
                if not (0 <= place < end and near > 0):
                    continue
                k = int(place)
                start, step = origin_z + scale_z * z[0] * near, scale_z * z[1] * near
                a, b = inside(start, step, count, rows - 1)
                if a == b:
                    continue
                fill(index[a:b], fraction[a:b], start + step * a, step)
                low, high = index[a], index[b - 1] + 2
                for image in range(len(out)):
                    panel = data[image, v]
                    blend(column[low:high], panel[k, low:high], panel[k + 1, low:high], place - k, near * near)
                    interpolate_line(column, index[a:b], fraction[a:b], out[image, i, j, a:b])
