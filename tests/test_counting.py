"""What counters and people say of items: scrap and its reasons, corrections, rework, counters that were replaced."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_production import COUNT, CUTS, NO_SHIFTS, PRESS, SHIFTS, STATUS, S, at, bad, good, rows
from test_stops import entry

from edge_agent.entries import Entry
from edge_agent.equipment import CounterRules, FromCount, IncrementRules, Row
from edge_agent.equipment.stops import ReasonRules
from edge_agent.equipment.work import WorkRules
from edge_agent.metrics import Definition, ratio
from edge_agent.production import Machine, Tally, WindowData, added, compute

ALONE = replace(PRESS, counts={"produced": PRESS.counts["produced"]})
SORTED = replace(
    PRESS,
    counts={
        "produced": PRESS.counts["produced"],
        "scrap": (
            CounterRules("plc.rejects", Fraction(2), reason="dimension/too long"),
            CounterRules("plc.other", Fraction(2)),
        ),
    },
)
RUNNING = [good(0, 1)]


def window(machine: Machine, entries: list[Entry], *span: float, **given_rows: list[Row]) -> WindowData:
    own = {"plc.status": RUNNING, **{f"plc.{name}": several for name, several in given_rows.items()}}
    start, end = span or (0, 60)
    return compute(machine, NO_SHIFTS, own, [(at(start), at(end))], at(600), entries)[0]


def totals(found: WindowData) -> dict[str, int | None]:
    return {name: tally and tally.total for name, tally in found.quantities.items()}


# ------------------------------------------------------------------------------------------------ entries


def test_scrap_that_people_tell_was_among_the_good() -> None:
    count, rejects = [good(0, 0), good(50, 40)], [good(0, 0), good(50, 3)]
    found = window(PRESS, [entry(1, "scrap", 10, count=5, reason="scratch")], count=count, rejects=rejects)
    assert totals(found) == {"produced": 40, "good": 32, "scrap": 8, "rework": None}
    assert found.by_reason == {"scrap": {"scratch": 5, "unclassified": 3}}
    assert found.kpis.values["quality_ratio"] == 0.8


def test_scrap_that_people_tell_where_only_produced_is_counted_makes_the_rest_good() -> None:
    found = window(ALONE, [entry(1, "scrap", 10, count=5)], count=[good(0, 0), good(50, 40)])
    assert totals(found) == {"produced": 40, "good": 35, "scrap": 5, "rework": None}
    assert found.by_reason == {}
    nothing = window(ALONE, [], count=[good(0, 0), good(50, 40)])
    assert totals(nothing) == {"produced": 40, "good": None, "scrap": None, "rework": None}


def test_scrap_by_reason_sums_to_the_scrap_with_what_is_counted_and_told() -> None:
    told = [entry(1, "scrap", 10, count=5, reason="scratch"), entry(2, "scrap", 11, count=-2, reason="scratch")]
    told += [entry(3, "scrap", 12, count=1), entry(4, "scrap", 13, count=4, reason="dimension/too long")]
    found = window(SORTED, told, count=[good(0, 0), good(50, 40)], rejects=[good(0, 0), good(9, 7)],
                   other=[good(0, 0), good(9, 2)])  # fmt: skip
    assert found.by_reason == {"scrap": {"dimension/too long": 11, "unclassified": 3, "scratch": 3}}
    assert totals(found)["scrap"] == 17


def test_scrap_that_is_withdrawn_is_none_and_belongs_to_the_window_of_its_time() -> None:
    told = [entry(1, "scrap", 59.999, count=5), entry(2, "scrap", 60, count=7), entry(3, "withdraw", 0, entry=1)]
    rejects = [good(0, 0), good(100, 0)]
    count = [good(0, 0), good(30, 20), good(90, 40)]
    assert totals(window(PRESS, told[:2], count=count, rejects=rejects))["scrap"] == 5
    assert totals(window(PRESS, told, count=count, rejects=rejects))["scrap"] == 0
    assert totals(window(PRESS, told, 60, 120, count=count, rejects=rejects))["scrap"] == 7


def test_correction_is_of_good_items_that_were_produced() -> None:
    told = [entry(1, "correction", 10, count=-4), entry(2, "correction", 10, count=1, quantity="scrap")]
    found = window(PRESS, told, count=[good(0, 0), good(50, 40)], rejects=[good(0, 0), good(50, 3)])
    assert totals(found) == {"produced": 36, "good": 32, "scrap": 4, "rework": None}
    assert found.quantities["produced"] == Tally(36)


def test_rework_that_people_tell_is_counted_from_then_on() -> None:
    told = [entry(1, "rework", 10, count=3, reason="deburr"), entry(2, "correction", 11, count=1, quantity="rework")]
    found = window(PRESS, told, count=[good(0, 0), good(50, 40)], rejects=[good(0, 0), good(50, 3)])
    assert totals(found)["rework"] == 4
    assert found.by_reason["rework"] == {"deburr": 3, "unclassified": 1}
    assert found.kpis.values["first_pass_yield"] == ratio(33, 40)


@pytest.mark.parametrize(("value", "made"), [(None, 20), (0, 25), (3, 22)])
def test_counter_that_was_replaced_begins_anew(value: int | None, made: int) -> None:
    told = [entry(1, "counter-replaced", 30, tag="plc.count", value=value)]
    count = [good(0, 900), good(20, 910), good(40, 5), good(50, 15)]
    found = window(ALONE, told, count=count)
    assert totals(found)["produced"] == made
    assert "produced_reset" not in found.flags


def test_counter_that_was_replaced_is_another_counter_even_where_it_shows_more() -> None:
    told = [entry(1, "counter-replaced", 30, tag="plc.count", value=980)]
    count = [good(0, 900), good(20, 910), good(40, 985)]
    assert totals(window(ALONE, told, count=count))["produced"] == 15
    assert totals(window(ALONE, [], count=count))["produced"] == 10, "held, because it is more than the rate allows"
    told = [entry(1, "counter-replaced", 30, tag="plc.rejects", value=980)]
    assert totals(window(ALONE, told, count=count))["produced"] == 10, "another counter's"


def test_counter_that_was_replaced_before_the_rows_begin_counts_from_what_it_showed() -> None:
    told = [entry(1, "counter-replaced", -30, tag="plc.count", value=3)]
    assert totals(window(ALONE, told, count=[good(10, 5), good(50, 15)]))["produced"] == 12


def test_scanner_has_nothing_to_replace() -> None:
    scanner = replace(PRESS, counts={"produced": (IncrementRules("plc.count"),)})
    told = [entry(1, "counter-replaced", 30, tag="plc.count", value=7)]
    assert totals(window(scanner, told, count=[good(10, 5), good(40, 5)]))["produced"] == 10


# --------------------------------------------------------------------------------------------- products


MIXED = replace(
    PRESS,
    hold_ns={**PRESS.hold_ns, "plc.product": None},
    work=WorkRules("plc.product", {"A": S // 2, "B": 2 * S}),
    definition=Definition(short_stop_ns=10 * S),
)
BOTH = [good(0, "A"), good(30, "B")]
MADE = {"count": [good(0, 0), good(20, 40), good(40, 45), good(50, 50)], "rejects": [good(0, 0), good(45, 2)]}


def test_effectiveness_is_the_planned_run_time_of_all_products_over_the_run_time() -> None:
    found = window(MIXED, [], product=BOTH, **MADE)
    assert [(part.product, part.quantities["produced"], part.planned_run_time_ns) for part in found.segments] == [
        ("A", Tally(40), S // 2), ("B", Tally(10), 2 * S)
    ]  # fmt: skip
    assert (found.product, found.planned_run_time_ns) == (None, None)
    assert found.kpis.sums["planned_run_produced_s"] == 40 * S
    assert found.kpis.values["effectiveness"] == ratio(40, 60)
    assert found.kpis.values["oee_index"] == ratio(20 + 8 * 2, 60)


def test_effectiveness_is_not_known_where_a_product_that_was_made_has_no_run_time() -> None:
    found = window(MIXED, [], product=[good(0, "A"), good(30, "C")], **MADE)
    assert found.kpis.values["effectiveness"] is None
    assert found.kpis.reasons["effectiveness"] == "no_planned_run_time"
    idle = window(MIXED, [], product=[good(0, "A"), good(30, "C")], count=[good(0, 0), good(20, 40)],
                  rejects=[good(0, 0)])  # fmt: skip
    assert idle.kpis.values["effectiveness"] == ratio(20, 60), "of C nothing was made"


def test_state_from_the_count_knows_how_long_each_product_takes() -> None:
    source = FromCount(PRESS.counts["produced"], 10 * S, "plc.product", {"B": 30 * S})
    machine = replace(MIXED, state=source, counts=ALONE.counts)
    count = [good(second, second // 20) for second in range(0, 200, 5)]
    found = window(machine, [], 0, 200, count=count, product=[good(0, "A"), good(101, "B")])
    assert {state: ns // S for state, ns in found.times_ns.items() if ns} == {"producing": 60, "delay": 140}


def test_pace_expects_the_goal_in_planned_time_alone() -> None:
    machine = replace(ALONE, goal=Fraction(1, 2))
    (found,) = compute(machine, SHIFTS, rows(RUNNING), [(at(0), at(600))], at(600))
    assert found.pace is not None
    assert found.pace.expected == Fraction(180, 2), "four minutes of a shift less a minute's break"
    told = [entry(1, "planned-stop", 300, 330, reason="meeting")]
    (found,) = compute(machine, SHIFTS, rows(RUNNING), [(at(0), at(600))], at(600), told)
    assert found.pace is not None
    assert found.pace.expected == Fraction(150, 2)


# ------------------------------------------------------------------------------- of any readings and entries


EVERYTHING = replace(
    MIXED,
    counts=SORTED.counts,
    hold_ns={**MIXED.hold_ns, "plc.other": None, "plc.alarm": None, "plc.order": None},
    work=WorkRules("plc.product", {"A": S // 2, "B": 2 * S}, 3 * S, "plc.order"),
    reasons=ReasonRules("plc.alarm", {1: "guard", 2: "tool", 3: "tool/change"}, planned=("tool",)),
    goal=Fraction(1, 3),
)


@st.composite
def _entries(draw: st.DrawFn) -> list[Entry]:
    made = []
    for number in range(1, draw(st.integers(0, 6)) + 1):
        start, length = draw(st.integers(0, 599)), draw(st.integers(0, 200))
        count = draw(st.integers(-3, 9))
        reason = draw(st.sampled_from(["guard", "tool", "other"]))
        bodies: dict[Any, dict[str, Any]] = {
            "reason": {"reason": reason}, "planned-stop": {"reason": "meeting"},
            "scrap": {"count": count, "reason": draw(st.none() | st.just(reason))}, "rework": {"count": count},
            "correction": {"count": count, "quantity": draw(st.sampled_from(["produced", "scrap", "rework"]))},
            "counter-replaced": {"tag": "plc.count", "value": draw(st.none() | st.just(count + 3))},
            "withdraw": {"entry": draw(st.integers(1, 6))},
        }  # fmt: skip
        kind = draw(st.sampled_from(sorted(bodies)))
        end = start + length if kind in ("reason", "planned-stop") else start
        made.append(entry(number, kind, start, end, **bodies[kind]))
    return made


def _labels(values: list[Any]) -> st.SearchStrategy[list[Row]]:
    pairs = st.lists(st.tuples(st.integers(0, 599), st.sampled_from([None, *values])), max_size=8, unique_by=_second)
    return pairs.map(lambda found: [bad(s, "x") if v is None else good(s, v) for s, v in sorted(found, key=_second)])


def _second(pair: tuple[int, Any]) -> int:
    return pair[0]


HISTORY = {
    "status": STATUS, "count": COUNT, "rejects": COUNT, "product": _labels(["A", "B", "C", ""]),
    "order": _labels([0, 7, 8]), "alarm": _labels([0, 1, 2, 3, 9]),
}  # fmt: skip


def _sum(found: list[WindowData], name: str) -> Tally | None:
    counted = [tally for data in found if (tally := data.quantities[name]) is not None]
    return Tally(*map(sum, zip(*counted, strict=True))) if counted else None


@settings(max_examples=150, deadline=None)
@given(history=st.fixed_dictionaries(HISTORY), entries=_entries(), cuts=CUTS, shifts=st.booleans())
def test_windows_of_any_cut_add_up_in_all_that_they_say(
    history: dict[str, list[Row]], entries: list[Entry], cuts: list[int], shifts: bool
) -> None:
    calendar = SHIFTS if shifts else NO_SHIFTS
    own = {f"plc.{name}": several for name, several in history.items()}
    windows = [(at(start), at(end)) for start, end in pairwise(cuts)]
    *parts, whole = compute(EVERYTHING, calendar, own, [*windows, (at(0), at(600))], at(600), entries)
    for each in (*parts, whole):
        length = each.end_ns - each.start_ns
        assert sum(each.times_ns.values()) == length
        assert sum(each.missing_ns.values()) == each.times_ns["unknown"]
        assert sum(each.downtime.by_reason_ns.values()) == each.times_ns["delay"] + each.times_ns["down"]
        for name, items in each.by_reason.items():
            tally = each.quantities[name]
            assert tally is not None
            assert sum(items.values()) == tally.total
        if each.segments:
            assert [part.start_ns for part in each.segments[1:]] == [part.end_ns for part in each.segments[:-1]]
            assert {
                state: sum(part.times_ns[state] for part in each.segments) for state in each.times_ns
            } == each.times_ns
            for name, total in each.quantities.items():
                assert _sum(list(each.segments), name) == total
    assert sum(part.downtime.stops for part in parts) == whole.downtime.stops
    assert sum(part.downtime.failures for part in parts) == whole.downtime.failures
    for name, total in whole.quantities.items():
        if name != "good":  # windows without told scrap may say none
            assert _sum(parts, name) == total
    together = added(EVERYTHING, SHIFTS, parts)
    for field in ("times_ns", "missing_ns", "quantities", "downtime", "pace", "product", "job"):
        assert getattr(together, field) == getattr(whole, field), field
    assert _nonzero(together.by_reason) == _nonzero(whole.by_reason)
    assert together.kpis.sums == whole.kpis.sums
    assert together.kpis.values == whole.kpis.values


def _nonzero(by_reason: Any) -> dict[tuple[str, str], int]:
    return {(name, reason): n for name, items in by_reason.items() for reason, n in items.items() if n}


@settings(max_examples=100, deadline=None)
@given(count=COUNT, entries=_entries(), cuts=CUTS)
def test_windows_where_only_produced_is_counted_add_up_with_told_scrap(
    count: list[Row], entries: list[Entry], cuts: list[int]
) -> None:
    given_rows = {"plc.status": RUNNING, "plc.count": count}
    windows = [(at(start), at(end)) for start, end in pairwise(cuts)]
    *parts, whole = compute(ALONE, SHIFTS, given_rows, [*windows, (at(0), at(600))], at(600), entries)
    together = added(ALONE, SHIFTS, parts)
    assert together.quantities == whole.quantities
    assert together.kpis.sums == whole.kpis.sums
    assert _nonzero(together.by_reason) == _nonzero(whole.by_reason)
