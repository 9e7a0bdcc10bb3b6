"""What is told of a time that is closed: which records are said again, why, and what they replace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agreement import whole_agrees
from desk_bench import DeskBench, clock_time
from fakes import FakeClock
from test_summarizer import NOON

Record = dict[str, Any]
CLOSED = 3_700
"""After noon: the hour is over, and the early shift with it."""
STOP = (600, 900)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeskBench]:
    """A press that stood still from ten to a quarter past twelve, with an alarm code, and the shift is over."""
    made = DeskBench(tmp_path, FakeClock(NOON))
    made.put("plc.alarm", 0, 0)
    made.run(0, STOP[0])
    made.put("plc.alarm", STOP[0], 17)
    made.run(*STOP, status=3)
    made.put("plc.alarm", STOP[1], 0)
    made.run(STOP[1], CLOSED)
    await made.close_at(CLOSED)
    yield made
    await made.thread.close()


async def told(bench: DeskBench, kind: str, **given: Any) -> list[Record]:
    """The records of the press that an entry leads to, its own aside; each agrees with its schema."""
    before = len(bench.events())
    await bench.tell(kind, **given)
    now = (bench.clock.now() - NOON) / 1e9
    for seconds in (6, 70, 140):
        await bench.close_at(now + seconds)
    new = bench.events()[before:]
    for event in new:
        whole_agrees(event)
    assert [event["type"] for event in new].count("edge.entry.v1") == 1
    data = [event["data"] for event in new if event["data"]["machine"] == "press"]
    return [one for one in data if one["revision"] or "/job/" in one["key"]]


def names(records: list[Record]) -> list[str]:
    """What each record is of: its window, `downtime` or `job`, and when it starts."""
    return sorted(f"{one['key'].split('/press/')[1]}" for one in records)


def window(records: list[Record], size: str) -> Record:
    (found,) = [one for one in records if one.get("window") == size]
    return found


def closed(bench: DeskBench, size: str) -> Record:
    """The last word on the window of a size that has the stop in it."""
    at = {"1h": "2026-11-23T12:00:00Z", "shift": "2026-11-23T05:00:00Z"}[size]
    return bench.truth(size)[f"acme/lyon/hall/a/press/production/{size}/{at}"]


HOUR, SHIFT = "production/1h/2026-11-23T12:00:00Z", "production/shift/2026-11-23T05:00:00Z"
MINUTES = [f"production/1min/{clock_time(second)}" for second in range(*STOP, 60)]
DOWNTIME = f"downtime/{clock_time(STOP[0])}"


async def test_scrap_of_a_closed_shift_is_a_revision_of_its_windows_with_what_they_replace(bench: DeskBench) -> None:
    before = closed(bench, "shift")["quantity"]
    revised = await told(bench, "scrap", at=1_830, count=7, reason="dimension/too long")
    assert names(revised) == sorted([f"production/1min/{clock_time(1_800)}", HOUR, SHIFT])
    assert {(one["revision"], one["revised_because"]) for one in revised} == {(1, "entry")}
    shift = window(revised, "shift")
    assert shift["previous"]["quantity"] == before
    assert shift["quantity"]["produced"] == before["produced"]
    assert (shift["quantity"]["good"], shift["quantity"]["scrap"]) == (before["good"] - 7, 7)
    assert window(revised, "1min")["previous"]["quantity"]["scrap"] == 0


async def test_scrap_that_is_withdrawn_is_good_again(bench: DeskBench) -> None:
    before = closed(bench, "shift")["quantity"]
    await told(bench, "scrap", at=1_830, count=7)
    revised = await told(bench, "withdraw", entry=1)
    assert {one["revision"] for one in revised} == {2}
    assert window(revised, "shift")["quantity"] == before
    assert window(revised, "shift")["previous"]["quantity"]["scrap"] == 7


async def test_reason_of_a_person_wins_over_the_plc_and_both_are_kept(bench: DeskBench) -> None:
    (first,) = [one for one in bench.last("downtime") if one["machine"] == "press"]
    assert (first["reason"], first["reason_by"]) == ("hydraulics/low pressure", "plc")
    revised = await told(bench, "reason", at=700, until=710, reason="guard open")
    assert names(revised) == sorted([DOWNTIME, HOUR, SHIFT]), "no window under an hour"
    (stop,) = [one for one in revised if "/downtime/" in one["key"]]
    assert (stop["reason"], stop["reason_by"], stop["planned"]) == ("guard open", "person", False)
    assert stop["plc"] == {"code": 17, "reason": "hydraulics/low pressure"}
    assert (stop["person"]["by"], stop["person"]["reason"]) == ("ann", "guard open")
    assert stop["previous"]["reason"] == "hydraulics/low pressure"
    assert stop["time_s"] == first["time_s"]
    shift = window(revised, "shift")
    assert shift["time_s"] == shift["previous"]["time_s"]
    assert shift["downtime"]["by_reason_s"] == {"guard open": 300.0}


@pytest.mark.parametrize("kind", ["reason", "planned-stop"])
async def test_stop_that_turns_out_to_be_planned_changes_times_and_so_the_short_windows(
    bench: DeskBench, kind: str
) -> None:
    revised = await told(bench, kind, at=STOP[0], until=STOP[1], reason="planned/retooling")
    assert {HOUR, SHIFT, *MINUTES} <= set(names(revised))
    assert len([one for one in revised if one.get("window") == "1min"]) == len(MINUTES)
    for one in revised:
        if "window" in one:
            assert one["revised_because"] == "entry"
            assert one["time_s"]["down"] == 0.0
            assert one["time_s"]["planned_stop"] == one["previous"]["time_s"]["down"] > 0
    (stop,) = [one for one in revised if "/downtime/" in one["key"]]
    assert stop["planned"] or stop["withdrawn"]


async def test_planned_stop_leaves_what_was_produced_in_it(bench: DeskBench) -> None:
    before = closed(bench, "1h")
    revised = await told(bench, "planned-stop", at=1_800, until=2_400)
    after = closed(bench, "1h")
    assert (after["time_s"], after["quantity"]) == (before["time_s"], before["quantity"])
    assert all("producing_outside_plan" in one["flags"] for one in revised)


async def test_reason_for_a_time_without_a_stop_changes_nothing(bench: DeskBench) -> None:
    assert await told(bench, "reason", at=1_800, until=2_400, reason="guard open") == []


async def test_note_changes_nothing(bench: DeskBench) -> None:
    assert await told(bench, "note", at=700, text="new seal on the ram") == []


async def test_correction_changes_what_was_produced_and_is_good(bench: DeskBench) -> None:
    before = closed(bench, "1h")["quantity"]
    revised = await told(bench, "correction", at=700, count=-5)
    after = window(revised, "1h")["quantity"]
    assert (after["produced"], after["good"]) == (before["produced"] - 5, before["good"] - 5)


async def test_job_that_is_told_afterwards_gets_its_record_and_its_window(bench: DeskBench) -> None:
    started = await told(bench, "job-start", at=600, job="WO-1", product="A", planned_quantity=2_000)
    (job,) = [one for one in started if "/press/job/" in one["key"]]
    assert (job["job"], job["open"], job["start"], job["started_by"]) == ("WO-1", True, clock_time(600), "ann")
    ended = await told(bench, "job-end", at=1_800, by="bob")
    (job,) = [one for one in ended if one["key"] == job["key"]]
    assert (job["open"], job["end"], job["ended_by"]) == (False, clock_time(1_800), "bob")
    assert job["revised_because"] == "ended"
    assert job["quantity"]["produced"] == 900
    assert job["time_s"]["down"] == 300.0
    whole = window(ended, "job")
    assert (whole["start"], whole["end"]) == (clock_time(600), clock_time(1_800))
    assert whole["quantity"]["produced"] == 900


async def test_job_that_is_withdrawn_ceases(bench: DeskBench) -> None:
    await told(bench, "job-start", at=600, job="WO-1")
    revised = await told(bench, "withdraw", entry=1)
    (job,) = [one for one in revised if "/press/job/" in one["key"]]
    assert job["withdrawn"] is True
    assert job["revised_because"] == "entry"


async def test_counter_that_was_replaced_makes_no_parts_of_the_jump(tmp_path: Path) -> None:
    bench = DeskBench(tmp_path, FakeClock(NOON))
    bench.run(0, 600)
    bench.made = 100
    bench.run(600, CLOSED)
    await bench.close_at(CLOSED)
    assert closed(bench, "1h")["quantity"]["produced"] == 590 + 110 + 2_990, "a reset: what it shows is new"
    revised = await told(bench, "counter-replaced", at=595, tag="plc.count", value=90)
    assert window(revised, "1h")["quantity"]["produced"] == 590 + 20 + 2_990
    await bench.thread.close()


async def test_entry_that_is_told_just_before_a_kill_is_looked_at_after_it(bench: DeskBench, tmp_path: Path) -> None:
    await bench.tell("scrap", at=1_830, count=7)
    await bench.thread.call(bench.store.close)  # nothing is flushed, nothing is said: the process is gone
    bench.thread._executor.shutdown()
    second = DeskBench(tmp_path, bench.clock)
    try:
        await second.thread.call(second.summarizer._recall)
        await second.close_at(CLOSED + 70)
        assert closed(second, "shift")["quantity"]["scrap"] == 7
        assert closed(second, "shift")["revised_because"] == "entry"
        assert [one["entry"] for one in second.of("entry")] == [1]
    finally:
        bench.thread = second.thread  # which the fixture closes
