"""Writes the rows of a batch as text into one buffer: JSON objects, or the lines that COPY reads.

A float column has a resolution, so its values are whole numbers of 10**-decimals. A kernel writes their digits, which
takes a fifth of the time of a search for the shortest text that reads back as the same number, and gives the same text:
up to 15 digits, the shortest text of a number is the one it was made from. Only below 1e-6 it differs: 0.0000001 here,
1e-7 there. A column with a value that is no such number (NaN, more digits) is left to Arrow, which searches.

It loads numba, which a process that only reads should not do, so it is imported where it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datasets.schema import Field
from physics.compiled import inner, kernel

Floats = npt.NDArray[np.float64]
Wholes = npt.NDArray[np.int64]
Fractions = npt.NDArray[np.int32]
Place = Any  # np.uint64, whose sums mypy does not know
Places = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

_ONE = 10**8  # fractions are whole numbers of 1 / _ONE
_MOST = 10**15  # what is smaller has at most 15 digits
_LONGEST = len("-123456789012345.12345678")
_MINUS, _POINT, _ZERO = (ord(sign) for sign in "-.0")
_FOURS = [f"{number:04}" for number in range(10_000)]
_DIGITS = np.frombuffer("".join(_FOURS).encode(), np.uint8)
_SIGNIFICANT = np.array([len(four.rstrip("0")) for four in _FOURS], np.uint64)
# Places are unsigned, also in sums: numba asks of each signed one whether it counts from the end, at thrice the time.
_1, _4, _BLOCK = np.uint64(1), np.uint64(4), np.uint64(16)


@dataclass(frozen=True)
class Form:
    """How a row is written. `before`: the text in front of each column; `after`: the text behind the last.

    `quoted` writes a text. `missing` stands for NaN and the infinities; None leaves them their names.
    """

    before: tuple[bytes, ...]
    after: bytes
    quoted: Callable[[str], str]
    missing: str | None


def rows_of(batch: pa.RecordBatch, fields: tuple[Field, ...], form: Form) -> pa.LargeBinaryArray:
    """The text of each row, UTF-8. In the array's data they lie one behind the other."""
    wholes = np.empty((len(fields), batch.num_rows), np.int64)
    fractions = np.empty((len(fields), batch.num_rows), np.int32)
    texts = [*form.before, form.after]
    most = sum(map(len, texts))
    for number, field in enumerate(fields):
        column = batch.column(field.name)
        if _numbers(column, field, wholes[number], fractions[number]):
            most += _LONGEST
        else:
            codes, words = _coded(column, field, form)
            wholes[number] = codes
            wholes[number] += len(texts)
            fractions[number] = _ONE
            texts += words
            most += max(map(len, words), default=0)
    starts = np.cumsum([0, *map(len, texts)], dtype=np.uint64)
    table = np.frombuffer(b"".join([*texts, bytes(int(_BLOCK))]), np.uint8)
    out = np.empty(batch.num_rows * most + int(_BLOCK), np.uint8)
    ends = np.zeros(batch.num_rows + 1, np.int64)
    _write_rows(wholes, fractions, starts, table, out, ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]])]
    return pa.Array.from_buffers(pa.large_binary(), batch.num_rows, buffers)


def _numbers(column: pa.Array, field: Field, wholes: Wholes, fractions: Fractions) -> bool:
    """Split the column as `_write_number` takes it. False if it has a value that cannot be."""
    if pa.types.is_floating(field.type):
        assert field.decimals is not None
        values = column.to_numpy().astype(np.float64)
        return _split(values, 10.0**field.decimals, field.type == pa.float32(), wholes, fractions)
    if not pa.types.is_integer(field.type):
        return False
    wholes[:] = column.to_numpy()
    fractions[:] = 0
    return not len(wholes) or bool(wholes.min() >= 0 and wholes.max() < _MOST)


def _coded(column: pa.Array, field: Field, form: Form) -> tuple[npt.NDArray[Any], list[bytes]]:
    """The column as texts, and the place of each row's among them."""
    if pa.types.is_timestamp(field.type):  # all vehicles of a shard share their sample times
        column = column.dictionary_encode()
        times = pc.strftime(column.dictionary, format="%Y-%m-%dT%H:%M:%SZ")
        return column.indices.to_numpy(), [form.quoted(time).encode() for time in times.to_pylist()]
    if pa.types.is_dictionary(field.type):
        if len(column.dictionary) > len(column):  # the names of a large shard, for a few of its rows
            column = column.cast(field.type.value_type).dictionary_encode()
        return column.indices.to_numpy(), [form.quoted(name).encode() for name in column.dictionary.to_pylist()]
    numbers = pa.array(field.numbers(column)) if pa.types.is_floating(field.type) else column
    words = numbers.cast(pa.string())
    if form.missing is not None and pa.types.is_floating(field.type):
        words = pc.if_else(pc.is_finite(numbers), words, form.missing)
    return np.arange(len(words)), words.cast(pa.binary()).to_pylist()


