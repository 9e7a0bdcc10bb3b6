"""One machine's windows from its readings: against a second by second reckoning, and what must hold of any."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.equipment import CAUSES, STATES, CounterRules, Row, StatusMap, Unmapped
from edge_agent.metrics import Definition, milliseconds, planned_operation_ns
from edge_agent.production import (
    COUNTER_LOOKBACK_READINGS,
    Machine,
    Present,
    Tally,
    WindowData,
    compute,
    lookback_ns,
    present,
    unsettled_since_ns,
)
from edge_agent.shifts import Calendar, Shift

S = 1_000_000_000
MIDNIGHT = 1_795_392_000 * S
HOLD = 63
WORDS: dict[Any, str] = {1: "producing", 2: "delay", 3: "down", 4: "setup", 5: "planned_stop", 6: "idle"}
PRESS = Machine(
    "press-01",
    "acme/lyon/press-hall/line-a/press-01",
    StatusMap("plc.status", WORDS),
    {"plc.status": HOLD * S, "plc.count": HOLD * S, "plc.rejects": HOLD * S},
    {
        "produced": (CounterRules("plc.count", Fraction(2), 1_000),),
        "scrap": (CounterRules("plc.rejects", Fraction(2), 1_000),),
    },
    Definition(planned_run_time_ns=2 * S),
)
SHIFTS = Calendar("UTC", 0, (Shift.of("early", "mon-sun", "00:02", "00:06", ["00:03-00:04"]),))
NO_SHIFTS = Calendar()


def at(seconds: float) -> int:
    return MIDNIGHT + round(seconds * S)


def good(seconds: float, value: Any) -> Row:
    return (at(seconds), value, 0, None)


def bad(seconds: float, cause: str) -> Row:
    return (at(seconds), None, 2, cause)


def rows(
    status: list[Row] | None = None, count: list[Row] | None = None, rejects: list[Row] | None = None
) -> dict[str, list[Row]]:
    return {"plc.status": status or [], "plc.count": count or [], "plc.rejects": rejects or []}


def window(
    given_rows: dict[str, list[Row]],
    start: float = 0,
    end: float = 60,
    machine: Machine = PRESS,
    calendar: Calendar = NO_SHIFTS,
    known: float = 600,
) -> WindowData:
    return compute(machine, calendar, given_rows, [(at(start), at(end))], at(known))[0]


def times(found: WindowData) -> dict[str, float]:
    return {state: ns / S for state, ns in found.times_ns.items() if ns}


# ------------------------------------------------------------------------------------------------- states


def test_window_carries_its_state_in_from_before_it() -> None:
    assert times(window(rows([good(-20, 4), good(30, 1)]))) == {"setup": 30, "producing": 30}


def test_window_with_a_short_stop_across_its_end_knows_it_when_the_stop_has_ended() -> None:
    status = [good(0, 1), good(50, 3)]
    provisional = window(rows(status), known=65)
    assert times(provisional) == {"producing": 50, "down": 10}
    assert not provisional.settled
    assert unsettled_since_ns(PRESS, rows(status), at(65)) == at(50)
    final = window(rows([*status, good(70, 1)]), known=75)
    assert times(final) == {"producing": 50, "short_stop": 10}
    assert final.settled
    assert unsettled_since_ns(PRESS, rows([*status, good(70, 1)]), at(75)) is None


def test_window_of_an_offline_device_is_missing_or_what_the_machine_says() -> None:
    status = [good(0, 1), bad(20, "device_offline"), good(50, 1)]
    assert times(window(rows(status))) == {"producing": 30, "unknown": 30}
    down = replace(PRESS, definition=Definition(2 * S, 10 * S, when_offline="down"))
    assert times(window(rows(status), machine=down))["down"] == 30
    assert window(rows(status), machine=down).missing_ns["device_offline"] == 0


def test_window_with_unmapped_values_names_each_once() -> None:
    found = window(rows([good(-5, 77), good(10, 1), good(20, 88), good(30, 77), good(40, 1), good(61, 99)]))
    assert found.missing_ns["unmapped_state"] == 30 * S
    assert found.unmapped == (Unmapped("map", "plc.status", 77), Unmapped("map", "plc.status", 88))


def test_window_that_ends_after_what_is_known_is_unknown_from_there() -> None:
    found = window(rows([good(0, 1)], [good(0, 5), good(50, 9)]), known=40)
    assert (times(found), found.missing_ns["stale"]) == ({"producing": 40, "unknown": 20}, 20 * S)
    assert found.quantities["produced"] == Tally()


def test_window_of_uncertain_readings_uses_and_counts_them() -> None:
    status = [good(0, 1), (at(10), 1, 1, "sensor"), good(30, 1)]
    count = [good(0, 5), (at(25), 6, 1, "sensor"), good(40, 6)]
    found = window(rows(status, count, [good(0, 0)]))
    assert found.uncertain_ns == 30 * S
    assert found.quantities["produced"] == Tally(1)


def test_window_producing_outside_the_shift_is_marked() -> None:
    found = window(rows([good(60, 1), good(119, 1)]), 60, 180, calendar=SHIFTS, known=180)
    assert times(found) == {"producing": 120}
    assert "producing_outside_plan" in found.flags


# ------------------------------------------------------------------------------------------------- counts


def test_step_is_booked_in_the_window_of_the_reading_that_shows_it() -> None:
    given_rows = rows([good(0, 1)], [good(55, 10), good(60, 12)])
    first, second = compute(PRESS, NO_SHIFTS, given_rows, [(at(0), at(60)), (at(60), at(120))], at(120))
    assert (first.quantities["produced"], second.quantities["produced"]) == (Tally(), Tally(2))


def test_parts_made_while_the_state_is_unknown_are_unobserved_and_out_of_the_kpis() -> None:
    status = [good(0, 1), bad(20, "bad_quality"), good(30, 1)]
    count = [good(0, 10), good(15, 15), good(25, 20), good(35, 22), good(45, 25)]
    found = window(rows(status, count, [good(0, 0), good(50, 0)]))
    assert found.quantities["produced"] == Tally(15, 7)
    assert found.kpis.values["throughput_rate_per_h"] == 480
    assert found.kpis.values["effectiveness"] == 0.32


def test_parts_made_while_the_count_is_bad_or_stale_are_unobserved() -> None:
    status = [good(0, 1), good(60, 1), good(120, 1)]
    offline = window(rows(status, [good(0, 10), bad(10, "x"), good(20, 14)]), end=120)
    stale = window(rows(status, [good(0, 10), good(70, 14)]), end=120)
    assert offline.quantities["produced"] == stale.quantities["produced"] == Tally(4, 4)
    assert "count_gap" in stale.flags
    assert not stale.complete


def test_scrap_and_good_follow_from_the_two_that_are_counted() -> None:
    found = window(rows([good(0, 1)], [good(0, 0), good(50, 40)], [good(0, 0), good(50, 3)]))
    assert found.quantities["good"] == Tally(37)
    by_good = replace(PRESS, counts={"good": PRESS.counts["produced"], "scrap": PRESS.counts["scrap"]})
    found = window(rows([good(0, 1)], [good(0, 0), good(50, 40)], [good(0, 0), good(50, 3)]), machine=by_good)
    assert found.quantities["produced"] == Tally(43)
    assert found.quantities["rework"] is None


def test_quarantined_jump_is_in_no_kpi() -> None:
    count = [good(0, 0), *(good(10 + place, 500 + place) for place in range(5))]
    found = window(rows([good(0, 1)], count, [good(0, 0)]))
    assert found.quantities["produced"] == Tally(4, 0, 500)
    assert {"produced_held", "produced_quarantined"} <= set(found.flags)


# ----------------------------------------------------------------------------------------------- present


def test_present_state_is_named_with_its_begin() -> None:
    given_rows = rows([good(0, 1), good(10, 2), good(40, 2)])
    assert present(PRESS, NO_SHIFTS, given_rows, at(50)) == Present("delay", at(10), None, reason="unclassified")
    assert present(PRESS, NO_SHIFTS, given_rows, at(300)) == Present("unknown", at(40 + HOLD), "stale")
    assert present(PRESS, NO_SHIFTS, rows(), at(5))[0:3:2] == ("unknown", "not_started")
    assert present(PRESS, SHIFTS, given_rows, at(50)).state == "not_scheduled"


# ------------------------------------------------------------------------------- against a plain reckoning


def second_by_second(status: list[Row], known: int, shifts: bool) -> list[str]:
    """The state in each of ten minutes' seconds, found the slow way from rows at whole seconds."""
    words = ["not_started"] * 600
    for place, (time, value, quality, cause) in enumerate(status):
        begin = (time - MIDNIGHT) // S
        end = (status[place + 1][0] - MIDNIGHT) // S if place + 1 < len(status) else 600
        for second in range(max(0, begin), min(end, 600)):
            if quality == 2:
                words[second] = cause if cause in CAUSES else "bad_quality"
            else:
                words[second] = WORDS.get(value, "unmapped_state") if second < begin + HOLD else "stale"
    words[known:] = ["stale"] * (600 - known)
    first = 0
    while first < 600:
        if words[first] not in ("delay", "down"):
            first += 1
            continue
        last = next((s for s in range(first, 600) if words[s] not in ("delay", "down")), 600)
        around = [words[first - 1] if first else "stale", words[last] if last < 600 else "stale"]
        if last - first < 60 and last < known and not set(around) & set(CAUSES):
            words[first:last] = ["short_stop"] * (last - first)
        first = last
    if shifts:
        for second, word in enumerate(words):
            if word != "producing" and not 120 <= second < 360:
                words[second] = "not_scheduled"
            elif word not in ("producing", *CAUSES) and 180 <= second < 240:
                words[second] = "planned_stop"
    return words


