"""Which windows are due; stored readings to records in the outbox; revisions of what was published too early.

A window closes `settle` after its end. Its record is a pure function of the stored readings and the configuration, so
it may be computed again at any time: that happens when a reading arrives late, and when a stop that was open at the end
of a window turns out to be short. What comes out the same is not published again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_agent import production, record, shifts
from edge_agent.clock import Clock
from edge_agent.config import Configuration
from edge_agent.contract import NS_PER_S
from edge_agent.envelope import Envelope
from edge_agent.equipment import Row, Unmapped
from edge_agent.machines import Summarized, calendar_of, summarized
from edge_agent.production import COUNTER_LOOKBACK_READINGS, WindowData
from edge_agent.states import Broadcaster, States
from edge_agent.store import Draft, Issued, Store, StoreError, StoreThread
from edge_agent.store.records import Progress

log = logging.getLogger(__name__)

TICK_NS = NS_PER_S
"""How often the states of machines are looked at; windows close when they are due."""
SOONEST_NS = NS_PER_S // 50
RETRY_NS = 60 * NS_PER_S
HOUR_NS = 3_600 * NS_PER_S
LATE_NS = 600 * NS_PER_S
"""How far back a late reading re-opens windows."""
SPAN_NS = 6 * HOUR_NS
"""How much is closed at once after a long absence, so that catching up needs little memory."""
_OF_REVISION = frozenset({"revision", "revised_because", "previous", "final", "revisable_until"})

Interval = tuple[int, int]


class Announcer(Broadcaster, Protocol):
    """The uplink as the summarizer sees it."""

    def wake(self) -> None:
        """New records are in the outbox."""
        ...


@dataclass
class Line:
    """One machine in work: what is due when, and what may have to be looked at again."""

    of: Summarized
    next_due: int = 0
    reopen_from: int | None = None
    reopen_why: record.Because | None = None
    last_reading: int = 0
    unmapped: set[Unmapped] = field(default_factory=set)
    newest: dict[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """What one closing computes: windows by size, which of them are published already, and the readings."""

    due: Mapping[str, list[Interval]]
    reopened: Mapping[str, list[Interval]]
    rows: Mapping[str, list[Row]]
    known_until: int
    more: bool


class Summarizer:
    """Closes the windows of all machines, for ever.

    Attributes:
        last_tick: the monotonic time of the last look at the clock.
        states: what each machine does now.
    """

    def __init__(
        self,
        configuration: Configuration,
        thread: StoreThread,
        uplink: Announcer,
        publisher: record.Publisher,
        clock: Clock,
    ) -> None:
        if configuration.agent is None:
            raise ValueError("a summarizer needs the agent section")
        polls = {tag.name: tag.poll_ns for device in configuration.devices.values() for tag in device.tags}
        self._lines = [
            Line(
                summarized(
                    name,
                    settings,
                    publisher.machine_subject(settings.area, settings.line, name),
                    polls,
                    configuration.buffer.refresh,
                )
            )
            for name, settings in configuration.machines.items()
        ]
        self._calendar = calendar_of(configuration.calendar, configuration.agent.timezone)
        self._configuration = configuration
        self._thread = thread
        self._uplink = uplink
        self._publisher = publisher
        self._envelope = Envelope(publisher, clock)
        self._clock = clock
        machines = [line.of.machine for line in self._lines]
        self.states = States(machines, self._calendar, thread, uplink, self._envelope, clock)
        self.last_tick = clock.monotonic()

    async def run(self) -> None:
        """Close windows when they are due, and tell the states of the machines when they change."""
        await self._thread.call(self._recall)
        look_at_states = 0
        while True:
            self.last_tick = self._clock.monotonic()
            await self.close_due()
            if self._clock.monotonic() >= look_at_states:
                look_at_states = self._clock.monotonic() + TICK_NS
                with suppress(StoreError):  # said by the store's thread; the next turn tries again
                    await self.states.tell()
            wait = min(max(self.next_due - self._clock.now(), SOONEST_NS), TICK_NS)
            await self._clock.sleep_until(self._clock.monotonic() + wait)

    @property
    def next_due(self) -> int:
        """When the next window closes, in ns of the wall time; in a second where there is no machine."""
        return min((line.next_due for line in self._lines), default=self._clock.now() + TICK_NS)

    async def close_due(self) -> None:
        """Close every window whose settle time has passed."""
        due = [line for line in self._lines if self._clock.now() >= line.next_due]
        if not due:
            return
        try:
            await self._thread.flush()  # every reading received until now is in the database
        except StoreError:
            return  # said by the store's thread; windows close when the disk takes readings again
        issued = 0
        for line in due:
            self.last_tick = self._clock.monotonic()
            try:
                issued += await self._close(line, self._thread.committed)
            except StoreError as error:
                log.warning("%s: windows wait for the disk: %s", line.of.machine.name, error)
                line.next_due = self._clock.now() + RETRY_NS
            except Exception:  # one machine's windows must not stop the others
                log.exception("%s: windows could not be computed; trying again in a minute", line.of.machine.name)
                line.next_due = self._clock.now() + RETRY_NS
        if issued:
            self._uplink.wake()

    async def _close(self, line: Line, known_until: int) -> int:
        job = await self._thread.call(self._gather, line, known_until)
        if job is None:
            return 0
        windows = sorted({window for sizes in (job.due, job.reopened) for found in sizes.values() for window in found})
        data, unsettled = await asyncio.to_thread(self._compute, line.of.machine, job, windows)
        issued = await self._thread.call(self._issue, line, job, dict(zip(windows, data, strict=True)), unsettled)
        self._warn_of_unmapped(line, data)
        line.reopen_from, line.reopen_why = unsettled, None if unsettled is None else "reclassified"
        if job.more:
            line.next_due = 0
        return issued

    def _compute(
        self, machine: production.Machine, job: Job, windows: list[Interval]
    ) -> tuple[list[WindowData], int | None]:
        data = production.compute(machine, self._calendar, job.rows, windows, job.known_until)
        return data, production.unsettled_since_ns(machine, job.rows, job.known_until)

    # -------------------------------------------------------------------------- in the store's thread: in

    def _recall(self) -> None:
        """Go on where the last run stopped: with the readings it had seen, and the stop it may have to name anew."""
        store = self._thread.store
        for line in self._lines:
            seen, unsettled = (store.fact(name) for name in _facts_of(line))
            line.last_reading = store.readings.last_id() if seen is None else seen
            if unsettled:
                line.reopen_from, line.reopen_why = unsettled, "reclassified"

    def _gather(self, line: Line, known_until: int) -> Job | None:
        """What is due for this machine, with its readings; also sets when it is due next."""
        store, machine = self._thread.store, line.of.machine
        first = store.readings.first_time(machine.tags)
        if first is None or not line.of.windows:
            line.next_due = known_until + NS_PER_S
            return None
        marks = {size: store.records.progress(machine.name, size) for size in line.of.windows}
        closed = {size: mark.closed_until if mark else first for size, mark in marks.items()}
        ends = {size: self._next_end(size, since) for size, since in closed.items()}
        until = min(known_until - line.of.settle_ns, min(ends.values()) + SPAN_NS)
        due = {size: self._windows(size, since, until) for size, since in closed.items()}
        for size, found in due.items():
            if found:
                ends[size] = self._next_end(size, found[-1][1])
                if marks[size]:  # also after an edit of the calendar a window begins where the one before it ended
                    found[0] = (max(found[0][0], closed[size]), found[0][1])
        line.next_due = min(ends.values()) + line.of.settle_ns
        if not any(due.values()):
            return None
        self._look_for_late(line, store, max(closed.values()))
        reopened = {} if self._stop_goes_on(line, known_until) else self._reopened(line, closed)
        windows = [window for sizes in (due, reopened) for found in sizes.values() for window in found]
        since = min(window[0] for window in windows) - production.lookback_ns(machine)
        # So far that the length of a stop at the end of the last window is seen, and no farther: rows cost memory.
        known = min(known_until, max(window[1] for window in windows) + production.lookahead_ns(machine))
        rows = store.readings.steps_of(machine.tags, since, known, COUNTER_LOOKBACK_READINGS)
        return Job(due, reopened, rows, known, more=until < known_until - line.of.settle_ns)

    def _windows(self, size: str, since: int, until: int) -> list[Interval]:
        """The windows of a size from the one that contains `since`, that have ended by `until`."""
        return [window for window in shifts.windows(self._calendar, size, since, until) if window[1] <= until]

    def _next_end(self, size: str, start: int) -> int:
        """When the window of a size that contains `start` ends."""
        return next(iter(shifts.windows(self._calendar, size, start, start + 1)))[1]

    def _look_for_late(self, line: Line, store: Store, closed_until: int) -> None:
        """Find readings that came after the windows they belong to were closed."""
        newest = store.readings.last_id()
        tags = line.of.machine.tags
        late = store.readings.first_arrived(tags, line.last_reading, closed_until - LATE_NS, closed_until)
        line.last_reading = newest
        if late is not None:
            line.reopen_from = late if line.reopen_from is None else min(late, line.reopen_from)
            line.reopen_why = "late_reading"

    def _stop_goes_on(self, line: Line, known_until: int) -> bool:
        """Whether all that is to be looked at again is a stop of which nothing new is known: a day costs too much."""
        if line.reopen_from is None or line.reopen_why != "reclassified":
            return False
        machine = line.of.machine
        since = line.reopen_from - production.lookback_ns(machine)
        steps_of = self._thread.store.readings.steps_of
        rows = steps_of(machine.tags, since, known_until, COUNTER_LOOKBACK_READINGS)
        return production.unsettled_since_ns(machine, rows, known_until) == line.reopen_from

    def _reopened(self, line: Line, closed: Mapping[str, int]) -> dict[str, list[Interval]]:
        if line.reopen_from is None:
            return {}
        return {size: self._windows(size, line.reopen_from, until) for size, until in closed.items()}

    # ------------------------------------------------------------------------- in the store's thread: out

    def _issue(self, line: Line, job: Job, data: Mapping[Interval, WindowData], unsettled: int | None) -> int:
        """Publish what is new or different, and move the marks, in one transaction; how many records."""
        store, now = self._thread.store, self._clock.now()
        drafts: list[Draft] = []
        with store.transaction():
            for size, windows in job.reopened.items():
                drafts += [draft for window in windows if (draft := self._revision(line, size, data[window], store))]
            for size, windows in job.due.items():
                if windows:
                    drafts += self._new(line, size, [data[window] for window in windows], store)
            store.issue(drafts, self._freeze, now)
            for name, value in zip(_facts_of(line), (line.last_reading, unsettled or 0), strict=True):
                store.set_fact(name, value)
        self._remember_newest(line, drafts)
        return len(drafts)

    def _new(self, line: Line, size: str, windows: list[WindowData], store: Store) -> Iterable[Draft]:
        """The records of windows that close now; runs of windows under an hour without anything become one gap."""
        name = line.of.machine.name
        closed, since, why = store.records.progress(name, size) or Progress(0)
        drafts = []
        for window in windows:
            cause = _blank_cause(window) if shifts.FIXED_WINDOWS_S.get(size, 3_600) < 3_600 else None
            if since is not None and why is not None and (cause != why or window.end_ns - since > HOUR_NS):
                drafts.append(self._gap(line, size, since, window.start_ns, why))
                since = None
            if cause is None:
                drafts.append(self._draft(line, size, window, 0, None, None))
            elif since is None:
                since, why = window.start_ns, cause
            closed = window.end_ns
        store.records.set_progress(name, size, Progress(closed, since, None if since is None else why))
        return drafts

    def _revision(self, line: Line, size: str, window: WindowData, store: Store) -> Draft | None:
        """The next revision of a window that was looked at again; None when it says what was said before."""
        before = store.records.latest(record.production_key(line.of.machine.subject, size, window.start_ns))
        if before is None:
            # Windows of the calendar are always published: one that was not belongs to a calendar edited since.
            if size not in shifts.FIXED_WINDOWS_S:
                return None
            return None if _blank_cause(window) else self._draft(line, size, window, 0, None, None)
        draft = self._draft(line, size, window, before["revision"] + 1, line.reopen_why, record.previous_of(before))
        return None if _stated(json.loads(record.freeze(draft.data))) == _stated(before) else draft

    def _draft(
        self,
        line: Line,
        size: str,
        window: WindowData,
        revision: int,
        why: record.Because | None,
        previous: dict[str, Any] | None,
    ) -> Draft:
        machine = line.of.machine
        day_start = self._calendar.day_bounds(self._calendar.day_of_window(size, window.start_ns))[0]
        data = record.production_data(
            machine,
            self._calendar,
            size,
            window,
            revision=revision,
            revised_because=why,
            previous=previous,
            revisable_until_ns=day_start + self._configuration.buffer.keep_readings,
        )
        topic = record.production_topic(self._publisher.prefix, machine.subject, size)
        return Draft("production", topic, machine.subject, data, data["key"], revision)

    def _gap(self, line: Line, size: str, start: int, end: int, cause: str) -> Draft:
        machine = line.of.machine
        count = len(self._windows(size, start, end))
        data = record.gap_data(
            machine.subject, size, start, end, cause,
            machine=machine.name, window=size, count=count, produced=0,
            topic=record.production_topic(self._publisher.prefix, machine.subject, size),
        )  # fmt: skip
        topic = record.agent_topic(self._publisher, "gap")
        return Draft("gap", topic, machine.subject, data, data["key"])

    def _freeze(self, draft: Draft, issued: Issued) -> bytes:
        return self._envelope.freeze(draft.type, draft.subject, draft.data, issued)

    # ------------------------------------------------------------------------------------- what people see

    def _warn_of_unmapped(self, line: Line, windows: Iterable[WindowData]) -> None:
        name = line.of.machine.name
        for found in {found for window in windows for found in window.unmapped} - line.unmapped:
            line.unmapped.add(found)
            log.warning(
                "%s: %s is %r, which machines.%s.state.%s does not know: unknown until it is added",
                name, found.tag, found.value, name, found.key,
            )  # fmt: skip

    def _remember_newest(self, line: Line, drafts: Iterable[Draft]) -> None:
        shortest = line.of.windows[0] if line.of.windows else None
        for draft in drafts:
            if draft.type == "production" and draft.data["window"] == shortest:
                line.newest = draft.data

    def machine_figures(self) -> list[dict[str, Any]]:
        """For each machine its state and its newest record, for people."""
        figures = []
        for line in self._lines:
            name = line.of.machine.name
            state, since, cause, *_ = self.states.present(name) or (None, None, None)
            figures.append({"machine": name, "state": state, "since": since, "cause": cause, "newest": line.newest})
        return figures


def _blank_cause(window: WindowData) -> str | None:
    """Why nothing was observed in a window: its state unknown throughout, and no part booked in it; else None."""
    counted = any(tally is not None and tally != (0, 0, 0) for tally in window.quantities.values())
    if counted or window.times_ns["unknown"] != window.end_ns - window.start_ns:
        return None
    return max(window.missing_ns, key=window.missing_ns.__getitem__)


def _stated(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a record states, without what only its revision changes."""
    return {name: value for name, value in data.items() if name not in _OF_REVISION}


def _facts_of(line: Line) -> tuple[str, str]:
    """The names under which the store remembers a machine's newest reading seen, and its unsettled stop."""
    name = line.of.machine.name
    return f"seen.{name}", f"unsettled.{name}"
