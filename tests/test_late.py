"""Readings that come late, one at a time: what is said again, what a gap still names, and what is too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from floor import BY_TAG, Floor, configured, of
from test_revisions import H, counted, made
from test_summarizer import NOON


@pytest.fixture
async def floor(tmp_path: Path) -> AsyncIterator[Floor]:
    text = BY_TAG.replace("[10 s, 1 min, 1 h, job]", "[10 s, 1 min, 1 h, day]")
    made = Floor(tmp_path / "data", configured(tmp_path / "config", text), FakeClock(NOON))
    yield made
    await made.thread.close()


def sparse(floor: Floor, start: int, end: int, step: int = 25) -> None:
    """Count and status each so many seconds."""
    for second in range(start, end, step):
        floor.put("plc.count", second, 1_000 + second)
        floor.put("plc.status", second, 1)


def revised(issued: list[dict[str, Any]]) -> list[str]:
    return [f"{data['window']} {data['start'][11:19]}" for data in issued if data["revision"] and "window" in data]


async def test_reading_hours_late_revises_from_its_window_to_that_of_the_next_good_one(floor: Floor) -> None:
    sparse(floor, 0, 3 * H)
    await floor.until(2 * H + 10, step=900)
    floor.put("plc.count", 3_001, 1_000 + 3_001)
    issued = await floor.until(2 * H + 40)
    assert revised(issued) == ["10s 12:50:00", "10s 12:50:20"], "the reading after it came at 12:50:25"
    assert [data["quantity"]["produced"] for data in issued if data["revision"]] == [26, 24]
    assert {data["revised_because"] for data in issued if data["revision"]} == {"late_reading"}
    assert [data["previous"]["quantity"]["produced"] for data in issued if data["revision"]] == [25, 25]
    assert made(floor, "10s") == counted(floor, "10s")


async def test_late_state_revises_every_window_up_to_the_next_good_reading(floor: Floor) -> None:
    sparse(floor, 0, 3 * H)
    await floor.until(2 * H + 10, step=900)
    floor.put("plc.status", 3_001, 3)
    issued = await floor.until(2 * H + 40)
    assert revised(issued) == ["10s 12:50:00", "10s 12:50:10", "10s 12:50:20", "1min 12:50:00", "1h 12:00:00"]
    (stop,) = floor.facts("downtime")
    assert (stop["start"][11:], stop["end"][11:], stop["revision"]) == ("12:50:01Z", "12:50:25Z", 0)


async def test_windows_are_revised_at_most_once_a_minute(floor: Floor) -> None:
    sparse(floor, 0, 2 * H)
    await floor.until(H + 10, step=900)
    at: list[float] = []
    for second in range(H + 15, H + 400, 5):
        floor.put("plc.status", 1_001 + second - H, 3 if second % 2 else 1)
        if revised(await floor.until(second)):
            at.append(second)
    assert len(at) >= 4
    assert all(after - before >= 60 for before, after in pairwise(at))


async def test_late_reading_that_changes_nothing_is_said_nowhere(floor: Floor) -> None:
    sparse(floor, 0, 2 * H)
    await floor.until(H + 10, step=900)
    floor.put("plc.status", 1_001, 1)
    floor.put("plc.alarm", 1_001, 17)
    assert revised(await floor.until(H + 200)) == []


async def test_late_loss_takes_back_what_was_said(floor: Floor) -> None:
    sparse(floor, 0, 2 * H)
    await floor.until(H + 10, step=900)
    floor.put("plc.status", 1_001, None, "device_offline")
    issued = [data for data in await floor.until(H + 100) if data["revision"]]
    assert revised(issued) == ["10s 12:16:40", "10s 12:16:50", "10s 12:17:00", "1min 12:16:00", "1min 12:17:00",
                               "1h 12:00:00"]  # fmt: skip
    assert {data["revised_because"] for data in issued} == {"late_loss"}
    assert issued[0]["completeness"]["missing_s"]["device_offline"] == 9.0


async def test_gap_shrinks_as_late_readings_fill_it_and_is_withdrawn(floor: Floor) -> None:
    sparse(floor, 0, 50, step=10)
    for tag in ("plc.count", "plc.status"):
        floor.put(tag, 50, None, "device_offline")
    sparse(floor, 100, 2 * H)
    await floor.until(160)
    (gap,) = [data for data in floor.facts("gap") if data["window"] == "10s"]
    assert (gap["start"][14:19], gap["end"][14:19], gap["count"]) == ("00:50", "01:40", 5)
    floor.put("plc.status", 60, 1)
    floor.put("plc.status", 80, None, "device_offline")
    await floor.until(260)
    (gap,) = [data for data in floor.facts("gap") if data["window"] == "10s"]
    assert (gap["count"], gap["revision"], gap["withdrawn"]) == (3, 1, False)
    floor.put("plc.status", 51, 1)
    floor.put("plc.status", 81, 1)
    await floor.until(360)
    (gap,) = [data for data in floor.facts("gap", withdrawn=True) if data["window"] == "10s"]
    assert (gap["count"], gap["withdrawn"]) == (0, True)
    assert made(floor, "10s") == counted(floor, "10s")
    assert len({data["start"] for data in floor.truth("10s").values() if data["start"][11:16] == "12:01"}) == 6


async def test_gap_that_is_not_said_yet_leaves_out_what_late_readings_filled(floor: Floor) -> None:
    sparse(floor, 0, 50, step=10)
    for tag in ("plc.count", "plc.status"):
        floor.put(tag, 50, None, "device_offline")
    await floor.until(100)
    floor.put("plc.status", 60, 1)
    floor.put("plc.status", 80, None, "device_offline")
    await floor.until(200)
    assert floor.facts("gap") == []
    sparse(floor, 200, 400)
    await floor.until(300)
    (gap,) = [data for data in floor.facts("gap") if data["window"] == "10s"]
    assert (gap["start"][14:19], gap["end"][14:19], gap["count"]) == ("00:50", "03:20", 13)


async def test_reading_that_comes_after_its_day_is_final_is_refused_and_named(tmp_path: Path) -> None:
    text = BY_TAG.replace("[10 s, 1 min, 1 h, job]", "[1 h, day]") + "buffer: {keep_readings: 2 d, refresh: 1 h}\n"
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", text), FakeClock(NOON))
    sparse(floor, 0, 4 * 24 * H, step=600)
    await floor.until(47 * H, step=6 * H)
    first = floor.truth("day")["acme/lyon/hall/a/press/production/day/2026-11-22T23:00:00Z"]
    assert (first["final"], first["revisable_until"]) == (False, "2026-11-24T23:00:00Z")
    floor.put("plc.status", 50, 3)
    floor.put("plc.status", 86_400, 3)
    stored = floor.store.readings.count()
    issued = await floor.until(47 * H + 200, step=20)
    (gap,) = of(issued, "gap")
    assert (gap["cause"], gap["what"], gap["count"], gap["start"]) == (
        "too_late", "readings", 1, "2026-11-23T12:00:50Z"
    )  # fmt: skip
    assert len(floor.store.readings.page(limit=100_000)) <= stored + 1
    assert {data["start"][:10] for data in issued if data["revision"]} == {"2026-11-24", "2026-11-23"}
    assert revised([data for data in issued if data["start"] < "2026-11-23T23"]) == []
    await floor.thread.close()


async def test_night_shift_over_the_start_of_a_day_changes_until_the_later_day_is_final(tmp_path: Path) -> None:
    text = (
        BY_TAG.replace("[10 s, 1 min, 1 h, job]", "[1 h, shift, day]")
        + """