@kernel
def _split(values: Floats, scale: float, rounds: bool, wholes: Wholes, fractions: Fractions) -> bool:
    """Split `values`, shape (rows,), into whole numbers and fractions, as `_write_number` takes them.

    scale   10**decimals, at most `_ONE`
    rounds  whether to round to multiples of 1/scale; otherwise a value that is none ends it, as does one of more than
            15 digits, NaN or an infinity: it returns False, with the rest not done
    """
    for row in range(len(values)):
        value = np.abs(values[row])
        steps = np.rint(value * scale)
        near = steps / scale
        if not (steps < _MOST and (rounds or near == value)):  # NaN is not less
            return False
        wholes[row] = np.int64(near)
        fraction = np.int64((steps - wholes[row] * scale) * (_ONE / scale))
        fractions[row] = ~fraction if np.signbit(values[row]) else fraction
    return True


@inner
def _write_number(whole: int, fraction: int, out: Bytes, at: Place) -> Place:
    """Write whole + fraction / _ONE, without zeros at its end and with a minus if the fraction is ~fraction, as 3.7, 12
    or -0. Returns the place behind it."""
    if fraction < 0:
        out[at] = _MINUS
        at += _1
        fraction = ~fraction
    if whole < 10_000:
        zeros = np.uint64(int(whole < 1000) + int(whole < 100) + int(whole < 10))
        _write_four(_4 * np.uint64(whole) + zeros, out, at)
        at += _4 - zeros
    else:
        size, limit = 5, 100_000
        while limit <= whole:
            size += 1
            limit *= 10
        at += np.uint64(size)
        for digit in range(size):
            out[at - np.uint64(digit + 1)] = _ZERO + whole % 10
            whole //= 10
    if fraction > 0:
        high, low = np.uint64(fraction // 10_000), np.uint64(fraction % 10_000)
        out[at] = _POINT
        at += _1
        _write_four(_4 * high, out, at)
        _write_four(_4 * low, out, at + _4)
        at += _4 + _SIGNIFICANT[low] if low > 0 else _SIGNIFICANT[high]
    return at


@inner
def _write_four(first: Place, out: Bytes, at: Place) -> None:
    """Copy four digits; what is too much is written over by what follows."""
    for digit in range(_4):
        out[at + digit] = _DIGITS[first + digit]


@inner
def _write_text(text: Place, starts: Places, table: Bytes, out: Bytes, at: Place) -> Place:
    """Copy a text in whole blocks; what is too much is written over by what follows. Returns the place behind it."""
    begin, end = starts[text], starts[text + _1]
    done = begin
    while done < end:
        for byte in range(_BLOCK):
            out[at + byte] = table[done + byte]
        done += _BLOCK
        at += _BLOCK
    return at - (done - end)


@kernel
def _write_rows(wholes: Wholes, fractions: Fractions, starts: Places, table: Bytes, out: Bytes, ends: Wholes) -> None:
    """Write all rows into `out`, and where each ends into `ends`, shape (rows,).

    wholes     (columns, rows)  the whole part of each number; of a text, its place in the table
    fractions  (columns, rows)  [1/_ONE], its complement for a negative number; `_ONE` for a text
    starts     (texts + 1,)     where each text of the table begins; the first texts, one more than there are columns,
                                stand around the columns
    table      (bytes,)         the texts, UTF-8, and a block of anything
    out        (bytes,)         with room for a block more than the longest rows
    """
    columns = np.uint64(len(wholes))
    at = np.uint64(0)
    for row in range(np.uint64(len(ends))):
        for column in range(columns):
            at = _write_text(column, starts, table, out, at)
            whole, fraction = wholes[column, row], fractions[column, row]
            if fraction == _ONE:
                at = _write_text(np.uint64(whole), starts, table, out, at)
            else:
                at = _write_number(whole, fraction, out, at)
        at = _write_text(columns, starts, table, out, at)
        ends[row] = at
