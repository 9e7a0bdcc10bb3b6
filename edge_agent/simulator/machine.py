"""One simulated machine: its states, parts and scrap as a function of (seed, elapsed time). No clock, no I/O."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

NS_PER_S = 1_000_000_000

STATUS_CODES = {"producing": 1, "delay": 2, "down": 3, "setup": 4, "planned_stop": 5, "idle": 6}
"""What the machines' status registers hold. A machine that was not started, or is frozen, is idle."""

ALARM_LOW_PRESSURE, ALARM_GUARD_OPEN = 17, 18


class Stop(NamedTuple):
    """A way to stop: the state, and the shortest and longest time it takes, in seconds."""

    state: str
    least_s: float
    most_s: float


STOPS = (
    Stop("delay", 4, 8),
    Stop("delay", 5, 9),
    Stop("down", 12, 24),
    Stop("delay", 4, 8),
    Stop("setup", 6, 12),
    Stop("down", 5, 9),
    Stop("planned_stop", 5, 10),
)
"""Each machine goes through all of these in a shuffled order, then shuffles again."""


class Kind(NamedTuple):
    """What distinguishes one machine from another."""

    name: str
    least_cycle_s: float
    most_cycle_s: float
    first_produced: int
    """The parts counter when the plant starts: a real counter never starts at zero, only differences mean something."""
    first_scrap: int
    scrap_ratio: float = 0.02
    recipes: tuple[str, ...] = ("A100", "B200")
    """The product changes with each setup."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one state, [start_ns, end_ns), with everything that was counted before it."""

    start_ns: int
    end_ns: int
    state: str
    alarm: int
    cycle_ns: int
    """The time one part takes, 0 unless producing. The last part ends the segment."""
    scrap_at: tuple[int, ...]
    """Which parts of this segment are scrap, counted from 0, ascending."""
    produced_before: int
    scrap_before: int
    setups_before: int
    time_before_ns: dict[str, int]


class Snapshot(NamedTuple):
    """A machine at one instant. Counts and times are since the start, without what the counter showed before."""

    elapsed_ns: int
    state: str
    alarm: int
    produced: int
    scrap: int
    recipe: str
    progress: float | None
    """How far the part in work is, 0 to 1; None unless producing."""
    part_is_scrap: bool
    time_ns: dict[str, int]

    @property
    def good(self) -> int:
        return self.produced - self.scrap


class Machine:
    """One machine's whole life, written as far ahead as anybody has asked for."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self._random = random.Random(f"{seed}/{kind.name}")
        self._stops: list[Stop] = []
        self._segments: list[Segment] = []
        self._ends_ns: list[int] = []

    def at(self, elapsed_ns: int) -> Snapshot:
        """The machine after `elapsed_ns` of run time (not negative)."""
        while not self._ends_ns or self._ends_ns[-1] <= elapsed_ns:
            self._extend()
        segment = self._segments[bisect_right(self._ends_ns, elapsed_ns)]
        into_ns = elapsed_ns - segment.start_ns
        time_ns = dict(segment.time_before_ns)
        time_ns[segment.state] += into_ns
        parts, scrap, progress = 0, 0, None
        if segment.cycle_ns:
            parts = into_ns // segment.cycle_ns
            scrap = sum(part < parts for part in segment.scrap_at)
            progress = into_ns % segment.cycle_ns / segment.cycle_ns
        return Snapshot(
            elapsed_ns=elapsed_ns,
            state=segment.state,
            alarm=segment.alarm,
            produced=segment.produced_before + parts,
            scrap=segment.scrap_before + scrap,
            recipe=self.kind.recipes[segment.setups_before % len(self.kind.recipes)],
            progress=progress,
            part_is_scrap=parts in segment.scrap_at,
            time_ns=time_ns,
        )

    def _extend(self) -> None:
        if self._segments and self._segments[-1].state == "producing":
            self._append_stop()
        else:
            self._append_production()

    def _append_production(self) -> None:
        kind, rng = self.kind, self._random
        cycle_ns = round(rng.uniform(kind.least_cycle_s, kind.most_cycle_s) * NS_PER_S)
        parts = max(1, round(rng.uniform(12, 25) * NS_PER_S / cycle_ns))
        scrap_at = tuple(part for part in range(parts) if rng.random() < kind.scrap_ratio)
        self._append("producing", parts * cycle_ns, cycle_ns=cycle_ns, scrap_at=scrap_at)

    def _append_stop(self) -> None:
        rng = self._random
        if not self._stops:
            self._stops = rng.sample(STOPS, len(STOPS))
        stop = self._stops.pop()
        alarm = rng.choice((ALARM_LOW_PRESSURE, ALARM_GUARD_OPEN)) if stop.state == "down" else 0
        self._append(stop.state, round(rng.uniform(stop.least_s, stop.most_s) * NS_PER_S), alarm=alarm)

    def _append(
        self, state: str, length_ns: int, *, alarm: int = 0, cycle_ns: int = 0, scrap_at: tuple[int, ...] = ()
    ) -> None:
        start_ns, produced, scrap, setups = 0, 0, 0, 0
        time_ns = dict.fromkeys(STATUS_CODES, 0)
        if self._segments:
            last = self._segments[-1]
            start_ns = last.end_ns
            length_of_last_ns = last.end_ns - last.start_ns
            produced = last.produced_before + (length_of_last_ns // last.cycle_ns if last.cycle_ns else 0)
            scrap = last.scrap_before + len(last.scrap_at)
            setups = last.setups_before + (last.state == "setup")
            time_ns = last.time_before_ns | {last.state: last.time_before_ns[last.state] + length_of_last_ns}
        self._segments.append(
            Segment(start_ns, start_ns + length_ns, state, alarm, cycle_ns, scrap_at, produced, scrap, setups, time_ns)
        )
        self._ends_ns.append(start_ns + length_ns)
