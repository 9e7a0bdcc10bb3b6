"""States from the readings of a status tag; steps from the readings of a counter."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.equipment import (
    LABELS,
    CounterRules,
    Row,
    Step,
    Timeline,
    apply_schedule,
    coverage,
    mark_short_stops,
    open_stop_since,
    state_timeline,
    steps,
)

S = 1_000_000_000
WORDS = {1: "producing", 2: "delay", 3: "down", 4: "setup", 5: "planned_stop", 6: "idle", 7: "not_scheduled"}
GOOD, UNCERTAIN, BAD = 0, 1, 2


def good(seconds: float, value: Any) -> Row:
    return (int(seconds * S), value, GOOD, None)


def bad(seconds: float, cause: str | None) -> Row:
    return (int(seconds * S), None, BAD, cause)


def spans(timeline: Timeline) -> list[tuple[float, str]]:
    """Begin in seconds and word of each run of equal labels, then the end."""
    words = [LABELS[label] for label in timeline.labels.tolist()]
    begins = (timeline.edges / S).tolist()
    runs = [(begins[i], word) for i, word in enumerate(words) if not i or word != words[i - 1]]
    return [*runs, (begins[-1], "end")]


def states(*rows: Row, hold: float | None = None, until: float = 100, offline: str = "unknown") -> Timeline:
    hold_ns = None if hold is None else int(hold * S)
    return state_timeline(rows, WORDS, hold_ns, (0, 100 * S), int(until * S), offline)


# ------------------------------------------------------------------------------------------------- states


def test_state_before_the_first_reading_is_not_started_and_after_the_hold_is_stale() -> None:
    assert spans(states(good(10, 1), good(20, 1), good(60, 4), hold=15)) == [
        (0, "not_started"), (10, "producing"), (35, "stale"), (60, "setup"), (75, "stale"), (100, "end"),
    ]  # fmt: skip


def test_state_of_bad_readings_keeps_the_cause_until_the_next_reading() -> None:
    causes = ("device_offline", "agent_down", "overflow", "misconfigured", "stale", "not_started")
    rows = [bad(10 * place, cause) for place, cause in enumerate((*causes, "illegal_data_address", None))]
    assert [word for _, word in spans(states(*rows, hold=1))] == [*causes, "bad_quality", "end"]


def test_state_after_what_is_known_is_stale_although_a_row_is_there() -> None:
    assert spans(states(good(0, 1), good(60, 3), until=50)) == [(0, "producing"), (50, "stale"), (100, "end")]


@pytest.mark.parametrize(
    ("value", "word"),
    [(1, "producing"), (1.0, "producing"), (True, "producing"), ("1", "unmapped_state"), (1.5, "unmapped_state"),
     (float("nan"), "bad_quality"), (b"\x01", "unmapped_state"), ((1,), "unmapped_state"), (None, "bad_quality")],
)  # fmt: skip
def test_state_of_a_value_is_mapped_by_number_or_exact_text(value: Any, word: str) -> None:
    assert spans(states(good(0, value)))[0] == (0, word)


def test_state_of_an_offline_device_is_what_the_machine_says_it_means() -> None:
    rows = (good(0, 1), bad(10, "device_offline"), bad(20, "agent_down"))
    assert spans(states(*rows, offline="down"))[1:3] == [(10, "down"), (20, "agent_down")]


def test_state_of_uncertain_readings_is_used_and_marked() -> None:
    timeline = states(good(0, 1), (10 * S, 3, UNCERTAIN, "sensor"), good(30, 1))
    assert spans(timeline)[1] == (10, "down")
    assert timeline.uncertain.tolist() == [False, True, False]


def test_coverage_of_two_readings_at_one_time_takes_the_later_one() -> None:
    edges, index = coverage([good(1, 1), good(1, 2)], None, (0, 2 * S), 2 * S)
    assert (edges.tolist(), index.tolist()) == ([0, S, 2 * S], [-1, 1])


# -------------------------------------------------------------------------------------------------- stops


def short(*rows: Row, until: float = 100) -> list[tuple[float, str]]:
    return spans(mark_short_stops(states(*rows, until=until), 20 * S, int(until * S)))


def test_stop_of_delay_and_down_together_is_short_below_the_limit() -> None:
    assert short(good(0, 1), good(10, 2), good(20, 3), good(29.999, 1)) == [
        (0, "producing"), (10, "short_stop"), (29.999, "producing"), (100, "end"),
    ]  # fmt: skip


def test_stop_as_long_as_the_limit_is_not_short() -> None:
    assert short(good(0, 1), good(10, 2), good(30, 1))[1] == (10, "delay")


@pytest.mark.parametrize(
    "rows", [(bad(0, "agent_down"), good(10, 3), good(15, 1)), (good(0, 1), good(10, 3), bad(15, None))]
)
def test_stop_that_touches_unknown_is_never_short(rows: tuple[Row, ...]) -> None:
    assert (10, "down") in short(*rows)


def test_stop_interrupted_by_unknown_is_two_runs_and_neither_is_short() -> None:
    words = [word for _, word in short(good(0, 1), good(10, 3), bad(12, None), good(14, 3), good(16, 1))]
    assert words == ["producing", "down", "bad_quality", "down", "producing", "end"]


def test_stop_that_is_open_is_provisionally_not_short_and_is_named() -> None:
    rows = (good(0, 1), good(90, 2))
    assert short(*rows)[1] == (90, "delay")
    assert open_stop_since(states(*rows), 20 * S, 100 * S) == 90 * S
    assert open_stop_since(states(*rows), 10 * S, 100 * S) is None
    assert open_stop_since(states(*rows, until=95), 20 * S, 95 * S) == 90 * S
    assert open_stop_since(states(good(0, 1), bad(85, None), good(90, 2)), 20 * S, 100 * S) is None


# ----------------------------------------------------------------------------------------------- schedule


def test_schedule_outside_shifts_beats_all_but_producing() -> None:
    timeline = states(good(0, 3), bad(20, None), good(40, 1), good(60, 4))
    planned = apply_schedule(timeline, [(50 * S, 70 * S)], [])
    assert spans(planned) == [
        (0, "not_scheduled"), (40, "producing"), (60, "setup"), (70, "not_scheduled"), (100, "end"),
    ]  # fmt: skip
    outside = [
        span for span, marked in zip(pairwise(planned.edges.tolist()), planned.outside_plan, strict=True) if marked
    ]
    assert outside == [(40 * S, 50 * S)]


def test_schedule_in_a_break_is_a_planned_stop_but_unknown_and_producing_stay() -> None:
    timeline = states(good(0, 1), good(10, 3), bad(20, None), good(30, 7), good(40, 6))
    assert spans(apply_schedule(timeline, None, [(5 * S, 50 * S)])) == [
        (0, "producing"), (10, "planned_stop"), (20, "bad_quality"), (30, "not_scheduled"), (40, "planned_stop"),
        (50, "idle"), (100, "end"),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------- counters


def counted(*rows: Row, hold: float | None = None, **rules: Any) -> list[Step]:
    made = CounterRules("d.c", rules.pop("max_rate", Fraction(2)), **rules)
    return steps(rows, made, None if hold is None else int(hold * S), 10**9 * S)


def items(*rows: Row, **rules: Any) -> list[tuple[int, int, tuple[str, ...]]]:
    return [(step.items, step.quarantined, step.flags) for step in counted(*rows, **rules)]


def test_counter_rises_are_steps_and_the_first_reading_is_none() -> None:
    assert items(good(0, 100), good(1, 101), good(2, 101), good(3, 103)) == [(1, 0, ()), (2, 0, ())]


def test_counter_step_is_dated_by_the_readings_around_it() -> None:
    step = counted(good(0, 100), good(1, 100), good(2, 101))[0]
    assert (step.since_ns, step.time_ns) == (S, 2 * S)


def test_counter_that_falls_to_zero_is_reset() -> None:
    assert items(good(0, 100), good(1, 0), good(2, 1)) == [(0, 0, ("reset",)), (1, 0, ())]


def test_counter_after_a_reset_counts_the_new_value_or_drops_it() -> None:
    rows = (good(0, 100), good(5, 7), good(6, 8))
    assert items(*rows) == [(7, 0, ("reset",)), (1, 0, ())]
    assert items(*rows, reset="drop") == [(0, 0, ("reset",)), (1, 0, ())]


def test_counter_with_an_implausible_value_after_a_fall_makes_no_parts() -> None:
    torn = (good(0, 70_000), good(1, 4_464), good(2, 70_002))
    assert items(*torn) == [(0, 0, ("held",)), (2, 0, ())]


@pytest.mark.parametrize("fall", [1, 2])
def test_counter_that_falls_by_one_or_two_is_corrected(fall: int) -> None:
    assert items(good(0, 100), good(1, 100 - fall), good(2, 100)) == [(-fall, 0, ("corrected",)), (fall, 0, ())]


def test_counter_that_falls_by_three_is_reset() -> None:
    assert items(good(0, 5), good(1, 2)) == [(2, 0, ("reset",))]
    assert items(good(0, 100), good(1, 97)) == [(0, 0, ("held",))]


def test_counter_wraps_at_its_rollover_also_to_zero() -> None:
    assert items(good(0, 65_535), good(1, 1), rollover=65_536) == [(2, 0, ("wrapped",))]
    assert items(good(0, 65_535), good(1, 0), rollover=65_536) == [(1, 0, ("wrapped",))]


def test_counter_without_a_rollover_never_wraps() -> None:
    assert items(good(0, 65_535), good(1, 1)) == [(1, 0, ("reset",))]


def test_counter_that_may_have_gone_half_round_is_reset_not_wrapped() -> None:
    assert items(good(0, 90), good(25, 5), rollover=100) == [(5, 0, ("reset",))]
    assert items(good(0, 90), good(24, 5), rollover=100) == [(15, 0, ("wrapped",))]


def test_counter_reset_in_a_gap_is_ambiguous() -> None:
    assert items(good(0, 90), bad(1, "device_offline"), good(60, 5)) == [(5, 0, ("reset", "ambiguous"))]
    assert items(good(0, 90), good(60, 5), hold=10) == [(5, 0, ("reset", "ambiguous"))]


def test_counter_rise_over_a_gap_that_fits_a_whole_turn_is_ambiguous() -> None:
    assert items(good(0, 90), bad(1, None), good(60, 95), rollover=100) == [(5, 0, ("ambiguous",))]
    assert items(good(0, 90), bad(1, None), good(40, 95), rollover=100) == [(5, 0, ())]


def test_counter_that_jumps_and_returns_made_nothing() -> None:
    assert items(good(0, 100), good(1, 9_999), good(2, 101)) == [(0, 0, ("held",)), (1, 0, ())]


def test_counter_that_jumps_and_stays_is_quarantined_after_three_readings() -> None:
    rows = [good(0, 100), good(1, 500), good(2, 501), good(3, 502)]
    assert items(*rows) == [(0, 0, ("held",))]
    found = counted(*rows, good(4, 503), good(5, 504))
    assert [(step.items, step.quarantined, step.time_ns // S) for step in found] == [
        (0, 0, 1), (0, 400, 4), (1, 0, 4), (1, 0, 4), (1, 0, 4), (1, 0, 5),
    ]  # fmt: skip


def test_counter_slower_than_its_refresh_may_move_just_after_one() -> None:
    assert items(good(0, 7), good(60, 7), good(60.5, 8), max_rate=Fraction(1, 20)) == [(1, 0, ())]


def test_counter_wider_than_a_double_is_exact() -> None:
    top = 2**64
    assert items(good(0, top - 2), good(1, top - 1), good(2, 0), rollover=top) == [(1, 0, ()), (1, 0, ("wrapped",))]


def test_counter_of_several_items_multiplies_steps_and_jumps() -> None:
    rows = (good(0, 0), good(2, 1), *(good(3 + place, 1_001) for place in range(4)))
    found = counted(*rows, items_per_count=4)
    assert (sum(step.items for step in found), sum(step.quarantined for step in found)) == (4, 4_000)


def test_counter_values_that_are_no_counts_are_gaps() -> None:
    found = counted(good(0, 5), good(1, 5.5), good(2, "6"), good(3, -1), good(4, True), good(5, 6.0))
    assert [(step.items, step.gap) for step in found] == [(1, True)]


def test_counter_that_returns_from_a_jump_keeps_the_gap_before_the_jump() -> None:
    found = counted(good(0, 100), bad(1, None), good(2, 9_999), good(3, 101))
    assert [(step.since_ns, step.items, step.gap) for step in found] == [(0, 0, True), (0, 1, True)]


def test_counter_reading_that_is_uncertain_counts() -> None:
    assert items(good(0, 5), (S, 6, UNCERTAIN, "x")) == [(1, 0, ())]


@given(
    made=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), max_size=60),
    start=st.integers(0, 999),
    cut=st.integers(0, 60),
)
def test_counter_within_its_rate_counts_every_part_over_all_rollovers(
    made: list[tuple[int, int]], start: int, cut: int
) -> None:
    rows, now, total = [good(0, start)], 0, 0
    for seconds, parts in made:
        now, total = now + seconds, total + min(parts, seconds)
        rows.append(good(now, (start + total) % 1_000))
    found = counted(*rows, max_rate=Fraction(3), rollover=1_000)
    assert sum(step.items for step in found) == total
    earlier = [step for step in found if step.time_ns < cut * S]
    assert steps(rows, CounterRules("d.c", Fraction(3), 1_000), None, cut * S) == earlier


@given(
    made=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), min_size=20, max_size=60),
    glitches=st.sets(st.integers(0, 9)),
    value=st.integers(0, 99_999),
    start=st.integers(1, 11),
)
def test_counter_from_eight_readings_back_has_the_steps_of_the_whole_history(
    made: list[tuple[int, int]], glitches: set[int], value: int, start: int
) -> None:
    rows, now, total = [], 0, 5_000
    for place, (seconds, parts) in enumerate(made):
        now, total = now + seconds, total + min(parts, seconds)
        # A wrong reading now and then, six good ones between two of them.
        rows.append(good(now, value if place % 6 == 0 and place // 6 in glitches else total))
    since = rows[start + 7][0]
    everything = [step for step in counted(*rows, max_rate=Fraction(3)) if step.time_ns > since]
    assert [step for step in counted(*rows[start:], max_rate=Fraction(3)) if step.time_ns > since] == everything


ANY_COUNTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 300) | st.none()), max_size=40)


@given(ANY_COUNTS)
def test_counter_of_any_readings_makes_no_more_than_its_rate_allows(readings: list[tuple[int, int | None]]) -> None:
    rows, now = [], 0
    for seconds, value in readings:
        now += seconds
        rows.append(bad(now, None) if value is None else good(now, value))
    found = counted(*rows, rollover=256)
    for step in found:
        most = max(1, 2 * (step.time_ns - step.since_ns) // S)
        assert -2 <= step.items <= most
        assert step.quarantined >= 0
    assert [step.time_ns for step in found] == sorted(step.time_ns for step in found)
