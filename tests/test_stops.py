"""The stops of a machine: where they begin and end, and why they were."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_production import MIDNIGHT, PRESS, SHIFTS, STATUS, S, at, bad, good, second_by_second

from edge_agent.entries import Entry, Kind
from edge_agent.equipment import LABELS, Row
from edge_agent.equipment.stops import Reason, ReasonRules
from edge_agent.production import History
from edge_agent.production.downtime import StopFact, stops_of
from edge_agent.shifts import Calendar, Shift

CODED = replace(
    PRESS,
    hold_ns={**PRESS.hold_ns, "plc.status": None},
    reasons=ReasonRules(
        "plc.alarm", {17: "guard open", 30: "tool change", "E5": "jam/feeder"}, planned=("tool change",)
    ),
)


def entry(number: int, kind: Kind, start: float, end: float | None = None, **body: Any) -> Entry:
    """What somebody told of [start, end), or of an instant, in seconds."""
    until = at(start if end is None else end)
    return Entry(number, "press-01", kind, "ana", at(900), at(start), until, body)


def history(
    status: list[Row], alarms: list[Row] | None = None, entries: list[Entry] | None = None, known: float = 600,
    calendar: Calendar | None = None,
) -> History:  # fmt: skip
    given_rows = {"plc.status": status, "plc.alarm": alarms or []}
    return History(CODED, calendar or Calendar(), given_rows, (at(0), at(known)), at(known), entries or [])


def spans(found: list[StopFact]) -> list[tuple[float, float | None]]:
    return [
        ((stop.start_ns - MIDNIGHT) / S, None if stop.end_ns is None else (stop.end_ns - MIDNIGHT) / S)
        for stop in found
    ]


def only(found: History) -> StopFact:
    (stop,) = stops_of(found)
    return stop


# ------------------------------------------------------------------------------------------- begin and end


def test_stop_lasts_from_its_first_lost_state_to_its_last() -> None:
    stop = only(history([good(0, 1), good(100, 2), good(150, 3), good(200, 1)]))
    assert spans([stop]) == [(100, 200)]
    assert (stop.state, stop.failure, stop.whole) == ("delay", True, True)
    assert stop.times_ns == {"delay": 50 * S, "down": 50 * S, "planned_stop": 0}


def test_stop_that_is_short_is_none_and_one_as_long_as_the_limit_is_one() -> None:
    status = [good(0, 1), good(100, 2), good(159, 1), good(300, 3), good(360, 1)]
    assert spans(stops_of(history(status))) == [(300, 360)]


def test_stop_that_is_open_is_none_until_it_is_as_long_as_the_limit() -> None:
    status = [good(0, 1), good(100, 2)]
    assert stops_of(history(status, known=159)) == []
    stop = only(history(status, known=160))
    assert (spans([stop]), stop.times_ns) == ([(100, None)], None)


def test_stop_beside_unknown_time_is_one_however_short() -> None:
    stop = only(history([good(0, 1), bad(100, "device_offline"), good(110, 3), good(115, 1)]))
    assert (spans([stop]), stop.whole) == ([(110, 115)], False)


def test_stop_ends_where_not_scheduled_time_begins_and_another_begins_after_it() -> None:
    two = Calendar("UTC", 0, (*SHIFTS.shifts, Shift.of("late", "mon-sun", "00:08", "00:09")))
    found = stops_of(history([good(0, 1), good(300, 3)], calendar=two))
    assert spans(found) == [(300, 360), (480, 540)]
    assert [stop.times_ns and stop.times_ns["down"] for stop in found] == [60 * S, 60 * S]


def test_stop_that_the_schedule_ends_is_seen_whole_whatever_comes_after() -> None:
    status = [good(0, 1), good(300, 3), bad(400, "device_offline")]
    assert [stop.whole for stop in stops_of(history(status, known=380, calendar=SHIFTS))] == [True]
    assert [stop.whole for stop in stops_of(history(status, calendar=SHIFTS))] == [True]
    late = Calendar("UTC", 0, (Shift.of("late", "mon-sun", "00:06", "00:08"),))
    assert [stop.whole for stop in stops_of(history(status, calendar=late))] == [False]


def test_stop_with_a_break_in_it_is_one_and_says_its_time_apart() -> None:
    stop = only(history([good(0, 1), good(150, 2), good(300, 1)], calendar=SHIFTS))
    assert spans([stop]) == [(150, 300)]
    assert stop.times_ns == {"delay": 90 * S, "down": 0, "planned_stop": 60 * S}


def test_stop_that_a_break_covers_is_none() -> None:
    assert stops_of(history([good(0, 1), good(180, 3), good(240, 1)], calendar=SHIFTS)) == []
    told = [entry(1, "planned-stop", 90, 310, reason="cleaning")]
    assert stops_of(history([good(0, 1), good(100, 3), good(300, 1)], entries=told)) == []


# ------------------------------------------------------------------------------------------------- reasons


STOPPED = [good(0, 1), good(100, 3), good(300, 1)]


def test_reason_is_that_of_the_first_known_code_in_the_stop() -> None:
    alarms = [good(0, 0), good(101, 99), good(105, 17), good(110, "E5"), good(300, 30)]
    reason = only(history(STOPPED, alarms)).reason
    assert (reason.name, reason.by, reason.code) == ("guard open", "plc", 17)


def test_reason_of_a_code_that_came_before_the_stop_and_stands_is_its() -> None:
    assert only(history(STOPPED, [good(90, " E5 "), good(200, 17)])).reason.name == "jam/feeder"
    assert only(history(STOPPED, [good(80, 17), good(90, 0)])).reason == Reason()
    assert only(history(STOPPED, [good(80, 17), bad(100, "device_offline")])).reason == Reason()


def test_code_that_the_map_does_not_know_is_kept() -> None:
    reason = only(history(STOPPED, [good(0, 0), good(120, ""), good(130, 99), good(140, 98)])).reason
    assert (reason.name, reason.by, reason.code) == ("unclassified", None, 99)


def test_reason_that_a_person_gives_wins_and_both_are_kept() -> None:
    told = [entry(1, "reason", 50, 100, reason="before"), entry(2, "reason", 299, 400, reason="no operator")]
    reason = only(history(STOPPED, [good(100, 17)], told)).reason
    assert (reason.name, reason.by, reason.plc, reason.code) == ("no operator", "person", "guard open", 17)


def test_reason_that_was_appended_last_wins_until_it_is_withdrawn() -> None:
    told = [entry(1, "reason", 200, 210, reason="first"), entry(2, "reason", 110, reason="second")]
    assert only(history(STOPPED, entries=told)).reason.name == "second"
    assert only(history(STOPPED, entries=told[::-1])).reason.name == "second", "by number, not by place"
    told.append(entry(3, "withdraw", 0, entry=2))
    assert only(history(STOPPED, entries=told)).reason.name == "first"


@pytest.mark.parametrize("by", ["plc", "person"])
def test_reason_that_is_planned_makes_the_stop_planned(by: str) -> None:
    told = [entry(1, "reason", 150, reason="tool change/die 4")] if by == "person" else []
    found = history(STOPPED, [good(100, 30)] if by == "plc" else [], told)
    stop = only(found)
    assert (stop.planned, stop.failure, stop.reason.by) == (True, False, by)
    assert stop.times_ns == {"delay": 0, "down": 0, "planned_stop": 200 * S}
    assert "down" not in {LABELS[label] for label in found.timeline.labels}


# -------------------------------------------------------------------------------- against a plain reckoning


@settings(max_examples=150)
@given(status=STATUS, known=st.integers(1, 600), shifts=st.booleans())
def test_stops_of_any_readings_hold_the_lost_seconds_of_a_reckoning_second_by_second(
    status: list[Row], known: int, shifts: bool
) -> None:
    words = second_by_second(status, known, shifts)
    calendar = SHIFTS if shifts else Calendar()
    found = History(PRESS, calendar, {"plc.status": status}, (at(0), at(600)), at(known))
    # What has only just begun is no stop yet, though its time is lost until it turns out to be short.
    inside = [place for stop in found.stops for place in range(*_seconds(stop.start_ns, stop.end_ns))]
    assert len(inside) == len(set(inside))
    lost = {second for second, word in enumerate(words) if word in ("delay", "down")}
    assert lost <= set(inside)
    assert {words[second] for second in inside} <= {"delay", "down", "planned_stop"}
    for stop in stops_of(found):
        begin, end = _seconds(stop.start_ns, stop.end_ns or at(known))
        reckoned = words[begin:end]
        if stop.times_ns is not None:
            assert {state: ns // S for state, ns in stop.times_ns.items()} == {
                state: reckoned.count(state) for state in ("delay", "down", "planned_stop")
            }
        assert words[begin - 1 : begin] not in (["delay"], ["down"])
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(found.stops))


def _seconds(start_ns: int, end_ns: int) -> tuple[int, int]:
    return (start_ns - MIDNIGHT) // S, (end_ns - MIDNIGHT) // S
