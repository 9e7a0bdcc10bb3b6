"""Readings of a status tag to spans of machine state: step functions with explicit holes.

Between readings a value holds, but no longer than its `hold`; after that the state is unknown with the cause `stale`.
A BAD reading holds until the next reading, with its cause. Before the first reading the cause is `not_started`.

A status value is mapped exactly: numbers by value, so that 1, 1.0 and true are one key (YAML cannot hold them apart in
a map either), and text by every character, so that "1" is not 1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import Quality, Value

Row = tuple[int, Value, int, str | None]
"""A stored reading of one tag: time in ns since 1970 UTC, value, quality (0 good, 1 uncertain, 2 bad), cause."""
Interval = tuple[int, int]
"""Half-open [start, end), ns since 1970 UTC."""

STATES = (
    "producing", "short_stop", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled", "unknown",
)  # fmt: skip
CAUSES = (
    "device_offline", "agent_down", "bad_quality", "unmapped_state", "stale", "not_started", "misconfigured",
    "overflow",
)  # fmt: skip
LABELS = (*STATES[:-1], *CAUSES)
"""What a span is labelled with, by number: a state, or the cause for which it is unknown."""

PRODUCING, SHORT_STOP, DELAY, DOWN, PLANNED_STOP, NOT_SCHEDULED, UNKNOWN = (
    STATES.index(state)
    for state in ("producing", "short_stop", "delay", "down", "planned_stop", "not_scheduled", "unknown")
)
_NUMBER = {word: number for number, word in enumerate(LABELS)}
_KEPT_CAUSES = frozenset(CAUSES) - {"unmapped_state"}
NOT_STARTED_ROW, STALE_ROW = -1, -2
_BAD = int(Quality.BAD)

Nanoseconds = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Spans of machine state without a hole between them.

    `edges`: int64, shape (n + 1,), ns since 1970 UTC, strictly increasing; span i is [edges[i], edges[i + 1]).
    `labels`: int8, shape (n,), numbers of `LABELS`; from `UNKNOWN` on, nobody knows the state.
    `uncertain`: bool, shape (n,), the reading in force was UNCERTAIN.
    `outside_plan`: bool, shape (n,), producing outside the shifts or in a break.
    `count_gap`: bool, shape (n,), a count was BAD or stale in scheduled time.
    """

    edges: Nanoseconds
    labels: NDArray[np.int8]
    uncertain: NDArray[np.bool_]
    outside_plan: NDArray[np.bool_]
    count_gap: NDArray[np.bool_]


def is_bad(value: Value, quality: int) -> bool:
    """Whether a reading has no value that can be used: BAD, none, or not a number."""
    return quality >= _BAD or value is None or value != value


def coverage(
    rows: Sequence[Row], hold_ns: int | None, within: Interval, known_until_ns: int
) -> tuple[Nanoseconds, NDArray[np.intp]]:
    """Which reading is in force when: edges in ns (n + 1,), and for each span the index of its row (n,).

    The index is -1 before the first row and -2 where the value has gone stale or lies after `known_until_ns`, so that
    two entries appended to an array of the rows' properties (stale, then not started) answer for these spans.

    Args:
        rows: the tag's readings in time order; those at or after `known_until_ns` are left out.
        hold_ns: how long a value holds without a new reading; None: for ever.
        within: the spans cover exactly this, which is not empty.
        known_until_ns: nothing is assumed from here on.
    """
    rows = rows[: bisect_left(rows, known_until_ns, key=_time)]
    count = len(rows)
    bounds = np.fromiter(chain(map(_time, rows), (known_until_ns,)), np.int64, count + 1)
    until = bounds[1:]
    if hold_ns is not None:
        bad = np.fromiter((is_bad(row[1], row[2]) for row in rows), np.bool_, count)
        until = np.where(bad, until, np.minimum(until, bounds[:-1] + hold_ns))
    starts = np.empty(2 * count + 2, np.int64)
    starts[0], starts[-1] = within[0], known_until_ns
    starts[1:-1:2], starts[2:-1:2] = bounds[:-1], until
    index = np.full(2 * count + 2, STALE_ROW, np.intp)
    index[0] = NOT_STARTED_ROW
    index[1:-1:2] = np.arange(count)
    edges = np.append(np.clip(starts, *within), within[1])
    lasting = edges[1:] > edges[:-1]
    return np.append(edges[:-1][lasting], within[1]), index[lasting]


