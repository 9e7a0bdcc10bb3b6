"""The loop that closes windows when they are due, and says again what has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from edge_agent import production, record
from edge_agent.clock import Clock
from edge_agent.config import Configuration
from edge_agent.contract import NS_PER_S
from edge_agent.entries import Entry
from edge_agent.envelope import Envelope
from edge_agent.equipment import Row
from edge_agent.production import Interval, Machine, Present, WindowData
from edge_agent.shifts import Calendar
from edge_agent.states import Broadcaster, States
from edge_agent.store import Draft, Issued, StoreError, StoreThread
from edge_agent.summarizer.compute import Bases, computed, wanted_long
from edge_agent.summarizer.gather import Gatherer
from edge_agent.summarizer.issue import Issuer, facts_of
from edge_agent.summarizer.late import find_late
from edge_agent.summarizer.line import LONG_NS, Found, Job, JobFound, Line
from edge_agent.summarizer.site import Site, machines_of

log = logging.getLogger(__name__)

TICK_NS = NS_PER_S
"""How often the states of machines are looked at; windows close when they are due."""
SOONEST_NS = NS_PER_S // 50
SCAN_NS = 5 * NS_PER_S
"""How often late readings are looked for, where no window closes."""
RETRY_NS = 60 * NS_PER_S


class Announcer(Broadcaster, Protocol):
    """The uplink as the summarizer sees it."""

    def wake(self) -> None:
        """New records are in the outbox."""
        ...


class Summarizer:
    """Closes the windows of all machines, for ever.

    Attributes:
        last_tick: the monotonic time of the last look at the clock.
        states: what each machine does now.
        site: what the machines share.
    """

    def __init__(
        self,
        configuration: Configuration,
        thread: StoreThread,
        uplink: Announcer,
        publisher: record.Publisher,
        clock: Clock,
    ) -> None:
        self.site = Site(configuration, publisher, thread.store)
        self._lines = [Line(each) for each in machines_of(configuration, publisher)]
        self._gather = Gatherer(self.site, thread.store)
        self._issuer = Issuer(self.site, thread.store)
        self._thread = thread
        self._uplink = uplink
        self._envelope = Envelope(publisher, clock)
        self._clock = clock
        machines = [line.of.machine for line in self._lines]
        self.states = States(machines, self.site.calendar, thread, uplink, self._envelope, clock, self.look)
        self.last_tick = clock.monotonic()
        self._scan_at = 0
        self._recalled = False

    async def run(self) -> None:
        """Close windows when they are due, and tell the states of the machines when they change."""
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
        """When something is due, in ns of the wall time; in a second where there is no machine."""
        return min((line.due for line in self._lines), default=self._clock.now() + TICK_NS)

    def look(self, machine: str) -> None:
        """Look for stops and jobs of a machine, `settle` from now: its readings have changed."""
        for line in self._lines:
            if line.of.machine.name == machine:
                line.look_at = min(line.look_at, self._clock.now() + line.of.settle_ns)

    def reopened(self, machine: str, since: int) -> None:
        """Look at what is to be looked at again of a machine: something was told of a time since `since`."""
        for line in self._lines:
            if line.of.machine.name == machine:
                line.reopen_at = 0
                line.look_at = min(line.look_at, self._clock.now() + line.of.settle_ns)
        self.states.forget(machine, since)

    async def close_due(self) -> None:
        """Close every window whose settle time has passed, and look again at what is to be looked at again."""
        now = self._clock.now()
        if not self._lines or now < min(self.next_due, self._scan_at):
            return
        try:
            await self._thread.flush()  # every reading received until now is in the database
            issued = await self._thread.call(self._scan)
        except StoreError:
            return  # said by the store's thread; windows close when the disk takes readings again
        for line in self._lines:
            if now < line.due:
                continue
            self.last_tick = self._clock.monotonic()
            try:
                issued += await self._work_on(line, self._thread.committed)
            except StoreError as error:
                log.warning("%s: windows wait for the disk: %s", line.of.machine.name, error)
                line.next_close = line.look_at = line.reopen_at = line.retry_at = self._clock.now() + RETRY_NS
            except Exception:  # one machine's windows must not stop the others
                log.exception("%s: windows could not be computed; trying again in a minute", line.of.machine.name)
                line.next_close = line.look_at = line.reopen_at = line.retry_at = self._clock.now() + RETRY_NS
        if issued:
            self._uplink.wake()

    async def _work_on(self, line: Line, known_until: int) -> int:
        issued = 0
        if known_until >= min(line.next_close, line.look_at):
            job = await self._thread.call(self._gather.regular, line, known_until)
            issued += 0 if job is None else await self._do(line, job)
        if known_until >= line.reopen_at:
            for cluster in await self._thread.call(self._gather.waiting, line, known_until):
                self.last_tick = self._clock.monotonic()
                job = await self._thread.call(self._gather.reopened, line, cluster, known_until)
                issued += await (self._forget(cluster.ids) if job is None else self._do(line, job))
        return issued

    async def _forget(self, ids: Iterable[int]) -> int:
        def forget() -> None:
            with self._thread.store.transaction():
                self._thread.store.entries.looked_at(ids)

        await self._thread.call(forget)
        return 0

    async def _do(self, line: Line, job: Job) -> int:
        """Compute one piece of work and issue what is new in it; how many records."""
        bases, in_force = await self._thread.call(self._bases, line, job)
        present = self.site.configuration.hash
        found = await asyncio.to_thread(computed, job, present, bases, in_force)
        for window, hash in wanted_long(job, present):
            found.windows[window, hash] = await self._pieced(*bases[hash], window)
        await self._thread.call(self._issuer.jobs_wanted, line, job, found)
        found.jobs = [each._replace(window=await self._window_of(line, each)) for each in found.jobs]
        issued = await self._thread.call(self._issue, line, job, found)
        self._warn_of_unmapped(line, found.windows.values())
        line.said_until = max(line.said_until, job.look[1])
        if not job.regular:
            self.states.forget(line.of.machine.name, job.look[0])
        else:
            line.looked_until, line.unsettled = job.look[1], found.unsettled
            if found.unsettled is not None:
                machine = line.of.machine
                certain = found.unsettled + machine.definition.short_stop_ns + machine.state.reach_ns + NS_PER_S
                line.look_at = min(line.look_at, max(certain, job.known_until + line.of.settle_ns))
            if job.more:
                line.next_close = 0
        if issued:
            line.reopen_at = 0  # what was found may have windows looked at again
        return issued

    async def _window_of(self, line: Line, job: JobFound) -> WindowData | None:
        """The whole time of a job that is over."""
        if job.fact.end_ns is None:
            return None
        basis = await self._thread.call(self.site.basis_under, job.configuration or self.site.configuration.hash)
        machine = basis.machines.get(line.of.machine.name, line.of.machine)
        return await self._pieced(machine, basis.calendar, (job.fact.start_ns, job.fact.end_ns))

    async def _pieced(self, machine: Machine, calendar: Calendar, window: Interval) -> WindowData:
        """A long window, computed piece by piece, each with its own evidence."""
        pieces, start = [], window[0]
        while start < window[1]:
            until = min(window[1], start + LONG_NS)
            known = until + production.lookahead_ns(machine)
            rows, entries, known = await self._thread.call(self._evidence, machine, start, known)
            pieces += await asyncio.to_thread(
                production.compute, machine, calendar, rows, [(start, until)], known, entries
            )
            start = until
        return production.added(machine, calendar, pieces)

    # ------------------------------------------------------------------------------- in the store's thread

    def _evidence(
        self, machine: Machine, start: int, until: int
    ) -> tuple[Mapping[str, list[Row]], Sequence[Entry], int]:
        """The rows and entries that a window from `start` needs, until `until` or now; and until when."""
        now = self._thread.committed
        found = self._gather.evidence([machine], start, min(until, now), now)
        return found.rows, found.entries, found.until

    def _scan(self) -> int:
        """Find late readings; go on, the first time, where the last run stopped. How many records."""
        if not self._recalled:
            self._recall()
        self._scan_at = self._clock.now() + SCAN_NS
        store = self._thread.store
        with store.transaction():
            drafts = find_late(self._lines, self.site, store, self._issuer, self._clock.now())
            store.issue(drafts, self._freeze, self._clock.now())
        return len(drafts)

    def _recall(self) -> None:
        """Go on where the last run stopped: with what it had said, and the stop that it may have to name anew."""
        store = self._thread.store
        for line in self._lines:
            looked, unsettled = (store.fact(name) for name in facts_of(line))
            line.looked_until, line.unsettled = looked, unsettled or None
            marks = [store.records.progress(line.of.machine.name, size) for size in line.of.windows]
            line.said_until = max([looked or 0, *(mark.closed_until for mark in marks if mark)])
            line.reopen_at = 0
        self._recalled = True

    def _bases(self, line: Line, job: Job) -> tuple[Bases, list[tuple[str, int, int]]]:
        in_force = self.site.spans_in_force(job.look[0], job.look[1] + 1)
        used = {
            self.site.configuration.hash,
            *(each.configuration for each in job.again),
            *(each[0] for each in in_force),
        }
        bases = {hash: self.site.basis_under(hash) for hash in used}
        return (
            {hash: (self.site.machine(hash, line.of.machine), basis.calendar) for hash, basis in bases.items()},
            in_force,
        )

    def _issue(self, line: Line, job: Job, found: Found) -> int:
        """Publish what is new or different, and move the marks, in one transaction; how many records."""
        store, now = self._thread.store, self._clock.now()
        with store.transaction():
            drafts = self._issuer.drafts(line, job, found, now)
            store.issue(drafts, self._freeze, now)
        self._remember_newest(line, drafts)
        return len(drafts)

    def _freeze(self, draft: Draft, issued: Issued) -> bytes:
        return self._envelope.freeze(draft.type, draft.subject, draft.data, issued, draft.configuration)

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
            now = self.states.present(name)
            told = dict.fromkeys(Present._fields) if now is None else now._asdict()
            told["since"] = told.pop("since_ns")
            figures.append({"machine": name, **told, "newest": line.newest})
        return figures
