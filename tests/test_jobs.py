"""Jobs as records of their own: through a real store and the summarizer, on a clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agreement import agree
from fakes import FakeClock
from floor import BY_PERSON, BY_TAG, Floor, clock_times, configured, of
from test_summarizer import NOON


@pytest.fixture
async def floor(tmp_path: Path) -> AsyncIterator[Floor]:
    made = Floor(tmp_path / "data", configured(tmp_path / "config", BY_TAG), FakeClock(NOON))
    yield made
    if not made.killed:
        await made.thread.close()


# --------------------------------------------------------------------------------------------------- jobs


def sums(floor: Floor, start: str, end: str) -> tuple[int, float]:
    """Produced and producing time of the ten seconds between two times of the day."""
    inside = [data for data in floor.truth("10s").values() if start <= data["start"][11:19] < end]
    return (
        sum(data["quantity"]["produced"] for data in inside),
        round(sum(data["time_s"]["producing"] for data in inside), 3),
    )


async def test_job_of_a_tag_is_published_when_it_begins_and_with_its_figures_when_it_ends(floor: Floor) -> None:
    floor.run(0, 200)
    floor.put("plc.order", 0, 0)
    floor.put("plc.order", 30, 4711)
    (opened,) = of(await floor.until(40), "job")
    assert (opened["job"], opened["open"], opened["quantity"], opened["started_by"]) == ("4711", True, None, "tag")
    floor.put("plc.order", 90, 4712)
    floor.put("plc.order", 120, 0)
    issued = await floor.until(200)
    assert clock_times(floor.facts("job")) == [("12:00:30", "12:01:30"), ("12:01:30", "12:02:00")]
    ended = floor.facts("job")[0]
    assert (ended["key"], ended["revision"], ended["revised_because"]) == (opened["key"], 1, "ended")
    assert (ended["quantity"]["produced"], ended["time_s"]["producing"]) == sums(floor, "12:00:30", "12:01:30")
    windows = [data for data in issued if data.get("window") == "job"]
    assert [(data["job"], data["quantity"]["produced"], data["key"][-20:]) for data in windows] == [
        ("4711", 60, "2026-11-23T12:00:30Z"), ("4712", 30, "2026-11-23T12:01:30Z")
    ]  # fmt: skip
    agree(windows[0], "production")


async def test_late_reading_in_a_job_that_is_over_revises_its_figures(floor: Floor) -> None:
    floor.put("plc.order", 0, 0)
    floor.put("plc.order", 10, 1)
    floor.run(0, 4_000)
    floor.put("plc.order", 3_600, 0)
    for second in range(100, 3_600, 60):
        floor.put("plc.order", second, 1)
    await floor.until(4_000, step=60)
    (job,) = floor.facts("job")
    floor.put("plc.status", 100.25, 3)
    floor.put("plc.status", 100.75, 1)
    revised = [data for data in await floor.until(4_100) if data["revision"]]
    assert {data.get("window", "job record") for data in revised} == {"10s", "1min", "1h", "job", "job record"}
    (again,) = floor.facts("job")
    assert (again["key"], again["previous"]["time_s"], again["revised_because"]) == (
        job["key"], job["time_s"], "late_reading"
    )  # fmt: skip
    assert again["time_s"]["short_stop"] == 0.5


async def test_job_in_work_stays_when_a_late_reading_comes_near_its_begin(floor: Floor) -> None:
    floor.put("plc.order", 0, 0)
    floor.put("plc.order", 30, 7)
    floor.run(0, 100)
    await floor.until(60)
    floor.put("plc.status", 31.5, 3)
    floor.put("plc.status", 31.6, 1)
    await floor.until(160)
    (job,) = floor.facts("job", withdrawn=True)
    assert (job["revision"], job["open"], job["withdrawn"]) == (0, True, False)


async def test_job_keeps_its_key_when_its_begin_moves_and_its_window_too(floor: Floor) -> None:
    floor.put("plc.order", 0, 0)
    floor.put("plc.order", 30, 7)
    floor.put("plc.order", 60, 0)
    floor.run(0, 100)
    await floor.until(100)
    (job,) = floor.facts("job")
    floor.put("plc.order", 20, 7)
    floor.run(100, 200)
    await floor.until(200)
    (moved,) = floor.facts("job", withdrawn=True)
    assert (moved["key"], moved["start"][11:], moved["revision"]) == (job["key"], "12:00:20Z", 2)
    (window,) = floor.truth("job").values()
    assert (window["key"][-20:], window["start"][11:], window["quantity"]["produced"]) == (
        "2026-11-23T12:00:30Z", "12:00:20Z", 40
    )  # fmt: skip
    floor.put("plc.order", 25, 0)
    floor.run(200, 300)
    await floor.until(300)
    assert clock_times(floor.facts("job")) == [("12:00:20", "12:00:25"), ("12:00:30", "12:01:00")]
    assert sorted((data["start"][17:19], data["quantity"]["produced"]) for data in floor.truth("job").values()) == [
        ("20", 5), ("30", 30)
    ]  # fmt: skip


async def test_job_that_turns_out_to_be_another_is_withdrawn_with_its_window(floor: Floor) -> None:
    floor.put("plc.order", 0, 0)
    floor.run(0, 100)
    floor.put("plc.order", 30, 7)
    floor.put("plc.order", 60, 0)
    await floor.until(100)
    floor.put("plc.order", 30, 0)
    floor.run(100, 200)
    await floor.until(200)
    (job,) = floor.facts("job", withdrawn=True)
    assert (job["withdrawn"], job["revision"], job["previous"]["quantity"]["produced"]) == (True, 2, 30)
    (window,) = floor.truth("job").values()
    assert (window["withdrawn"], window["revision"]) == (True, 1)
    floor.put("plc.order", 30, 8)
    floor.run(200, 300)
    await floor.until(300)
    (job,) = floor.facts("job")
    assert (job["job"], job["revision"]) == ("8", 3)
    (window,) = floor.truth("job").values()
    assert (window["withdrawn"], window["revision"], window["job"]) == (False, 2, "8")


async def test_job_that_goes_on_after_all_is_open_again_and_its_window_is_taken_back(floor: Floor) -> None:
    floor.put("plc.order", 0, 7)
    floor.put("plc.order", 60, 0)
    floor.run(0, 100)
    await floor.until(100)
    assert len(floor.truth("job")) == 1
    floor.put("plc.order", 60, 7)
    floor.run(100, 200)
    await floor.until(200)
    (job,) = floor.facts("job")
    assert (job["open"], job["end"], job["quantity"]) == (True, None, None)
    (window,) = floor.truth("job").values()
    assert window["withdrawn"]


async def test_job_that_ends_in_a_stop_that_turns_out_to_be_short_is_said_again(floor: Floor) -> None:
    floor.put("plc.order", 0, 7)
    floor.put("plc.order", 15, 0)
    floor.run(0, 12)
    floor.put("plc.status", 12, 3)
    await floor.until(18)
    (job,) = floor.facts("job")
    assert (job["open"], job["time_s"]["down"]) == (False, 3.0)
    floor.run(20, 60)
    await floor.until(60)
    (job,) = floor.facts("job")
    assert (job["time_s"]["down"], job["time_s"]["short_stop"]) == (0.0, 3.0)
    assert job["revised_because"] == "reclassified"


async def test_job_of_a_tag_goes_on_over_a_restart(floor: Floor) -> None:
    floor.put("plc.order", 10, 7)
    floor.run(0, 50)
    await floor.until(49)
    second = await floor.again()
    second.put("plc.order", 70, 7)
    second.put("plc.order", 90, 0)
    second.run(70, 120)
    await second.until(120)
    (job,) = second.facts("job", withdrawn=True)
    assert clock_times([job]) == [("12:00:10", "12:01:30")]
    assert (job["quantity"]["produced"], job["quantity"]["unobserved"]) == (80, 21)
    await second.thread.close()


async def test_job_that_never_ends_is_ended_by_the_agent(tmp_path: Path) -> None:
    text = BY_TAG.replace("[10 s, 1 min, 1 h, job]", "[1 h, job]") + "buffer: {keep_readings: 2 d}\n"
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", text), FakeClock(NOON))
    hour = 3_600
    for second in range(0, 48 * hour, 60):
        floor.put("plc.order", second, 7)
        floor.put("plc.status", second, 1)
        floor.put("plc.count", second, second)
    for second in range(0, 48 * hour, 4 * hour):
        await floor.until(second, step=4 * hour)
    (job,) = floor.facts("job", withdrawn=True)
    assert (job["ended_by"], job["end"], job["revision"]) == ("agent", "2026-11-25T06:00:00Z", 1)
    assert job["quantity"]["produced"] == 42 * hour - 60
    await floor.thread.close()


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[Floor]:
    made = Floor(tmp_path / "data", configured(tmp_path / "config", BY_PERSON), FakeClock(NOON))
    yield made
    if not made.killed:
        await made.thread.close()


async def test_job_that_people_begin_and_end_has_what_they_said(people: Floor) -> None:
    people.run(0, 200)
    await people.until(40)
    await people.tell("job-start", 30, job="WO-1", product="A", planned_quantity=100, fields={"lot": "x"})
    (opened,) = of(await people.until(80), "job")
    assert (opened["job"], opened["open"], opened["started_by"]) == ("WO-1", True, "ana")
    await people.tell("job-end", 90)
    await people.until(200)
    (ended,) = people.facts("job")
    assert clock_times([ended]) == [("12:00:30", "12:01:30")]
    assert (ended["product"], ended["planned_quantity"], ended["fields"], ended["ended_by"]) == (
        "A", 100, {"lot": "x"}, "ana"
    )  # fmt: skip
    assert (ended["quantity"]["produced"], ended["time_s"]["producing"]) == sums(people, "12:00:30", "12:01:30")


async def test_job_that_people_begin_later_ends_the_one_before_it(people: Floor) -> None:
    people.run(0, 300)
    await people.tell("job-start", 10, job="1")
    await people.until(100)
    await people.tell("job-start", 50, job="2")
    await people.until(200)
    assert [(data["job"], data["ended_by"]) for data in people.facts("job")] == [("1", "next_job"), ("2", None)]
    assert clock_times(people.facts("job")) == [("12:00:10", "12:00:50"), ("12:00:50", None)]
    await people.tell("withdraw", 50, entry=2)
    await people.until(299)
    assert [(data["job"], data["end"]) for data in people.facts("job")] == [("1", None)]


async def test_scrap_that_is_told_after_a_job_revises_it(people: Floor) -> None:
    people.run(0, 300)
    await people.tell("job-start", 10, job="1")
    await people.tell("job-end", 100)
    await people.until(150)
    await people.tell("scrap", 50, count=5, reason="scratch")
    await people.until(299)
    (job,) = people.facts("job")
    assert (job["quantity"]["good"], job["quantity"]["scrap"], job["revised_because"]) == (85, 5, "entry")
    assert job["quantity"]["scrap_by_reason"] == {"scratch": 5}
    assert sum(data["quantity"]["scrap"] or 0 for data in people.truth("1min").values()) == 5


async def test_counter_that_was_replaced_long_before_the_window_of_its_next_reading(people: Floor) -> None:
    people.run(0, 100)
    await people.until(100)
    people.put("plc.count", 100, None, "device_offline")
    await people.tell("counter-replaced", 110, tag="plc.count", value=50)
    for second in range(100, 1_000):
        people.put("plc.status", second, 1)
    for second in range(1_000, 1_020):
        people.put("plc.count", second, second - 940)
    await people.until(1_080, step=20)
    for window in ("10s", "1min"):
        assert people.produced(window) == 99 + 10 + 19


# ---------------------------------------------------------------------------------- changed configurations


def moved(text: str, to: str) -> str:
    return text.replace("tag: plc.status, map: {1: producing, 2: delay, 3: down}", to)


async def test_windows_closed_before_an_edit_are_revised_as_they_were_closed(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", BY_PERSON), FakeClock(NOON))
    floor.run(0, 15)
    floor.run(15, 29, status=2)
    floor.run(29, 50)
    await floor.until(55)
    first = floor.configuration.hash
    edited = configured(tmp_path / "config", moved(BY_PERSON, "tag: plc.alarm, map: {1: producing, 2: down}"))
    assert edited.hash != first
    floor.configuration = edited
    second = await floor.again()
    second.run(57, 120)
    for at in range(57, 120):
        second.put("plc.alarm", at, 1)
    second.put("plc.status", 26.5, 3)
    await second.until(120)
    events = [event for event in second.events() if event["type"] == "edge.production.v1"]
    revised = [event for event in events if event["data"]["revision"]]
    assert {event["configuration"] for event in revised} == {first}
    assert {event["data"]["revised_because"] for event in revised} == {"late_reading"}
    found = second.truth("10s")
    times = next(data["time_s"] for key, data in found.items() if key.endswith("12:00:20Z"))
    assert (times["delay"], times["down"], times["producing"]) == (8.5, 0.5, 1.0)
    after = next(data["time_s"] for key, data in found.items() if key.endswith("12:01:30Z"))
    assert after["producing"] == 10.0
    assert clock_times(second.facts("downtime")) == [("12:00:15", "12:00:29")]
    await second.thread.close()