def _timed(values: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Row]]:
    reading = st.tuples(st.integers(0, 599), values)
    return st.lists(reading, max_size=most, unique_by=lambda pair: pair[0]).map(
        lambda pairs: [
            bad(second, value) if isinstance(value, str) else (at(second), value[0], value[1], None)
            for second, value in sorted(pairs, key=lambda pair: pair[0])
        ]
    )


CAUSE = st.sampled_from(["device_offline", "agent_down", "overflow", "illegal_address"])
STATUS = _timed(CAUSE | st.tuples(st.integers(1, 7), st.sampled_from([0, 0, 0, 1])), 40)
COUNT = _timed(CAUSE | st.tuples(st.integers(0, 30), st.just(0)), 40)
CUTS = st.sets(st.integers(1, 599), max_size=12).map(lambda cuts: [0, *sorted(cuts), 600])


@settings(max_examples=150)
@given(status=STATUS, known=st.integers(1, 600), shifts=st.booleans(), cuts=CUTS)
def test_times_of_any_readings_are_those_of_a_reckoning_second_by_second(
    status: list[Row], known: int, shifts: bool, cuts: list[int]
) -> None:
    words = second_by_second(status, known, shifts)
    windows = [(at(start), at(end)) for start, end in pairwise(cuts)]
    found = compute(PRESS, SHIFTS if shifts else NO_SHIFTS, rows(status), windows, at(known))
    for each, (start, end) in zip(found, pairwise(cuts), strict=True):
        reckoned = words[start:end]
        assert {state: ns // S for state, ns in each.times_ns.items() if state != "unknown"} == {
            state: reckoned.count(state) for state in STATES[:-1]
        }
        assert {cause: ns // S for cause, ns in each.missing_ns.items()} == {c: reckoned.count(c) for c in CAUSES}
        assert sum(each.times_ns.values()) == each.end_ns - each.start_ns
        assert sum(milliseconds(list(each.times_ns.values()))) == (each.end_ns - each.start_ns) // 1_000_000
        assert sum(each.missing_ns.values()) == each.times_ns["unknown"]
        assert each.observed_ns + each.times_ns["unknown"] == planned_operation_ns(each.times_ns)


@settings(max_examples=150)
@given(status=STATUS, count=COUNT, rejects=COUNT, cuts=CUTS, shifts=st.booleans())
def test_windows_of_any_partition_sum_to_the_whole(
    status: list[Row], count: list[Row], rejects: list[Row], cuts: list[int], shifts: bool
) -> None:
    calendar = SHIFTS if shifts else NO_SHIFTS
    given_rows = rows(status, count, rejects)
    windows = [(at(start), at(end)) for start, end in pairwise(cuts)]
    *parts, whole = compute(PRESS, calendar, given_rows, [*windows, (at(0), at(600))], at(600))
    for name, total in whole.quantities.items():
        tallies = [part.quantities[name] for part in parts]
        if total is None:
            assert tallies == [None] * len(parts)
        else:
            assert Tally(*map(sum, zip(*(tally for tally in tallies if tally), strict=True))) == total
    for name in ("times_ns", "missing_ns"):
        summed = [sum(values) for values in zip(*(getattr(part, name).values() for part in parts), strict=True)]
        assert summed == list(getattr(whole, name).values())
    assert sum(part.uncertain_ns for part in parts) == whole.uncertain_ns
    produced = whole.quantities["produced"]
    assert produced is not None
    if "produced_corrected" not in whole.flags:
        assert 0 <= produced.unobserved <= produced.total
    assert compute(PRESS, calendar, given_rows, windows, at(600)) == parts


@settings(max_examples=150)
@given(status=STATUS, count=COUNT, cuts=CUTS)
def test_window_from_the_rows_that_it_asks_for_equals_the_window_from_all(
    status: list[Row], count: list[Row], cuts: list[int]
) -> None:
    held = replace(PRESS, counts={"produced": (CounterRules("plc.count", None),)})
    everything = rows(status, count)
    for start, end in pairwise(cuts):
        reach = at(start) - lookback_ns(held)
        before = max((place for place, row in enumerate(status) if row[0] <= reach), default=0)
        earlier = [place for place, row in enumerate(count) if row[0] < at(start) and row[2] < 2]
        since = earlier[-COUNTER_LOOKBACK_READINGS] if len(earlier) >= COUNTER_LOOKBACK_READINGS else 0
        known = min(600, end + held.definition.short_stop_ns // S)
        ahead = [[row for row in own if row[0] < at(known)] for own in (status[before:], count[since:])]
        assert window(rows(*ahead), start, end, held, known=known) == window(everything, start, end, held)


@pytest.mark.parametrize("count", [0, 1])
def test_window_of_a_counter_of_any_width_is_exact(count: int) -> None:
    wide = replace(PRESS, counts={"produced": (CounterRules("plc.count", None),)})
    first = 2**64 - 10
    found = window(rows([good(0, 1)], [good(1, first), good(50, first + count)]), machine=wide)
    assert found.quantities["produced"] == Tally(count)
