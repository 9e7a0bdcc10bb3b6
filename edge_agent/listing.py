"""Stored readings and records as people list them: pages of plain objects, from the agent or from its files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from math import isfinite
from typing import Any

from edge_agent.contract import Value
from edge_agent.intake import NOTHING, TagState
from edge_agent.store import Store
from edge_agent.timestamps import rfc3339

PAGE = 1_000
SUCCESS_BELOW = 0x80
"""MQTT: a reason code below this says that the broker has accepted the record."""
LARGEST_EXACT_JSON = 2**53

Page = Callable[[Store, dict[str, Any], int], tuple[list[dict[str, Any]], int | None]]
"""(store, arguments, the last id seen) to (items, the last id of this page or None at the end)."""


def plain(value: Value) -> Any:
    """A value as JSON holds it: bytes in Base64, arrays as lists, integers beyond 2^53 as strings, NaN as none."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, int) and abs(value) > LARGEST_EXACT_JSON:
        return str(value)
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def tag_as_read(state: TagState, now: int, seen: int | None) -> dict[str, Any]:
    """A tag as it was read last: raw, scaled, quality, and how long ago its device was `seen`, in seconds."""
    known = state.value is not NOTHING
    value = plain(state.value) if known else None
    return {
        "tag": state.name,
        "raw": plain(state.raw) if state.scaled else value,
        "value": value,
        "quality": state.quality.name.lower(),
        "cause": state.cause if known else "not_started",
        "age_s": round((now - seen) / 1e9, 3) if known and seen else None,
        "source_time": _time(state.device_time),
        "server_time": _time(state.server_time),
        "unit": state.unit,
        "place": state.place,
    }


def _event(payload: bytes) -> dict[str, Any] | None:
    """What a record says; None where the disk has changed it beyond reading."""
    try:
        event: dict[str, Any] = json.loads(payload)
    except ValueError:
        return None
    return event


def _time(time: int | None) -> str | None:
    """A time that a device gave, as wrong as it may be; none where it cannot be written."""
    if time is None:
        return None
    try:
        return rfc3339(time)
    except OverflowError:
        return None


def readings_page(store: Store, arguments: dict[str, Any], after: int) -> tuple[list[dict[str, Any]], int | None]:
    """One page of readings. Arguments: `tags`, `since`, `until` (ns)."""
    found = store.readings.page(
        tags=arguments.get("tags") or (),
        since=arguments.get("since"),
        until=arguments.get("until"),
        after=after,
        limit=PAGE,
    )
    items = [
        {
            "tag": reading.tag,
            "time": rfc3339(reading.time),
            "value": plain(reading.value),
            "quality": reading.quality.name.lower(),
            "cause": reading.cause,
            "received": rfc3339(reading.received or reading.time),
            "source_time": _time(reading.source_time),
            "server_time": _time(reading.server_time),
        }
        for reading in found
    ]
    return items, found[-1].id if len(found) == PAGE else None


def records_page(store: Store, arguments: dict[str, Any], after: int) -> tuple[list[dict[str, Any]], int | None]:
    """One page of records. Arguments: `type` (`production` …), `since`, `until` (ns), `waiting`, `dead` (bool)."""
    found = store.records.page(
        type=arguments.get("type"),
        since=arguments.get("since"),
        until=arguments.get("until"),
        waiting=bool(arguments.get("waiting")),
        dead=bool(arguments.get("dead")),
        after=after,
        limit=PAGE,
    )
    items = [
        {
            "topic": record.topic,
            "issued": rfc3339(record.issued),
            "answered": rfc3339(record.answered) if record.answered else None,
            "reason_code": record.reason_code,
            "reason": record.reason,
            "event": _event(record.payload),
        }
        for record in found
    ]
    return items, found[-1].position if len(found) == PAGE else None


def issued_page(store: Store, arguments: dict[str, Any], after: int) -> tuple[list[dict[str, Any]], int | None]:
    """One page of what was issued, for whoever compares it with what arrived; without what the disk has changed.

    A record was `delivered` (the broker has it), is `waiting` to be, or neither: a dead letter.
    """
    found = store.delivery.issued_after(after, PAGE)
    items = []
    for issue in found:
        event = issue.payload and _event(issue.payload)
        if not event:
            continue
        items.append(
            {
                "id": event["id"],
                "source": event["source"],
                "topic": issue.topic,
                "sequence": issue.sequence,
                "sha256": hashlib.sha256(issue.payload or b"").hexdigest(),
                "delivered": issue.reason_code is not None and issue.reason_code < SUCCESS_BELOW,
                "waiting": issue.reason_code is None,
            }
        )
    return items, found[-1].position if len(found) == PAGE else None


def span_to_send_again(store: Store, arguments: dict[str, Any]) -> tuple[int, int]:
    """Behind which position, and up to which, `send_some_again` has something to look at. The same arguments."""
    return store.delivery.span(
        since=arguments.get("since"), until=arguments.get("until"), dead=bool(arguments.get("dead"))
    )


def send_some_again(store: Store, arguments: dict[str, Any], after: int, last: int) -> tuple[int, int]:
    """Put a slice of the answered records in (after, last] back into the outbox; how many, and where the slice ends.

    Arguments: `since`, `until` (ns), `topic`, `dead`.
    """
    with store.transaction():
        return store.delivery.send_again(
            after,
            last,
            since=arguments.get("since"),
            until=arguments.get("until"),
            topic=arguments.get("topic"),
            dead=bool(arguments.get("dead")),
        )


def send_again(store: Store, arguments: dict[str, Any]) -> int:
    """Put answered records back into the outbox, slice by slice; how many. Arguments as of `send_some_again`."""
    count, (after, last) = 0, span_to_send_again(store, arguments)
    while after < last:
        some, after = send_some_again(store, arguments, after, last)
        count += some
    return count
