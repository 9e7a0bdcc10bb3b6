"""What a shift report shows of one machine: its shift as one window, by the hour, its states, stops and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent import __version__, production, record, shifts
from edge_agent.clock import SystemClock
from edge_agent.config import Configuration
from edge_agent.contract import NS_PER_S, ConfigError
from edge_agent.entries import Entry, in_force, of_kind
from edge_agent.equipment import STATES, UNKNOWN, Row
from edge_agent.production import COUNTER_LOOKBACK_READINGS, History, Interval, Machine, WindowData
from edge_agent.production.downtime import stops_of
from edge_agent.production.history import first_ns
from edge_agent.shifts import Calendar
from edge_agent.store import Store, StoreThread
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import rfc3339

POINTS = 240
"""How many points the curve of the counts has at most."""
DAY_NS = 86_400 * NS_PER_S
FIRST_DAY, LAST_DAY = date(1971, 1, 1), date(2261, 1, 1)
"""What times in ns can say, with room on both sides."""


class Span(NamedTuple):
    """What a report is of: a shift, or a production day where there is no shift."""

    start: int
    end: int
    shift: str | None
    day: date


def span_of(calendar: Calendar, shift: str | None, day: date | None, now: int) -> Span:
    """The time of a report.

    Args:
        calendar: the site's.
        shift: its name; None: the one that runs, else the last one; `day`: the production day.
        day: the production day on which it begins; None: today, or the last one on which there was this shift.
        now: the time.

    Raises:
        ConfigError: there is no such shift, or none on that day.
    """
    names = [each.name for each in calendar.shifts]
    if shift is not None and shift not in (*names, shifts.DAY):
        near = get_close_matches(shift, [*names, shifts.DAY], 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join([*names, shifts.DAY])}"
        raise ConfigError(f"no shift {shift!r}; {hint}")
    if day is not None and not FIRST_DAY <= day <= LAST_DAY:
        raise ConfigError(f"--day {day} lies outside of {FIRST_DAY} to {LAST_DAY}")
    if shift == shifts.DAY or not names:
        chosen = calendar.day_of_window(shifts.DAY, now - 1) if day is None else day
        start, end = calendar.day_bounds(chosen)
        if start >= min(end, now):
            raise ConfigError(
                f"the production day {chosen} has not begun, or there was none; --day takes an earlier one"
            )
        return Span(start, end, None, chosen)
    since, until = (now - 14 * DAY_NS, now) if day is None else calendar.day_bounds(day)
    turns = [
        turn
        for turn in calendar.turns(since - DAY_NS, until + DAY_NS)
        if turn.start_ns < now and shift in (None, turn.name) and day in (None, turn.production_day)
    ]
    if not turns:
        raise ConfigError("there was no such shift then; --day is the production day on which it begins")
    return Span(turns[-1].start_ns, turns[-1].end_ns, turns[-1].name, turns[-1].production_day)


async def gathered(site: Site, thread: StoreThread, arguments: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The data of a report, from the stored readings and entries.

    Arguments: `machine`, `shift` (a name, `day`, or None), `day` (ISO date or None).

    Raises:
        ConfigError: there is no such machine or shift.
    """
    name = arguments["machine"]
    if name not in site.basis.machines:
        near = get_close_matches(str(name), site.basis.machines, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(site.basis.machines)}"
        raise ConfigError(f"no machine {name!r} in the configuration; {hint}")
    machine = site.basis.machines[name]
    day = date.fromisoformat(arguments["day"]) if arguments.get("day") else None
    span = span_of(site.calendar, arguments.get("shift"), day, now)
    until = min(span.end, now)
    evidence = await thread.call(_evidence, thread.store, machine, span, until, now)
    return await asyncio.to_thread(_made, site, machine, span, evidence, now)


class _Evidence(NamedTuple):
    """Readings and entries, with all stops of the time whole, and until when they are known."""

    rows: dict[str, list[Row]]
    entries: list[Entry]
    known: int


def _evidence(store: Store, machine: Machine, span: Span, until: int, now: int) -> _Evidence:
    known = min(now, until + production.lookahead_ns(machine))
    since = span.start - production.lookback_ns(machine)
    first = store.readings.first_time(machine.tags) or since
    rows = store.readings.steps_of(machine.tags, since, known, COUNTER_LOOKBACK_READINGS)
    while since > first and production.cut_stop(machine, rows, since, span.start):
        since = span.start - 4 * (span.start - since)
        rows = store.readings.steps_of(machine.tags, since, known, COUNTER_LOOKBACK_READINGS)
    while known < now and production.cut_stop(machine, rows, known - 1, known):
        known = min(now, known + 4 * (known - span.start))
        rows = store.readings.steps_of(machine.tags, since, known, COUNTER_LOOKBACK_READINGS)
    # Counts reach back to good readings long before, and so does what people told of their counters.
    begins = [rows[rules.tag][0][0] for rules in machine.rules if rows.get(rules.tag)]
    return _Evidence(rows, store.entries.of(machine.name, min([since, *begins]), known), known)


