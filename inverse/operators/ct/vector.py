"""Eight interpolations at once: the innermost steps of the projectors as vector instructions.

The compiler does not vectorise reads at computed places on its own. Each function works element by element without
reordering or fusing a sum, so eight at once give the same bits as one by one.
"""

# The compiler passes its own objects.
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 8
_INDEX = ir.IntType(32)


def _constants(values: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(_INDEX, len(values)), list(values))


class _Code:
    """Loads, stores and shuffles on the arrays that an intrinsic was called with."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any):
        self.builder = builder
        self.values = args
        self.arrays = [
            context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else None
            for kind, value in zip(signature.args, args, strict=True)
        ]

    def pointer(self, array: int, place: Any, lanes: int) -> tuple[Any, int]:
        """Address of `lanes` elements of an argument from `place` on, and the size of one."""
        element = self.builder.gep(self.arrays[array], [place])
        kind = element.type.pointee
        size = kind.width // 8 if isinstance(kind, ir.IntType) else 4 if isinstance(kind, ir.FloatType) else 8
        return self.builder.bitcast(element, ir.VectorType(kind, lanes).as_pointer()), size

    def load(self, array: int, place: Any, lanes: int) -> Any:
        address, align = self.pointer(array, place, lanes)
        return self.builder.load(address, align=align)

    def store(self, value: Any, array: int, place: Any, lanes: int) -> None:
        address, align = self.pointer(array, place, lanes)
        self.builder.store(value, address, align=align)

    def shuffle(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        return self.builder.shuffle_vector(a, b, _constants(order))

    def spread(self, scalar: Any) -> Any:
        """A vector of LANES times one number."""
        empty = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
        return self.shuffle(self.builder.insert_element(empty, scalar, _INDEX(0)), empty, [0] * LANES)

    def places(self, array: int, place: Any, factor: int) -> list[Any]:
        """LANES unsigned indices of an argument, times a factor, as 64-bit integers."""
        wide = ir.IntType(64)
        found = []
        for lane in range(LANES):
            element = self.builder.gep(self.arrays[array], [self.builder.add(place, place.type(lane))])
            found.append(self.builder.mul(self.builder.zext(self.builder.load(element), wide), wide(factor)))
        return found

    def split(self, value: Any, factor: Any) -> tuple[Any, Any]:
        """value (1 - factor) and value factor."""
        second = self.builder.fmul(value, factor)
        return self.builder.fsub(value, second), second


def _emits(emit: Callable[[_Code], None], args: Sequence[Any]) -> tuple[Any, Callable[..., Any]]:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit(_Code(context, builder, signature, values))
        return context.get_dummy_value()

    return types.void(*args), generate


@intrinsic
def interpolate_rays(typing, row, index, fraction, start, y, place):
    """y[place + i] += (1 - f_i) row[j_i] + f_i row[j_i + 1] for LANES rays; j, f from `start` on."""

    def emit(code: _Code) -> None:
        pairs = [code.load(0, j, 2) for j in code.places(1, code.values[3], 1)]
        while len(pairs) > 1:
            width = pairs[0].type.count
            pairs = [code.shuffle(a, b, range(2 * width)) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
        a, b = (code.shuffle(pairs[0], pairs[0], range(k, 2 * LANES, 2)) for k in (0, 1))
        f = code.load(2, code.values[3], LANES)
        builder = code.builder
        step = builder.fadd(a, builder.fmul(f, builder.fsub(b, a)))
        code.store(builder.fadd(code.load(4, code.values[5], LANES), step), 4, code.values[5], LANES)

    return _emits(emit, (row, index, fraction, start, y, place))


@intrinsic
def scatter_rays(typing, pairs, index, fraction, start, y, place):
    """pairs[2 j_i] += (1 - f_i) y_i, pairs[2 j_i + 1] += f_i y_i for LANES rays: the adjoint of `interpolate_rays`."""

    def emit(code: _Code) -> None:
        first, second = code.split(code.load(4, code.values[5], LANES), code.load(2, code.values[3], LANES))
        for lane, j in enumerate(code.places(1, code.values[3], 2)):
            both = code.shuffle(first, second, [lane, LANES + lane])
            code.store(code.builder.fadd(code.load(0, j, 2), both), 0, j, 2)

    return _emits(emit, (pairs, index, fraction, start, y, place))


@intrinsic
def interpolate_images(typing, row, start, fraction, y, place):
    """y[place:] += (1 - f) row[start:] + f row[start + LANES:] for one ray through LANES images."""

    def emit(code: _Code) -> None:
        builder, start = code.builder, code.values[1]
        a, b = code.load(0, start, LANES), code.load(0, builder.add(start, start.type(LANES)), LANES)
        step = builder.fadd(a, builder.fmul(code.spread(code.values[2]), builder.fsub(b, a)))
        code.store(builder.fadd(code.load(3, code.values[4], LANES), step), 3, code.values[4], LANES)

    return _emits(emit, (row, start, fraction, y, place))


@intrinsic
def scatter_images(typing, pairs, start, fraction, y, place):
    """pairs[start:] += (1 - f) y[place:], pairs[start + LANES:] += f y[place:]: adjoint of `interpolate_images`."""

    def emit(code: _Code) -> None:
        first, second = code.split(code.load(3, code.values[4], LANES), code.spread(code.values[2]))
        both = code.shuffle(first, second, range(2 * LANES))
        code.store(code.builder.fadd(code.load(0, code.values[1], 2 * LANES), both), 0, code.values[1], 2 * LANES)

    return _emits(emit, (pairs, start, fraction, y, place))
