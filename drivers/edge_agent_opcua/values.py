"""From what a server sends to readings: quality from the status code, time from the source, value by its type."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from math import isfinite

from edge_agent.contract import Origin, Quality, Reading, Tag, Value, bad
from edge_agent_opcua.wire import (
    NUMBERS,
    DataValue,
    Decoded,
    DecodeError,
    NodeName,
    Scalar,
    Status,
    Ticks,
    Unsupported,
    Wire,
)

_TICKS_1970 = 116_444_736_000_000_000
_TICKS_LIMIT = _TICKS_1970 + 2**63 // 100
_TICKS_9999 = 2_650_467_743_990_000_000
_FULL_STRUCTURE = 0xFFFF0000
_OVERFLOW = 0x0480  # the info type DataValue, and its overflow bit
_SEVERITY_QUALITY = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)


@lru_cache(maxsize=256)
def status_name(status: int) -> str:
    """The name of a status code, such as BadSensorFailure, without its info bits."""
    from asyncua.ua.status_codes import get_name_and_doc

    code = status & _FULL_STRUCTURE
    name, explanation = get_name_and_doc(code)
    return f"{name}_0x{code:08X}" if explanation.startswith("Unknown") else name


def time_ns(ticks: int) -> int | None:
    """Integer nanoseconds since 1970 UTC; None for a DateTime that is null or out of range."""
    return (ticks - _TICKS_1970) * 100 if 0 < ticks < _TICKS_LIMIT else None


def times_of(sample: DataValue) -> tuple[int | None, int | None]:
    """The time for a reading, which is the source's or where that gave none the server's, and the server's."""
    server = time_ns(sample.server)
    source = time_ns(sample.source)
    return server if source is None else source, server


def rfc3339(ticks: int) -> str:
    """A DateTime as text in UTC, to 100 ns; what lies outside the years 1601 to 9999 is held to them."""
    seconds, fraction = divmod(min(max(ticks, 0), _TICKS_9999), 10_000_000)
    moment = datetime(1601, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    decimals = f"{fraction:07d}".rstrip("0")
    return f"{moment:%Y-%m-%dT%H:%M:%S}" + (f".{decimals}Z" if decimals else "Z")


def value_of(decoded: Decoded) -> tuple[Value, str | None]:
    """The value for a reading, or None and the cause why there is none."""
    if decoded is None:
        return None, "no_value"
    if isinstance(decoded, Unsupported):
        return None, f"unsupported_type {decoded.type_name}"
    if isinstance(decoded, tuple):
        items = tuple(map(_plain, decoded))
        return (items, None) if all(map(_is_number, items)) else (None, "not_a_number")
    if isinstance(decoded, bytes):
        return decoded, None
    value = _plain(decoded)
    return (value, None) if _is_number(value) else (None, "not_a_number")


def _plain(decoded: Scalar | None) -> bool | int | float | str:
    """A number as it is, and everything else as people write it; a null in an array is an empty text."""
    if isinstance(decoded, Ticks):
        return rfc3339(decoded)
    if isinstance(decoded, Status):
        return status_name(decoded)
    if isinstance(decoded, NodeName):
        return node_text(decoded)
    if isinstance(decoded, bool | int | float):
        return decoded
    return "" if decoded is None else str(decoded)


def _is_number(value: bool | int | float | str) -> bool:
    return not isinstance(value, float) or isfinite(value)


def node_text(name: NodeName) -> str:
    """A NodeId as a value, for people: the index of its namespace is that of the present session, not an address."""
    kinds = {int: "i", str: "s", uuid.UUID: "g", bytes: "b"}
    content = name.identifier
    text = base64.b64encode(content).decode() if isinstance(content, bytes) else str(content or 0)
    place = f"nsu={name.namespace};" if name.namespace else f"ns={name.index};" if name.index else ""
    return f"{place}{kinds.get(type(content), 'i')}={text}"


def readings_of(tag: Tag, sample: DataValue) -> list[Reading]:
    """What one DataValue says of a tag: one reading, and before it another where the server lost values."""
    time, server = times_of(sample)
    lost = [bad(tag, "overflow", time, server)] if sample.status & _OVERFLOW == _OVERFLOW else []
    quality = _SEVERITY_QUALITY[sample.status >> 30]
    if quality is Quality.BAD:
        return [*lost, bad(tag, status_name(sample.status), time, server)]
    value, cause = value_of(sample.value)
    if cause is not None:
        return [*lost, bad(tag, cause, time, server)]
    cause = None if quality is Quality.GOOD else status_name(sample.status)
    return [*lost, Reading(tag, time, value, quality, cause, Origin.LIVE, server)]


_Layout = tuple[struct.Struct, int, int]


def _layouts() -> dict[bytes, _Layout]:
    """For each mask and number type: how to take handle, value, status if there is one, and times, in one step.

    With it the places among these of the time to use and of the server's, 0 where there is none of the server's.
    """
    layouts: dict[bytes, _Layout] = {}
    for (type_id, code), mask in product(NUMBERS.items(), range(64)):
        source, server = mask & 0x04, mask & 0x08
        if not mask & 0x01 or not (source or server):
            continue
        text = "<I2x" + code + ("I" if mask & 0x02 else "")
        text += ("q" if source else "") + ("2x" if mask & 0x10 else "")
        text += ("q" if server else "") + ("2x" if mask & 0x20 else "")
        at = 3 if mask & 0x02 else 2
        layouts[bytes((mask, type_id))] = struct.Struct(text), at, 0 if not server else at + 1 if source else at
    return layouts


_LAYOUTS = _layouts()


def data_change(body: bytes, tags: Sequence[Tag]) -> list[Reading]:
    """The readings in a DataChangeNotification, in order; the client handle of an item is its index in `tags`.

    This is where the driver spends its time: a good number with a time is taken in one step, all else field by field.

    Raises:
        DecodeError: the body is damaged, or speaks of an item that was never asked for.
    """
    wire = Wire(body)
    layouts, readings = _LAYOUTS, list[Reading]()
    append = readings.append
    try:
        count = wire.length()
        pos = wire.pos
        for _ in range(count):
            found = layouts.get(body[pos + 4 : pos + 6])
            if found is not None:
                layout, time_at, server_at = found
                fields = layout.unpack_from(body, pos)
                ticks = fields[time_at]
                if (time_at == 2 or not fields[2]) and 0 < ticks < _TICKS_LIMIT and isfinite(fields[1]):
                    server = time_ns(fields[server_at]) if server_at else None
                    time = (ticks - _TICKS_1970) * 100
                    append(Reading(tags[fields[0]], time, fields[1], Quality.GOOD, None, Origin.LIVE, server))
                    pos += layout.size
                    continue
            wire.pos = pos
            handle = wire.u32()
            readings += readings_of(tags[handle], wire.data_value())
            pos = wire.pos
        wire.pos = pos
        for _ in range(wire.length()):
            wire.diagnostic_info()
        wire.end()
    except (struct.error, IndexError) as error:
        raise DecodeError("a notification ends early, or names an item that was never asked for") from error
    return readings
