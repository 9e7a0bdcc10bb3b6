"""Readings of a cumulative counter to steps of items: exact integers of any size, in time order.

From one good reading to the next:

- a fall is a wrap only if the wrapped step is plausible and so short that no second wrap fits (max_rate x dt is under
  half the rollover). This comes first, because a slow counter passes 0 at every rollover: 65535, then 0, is one item;
- otherwise a fall to 0 is a reset, a fall of 1 or 2 is a step of -1 or -2 (`corrected`), and any other fall is a reset,
  whose step is the new value (`reset: drop` drops it);
- a step above max_rate x dt is held: three consecutive plausible readings after it move the baseline, and the jump is
  quarantined, never produced. The new value after a reset is held to the same test, so that a torn read makes no parts.
  A reading that fits the old baseline again ends the hold, and the jump was nothing.

max_rate x dt is rounded up to whole counts: a counter that moves once a minute may move a second after a refresh.
UNCERTAIN readings count as good ones; a value that is no whole number of at least 0 counts as BAD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

from edge_agent.contract import NS_PER_S, Quality, Value
from edge_agent.equipment.timeline import Row

_CONFIRMATIONS = 3


@dataclass(frozen=True, slots=True)
class CounterRules:
    """How a counter counts.

    `max_rate` is in items per second and exact; None accepts every rise and takes no fall for a wrap.
    `rollover` is the value at which the counter wraps to 0; None: a fall is never a wrap. `reason` is what its items
    are listed under, where scrap and rework are listed by reason.
    """

    tag: str
    max_rate: Fraction | None
    rollover: int | None = None
    reset: Literal["count", "drop"] = "count"
    items_per_count: int = 1
    reason: str | None = None

    def most(self, dt_ns: int) -> int | None:
        """The most counts that may come within `dt_ns`, at least 1; None without a `max_rate`."""
        if self.max_rate is None:
            return None
        per_ns = self.max_rate.denominator * NS_PER_S * self.items_per_count
        return max(1, -(-self.max_rate.numerator * dt_ns // per_ns))

    def may_wrap(self, dt_ns: int, times: int) -> bool:
        """Whether, at `max_rate`, the counter may cover at least 1 / `times` of its rollover within `dt_ns`."""
        if self.max_rate is None or self.rollover is None:
            return False
        per_ns = self.max_rate.denominator * NS_PER_S * self.items_per_count
        return self.max_rate.numerator * dt_ns * times >= self.rollover * per_ns


class Step(NamedTuple):
    """What one good reading adds. It belongs to the window of `time_ns`, and was made in (`since_ns`, `time_ns`]."""

    since_ns: int
    time_ns: int
    items: int
    quarantined: int
    gap: bool
    """Between the two readings the count was BAD or stale."""
    flags: tuple[str, ...]
    """Of `reset`, `wrapped`, `corrected`, `ambiguous`, `held` and `quarantined`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A reading that counts: when, what, and whether the count was BAD or stale since the one before it."""

    time_ns: int
    count: int
    gap: bool


def steps(rows: Sequence[Row], rules: CounterRules, hold_ns: int | None, known_until_ns: int) -> list[Step]:
    """The steps of a counter that add something or that say something, in time order.

    The first good reading is the baseline and no step. A held jump is decided, and booked, at the reading that decides
    it, so that a step never depends on readings after it.

    Args:
        rows: the tag's readings in time order; to know the baseline in force at some time, give the eight good
            readings before it and all rows since.
        rules: how it counts.
        hold_ns: two good readings further apart than this have a gap between them; None: never.
        known_until_ns: rows at or after this are left out.
    """
    found: list[Step] = []
    base: Seen | None = None
    held: list[Seen] = []
    gap_since_base = False
    most: dict[int, int | None] = {}
    for seen in good(rows, whole, hold_ns, known_until_ns):
        if base is None:
            base = seen
            continue
        gap_since_base = gap_since_base or seen.gap
        if not held and not gap_since_base and seen.count > base.count:  # nearly all: they go the short way
            dt_ns, rise = seen.time_ns - base.time_ns, seen.count - base.count
            if dt_ns not in most:
                most[dt_ns] = rules.most(dt_ns)
            limit = most[dt_ns]
            if limit is None or rise <= limit:
                found.append(Step(base.time_ns, seen.time_ns, rise * rules.items_per_count, 0, False, ()))
                base = seen
                continue
        if held and _follows(held[-1], seen, rules):
            held.append(seen)
            if len(held) > _CONFIRMATIONS:
                found.extend(_quarantine(base, held, rules))
                base, held, gap_since_base = seen, [], False
            continue
        if seen.count == base.count and not gap_since_base:
            base, held = seen, []
            continue
        step = _step(base, seen, rules, gap_since_base)
        found.append(step)
        if "held" in step.flags:
            held = [seen]
        else:
            base, held, gap_since_base = seen, [], False
    return found


def good(
    rows: Sequence[Row], read: Callable[[Value], int | None], hold_ns: int | None, known_until_ns: int
) -> Iterator[Seen]:
    """The readings before `known_until_ns` that `read` makes a count of; those of which it makes None are BAD."""
    gap = False
    last_ns: int | None = None
    for time_ns, value, quality, _ in rows:
        if time_ns >= known_until_ns:
            return
        count = None if quality >= Quality.BAD else read(value)
        if count is None:
            gap = True
            continue
        if last_ns is not None and hold_ns is not None and time_ns - last_ns > hold_ns:
            gap = True
        yield Seen(time_ns, count, gap)
        gap, last_ns = False, time_ns


def whole(value: Value) -> int | None:
    """A value as a count, or None when it is no whole number of at least 0."""
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, float) and value.is_integer() and value >= 0:
        return int(value)
    return None


def _follows(before: Seen, seen: Seen, rules: CounterRules) -> bool:
    most = rules.most(seen.time_ns - before.time_ns)
    rise = seen.count - before.count
    return rise >= 0 and (most is None or rise <= most)


def _step(base: Seen, seen: Seen, rules: CounterRules, gap: bool) -> Step:
    dt_ns = seen.time_ns - base.time_ns
    counts, word = _counts(base.count, seen.count, dt_ns, rules)
    flags: tuple[str, ...] = () if word is None else (word,)
    if gap and (word in ("reset", "corrected") or (word != "held" and rules.may_wrap(dt_ns, times=1))):
        flags += ("ambiguous",)
    return Step(base.time_ns, seen.time_ns, counts * rules.items_per_count, 0, gap, flags)


def _counts(base: int, count: int, dt_ns: int, rules: CounterRules) -> tuple[int, str | None]:
    rise = count - base
    most = rules.most(dt_ns)
    if rise >= 0:
        return (rise, None) if most is None or rise <= most else (0, "held")
    if rules.rollover is not None and most is not None and base < rules.rollover:
        wrapped = rise + rules.rollover
        if wrapped <= most and not rules.may_wrap(dt_ns, times=2):
            return wrapped, "wrapped"
    if count and rise >= -2:
        return rise, "corrected"
    if rules.reset == "drop":
        return 0, "reset"
    return (count, "reset") if most is None or count <= most else (0, "held")


def _quarantine(base: Seen, held: Sequence[Seen], rules: CounterRules) -> Iterator[Step]:
    at_ns = held[-1].time_ns
    jump = held[0].count - base.count if held[0].count >= base.count else held[0].count
    gap = held[0].gap
    yield Step(base.time_ns, at_ns, 0, jump * rules.items_per_count, gap, ("quarantined",))
    for before, after in pairwise(held):
        rise = after.count - before.count
        if rise:
            yield Step(before.time_ns, at_ns, rise * rules.items_per_count, 0, after.gap, ())
