"""Numbers, durations and times as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge_agent.timestamps import parse

NBSP = "\u00a0"
MISSING = "–"
_HOUR_S, _MINUTE_S = 3600, 60


def cleaned(text: Any, longest: int = 300) -> str:
    """What a person or a device wrote, on one line, without control characters, and not for ever."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return shortened(" ".join(shown.split(" ")).strip(), longest)


def shortened(text: str, longest: int) -> str:
    """At most so many letters of a text."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def number(value: float | None, unit: str | None = None) -> str:
    """A count or a quantity with its unit, thousands apart."""
    if value is None:
        return MISSING
    digits = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    shown = digits.replace(",", NBSP).replace("-", "−")
    return shown if unit in (None, "", "1") else f"{shown}{NBSP}{unit}"


def percent(share: float | None, digits: int = 1) -> str:
    """A ratio in percent."""
    return MISSING if share is None else f"{share * 100:.{digits}f}{NBSP}%".replace("-", "−")


def duration(seconds: float | None) -> str:
    """A duration in the two units that matter: `6 h 12 min`, `4 min 10 s`, `9.8 s`."""
    if seconds is None:
        return MISSING
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + f"{NBSP}s"
    whole = round(seconds)
    if whole < _HOUR_S:
        minutes, rest = divmod(whole, _MINUTE_S)
        return f"{minutes}{NBSP}min" + (f"{NBSP}{rest:02d}{NBSP}s" if rest else "")
    hours, rest = divmod(round(seconds / _MINUTE_S), 60)
    return f"{hours}{NBSP}h" + (f"{NBSP}{rest:02d}{NBSP}min" if rest else "")


def several(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def seconds_of(text: Any) -> float | None:
    """Seconds since 1970 UTC of an RFC 3339 time; None of none."""
    return None if text is None else parse(str(text)) / 1e9


class Zone:
    """The machine's local time. A zone that this computer does not know is shown as UTC, and says so by its name."""

    def __init__(self, name: str | None) -> None:
        try:
            self._zone: ZoneInfo | None = ZoneInfo(name) if name else None
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self._zone = None
        self.name = name if name and self._zone else "UTC"

    def local(self, at: float) -> datetime:
        """The local time of seconds since 1970 UTC."""
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).astimezone(self._zone or UTC)

    def clock(self, at: float | None, *, with_seconds: bool = False) -> str:
        """The time of day."""
        if at is None:
            return MISSING
        return f"{self.local(at):%H:%M:%S}" if with_seconds else f"{self.local(at):%H:%M}"

    def offset(self, at: float) -> str:
        """The offset from UTC: `UTC+01:00`."""
        text = f"{self.local(at):%z}"
        return f"UTC{text[:3]}:{text[3:5]}"

    def span(self, start: float, end: float) -> str:
        """Begin and end with the zone, and both offsets where the clocks change between them."""
        first, last = self.offset(start), self.offset(end)
        if first == last:
            return f"{self.clock(start)}–{self.clock(end)} {self.name} ({first})"
        return f"{self.clock(start)} ({first}) – {self.clock(end)} ({last}) {self.name}, the clocks change"

    def hours(self, start: float, end: float) -> Iterator[tuple[float, str]]:
        """The full local hours from start to end, thinned out where there are many."""
        quarter = 15 * _MINUTE_S
        at = -(-start // quarter) * quarter
        every = max(1, round((end - start) / _HOUR_S / 12))
        while at <= end:
            local = self.local(at)
            if local.minute == 0 and local.hour % every == 0:
                yield at, f"{local:%H:%M}"
            at += quarter


def day(text: Any) -> str:
    """A production day (`2026-11-23`) with its weekday."""
    try:
        return f"{datetime.fromisoformat(str(text)):%A %d %B %Y}"
    except ValueError:
        return cleaned(text)
