"""A machine's configuration tried on recorded readings: the daemon's store and summarizer, on the data's own time."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent import __version__, record
from edge_agent.backtest.readings import Readings
from edge_agent.backtest.told import Told
from edge_agent.clock import Trust
from edge_agent.config import Configuration
from edge_agent.contract import NS_PER_S, ConfigError, EdgeAgentError, Quality, Tag
from edge_agent.desk import Desk, EntryRefused, Request
from edge_agent.envelope import Envelope
from edge_agent.machines import calendar_of, tags_of
from edge_agent.store import Row, Store, StoreError, StoreThread
from edge_agent.store.records import StoredRecord
from edge_agent.summarizer import Summarizer
from edge_agent.timestamps import parse, rfc3339

STRIDE_NS = 3_600 * NS_PER_S
"""How much of the data's time passes at once where no single closing is wanted."""
MARGIN_NS = 120 * NS_PER_S
"""So long after its settle time the last window is waited for."""
DAY_NS = 86_400 * NS_PER_S
AFTER = "agent_down"
"""Why nothing is known after the last reading: nobody was there to look."""
_ROWS_AT_ONCE = 20_000
_PRUNE_ROWS = 50_000
_PAGE = 1_000
_BAD = int(Quality.BAD)


class DataClock:
    """The time of the data: it goes where the trial moves it, and never back."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def monotonic(self) -> int:
        return self.time

    async def sleep_until(self, when: int) -> None:
        self.time = max(self.time, when)

    def trust(self) -> Trust:
        return "synchronized"


class _Nobody:
    """Where records are announced: nobody listens."""

    def wake(self) -> None:
        pass

    def publish_latest(self, topic: str, payload: bytes, expiry_s: int | None) -> None:
        pass


class _Failures(logging.Handler):
    """Counts what the summarizer could not compute."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


