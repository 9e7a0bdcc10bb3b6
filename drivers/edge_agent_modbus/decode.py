"""From the bytes of a block to readings: everything that can be worked out beforehand is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from math import isfinite
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple, cast

from edge_agent.contract import Origin, Quality, Reading, Tag, Value, bad
from edge_agent_modbus.address import REGISTERS, Field

NOT_A_NUMBER = "not_a_number"
NOT_TEXT = "not_text"
NOT_BCD = "not_bcd"

_FORMATS = {
    "bool": "H",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "bcd16": "2s",
    "bcd32": "4s",
}
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
    texts = [index for index, field in enumerate(fields) if field.type == "string"]
    decimals = [index for index, field in enumerate(fields) if field.type in ("bcd16", "bcd32")]
    arrays = [(index, field) for index, field in enumerate(fields) if field.items]
    floats, decimals = ([index for index in each if not fields[index].items] for each in (floats, decimals))
    if not masks and not floats and not texts and not decimals and not arrays:
        return lambda data: _good(tags, unpack(data))

    def decode(data: bytes) -> list[Reading]:
        values = list(unpack(data))
        for index, mask in masks:
            values[index] = bool(values[index] & mask)
        readings = _good(tags, values)
        for index in floats:
            if not isfinite(values[index]):
                readings[index] = bad(tags[index], NOT_A_NUMBER)
        for index in texts:
            readings[index] = _text(tags[index], values[index])
        for index in decimals:
            number = from_bcd(values[index])
            readings[index] = bad(tags[index], NOT_BCD) if number is None else Reading(tags[index], None, number)
        for index, field in arrays:
            readings[index] = _array(tags[index], field, values[index])
        return readings

    return decode


def _good(tags: tuple[Tag, ...], values: Iterable[Value]) -> list[Reading]:
    rows = zip(tags, repeat(None), values, repeat(Quality.GOOD), repeat(None), repeat(Origin.LIVE), strict=False)
    return list(map(_new_reading, repeat(Reading), rows))


def _text(tag: Tag, raw: bytes) -> Reading:
    """UTF-8 up to the first NUL, without the spaces that fill it up."""
    try:
        return Reading(tag, None, raw.partition(b"\0")[0].decode("utf-8").rstrip(" "))
    except UnicodeDecodeError:
        return bad(tag, NOT_TEXT)


def from_bcd(raw: bytes) -> int | None:
    """The number whose decimal digits are the nibbles, the most significant first; None where one is above 9."""
    digits = raw.hex()
    return int(digits) if digits.isdecimal() else None


def value_bytes(data: bytes, field: Field) -> bytes:
    """The bytes of a field at the beginning of some data, as a big-endian value."""
    return bytes(data[position] for position in _byte_positions(field, field.start))


def _array(tag: Tag, field: Field, raw: bytes) -> Reading:
    """All values of an array, or none: a waveform with a hole is none."""
    size = len(raw) // field.items
    if field.type in ("bcd16", "bcd32"):
        numbers = [from_bcd(raw[at : at + size]) for at in range(0, len(raw), size)]
        good = [number for number in numbers if number is not None]
        return Reading(tag, None, tuple(good)) if len(good) == field.items else bad(tag, NOT_BCD)
    values = Struct(f">{field.items}{_FORMATS[field.type]}").unpack(raw)
    return Reading(tag, None, values) if all(map(isfinite, values)) else bad(tag, NOT_A_NUMBER)


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
    """Where the bytes of the big-endian value, or of each value of an array, stand in the block."""
    first = 2 * (field.start - start)
    size = 2 * REGISTERS[field.type] if field.items else 2 * field.count
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
