"""The sections that stand once: agent, buffer, mqtt, calendar, and what their models cannot check alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from edge_agent.config import faults
from edge_agent.config.document import Entry, Node
from edge_agent.config.faults import Fault, Report
from edge_agent.config.models import AgentSettings, BufferSettings, CalendarSettings, MqttSettings, ShiftSettings
from edge_agent.config.secrets import check_secrets
from edge_agent.config.validation import validated
from edge_agent.shifts import OFF

Model = TypeVar("Model", bound=BaseModel)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN = 24 * 60
_WEEK_MIN = 7 * _DAY_MIN


def load_agent(entry: Entry | None, directory: Path, report: Report) -> AgentSettings | None:
    """Who the agent is, or None with the reason reported."""
    if entry is None:
        cure = "add `agent:` with name, enterprise and site"
        _report_missing("agent", f"the agent has no name; {cure}", directory, report)
        return None
    return validated(AgentSettings, entry, ("agent",), report)


def load_buffer(entry: Entry | None, report: Report) -> BufferSettings:
    """The buffer's settings; the defaults where there are none or they are wrong."""
    given = None if entry is None else validated(BufferSettings, entry, ("buffer",), report)
    return given or BufferSettings()


def load_mqtt(entry: Entry | None, directory: Path, report: Report) -> MqttSettings | None:
    """The broker's settings, or None with the reason reported."""
    if entry is None:
        cure = "add `mqtt:` with the url of a broker, such as mqtt://localhost"
        _report_missing("mqtt", f"records have nowhere to go; {cure}", directory, report)
        return None
    settings = validated(MqttSettings, entry, ("mqtt",), report)
    if settings is None:
        return None
    check_secrets(settings, entry.value, ("mqtt",), report)
    nodes = entry.value.mapping or {}
    for name, path in (("ca", settings.ca), ("certificate", settings.certificate)):
        if path is not None and not path.is_file():
            report.add(Fault(nodes[name].value.place, f"there is no file {str(path)!r}", ("mqtt", name)))
    if settings.key is not None and settings.key.file is None and settings.key.credential is None:
        place = nodes["key"].value.place
        report.add(Fault(place, "the key must be a {file: …} or a {credential: …}", ("mqtt", "key")))
    return settings


def _report_missing(section: str, message: str, directory: Path, report: Report) -> None:
    if not report.unreadable and directory.exists():
        report.add(Fault(faults.Place(str(directory)), message, (section,)))


# ---------------------------------------------------------------------------------------------------- calendar


def load_calendar(entry: Entry | None, report: Report) -> CalendarSettings:
    """The calendar; one without shifts where there is none or it is wrong."""
    settings = None if entry is None else validated(CalendarSettings, entry, ("calendar",), report)
    if settings is None or entry is None:
        return CalendarSettings()
    nodes = entry.value.mapping or {}
    if "closed" in nodes:
        _check_closed(settings, nodes["closed"].value, report)
    if "shifts" in nodes:
        _check_shifts(settings.shifts, nodes["shifts"].value.mapping or {}, report)
    return settings


def _check_closed(settings: CalendarSettings, node: Node, report: Report) -> None:
    items = node.value if isinstance(node.value, list) else []
    for index, (day, item) in enumerate(zip(settings.closed, items, strict=True)):
        where: faults.Path = ("calendar", "closed", index)
        if not 2000 <= day.year < 2200:
            report.add(Fault(item.place, "expected a date such as 2026-12-25", where, item.text))
        elif day in settings.closed[:index]:
            report.add(Fault(item.place, "is closed already", where, item.text, severity="warning"))


def _check_shifts(shifts: dict[str, ShiftSettings], entries: dict[str, Entry], report: Report) -> None:
    taken: list[tuple[int, int, str]] = []
    for name, shift in shifts.items():
        entry = entries[name]
        where: faults.Path = ("calendar", "shifts", name)
        if name == OFF:
            message = f"{OFF!r} is the name of the time outside all shifts; give this one another"
            report.add(Fault(entry.key.place, message, where))
        days = shift_days(shift.days)
        if days is None:
            place = (entry.value.mapping or {})["days"].value.place
            report.add(Fault(place, "expected days such as mon-fri, or mon, wed, sat", (*where, "days"), shift.days))
            continue
        _check_breaks(shift, entry, where, report)
        spans = list(_spans(shift, days))
        others = {other for start, end, other in taken for a, b in spans if a < end and start < b}
        for other in sorted(others):
            message = f"overlaps the shift {other!r} at {entries[other].key.place}"
            report.add(Fault(entry.key.place, message, where))
        taken.extend((start, end, name) for start, end in spans)


def shift_days(text: str) -> tuple[int, ...] | None:
    """The days of `mon-fri` or `mon, wed, sat` as numbers, Monday 0, or None when a range has three ends."""
    days: set[int] = set()
    for part in text.replace(" ", "").split(","):
        ends = [DAYS.index(day) for day in part.split("-")]
        if len(ends) > 2:
            return None
        days.update((ends[0] + step) % 7 for step in range((ends[-1] - ends[0]) % 7 + 1))
    return tuple(sorted(days))


def _minutes(time: str) -> int:
    return int(time[:2]) * 60 + int(time[3:])


def _length(shift: ShiftSettings) -> int:
    return (_minutes(shift.to) - _minutes(shift.from_)) % _DAY_MIN or _DAY_MIN


def _spans(shift: ShiftSettings, days: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The shift as minutes of the week; one over Sunday's midnight as two spans."""
    for day in days:
        start = day * _DAY_MIN + _minutes(shift.from_)
        end = start + _length(shift)
        yield start, min(end, _WEEK_MIN)
        if end > _WEEK_MIN:
            yield 0, end - _WEEK_MIN


def _check_breaks(shift: ShiftSettings, entry: Entry, where: faults.Path, report: Report) -> None:
    if not shift.breaks:
        return
    node = (entry.value.mapping or {})["breaks"].value
    taken: list[tuple[int, int, str]] = []
    for index, text in enumerate(shift.breaks):
        place = node.value[index].place if isinstance(node.value, list) else node.place
        begin, _, stop = text.partition("-")
        start = (_minutes(begin) - _minutes(shift.from_)) % _DAY_MIN
        end = start + (_minutes(stop) - _minutes(begin)) % _DAY_MIN
        path = (*where, "breaks", index)
        if end == start or end > _length(shift):
            message = f"lies outside the shift, which is from {shift.from_} to {shift.to}"
            report.add(Fault(place, message, path, text))
        for other in (other for a, b, other in taken if start < b and a < end):
            report.add(Fault(place, f"overlaps the break {other}", path, text))
        taken.append((start, end, text))