class Trial:
    """One run of readings through a configuration, with a store of its own in an empty folder.

    Windows close as in the daemon. Where only their last revisions are wanted, those of an hour close together, which
    is quicker and comes to the same truth: a stop that has ended by then needs no revision to be named.
    """

    def __init__(
        self, configuration: Configuration, folder: Path, *, until_ns: int | None = None, hold: bool = False,
        revisions: bool = False, told: Iterable[Told] = (),
    ) -> None:  # fmt: skip
        """Prepare a trial.

        Args:
            configuration: one that the agent could run with.
            folder: an empty one, for the store.
            until_ns: time goes on until then, as if the agent had run; None: until the last reading.
            hold: a value holds until the tag's next reading, as in an export of changes.
            revisions: close each window at its own moment, so that its revisions come as from the daemon.
            told: what people tell meanwhile, in the order of time.

        Raises:
            ConfigError: there is no machine that could be computed.
        """
        if not configuration.machines:
            raise ConfigError("there is no machine to compute: see `edge-agent check`")
        self._configuration = configuration
        self._folder = folder
        self._until_ns = until_ns
        self._hold = hold
        self._revisions = revisions
        self._told = deque(told)
        self._numbered = any(each.number is not None for each in self._told)
        self._numbers: dict[int, int] = {}
        """The numbers that entries have here, by those that they have in their file."""
        self._clock = DataClock()
        self._refresh_ns = configuration.buffer.refresh
        self._settle_ns = min(machine.settle for machine in configuration.machines.values())
        self._held: dict[int, Row] = {}
        self._first: int | None = None
        self._last = 0
        self._unflushed = 0

    async def run(self, lines: Iterable[str], name: str) -> Readings:
        """Send the CSV through store and summarizer; what it was, for complaints.

        Raises:
            ReadingsError: a mistake in the CSV.
            EdgeAgentError: no reading of a machine's tag, `until` before the last reading, or a window that could not
                be computed.
        """
        failures = _Failures()
        summarizer_log = logging.getLogger(Summarizer.__module__)
        summarizer_log.addHandler(failures)
        tags = {tag.name: tag for device in self._configuration.devices.values() for tag in device.tags}
        self._thread = StoreThread(Store(self._folder, durable=False), self._clock, NS_PER_S)
        try:
            readings = Readings(lines, name, await self._begin(tags), tags)
            await self._feed(readings)
            await self._end(name, readings)
        finally:
            await self._thread.close()
            summarizer_log.removeHandler(failures)
        if failures.count:
            raise EdgeAgentError(f"{failures.count} times windows could not be computed; the log says why")
        return readings

    async def _begin(self, tags: dict[str, Tag]) -> dict[str, int]:
        store, configuration = self._thread.store, self._configuration
        agent, mqtt = configuration.agent, configuration.mqtt
        if agent is None or mqtt is None:
            raise ConfigError("the configuration has no agent or no mqtt section")
        publisher = record.Publisher(
            agent.name, agent.enterprise, agent.site, mqtt.topic_prefix, __version__, configuration.hash
        )
        self._summarizer = Summarizer(configuration, self._thread, _Nobody(), publisher, self._clock)
        self._desk = Desk(self._summarizer.site, store, Envelope(publisher, self._clock), self._clock)
        self._refuse_final()
        drawn_on = dict.fromkeys(tag for machine in configuration.machines.values() for tag in tags_of(machine))
        ids = await self._thread.call(store.register, [(tag, True) for tag in drawn_on])
        self._lasting = {ids[tag] for tag in drawn_on if tags[tag].settings.store == "change"}
        return {tag: ids[tag] for tag in drawn_on}

    def _refuse_final(self) -> None:
        """Refuse entries that come too late before all that time has passed."""
        for told in self._told:
            try:
                self._desk.refuse_final(told.made if told.request.start is None else told.request.start, told.made)
            except EntryRefused as error:
                raise EntryRefused(f"{told.place}: {error}") from error

    # ---------------------------------------------------------------------------------------------- the run

    async def _feed(self, readings: Readings) -> None:
        """Store the rows in groups, and close windows as the data's time passes."""
        waiting: list[Row] = []
        arrived = last = due = 0
        settle_ns, hold = self._settle_ns, self._hold
        for row in readings:
            time = row[1]
            came = row[5] or time
            if came > arrived:
                if not arrived:
                    await self._thread.call(self._thread.store.begin, came)
                    self._first = self._clock.time = came
                arrived = came
            # A reading that came after its window was due must not be there before: it makes a revision.
            if arrived >= due or arrived - time >= settle_ns or len(waiting) >= _ROWS_AT_ONCE:
                late = arrived - time >= settle_ns
                if arrived - time > STRIDE_NS and row[5] is None:
                    readings.disordered(arrived - time)
                waiting = await self._store(waiting)
                due = await self._pass(arrived if late or self._revisions else arrived // STRIDE_NS * STRIDE_NS)
            if hold:
                waiting += self._repeats(row)
            waiting.append(row)
            last = max(last, time)
        self._last = last
        await self._store(waiting)

    async def _store(self, rows: list[Row]) -> list[Row]:
        """Give rows to the store; an empty list for the next."""
        self._thread.append(rows)
        self._unflushed += len(rows)
        if self._unflushed >= _ROWS_AT_ONCE:
            await self._flush()
        return []

    async def _flush(self) -> None:
        await self._thread.flush()
        self._unflushed = 0

    async def _pass(self, now: int) -> int:
        """Let time pass until `now`, closing what is due; when to be called next."""
        if self._hold:
            self._thread.append([row for held in list(self._held.values()) for row in self._repeats_until(held, now)])
        if now // DAY_NS > self._clock.time // DAY_NS:
            await self._thread.call(self._prune)
        while self._told and self._told[0].made <= now:
            await self._take(self._told.popleft())
        if not self._revisions:
            self._clock.time = max(self._clock.time, now)
        await self._close_until(now)
        self._clock.time = max(self._clock.time, now)
        due = min([self._summarizer.next_due, *(told.made for told in list(self._told)[:1])])
        return due if self._revisions else (now // STRIDE_NS + 1) * STRIDE_NS

    async def _close_until(self, now: int) -> None:
        """Close what is due until then."""
        while (due := self._summarizer.next_due) <= now:
            self._clock.time = max(self._clock.time, due)
            await self._summarizer.close_due()
            if self._thread.failing is not None:
                raise StoreError(f"the trial's store in {self._folder} takes no more: {self._thread.failing}")

    async def _take(self, told: Told) -> None:
        """Have an entry told at its time, with all that is due before it."""
        await self._close_until(told.made)
        self._clock.time = max(self._clock.time, told.made)
        await self._flush()
        try:
            entry = await self._thread.call(self._desk.take, self._renumbered(told), told.made)
        except EntryRefused as error:
            raise EntryRefused(f"{told.place}: {error}") from error
        if told.number is not None:
            self._numbers[told.number] = entry.number
        self._summarizer.reopened(entry.machine, entry.start_ns)

    def _renumbered(self, told: Told) -> Request:
        """The request; of a withdrawal with the number that the other entry has here."""
        number = told.request.body.get("entry")
        if told.request.kind != "withdraw" or not self._numbered or not isinstance(number, int):
            return told.request
        if number not in self._numbers:
            raise EntryRefused(f"it withdraws entry {number}, which is not told before it in this file")
        return replace(told.request, body={"entry": self._numbers[number]})

    def _prune(self) -> None:
        """Forget readings that the daemon would have forgotten, so that the disk's use is bounded."""
        store = self._thread.store
        while True:
            with store.transaction():
                if not store.readings.prune(self._clock.time - self._configuration.buffer.keep_readings, _PRUNE_ROWS):
                    return

    async def _end(self, name: str, readings: Readings) -> None:
        """Say that nothing is known after the end, and close the windows that contain it."""
        if self._first is None:
            seen = [*readings.ignored, *readings.unknown]
            wanted = ", ".join(sorted({tag for one in self._configuration.machines.values() for tag in tags_of(one)}))
            found = f"it has {', '.join(sorted(seen)[:5])}" if seen else "it is empty"
            raise EdgeAgentError(f"{name}: no reading of a machine's tag: {found}; machines draw on {wanted}")
        if self._until_ns is not None and self._until_ns <= self._last:
            raise EdgeAgentError(f"--until lies before the last reading, which is of {rfc3339(self._last)}")
        end = self._until_ns or self._last + 1
        self._until_ns = end
        await self._pass(end)
        numbers = await self._thread.call(self._thread.store.register, [])
        self._held.clear()
        self._thread.append([(number, end, None, _BAD, AFTER, None, 1, None, None) for number in numbers.values()])
        await self._thread.flush()
        settle_ns = max(machine.settle for machine in self._configuration.machines.values())
        whole = max([self._whole_until(end), *(told.made for told in self._told)])
        await self._pass(whole + settle_ns + MARGIN_NS)

    def _whole_until(self, end: int) -> int:
        """When the windows that contain the end have ended."""
        agent, calendar = self._configuration.agent, self._configuration.calendar
        long = {"shift", "day"} & {size for one in self._configuration.machines.values() for size in one.summarize}
        if agent is None or not long:
            return end + STRIDE_NS
        made = calendar_of(calendar, agent.timezone)
        return max(end + STRIDE_NS, made.day_bounds(made.production_day(end))[1])

    # ------------------------------------------------------------------------------------------------- hold

    def _repeats(self, row: Row) -> list[Row]:
        """What the agent would have stored between a tag's reading before and this one."""
        held = self._held.get(row[0])
        if row[0] not in self._lasting or (held is not None and row[1] <= held[1]):
            return []
        repeats = [] if held is None else self._repeats_until(held, row[1])
        self._held[row[0]] = row
        return repeats

    def _repeats_until(self, held: Row, until: int) -> list[Row]:
        """A value as the refresh repeats it, before `until`; the last one takes its place."""
        number, time, cell, quality, cause, _, machine, _, _ = held
        if quality == _BAD or number not in self._held:
            return []
        times = range(time + self._refresh_ns, until, self._refresh_ns)
        repeats: list[Row] = [(number, at, cell, quality, cause, None, machine, None, None) for at in times]
        if repeats:
            self._held[number] = repeats[-1]
        return repeats

    # ---------------------------------------------------------------------------------------------- records

    def records(self) -> Iterator[dict[str, Any]]:
        """The records as `{"type": …, "data": …}`: with `revisions` all in order of issue, else the last by key."""
        with Store(self._folder, create=False) as store:
            if self._revisions:
                for stored in _all(store):
                    yield from self._said(stored.type, json.loads(stored.payload)["data"])
                return
            types = {stored.key: stored.type for stored in _all(store) if stored.key is not None}
            for key in sorted(types):
                data = store.records.latest(key)
                if data is not None:
                    yield from self._said(types[key], data)

    def _said(self, kind: str, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The record, unless it speaks only of the time after the end."""
        if self._until_ns is None or "start" not in data or parse(data["start"]) < self._until_ns:
            yield {"type": kind, "data": data}


def _all(store: Store) -> Iterator[StoredRecord]:
    after = 0
    while page := store.records.page(after=after, limit=_PAGE):
        yield from page
        after = page[-1].position
