"""From the bytes of a block to readings: everything that can be worked out beforehand is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from math import isfinite
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple, cast

from edge_agent.contract import Origin, Quality, Reading, Tag, Value, bad
from edge_agent_modbus.address import Field

NOT_A_NUMBER = "not_a_number"
NOT_TEXT = "not_text"
NOT_BCD = "not_bcd"

_FORMATS = {
    "bool": "H", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
    "float32": "f", "float64": "d", "bcd16": "H", "bcd32": "I",
}  # fmt: skip
_BITS_OF_BYTE = [tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256)]

# Readings without the cost of a Python call for each.
_new_reading = cast("Callable[[type[Reading], Iterable[Any]], Reading]", tuple.__new__)


class Wanted(NamedTuple):
    """A tag, and what it occupies."""

    tag: Tag
    field: Field


def decoder(wanted: Sequence[Wanted], start: int) -> Callable[[bytes], list[Reading]]:
    """What turns the data of a block that begins at `start` into the readings of the tags, in their order."""
    tags = tuple(tag for tag, _ in wanted)
    fields = [field for _, field in wanted]
    if fields[0].table.bits:
        pick = _picker([field.start - start for field in fields])
        return lambda data: _good(tags, pick(tuple(chain.from_iterable(map(_BITS_OF_BYTE.__getitem__, data)))))
    unpack = _unpacker(fields, start)
    masks = [(index, 1 << field.bit) for index, field in enumerate(fields) if field.bit is not None]
    floats = [index for index, field in enumerate(fields) if field.type in ("float32", "float64")]
    floats = [index for index in floats if not fields[index].items]
    finishes = [(index, finish) for index, field in enumerate(fields) if (finish := _finish(field)) is not None]
    if not masks and not floats and not finishes:
        return lambda data: _good(tags, unpack(data))

    def decode(data: bytes) -> list[Reading]:
        values = list(unpack(data))
        for index, mask in masks:
            values[index] = bool(values[index] & mask)
        readings = _good(tags, values)
        for index in floats:
            if not isfinite(values[index]):
                readings[index] = bad(tags[index], NOT_A_NUMBER)
        for index, finish in finishes:
            readings[index] = finish(tags[index], values[index])
        return readings

    return decode


def _good(tags: tuple[Tag, ...], values: Iterable[Value]) -> list[Reading]:
    none = repeat(None)
    rows = zip(tags, none, values, repeat(Quality.GOOD), none, repeat(Origin.LIVE), none, strict=False)
    return list(map(_new_reading, repeat(Reading), rows))


def _text(tag: Tag, raw: bytes) -> Reading:
    """UTF-8 up to the first NUL, without the spaces that fill it up."""
    try:
        return Reading(tag, None, raw.partition(b"\0")[0].decode("utf-8").rstrip(" "))
    except UnicodeDecodeError:
        return bad(tag, NOT_TEXT)


def _finish(field: Field) -> Callable[[Tag, Any], Reading] | None:
    """What makes the reading of a value that is not finished when it is unpacked."""
    if field.items:
        return _array(field)
    finishes: dict[str, Callable[[Tag, Any], Reading]] = {"string": _text, "bcd16": _bcd, "bcd32": _bcd}
    return finishes.get(field.type)


def _bcd(tag: Tag, raw: int) -> Reading:
    """Four bits to a decimal digit."""
    digits = f"{raw:x}"
    return Reading(tag, None, int(digits)) if digits.isdecimal() else bad(tag, NOT_BCD)


def _array(field: Field) -> Callable[[Tag, Any], Reading]:
    """A tuple of numbers; one that is none makes the whole array BAD."""
    unpack = Struct(f">{field.items}{_FORMATS[field.type]}").unpack
    is_bcd = field.type.startswith("bcd")

    def array(tag: Tag, raw: bytes) -> Reading:
        values = unpack(raw)
        if is_bcd:
            digits = [f"{value:x}" for value in values]
            if not all(map(str.isdecimal, digits)):
                return bad(tag, NOT_BCD)
            values = tuple(map(int, digits))
        return Reading(tag, None, values) if all(map(isfinite, values)) else bad(tag, NOT_A_NUMBER)

    return array


def _unpacker(fields: Sequence[Field], start: int) -> Callable[[bytes], tuple[Any, ...]]:
    """All values of a block at once: its bytes gathered into big-endian values in the order of the fields."""
    unpack = Struct(">" + "".join(map(_format, fields))).unpack
    positions = [position for field in fields for position in _byte_positions(field, start)]
    if positions == list(range(2 * (max(field.end for field in fields) - start))):
        return unpack
    gather = _picker(positions)
    return lambda data: unpack(bytes(gather(data)))


def _format(field: Field) -> str:
    return f"{2 * field.count}s" if field.type == "string" or field.items else _FORMATS[field.type]


def _byte_positions(field: Field, start: int) -> list[int]:
    """Where the bytes of the big-endian value stand in the block."""
    first, size = 2 * (field.start - start), 2 * field.count // (field.items or 1)
    places: dict[str, Callable[[int], int]] = {
        "ABCD": lambda byte: byte,
        "BADC": lambda byte: byte ^ 1,
        "CDAB": lambda byte: size - 2 - (byte & ~1) + (byte & 1),
        "DCBA": lambda byte: size - 1 - byte,
    }
    place = places[field.word_order]
    return [first + item * size + place(byte) for item in range(field.items or 1) for byte in range(size)]


def _picker(positions: list[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    if len(positions) == 1:
        only = positions[0]
        return lambda items: (items[only],)
    return itemgetter(*positions)
