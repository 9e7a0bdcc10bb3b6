"""How a value stands in a cell: numbers and texts as they are, everything else as bytes."""

from __future__ import annotations

import json
from typing import Any

from edge_agent.contract import Value

PACKED: frozenset[type] = frozenset({bool, tuple, bytes})
"""The types that SQLite would not give back as they were."""
_RAW = b"\x00"


def as_text(content: bytes) -> str:
    """A text of the database, also where the disk has changed it: a checksum or a missing row will tell."""
    return content.decode("utf-8", "replace")


def pack(value: Any) -> int | float | str | bytes | None:
    """The cell of a value. Booleans, arrays, bytes and integers of more than 63 bits become bytes."""
    if isinstance(value, bytes):
        return _RAW + value
    if isinstance(value, bool | tuple):
        return json.dumps(value).encode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value).encode()
    return value  # type: ignore[no-any-return]


def fitting(cell: Any) -> Any:
    """The cell as SQLite takes it: integers of 64 bits without sign as bytes, halves of a surrogate pair as `?`."""
    if isinstance(cell, str):
        return cell.encode("utf-8", "replace").decode()
    return pack(cell) if isinstance(cell, int) else cell


def unpack(cell: Any) -> Value:
    """The value of a cell; None where the disk has made nonsense of it."""
    if not isinstance(cell, bytes):
        return cell  # type: ignore[no-any-return]
    if cell.startswith(_RAW):
        return cell[1:]
    try:
        value = json.loads(cell)
    except ValueError:
        return None
    return tuple(value) if isinstance(value, list) else value