def state_timeline(
    rows: Sequence[Row],
    state_map: Mapping[Any, str],
    hold_ns: int | None,
    within: Interval,
    known_until_ns: int,
    when_offline: str = "unknown",
) -> Timeline:
    """The machine's own state over `within`, from the readings of its status tag, before stops and schedule.

    Args:
        rows: the tag's readings in time order, reaching back to the one in force at the start of `within`.
        state_map: values of the tag to words of `STATES`; any other value is unknown with the cause `unmapped_state`.
        hold_ns: how long a value holds without a new reading; None: for ever.
        within: the timeline covers exactly this.
        known_until_ns: nothing is assumed from here on; what lies after is unknown with the cause `stale`.
        when_offline: the state that a device that went offline means for this machine, or `unknown`.
    """
    edges, index = coverage(rows, hold_ns, within, known_until_ns)
    offline = _NUMBER["device_offline" if when_offline == "unknown" else when_offline]
    numbers = {value: _NUMBER[state] for value, state in state_map.items()}
    used = rows[: bisect_left(rows, known_until_ns, key=_time)]
    row_labels = [*(_label(row, numbers, offline) for row in used), _NUMBER["stale"], _NUMBER["not_started"]]
    row_uncertain = [*(row[2] == Quality.UNCERTAIN for row in used), False, False]
    labels = np.array(row_labels, np.int8)[index]
    uncertain = np.array(row_uncertain, np.bool_)[index] & (labels < NOT_SCHEDULED)
    nowhere = np.zeros(len(index), np.bool_)
    return Timeline(edges, labels, uncertain, nowhere, nowhere)


def _time(row: Row) -> int:
    return row[0]


def _label(row: Row, numbers: Mapping[Any, int], offline: int) -> int:
    _, value, quality, cause = row
    if not is_bad(value, quality):
        return numbers.get(value, _NUMBER["unmapped_state"])
    return offline if cause == "device_offline" else _cause(cause)


def _cause(cause: str | None) -> int:
    return _NUMBER[cause] if cause in _KEPT_CAUSES else _NUMBER["bad_quality"]


def label_of_bad(cause: str | None, when_offline: str) -> int:
    """The number in `LABELS` of what a reading without a usable value means."""
    return _NUMBER[when_offline] if cause == "device_offline" and when_offline != "unknown" else _cause(cause)


def mark_short_stops(timeline: Timeline, short_stop_ns: int, known_until_ns: int) -> Timeline:
    """The timeline with each stop shorter than `short_stop_ns` labelled `short_stop`.

    A stop is a maximal run of delay and down. Unknown ends a run, and a run that touches unknown is never short: nobody
    saw how long it was. Nor is a run that is still open at `known_until_ns`: a later computation may make it short.
    """
    runs = stop_runs(timeline, known_until_ns)
    short = (runs.end - runs.start < short_stop_ns) & ~runs.touches_unknown & ~runs.open
    if not short.any():
        return timeline
    change = np.zeros(len(timeline.edges), np.int8)
    change[runs.first[short]] += 1
    change[runs.last[short]] -= 1
    inside = np.cumsum(change[:-1], dtype=np.int8) > 0
    return replace(timeline, labels=np.where(inside, np.int8(SHORT_STOP), timeline.labels))


def open_stop_since(timeline: Timeline, short_stop_ns: int, known_until_ns: int) -> int | None:
    """When a stop began, in ns, that is still open at `known_until_ns` and may yet turn out to be short; or None.

    Windows that overlap [this, known_until_ns) may change when the stop ends.
    """
    runs = stop_runs(timeline, known_until_ns)
    if not len(runs.start) or not runs.open[-1] or runs.touches_unknown[-1]:
        return None
    since = int(runs.start[-1])
    return since if known_until_ns - since < short_stop_ns else None


@dataclass(frozen=True, slots=True, eq=False)
class StopRuns:
    """Maximal runs of delay and down: spans [first, last) of a timeline, their times, and what is beside them."""

    first: NDArray[np.intp]
    last: NDArray[np.intp]
    start: Nanoseconds
    end: Nanoseconds
    touches_unknown: NDArray[np.bool_]
    open: NDArray[np.bool_]


