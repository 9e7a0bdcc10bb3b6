"""What the machines of one agent share: the calendar, the horizon, and the configurations in force."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from edge_agent import bases, record, shifts
from edge_agent.bases import Basis
from edge_agent.config import Configuration
from edge_agent.machines import Summarized, calendar_of, summarized
from edge_agent.production import Interval, Machine
from edge_agent.shifts import Calendar
from edge_agent.store import Store
from edge_agent.store.records import SACRIFICED_UNTIL
from edge_agent.summarizer.line import NEVER

log = logging.getLogger(__name__)

_CLIPPED_NS = 2 * 86_400 * 1_000_000_000


def machines_of(configuration: Configuration, publisher: record.Publisher) -> list[Summarized]:
    """The machines of a configuration as they are summarized."""
    polls = {tag.name: tag.poll_ns for device in configuration.devices.values() for tag in device.tags}
    return [
        summarized(
            name,
            settings,
            publisher.machine_subject(settings.area, settings.line, name),
            polls,
            configuration.buffer.refresh,
        )
        for name, settings in configuration.machines.items()
    ]


def basis_of(configuration: Configuration, publisher: record.Publisher) -> Basis:
    """What a configuration computes with.

    Raises:
        ValueError: it has no agent section.
    """
    if configuration.agent is None:
        raise ValueError("the agent section is needed")
    machines = {each.machine.name: each.machine for each in machines_of(configuration, publisher)}
    return Basis(machines, calendar_of(configuration.calendar, configuration.agent.timezone))


class Site:
    """One agent's machines, calendar, horizon, and what was in force before. Belongs to the store's thread."""

    def __init__(self, configuration: Configuration, publisher: record.Publisher, store: Store) -> None:
        self.configuration = configuration
        self.publisher = publisher
        self.basis = basis_of(configuration, publisher)
        self.calendar = self.basis.calendar
        self.keep_ns = configuration.buffer.keep_readings
        self._store = store
        self._known: dict[str, Basis] = {configuration.hash: self.basis}

    def basis_under(self, hash: str) -> Basis:
        """What the configuration of this hash computes with; the present one where nothing is kept of it."""
        if hash not in self._known:
            text = self._store.basis(hash)
            try:
                self._known[hash] = self.basis if text is None else bases.read(text)
            except ValueError as error:
                log.warning("%s…: %s; revisions are made with the present configuration", hash[:15], error)
                self._known[hash] = self.basis
        return self._known[hash]

    def machine(self, hash: str, present: Machine) -> Machine:
        """A machine as a configuration has it; the present one where it did not have it."""
        return self.basis_under(hash).machines.get(present.name, present)

    def tags_since(self, time: int, present: Machine) -> frozenset[str]:
        """The tags that a machine draws on, or drew on under a configuration in force since a time."""
        hashes = [hash for hash, *_ in self.spans_in_force(time, NEVER)]
        return frozenset(tag for hash in hashes for tag in self.machine(hash, present).tags) | frozenset(present.tags)

    # ------------------------------------------------------------------------------------------- the horizon

    def horizon(self, now: int) -> int:
        """What lies before this is final: the end of the last production day that began `keep_readings` ago.

        So is what lies before the newest reading that had to go for room: it cannot be computed again.
        """
        day = self.calendar.day_bounds(self.calendar.day_of_window(shifts.DAY, now - self.keep_ns))[1]
        return max(day, self.sacrificed_until)

    @property
    def sacrificed_until(self) -> int:
        """Before this time readings had to go for room, in ns since 1970 UTC; 0: none had."""
        return self._store.fact(SACRIFICED_UNTIL) or 0

    def revisable_until(self, calendar: Calendar, start: int, end: int) -> int:
        """Until when the record of [start, end) may change: its last production day's start and `keep_readings` more.

        So a night shift over the start of a day is final with what it has of the next.
        """
        return calendar.day_bounds(calendar.day_of_window(shifts.DAY, max(start, end - 1)))[0] + self.keep_ns

    # ------------------------------------------------------------------------------------------- in force

    def spans_in_force(self, start: int, end: int) -> list[tuple[str, int, int]]:
        """The hashes of the configurations in force over [start, end), each with its part of it, in order."""
        applied = self._store.applied()
        if not applied:
            return [(self.configuration.hash, start, end)]
        begins = [time for time, _ in applied]
        ends = [*begins[1:], max(end, begins[-1]) + 1]
        begins[0] = min(begins[0], start)
        return [
            (hash, max(begin, start), min(until, end))
            for (_, hash), begin, until in zip(applied, begins, ends, strict=True)
            if begin < end and start < until
        ]

    def closed_windows(
        self, size: str, start: int, end: int, closed_until: int, settle_ns: int
    ) -> Iterator[tuple[Interval, str]]:
        """The windows of a size that overlap [start, end) and are closed, with the hash in force at their first close.

        After an edit of the calendar a window begins where the one before it ended.
        """
        before: Calendar | None = None
        reach = start - _CLIPPED_NS
        for hash, since, until in self.spans_in_force(reach, max(closed_until, end) + settle_ns + 1):
            calendar = self.basis_under(hash).calendar
            clip = None if before is None else _last_end(before, size, since, settle_ns)
            for window in shifts.windows(calendar, size, start, min(end, closed_until)):
                closes = window[1] + settle_ns
                if window[1] <= closed_until and (since <= closes < until or (since == reach and closes < until)):
                    yield (
                        (max(window[0], clip) if clip is not None and clip < window[1] else window[0], window[1]),
                        hash,
                    )
            before = calendar


def _last_end(calendar: Calendar, size: str, time: int, settle_ns: int) -> int | None:
    """When the last window ended that was closed before `time`."""
    ended = [end for _, end in shifts.windows(calendar, size, time - _CLIPPED_NS, time) if end + settle_ns < time]
    return ended[-1] if ended else None
