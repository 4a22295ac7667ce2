"""Instructions for compiled kernels: what Numba or LLVM does not find on its own.

`weighted_sum` and `scatter` are two inner loops in the language of LLVM, whose vectorisers leave
them scalar. They keep a row of channels in registers while they walk over the entries that read or
write it. An entry is a pixel of the map, `index`, and its share. The arrays are flat; pixel i has
its channels at i * stride and following, of which `shift` is the first of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

# Sums may be reordered; NaN and infinity keep their meaning.
REORDERED = ("reassoc", "contract", "nsz")

_INDEX = ir.IntType(64)


class _Row:
    """Reads and writes `lanes` neighbouring elements of a flat array."""

    def __init__(self, builder: ir.IRBuilder, array: Any, lanes: int) -> None:
        self.builder, self.data = builder, array.data
        self.element = array.data.type.pointee
        self.vector = ir.VectorType(self.element, lanes)
        self.align = 4 if isinstance(self.element, ir.FloatType) else 8

    def load(self, at: ir.Value) -> ir.Value:
        return self.builder.load(self._pointer(at), align=self.align)

    def store(self, row: ir.Value, at: ir.Value) -> None:
        self.builder.store(row, self._pointer(at), align=self.align)

    def _pointer(self, at: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(self.data, [at]), self.vector.as_pointer())


def _spread(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    """A vector of equal elements."""
    first = ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, first)
    return builder.shuffle_vector(
        one, one, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    )


def _total(builder: ir.IRBuilder, row: ir.Value) -> ir.Value:
    """The sum of a vector's elements."""
    element, lanes = row.type.element, row.type.count
    if lanes == 1:
        return builder.extract_element(row, ir.Constant(ir.IntType(32), 0))
    bits = 32 if isinstance(element, ir.FloatType) else 64
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(element, [element, row.type]),
        f"llvm.vector.reduce.fadd.v{lanes}f{bits}",
    )
    return builder.call(function, [ir.Constant(element, 0.0), row], fastmath=REORDERED)


@contextmanager
def _entries(
    builder: ir.IRBuilder,
    first: ir.Value,
    last: ir.Value,
    plane: ir.Value,
    planes: ir.Value,
    every: int = 1,
) -> Iterator[ir.Value]:
    """A loop over the entries first..last of each plane, `plane` apart; with `every` 2 of each
    second plane only."""
    none, one, step = (ir.Constant(_INDEX, number) for number in (0, 1, every))
    with cgutils.for_range_slice(builder, none, planes, step, intp=_INDEX) as (corner, _):
        base = builder.mul(corner, plane)
        start, stop = builder.add(base, first), builder.add(base, last)
        with cgutils.for_range_slice(builder, start, stop, one, intp=_INDEX) as (entry, _):
            yield entry


def weighted_sum(lanes: int) -> Callable:
    """out[at : at + lanes] = sum over the entries of share * value[index * stride + shift : ...].

    The entries are first..last of each of `planes` planes of `plane` entries, an even number of
    planes.
    """

    @intrinsic
    def kernel(context, value, index, share, first, last, plane, planes, stride, shift, out, at):
        int64 = types.int64
        signature = types.void(
            value, index, share, *[int64] * 6, out, int64
        )  # fmt: skip

        def generate(context, builder, signature, args):
            value, index, share, out = (
                context.make_array(signature.args[i])(context, builder, args[i])
                for i in (0, 1, 2, 9)
            )
            first, last, plane, planes, stride, shift = args[3:9]
            source, target = _Row(builder, value, lanes), _Row(builder, out, lanes)
            # Two planes at a time, a sum for each: an addition waits for the one before it.
            zero = ir.Constant(source.vector, None)
            totals = [cgutils.alloca_once_value(builder, zero) for _ in range(2)]
            for total in totals:
                builder.store(zero, total)
            with _entries(builder, first, last, plane, planes, every=2) as entry:
                for total, place in zip(totals, (entry, builder.add(entry, plane)), strict=True):
                    weight = builder.load(builder.gep(share.data, [place]))
                    pixel = builder.sext(builder.load(builder.gep(index.data, [place])), _INDEX)
                    row = source.load(builder.add(builder.mul(pixel, stride), shift))
                    part = builder.fmul(_spread(builder, weight, row.type), row, flags=REORDERED)
                    builder.store(builder.fadd(builder.load(total), part, flags=REORDERED), total)
            target.store(builder.fadd(*map(builder.load, totals)), args[10])
            return context.get_dummy_value()

        return signature, generate

    return kernel


def scatter(lanes: int) -> Callable:
    """The gradients of `weighted_sum`, for a row of the result's gradient at grad[at].

    Each entry adds share * row to its pixel in `of_value`, and the product of row and value to
    `product` at its own place.
    """

    @intrinsic
    def kernel(
        context, grad, at, value, index, share, first, last, plane, planes, stride, shift,
        of_value, product,
    ):  # fmt: skip
        int64 = types.int64
        signature = types.void(grad, int64, value, index, share, *[int64] * 6, of_value, product)

        def generate(context, builder, signature, args):
            grad, value, index, share, of_value, product = (
                context.make_array(signature.args[i])(context, builder, args[i])
                for i in (0, 2, 3, 4, 11, 12)
            )
            first, last, plane, planes, stride, shift = args[5:11]
            source, target = _Row(builder, value, lanes), _Row(builder, of_value, lanes)
            given = _Row(builder, grad, lanes).load(args[1])
            with _entries(builder, first, last, plane, planes) as entry:
                weight = builder.load(builder.gep(share.data, [entry]))
                pixel = builder.sext(builder.load(builder.gep(index.data, [entry])), _INDEX)
                start = builder.add(builder.mul(pixel, stride), shift)
                part = builder.fmul(_spread(builder, weight, given.type), given, flags=REORDERED)
                target.store(builder.fadd(target.load(start), part, flags=REORDERED), start)
                dot = _total(builder, builder.fmul(given, source.load(start), flags=REORDERED))
                place = builder.gep(product.data, [entry])
                builder.store(builder.fadd(builder.load(place), dot, flags=REORDERED), place)
            return context.get_dummy_value()

        return signature, generate

    return kernel


@intrinsic
def float_of_bits(context, bits):
    """The float32 that an int32 is the representation of."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate
