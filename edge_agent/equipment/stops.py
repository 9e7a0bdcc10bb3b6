"""Stops that are worth a name: the runs of delay and down that are not short, cut by the schedule, with their reasons.

A stop ends where not scheduled time begins, and another one begins where it is over. A run that touches unknown time is
a stop however short it is, because nobody saw how long it was: so the delay and down time of the stops is that of the
windows. A run that is open and not yet as long as a short stop is one too, until it turns out to be short.

A reason comes from the machine, by the first value of its alarm code during the stop that the map knows, and from
people: of the entries whose time overlaps the stop the one appended last. The person's word wins; both are kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np

from edge_agent.contract import Value
from edge_agent.entries import Entry
from edge_agent.equipment.timeline import (
    DELAY,
    DOWN,
    PLANNED_STOP,
    UNKNOWN,
    Interval,
    Row,
    Timeline,
    inside,
    is_bad,
    stop_runs,
)

UNCLASSIFIED = "unclassified"
"""The reason of what has none."""


@dataclass(frozen=True, slots=True)
class ReasonRules:
    """Where the reasons of stops come from.

    `words` are the alarm codes of `tag` and their reasons. A stop whose reason is in `planned`, or below one of them in
    the tree, was planned. `tree` has the reasons that people may give beyond those; empty: any.
    """

    tag: str | None = None
    words: Mapping[Any, str] = field(default_factory=dict)
    tree: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()

    def is_planned(self, reason: str) -> bool:
        """Whether a stop for this reason was planned."""
        return any(reason == each or reason.startswith(f"{each}/") for each in self.planned)


class Reason(NamedTuple):
    """Why a machine stopped: the machine's word and the person's, and what was not in the map."""

    plc: str | None = None
    code: Value = None
    """The alarm code, also where the map does not know it; None where there was none."""
    entry: Entry | None = None

    @property
    def name(self) -> str:
        """The reason that counts."""
        if self.entry is not None:
            return str(self.entry.body["reason"])
        return self.plc or UNCLASSIFIED

    @property
    def by(self) -> Literal["person", "plc"] | None:
        """Whose word it is."""
        if self.entry is not None:
            return "person"
        return "plc" if self.plc else None


class Stop(NamedTuple):
    """One stop, [start_ns, end_ns); an open one is known until `end_ns` and goes on."""

    start_ns: int
    end_ns: int
    open: bool
    whole: bool
    """Whether it was seen from its begin to its end, with no unknown time beside it."""
    certain: bool
    """Whether it is a stop for certain: an open one may still turn out to be short."""
    reason: Reason
    planned: bool


def stops(
    own: Timeline,
    short_stop_ns: int,
    known_until_ns: int,
    scheduled: Sequence[Interval] | None,
    rules: ReasonRules,
    rows: Mapping[str, Sequence[Row]],
    entries: Sequence[Entry],
) -> list[Stop]:
    """The stops of a machine, in order.

    Args:
        own: its own states, before short stops and schedule; a stop at its begin is cut there.
        short_stop_ns: a stop shorter than this is short, and not in the list.
        known_until_ns: a stop that reaches this is open.
        scheduled: the scheduled time, disjoint and in order; None: all of it.
        rules: where reasons come from.
        rows: the readings of the alarm code, among others.
        entries: those in force that give reasons.
    """
    runs = stop_runs(own, known_until_ns)
    unknown = np.ones(len(own.labels) + 2, np.bool_)
    unknown[1:-1] = own.labels >= UNKNOWN
    found = []
    for start, end, touches, still_open, unseen_before, unseen_after in zip(
        runs.start.tolist(), runs.end.tolist(), runs.touches_unknown.tolist(), runs.open.tolist(),
        unknown[runs.first].tolist(), (unknown[runs.last + 1] & ~runs.open).tolist(), strict=True,
    ):  # fmt: skip
        long = end - start >= short_stop_ns or touches
        if not (long or still_open):
            continue
        for begin, until in _within(scheduled, start, end):
            reason = _reason(rules, rows, entries, begin, until)
            whole = not ((unseen_before and begin == start) or (unseen_after and until == end))
            planned = rules.is_planned(reason.name)
            found.append(Stop(begin, until, still_open and until == end, whole, long, reason, planned))
    return found


def plan(timeline: Timeline, found: Sequence[Stop]) -> Timeline:
    """The timeline with the delay and down time of the planned ones among the stops as planned stops."""
    planned = [(stop.start_ns, stop.end_ns) for stop in found if stop.planned]
    if not planned:
        return timeline
    lost = (timeline.labels == DELAY) | (timeline.labels == DOWN)
    here = lost & inside(planned, timeline.edges[:-1])
    return replace(timeline, labels=np.where(here, np.int8(PLANNED_STOP), timeline.labels))


def _within(scheduled: Sequence[Interval] | None, start: int, end: int) -> Iterator[Interval]:
    if scheduled is None:
        yield start, end
        return
    first = bisect_right(scheduled, start, key=itemgetter(1))
    for begin, until in scheduled[first:]:
        if begin >= end:
            return
        yield max(begin, start), min(until, end)


def _reason(
    rules: ReasonRules, rows: Mapping[str, Sequence[Row]], entries: Sequence[Entry], start: int, end: int
) -> Reason:
    entry = next((each for each in reversed(entries) if each.kind == "reason" and each.overlaps(start, end)), None)
    unknown: Value = None
    for value in _values(rows.get(rules.tag, ()) if rules.tag else (), start, end):
        if value in rules.words:
            return Reason(rules.words[value], value, entry)
        if unknown is None and value not in (0, ""):
            unknown = value
    return Reason(None, unknown, entry)


def _values(rows: Sequence[Row], start: int, end: int) -> Iterator[Any]:
    """The good values of a tag that were in force in [start, end), in order."""
    first = max(0, bisect_right(rows, start, key=itemgetter(0)) - 1)
    for _, value, quality, _ in rows[first : bisect_left(rows, end, key=itemgetter(0))]:
        if not is_bad(value, quality) and not isinstance(value, tuple):
            yield value.strip() if isinstance(value, str) else value
