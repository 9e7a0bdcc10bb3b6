"""A machine's states over a time: its own, its stops with their reasons, and both under the schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from edge_agent import equipment
from edge_agent.contract import NS_PER_S
from edge_agent.entries import Entry, in_force, of_kind
from edge_agent.equipment import Row, Timeline
from edge_agent.equipment.stops import Stop, plan, stops
from edge_agent.equipment.work import Job, Work, jobs, work
from edge_agent.production.model import COUNTER_LOOKBACK_READINGS, Interval, Machine
from edge_agent.shifts import Calendar, union

Rows = Mapping[str, Sequence[Row]]
_BAD = 2


def lookback_ns(machine: Machine) -> int:
    """How far before the first window the rows must reach, in ns; and, of each tag, the last row before that.

    Counts need their last `COUNTER_LOOKBACK_READINGS` good readings before the window too, and all rows since. A stop
    that goes on from before the first window needs the rows from its begin on: see `cut_stop`.
    """
    holds = [machine.hold_ns.get(rules.tag) or 0 for rules in machine.rules]
    return max(machine.definition.short_stop_ns + machine.state.reach_ns + 1, *holds)


def lookahead_ns(machine: Machine) -> int:
    """How far beyond the last window the rows must reach, in ns, so that its state and its stops are certain."""
    return machine.definition.short_stop_ns + machine.state.reach_ns + NS_PER_S


def first_ns(machine: Machine, rows: Rows, before_ns: int) -> int:
    """Where the rows of the state begin, at the latest at `before_ns`."""
    return min([before_ns, *(own[0][0] for tag in machine.state.tags if (own := rows.get(tag)))])


def entries_since(machine: Machine, rows: Rows, since_ns: int) -> int:
    """Since when entries matter, with rows from `since_ns` on: counts reach back to good readings long before that.

    A count without enough of them begins with the first reading ever, and with what was said of its counter before.
    """
    begins = [since_ns]
    for rules in machine.rules:
        good = [time_ns for time_ns, _, quality, _ in rows.get(rules.tag, ()) if time_ns < since_ns and quality < _BAD]
        begins.append(good[0] if len(good) >= COUNTER_LOOKBACK_READINGS else 0)
    return min(begins)


def own_states(machine: Machine, rows: Rows, within: Interval, known_until_ns: int) -> Timeline:
    """The machine's own states over `within`, before stops and schedule."""
    return machine.state.timeline(rows, machine.hold_ns, within, known_until_ns, machine.definition.when_offline)


def cut_stop(machine: Machine, rows: Rows, since_ns: int, start_ns: int) -> bool:
    """Whether the machine stood still throughout [since, start): then rows from `since` on hide where the stop began.

    A stop's reason is the first one of the stop, so it needs the readings from its begin.
    """
    own = own_states(machine, rows, (since_ns, start_ns), start_ns)
    runs = equipment.stop_runs(own, start_ns)
    return bool(len(runs.start)) and int(runs.start[0]) == since_ns and int(runs.end[0]) == start_ns


class History:
    """What a machine did over `within`, from its rows and its people's entries. Computed as far as it is asked for."""

    def __init__(
        self, machine: Machine, calendar: Calendar, rows: Rows, within: Interval, known_until_ns: int,
        entries: Sequence[Entry] = (),
    ) -> None:  # fmt: skip
        """Take the evidence.

        Args:
            machine: how its readings are to be understood.
            calendar: the site's.
            rows: of each of its tags the readings in time order.
            within: what is looked at, half-open.
            known_until_ns: nothing is assumed from here on.
            entries: the machine's, withdrawn ones among them.
        """
        self.machine = machine
        self.calendar = calendar
        self.rows = rows
        self.within = within
        self.known_until_ns = known_until_ns
        self.entries = in_force(entries)

    @cached_property
    def own(self) -> Timeline:
        """The machine's own states."""
        return own_states(self.machine, self.rows, self.within, self.known_until_ns)

    @cached_property
    def scheduled(self) -> list[Interval] | None:
        """The scheduled time; None: all of it."""
        return self.calendar.scheduled(*self.within)

    @cached_property
    def breaks(self) -> list[Interval]:
        """The calendar's breaks, and the stops that people planned."""
        told = [(entry.start_ns, entry.end_ns) for entry in of_kind(self.entries, "planned-stop")]
        here = [(start, end) for start, end in told if start < self.within[1] and self.within[0] < end]
        breaks = self.calendar.breaks(*self.within)
        return union([*breaks, *here]) if here else breaks

    @cached_property
    def stops(self) -> list[Stop]:
        """The stops, in order; one that the begin of `within` cuts begins there."""
        return stops(
            self.own,
            self.machine.definition.short_stop_ns,
            self.known_until_ns,
            self.scheduled,
            self.machine.reasons,
            self.rows,
            self.entries,
        )

    @cached_property
    def timeline(self) -> Timeline:
        """The states as records tell them: with short stops, schedule, breaks, and planned reasons."""
        short = equipment.mark_short_stops(self.own, self.machine.definition.short_stop_ns, self.known_until_ns)
        return plan(equipment.apply_schedule(short, self.scheduled, self.breaks), self.stops)

    @cached_property
    def jobs(self) -> list[Job]:
        """The jobs, in order, as far as rows and entries reach."""
        return jobs(self.machine.worked, self.rows, self.entries, min(self.within[1], self.known_until_ns))

    @cached_property
    def work(self) -> list[Work]:
        """Products and jobs, as spans that cover `within`."""
        rules, hold_ns = self.machine.worked, self.machine.hold_ns
        return work(rules, self.rows, self.entries, hold_ns, self.within, self.known_until_ns)

    def replaced(self, tag: str) -> list[tuple[int, int | None]]:
        """When a counter was exchanged or set, and what it showed then, in order of time."""
        told = (entry for entry in of_kind(self.entries, "counter-replaced") if entry.body["tag"] == tag)
        return sorted(((entry.start_ns, entry.body.get("value")) for entry in told), key=lambda each: each[0])
