"""Stops and jobs to records in the outbox: what is new, over, explained otherwise, or none any more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edge_agent import record
from edge_agent.production.downtime import StopFact
from edge_agent.production.history import first_ns
from edge_agent.production.jobs import JobFact
from edge_agent.record import Because, Revision
from edge_agent.store import Draft, Store
from edge_agent.summarizer.compute import bounded
from edge_agent.summarizer.line import Found, Job, JobFound, Line
from edge_agent.summarizer.said import Fresh, Said, free_key, paired, said
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import parse, rfc3339

_OF_REVISION = frozenset({"revision", "revised_because", "previous", "final", "revisable_until"})


class Events:
    """Makes the drafts of the stops and jobs of one piece of work. Belongs to the store's thread."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site = site
        self._store = store
        self._prefix = site.publisher.prefix

    # ---------------------------------------------------------------------------------------------- stops

    def stops(self, line: Line, job: Job, stops: Sequence[StopFact], now: int) -> Iterator[Draft]:
        """The stops that are new, over, explained otherwise, or none any more."""
        machine = line.of.machine
        published = said(self._store, f"{machine.subject}/downtime/", job.look)
        ends = [job.known_until if stop.end_ns is None else stop.end_ns for stop in stops]
        pairs = paired(published, [Fresh(stop.start_ns, end) for stop, end in zip(stops, ends, strict=True)])
        begin = first_ns(machine, job.rows, job.look[0])
        for stop, end, one in zip(stops, ends, pairs, strict=True):
            before = None if one is None else one.data
            if one is not None and one.start < stop.start_ns <= begin:
                stop = stop._replace(start_ns=one.start)  # its readings are not kept any more
            draft = self._stop(line, stop, before, job.why, now)
            if draft is None:
                continue
            if before is None or before["reason"] != draft.data["reason"] or before["planned"] != stop.planned:
                self._tell_windows(line, stop.start_ns, end, before, draft, now)
            yield draft
        for gone in published:
            if gone not in pairs:
                yield self._withdrawn(line, gone.data, "downtime", record.previous_stop(gone.data), job.why, now)

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
        key = None if before is None else before["key"]
        if key is None:
            key, before = free_key(
                self._store, lambda start: record.downtime_key(machine.subject, start), stop.start_ns
            )
        until = self._site.revisable_until(calendar, stop.start_ns, stop.start_ns)
        first = self._store.records.first_revision(stop.start_ns)
        data = record.downtime_data(
            machine, calendar, key, stop, next_revision(before, record.previous_stop, None, until, now, first)
        )
        if before is not None:
            if stated(before) == stated(json.loads(record.freeze(data))):
                return None
            data["revised_because"] = why or _change(before, data)
        topic = record.downtime_topic(self._prefix, machine.subject)
        hash = self._site.spans_in_force(stop.start_ns, stop.start_ns + 1)[0][0]
        return Draft("downtime", topic, machine.subject, data, key, data["revision"], hash)

    def _withdrawn(
        self, line: Line, data: dict[str, Any], kind: str, previous: dict[str, Any], why: Because | None, now: int
    ) -> Draft:
        """A fact that has ceased."""
        subject = line.of.machine.subject
        due = data["revisable_until"]
        final = due is None or parse(due) <= now
        said = data | {
            "revision": data["revision"] + 1, "revised_because": why or "late_reading", "previous": previous,
            "withdrawn": True, "final": final, "revisable_until": None if final else due,
        }  # fmt: skip
        topic = f"{self._prefix}/{subject}/{kind}"
        if kind == "production":
            topic = record.production_topic(self._prefix, subject, data["window"])
        return Draft(kind, topic, subject, said, data["key"], said["revision"])

    # ----------------------------------------------------------------------------------------------- jobs

    def jobs_wanted(self, line: Line, job: Job, found: Found) -> None:
        """Leave of the jobs found those of which something is to be said, with what was said last; and name the rest.

        Each has the start that it has: of a tag's job whose readings begin later, the one that was said.
        """
        published = said(self._store, f"{line.of.machine.subject}/job/", job.look)
        longest, now = self._site.keep_ns - self._site.keep_ns // 8, job.work.until
        facts = [each.fact for each in found.jobs]
        pairs = paired(published, [Fresh(fact.start_ns, fact.end_ns or now, fact.name) for fact in facts])
        found.jobs = []
        horizon = self._site.horizon(now)
        for fact, one in zip(facts, pairs, strict=True):
            if one is not None and fact.started_by == "tag" and fact.start_ns < job.look[0]:
                fact = fact._replace(start_ns=one.start)  # its rows begin later than the job
            fact = bounded(fact, now, longest)
            if _is_wanted(fact, one, job, horizon):
                found.jobs.append(JobFound(fact, None, one and one.data, self._configuration(one)))
        found.ceased = [
            one.data
            for one in published
            if one not in pairs and job.why is not None and job.look[0] <= one.start < job.look[1]
        ]

    def _configuration(self, one: Said | None) -> str:
        """The hash of the configuration that a job was first said with."""
        event = None if one is None or one.data["open"] else self._store.records.latest_event(one.data["key"])
        return self._site.configuration.hash if event is None else str(event["configuration"])

    def jobs(self, line: Line, job: Job, found: Found, now: int) -> Iterator[tuple[str, Draft | None, JobFound | None]]:
        """The jobs by their keys: what is to be said of each, if anything, and what it is now, if it is one still."""
        for each in found.jobs:
            draft = self._job(line, each, job, now)
            yield draft.data["key"] if draft else (each.before or {})["key"], draft, each
        for data in found.ceased:
            yield data["key"], self._withdrawn(line, data, "job", record.previous_job(data), job.why, now), None

    def _job(self, line: Line, each: JobFound, job: Job, now: int) -> Draft | None:
        machine, fact, before = line.of.machine, each.fact, each.before
        key = None if before is None else before["key"]
        if key is None:
            key, before = free_key(self._store, lambda start: record.job_key(machine.subject, start), fact.start_ns)
        # Once the readings of its begin are not kept any more nobody can compute it again.
        until = self._site.revisable_until(self._site.calendar, fact.start_ns, fact.start_ns)
        first = self._store.records.first_revision(fact.start_ns)
        data = record.job_data(
            machine, key, fact, each.window, next_revision(before, record.previous_job, None, until, now, first)
        )
        if before is not None:
            if stated(before) == stated(json.loads(record.freeze(data))):
                return None
            ended = before["open"] and not before["withdrawn"] and not data["open"]
            data["revised_because"] = "ended" if ended else job.why or _reclassified(job) or "late_reading"
        topic = record.job_topic(self._prefix, machine.subject)
        return Draft("job", topic, machine.subject, data, key, data["revision"], each.configuration)

    def withdrawn_window(self, line: Line, key: str, why: Because | None, now: int) -> Iterator[Draft]:
        """The production record of a job that has ceased, or goes on after all, taken back where there is one."""
        before = self._store.records.latest(key)
        if before is not None and not before["withdrawn"]:
            yield self._withdrawn(line, before, "production", record.previous_of(before), why, now)


