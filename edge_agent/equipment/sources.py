"""Where a machine's state comes from: a status tag and a map, rules on tags, or the count of its items.

Each source turns the stored rows of its tags into a `Timeline`: the machine's own states, before stops and schedule. A
span is unknown wherever what the source needs was not observed, with the cause; `when_offline` says what it means that
a device went offline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract import Quality, Value
from edge_agent.equipment.counts import CountRules, is_hole, steps
from edge_agent.equipment.rules import Rule, Signal, tags_of
from edge_agent.equipment.timeline import (
    DELAY,
    LABELS,
    NOT_SCHEDULED,
    PRODUCING,
    Interval,
    Nanoseconds,
    Row,
    Timeline,
    coverage,
    is_bad,
    label_of_bad,
    state_timeline,
)
from edge_agent.equipment.work import text_of

Rows = Mapping[str, Sequence[Row]]
Holds = Mapping[str, int | None]
_USABLE = -1
_STALE, _NOT_STARTED = LABELS.index("stale"), LABELS.index("not_started")


class Unmapped(NamedTuple):
    """A value of a status or mode tag that its map does not know; `key` is the map's, below `state`."""

    key: str
    tag: str
    value: Value


class StateSource(ABC):
    """What every source of a machine's state can say."""

    __slots__ = ()

    @property
    @abstractmethod
    def tags(self) -> tuple[str, ...]:
        """The tags whose rows it needs, each once."""

    @property
    def reach_ns(self) -> int:
        """How far before and after a time its rows must reach, in ns, for the state at that time."""
        return 0

    @abstractmethod
    def timeline(self, rows: Rows, hold_ns: Holds, within: Interval, known_until_ns: int, offline: str) -> Timeline:
        """The machine's own state over `within`.

        Args:
            rows: each tag's readings in time order, reaching back to the one in force at the start of `within`.
            hold_ns: for each tag how long a value holds without a new reading; None or absent: for ever.
            within: the timeline covers exactly this.
            known_until_ns: nothing is assumed from here on; what lies after is unknown with the cause `stale`.
            offline: the state that a device that went offline means for this machine, or `unknown`.
        """

    def unmapped(self, rows: Rows, start_ns: int, end_ns: int) -> tuple[Unmapped, ...]:
        """Values in force in [start, end) that no map knows, each once."""
        return ()

    def undecided(self, rows: Rows, hold_ns: Holds, known_until_ns: int) -> Interval | None:
        """Since when the state may still change without a late reading, and when it will be certain; in ns."""
        return None


@dataclass(frozen=True, slots=True)
class StatusMap(StateSource):
    """A status tag and the words of its values; with a mode, whose word wins unless it is `producing`.

    A mode's `production` is `producing` here, and the status decides; a mode that is unknown makes the state unknown,
    for nobody knows whether the machine is being repaired. A mode that is known needs no status.
    """

    tag: str
    words: Mapping[Any, str]
    mode: StatusMap | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        own = (self.tag,) if self.mode is None else (self.tag, self.mode.tag)
        return tuple(dict.fromkeys(own))

    def timeline(self, rows: Rows, hold_ns: Holds, within: Interval, known_until_ns: int, offline: str) -> Timeline:
        own_rows = rows.get(self.tag, ())
        status = state_timeline(own_rows, self.words, hold_ns.get(self.tag), within, known_until_ns, offline)
        if self.mode is None:
            return status
        return _overlay(status, self.mode.timeline(rows, hold_ns, within, known_until_ns, offline))

    def unmapped(self, rows: Rows, start_ns: int, end_ns: int) -> tuple[Unmapped, ...]:
        own = rows.get(self.tag, ())
        first = max(0, bisect_right(own, start_ns, key=itemgetter(0)) - 1)
        last = bisect_left(own, end_ns, key=itemgetter(0))
        usable = (value for _, value, quality, _ in own[first:last] if not is_bad(value, quality))
        found = [Unmapped("map", self.tag, value) for value in usable if value not in self.words]
        if self.mode is not None:
            modes = self.mode.unmapped(rows, start_ns, end_ns)
            found += [Unmapped("mode.map", tag, value) for _, tag, value in modes]
        return tuple(dict.fromkeys(found))


