"""Counts of every kind: their steps, their sums over any windows, and what a machine makes of several of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import row as arrival
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.equipment import CounterRules, CountRules, IncrementRules, PulseRules, Row, StatusMap, Step, steps
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Machine, Tally, WindowData, compute, lookback_ns
from edge_agent.shifts import Calendar
from edge_agent.store import Store
from edge_agent.store.values import pack

S = 1_000_000_000
SPAN = 600
HOLD = 63
MACHINE = Machine("m", "e/s/a/l/m", StatusMap("d.state", {1: "producing"}), {"d.a": HOLD * S, "d.b": HOLD * S}, {})
ALWAYS: list[Row] = [(0, 1, 0, None)]


def at(second: float, value: Any, quality: int = 0) -> Row:
    return (round(second * S), value, quality, None)


def bad(second: float, cause: str = "device_offline") -> Row:
    return (round(second * S), None, 2, cause)


def found(rules: CountRules, *rows: Row, hold: float | None = HOLD) -> list[tuple[int, int, bool, tuple[str, ...]]]:
    made = steps(rows, rules, None if hold is None else int(hold * S), SPAN * S)
    return [(step.items, step.quarantined, step.gap, step.flags) for step in made]


def window(counts: dict[str, tuple[CountRules, ...]], state: list[Row] = ALWAYS, **rows: list[Row]) -> WindowData:
    given_rows = {"d.state": state} | {f"d.{name}": own for name, own in rows.items()}
    return compute(replace(MACHINE, counts=counts), Calendar(), given_rows, [(0, SPAN * S)], SPAN * S)[0]


# ------------------------------------------------------------------------------------------------- pulses

PULSE = PulseRules("d.a", items_per_count=4)


@pytest.mark.parametrize("low", [0, False, 0.0])
@pytest.mark.parametrize("high", [1, True, 1.0])
def test_pulse_of_any_type_counts_rising_edges_and_holds_at_high(low: Any, high: Any) -> None:
    rows = [at(0, high), at(1, low), at(2, high), at(3, high), at(4, low), at(5, high)]
    assert found(PULSE, *rows) == [(4, 0, False, ()), (4, 0, False, ())]


def test_pulse_step_lies_between_its_readings() -> None:
    assert steps([at(1, 0), at(5, 1)], PULSE, None, SPAN * S) == [Step(S, 5 * S, 4, 0, False, ())]


def test_pulse_that_begins_high_is_no_edge() -> None:
    assert found(PULSE, at(0, 1), at(1, 1)) == []


@pytest.mark.parametrize("between", [bad(1), at(1, 2), at(1, -1), at(1, "1"), at(1, 0.5), at(1, float("nan"))])
def test_pulse_across_a_bad_reading_is_not_counted_and_flagged(between: Row) -> None:
    assert found(PULSE, at(0, 0), between, at(2, 1), at(3, 0), at(4, 1)) == [
        (0, 0, True, ("ambiguous",)), (4, 0, False, ()),
    ]  # fmt: skip


def test_pulse_across_stale_time_is_not_counted() -> None:
    assert found(PULSE, at(0, 0), at(HOLD, 1)) == [(4, 0, False, ())]
    assert found(PULSE, at(0, 0), at(HOLD + 1, 1)) == [(0, 0, True, ("ambiguous",))]


def test_pulse_that_is_uncertain_counts() -> None:
    assert found(PULSE, at(0, 0, 1), at(1, 1, 1)) == [(4, 0, False, ())]


# --------------------------------------------------------------------------------------------- increments

INCREMENT = IncrementRules("d.a", Fraction(2))


def test_increment_counts_every_reading_also_the_first_and_the_same_again() -> None:
    assert found(INCREMENT, at(1, 6), at(9, 6), at(19, 6.0)) == [(6, 0, True, ()), (6, 0, False, ()), (6, 0, False, ())]


def test_increment_below_zero_takes_items_back() -> None:
    assert found(INCREMENT, at(1, 6), at(9, -2)) == [(6, 0, True, ()), (-2, 0, False, ("corrected",))]


def test_increment_beyond_its_rate_is_quarantined_at_once() -> None:
    assert found(INCREMENT, at(1, 500), at(2, 3), at(3, 2), at(4, -3)) == [
        (500, 0, True, ()), (0, 3, False, ("quarantined",)), (2, 0, False, ()), (0, -3, False, ("quarantined",)),
    ]  # fmt: skip
    boxes = IncrementRules("d.a", Fraction(2), items_per_count=12)
    assert found(boxes, at(0, 1), at(0.5, 1), at(6.5, 2)) == [
        (12, 0, True, ()), (12, 0, False, ()), (0, 24, False, ("quarantined",)),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [1.5, "6", True, float("inf"), None, (1, 2)])
def test_increment_that_is_no_whole_number_is_a_gap(value: Any) -> None:
    assert found(INCREMENT, at(0, 0), at(1, value), at(2, 2)) == [(2, 0, True, ())]


def test_increment_after_silence_is_no_gap_where_its_tag_holds_for_ever() -> None:
    assert found(INCREMENT, at(0, 0), at(500, 7), hold=None) == [(7, 0, False, ())]


# ------------------------------------------------------------------------------------- several in a machine


def test_counts_of_one_quantity_add_up_with_their_unobserved_and_quarantined_items() -> None:
    several = (PULSE, IncrementRules("d.b", Fraction(2)))
    made = window({"produced": several}, a=[at(0, 0), at(5, 1)], b=[at(1, 3), at(2, 2), at(3, 99)])
    assert made.quantities["produced"] == Tally(4 + 3 + 2, 3, 99)
    assert [flag for flag in made.flags if flag != "count_gap"] == ["produced_quarantined"]
    assert made.by_reason == {}


def test_items_while_the_state_is_unknown_are_unobserved_whatever_their_kind() -> None:
    state = [at(0, 1), bad(10), at(20, 1)]
    pulses = [at(0, 0), at(5, 1), at(6, 0), at(12, 1)]
    increments = [at(0, 0), at(5, 3), at(25, 4), at(26, 5)]
    made = window({"good": (PULSE,), "scrap": (IncrementRules("d.b"),)}, state, a=pulses, b=increments)
    assert made.quantities["good"] == Tally(8, 4)
    assert made.quantities["scrap"] == Tally(12, 4)
    assert made.quantities["produced"] == Tally(20, 8)


def test_value_that_a_kind_cannot_count_is_a_hole_in_the_count() -> None:
    whole = replace(MACHINE, hold_ns={}, counts={"produced": (IncrementRules("d.a"),)})
    for value, flags in ((1, ()), (1.5, ("count_gap",))):
        rows: dict[str, list[Row]] = {"d.state": ALWAYS, "d.a": [at(0, 2), at(5, value), at(9, 1)]}
        (made,) = compute(whole, Calendar(), rows, [(0, 100 * S)], SPAN * S)
        assert (made.flags, made.complete) == (flags, not flags)


def test_scrap_is_listed_by_reason_and_sums_to_the_scrap() -> None:
    long, burr = PulseRules("d.a", reason="dimension/too long"), IncrementRules("d.b")
    made = window({"good": (PulseRules("d.c"),), "scrap": (long, burr)}, a=[at(0, 0), at(1, 1)], b=[at(0, 0), at(2, 3)])
    assert made.by_reason == {"scrap": {"dimension/too long": 1, "unclassified": 3}}
    assert made.quantities["scrap"] == Tally(4)
    same = window(
        {"good": (PulseRules("d.c"),), "scrap": (long, replace(burr, reason=long.reason))},
        b=[at(0, 2)],
        a=[at(0, 0), at(1, 1)],
    )
    assert same.by_reason == {"scrap": {"dimension/too long": 3}}
    assert window({"good": (PulseRules("d.c"),), "rework": (long,)}).by_reason == {"rework": {"dimension/too long": 0}}


# ---------------------------------------------------------------------------------------------- the oracle

VALUES = st.integers(-3, 12) | st.sampled_from([0, 1, True, False, 0.5, 2.0, "7", None])
READINGS = st.lists(
    st.tuples(st.integers(0, SPAN - 1), VALUES, st.sampled_from([0, 0, 0, 1, 2])), max_size=60, unique_by=lambda r: r[0]
).map(lambda found: [at(second, None if quality == 2 else value, quality) for second, value, quality in sorted(found)])
CUTS = st.sets(st.integers(1, SPAN - 1), max_size=12).map(lambda cuts: [*pairwise([0, *sorted(cuts), SPAN])])
KINDS = [CounterRules("d.a", Fraction(2), 13), PULSE, INCREMENT]


def reckoned(rules: CountRules, rows: list[Row]) -> int:
    """The items from the first good reading on, found without steps."""
    values = [None if quality == 2 else value for _, value, quality, _ in rows]
    if isinstance(rules, PulseRules):
        near = [after[0] - before[0] <= HOLD * S for before, after in pairwise(rows)]
        edges = zip(pairwise(values), near, strict=True)
        return 4 * sum(fresh and _is(before, 0) and _is(after, 1) for (before, after), fresh in edges)
    if isinstance(rules, IncrementRules):
        total, last = 0, None
        for (time_ns, *_), value in zip(rows, values, strict=True):
            if type(value) is int or (isinstance(value, float) and value % 1 == 0):
                total += int(value) if last is None or abs(value) <= max(1, 2 * (time_ns - last) // S) else 0
                last = time_ns
        return total
    return sum(step.items for step in steps(rows, rules, HOLD * S, SPAN * S))


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int | float) and value == number


@settings(max_examples=100)
@given(rows=READINGS, cuts=CUTS, kind=st.sampled_from(KINDS))
def test_items_over_any_windows_are_those_from_the_first_good_reading(
    rows: list[Row], cuts: list[tuple[int, int]], kind: CountRules
) -> None:
    machine = replace(MACHINE, counts={"produced": (kind,), "rework": (PulseRules("d.b", reason="again"),)})
    given_rows: dict[str, list[Row]] = {"d.state": ALWAYS, "d.a": rows, "d.b": rows}
    windows = [(start * S, end * S) for start, end in cuts]
    made = compute(machine, Calendar(), given_rows, windows, SPAN * S)
    produced = [each.quantities["produced"] for each in made]
    assert sum(tally.total for tally in produced if tally) == reckoned(kind, rows)
    assert sum(each.by_reason["rework"]["again"] for each in made) == reckoned(PULSE, rows) // 4
    assert compute(machine, Calendar(), given_rows, windows, SPAN * S) == made
    for each, (start, end) in zip(made, windows, strict=True):
        # As the summarizer does it: from the rows that a window asks for, with the last one before them.
        (alone,) = compute(machine, Calendar(), _near(machine, given_rows, start), [(start, end)], SPAN * S)
        if kind is not KINDS[0]:  # a counter that jumps about for longer than its look-back has no baseline to find
            assert (alone.quantities, alone.by_reason) == (each.quantities, each.by_reason)


def _near(machine: Machine, rows: dict[str, list[Row]], start: int) -> dict[str, list[Row]]:
    near = {}
    for tag, own in rows.items():
        since = start - lookback_ns(machine)
        earlier = [row[0] for row in own if row[0] < since]
        usable = [row[0] for row in own if row[0] < since and row[2] < 2][-COUNTER_LOOKBACK_READINGS:]
        first = min([since, *earlier[-1:], *usable])
        near[tag] = [row for row in own if row[0] >= first]
    return near


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("counts")
    with Store(folder) as opened:
        opened.begin(0)
        yield opened


USED: Counter[str] = Counter()


@settings(max_examples=30, deadline=None)
@given(rows=READINGS, order=st.randoms(use_true_random=False), kind=st.sampled_from(KINDS))
def test_items_are_the_same_whatever_the_order_of_arrival(store: Store, rows: list[Row], order: Any, kind: Any) -> None:
    USED["tags"] += 1
    tag = f"d.tag{USED['tags']}"
    number = store.register([(tag, True)])[tag]
    arriving = [arrival(number, at + S, pack(value), quality, cause) for at, value, quality, cause in rows]
    order.shuffle(arriving)
    half = len(arriving) // 2
    for batch in (arriving[:half], arriving[half:]):
        store.append(batch, 2 * SPAN * S)
    read = store.readings.steps(tag, 0, 2 * SPAN * S)
    assert [(row[0] - S, *row[1:]) for row in read] == rows
    assert sum(step.items for step in steps(read, kind, HOLD * S, 2 * SPAN * S)) == reckoned(kind, rows)
