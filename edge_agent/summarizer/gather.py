"""What is due for a machine, with its readings and entries: all that one piece of work needs, in the store's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from edge_agent import production, record, shifts
from edge_agent.contract import NS_PER_S, Quality
from edge_agent.entries import Entry
from edge_agent.equipment import Row
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Interval, Machine
from edge_agent.record import Because
from edge_agent.store import Reopened, Store
from edge_agent.summarizer.line import LONG_NS, NEVER, Again, Evidence, Job, Line
from edge_agent.summarizer.said import said
from edge_agent.summarizer.site import Site

_BAD = int(Quality.BAD)
HOUR_NS = 3_600 * NS_PER_S
SPAN_NS = 6 * HOUR_NS
"""How much is closed at once after a long absence, so that catching up needs little memory."""
AT_MOST_EVERY_NS = 60 * NS_PER_S
"""A window is said again at most this often, and no later than this after the first reason for it."""
_WHY = ("clock", "entry", "backfill", "late_loss", "late_reading", "reclassified")
"""Of several reasons the first one in this order is named."""


class Cluster(NamedTuple):
    """A time that is to be looked at again."""

    start: int
    end: int
    why: Because
    ids: tuple[int, ...]


class Gatherer:
    """Finds what is due. Every method belongs to the store's thread."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site = site
        self._store = store

    # -------------------------------------------------------------------------------------------- what is due

    def regular(self, line: Line, known_until: int) -> Job | None:
        """Windows that close now, what may still change, and the time since stops and jobs were looked for."""
        machine, settle = line.of.machine, line.of.settle_ns
        first = self._store.readings.first_time(machine.tags)
        looking, line.look_at = known_until >= line.look_at, NEVER
        if first is None:
            line.next_close = known_until + NS_PER_S
            return None
        closed = self._closed(line, first)
        ends = {size: self._next_end(size, since) for size, since in closed.items()}
        until = min(known_until - settle, min(ends.values(), default=known_until) + SPAN_NS)
        more = until < known_until - settle
        due = {size: self._windows(size, since, until) for size, since in closed.items()}
        for size, found in due.items():
            if found:
                ends[size] = self._next_end(size, found[-1][1])
                if self._store.records.progress(machine.name, size):
                    # Also after an edit of the calendar a window begins where the one before it ended.
                    found[0] = (max(found[0][0], closed[size]), found[0][1])
        line.next_close = min(ends.values(), default=known_until + AT_MOST_EVERY_NS) + settle
        if not (any(due.values()) or looking):
            return None
        last = max((found[-1][1] for found in due.values() if found), default=known_until)
        known = min(known_until, last + production.lookahead_ns(machine)) if more else known_until
        again, settled = [], False
        if line.unsettled is not None and not self._goes_on(line, line.unsettled, known_until):
            again = self._again(line, (line.unsettled, known_until), known_until, closed, "reclassified")
            settled = True
        look = (min(first if line.looked_until is None else line.looked_until, known), known)
        if settled and line.unsettled is not None:
            look = (min(look[0], line.unsettled), known)
        return self._with_evidence(
            line, Job(due, again, look, None, {}, (), known, True, more, settled=settled), known_until
        )

    def _goes_on(self, line: Line, unsettled: int, known_until: int) -> bool:
        """Whether nothing new is known of what is unsettled: looking at a day for nothing costs too much."""
        machine = line.of.machine
        rows = self.rows(machine.tags, unsettled - production.lookback_ns(machine), known_until)
        return production.unsettled_since_ns(machine, rows, known_until) == unsettled

    def waiting(self, line: Line, known_until: int) -> list[Cluster]:
        """What is to be looked at again and has been quiet for `settle`; also sets when that is next so."""
        waiting = self._store.entries.reopened(line.of.machine.name)
        line.reopen_at = NEVER
        if not waiting:
            return []
        quiet = min(waiting[-1].made + line.of.settle_ns, waiting[0].made + AT_MOST_EVERY_NS)
        due = max(quiet, line.revised_at + AT_MOST_EVERY_NS)
        if known_until < due:
            line.reopen_at = due
            return []
        line.revised_at = known_until
        return list(_clusters(waiting))

    def reopened(self, line: Line, cluster: Cluster, known_until: int) -> Job | None:
        """A time of one machine to be looked at again, and all that a change in it may change; None: all is final."""
        machine = line.of.machine
        first = self._store.readings.first_time(machine.tags)
        if first is None:
            return None
        # A part is unobserved where the state was unknown at any time since the count's reading before.
        reach = production.lookback_ns(machine)
        counted = [
            self._store.readings.next_good(rules.tag, cluster.end) or known_until
            for rules in machine.rules
            if machine.hold_ns.get(rules.tag) is None
        ]
        start, end = cluster.start - reach, max([cluster.end + reach, *(each + 1 for each in counted)])
        for stop in said(self._store, f"{machine.subject}/downtime/", (start, end)):
            ended = known_until if stop.data["end"] is None else stop.end
            start, end = min(start, stop.start), max(end, ended)
        start, end = max(start, first, self._site.horizon(known_until)), min(end, known_until)
        if start >= end:
            return None
        again = self._again(line, (start, end), known_until, self._closed(line, first), cluster.why)
        last = max([end, *(each.window[1] for each in again)])
        known = min(known_until, last + production.lookahead_ns(machine))
        job = Job({}, again, (start, end), cluster.why, {}, (), known, False, ids=cluster.ids)
        return self._with_evidence(line, job, known_until)

    def _closed(self, line: Line, first: int) -> dict[str, int]:
        marks = {size: self._store.records.progress(line.of.machine.name, size) for size in line.of.windows}
        return {size: mark.closed_until if mark else first for size, mark in marks.items()}

    def _again(self, line: Line, look: Interval, now: int, closed: dict[str, int], why: Because) -> list[Again]:
        """The closed windows that overlap a time and are not final."""
        found, machine, gone = [], line.of.machine, self._site.sacrificed_until
        for size, until in closed.items():
            for window, hash in self._site.closed_windows(size, *look, until, line.of.settle_ns):
                if window[0] < gone:
                    continue
                subject = self._site.machine(hash, machine).subject
                before = self._store.records.latest_event(record.production_key(subject, size, window[0]))
                used = before["configuration"] if before else hash
                if self._site.revisable_until(self._site.basis_under(used).calendar, *window) > now:
                    found.append(Again(size, window, why, used, before))
        return found

    def _windows(self, size: str, since: int, until: int) -> list[Interval]:
        """The windows of a size from the one that contains `since`, that have ended by `until`."""
        return [window for window in shifts.windows(self._site.calendar, size, since, until) if window[1] <= until]

    def _next_end(self, size: str, start: int) -> int:
        """When the window of a size that contains `start` ends."""
        return next(iter(shifts.windows(self._site.calendar, size, start, start + 1)))[1]

    # ------------------------------------------------------------------------------------------ the evidence

    def _with_evidence(self, line: Line, job: Job, known_until: int) -> Job:
        """The job with rows and entries, so far back and forward that no stop is cut."""
        windows = [window for found in job.due.values() for window in found] + [each.window for each in job.again]
        point = min([job.look[0], *(start for start, end in windows if end - start <= LONG_NS)])
        used = {each.configuration for each in job.again}
        used.update(hash for hash, *_ in self._site.spans_in_force(job.look[0], job.look[1] + 1))
        own = line.of.machine
        machines = [own, *(machine for hash in used if (machine := self._site.machine(hash, own)) != own)]
        found = self.evidence(machines, point, job.known_until, known_until)
        look = (job.look[0], found.until if job.regular else min(job.look[1], found.until))
        work = found
        if not job.regular:  # a job that goes on from there may have ended long ago
            tags = dict.fromkeys(tag for machine in machines for tag in machine.worked.tags)
            since = point - production.lookback_ns(own)
            rows = self.rows(tags, since, known_until)
            work = Evidence(rows, self._entries(own, rows, since, known_until), known_until)
        return replace(job, look=look, rows=found.rows, entries=found.entries, known_until=found.until, work=work)

    def evidence(self, machines: Sequence[Machine], point: int, until: int, now: int) -> Evidence:
        """What [point, until) needs: from the begin of a stop that goes on at its start, to the end of one at its end.

        Args:
            machines: one machine, as the configurations have it that are to be computed with.
            point: the start.
            until: the end.
            now: there is nothing from then on.
        """
        tags = tuple(dict.fromkeys(tag for machine in machines for tag in machine.tags))
        since = point - max(production.lookback_ns(machine) for machine in machines)
        first = self._store.readings.first_time(tags) or since
        rows = self.rows(tags, since, until)
        silent = min([since, *_before(machines, rows, point)])
        if silent < since:
            since, rows = silent, self.rows(tags, silent, until)
        while since > first and point - since < self._site.keep_ns and _cut(machines, rows, since, point):
            since = point - 4 * (point - since)
            rows = self.rows(tags, since, until)
        while until < now and _cut(machines, rows, until - 1, until):
            until = min(now, until + max(HOUR_NS, until - point))
            rows = self.rows(tags, since, until)
        return Evidence(rows, self._entries(machines[0], rows, since, until), until)

    def _entries(self, machine: Machine, rows: dict[str, list[Row]], since: int, until: int) -> tuple[Entry, ...]:
        since = production.entries_since(machine, rows, since)
        return tuple(self._store.entries.of(machine.name, since, until))

    def rows(self, tags: Iterable[str], since: int, until: int) -> dict[str, list[Row]]:
        """The readings of tags, with what holds at the start and what counts need before it."""
        return self._store.readings.steps_of(tags, since, until, COUNTER_LOOKBACK_READINGS)