def stop_runs(timeline: Timeline, known_until_ns: int) -> StopRuns:
    """The stops of a timeline, short or not; what lies before and after the timeline is not known."""
    labels, edges = timeline.labels, timeline.edges
    padded = np.zeros(len(labels) + 2, np.int8)
    padded[1:-1] = (labels == DELAY) | (labels == DOWN)
    change = np.diff(padded)
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    still_open = edges[last] >= known_until_ns
    unknown = np.ones(len(labels) + 2, np.bool_)
    unknown[1:-1] = labels >= UNKNOWN
    touches = unknown[first] | (unknown[last + 1] & ~still_open)
    return StopRuns(first, last, edges[first], edges[last], touches, still_open)


def apply_schedule(timeline: Timeline, scheduled: Sequence[Interval] | None, breaks: Sequence[Interval]) -> Timeline:
    """The timeline with the calendar laid over it.

    Outside the shifts is `not_scheduled`, which also beats unknown; a break is `planned_stop`, unless the state is
    unknown or not scheduled. Producing stays producing and is marked `outside_plan`.

    Args:
        timeline: the machine's own states, with their short stops.
        scheduled: the shifts, disjoint and in order, in ns; None: all time is scheduled.
        breaks: the breaks, disjoint and in order, in ns.
    """
    if scheduled is None and not breaks:
        return timeline
    cuts = np.array([*chain.from_iterable(scheduled or ()), *chain.from_iterable(breaks)], np.int64)
    inner = cuts[(cuts > timeline.edges[0]) & (cuts < timeline.edges[-1])]
    edges = np.union1d(timeline.edges, inner)
    index = np.searchsorted(timeline.edges, edges[:-1], "right") - 1
    labels, uncertain = timeline.labels[index], timeline.uncertain[index]
    closed = np.zeros(len(index), np.bool_) if scheduled is None else ~inside(scheduled, edges[:-1])
    pause = inside(breaks, edges[:-1]) & ~closed
    producing = labels == PRODUCING
    planned = pause & ~producing & (labels < NOT_SCHEDULED)
    labels = np.where(planned, np.int8(PLANNED_STOP), labels)
    labels = np.where(closed & ~producing, np.int8(NOT_SCHEDULED), labels)
    uncertain = uncertain & (labels < NOT_SCHEDULED)
    return Timeline(edges, labels, uncertain, producing & (closed | pause), timeline.count_gap[index])


def watch_count(
    timeline: Timeline,
    rows: Sequence[Row],
    hold_ns: int | None,
    known_until_ns: int,
    is_hole: Callable[[Value, int], bool] = is_bad,
) -> Timeline:
    """The timeline with what the readings of a count add: where it has a hole, and where it is uncertain.

    `is_hole` says of a reading's value and quality whether the count cannot use it.
    """
    within = (int(timeline.edges[0]), int(timeline.edges[-1]))
    own_edges, row_index = coverage(rows, hold_ns, within, known_until_ns)
    used = rows[: bisect_left(rows, known_until_ns, key=_time)]
    row_hole = np.array([*(is_hole(row[1], row[2]) for row in used), True, True], np.bool_)
    row_doubt = np.array([*(row[2] == Quality.UNCERTAIN for row in used), False, False], np.bool_)
    if not (row_hole[row_index].any() or row_doubt[row_index].any()):
        return timeline
    edges = np.union1d(timeline.edges, own_edges)
    index = np.searchsorted(timeline.edges, edges[:-1], "right") - 1
    own = row_index[np.searchsorted(own_edges, edges[:-1], "right") - 1]
    labels = timeline.labels[index]
    scheduled = labels != NOT_SCHEDULED
    return Timeline(
        edges,
        labels,
        timeline.uncertain[index] | (row_doubt[own] & scheduled & (labels < UNKNOWN)),
        timeline.outside_plan[index],
        timeline.count_gap[index] | (row_hole[own] & scheduled),
    )


def inside(intervals: Sequence[Interval], points: Nanoseconds) -> NDArray[np.bool_]:
    """Which points lie in one of the intervals, which are disjoint and in order."""
    bounds = np.array(list(chain.from_iterable(intervals)), np.int64)
    before: NDArray[np.intp] = np.searchsorted(bounds, points, "right")
    return (before & 1).astype(np.bool_)