def next_revision(
    before: Mapping[str, Any] | None,
    previous_of: Callable[[Mapping[str, Any]], dict[str, Any]],
    why: record.EventBecause | None,
    until: int,
    now: int,
    first: int = 0,
) -> Revision:
    """The saying of a fact after `before`, which may change until `until`; without any before the `first`."""
    if before is None:
        return Revision(first, revisable_until_ns=until, final=until <= now)
    return Revision(before["revision"] + 1, why, previous_of(before), revisable_until_ns=until, final=until <= now)


def _is_wanted(fact: JobFact, one: Said | None, job: Job, horizon: int) -> bool:
    if one is None:
        return fact.start_ns >= job.look[0]
    if fact.start_ns < horizon and not one.data["open"]:
        return False
    if job.why is not None:
        return True
    ended = fact.end_ns is not None and one.data["end"] != rfc3339(fact.end_ns)
    # What was open when it ended may have turned out to be short.
    return ended or (fact.end_ns is not None and job.settled)


def _reclassified(job: Job) -> Because | None:
    return "reclassified" if job.settled else None


def _change(before: Mapping[str, Any], after: Mapping[str, Any]) -> record.EventBecause:
    """Why a stop that goes on is said again."""
    if before["open"] != after["open"]:
        return "ended"
    same = all(before[name] == after[name] for name in ("start", "end", "time_s"))
    return "reason" if same else "late_reading"


def stated(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a record states, without what only its revision changes."""
    return {name: value for name, value in data.items() if name not in _OF_REVISION}
