"""One machine's windows from its stored readings: times, quantities, KPIs, and what is missing (pure).

`compute` gives the same answer for the same rows, however they were windowed, and whenever it is asked. The order of
work: the machine's own state; its stops; the schedule over them; the cut to windows; the counts' steps, each booked
in the window of the reading that shows it; the KPIs, on what was made while somebody looked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import accumulate, chain
from typing import NamedTuple

from edge_agent import equipment, metrics
from edge_agent.contract import NS_PER_S
from edge_agent.equipment import CAUSES, LABELS, STATES, CountRules, Row, StateSource, Timeline, Unmapped
from edge_agent.metrics import Definition
from edge_agent.shifts import Calendar

Interval = tuple[int, int]
COUNTER_LOOKBACK_READINGS = 8
"""How many good readings of each count before the first window `compute` needs to know its baseline."""
UNCLASSIFIED = "unclassified"
"""The reason of what has none."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as `compute` needs it.

    `subject` is its path, `enterprise/site/area/line/machine`. `state` is where its state comes from. `hold_ns` says
    for each tag how long a value holds without a new reading (refresh and three polls); a tag that is not in it, or
    None, holds for ever. `counts` has produced, good, scrap and rework, as far as they are counted; several counts of
    one quantity add up.
    """

    name: str
    subject: str
    state: StateSource
    hold_ns: Mapping[str, int | None]
    counts: Mapping[str, tuple[CountRules, ...]]
    definition: Definition = field(default_factory=Definition)
    unit: str = "1"

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags whose rows `compute` needs, those of the state first."""
        return tuple(dict.fromkeys([*self.state.tags, *(rules.tag for rules in self.rules)]))

    @property
    def rules(self) -> tuple[CountRules, ...]:
        """The rules of all counts, whatever they count."""
        return tuple(chain.from_iterable(self.counts.values()))


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


@dataclass(frozen=True, slots=True)
class WindowData:
    """What is known of one window. Times in ns; `times_ns` has the nine states and sums to the window.

    `missing_ns` has the eight causes and sums to `times_ns["unknown"]`. A quantity is None where nothing counts it.
    `settled` is false while a stop that overlaps the window is open and may yet turn out to be short, and while the
    state waits for the next item. `unmapped` has the status values that the map does not know. `segments` has the
    window's parts, in order, where the shift changes inside it, and is empty where it does not. `by_reason` has the
    items of a quantity by their reasons, which sum to it, where reasons are configured for it.
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

    @property
    def observed_ns(self) -> int:
        """Scheduled time with a known state."""
        return metrics.planned_operation_ns(self.times_ns) - self.times_ns["unknown"]

    @property
    def complete(self) -> bool:
        """Nothing is missing: the state was known in all scheduled time, and no count had a hole in it."""
        return not self.times_ns["unknown"] and not self.count_gap


def lookback_ns(machine: Machine) -> int:
    """How far before the first window the rows must reach, in ns; and, of each tag, the last row before that.

    Counts need their last `COUNTER_LOOKBACK_READINGS` good readings before the window too, and all rows since.
    """
    holds = [machine.hold_ns.get(rules.tag) or 0 for rules in machine.rules]
    return max(machine.definition.short_stop_ns + machine.state.reach_ns + 1, *holds)


def lookahead_ns(machine: Machine) -> int:
    """How far beyond the last window the rows must reach, in ns, so that its state and its stops are certain."""
    return machine.definition.short_stop_ns + machine.state.reach_ns + NS_PER_S


class Present(NamedTuple):
    """A machine's state now: since when (no earlier than the rows reach), and why it is unknown.

    `until_ns`: then it may change although no reading comes; None: only a reading, its absence or the calendar does.
    """

    state: str
    since_ns: int
    cause: str | None
    until_ns: int | None = None


def present(machine: Machine, calendar: Calendar, rows: Mapping[str, Sequence[Row]], now_ns: int) -> Present:
    """The machine's state at `now_ns`, from its stored rows. A stop that has only begun is not a short stop yet."""
    reach = min(_first_ns(machine, rows, now_ns), now_ns - 1)
    _, timeline = _timelines(machine, calendar, rows, (reach, now_ns), now_ns)
    labels = timeline.labels.tolist()
    place = len(labels) - 1
    while place and labels[place - 1] == labels[-1]:
        place -= 1
    since_ns = int(timeline.edges[place])
    undecided = machine.state.undecided(rows, machine.hold_ns, now_ns)
    until_ns = None if undecided is None else undecided[1]
    if labels[-1] < equipment.UNKNOWN:
        return Present(STATES[labels[-1]], since_ns, None, until_ns)
    return Present("unknown", since_ns, LABELS[labels[-1]], until_ns)


