"""Stops as facts of their own: how long, in which states, why, and what was in work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

from edge_agent import equipment, metrics
from edge_agent.equipment import DOWN, LABELS, STATES
from edge_agent.equipment.stops import Reason
from edge_agent.production.history import History

STOPPED = ("delay", "down", "planned_stop")
"""The states that a stop has time in."""


class StopFact(NamedTuple):
    """One stop. `end_ns` and `times_ns` (by `STOPPED`) are None while it is open."""

    start_ns: int
    end_ns: int | None
    state: str
    """The machine's own, when the stop began."""
    times_ns: Mapping[str, int] | None
    reason: Reason
    planned: bool
    failure: bool
    """Whether the machine was down at any time of it."""
    whole: bool
    """Whether it was seen from its begin to its end."""
    product: str | None
    job: str | None


def stops_of(history: History) -> list[StopFact]:
    """The stops that are certain and were not wholly a break, in order."""
    found = [stop for stop in history.stops if stop.certain]
    if not found:
        return []
    timeline, own = history.timeline, history.own
    edges = own.edges.tolist()
    spans = [(stop.start_ns, stop.end_ns) for stop in found]
    times = metrics.by_window(timeline.edges, timeline.labels, len(LABELS), spans)
    failing = metrics.time_in(own.edges, own.labels == DOWN, spans)
    facts = []
    for stop, by_label, down_ns in zip(found, times, failing, strict=True):
        times_ns = {state: by_label[STATES.index(state)] for state in STOPPED}
        if not (times_ns["delay"] or times_ns["down"] or stop.planned):
            continue
        place = max(0, bisect_right(edges, stop.start_ns) - 1)
        label = int(own.labels[min(place, len(own.labels) - 1)])
        span = history.work[max(0, bisect_right(history.work, stop.start_ns, key=lambda each: each.start_ns) - 1)]
        facts.append(
            StopFact(
                stop.start_ns,
                None if stop.open else stop.end_ns,
                STATES[label] if label < equipment.UNKNOWN else "unknown",
                None if stop.open else times_ns,
                stop.reason,
                stop.planned,
                bool(down_ns) and not stop.planned,
                stop.whole,
                span.product,
                span.job,
            )
        )
    return facts
