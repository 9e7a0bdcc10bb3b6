"""Integer nanoseconds since 1970 UTC to RFC 3339 text and back, without losing a digit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from edge_agent.contract import NS_PER_S

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?\s*(Z|z|[+-]\d\d:?\d\d)?"
)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(time_ns: int) -> str:
    """A time in UTC with `Z`: no fraction when it is a whole second, else as many of 3, 6 or 9 digits as it needs."""
    whole, part = divmod(time_ns, NS_PER_S)
    text = (_EPOCH + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{part:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def rfc3339_ms(time_ns: int) -> str:
    """A time in UTC in whole milliseconds, always with three digits."""
    whole, part = divmod(time_ns, NS_PER_S)
    return f"{rfc3339(whole * NS_PER_S)[:-1]}.{part // 1_000_000:03d}Z"


def parse(text: str) -> int:
    """The nanoseconds of an RFC 3339 time; a date alone is its midnight; without an offset it is UTC.

    Raises:
        ValueError: not such a time; the message shows one.
    """
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 2026-11-23T07:00:00Z")
    *parts, fraction, offset = match.groups()
    try:
        moment = datetime(*(int(part or 0) for part in parts), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from error
    if offset and offset not in "Zz":
        sign = -1 if offset[0] == "-" else 1
        moment -= sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:]))
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + int((fraction or "").ljust(9, "0") or 0)