buffer: {keep_readings: 2 d, refresh: 1 h}
calendar:
  shifts:
    night: {from: "22:00", to: "06:00"}
"""
    )
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", text), FakeClock(NOON))
    sparse(floor, 0, 3 * 24 * H, step=600)
    await floor.until(36 * H, step=6 * H)
    for size in ("shift", "1h", "day"):
        assert made(floor, size) == counted(floor, size)
    (night, *_) = [data for data in floor.truth("shift").values() if data["shift"] == "night"]
    assert (night["start"], night["revisable_until"]) == ("2026-11-23T21:00:00Z", "2026-11-25T23:00:00Z")
    await floor.until(58 * H, step=6 * H)
    floor.put("plc.count", 12 * H + 1, 1_000 + 12 * H + 2)
    floor.put("plc.count", 12 * H + 2, 1_000 + 12 * H + 100)
    await floor.until(58 * H + 200, step=20)
    for size in ("shift", "1h", "day"):
        assert made(floor, size) == counted(floor, size), size
    await floor.thread.close()


SCANNER = """  scanner:
    driver: serial
    url: socket://127.0.0.1:1
    frame: {end: "\\\\n"}
    pattern: '(?P<pieces>\\\\d+)'
    tags: {pieces: {address: pieces, type: int, store: every}}
