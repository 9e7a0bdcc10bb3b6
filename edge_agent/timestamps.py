"""Integer nanoseconds since 1970 UTC to RFC 3339 text and back, without losing a digit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from edge_agent.contract import NS_PER_S

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?\s*(Z|z|[+-]\d\d:?\d\d)?"
)


def rfc3339(time_ns: int, digits: int | None = None) -> str:
    """The time as text, in UTC: with so many digits of a second, or as few as show it all.

    `2026-11-23T07:00:05.12Z`; digits that are cut are cut, not rounded.
    """
    seconds, rest = divmod(time_ns, NS_PER_S)
    text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:09d}"
    fraction = fraction.rstrip("0") if digits is None else fraction[:digits]
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def parse(text: str) -> int:
    """The nanoseconds of an RFC 3339 time; a date alone is its midnight; without an offset it is UTC.

    Raises:
        ValueError: not such a time; the message shows one.
    """
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 2026-11-23T07:00:00Z")
    *parts, fraction, offset = match.groups()
    moment = datetime(*(int(part or 0) for part in parts), tzinfo=UTC)  # type: ignore[misc, arg-type]
    if offset and offset not in "Zz":
        sign = -1 if offset[0] == "-" else 1
        moment -= sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:]))
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS_PER_S + int((fraction or "").ljust(9, "0") or 0)
