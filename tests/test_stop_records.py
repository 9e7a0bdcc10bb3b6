"""Stops as records of their own: through a real store and the summarizer, on a clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import FakeClock
from floor import BY_TAG, SHIFTS, Floor, clock_times, configured, of
from test_summarizer import NOON


@pytest.fixture
async def floor(tmp_path: Path) -> AsyncIterator[Floor]:
    made = Floor(tmp_path / "data", configured(tmp_path / "config", BY_TAG), FakeClock(NOON))
    yield made
    if not made.killed:
        await made.thread.close()


# -------------------------------------------------------------------------------------------------- stops


async def test_stop_is_published_when_it_is_long_enough_and_when_it_ends(floor: Floor) -> None:
    floor.run(0, 7)
    floor.run(7, 16, status=3)
    assert of(await floor.until(16), "downtime") == []
    floor.run(16, 40, status=3)
    (opened,) = of(await floor.until(25), "downtime")
    assert (opened["start"][11:], opened["end"], opened["open"], opened["revision"]) == ("12:00:07Z", None, True, 0)
    assert (opened["duration_s"], opened["reason"], opened["failure"]) == (None, "unclassified", True)
    assert of(await floor.until(39), "downtime") == []
    floor.run(40, 60)
    (ended,) = of(await floor.until(60), "downtime")
    assert (ended["key"], ended["revision"], ended["revised_because"]) == (opened["key"], 1, "ended")
    assert (ended["duration_s"], ended["time_s"]["down"], ended["end"][11:]) == (33.0, 33.0, "12:00:40Z")
    assert ended["previous"]["end"] is None
    assert ended["final"] is False
    assert ended["revisable_until"] is not None
    assert sum(data["downtime"]["stops"] for data in floor.truth("10s").values()) == 1


async def test_short_stop_is_never_published(floor: Floor) -> None:
    floor.run(0, 7)
    floor.run(7, 16, status=3)
    floor.run(16, 60)
    await floor.until(60)
    assert floor.facts("downtime", withdrawn=True) == []


async def test_alarm_that_comes_later_gives_the_stop_and_its_hour_a_reason(floor: Floor) -> None:
    floor.run(0, 7)
    floor.run(7, 40, status=3)
    await floor.until(30)
    floor.put("plc.alarm", 31, 17)
    (reasoned,) = of(await floor.until(38), "downtime")
    assert (reasoned["reason"], reasoned["reason_by"], reasoned["revised_because"]) == ("guard open", "plc", "reason")
    assert reasoned["plc"] == {"code": 17, "reason": "guard open"}
    floor.run(40, 4_000)
    await floor.until(4_000, step=60)
    (hour,) = floor.truth("1h").values()
    assert hour["downtime"]["by_reason_s"] == {"guard open": 33.0}
    assert floor.facts("downtime")[0]["reason"] == "guard open"


async def test_reason_that_is_told_later_revises_the_stop_and_the_hour_and_no_window_under_it(floor: Floor) -> None:
    floor.run(0, 7)
    floor.run(7, 40, status=3)
    floor.run(40, 4_000)
    await floor.until(3_700, step=60)
    await floor.tell("reason", 20, 21, reason="no operator")
    issued = await floor.until(3_900, step=30)
    revised = [data for data in issued if data["revision"]]
    assert [data.get("window", "downtime") for data in revised] == ["downtime", "1h"]
    assert {data["revised_because"] for data in revised} == {"entry"}
    assert revised[0]["person"]["by"] == "ana"
    assert revised[1]["downtime"]["by_reason_s"] == {"no operator": 33.0}
    await floor.tell("withdraw", 20, entry=1)
    revised = [data for data in await floor.until(4_100, step=30) if data["revision"]]
    assert [data.get("window", "downtime") for data in revised] == ["downtime", "1h"]
    assert floor.facts("downtime")[0]["reason"] == "unclassified"


async def test_reason_that_is_planned_moves_the_time_of_every_window(floor: Floor) -> None:
    floor.run(0, 7)
    floor.run(7, 40, status=3)
    floor.run(40, 200)
    await floor.until(100)
    await floor.tell("reason", 20, 21, reason="tool change")
    await floor.until(200)
    (stop,) = floor.facts("downtime")
    assert (stop["planned"], stop["failure"], stop["time_s"]["planned_stop"]) == (True, False, 33.0)
    for window in ("10s", "1min"):
        found = floor.truth(window).values()
        assert sum(data["time_s"]["planned_stop"] for data in found) == 33.0
        assert sum(data["time_s"]["down"] for data in found) == 0.0
        assert sum(data["downtime"]["stops"] for data in found) == 0


async def test_stop_that_a_late_reading_removes_is_withdrawn_and_comes_back_under_its_key(floor: Floor) -> None:
    floor.run(0, 7)
    floor.put("plc.status", 7, 3)
    floor.put("plc.status", 40, 1)
    floor.run(41, 60)
    await floor.until(60)
    (stop,) = floor.facts("downtime")
    floor.put("plc.status", 12, 1)
    floor.put("plc.status", 39, 1)
    floor.run(60, 130)
    await floor.until(130)
    assert floor.facts("downtime") == []
    (gone,) = floor.facts("downtime", withdrawn=True)
    assert (gone["key"], gone["revision"], gone["revised_because"]) == (stop["key"], 2, "late_reading")
    assert (gone["previous"]["duration_s"], gone["end"]) == (33.0, "2026-11-23T12:00:40Z")
    floor.put("plc.status", 13, 3)
    floor.run(130, 220)
    await floor.until(220)
    assert clock_times(floor.facts("downtime")) == [("12:00:13", "12:00:39")]
    floor.put("plc.status", 8, 3)
    floor.put("plc.status", 12.5, 3)
    floor.put("plc.status", 12, 3)
    await floor.until(320)
    (back,) = floor.facts("downtime")
    assert clock_times([back]) == [("12:00:07", "12:00:39")]


async def test_stop_keeps_its_key_when_its_start_moves(floor: Floor) -> None:
    floor.run(0, 20)
    floor.put("plc.status", 20, 3)
    floor.put("plc.status", 50, 1)
    floor.run(51, 70)
    await floor.until(70)
    (stop,) = floor.facts("downtime")
    floor.put("plc.status", 15.5, 3)
    for second in range(16, 20):
        floor.put("plc.status", second + 0.1, 3)
    floor.run(70, 140)
    await floor.until(140)
    moved = floor.facts("downtime")[-1]
    assert (moved["key"], moved["start"][11:], moved["previous"]["start"]) == (
        stop["key"], "12:00:19.100Z", stop["start"]
    )  # fmt: skip


async def test_stop_beside_another_with_its_key_gets_a_key_of_its_own(floor: Floor) -> None:
    floor.run(0, 20)
    floor.put("plc.status", 20, 3)
    floor.put("plc.status", 90, 1)
    floor.run(91, 110)
    await floor.until(110)
    floor.put("plc.status", 21, 1)
    floor.put("plc.status", 50, 3)
    floor.run(110, 200)
    await floor.until(200)
    assert clock_times(floor.facts("downtime")) == [("12:00:50", "12:01:30")]
    floor.put("plc.status", 21, 3)
    floor.put("plc.status", 45, 1)
    floor.run(200, 300)
    await floor.until(300)
    found = floor.facts("downtime")
    assert clock_times(found) == [("12:00:20", "12:00:45"), ("12:00:50", "12:01:30")]
    assert len({data["key"] for data in found}) == 2


async def test_stop_ends_where_not_scheduled_time_begins(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", BY_TAG + SHIFTS), FakeClock(NOON))
    floor.run(0, 100)
    for second in range(100, 1_000, 50):
        floor.put("plc.status", second, 3)
    await floor.until(1_000)
    assert clock_times(floor.facts("downtime")) == [("12:01:40", "12:05:00"), ("12:10:00", None)]
    assert [data["shift"] for data in floor.facts("downtime")] == ["early", "late"]
    await floor.thread.close()


async def test_stop_goes_on_over_a_restart_with_unknown_time_between_two(floor: Floor) -> None:
    floor.run(0, 7)
    floor.run(7, 40, status=3)
    await floor.until(39)
    second = await floor.again()
    second.run(60, 80, status=3)
    second.run(80, 120)
    await second.until(120)
    found = second.facts("downtime")
    assert [(data["start"][11:19], data["end"][11:19], data["seen_whole"]) for data in found] == [
        ("12:00:07", "12:00:39", False), ("12:01:00", "12:01:20", False)
    ]  # fmt: skip
    await second.thread.close()


async def test_stop_of_a_day_and_more_keeps_one_key(tmp_path: Path) -> None:
    text = BY_TAG.replace("[10 s, 1 min, 1 h, job]", "[1 h]")
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", text), FakeClock(NOON))
    floor.run(0, 7)
    for second in range(7, 100_000, 30):
        floor.put("plc.status", second, 3)
    for second in (100, 4_000, 50_000, 90_000, 90_001, 90_002, 90_003, 90_004, 90_005):
        await floor.until(second, step=50_000)
    (stop,) = floor.facts("downtime")
    assert (stop["revision"], stop["start"][11:]) == (0, "12:00:07Z")
    await floor.thread.close()
