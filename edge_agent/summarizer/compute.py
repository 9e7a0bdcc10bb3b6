"""One piece of work computed: pure, in a worker thread, so that a long one delays no poll."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent import production
from edge_agent.production import History, Interval, Machine
from edge_agent.production.downtime import stops_of
from edge_agent.production.history import first_ns
from edge_agent.production.jobs import JobFact, jobs_of
from edge_agent.shifts import Calendar
from edge_agent.summarizer.line import LONG_NS, Evidence, Found, Job, JobFound

Bases = dict[str, tuple[Machine, Calendar]]


def computed(job: Job, present: str, bases: Bases, in_force: Sequence[tuple[str, int, int]]) -> Found:
    """The windows of a job, and the stops and jobs in the time that it looks at.

    Args:
        job: what is to be computed, with its evidence.
        present: the hash of the present configuration, with which windows close.
        bases: machine and calendar by the hashes of configurations.
        in_force: the hashes in force over the time that is looked at, each with its part of it.
    """
    wanted: dict[str, set[Interval]] = {}
    for windows in job.due.values():
        wanted.setdefault(present, set()).update(windows)
    for each in job.again:
        wanted.setdefault(each.configuration, set()).add(each.window)
    found = Found()
    for hash, several in wanted.items():
        machine, calendar = bases[hash]
        ordered = sorted(window for window in several if not is_long(window))
        data = production.compute(machine, calendar, job.rows, ordered, job.known_until, job.entries)
        found.windows.update(zip(((window, hash) for window in ordered), data, strict=True))
    machine, _ = bases[present]
    for place, (hash, since, until) in enumerate(in_force):
        begins = 0 if place == 0 else since  # what began before it all is looked at once
        stops = stops_of(_history(*bases[hash], job, Evidence(job.rows, job.entries, job.known_until)))
        found.stops += [
            stop for stop in stops if begins <= stop.start_ns < until and _looked_at(stop.start_ns, stop.end_ns, job)
        ]
        jobs = jobs_of(_history(*bases[hash], job, job.work))
        found.jobs += [
            JobFound(each)
            for each in jobs
            if begins <= each.start_ns < until and _looked_at(each.start_ns, each.end_ns, job)
        ]
    if job.regular:
        found.unsettled = production.unsettled_since_ns(machine, job.rows, job.known_until)
    return found


def wanted_long(job: Job, present: str) -> list[tuple[Interval, str]]:
    """The windows of a job that are computed in pieces, each with its configuration."""
    due = [(window, present) for windows in job.due.values() for window in windows]
    wanted = dict.fromkeys([*due, *((each.window, each.configuration) for each in job.again)])
    return [(window, hash) for window, hash in wanted if is_long(window)]


def is_long(window: Interval) -> bool:
    """Whether a window is computed in pieces, with evidence of its own."""
    return window[1] - window[0] > LONG_NS


def _history(machine: Machine, calendar: Calendar, job: Job, given: Evidence) -> History:
    start = min(first_ns(machine, given.rows, job.look[0]), given.until - 1)
    return History(machine, calendar, given.rows, (start, given.until), given.until, given.entries)


def _looked_at(start: int, end: int | None, job: Job) -> bool:
    return start <= job.look[1] and (end is None or end >= job.look[0])


def bounded(job: JobFact, now: int, longest_ns: int) -> JobFact:
    """The job, ended by the agent where it has lasted longer than readings are kept: nobody could compute it whole."""
    last = job.start_ns + longest_ns
    if (job.end_ns is None and now >= last) or (job.end_ns is not None and job.end_ns > last):
        return job._replace(end_ns=last, ended_by="agent")
    return job
