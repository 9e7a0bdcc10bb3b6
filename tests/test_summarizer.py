"""Stored readings to records in the outbox: when windows close, what is missing, what is said again."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes import FakeClock, S, row

from edge_agent import __version__, record
from edge_agent.config import Configuration, load
from edge_agent.contract import Quality, Value
from edge_agent.store import Store, StoreThread
from edge_agent.summarizer import Summarizer
from edge_agent.timestamps import parse

NOON = parse("2026-11-23T12:00:00Z")
CONFIG = """
agent: {name: gw1, enterprise: acme, site: lyon, timezone: Europe/Paris}
mqtt: {url: "mqtt://127.0.0.1:1"}
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:1
    tags: {count: {address: "holding:0", type: uint32}, status: {address: "holding:2"}}
machines:
  press:
    area: hall
    line: a
    state: {tag: plc.status, map: {1: producing, 2: delay, 3: down}}
    counts: {produced: {tag: plc.count, max_rate: 100 /s, rollover: 4294967296}}
    planned_run_time_per_item: 1 s
    short_stop: 10 s
    summarize: [10 s, 1 min, 1 h]
"""


class Announcements:
    """What the summarizer told the uplink."""

    def __init__(self) -> None:
        self.woken = 0
        self.latest: list[tuple[str, dict[str, Any], int | None]] = []

    def wake(self) -> None:
        self.woken += 1

    def publish_latest(self, topic: str, payload: bytes, expiry_s: int | None) -> None:
        self.latest.append((topic, json.loads(payload), expiry_s))


class Bench:
    """A summarizer over a real store, at noon, on a clock that is moved."""

    def __init__(self, folder: Path, configuration: Configuration, clock: FakeClock) -> None:
        assert not configuration.errors, [str(fault) for fault in configuration.errors]
        self.clock = clock
        self.store = Store(folder)
        self.store.begin(clock.now())
        self.ids = self.store.register([("plc.count", True), ("plc.status", True)])
        self.thread = StoreThread(self.store, clock, S // 2)
        self.told = Announcements()
        publisher = record.Publisher("gw1", "acme", "lyon", "edge/v1", __version__, configuration.hash)
        self.summarizer = Summarizer(configuration, self.thread, self.told, publisher, clock)

    def put(self, tag: str, at: float, value: Value, cause: str | None = None) -> None:
        quality = Quality.GOOD if cause is None else Quality.BAD
        self.thread.append([row(self.ids[tag], NOON + round(at * S), value, int(quality), cause)])

    async def close_at(self, seconds: float) -> list[dict[str, Any]]:
        """What is issued when the clock stands so many seconds after noon."""
        before = len(self.records())
        await self.clock.advance(seconds - (self.clock.now() - NOON) / S)
        await self.summarizer.close_due()
        return self.records()[before:]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(stored.payload) for stored in self.store.records.page(limit=100_000)]

    def records(self) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events()]

    def truth(self, window: str) -> dict[str, dict[str, Any]]:
        """The latest revision of each key."""
        return {data["key"]: data for data in self.records() if data.get("window") == window and "time_s" in data}

    def produced(self, window: str) -> int:
        return sum(data["quantity"]["produced"] for data in self.truth(window).values())


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "all.yaml").write_text(CONFIG)
    return load(tmp_path / "config")


@pytest.fixture
async def bench(tmp_path: Path, configuration: Configuration) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "data", configuration, FakeClock(NOON))
    yield made
    await made.thread.close()


def run_machine(bench: Bench, start: int, end: int, status: int = 1, rate: int = 1) -> None:
    """A reading of count and status each second in [start, end)."""
    for second in range(start, end):
        bench.put("plc.count", second, 1_000 + second * rate)
        bench.put("plc.status", second, status)


async def test_window_closes_when_its_settle_time_has_passed(bench: Bench) -> None:
    run_machine(bench, 0, 15)
    assert await bench.close_at(14.9) == []
    (data,) = await bench.close_at(15)
    assert (data["window"], data["start"], data["end"]) == ("10s", "2026-11-23T12:00:00Z", "2026-11-23T12:00:10Z")
    assert data["quantity"]["produced"] == 9
    assert data["time_s"]["producing"] == 10.0
    assert bench.told.woken == 1


async def test_every_size_of_window_holds_every_part(bench: Bench) -> None:
    run_machine(bench, 0, 3_700)
    await bench.close_at(3_700)
    assert len(bench.truth("10s")) == 369
    assert len(bench.truth("1min")) == 61
    (hour,) = bench.truth("1h").values()
    assert hour["quantity"]["produced"] == 3_599
    assert sum(data["quantity"]["produced"] for data in list(bench.truth("1min").values())[:60]) == 3_599
    assert sum(data["quantity"]["produced"] for data in list(bench.truth("10s").values())[:360]) == 3_599


async def test_records_agree_with_their_schemas_and_are_numbered_without_a_hole(bench: Bench) -> None:
    run_machine(bench, 0, 65)
    for second in range(10, 66, 5):
        await bench.close_at(second)
    events = bench.events()
    for event in events:
        jsonschema.validate(event, record.envelope_schema("production"))
        jsonschema.validate(event["data"], record.schema("production"))
    by_topic = [event["sequence"] for event in events if event["data"]["window"] == "10s"]
    assert by_topic == [f"{number:012d}" for number in range(1, 7)]
    assert len({event["id"] for event in events}) == len(events)


async def test_windows_without_any_observation_become_one_gap_and_no_part_is_lost(bench: Bench) -> None:
    run_machine(bench, 0, 12)
    bench.put("plc.count", 12, None, "device_offline")
    bench.put("plc.status", 12, None, "device_offline")
    for second in range(15, 50, 5):
        await bench.close_at(second)
    run_machine(bench, 47, 70)
    issued = [data for second in range(50, 70, 5) for data in await bench.close_at(second)]
    (gap,) = [data for data in issued if "what" in data]
    jsonschema.validate(gap, record.schema("gap"))
    assert (gap["start"], gap["end"]) == ("2026-11-23T12:00:20Z", "2026-11-23T12:00:40Z")
    assert (gap["cause"], gap["count"], gap["machine"], gap["window"]) == ("device_offline", 2, "press", "10s")
    after = bench.truth("10s")["acme/lyon/hall/a/press/production/10s/2026-11-23T12:00:40Z"]
    assert after["quantity"]["unobserved"] == 36
    assert after["time_s"]["unknown"] == 7.0
    assert bench.produced("10s") == 59


async def test_agent_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, configuration: Configuration) -> None:
    clock = FakeClock(NOON)
    first = Bench(tmp_path / "data", configuration, clock)
    run_machine(first, 0, 23)
    await first.close_at(23)
    await first.thread.call(first.store.close)  # nothing is flushed, nothing is said: the process is gone
    await clock.advance(9)
    second = Bench(tmp_path / "data", configuration, clock)
    run_machine(second, 32, 60)
    await second.close_at(60)
    keys = [data["key"] for data in second.records()]
    assert len(keys) == len(set(keys))
    assert second.produced("10s") == 49
    (window,) = [data for data in second.records() if data["start"].endswith("12:00:20Z")]
    assert window["completeness"]["missing_s"]["agent_down"] == pytest.approx(7.0, abs=0.001)
    await second.thread.close()
    first.thread._executor.shutdown()


async def test_reading_that_comes_late_is_counted_by_a_revision_with_what_it_replaces(bench: Bench) -> None:
    run_machine(bench, 0, 8)
    for second in range(11, 18):
        bench.put("plc.status", second, 1)
    await bench.close_at(15)
    bench.put("plc.count", 9, 1_020)
    bench.put("plc.count", 19, 1_025)
    bench.put("plc.status", 19, 1)
    assert [data["revision"] for data in await bench.close_at(25)] == [0]
    issued = await bench.close_at(30)
    (revised,) = [data for data in issued if data["revision"] == 1]
    assert revised["revised_because"] == "late_reading"
    assert revised["previous"]["quantity"]["produced"] == 7
    assert revised["quantity"]["produced"] == 20
    assert bench.produced("10s") == 25


async def test_late_reading_that_changes_nothing_is_not_published_again(bench: Bench) -> None:
    run_machine(bench, 0, 25)
    await bench.close_at(15)
    bench.put("plc.count", 5.5, 1_005)
    issued = await bench.close_at(25)
    assert [data["revision"] for data in issued] == [0]


async def test_stop_that_turns_out_to_be_short_is_reclassified(bench: Bench) -> None:
    run_machine(bench, 0, 7)
    run_machine(bench, 7, 16, status=2)
    (first,) = await bench.close_at(15)
    assert first["time_s"]["delay"] == 3.0
    run_machine(bench, 16, 40)
    issued = await bench.close_at(25)
    (revised,) = [data for data in issued if data["revision"] == 1]
    assert revised["revised_because"] == "reclassified"
    assert (revised["time_s"]["delay"], revised["time_s"]["short_stop"]) == (0.0, 3.0)
    assert not [data for data in await bench.close_at(35) if data["revision"]]


async def test_stop_that_ends_after_a_restart_is_reclassified_all_the_same(
    tmp_path: Path, configuration: Configuration
) -> None:
    clock = FakeClock(NOON)
    first = Bench(tmp_path / "data", configuration, clock)
    run_machine(first, 0, 7)
    run_machine(first, 7, 16, status=2)
    await first.close_at(15)
    run_machine(first, 16, 20)
    await first.thread.flush()
    await first.thread.call(first.store.close)
    first.thread._executor.shutdown()
    second = Bench(tmp_path / "data", configuration, clock)
    await second.thread.call(second.summarizer._recall)
    run_machine(second, 20, 40)
    issued = await second.close_at(25)
    assert [(data["revised_because"], data["time_s"]["short_stop"]) for data in issued if data["revision"]] == [
        ("reclassified", 3.0)
    ]
    await second.thread.close()


async def test_reading_that_came_late_just_before_a_kill_is_counted_after_it(
    tmp_path: Path, configuration: Configuration
) -> None:
    clock = FakeClock(NOON)
    first = Bench(tmp_path / "data", configuration, clock)
    run_machine(first, 0, 8)
    await first.close_at(15)
    first.put("plc.count", 9, 1_020)
    await first.thread.flush()
    await first.thread.call(first.store.close)
    first.thread._executor.shutdown()
    second = Bench(tmp_path / "data", configuration, clock)
    await second.thread.call(second.summarizer._recall)
    await second.close_at(25)
    await second.close_at(30)
    assert second.produced("10s") == 20
    await second.thread.close()


async def test_gap_ends_where_its_cause_changes(bench: Bench) -> None:
    run_machine(bench, 0, 10)
    for second, cause in ((10, "device_offline"), (40, "agent_down")):
        bench.put("plc.count", second, None, cause)
        bench.put("plc.status", second, None, cause)
    run_machine(bench, 70, 90)
    await bench.close_at(90)
    gaps = [data for data in bench.records() if "what" in data and data["window"] == "10s"]
    assert [(gap["start"][17:19], gap["end"][17:19], gap["cause"]) for gap in gaps] == [
        ("10", "40", "device_offline"), ("40", "10", "agent_down")
    ]  # fmt: skip


async def test_counts_beyond_2_to_the_53_are_not_revised_for_ever(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "all.yaml").write_text(
        CONFIG.replace("100 /s, rollover: 4294967296", "9000000000000000000 /s")
    )
    bench = Bench(tmp_path / "data", load(tmp_path / "config"), FakeClock(NOON))
    run_machine(bench, 0, 5)
    bench.put("plc.count", 6, 2**60)
    bench.put("plc.status", 6, 1)
    await bench.close_at(15)
    bench.put("plc.status", 7, 1)
    await bench.close_at(25)
    assert {data["revision"] for data in bench.records() if data["window"] == "10s"} == {0}
    await bench.thread.close()


async def test_stop_that_is_long_is_never_reclassified(bench: Bench) -> None:
    run_machine(bench, 0, 7)
    run_machine(bench, 7, 30, status=2)
    run_machine(bench, 30, 60)
    for second in range(10, 60, 5):
        await bench.close_at(second)
    assert {data["revision"] for data in bench.records() if "window" in data} == {0}
    assert sum(data["time_s"]["delay"] for data in bench.truth("10s").values()) == 23.0


async def test_status_that_the_map_does_not_know_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    run_machine(bench, 0, 40, status=99)
    for second in range(15, 40, 5):
        await bench.close_at(second)
    said = [entry.getMessage() for entry in caplog.records if "99" in entry.getMessage()]
    assert len(said) == 1
    assert "machines.press.state.map" in said[0]


def bench_of(folder: Path, state: str) -> Bench:
    """A bench whose machine has another source of state."""
    folder.mkdir()
    (folder / "all.yaml").write_text(CONFIG.replace("{tag: plc.status, map: {1: producing, 2: delay, 3: down}}", state))
    return Bench(folder / "data", load(folder), FakeClock(NOON))


async def test_state_from_the_count_is_dated_back_by_a_revision(tmp_path: Path) -> None:
    bench = bench_of(tmp_path / "count", "{from_count: {stopped_after: 12}}")
    for second in (*range(8), *range(40, 60)):
        bench.put("plc.count", second, 1_000 + second)
    at_first = [data["time_s"] for data in await bench.close_at(15) if data["window"] == "10s"]
    assert [times["producing"] for times in at_first] == [10.0], "an item at 19 s would not be late"
    for second in range(16, 80):
        await bench.close_at(second)
    first, *_ = bench.truth("10s").values()
    assert (first["revision"], first["revised_because"]) == (1, "reclassified")
    assert (first["time_s"]["producing"], first["time_s"]["delay"]) == (7.0, 3.0)
    assert sum(data["time_s"]["delay"] for data in bench.truth("10s").values()) == 33.0 + 11.0
    await bench.thread.close()


async def test_state_from_the_count_is_told_when_the_item_is_late(tmp_path: Path) -> None:
    bench = bench_of(tmp_path / "count", "{from_count: {stopped_after: 5}}")
    for second in range(4):
        bench.put("plc.count", second, 1_000 + second)
    await bench.thread.flush()
    for second in range(4, 12):
        await bench.clock.advance(second - (bench.clock.now() - NOON) / S)
        await bench.summarizer.states.tell()
    told = [(event["data"]["state"], event["data"]["since"][-4:]) for _, event, _ in bench.told.latest]
    assert told == [("producing", ":00Z"), ("delay", ":03Z")]
    await bench.thread.close()


async def test_state_from_rules_is_told_once_however_often_its_tags_change(tmp_path: Path) -> None:
    bench = bench_of(tmp_path / "rules", "{when: {down: plc.status == 3, producing: plc.count > 1010}}")
    for second in range(30):
        bench.put("plc.count", second, 1_000 + second)
        bench.put("plc.status", second, 3 if second == 20 else 1)
        await bench.clock.advance(second + 0.5 - (bench.clock.now() - NOON) / S)
        await bench.thread.flush()
        await bench.summarizer.states.tell()
    told = [(event["data"]["state"], event["data"]["since"][-4:]) for _, event, _ in bench.told.latest]
    assert told == [("delay", ":00Z"), ("producing", ":11Z"), ("down", ":20Z"), ("producing", ":21Z")]
    await bench.close_at(45)
    sums = [data["time_s"] for data in bench.truth("10s").values()]
    assert [sum(times[state] for times in sums[:3]) for state in ("delay", "short_stop", "producing")] == [
        11.0,
        1.0,
        18.0,
    ]
    await bench.thread.close()


async def test_mode_that_the_map_does_not_know_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = "{tag: plc.status, map: {1: producing}, mode: {tag: plc.count, map: {2: planned_stop}}}"
    bench = bench_of(tmp_path / "mode", state)
    run_machine(bench, 0, 20, rate=0)
    for second in (15, 25):
        await bench.close_at(second)
    said = [entry.getMessage() for entry in caplog.records if "1000" in entry.getMessage()]
    assert len(said) == 1
    assert "plc.count is 1000, which machines.press.state.mode.map does not know" in said[0]
    await bench.thread.close()


async def test_long_absence_is_caught_up_in_bounded_steps(bench: Bench) -> None:
    run_machine(bench, 0, 20)
    bench.put("plc.count", 20, None, "device_offline")
    bench.put("plc.status", 20, None, "device_offline")
    run_machine(bench, 40 * 3_600, 40 * 3_600 + 30)
    at_first = await bench.close_at(40 * 3_600 + 30)
    assert len([data for data in at_first if data["window"] == "1h"]) == 6, "six hours at once, not forty"
    for _ in range(10):
        await bench.close_at(40 * 3_600 + 30)
    gaps = [data for data in bench.records() if "what" in data]
    assert sum(gap["count"] for gap in gaps if gap["window"] == "10s") == 40 * 360 - 2
    assert max(parse(gap["end"]) - parse(gap["start"]) for gap in gaps) == 3_600 * S, "a gap is said each hour"
    assert len([data for data in bench.records() if data.get("window") == "1h" and "time_s" in data]) == 40
    assert bench.produced("10s") == 40 * 3_600 + 19


async def test_failing_machine_is_said_and_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    run_machine(bench, 0, 15)
    await bench.thread.flush()
    bench.store._connection.execute("UPDATE reading SET quality = 'x' WHERE id = 3")
    caplog.set_level(logging.ERROR)
    await bench.close_at(15)
    for second in range(16, 70, 6):  # its readings change all the while
        bench.summarizer.look("press")
        await bench.close_at(second)
    assert caplog.text.count("could not be computed") == 1, "once a minute"
    bench.store._connection.execute("UPDATE reading SET quality = 0 WHERE id = 3")
    assert len(await bench.close_at(76)) == 8


async def test_state_of_a_machine_is_published_when_it_changes_and_each_minute(bench: Bench) -> None:
    bench.put("plc.status", 0, 1)
    await bench.thread.flush()
    for second in (1, 2, 3, 64):
        if second == 2:
            bench.put("plc.status", 1.5, 3)
        await bench.clock.advance(second - (bench.clock.now() - NOON) / S)
        await bench.thread.flush()
        await bench.summarizer.states.tell()
    told = [(event["data"]["state"], event["data"]["since"], expiry) for _, event, expiry in bench.told.latest]
    assert [state for state, *_ in told][:2] == ["producing", "down"]
    assert len(told) == 3, "once a change, and once more after a minute without one"
    assert {expiry for *_, expiry in told} == {180}
    assert told[1][1] == "2026-11-23T12:00:01.500Z"
    assert told[-1][1] == "2026-11-23T12:00:01.500Z"
    assert bench.told.latest[0][0] == "edge/v1/acme/lyon/hall/a/press/state"
    for _, event, _ in bench.told.latest:
        jsonschema.validate(event["data"], record.schema("state"))