def _before(machines: Iterable[Machine], rows: Mapping[str, Sequence[Row]], point: int) -> Iterator[int]:
    """The last good readings before a time of counts whose silence is no gap: what comes next was made since then."""
    for machine in machines:
        for rules in machine.rules:
            if machine.hold_ns.get(rules.tag) is None:
                yield from [time for time, _, quality, _ in rows.get(rules.tag, ()) if quality < _BAD and time < point][
                    -1:
                ]


def _cut(machines: Iterable[Machine], rows: dict[str, list[Row]], since: int, point: int) -> bool:
    return any(production.cut_stop(machine, rows, since, point) for machine in machines)


def _clusters(waiting: Sequence[Reopened]) -> Iterable[Cluster]:
    """What is to be looked at again, put together where it overlaps or nearly does."""
    gathered: list[Reopened] = []
    end = 0
    for each in sorted(waiting, key=lambda each: each.start):
        if gathered and each.start > end + HOUR_NS:
            yield _cluster(gathered, end)
            gathered = []
        end = max(end, each.end) if gathered else each.end
        gathered.append(each)
    if gathered:
        yield _cluster(gathered, end)


def _cluster(gathered: Sequence[Reopened], end: int) -> Cluster:
    why = min((each.why for each in gathered), key=_WHY.index)
    return Cluster(gathered[0].start, end, cast(Because, why), tuple(each.id for each in gathered))
