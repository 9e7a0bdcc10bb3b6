"""What is due for a machine, with its readings and entries: all that one piece of work needs, in the store's thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from edge_agent import production, record, shifts
from edge_agent.contract import NS_PER_S
from edge_agent.equipment import Row
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Interval, Machine
from edge_agent.record import Because
from edge_agent.store import Reopened, Store
from edge_agent.summarizer.line import LONG_NS, NEVER, Again, Job, Line
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import parse, rfc3339

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
        again = []
        if line.unsettled is not None and not self._goes_on(line, line.unsettled, known_until):
            again = self._again(line, line.unsettled, known_until, closed, "reclassified")
        look = (min(first if line.looked_until is None else line.looked_until, known), known)
        return self._with_evidence(line, Job(due, again, look, None, {}, (), known, True, more), known_until)

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
        reach = machine.definition.short_stop_ns + machine.state.reach_ns + 1
        start, end = cluster.start - reach, cluster.end + reach
        for stop in self._store.records.latest_between(
            f"{machine.subject}/downtime/", rfc3339(start - NS_PER_S), rfc3339(end)
        ):
            ended = known_until if stop["end"] is None else parse(stop["end"])
            if parse(stop["start"]) < end and start < ended:
                start, end = min(start, parse(stop["start"])), max(end, ended)
        start, end = max(start, first, self._site.horizon(known_until)), min(end, known_until)
        if start >= end:
            return None
        again = self._again(line, start, end, self._closed(line, first), cluster.why)
        last = max([end, *(each.window[1] for each in again)])
        known = min(known_until, last + production.lookahead_ns(machine))
        job = Job({}, again, (start, end), cluster.why, {}, (), known, False, ids=cluster.ids)
        return self._with_evidence(line, job, known_until)

    def _closed(self, line: Line, first: int) -> dict[str, int]:
        marks = {size: self._store.records.progress(line.of.machine.name, size) for size in line.of.windows}
        return {size: mark.closed_until if mark else first for size, mark in marks.items()}

    def _again(self, line: Line, start: int, end: int, closed: dict[str, int], why: Because) -> list[Again]:
        """The closed windows that overlap [start, end) and are not final."""
        found, machine = [], line.of.machine
        for size, until in closed.items():
            for window, hash in self._site.closed_windows(size, start, end, until, line.of.settle_ns):
                before = self._store.records.latest_event(record.production_key(machine.subject, size, window[0]))
                used = before["configuration"] if before else hash
                calendar = self._site.basis_under(used).calendar
                if self._site.revisable_until(calendar, size, window[0]) > end:
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
        known, tags = job.known_until, self._tags(line, used)
        since, rows = self.rows_from(line.of.machine, tags, point, known)
        while known < known_until and self._cut(line, rows, known - 1, known):
            known = min(known_until, known + max(HOUR_NS, 4 * (known - point)))
            rows = self.rows(tags, since, known)
        entries = self._store.entries.of(line.of.machine.name, since, known)
        look = (job.look[0], known if job.regular else min(job.look[1], known))
        return Job(job.due, job.again, look, job.why, rows, tuple(entries), known, job.regular, job.more, job.ids)

    def rows_from(
        self, machine: Machine, tags: tuple[str, ...], point: int, until: int
    ) -> tuple[int, dict[str, list[Row]]]:
        """The readings that a window from `point` needs, from the begin of a stop that goes on then; and since when."""
        since = point - production.lookback_ns(machine)
        first = self._store.readings.first_time(tags) or since
        rows = self.rows(tags, since, until)
        while since > first and point - since < self._site.keep_ns and production.cut_stop(machine, rows, since, point):
            since = point - 4 * (point - since)
            rows = self.rows(tags, since, until)
        return since, rows

    def rows(self, tags: Iterable[str], since: int, until: int) -> dict[str, list[Row]]:
        """The readings of tags, with what holds at the start and what counts need before it."""
        return self._store.readings.steps_of(tags, since, until, COUNTER_LOOKBACK_READINGS)

    def _tags(self, line: Line, used: Iterable[str]) -> tuple[str, ...]:
        tags = [tag for hash in used for tag in self._site.machine(hash, line.of.machine).tags]
        return tuple(dict.fromkeys([*line.of.machine.tags, *tags]))

    @staticmethod
    def _cut(line: Line, rows: dict[str, list[Row]], since: int, point: int) -> bool:
        return production.cut_stop(line.of.machine, rows, since, point)


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
