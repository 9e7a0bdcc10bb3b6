"""What registers may mean: the same bytes in every type and word order, read by the driver's own decoder."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from edge_agent.contract import NS_PER_S, Decoding, Tag, Value
from edge_agent_modbus.address import MAX_STRING_BYTES
from edge_agent_modbus.decode import Wanted, decoder
from edge_agent_modbus.settings import ModbusTag

_TYPES = (
    ("uint16", 1), ("int16", 1), ("uint32", 2), ("int32", 2), ("float32", 2),
    ("uint64", 4), ("int64", 4), ("float64", 4), ("bcd16", 1), ("bcd32", 2),
)  # fmt: skip
_ORDERS = {
    1: ("ABCD", "BADC"),
    2: ("ABCD", "CDAB", "BADC", "DCBA"),
    4: ("ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"),
}
_SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}
_LIMIT = 1e9
"""No quantity of a machine is larger, or smaller than its inverse, in a unit that people use."""
_LARGEST_EXACT = 2**53
_LEAST_TEXT = 2


def decodings(data: bytes) -> list[Decoding]:
    """Each way in which the first registers can be read; a string takes all of them, and is shown where it is text."""
    found = [_decoding(way, data) for way in _ways(len(data))]
    return [one for one in found if one.settings["type"] != "string" or one.plausible]


def _ways(size: int) -> Iterator[dict[str, str]]:
    for kind, registers in _TYPES:
        for order in _ORDERS[registers] if 2 * registers <= size else ():
            yield {"type": kind} | ({} if order.startswith("ABCD") else {"word_order": order})
    if size >= 2:
        string = {"type": "string", "length": str(min(size - size % 2, MAX_STRING_BYTES))}
        yield string
        yield {**string, "word_order": "BADC"}


def _decoding(way: dict[str, str], data: bytes) -> Decoding:
    given = {**way, "length": int(way["length"])} if "length" in way else dict(way)
    settings = ModbusTag(address="holding:0", **given)
    field = settings.field()
    reading = decoder([Wanted(Tag("registers.first", settings, NS_PER_S), field)], 0)(data[: 2 * field.count])[0]
    plausible = reading.cause is None and _plausible(way["type"], reading.value)
    return Decoding(way, reading.value, reading.cause, plausible)


def _plausible(kind: str, value: Value) -> bool:
    if isinstance(value, str):
        return len(value) >= _LEAST_TEXT and value.isascii() and value.isprintable()
    if isinstance(value, float):
        if not isfinite(value) or 0.0 < abs(value) < _SMALLEST_NORMAL[kind]:
            return False
        return value == 0.0 or 1 / _LIMIT <= abs(value) <= _LIMIT
    return not isinstance(value, int) or abs(value) < _LARGEST_EXACT
