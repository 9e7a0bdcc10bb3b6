"""What a machine is to the arithmetic, and what is found of one of its windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

from edge_agent import metrics
from edge_agent.equipment import CountRules, StateSource, Unmapped
from edge_agent.equipment.stops import ReasonRules
from edge_agent.equipment.work import WorkRules
from edge_agent.metrics import Definition

Interval = tuple[int, int]
COUNTER_LOOKBACK_READINGS = 8
"""How many good readings of each count before the first window `compute` needs to know its baseline."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as the arithmetic needs it.

    `subject` is its path, `enterprise/site/area/line/machine`. `state` is where its state comes from. `hold_ns` says
    for each tag how long a value holds without a new reading (refresh and three polls); a tag that is not in it, or
    None, holds for ever. `counts` has produced, good, scrap and rework, as far as they are counted; several counts of
    one quantity add up. `goal` is in items per second of planned time, and exact.
    """

    name: str
    subject: str
    state: StateSource
    hold_ns: Mapping[str, int | None]
    counts: Mapping[str, tuple[CountRules, ...]]
    definition: Definition = field(default_factory=Definition)
    unit: str = "1"
    reasons: ReasonRules = field(default_factory=ReasonRules)
    work: WorkRules | None = None
    goal: Fraction | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags whose rows are needed, those of the state first."""
        reason = () if self.reasons.tag is None else (self.reasons.tag,)
        counted = (rules.tag for rules in self.rules)
        return tuple(dict.fromkeys([*self.state.tags, *counted, *reason, *self.worked.tags]))

    @property
    def rules(self) -> tuple[CountRules, ...]:
        """The rules of all counts, whatever they count."""
        return tuple(chain.from_iterable(self.counts.values()))

    @property
    def worked(self) -> WorkRules:
        """Where its products and jobs come from."""
        return self.work or WorkRules(planned_run_time_ns=self.definition.planned_run_time_ns)


class Tally(NamedTuple):
    """Items of one quantity: all of them, those made while nobody looked, and jumps nobody believed."""

    total: int = 0
    unobserved: int = 0
    quarantined: int = 0

    def __sub__(self, other: Tally) -> Tally:
        return Tally(*(mine - its for mine, its in zip(self, other, strict=True)))

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(*(mine + its for mine, its in zip(self, other, strict=True)))

    @property
    def observed(self) -> int:
        """Items made while state and count were observed."""
        return self.total - self.unobserved


class Downtime(NamedTuple):
    """The stops of a window: how many began in it, how many of its begun failures, and the lost time by reason.

    The time by reason, in ns, sums to the delay and down time of the window.
    """

    stops: int = 0
    failures: int = 0
    by_reason_ns: Mapping[str, int] = {}


class Pace(NamedTuple):
    """What the goal expects of a window: items, in its planned time; and the goal, in items per second."""

    goal: Fraction
    expected: Fraction


@dataclass(frozen=True, slots=True)
class WindowData:
    """What is known of one window. Times in ns; `times_ns` has the nine states and sums to the window.

    `missing_ns` has the eight causes and sums to `times_ns["unknown"]`. A quantity is None where nothing counts it.
    `settled` is false while a stop that overlaps the window is open and may yet turn out to be short, and while the
    state waits for the next item. `unmapped` has the status values that the map does not know. `segments` has the
    window's parts, in order, where shift, product or job change inside it, and is empty where they do not. `by_reason`
    has the items of a quantity by their reasons, which sum to it, where reasons are known for it. `product`, `job` and
    `planned_run_time_ns` are None where there is none, and where it changes in the window.
    """

    start_ns: int
    end_ns: int
    times_ns: dict[str, int]
    missing_ns: dict[str, int]
    uncertain_ns: int
    quantities: dict[str, Tally | None]
    kpis: metrics.Kpis
    flags: tuple[str, ...]
    count_gap: bool
    settled: bool
    unmapped: tuple[Unmapped, ...]
    segments: tuple[WindowData, ...] = ()
    by_reason: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    product: str | None = None
    job: str | None = None
    planned_run_time_ns: int | None = None
    downtime: Downtime = field(default_factory=Downtime)
    pace: Pace | None = None

    @property
    def observed_ns(self) -> int:
        """Scheduled time with a known state."""
        return metrics.planned_operation_ns(self.times_ns) - self.times_ns["unknown"]

    @property
    def complete(self) -> bool:
        """Nothing is missing: the state was known in all scheduled time, and no count had a hole in it."""
        return not self.times_ns["unknown"] and not self.count_gap


class Present(NamedTuple):
    """A machine's state now: since when (no earlier than the rows reach), and why it is unknown.

    `until_ns`: then it may change although no reading comes; None: only a reading, its absence or the calendar does.
    `reason` is that of the stop that is open; None where none is.
    """

    state: str
    since_ns: int
    cause: str | None
    until_ns: int | None = None
    reason: str | None = None
    product: str | None = None
    job: str | None = None
