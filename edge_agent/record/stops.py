"""What a record of a stop says: when, how long, in which states, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.metrics import milliseconds
from edge_agent.production import Machine
from edge_agent.production.downtime import StopFact
from edge_agent.record.revision import FIRST, Revision
from edge_agent.shifts import Calendar
from edge_agent.timestamps import rfc3339


def downtime_topic(prefix: str, subject: str) -> str:
    """Where the stops of one machine go."""
    return f"{prefix}/{subject}/downtime"


def downtime_key(subject: str, start_ns: int) -> str:
    """The name of a stop: its start as it was first published, which it keeps."""
    return f"{subject}/downtime/{rfc3339(start_ns)}"


def downtime_data(
    machine: Machine,
    calendar: Calendar,
    key: str,
    stop: StopFact,
    revision: Revision = FIRST,
) -> dict[str, Any]:
    """The data of a stop; arguments as of `production_data`."""
    reason = stop.reason
    return {
        **revision.head(key, machine.name),
        "start": rfc3339(stop.start_ns),
        "end": None if stop.end_ns is None else rfc3339(stop.end_ns),
        "open": stop.end_ns is None,
        "state": stop.state,
        **_durations(stop),
        "reason": reason.name,
        "reason_by": reason.by,
        "plc": None if reason.code is None else {"code": _code(reason.code), "reason": reason.plc},
        "person": None
        if reason.entry is None
        else {"by": reason.entry.by, "reason": reason.entry.body["reason"], "made": rfc3339(reason.entry.made_ns)},
        "planned": stop.planned,
        "failure": stop.failure,
        "seen_whole": stop.whole,
        "shift": calendar.shift_at(stop.start_ns),
        "production_day": calendar.production_day(stop.start_ns).isoformat(),
        "product": stop.product,
        "job": stop.job,
    }


def previous_stop(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a revision of a stop says of the one before it."""
    return {name: data[name] for name in ("revision", "start", "end", "duration_s", "time_s", "reason")}


def _code(code: Any) -> Any:
    return code.hex() if isinstance(code, bytes) else code


def _durations(stop: StopFact) -> dict[str, Any]:
    if stop.end_ns is None or stop.times_ns is None:
        return {"duration_s": None, "time_s": None}
    parts = milliseconds(list(stop.times_ns.values()))
    return {
        "duration_s": milliseconds([stop.end_ns - stop.start_ns])[0] / 1000,
        "time_s": {state: part / 1000 for state, part in zip(stop.times_ns, parts, strict=True)},
    }
