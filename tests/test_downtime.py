"""Downtime in windows: how many stops, which of them failures, and the lost time by reason."""

from __future__ import annotations

from itertools import pairwise

import pytest
from test_production import NO_SHIFTS, SHIFTS, S, at, bad, good
from test_stops import CODED, STOPPED, entry, history

from edge_agent.equipment import Row
from edge_agent.production import Downtime, WindowData, compute
from edge_agent.production.downtime import stops_of
from edge_agent.shifts import Calendar


def windows(
    status: list[Row], alarms: list[Row], cuts: list[float], known: float = 600, calendar: Calendar = NO_SHIFTS
) -> list[WindowData]:
    spans = [(at(start), at(end)) for start, end in pairwise(cuts)]
    return compute(CODED, calendar, {"plc.status": status, "plc.alarm": alarms}, spans, at(known))


def test_stop_is_counted_where_it_begins_and_its_time_where_it_is_lost() -> None:
    found = windows(STOPPED, [good(110, 17)], [0, 100, 200, 400])
    assert [each.downtime for each in found] == [
        Downtime(), Downtime(1, 1, {"guard open": 100 * S}), Downtime(0, 0, {"guard open": 100 * S})
    ]  # fmt: skip
    assert [each.kpis.values["mttr_h"] for each in found][1] == pytest.approx(100 / 3600, abs=1e-6)


def test_failure_is_counted_where_the_machine_is_first_down() -> None:
    found = windows(
        [good(0, 1), good(90, 2), good(150, 3), good(160, 2), good(170, 3), good(300, 1)], [], [0, 100, 400]
    )
    assert [(each.downtime.stops, each.downtime.failures) for each in found] == [(1, 0), (0, 1)]


def test_short_stop_is_in_no_reason() -> None:
    (found,) = windows([good(0, 1), good(90, 3), good(140, 1)], [good(90, 17)], [0, 200])
    assert (found.downtime, found.times_ns["short_stop"]) == (Downtime(), 50 * S)


def test_stop_with_a_planned_reason_is_no_stop_and_no_failure() -> None:
    (found,) = windows(STOPPED, [good(110, 30)], [0, 400])
    assert found.downtime == Downtime()
    assert (found.times_ns["planned_stop"], found.times_ns["down"]) == (200 * S, 0)
    assert found.kpis.values["availability"] == 1.0


def test_stop_in_a_break_is_counted_by_what_is_lost_beside_the_break() -> None:
    (found,) = windows([good(0, 1), good(150, 3), good(300, 1)], [good(150, 17)], [0, 400], calendar=SHIFTS)
    assert found.downtime == Downtime(1, 1, {"guard open": 90 * S})
    (covered,) = windows([good(0, 1), good(180, 3), good(240, 1)], [], [0, 400], calendar=SHIFTS)
    assert covered.downtime == Downtime()


def test_stop_that_a_shift_ends_is_two_stops() -> None:
    night = Calendar("UTC", 0, (*SHIFTS.shifts, SHIFTS.shifts[0].of("night", "mon-sun", "00:07", "00:10")))
    (found,) = windows([good(0, 1), good(300, 3)], [], [0, 600], calendar=night)
    assert found.downtime == Downtime(2, 2, {"unclassified": 240 * S})


def test_stop_beside_unknown_time_is_a_stop_of_the_window() -> None:
    (found,) = windows([good(0, 1), bad(100, "agent_down"), good(110, 2), good(120, 1)], [], [0, 200])
    assert found.downtime == Downtime(1, 0, {"unclassified": 10 * S})


def test_stop_says_what_was_in_work_when_it_began() -> None:
    told = [entry(1, "job-start", 50, job="WO-1", product="A"), entry(2, "job-start", 150, job="WO-2")]
    (stop,) = stops_of(history(STOPPED, entries=told))
    assert (stop.job, stop.product) == ("WO-1", "A")