def _made(site: Site, machine: Machine, span: Span, evidence: _Evidence, now: int) -> dict[str, Any]:
    rows, entries, known = evidence
    calendar, until = site.calendar, min(span.end, now)
    hours = [
        (max(start, span.start), min(end, until))
        for start, end in shifts.windows(calendar, "1h", span.start, until)
        if max(start, span.start) < min(end, until)
    ]
    points = _points(span.start, until)
    windows = [(span.start, until), *hours, *points]
    data = production.compute(machine, calendar, rows, windows, known, entries)
    whole, by_hour, by_point = data[0], data[1 : len(hours) + 1], data[len(hours) + 1 :]
    begin = min(first_ns(machine, rows, span.start), known - 1)
    history = History(machine, calendar, rows, (begin, known), known, entries)
    size = "shift" if span.shift else "day"
    return {
        "machine": machine.name,
        "subject": machine.subject,
        "timezone": calendar.zone,
        "shift": span.shift,
        "production_day": span.day.isoformat(),
        "start": rfc3339(span.start),
        "end": rfc3339(span.end),
        "now": rfc3339(now),
        "window": record.production_data(machine, calendar, size, whole),
        "hours": [record.production_data(machine, calendar, "1h", hour) for hour in by_hour],
        "states": _states(history, span.start, until),
        "downtime": [
            record.downtime_data(machine, calendar, record.downtime_key(machine.subject, stop.start_ns), stop)
            for stop in stops_of(history)
            if stop.start_ns < until and (stop.end_ns or known) > span.start
        ],
        "counts": _counts(by_point),
        "notes": [
            {"time": rfc3339(entry.start_ns), "by": entry.by, "text": entry.body["text"]}
            for entry in of_kind(in_force(entries), "note")
            if span.start <= entry.start_ns < until
        ],
    }


def _points(start: int, end: int) -> list[Interval]:
    """The time in equal pieces, for a curve."""
    length = max(60 * NS_PER_S, -(-(end - start) // POINTS))
    return [(at, min(end, at + length)) for at in range(start, end, length)]


def _counts(pieces: Sequence[WindowData]) -> list[dict[str, Any]]:
    first = pieces[0].quantities if pieces else {}
    produced = good = 0
    found = [
        {
            "time": rfc3339(piece.start_ns),
            "produced": 0 if first["produced"] is not None else None,
            "good": 0 if first["good"] is not None else None,
        }
        for piece in pieces[:1]
    ]
    for piece in pieces:
        made, fine = piece.quantities["produced"], piece.quantities["good"]
        produced, good = produced + (made.total if made else 0), good + (fine.total if fine else 0)
        found.append(
            {
                "time": rfc3339(piece.end_ns),
                "produced": produced if made else None,
                "good": good if fine else None,
            }
        )
    return found


def _states(history: History, start: int, end: int) -> list[dict[str, Any]]:
    """The states over a time, whole milliseconds apart from their edges, each unlike the one before it."""
    spans: list[tuple[int, int, str]] = []
    edges, labels = history.timeline.edges.tolist(), history.timeline.labels.tolist()
    for begin, until, label in zip(edges, edges[1:], labels, strict=False):
        state = STATES[label] if label < UNKNOWN else "unknown"
        begin, until = max(begin, start), min(until, end)
        if begin >= until:
            continue
        if spans and spans[-1][2] == state:
            spans[-1] = (spans[-1][0], until, state)
        else:
            spans.append((begin, until, state))
    return [{"start": rfc3339(begin), "end": rfc3339(until), "state": state} for begin, until, state in spans]


async def from_files(configuration: Configuration, folder: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a report while no agent runs, from its data folder.

    Raises:
        ConfigError: there is no such machine or shift.
        StoreError: there is no store, or it cannot be used.
    """
    agent, mqtt = configuration.agent, configuration.mqtt
    if agent is None or mqtt is None:
        raise ConfigError("the configuration has no agent or no mqtt section")
    publisher = record.Publisher(
        agent.name, agent.enterprise, agent.site, mqtt.topic_prefix, __version__, configuration.hash
    )
    clock = SystemClock()
    with Store(folder, create=False) as store:
        thread = StoreThread(store, clock, NS_PER_S)
        return await gathered(Site(configuration, publisher, store), thread, arguments, clock.now())
