"""The retained state of a machine: what it does and why, what it works on, and what it has made so far."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from desk_bench import CONFIG, DeskBench, clock_time
from fakes import FakeClock, S
from test_summarizer import NOON

from edge_agent import record
from edge_agent.timestamps import parse

HOUR = 3_600
SHIFT_BEGAN = "2026-11-23T05:00:00Z"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeskBench]:
    made = DeskBench(tmp_path, FakeClock(NOON), CONFIG)
    made.put("plc.alarm", 0, 0)
    yield made
    await made.thread.close()


async def state_at(bench: DeskBench, seconds: float, machine: str = "press") -> dict[str, Any]:
    """What the broker keeps of a machine when everybody has looked at that time; each event agrees with its schema."""
    await bench.close_at(seconds)
    await bench.summarizer.states.tell()
    for _, event, expiry in bench.told.latest:
        jsonschema.validate(event, record.envelope_schema("state"))
        assert expiry == 180
    data: dict[str, Any] = [event["data"] for _, event, _ in bench.told.latest if event["data"]["machine"] == machine][
        -1
    ]
    return data


async def test_state_has_what_was_made_in_the_shift_and_how_far_behind_it_is(bench: DeskBench) -> None:
    bench.run(0, 610)
    data = await state_at(bench, 605)
    assert (data["state"], data["shift"], data["reason"], data["job"], data["work"]) == (
        "producing", "early", None, None, None
    )  # fmt: skip
    counts, pace = data["counts"], data["pace"]
    assert (counts["since"], counts["produced"], counts["good"], counts["scrap"]) == (SHIFT_BEGAN, 590, 590, 0), (
        "up to five seconds ago"
    )
    assert pace["goal_per_h"] == 3_600.0
    expected = (NOON - parse(SHIFT_BEGAN)) // 10**9 + 600
    assert (pace["expected"], pace["ahead"]) == (expected, 590 - expected)


async def test_counts_go_on_from_state_to_state_and_begin_anew_with_the_shift(bench: DeskBench) -> None:
    bench.run(0, HOUR + 200)
    counts = [(await state_at(bench, second))["counts"] for second in (65, 130, 195, HOUR + 130)]
    assert [one["produced"] for one in counts] == [50, 120, 180, 130]
    assert [one["since"] for one in counts] == [SHIFT_BEGAN] * 3 + ["2026-11-23T13:00:00Z"]


async def test_scrap_that_is_told_is_in_the_next_state(bench: DeskBench) -> None:
    bench.run(0, 900)
    assert (await state_at(bench, 600))["counts"]["scrap"] == 0
    await bench.tell("scrap", at=100, count=4)
    data = await state_at(bench, 661)
    assert (data["counts"]["scrap"], data["counts"]["good"]) == (4, data["counts"]["produced"] - 4)


async def test_reason_of_the_stop_that_goes_on_is_the_plcs_until_a_person_says_another(bench: DeskBench) -> None:
    bench.run(0, 100)
    bench.put("plc.alarm", 100, 17)
    bench.run(100, 400, status=3)
    data = await state_at(bench, 200)
    assert (data["state"], data["since"], data["reason"]) == ("down", clock_time(100), "hydraulics/low pressure")
    await bench.tell("reason", reason="guard open")
    await state_at(bench, 201)
    await state_at(bench, 210)
    data = await state_at(bench, 300)
    assert (data["state"], data["since"], data["reason"]) == ("down", clock_time(100), "guard open")
    bench.put("plc.alarm", 400, 0)
    bench.run(400, 500)
    data = await state_at(bench, 480)
    assert (data["state"], data["reason"]) == ("producing", None)


async def test_planned_stop_that_is_told_of_a_machine_that_stands_is_its_state(bench: DeskBench) -> None:
    bench.run(0, 100)
    bench.run(100, 400, status=2)
    assert (await state_at(bench, 200))["state"] == "delay"
    await bench.tell("planned-stop", at=150, until=HOUR)
    data = await state_at(bench, 280)
    assert (data["state"], data["reason"]) == ("planned_stop", None)


async def test_state_has_the_job_that_was_told_and_when_it_will_be_done(bench: DeskBench) -> None:
    bench.run(0, 1_300)
    await bench.close_at(600)
    await bench.tell("job-start", at=600, job="WO-1", product="A100", planned_quantity=1_000)
    await bench.close_at(640)
    data = await state_at(bench, 705)
    assert (data["job"], data["product"], data["since"]) == ("WO-1", "A100", clock_time(0))
    work = data["work"]
    assert (work["job"], work["start"], work["planned_quantity"]) == ("WO-1", clock_time(600), 1_000)
    assert (work["good"], work["remaining"]) == (100, 900)
    assert work["expected_end"] == clock_time(705 + 900)
    await bench.close_at(1_200)
    await bench.tell("job-end", at=1_200)
    data = await state_at(bench, 1_270)
    assert (data["job"], data["product"], data["work"]) == (None, None, None)


async def test_state_has_the_job_of_a_tag(bench: DeskBench) -> None:
    for second in range(0, 700, 10):
        bench.put("plc.status", second, 1)
        bench.put("plc.count", second, second)
        bench.put("plc.rejects", second, 0 if second < 300 else 4_711)
    assert (await state_at(bench, 200, "saw"))["job"] is None
    await bench.close_at(400)
    data = await state_at(bench, 605, "saw")
    assert data["job"] == "4711"
    assert (data["work"]["start"], data["work"]["good"]) == (clock_time(300), 300)
    assert data["work"]["expected_end"] is None


async def test_state_of_a_machine_that_nobody_sees_is_unknown_and_says_why(bench: DeskBench) -> None:
    bench.run(0, 100)
    for tag in ("plc.status", "plc.count", "plc.rejects", "plc.alarm"):
        bench.put(tag, 100, None, "device_offline")
    data = await state_at(bench, 200)
    assert (data["state"], data["cause"], data["since"]) == ("unknown", "device_offline", clock_time(100))
    assert data["counts"]["produced"] == 90


async def test_state_that_cannot_be_told_stops_no_other_and_is_said_once_a_minute(
    bench: DeskBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.run(0, 100, step=1)
    await bench.thread.flush()
    key = "acme/lyon/hall/a/press/downtime/2026-11-23T12:00:00Z"
    bench.store._connection.execute(
        "INSERT INTO record (epoch, number, type, key, revision, topic, sequence, issued, payload) "
        "VALUES (1, 999, 'downtime', ?, 0, 't', 1, 0, ?)",
        (key, b"damaged"),
    )
    for second in range(1, 91):
        await bench.clock.advance(second - (bench.clock.now() - NOON) / S)
        await bench.summarizer.states.tell()
    assert {event["data"]["machine"] for _, event, _ in bench.told.latest} == {"saw"}
    said = [line.getMessage() for line in caplog.records if "could not be told" in line.getMessage()]
    assert said == ["press: the state could not be told; trying again in a minute"] * 2