def _overlay(status: Timeline, mode: Timeline) -> Timeline:
    edges = np.union1d(status.edges, mode.edges)
    below, above = _places(status.edges, edges), _places(mode.edges, edges)
    passes = mode.labels[above] == PRODUCING
    labels = np.where(passes, status.labels[below], mode.labels[above])
    doubt = mode.uncertain[above] | (passes & status.uncertain[below])
    return _timeline(edges, labels, doubt)


@dataclass(frozen=True, slots=True)
class Rules(StateSource):
    """Words and their rules: the first that is true, in this order, says the state; none: delay.

    A rule that is unknown before one is true makes the state unknown, with the cause of the first tag in its text that
    has no usable number. The state is uncertain where a tag of a rule that was asked was UNCERTAIN.
    """

    rules: tuple[tuple[str, Rule], ...]

    @property
    def tags(self) -> tuple[str, ...]:
        return tags_of([rule for _, rule in self.rules])

    def timeline(self, rows: Rows, hold_ns: Holds, within: Interval, known_until_ns: int, offline: str) -> Timeline:
        heard = {tag: coverage(rows.get(tag, ()), hold_ns.get(tag), within, known_until_ns) for tag in self.tags}
        edges = np.unique(np.concatenate([np.array(within, np.int64), *(own for own, _ in heard.values())]))
        signals: dict[str, Signal] = {}
        causes: dict[str, NDArray[np.int8]] = {}
        doubts: dict[str, NDArray[np.bool_]] = {}
        for tag, (own, index) in heard.items():
            place = index[_places(own, edges)]
            numbers, missing, doubtful = _numbers(rows.get(tag, ()), known_until_ns, offline)
            causes[tag], doubts[tag] = missing[place], doubtful[place]
            signals[tag] = Signal(numbers[place], causes[tag] == _USABLE)
        spans = len(edges) - 1
        labels = np.full(spans, DELAY, np.int8)
        doubt, asking = np.zeros(spans, np.bool_), np.ones(spans, np.bool_)
        for word, rule in self.rules:
            true, known = rule.over(signals, spans)
            labels[asking & true] = LABELS.index(word)
            for tag in reversed(rule.tags):  # so that the first tag has the last word
                doubt |= asking & doubts[tag]
                lost = asking & ~known & ~signals[tag].known
                labels[lost] = causes[tag][lost]
            asking &= known & ~true
        return _timeline(edges, labels, doubt)


def _numbers(
    rows: Sequence[Row], known_until_ns: int, offline: str
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.bool_]]:
    """Of each row its number, why it has none, and whether it is uncertain; then those of stale and of not started."""
    used = rows[: bisect_left(rows, known_until_ns, key=itemgetter(0))]
    count = len(used) + 2
    numbers, missing, doubtful = np.zeros(count), np.full(count, _USABLE, np.int8), np.zeros(count, np.bool_)
    missing[-2:] = _STALE, _NOT_STARTED
    for place, (_, value, quality, cause) in enumerate(used):
        doubtful[place] = quality == Quality.UNCERTAIN
        if is_bad(value, quality):
            missing[place] = label_of_bad(cause, offline)
        elif isinstance(value, bool | int | float) and isfinite(value):
            numbers[place] = value
        else:
            missing[place] = label_of_bad(None, offline)
    return numbers, missing, doubtful