def unsettled_since_ns(machine: Machine, rows: Mapping[str, Sequence[Row]], known_until_ns: int) -> int | None:
    """Since when the states may yet change without a late reading, in ns; else None.

    A stop may be open at `known_until_ns` and turn out to be short, or the next item may come too late. Windows that
    overlap [this, known_until_ns) and are already published may change then.
    """
    reach = min(_first_ns(machine, rows, known_until_ns), known_until_ns - 1)
    raw = _own_states(machine, rows, (reach, known_until_ns), known_until_ns)
    return _unsettled_since(machine, rows, raw, known_until_ns)


def _unsettled_since(
    machine: Machine, rows: Mapping[str, Sequence[Row]], own: Timeline, known_until_ns: int
) -> int | None:
    undecided = machine.state.undecided(rows, machine.hold_ns, known_until_ns)
    if undecided is None:
        return equipment.open_stop_since(own, machine.definition.short_stop_ns, known_until_ns)
    # A stop before it may go on through it.
    stop = equipment.open_stop_since(own, machine.definition.short_stop_ns, undecided[0])
    return undecided[0] if stop is None else min(stop, undecided[0])


def compute(
    machine: Machine,
    calendar: Calendar,
    rows: Mapping[str, Sequence[Row]],
    windows: Sequence[Interval],
    known_until_ns: int,
) -> list[WindowData]:
    """The data of each window, in the order given. Windows may overlap and differ in length.

    Args:
        machine: how its readings are to be understood.
        calendar: the site's shifts and production days.
        rows: for each of the machine's tags its readings in time order, reaching back as `lookback_ns` says and
            forward to `known_until_ns`, so that a stop's length is seen.
        windows: half-open [start, end), in ns.
        known_until_ns: all readings before this are here; nothing is assumed from here on.
    """
    if not windows:
        return []
    parts = [calendar.parts(*window) for window in windows]
    pieces = [piece for own in parts if len(own) > 1 for piece in own]
    data = _windows(machine, calendar, rows, [*windows, *pieces], known_until_ns)
    segments = iter(data[len(windows) :])
    whole = []
    for window, own in zip(data, parts, strict=False):
        inner = tuple(next(segments) for _ in own) if len(own) > 1 else ()
        whole.append(_with_segments(window, inner))
    return whole


def _with_segments(window: WindowData, segments: tuple[WindowData, ...]) -> WindowData:
    return replace(window, segments=segments) if segments else window


def _first_ns(machine: Machine, rows: Mapping[str, Sequence[Row]], before_ns: int) -> int:
    return min([before_ns, *(own[0][0] for tag in machine.state.tags if (own := rows.get(tag)))])


def _own_states(machine: Machine, rows: Mapping[str, Sequence[Row]], within: Interval, known_until_ns: int) -> Timeline:
    return machine.state.timeline(rows, machine.hold_ns, within, known_until_ns, machine.definition.when_offline)


def _timelines(
    machine: Machine, calendar: Calendar, rows: Mapping[str, Sequence[Row]], within: Interval, known_until_ns: int
) -> tuple[Timeline, Timeline]:
    """The machine's own states, and those with short stops and the schedule."""
    own = _own_states(machine, rows, within, known_until_ns)
    stops = equipment.mark_short_stops(own, machine.definition.short_stop_ns, known_until_ns)
    return own, equipment.apply_schedule(stops, calendar.scheduled(*within), calendar.breaks(*within))