machines:
"""


async def test_items_of_a_scanner_are_unobserved_by_what_was_not_seen_long_before(tmp_path: Path) -> None:
    text = BY_TAG.replace("machines:\n", SCANNER.replace("\\\\", "\\")).replace(
        "{tag: plc.count, max_rate: 100 /s, rollover: 4294967296}", "{tag: scanner.pieces, kind: increment}"
    )
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", text), FakeClock(NOON))
    floor.ids |= floor.store.register([("scanner.pieces", True)])
    for second in (*range(0, 100, 20), *range(130, 2 * H, 20)):
        floor.put("plc.status", second, 1)
    floor.put("plc.status", 100, None, "device_offline")
    floor.put("scanner.pieces", 50, 5)
    floor.put("scanner.pieces", 2_000, 7)
    await floor.until(1_990, step=500)
    await floor.until(2_020, step=10)
    await floor.until(H + 10, step=500)

    def unobserved() -> list[int]:
        return [
            sum(data["quantity"]["unobserved"] for data in floor.truth(size).values()) for size in ("10s", "1min", "1h")
        ]

    assert unobserved() == [12, 12, 12], "nobody knows what the first ones were made in"
    floor.put("plc.status", 100, 1)
    floor.put("plc.status", 120, 1)
    await floor.until(H + 100, step=10)
    assert unobserved() == [5, 5, 5]
    await floor.thread.close()


async def test_window_whose_record_had_to_go_is_said_again_under_a_higher_revision(floor: Floor) -> None:
    def issued(start: str) -> list[tuple[int, bool]]:
        found = [data for data in floor.records() if data.get("window") == "10s" and data["start"].endswith(start)]
        return [(data["revision"], data["previous"] is None) for data in found]

    sparse(floor, 0, H, 5)
    await floor.until(100)
    floor.put("plc.status", 16, 3)
    await floor.until(200)
    assert issued("12:00:10Z") == [(0, True), (1, False)]
    with floor.store.transaction():
        floor.store.delivery.answer(range(1, floor.store.delivery.newest() + 1), floor.clock.now(), 0)
        floor.store.room._accepted_records()
    assert issued("12:00:10Z") == []
    floor.put("plc.status", 17, 1)
    await floor.until(300)
    assert issued("12:00:10Z") == [(2, True)], "1 was the highest that went"
    floor.put("plc.status", 18, 3)
    await floor.until(400)
    assert issued("12:00:10Z") == [(2, True), (3, False)]
    assert issued("12:05:00Z") == [(0, True)], "what begins later was never said"


async def test_window_of_which_readings_had_to_go_is_not_computed_again(floor: Floor) -> None:
    sparse(floor, 0, 2 * H + 100, 1)
    await floor.until(2 * H + 100, step=900)
    before, short = made(floor, "1h"), made(floor, "10s")
    with floor.store.transaction():
        gone = floor.store.room.sacrifice(floor.store.room.used() - 1, 0)
    assert gone["open_readings"] > 1_000
    await floor.tell("scrap", 1_800, count=1)
    floor.put("plc.status", 20.5, 3)
    await floor.until(2 * H + 200)
    assert made(floor, "1h") == before, "an hour of which half is gone stays as it was said"
    assert made(floor, "10s") >= short
    await floor.tell("scrap", H + 1_800, count=1)
    issued = await floor.until(2 * H + 300)
    assert [data["quantity"]["scrap"] for data in issued if data.get("window") == "1h"] == [1], "what is whole still is"
