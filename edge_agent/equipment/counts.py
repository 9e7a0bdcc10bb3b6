"""The kinds of counts, each to steps of items by its own rules: counters, pulses, increments.

A pulse is a rising edge, from 0 or false to 1 or true, between two good readings with no BAD reading and no stale time
between them. An edge across such a gap is not counted, because nobody saw how many there were: it is a step of nothing
with the flag `ambiguous`. Any other value counts as BAD.

An increment is a good reading whose value is a number of items, the first reading too. One below 0 takes items back
(`corrected`). One of more than `max_rate` allows since the reading before it goes to `quarantined` at once: what comes
later cannot confirm it. A value that is no whole number counts as BAD. What came during a gap is lost, and the reading
after the gap is booked with the gap, because its items may have been made in it; so is the first reading.

UNCERTAIN readings count as good ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from edge_agent.contract import NS_PER_S, Quality, Value
from edge_agent.equipment import counters
from edge_agent.equipment.counters import CounterRules, Step, good, whole
from edge_agent.equipment.timeline import Row


@dataclass(frozen=True, slots=True)
class PulseRules:
    """How the rising edges of a tag count; `reason` is what they are listed under."""

    tag: str
    items_per_count: int = 1
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class IncrementRules:
    """How the values of a tag add up; `reason` is what they are listed under.

    `max_rate` is in items per second and exact; None accepts every value.
    """

    tag: str
    max_rate: Fraction | None = None
    items_per_count: int = 1
    reason: str | None = None

    def plausible(self, count: int, dt_ns: int) -> bool:
        """Whether so many counts may come in one reading, `dt_ns` after the one before."""
        if self.max_rate is None:
            return True
        per_ns = self.max_rate.denominator * NS_PER_S
        return abs(count) <= max(1, -(-self.max_rate.numerator * dt_ns // (per_ns * self.items_per_count)))


CountRules = CounterRules | PulseRules | IncrementRules
_BAD = int(Quality.BAD)


def steps(rows: Sequence[Row], rules: CountRules, hold_ns: int | None, known_until_ns: int) -> list[Step]:
    """The steps of a count that add something or that say something, in time order.

    Args:
        rows: the tag's readings in time order; to know what holds at some time, give the eight good readings before it
            and all rows since.
        rules: how it counts.
        hold_ns: two good readings further apart than this have a gap between them; None: never.
        known_until_ns: rows at or after this are left out.
    """
    if isinstance(rules, CounterRules):
        return counters.steps(rows, rules, hold_ns, known_until_ns)
    if isinstance(rules, PulseRules):
        return _pulses(rows, rules, hold_ns, known_until_ns)
    return _increments(rows, rules, hold_ns, known_until_ns)


def is_hole(rules: CountRules, value: Value, quality: int) -> bool:
    """Whether a reading leaves a hole in this count: it is BAD, or its value is none that this kind can count."""
    return quality >= _BAD or _READ[type(rules)](value) is None


def level(value: Value) -> int | None:
    """A value as 0 or 1, or None when it is neither."""
    return int(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def quantity(value: Value) -> int | None:
    """A value as a number of items, also below 0, or None when it is no whole number."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


_READ: dict[type[CountRules], Callable[[Value], int | None]] = {
    CounterRules: whole,
    PulseRules: level,
    IncrementRules: quantity,
}


def _pulses(rows: Sequence[Row], rules: PulseRules, hold_ns: int | None, known_until_ns: int) -> list[Step]:
    return [
        Step(
            before.time_ns, seen.time_ns, 0 if seen.gap else rules.items_per_count, 0, seen.gap,
            ("ambiguous",) if seen.gap else (),
        )
        for before, seen in pairwise(good(rows, level, hold_ns, known_until_ns))
        if before.count < seen.count
    ]  # fmt: skip


def _increments(rows: Sequence[Row], rules: IncrementRules, hold_ns: int | None, known_until_ns: int) -> list[Step]:
    found = []
    before_ns: int | None = None
    for seen in good(rows, quantity, hold_ns, known_until_ns):
        since_ns, gap = (seen.time_ns, True) if before_ns is None else (before_ns, seen.gap)
        items = seen.count * rules.items_per_count
        if before_ns is not None and not rules.plausible(seen.count, seen.time_ns - before_ns):
            found.append(Step(since_ns, seen.time_ns, 0, items, gap, ("quarantined",)))
        elif items:
            found.append(Step(since_ns, seen.time_ns, items, 0, gap, ("corrected",) if items < 0 else ()))
        before_ns = seen.time_ns
    return found
