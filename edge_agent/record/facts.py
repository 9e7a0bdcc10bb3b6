"""What records say: the `data` of production, gap, state and status, as plain dicts in the order of their printing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edge_agent.contract import NS_PER_S
from edge_agent.metrics import milliseconds, planned_operation_ns, ratio
from edge_agent.production import Machine, Present, Tally, WindowData
from edge_agent.record.events import gap_key, production_key, records_gap_key
from edge_agent.record.revision import FIRST, Revision
from edge_agent.shifts import Calendar
from edge_agent.timestamps import rfc3339

DEFINITION_ID = "iso22400-2:2014"
DEFINITION_VERSION = 1
"""Goes up when the same readings and settings would give other numbers."""
MEAN_TIMES = "mtbf=mttf+mttr; mttf=(run+setup)/failures; mttr=down/failures"
"""The convention of the mean times, of which there are several."""


def production_data(
    machine: Machine,
    calendar: Calendar,
    window: str,
    found: WindowData,
    revision: Revision = FIRST,
) -> dict[str, Any]:
    """The data of one window's production record.

    Args:
        machine: whose window it is.
        calendar: the site's, for shift and production day.
        window: the window's name, such as `1h`.
        found: what `production.compute` found for it.
        revision: which saying of it this is; its `previous` is `previous_of` the one before.
    """
    times = times_ms(found)
    return {
        **revision.head(production_key(machine.subject, window, found.start_ns), machine.name),
        "window": window,
        "start": rfc3339(found.start_ns),
        "end": rfc3339(found.end_ns),
        "shift": _constant_shift(calendar, found),
        "production_day": calendar.day_of_window(window, found.start_ns).isoformat(),
        "job": found.job,
        "product": found.product,
        "segments": [_segment(machine, calendar, segment) for segment in found.segments],
        "time_s": {state: part / 1000 for state, part in times.items()},
        "quantity": quantity_data(machine, found),
        "kpi": found.kpis.values,
        "kpi_reason": found.kpis.reasons,
        "sums": _sums(found),
        "downtime": _downtime(found, times),
        "pace": pace_data(found),
        "definition": _definition(machine, found.planned_run_time_ns),
        "completeness": completeness_data(found, times),
        "flags": list(found.flags),
    }


def previous_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a revision says of the one before it, so that a consumer can post the difference."""
    return {name: data[name] for name in ("revision", "quantity", "time_s")}


def gap_data(
    subject: str,
    what: str,
    start_ns: int,
    end_ns: int,
    cause: str,
    *,
    machine: str | None = None,
    window: str | None = None,
    topic: str | None = None,
    count: int | None = None,
    produced: int | None = None,
    records: tuple[int, int, int] | None = None,
    revision: int = 0,
    withdrawn: bool = False,
) -> dict[str, Any]:
    """The data of a gap: a range of which something is missing for good, or is not published.

    Args:
        subject: the machine's path, or the agent's.
        what: what is missing: a window's name, `readings` or `records`.
        start_ns: where the range begins.
        end_ns: where it ends.
        cause: why: one of the causes of missing time, or what was refused or dropped, such as `too_late`.
        machine: whose windows they are.
        window: the name of the windows that are not published.
        topic: where the missing records would have gone.
        count: how many windows, readings or records.
        records: the epoch, and the first and the last sequence on the topic, of the records that do not arrive.
        produced: items booked in the windows that are not published; they are in no production record.
        revision: one more each time that the same gap is said again.
        withdrawn: the gap has been filled.
    """
    epoch, first, last = records or (None, None, None)
    return {
        "key": gap_key(subject, what, start_ns) if records is None else records_gap_key(subject, topic, epoch, first),
        "revision": revision,
        "withdrawn": withdrawn,
        "what": what,
        "machine": machine,
        "window": window,
        "topic": topic,
        "start": rfc3339(start_ns),
        "end": rfc3339(end_ns),
        "cause": cause,
        "count": count,
        "produced": produced,
        "epoch": epoch,
        "first_sequence": None if first is None else f"{first:012d}",
        "last_sequence": None if last is None else f"{last:012d}",
    }


