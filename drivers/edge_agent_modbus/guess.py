"""Registers that nobody has described: the same bytes in every type and order, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from struct import unpack

from edge_agent.contract import Decoding, Value
from edge_agent_modbus.address import HOLDING, Field
from edge_agent_modbus.decode import NOT_A_NUMBER, NOT_BCD, from_bcd, value_bytes

_NUMBERS = (
    ("int16", 1, ">h"), ("uint16", 1, ">H"), ("bcd16", 1, ""), ("int32", 2, ">i"), ("uint32", 2, ">I"),
    ("float32", 2, ">f"), ("bcd32", 2, ""), ("int64", 4, ">q"), ("uint64", 4, ">Q"), ("float64", 4, ">d"),
)  # fmt: skip
_ORDERS = {1: ("ABCD", "BADC"), 2: ("ABCD", "CDAB", "BADC", "DCBA"), 4: ("ABCD", "CDAB", "BADC", "DCBA")}
_LARGEST, _SMALLEST = 1e9, 1e-9
_TEXT_BYTES = 2


def decodings(data: bytes) -> list[Decoding]:
    """What the first registers of these bytes mean, in every type that they suffice for."""
    return [*_numbers(data), *_texts(data)]


def _numbers(data: bytes) -> Iterator[Decoding]:
    for kind, count, code in _NUMBERS:
        if len(data) < 2 * count:
            continue
        for order in _ORDERS[count]:
            settings = {"type": kind} | ({} if order == "ABCD" else {"word_order": order})
            raw = value_bytes(data, Field(HOLDING, 0, count, kind, order, None))
            if not code:
                number = from_bcd(raw)
                yield Decoding(settings, number, None if number is not None else NOT_BCD, number is not None)
                continue
            value: Value = unpack(code, raw)[0]
            if isinstance(value, float) and not isfinite(value):
                yield Decoding(settings, None, NOT_A_NUMBER, plausible=False)
            else:
                yield Decoding(settings, value, plausible=_plausible(value))


def _plausible(value: Value) -> bool:
    """Whether somebody would keep such a number: no denormal float, no exponent that no plant has."""
    size = abs(float(value)) if isinstance(value, int | float) else 0.0
    return size == 0 or _SMALLEST <= size <= _LARGEST


def _texts(data: bytes) -> Iterator[Decoding]:
    """The bytes as a text, where they are one; both byte orders."""
    for order, raw in (("ABCD", data), ("BADC", bytes(data[at ^ 1] for at in range(len(data) // 2 * 2)))):
        text = raw.partition(b"\0")[0]
        if len(text) >= _TEXT_BYTES and text.isascii() and text.decode("ascii").isprintable():
            settings = {"type": "string", "length": str(len(data))} | ({} if order == "ABCD" else {"word_order": order})
            yield Decoding(settings, text.decode("ascii").rstrip(" "))