@dataclass(frozen=True, slots=True)
class FromCount(StateSource):
    """Producing while items come, delay after `stopped_after_ns` without one, from the last item on.

    Between two items no further apart than that it is producing; between two further apart, delay from the first to the
    second. Where the counts begin to be observed, or cease to be, stands for an item, but it is producing only where an
    item is seen at one end at least: from the reading that shows a count again to the first item, for example.
    An item is a step of more than 0 of any of the counts. The state is unknown where one of them is.
    """

    counts: tuple[CountRules, ...]
    stopped_after_ns: int
    product_tag: str | None = None
    by_product_ns: Mapping[str, int] = field(default_factory=dict)
    """How long without an item is a stop while a product is made, where that is not `stopped_after_ns`."""

    @property
    def tags(self) -> tuple[str, ...]:
        product = () if self.product_tag is None else (self.product_tag,)
        return (*(rules.tag for rules in self.counts), *product)

    @property
    def reach_ns(self) -> int:
        return max(self.stopped_after_ns, *self.by_product_ns.values(), 0)

    def timeline(self, rows: Rows, hold_ns: Holds, within: Interval, known_until_ns: int, offline: str) -> Timeline:
        watched = [self._watched(rules, rows, hold_ns, within, known_until_ns, offline) for rules in self.counts]
        items = np.unique(np.concatenate([times for _, times in watched]))
        edges = np.unique(np.concatenate([items, *(own.edges for own, _ in watched)]))
        labels, doubt = np.full(len(edges) - 1, _USABLE, np.int8), np.zeros(len(edges) - 1, np.bool_)
        for own, _ in reversed(watched):  # so that the first count has the last word
            place = _places(own.edges, edges)
            labels = np.where(own.labels[place] == _USABLE, labels, own.labels[place])
            doubt |= own.uncertain[place]
        seen = labels == _USABLE
        marks = np.isin(edges[:-1], items)
        marks[0] = True
        marks[1:] |= seen[1:] != seen[:-1]
        first = np.flatnonzero(marks)
        starts, ends = edges[first], edges[np.append(first[1:], len(seen))]
        beside_item = np.isin(starts, items) | np.isin(ends, items)
        producing = beside_item & (ends - starts <= self._limits(rows, hold_ns, starts, known_until_ns))
        states = np.where(producing, np.int8(PRODUCING), np.int8(DELAY))[np.cumsum(marks) - 1]
        return _timeline(edges, np.where(seen, states, labels), doubt)

    def undecided(self, rows: Rows, hold_ns: Holds, known_until_ns: int) -> Interval | None:
        within = (known_until_ns - self.reach_ns - 1, known_until_ns)
        since = within[0]
        for rules in self.counts:
            own, items = self._watched(rules, rows, hold_ns, within, known_until_ns, "unknown")
            if own.labels[-1] != _USABLE:
                return None
            unseen = np.flatnonzero(own.labels != _USABLE)
            since = max(since, int(items.max(initial=since)), int(own.edges[unseen + 1].max(initial=since)))
        until = since + int(self._limits(rows, hold_ns, np.array([since], np.int64), known_until_ns)[0]) + 1
        return (since, until) if until > known_until_ns else None

    def _limits(self, rows: Rows, hold_ns: Holds, times: Nanoseconds, known_until_ns: int) -> Nanoseconds:
        """How long without an item is a stop, from each of these times on."""
        limits = np.full(len(times), self.stopped_after_ns, np.int64)
        if self.product_tag is None or not len(times):
            return limits
        own = rows.get(self.product_tag, ())
        within = (int(times[0]), int(times[-1]) + 1)
        edges, index = coverage(own, hold_ns.get(self.product_tag), within, known_until_ns)
        by_row = [
            self.stopped_after_ns
            if is_bad(value, quality)
            else self.by_product_ns.get(text_of(value) or "", self.stopped_after_ns)
            for _, value, quality, _ in own
        ]
        known = np.array([*by_row, self.stopped_after_ns, self.stopped_after_ns], np.int64)[index]
        return known[np.searchsorted(edges, times, "right") - 1]

    def _watched(
        self, rules: CountRules, rows: Rows, hold_ns: Holds, within: Interval, known_until_ns: int, offline: str
    ) -> tuple[Timeline, Nanoseconds]:
        """Where a count is observed (its label is then `_USABLE`), and the times of its items within."""
        own, hold = rows.get(rules.tag, ()), hold_ns.get(rules.tag)
        edges, index = coverage(own, hold, within, known_until_ns)
        used = own[: bisect_left(own, known_until_ns, key=itemgetter(0))]
        labels = [label_of_bad(row[3], offline) if is_hole(rules, row[1], row[2]) else _USABLE for row in used]
        doubts = [row[2] == Quality.UNCERTAIN for row in used]
        times = (step.time_ns for step in steps(own, rules, hold, known_until_ns) if step.items > 0)
        items = np.array([time for time in times if within[0] <= time < within[1]], np.int64)
        missing = np.array([*labels, _STALE, _NOT_STARTED], np.int8)[index]
        return _timeline(edges, missing, np.array([*doubts, False, False], np.bool_)[index]), items


def _places(own: Nanoseconds, edges: Nanoseconds) -> NDArray[np.intp]:
    """For each span between `edges` the span between `own` that contains it."""
    return np.searchsorted(own, edges[:-1], "right") - 1


def _timeline(edges: Nanoseconds, labels: NDArray[np.int8], doubt: NDArray[np.bool_]) -> Timeline:
    nowhere = np.zeros(len(labels), np.bool_)
    return Timeline(edges, labels, doubt & (labels < NOT_SCHEDULED), nowhere, nowhere)
