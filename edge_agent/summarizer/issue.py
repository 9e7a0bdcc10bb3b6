"""What was found to records in the outbox: what is new, and what is now said otherwise. In the store's thread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from edge_agent import record, shifts
from edge_agent.production import Interval, Machine, WindowData
from edge_agent.production.downtime import StopFact
from edge_agent.production.jobs import JobFact
from edge_agent.record import Because
from edge_agent.store import Draft, Store
from edge_agent.store.records import Progress
from edge_agent.summarizer.compute import bounded
from edge_agent.summarizer.line import Again, Found, Job, Line
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import parse, rfc3339

HOUR_NS = 3_600 * 1_000_000_000
_SECOND_NS = 1_000_000_000
_OF_REVISION = frozenset({"revision", "revised_because", "previous", "final", "revisable_until"})
_LABELS = ("job", "downtime", "segments")
"""Of a production record: what may change although no time and no item does."""


class _Said(NamedTuple):
    """A stop or a job as it was published last, with its bounds in ns; `end` is far away while it is open."""

    data: dict[str, Any]
    start: int
    end: int


class Issuer:
    """Makes the drafts of one piece of work."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site = site
        self._store = store
        self._prefix = site.publisher.prefix

    def drafts(self, line: Line, job: Job, found: Found, now: int) -> list[Draft]:
        """Everything that is new or different, and the marks moved; within a transaction of the caller."""
        present = self._site.configuration.hash
        drafts = [*self._stops(line, job, found.stops, now), *self._jobs(line, job, found.jobs, now)]
        filled: list[Draft] = []
        for each in job.again:
            draft = self._revision(line, each, found.windows[each.window, each.configuration], now)
            if draft is not None:
                filled += [draft] if each.before is None else []
                drafts.append(draft)
        drafts += self._filled_gaps(line, filled)
        for size, windows in job.due.items():
            if windows:
                data = [found.windows[window, present] for window in windows]
                drafts += self._new(line, size, data, now)
        self._store.entries.looked_at(job.ids)
        if job.regular:
            for name, value in zip(facts_of(line), (job.look[1], found.unsettled or 0), strict=True):
                self._store.set_fact(name, value)
        return drafts

    # -------------------------------------------------------------------------------------------- windows

    def _new(self, line: Line, size: str, windows: list[WindowData], now: int) -> Iterable[Draft]:
        """The records of windows that close now; runs of windows under an hour without anything become one gap."""
        name = line.of.machine.name
        closed, since, why = self._store.records.progress(name, size) or Progress(0)
        drafts = []
        for window in windows:
            cause = _blank_cause(window) if _under_an_hour(size) else None
            if since is not None and why is not None and (cause != why or window.end_ns - since > HOUR_NS):
                drafts.append(self._gap(line, size, since, window.start_ns, why))
                since = None
            if cause is None:
                hash = self._site.configuration.hash
                drafts.append(self._window(line, Again(size, _span(window), "entry", hash, None), window, now))
            elif since is None:
                since, why = window.start_ns, cause
            closed = window.end_ns
        self._store.records.set_progress(name, size, Progress(closed, since, None if since is None else why))
        return drafts

    def _revision(self, line: Line, each: Again, window: WindowData, now: int) -> Draft | None:
        """The next revision of a window that was looked at again; None when it says what was said before."""
        if each.before is None:
            # Windows of the calendar are always published: one that was not belongs to a calendar edited since.
            if each.size not in shifts.FIXED_WINDOWS_S or _blank_cause(window):
                return None
            return self._window(line, each, window, now)
        before = each.before["data"]
        draft = self._window(line, each, window, now)
        said, says = _stated(before), _stated(json.loads(record.freeze(draft.data)))
        if _under_an_hour(each.size) and each.why in ("entry", "reclassified"):
            said, says = _without_labels(said), _without_labels(says)
        return None if said == says else draft

    def _window(self, line: Line, each: Again, window: WindowData, now: int) -> Draft:
        calendar, machine = self._site.basis_under(each.configuration).calendar, self._machine(line, each.configuration)
        before = each.before and each.before["data"]
        until = self._site.revisable_until(calendar, each.size, window.start_ns)
        data = record.production_data(
            machine,
            calendar,
            each.size,
            window,
            revision=before["revision"] + 1 if before else 0,
            revised_because=each.why if before else None,
            previous=record.previous_of(before) if before else None,
            final=until <= now,
            revisable_until_ns=None if until <= now else until,
        )
        topic = record.production_topic(self._prefix, machine.subject, each.size)
        return Draft(
            "production", topic, machine.subject, data, data["key"], data["revision"], configuration=each.configuration
        )

    def _machine(self, line: Line, configuration: str) -> Machine:
        return self._site.machine(configuration, line.of.machine)

    # ----------------------------------------------------------------------------------------------- gaps

    def _gap(self, line: Line, size: str, start: int, end: int, cause: str, **revised: Any) -> Draft:
        machine = line.of.machine
        count = sum(1 for window in shifts.windows(self._site.calendar, size, start, end) if window[1] <= end)
        data = record.gap_data(
            machine.subject, size, start, end, cause,
            machine=machine.name, window=size, count=revised.pop("count", count), produced=0,
            topic=record.production_topic(self._prefix, machine.subject, size), **revised,
        )  # fmt: skip
        return Draft("gap", self._gap_topic, machine.subject, data, data["key"], data["revision"])

    @property
    def _gap_topic(self) -> str:
        return record.agent_topic(self._site.publisher, "gap")

    def too_late(self, line: Line, start: int, end: int, count: int) -> Draft:
        """The gap of readings that came after all they could change was final."""
        machine = line.of.machine
        data = record.gap_data(
            machine.subject, "readings", start, end, "too_late", machine=machine.name, count=count, produced=0
        )
        before = self._store.records.latest(data["key"])
        if before is not None:
            data |= {"revision": before["revision"] + 1, "count": before["count"] + count}
        return Draft("gap", self._gap_topic, machine.subject, data, data["key"], data["revision"])

    def _filled_gaps(self, line: Line, filled: Iterable[Draft]) -> Iterator[Draft]:
        """What gaps name less since windows in them were published after all; withdrawn where nothing is left."""
        by_key: dict[str, tuple[dict[str, Any], int]] = {}
        for draft in filled:
            prefix = f"{line.of.machine.subject}/gap/{draft.data['window']}/"
            start = parse(draft.data["start"])
            for data in self._store.records.latest_between(prefix, rfc3339(start), rfc3339(start)):
                if parse(data["start"]) <= start < parse(data["end"]) and not data["withdrawn"]:
                    by_key[data["key"]] = (data, by_key.get(data["key"], (data, 0))[1] + 1)
        for data, count in by_key.values():
            left = max(0, int(data["count"]) - count)
            yield self._gap(
                line, data["window"], parse(data["start"]), parse(data["end"]), data["cause"],
                count=left, revision=data["revision"] + 1, withdrawn=not left,
            )  # fmt: skip

    # ---------------------------------------------------------------------------------------------- stops

    def _stops(self, line: Line, job: Job, stops: Iterable[StopFact], now: int) -> Iterator[Draft]:
        """The stops that are new, over, explained otherwise, or none any more."""
        machine = line.of.machine
        said = self._said(f"{machine.subject}/downtime/", job.look)
        used: set[int] = set()
        for stop in stops:
            end = job.known_until if stop.end_ns is None else stop.end_ns
            place = _same(said, used, stop.start_ns, end)
            before = None if place is None else said[place].data
            used |= set() if place is None else {place}
            draft = self._stop(line, stop, before, job.why, now)
            if draft is None:
                continue
            if before is None or before["reason"] != draft.data["reason"] or before["planned"] != stop.planned:
                self._tell_windows(line, stop.start_ns, end, before, draft, now)
            yield draft
        for place, one in enumerate(said):
            if place not in used:
                yield self._withdrawn(one.data, "downtime", machine, record.previous_stop(one.data), job.why)

    def _tell_windows(
        self, line: Line, start: int, end: int, before: dict[str, Any] | None, draft: Draft, now: int
    ) -> None:
        """Have the windows of a stop looked at again, whose part by reason is another one now."""
        if before is not None or draft.data["reason_by"] is not None:
            self._store.entries.reopen(line.of.machine.name, start, end, "reclassified", now)

    def _stop(
        self, line: Line, stop: StopFact, before: dict[str, Any] | None, why: Because | None, now: int
    ) -> Draft | None:
        machine, calendar = line.of.machine, self._site.calendar
        key = record.downtime_key(machine.subject, stop.start_ns) if before is None else before["key"]
        until = self._site.revisable_until(calendar, "", stop.start_ns)
        data = record.downtime_data(
            machine, calendar, key, stop,
            revision=0 if before is None else before["revision"] + 1,
            previous=None if before is None else record.previous_stop(before),
            final=until <= now, revisable_until_ns=None if until <= now else until,
        )  # fmt: skip
        if before is not None:
            if _stated(before) == _stated(json.loads(record.freeze(data))):
                return None
            data["revised_because"] = why or _change(before, data)
        topic = record.downtime_topic(self._prefix, machine.subject)
        return Draft("downtime", topic, machine.subject, data, key, data["revision"])

    def _withdrawn(
        self, data: dict[str, Any], kind: str, machine: Machine, previous: dict[str, Any], why: Because | None
    ) -> Draft:
        """A fact that has ceased."""
        said = data | {
            "revision": data["revision"] + 1, "revised_because": why or "late_reading", "previous": previous,
            "withdrawn": True,
        }  # fmt: skip
        return Draft(
            kind, f"{self._prefix}/{machine.subject}/{kind}", machine.subject, said, data["key"], said["revision"]
        )

    # ----------------------------------------------------------------------------------------------- jobs

    def jobs_wanted(self, line: Line, job: Job, jobs: Iterable[JobFact]) -> list[tuple[JobFact, dict[str, Any] | None]]:
        """The jobs of which something is to be said, with what was said last; each with the start that it has."""
        said = self._said(f"{line.of.machine.subject}/job/", job.look)
        used: set[int] = set()
        wanted = []
        for fact in jobs:
            end = job.known_until if fact.end_ns is None else fact.end_ns
            place = _same(said, used, fact.start_ns, end, fact.name)
            before = None
            if place is not None:
                used.add(place)
                before = said[place].data
                if fact.started_by == "tag":  # its rows may begin later than the job
                    fact = fact._replace(start_ns=min(fact.start_ns, said[place].start))
            fact = bounded(fact, job.known_until, self._site.keep_ns - self._site.keep_ns // 8)
            known = before is not None and before["end"] == (fact.end_ns and rfc3339(fact.end_ns))
            if known and job.why is None:
                continue
            if (before is None and fact.start_ns >= job.look[0]) or (before is not None and fact.end_ns is not None):
                wanted.append((fact, before))
        return wanted

    def _jobs(
        self, line: Line, job: Job, jobs: Iterable[tuple[JobFact, WindowData | None]], now: int
    ) -> Iterator[Draft]:
        machine = line.of.machine
        said = {one.data["key"]: one.data for one in self._said(f"{machine.subject}/job/", job.look)}
        seen = set()
        for fact, window in jobs:
            before = next((data for data in said.values() if parse(data["start"]) == fact.start_ns), None)
            draft = self._job(line, fact, window, before, job.why, now)
            seen |= set() if before is None else {before["key"]}
            if draft is not None:
                yield draft
                yield from self._job_window(line, fact, window, job, now)
        for key, data in said.items():
            started = parse(data["start"])
            if key not in seen and job.why is not None and job.look[0] <= started < job.look[1]:
                yield self._withdrawn(data, "job", machine, record.previous_job(data), job.why)

    def _job(
        self, line: Line, fact: JobFact, window: WindowData | None, before: dict[str, Any] | None,
        why: Because | None, now: int,
    ) -> Draft | None:  # fmt: skip
        machine = line.of.machine
        if before is not None and fact.end_ns is None:
            return None
        key = record.job_key(machine.subject, fact.start_ns) if before is None else before["key"]
        ended = fact.start_ns if fact.end_ns is None else max(fact.start_ns, fact.end_ns - 1)
        until = self._site.revisable_until(self._site.calendar, "", ended)
        data = record.job_data(
            machine, key, fact, window,
            revision=0 if before is None else before["revision"] + 1,
            previous=None if before is None else record.previous_job(before),
            final=until <= now, revisable_until_ns=None if until <= now else until,
        )  # fmt: skip
        if before is not None:
            if _stated(before) == _stated(json.loads(record.freeze(data))):
                return None
            data["revised_because"] = "ended" if before["open"] else why or "late_reading"
        topic = record.job_topic(self._prefix, machine.subject)
        return Draft("job", topic, machine.subject, data, key, data["revision"])

    def _job_window(self, line: Line, fact: JobFact, window: WindowData | None, job: Job, now: int) -> Iterator[Draft]:
        """The production record of a job's whole time, where it is wanted."""
        if window is None or "job" not in line.of.settings.summarize:
            return
        key = record.production_key(line.of.machine.subject, "job", fact.start_ns)
        before, why = self._store.records.latest_event(key), job.why or "late_reading"
        hash = before["configuration"] if before else self._site.configuration.hash
        again = Again("job", _span(window), why, hash, before)
        draft = self._window(line, again, window, now)
        if before is None or _stated(before["data"]) != _stated(json.loads(record.freeze(draft.data))):
            yield draft

    def _said(self, prefix: str, look: Interval) -> list[_Said]:
        """The stops or jobs that were published, not withdrawn, and overlap a time or touch it."""
        found = []
        for data in self._store.records.latest_between(prefix, rfc3339(look[0] - _SECOND_NS), rfc3339(look[1])):
            start = parse(data["start"])
            end = look[1] + 1 if data["end"] is None else parse(data["end"])
            if not data["withdrawn"] and start <= look[1] and end >= look[0]:
                found.append(_Said(data, start, end))
        return found


def _same(said: list[_Said], used: set[int], start: int, end: int, name: str | None = None) -> int | None:
    """Which of the published facts this one is: that of the same start, else one that overlaps it."""
    free = [
        (place, one)
        for place, one in enumerate(said)
        if place not in used and (name is None or one.data["job"] == name)
    ]
    same = [place for place, one in free if one.start == start]
    return next(iter([*same, *(place for place, one in free if one.start < end and start < one.end)]), None)


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> record.StopBecause:
    """Why a stop that goes on is said again."""
    if before["open"] != after["open"]:
        return "ended"
    same = all(before[name] == after[name] for name in ("start", "end", "time_s"))
    return "reason" if same else "late_reading"


def _span(window: WindowData) -> Interval:
    return window.start_ns, window.end_ns


def _under_an_hour(size: str) -> bool:
    return shifts.FIXED_WINDOWS_S.get(size, 3_600) < 3_600


def _blank_cause(window: WindowData) -> str | None:
    """Why nothing was observed in a window: its state unknown throughout, and no part booked in it; else None."""
    counted = any(tally is not None and tally != (0, 0, 0) for tally in window.quantities.values())
    if counted or window.times_ns["unknown"] != window.end_ns - window.start_ns:
        return None
    return max(window.missing_ns, key=window.missing_ns.__getitem__)


def _stated(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a record states, without what only its revision changes."""
    return {name: value for name, value in data.items() if name not in _OF_REVISION}


def _without_labels(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _LABELS}


def facts_of(line: Line) -> tuple[str, str]:
    """The names under which the store remembers until when stops were looked for, and what is unsettled."""
    name = line.of.machine.name
    return f"looked.{name}", f"unsettled.{name}"