def state_data(
    machine: Machine,
    now: Present,
    shift: str | None = None,
    counts: WindowData | None = None,
    work: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The data of a machine's retained state: what it does now, since when, and what it has made.

    Args:
        machine: whose state it is.
        now: what `production.present` found.
        shift: the shift that runs.
        counts: the window, from the shift's begin or any other start until now, that the counts are of.
        work: the job in work, as `job_progress` has it; None: there is none.
    """
    return {
        "machine": machine.name,
        "state": now.state,
        "since": rfc3339(now.since_ns),
        "cause": now.cause,
        "reason": now.reason,
        "job": now.job,
        "product": now.product,
        "shift": shift,
        "counts": None if counts is None else {"since": rfc3339(counts.start_ns), **quantity_data(machine, counts)},
        "pace": None if counts is None else pace_data(counts),
        "work": work,
    }


def status_data(
    status: Literal["online", "offline"],
    since_ns: int,
    *,
    version: str,
    reason: str | None = None,
    misconfigured: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The data of the agent's retained status; the last will is one with `offline` and `connection_lost`.

    Args:
        status: whether the agent is there.
        since_ns: since when; in a last will, since when it had been connected.
        version: the agent's.
        reason: why it is offline: `connection_lost`, `stopped`.
        misconfigured: devices and machines that a fault disables, by name, with the fault.
    """
    return {
        "status": status,
        "since": rfc3339(since_ns),
        "version": version,
        "reason": reason,
        "misconfigured": dict(misconfigured or {}),
    }


def health_data(
    *, uptime_s: int, clock_ahead_s: float, devices: Mapping[str, Mapping[str, Any]], buffer: Mapping[str, Any],
    uplink: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The data of the agent's retained health: counts since its start, and the state of its buffer.

    Args:
        uptime_s: since the start, on the monotonic clock.
        clock_ahead_s: how far the agent's time is ahead of the machine's clock, which was set.
        devices: by name: `connected`, `polls`, `skipped`, `readings`, `bad_tags`, `skew_s`.
        buffer: `bytes`, `max_bytes`, `waiting`, `dead_letters`, `dropped`, `sacrificed`, `error`.
        uplink: `protocol`, `accepted`, `refused`, `slowed`, `reconnects`.
    """
    return {
        "uptime_s": uptime_s, "clock_ahead_s": clock_ahead_s, "devices": dict(devices), "buffer": dict(buffer),
        "uplink": dict(uplink),
    }  # fmt: skip


def _constant_shift(calendar: Calendar, found: WindowData) -> str | None:
    shifts = {calendar.shift_at(part.start_ns) for part in found.segments or (found,)}
    return shifts.pop() if len(shifts) == 1 else None


def times_ms(found: WindowData) -> dict[str, int]:
    """The nine states of a window in whole milliseconds that sum to it."""
    return dict(zip(found.times_ns, milliseconds(list(found.times_ns.values())), strict=True))


def quantity_data(machine: Machine, found: WindowData) -> dict[str, Any]:
    """The items of a window, by quantity and reason."""
    produced, good, scrap, rework = (found.quantities[name] for name in ("produced", "good", "scrap", "rework"))
    made = produced or good or Tally()
    return {
        "produced": produced and produced.total,
        "good": good and good.total,
        "scrap": scrap and scrap.total,
        "rework": rework.total if rework else 0,
        "unobserved": made.unobserved,
        "quarantined": made.quarantined,
        "unit": machine.unit,
        "scrap_by_reason": dict(found.by_reason.get("scrap", {})),
        "rework_by_reason": dict(found.by_reason.get("rework", {})),
    }


def _sums(found: WindowData) -> dict[str, float | int | None]:
    return {
        name: amount / NS_PER_S if amount is not None and name.endswith("_s") else amount
        for name, amount in found.kpis.sums.items()
    }


def completeness_data(found: WindowData, times_ms: Mapping[str, int]) -> dict[str, Any]:
    """What was seen of the scheduled time of a window, and why the rest was not."""
    operation_ns = planned_operation_ns(found.times_ns)
    observed_ms = sum(times_ms.values()) - times_ms["not_scheduled"] - times_ms["unknown"]
    missing_ms = milliseconds(list(found.missing_ns.values()), times_ms["unknown"])
    return {
        "observed_s": observed_ms / 1000,
        "missing_s": {cause: part / 1000 for cause, part in zip(found.missing_ns, missing_ms, strict=True)},
        "uncertain_s": milliseconds([found.uncertain_ns])[0] / 1000,
        "ratio": ratio(found.observed_ns, operation_ns) if operation_ns else None,
        "complete": found.complete,
    }


def _downtime(found: WindowData, times_ms: Mapping[str, int]) -> dict[str, Any]:
    by_reason = found.downtime.by_reason_ns
    parts_ms = milliseconds(list(by_reason.values()), times_ms["delay"] + times_ms["down"])
    return {
        "stops": found.downtime.stops,
        "failures": found.downtime.failures,
        "by_reason_s": {reason: part / 1000 for reason, part in zip(by_reason, parts_ms, strict=True)},
    }


def pace_data(found: WindowData) -> dict[str, Any] | None:
    """What the goal expects of a window, in whole items, and how far ahead of it (or, below 0, behind) it is."""
    if found.pace is None:
        return None
    made, expected = found.quantities["produced"] or found.quantities["good"] or Tally(), round(found.pace.expected)
    return {"goal_per_h": float(found.pace.goal * 3_600), "expected": expected, "ahead": made.total - expected}


def _definition(machine: Machine, planned_run_time_ns: int | None) -> dict[str, Any]:
    definition = machine.definition
    return {
        "id": DEFINITION_ID,
        "version": DEFINITION_VERSION,
        "planned_run_time_per_item_s": seconds(planned_run_time_ns),
        "short_stop_s": seconds(definition.short_stop_ns),
        "short_stop_counts_as": definition.short_stop_counts_as,
        "setup_counts_as": definition.setup_counts_as,
        "idle_counts_as": definition.idle_counts_as,
        "planned_stop_counts_as": definition.planned_stop_counts_as,
        "planned_stop_reasons": list(machine.reasons.planned),
        "when_offline": definition.when_offline,
        "state_from": definition.state_from,
        "stopped_after_s": seconds(definition.stopped_after_ns),
        "mean_times": MEAN_TIMES,
    }


def seconds(duration_ns: int | None) -> float | None:
    """A duration in seconds, whole where it is."""
    if duration_ns is None or duration_ns % NS_PER_S:
        return None if duration_ns is None else duration_ns / NS_PER_S
    return duration_ns // NS_PER_S


def _segment(machine: Machine, calendar: Calendar, found: WindowData) -> dict[str, Any]:
    return {
        "start": rfc3339(found.start_ns),
        "end": rfc3339(found.end_ns),
        "product": found.product,
        "job": found.job,
        "shift": calendar.shift_at(found.start_ns),
        "planned_run_time_per_item_s": seconds(found.planned_run_time_ns),
        "quantity": quantity_data(machine, found),
        "time_s": {state: part / 1000 for state, part in times_ms(found).items()},
    }