def _windows(
    machine: Machine,
    calendar: Calendar,
    rows: Mapping[str, Sequence[Row]],
    windows: Sequence[Interval],
    known_until_ns: int,
) -> list[WindowData]:
    first, last = min(start for start, _ in windows), max(end for _, end in windows)
    # Beyond the last window too: how long a stop lasts is seen only where it ends.
    within = (_first_ns(machine, rows, first), max(last, known_until_ns))
    own, timeline = _timelines(machine, calendar, rows, within, known_until_ns)
    for rules in machine.rules:
        hold_ns, is_hole = machine.hold_ns.get(rules.tag), partial(equipment.is_hole, rules)
        timeline = equipment.watch_count(timeline, rows.get(rules.tag, ()), hold_ns, known_until_ns, is_hole)
    times = metrics.by_window(timeline.edges, timeline.labels, len(LABELS), windows)
    uncertain = metrics.time_in(timeline.edges, timeline.uncertain, windows)
    outside = metrics.time_in(timeline.edges, timeline.outside_plan, windows)
    gaps = metrics.time_in(timeline.edges, timeline.count_gap, windows)
    counts = {
        name: [_Count(machine, rules, rows, own, known_until_ns) for rules in several]
        for name, several in machine.counts.items()
    }
    open_since = _unsettled_since(machine, rows, own, known_until_ns)
    found = []
    for place, (start_ns, end_ns) in enumerate(windows):
        times_ns, missing_ns = _elements(times[place])
        tallies = {name: [count.tally(start_ns, end_ns) for count in several] for name, several in counts.items()}
        quantities = _quantities({name: reduce(Tally.plus, several) for name, several in tallies.items()})
        made = (quantities[name] for name in ("produced", "good", "rework"))
        produced, good, rework = (tally and tally.observed for tally in made)
        kpis = metrics.kpis(times_ns, produced, good, machine.definition, rework)
        flags = [*kpis.flags, *_count_flags(counts, start_ns, end_ns)]
        flags += ["producing_outside_plan"] if outside[place] else []
        flags += ["count_gap"] if gaps[place] else []
        unmapped = machine.state.unmapped(rows, start_ns, end_ns) if missing_ns["unmapped_state"] else ()
        settled = open_since is None or end_ns <= open_since or start_ns >= known_until_ns
        found.append(
            WindowData(
                start_ns, end_ns, times_ns, missing_ns, uncertain[place], quantities, kpis, tuple(flags),
                bool(gaps[place]), settled, unmapped, by_reason=_by_reason(machine, tallies),
            )
        )  # fmt: skip
    return found


def _elements(by_label: Sequence[int]) -> tuple[dict[str, int], dict[str, int]]:
    known, missing = by_label[: equipment.UNKNOWN], by_label[equipment.UNKNOWN :]
    return dict(zip(STATES, [*known, sum(missing)], strict=True)), dict(zip(CAUSES, missing, strict=True))


def _quantities(counted: dict[str, Tally]) -> dict[str, Tally | None]:
    produced, good, scrap = counted.get("produced"), counted.get("good"), counted.get("scrap")
    if produced is None and good is not None and scrap is not None:
        produced = good.plus(scrap)
    elif good is None and produced is not None and scrap is not None:
        good = produced - scrap
    elif scrap is None and produced is not None and good is not None:
        scrap = produced - good
    return {"produced": produced, "good": good, "scrap": scrap, "rework": counted.get("rework")}


def _by_reason(machine: Machine, tallies: Mapping[str, Sequence[Tally]]) -> dict[str, dict[str, int]]:
    """The items of each quantity that has reasons, by reason; what has none among them is `unclassified`."""
    found: dict[str, dict[str, int]] = {}
    for name, several in machine.counts.items():
        if any(rules.reason for rules in several):
            items = found.setdefault(name, {})
            for rules, tally in zip(several, tallies[name], strict=True):
                reason = rules.reason or UNCLASSIFIED
                items[reason] = items.get(reason, 0) + tally.total
    return found


def _count_flags(counts: Mapping[str, Sequence[_Count]], start_ns: int, end_ns: int) -> Iterable[str]:
    """What the steps in a window say, once each, behind the name of the quantity."""
    return dict.fromkeys(
        f"{name}_{word}"
        for name, several in counts.items()
        for count in several
        for word in count.words(start_ns, end_ns)
    )


class _Count:
    """One count's steps, ready to be summed by window."""

    def __init__(
        self,
        machine: Machine,
        rules: CountRules,
        rows: Mapping[str, Sequence[Row]],
        own: Timeline,
        known_until_ns: int,
    ) -> None:
        steps = equipment.steps(rows.get(rules.tag, ()), rules, machine.hold_ns.get(rules.tag), known_until_ns)
        blind = metrics.time_in(own.edges, own.labels >= equipment.UNKNOWN, [(s.since_ns, s.time_ns) for s in steps])
        self._times = [step.time_ns for step in steps]
        self._steps = steps
        self._total = [0, *accumulate(step.items for step in steps)]
        unobserved = (step.items if step.gap or ns else 0 for step, ns in zip(steps, blind, strict=True))
        self._unobserved = [0, *accumulate(unobserved)]
        self._quarantined = [0, *accumulate(step.quarantined for step in steps)]

    def tally(self, start_ns: int, end_ns: int) -> Tally:
        first, last = self._range(start_ns, end_ns)
        sums = (self._total, self._unobserved, self._quarantined)
        return Tally(*(each[last] - each[first] for each in sums))

    def words(self, start_ns: int, end_ns: int) -> Iterable[str]:
        """What its steps in a window say."""
        first, last = self._range(start_ns, end_ns)
        return (word for step in self._steps[first:last] for word in step.flags)

    def _range(self, start_ns: int, end_ns: int) -> Interval:
        return bisect_left(self._times, start_ns), bisect_left(self._times, end_ns)
