"""Jobs as facts of their own, and how far the one in work has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from edge_agent.contract import Value
from edge_agent.equipment.work import Job, last_known, text_of
from edge_agent.production.history import History
from edge_agent.production.model import Machine, WindowData
from edge_agent.shifts import Calendar


class JobFact(NamedTuple):
    """One job on one machine. `started_by` and `ended_by` say who: `tag`, a person, `next_job`, `agent`."""

    name: str
    start_ns: int
    end_ns: int | None
    started_by: str
    ended_by: str | None
    operation: str | None = None
    product: str | None = None
    planned_quantity: int | None = None
    fields: Mapping[str, Any] = {}


class Progress(NamedTuple):
    """A job in work: its good items so far, those that remain, and when they will be made at the planned rate."""

    job: JobFact
    good: int | None
    remaining: int | None
    expected_end_ns: int | None


def jobs_of(history: History) -> list[JobFact]:
    """The jobs of a history, in order; of one that began before it, the begin of its rows stands for its start."""
    return [_fact(history, job) for job in history.jobs]


def _fact(history: History, job: Job) -> JobFact:
    until = history.known_until_ns if job.end_ns is None else job.end_ns
    if job.entry is not None:
        body, ended = job.entry.body, job.ended_by
        by = None if ended is None else ("next_job" if ended.kind == "job-start" else ended.by)
        return JobFact(
            job.name, job.start_ns, job.end_ns, job.entry.by, by, body.get("operation"), body.get("product"),
            body.get("planned_quantity"), body.get("fields") or {},
        )  # fmt: skip
    rules = history.machine.worked

    def at_end(tag: str | None) -> Value:
        return last_known(history.rows.get(tag, ()), until) if tag else None

    return JobFact(
        job.name, job.start_ns, job.end_ns, "tag", None if job.end_ns is None else "tag",
        operation=text_of(at_end(rules.operation_tag)),
        product=text_of(at_end(rules.product_tag)),
        planned_quantity=_whole(at_end(rules.planned_quantity_tag)),
        fields={name: _plain(at_end(tag)) for name, tag in rules.field_tags.items()},
    )  # fmt: skip


def _whole(value: Value) -> int | None:
    return (
        int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) else None
    )


def _plain(value: Value) -> Any:
    return value if isinstance(value, bool | int | float) or value is None else text_of(value)


def progress(machine: Machine, calendar: Calendar, job: JobFact, so_far: WindowData | None, now_ns: int) -> Progress:
    """How far a job has come.

    The expected end is where the remaining items are made at the planned run time, in scheduled time without breaks;
    None where that is not known, or further away than 31 days of the calendar.
    """
    made = so_far and (so_far.quantities["good"] or so_far.quantities["produced"])
    good = made.total if made else None
    if job.planned_quantity is None or good is None:
        return Progress(job, good, None, None)
    remaining = max(0, job.planned_quantity - good)
    run_time_ns = machine.worked.run_time_ns(job.product)
    end = None if run_time_ns is None else calendar.after_working(now_ns, remaining * run_time_ns)
    return Progress(job, good, remaining, end)
