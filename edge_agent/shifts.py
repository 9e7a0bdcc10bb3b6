"""Shifts, breaks, production days and windows as UTC nanoseconds, from local times in an IANA zone (pure).

A local time that occurs twice is the first one; one that does not exist (clocks went forward) takes the offset before
the change, which puts it as long after the change as it stood after the missing hour's begin. A shift whose end is not
after its begin ends on the next day. A shift belongs, whole, to the production day in which it begins, also where the
production day changes in the middle of a night shift; other time belongs to the day by `production_day_starts`.
`closed` lists production days: their shifts do not happen. Without shifts all time is scheduled, closed days aside.

Of shifts that overlap (local times that a change of the clocks moves over one another) the one that began first holds
to its end. The windows `shift` are the shifts and, under the name `off`, the time between them, cut where a production
day begins, so that each belongs to one; together they cover all time once. A window `day` is a production day by its
start alone, closed or not: the part of a night shift that lies behind the start of the next day is in the next day.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from zoneinfo import ZoneInfo

from edge_agent.contract import NS_PER_S

Interval = tuple[int, int]
"""Half-open [start, end), ns since 1970 UTC."""

OFF = "off"
"""The name of the time outside all shifts."""
SHIFT, DAY = "shift", "day"
"""The windows that the calendar bounds."""
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN = 24 * 60
_DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_CACHED_DAYS = 1_000
_OVERLAP_DAYS = 2
"""A shift lasts at most 25 hours, so what began longer ago than this is over when the next one but one begins."""

FIXED_WINDOWS_S = {
    "10s": 10, "15s": 15, "20s": 20, "30s": 30, "1min": 60, "2min": 120, "3min": 180, "4min": 240, "5min": 300,
    "6min": 360, "10min": 600, "12min": 720, "15min": 900, "20min": 1200, "30min": 1800, "1h": 3600,
}  # fmt: skip
"""The windows of fixed length, by their names in records, in seconds: divisors of an hour."""


def weekdays(text: str) -> frozenset[int]:
    """Days of the week from `mon-fri` or `mon, wed, sat-sun`; 0 is Monday. A range may run over the weekend.

    Raises:
        ValueError: not a day of the week.
    """
    days: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        for word in (first, last or first):
            if word not in _WEEKDAYS:
                raise ValueError(f"{word!r} is no day of the week: {', '.join(_WEEKDAYS)}")
        begin, end = _WEEKDAYS.index(first), _WEEKDAYS.index(last or first)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(days)


def minutes(text: str) -> int:
    """A local time such as `06:30` in minutes after midnight."""
    hours, _, rest = text.partition(":")
    return int(hours) * 60 + int(rest)


@dataclass(frozen=True, slots=True)
class Shift:
    """One shift: the days of the week on which it begins (0 is Monday), and local times in minutes after midnight."""

    name: str
    days: frozenset[int]
    start_min: int
    end_min: int
    breaks: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, name: str, days: str, start: str, end: str, breaks: Iterable[str] = ()) -> Shift:
        """A shift as it is written in YAML: `Shift.of("early", "mon-fri", "06:00", "14:00", ["09:00-09:15"])`."""
        pauses = tuple((minutes(pause.partition("-")[0]), minutes(pause.partition("-")[2])) for pause in breaks)
        return cls(name, weekdays(days), minutes(start), minutes(end), pauses)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One shift on one day: its bounds in ns, the production day it belongs to, and its breaks in ns."""

    name: str
    start_ns: int
    end_ns: int
    production_day: date
    breaks: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Calendar:
    """When a site works. Answers are in UTC ns and cached by day."""

    zone: str = "UTC"
    production_day_starts_min: int = 0
    shifts: tuple[Shift, ...] = ()
    closed: frozenset[date] = frozenset()
    _days: dict[int, tuple[Occurrence, ...]] = field(default_factory=dict, compare=False, repr=False)
    _turns: dict[int, tuple[Occurrence, ...]] = field(default_factory=dict, compare=False, repr=False)

    def occurrences(self, start_ns: int, end_ns: int) -> list[Occurrence]:
        """The shifts that overlap [start_ns, end_ns), by their begin."""
        found: list[Occurrence] = []
        for day in range(_utc_day(start_ns) - 2, _utc_day(end_ns) + 2):
            found.extend(each for each in self._day(day) if each.start_ns < end_ns and start_ns < each.end_ns)
        return sorted(found, key=lambda each: each.start_ns)

    def turns(self, start_ns: int, end_ns: int) -> list[Occurrence]:
        """The shifts that overlap [start_ns, end_ns), in order, disjoint: the one that began first holds to its end."""
        found: dict[int, Occurrence] = {}
        for day in range(_utc_day(start_ns), _utc_day(end_ns - 1) + 1):
            found.update((each.start_ns, each) for each in self._turns_of(day))
        return [each for each in found.values() if each.start_ns < end_ns and start_ns < each.end_ns]

    def scheduled(self, start_ns: int, end_ns: int) -> list[Interval] | None:
        """The scheduled time that overlaps [start_ns, end_ns), disjoint and in order; None: all of it."""
        if self.shifts:
            return union((each.start_ns, each.end_ns) for each in self.occurrences(start_ns, end_ns))
        if not self.closed:
            return None
        open_days = (self.day_bounds(day) for day in self._dates(start_ns, end_ns) if day not in self.closed)
        return union(bounds for bounds in open_days if bounds[0] < end_ns and start_ns < bounds[1])

    def breaks(self, start_ns: int, end_ns: int) -> list[Interval]:
        """The breaks that overlap [start_ns, end_ns), disjoint and in order."""
        pauses = (pause for each in self.occurrences(start_ns, end_ns) for pause in each.breaks)
        return union(pause for pause in pauses if pause[0] < end_ns and start_ns < pause[1])

    def after_working(self, time_ns: int, work_ns: int) -> int | None:
        """When so much scheduled time without breaks will have passed; None when not within 31 days."""
        end_ns = time_ns + 31 * _DAY_S * NS_PER_S
        start: int
        scheduled = self.scheduled(time_ns, end_ns)
        breaks = self.breaks(time_ns, end_ns)
        edges = sorted({time_ns, end_ns, *(edge for span in [*(scheduled or ()), *breaks] for edge in span)})
        for start, end in pairwise(edge for edge in edges if time_ns <= edge <= end_ns):
            open_now = scheduled is None or overlap_ns(scheduled, start, end)
            if open_now and not overlap_ns(breaks, start, end):
                if work_ns <= end - start:
                    return start + work_ns
                work_ns -= end - start
        return None

    def shift_at(self, time_ns: int) -> str | None:
        """The name of the shift at an instant, `off` outside all of them; None without shifts."""
        if not self.shifts:
            return None
        running = self.turns(time_ns, time_ns + 1)
        return running[0].name if running else OFF

    def production_day(self, time_ns: int) -> date:
        """The production day of an instant: that of the running shift's begin, else the day by its start."""
        running = self.turns(time_ns, time_ns + 1)
        return running[0].production_day if running else self._plain_day(time_ns)

    def day_of_window(self, size: str, start_ns: int) -> date:
        """The production day that a window of a size belongs to: that of its start; a window `day` is one itself."""
        return self._plain_day(start_ns) if size == DAY else self.production_day(start_ns)

    def day_bounds(self, day: date) -> Interval:
        """The bounds of a production day, in ns; 23 or 25 hours apart where the clocks change."""
        start = self.production_day_starts_min
        return self._utc(day, start), self._utc(day + timedelta(days=1), start)

    def parts(self, start_ns: int, end_ns: int) -> list[Interval]:
        """[start_ns, end_ns) cut where the shift changes: one part where it does not."""
        if not self.shifts:
            return [(start_ns, end_ns)]
        bounds = {start_ns, end_ns}
        for each in self.turns(start_ns, end_ns):
            bounds.update(edge for edge in (each.start_ns, each.end_ns) if start_ns < edge < end_ns)
        edges = sorted(bounds)
        return list(pairwise(edges))

    def _dates(self, start_ns: int, end_ns: int) -> Iterator[date]:
        for day in range(_utc_day(start_ns) - 2, _utc_day(end_ns) + 2):
            yield date.fromordinal(_EPOCH_DAY + day)

    def _plain_day(self, time_ns: int) -> date:
        days = [day for day in self._dates(time_ns, time_ns) if self.day_bounds(day)[0] <= time_ns]
        return days[-1]

    def _day(self, number: int) -> tuple[Occurrence, ...]:
        known = self._days.get(number)
        if known is None:
            if len(self._days) >= _CACHED_DAYS:
                self._days.clear()
            day = date.fromordinal(_EPOCH_DAY + number)
            here = (self._occurrence(shift, day) for shift in self.shifts if day.weekday() in shift.days)
            known = self._days[number] = tuple(
                each for each in here if each.start_ns < each.end_ns and each.production_day not in self.closed
            )
        return known

    def _turns_of(self, number: int) -> tuple[Occurrence, ...]:
        """The turns that overlap a UTC day."""
        known = self._turns.get(number)
        if known is None:
            if len(self._turns) >= _CACHED_DAYS:
                self._turns.clear()
            start_ns, end_ns = number * _DAY_S * NS_PER_S, (number + 1) * _DAY_S * NS_PER_S
            turns, taken = [], 0
            for each in self.occurrences(start_ns - _OVERLAP_DAYS * _DAY_S * NS_PER_S, end_ns):
                turn = replace(each, start_ns=max(each.start_ns, taken))
                if max(turn.start_ns, start_ns) < turn.end_ns:
                    turns.append(turn)
                taken = max(taken, each.end_ns)
            known = self._turns[number] = tuple(turns)
        return known

    def _occurrence(self, shift: Shift, day: date) -> Occurrence:
        begin, end = shift.start_min, shift.end_min + (_DAY_MIN if shift.end_min <= shift.start_min else 0)
        start_ns, end_ns = self._utc(day, begin), self._utc(day, end)
        pauses = []
        for pause_begin, pause_end in shift.breaks:
            first = pause_begin + (_DAY_MIN if pause_begin < begin else 0)
            last = pause_end + (_DAY_MIN if pause_end <= pause_begin else 0) + first - pause_begin
            pause = (max(self._utc(day, first), start_ns), min(self._utc(day, last), end_ns))
            if pause[0] < pause[1]:
                pauses.append(pause)
        return Occurrence(shift.name, start_ns, end_ns, self._plain_day(start_ns), tuple(pauses))

    def _utc(self, day: date, minute: int) -> int:
        return local_ns(self.zone, day + timedelta(days=minute // _DAY_MIN), minute % _DAY_MIN)


@lru_cache(maxsize=4_096)
def local_ns(zone: str, day: date, minute: int) -> int:
    """A local time, in minutes after midnight, in ns since 1970 UTC (the first of two; in a gap, the offset before)."""
    local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=ZoneInfo(zone))
    return int(local.timestamp()) * NS_PER_S


def _utc_day(time_ns: int) -> int:
    return time_ns // (_DAY_S * NS_PER_S)


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The time that any of the intervals covers, disjoint and in order."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def intersection(some: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """The time that both cover; each is disjoint and in order, and so is what comes out."""
    found = []
    for start, end in others:
        first = bisect_right(some, start, key=itemgetter(1))
        for begin, until in some[first : bisect_left(some, end, key=itemgetter(0))]:
            found.append((max(start, begin), min(end, until)))
    return found


def overlap_ns(intervals: Sequence[Interval], start_ns: int, end_ns: int) -> int:
    """How much of [start, end) the intervals cover, in ns; they are disjoint and in order."""
    return sum(end - start for start, end in intersection(intervals, [(start_ns, end_ns)]))


# ---------------------------------------------------------------------------------------------- windows


def windows(calendar: Calendar, size: str, since_ns: int, until_ns: int) -> Iterator[Interval]:
    """Every window of a size that overlaps [since_ns, until_ns), whole, in order, in ns; they cover all time once.

    Args:
        calendar: the site's.
        size: a name of `FIXED_WINDOWS_S`, `shift` or `day`.
        since_ns: the range's start.
        until_ns: the range's end, not included.

    Raises:
        KeyError: not such a size.
    """
    if size == SHIFT:
        found: Iterable[Interval] = _shift_windows(calendar, since_ns, until_ns)
    elif size == DAY:
        found = _day_windows(calendar, since_ns, until_ns)
    else:
        found = fixed_windows(calendar.zone, FIXED_WINDOWS_S[size], since_ns, until_ns)
    return (window for window in found if max(since_ns, window[0]) < min(until_ns, window[1]))


def _day_windows(calendar: Calendar, start_ns: int, end_ns: int) -> Iterator[Interval]:
    """The production days from before a range to after it, without those that a zone has skipped."""
    for number in range(_utc_day(start_ns) - 2, _utc_day(end_ns) + 3):
        bounds = calendar.day_bounds(date.fromordinal(_EPOCH_DAY + number))
        if bounds[0] < bounds[1]:
            yield bounds


def _shift_windows(calendar: Calendar, start_ns: int, end_ns: int) -> Iterator[Interval]:
    """The shifts around a range, and the time between them, cut where a production day begins."""
    days = [start for start, _ in _day_windows(calendar, start_ns, end_ns)]
    free = days[0]
    for turn in calendar.turns(days[0], days[-1]):
        yield from pairwise([free, *(day for day in days if free < day < turn.start_ns), max(free, turn.start_ns)])
        yield turn.start_ns, turn.end_ns
        free = turn.end_ns
    yield from pairwise([free, *(day for day in days if free < day)])


def fixed_windows(zone: str, length_s: int, start_ns: int, end_ns: int) -> Iterator[Interval]:
    """Every window of a fixed length that overlaps [start_ns, end_ns), whole, in order, in ns.

    Windows are aligned to local midnight; a change of the offset from UTC cuts one in two or shortens it.

    Args:
        zone: an IANA zone.
        length_s: a divisor of an hour, in seconds.
        start_ns: the range's start.
        end_ns: the range's end, not included.
    """
    if start_ns >= end_ns:
        return
    first_s, last_s = start_ns // NS_PER_S, -(-end_ns // NS_PER_S)
    for begin, end, offset in _constant_offsets(zone, first_s - length_s, last_s + length_s):
        window = max(begin, (first_s + offset) // length_s * length_s - offset)
        while window < min(end, last_s):
            until = min(end, ((window + offset) // length_s + 1) * length_s - offset)
            if until * NS_PER_S > start_ns:
                yield window * NS_PER_S, until * NS_PER_S
            window = until


def _constant_offsets(zone: str, first_s: int, last_s: int) -> Iterator[tuple[int, int, int]]:
    """The periods of constant offset that overlap [first_s, last_s): begin, end (or wider), offset, in seconds."""
    changes: list[int] = []
    for day in range(first_s // _DAY_S, last_s // _DAY_S + 1):
        changes.extend(_changes(zone, day))
    bounds = [first_s // _DAY_S * _DAY_S, *changes, (last_s // _DAY_S + 1) * _DAY_S]
    for begin, end in pairwise(bounds):
        if begin < end:
            yield begin, end, _offset(ZoneInfo(zone), begin)


@lru_cache(maxsize=_CACHED_DAYS)
def _changes(zone: str, utc_day: int) -> Sequence[int]:
    """The instants of this UTC day, in seconds since 1970, at which the zone's offset changes."""
    info = ZoneInfo(zone)
    found = []
    for hour in range(utc_day * _DAY_S, (utc_day + 1) * _DAY_S, 3_600):
        # The change may come with the first second of this hour, so the second before it is looked at.
        before, after = hour - 1, hour + 3_599
        old = _offset(info, before)
        if _offset(info, after) == old:
            continue
        while after - before > 1:
            middle = (before + after) // 2
            if _offset(info, middle) == old:
                before = middle
            else:
                after = middle
        found.append(after)
    return tuple(found)


def _offset(zone: ZoneInfo, time_s: int) -> int:
    offset = datetime.fromtimestamp(time_s, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else offset.days * _DAY_S + offset.seconds
