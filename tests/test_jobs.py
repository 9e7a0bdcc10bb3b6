"""Stops and jobs as records of their own: through a real store and the summarizer, on a clock that is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes import FakeClock, S
from test_summarizer import CONFIG, NOON, Bench

from edge_agent import bases, record
from edge_agent.config import Configuration, load
from edge_agent.entries import Kind
from edge_agent.summarizer.site import basis_of
from edge_agent.timestamps import parse

TAGS = CONFIG.replace(
    'status: {address: "holding:2"}',
    'status: {address: "holding:2"}, alarm: {address: "holding:3"}, order: {address: "holding:4"}',
).replace("summarize: [10 s, 1 min, 1 h]", "summarize: [10 s, 1 min, 1 h, job]\n    settle: 1 s")
REASONS = """
    reason:
      tag: plc.alarm
      map: {17: guard open, 30: tool change}
      planned_stop: [tool change]
"""
BY_TAG = TAGS + REASONS + "    job: {tag: plc.order}\n"
BY_PERSON = TAGS + REASONS
SHIFTS = """
calendar:
  shifts:
    early: {from: "06:00", to: "13:05"}
    late: {from: "13:10", to: "22:00"}
"""


VALID = {
    kind: jsonschema.Draft202012Validator(record.schema(kind)) for kind in ("production", "gap", "downtime", "job")
}
"""What checks the data of each kind of record."""


def configured(folder: Path, text: str) -> Configuration:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.yaml").write_text(text)
    return load(folder)


class Floor(Bench):
    """A bench with alarms, orders and people; its clock moves second by second, as the daemon's does."""

    def __init__(self, folder: Path, configuration: Configuration, clock: FakeClock) -> None:
        super().__init__(folder, configuration, clock)
        self.ids = self.store.register([(f"plc.{tag}", True) for tag in ("count", "status", "alarm", "order")])
        self.configuration, self.killed = configuration, False
        basis = bases.write(basis_of(configuration, self.summarizer.site.publisher))
        self.store.remember_configuration(configuration.hash, "{}", clock.now(), basis)

    def run(self, start: int, end: int, status: int = 1) -> None:
        """Count and status each second."""
        for second in range(start, end):
            if status == 1:
                self.put("plc.count", second, 1_000 + second)
            self.put("plc.status", second, status)

    async def until(self, second: float, step: float = 5) -> list[dict[str, Any]]:
        """What is issued until the clock stands so many seconds after noon."""
        issued = []
        while (now := (self.clock.now() - NOON) / S) < second:
            self.summarizer.look("press")
            issued += await self.close_at(min(second, now + step))
        return issued

    async def tell(self, kind: Kind, start: float, end: float | None = None, **body: Any) -> None:
        """Append an entry as the desk does, and have its time looked at again."""
        begin, until = NOON + round(start * S), NOON + round((start if end is None else end) * S)

        def append() -> None:
            with self.store.transaction():
                self.store.entries.append("press", kind, "ana", self.clock.now(), begin, until, body)
                self.store.entries.reopen("press", begin, max(until, begin + 1), "entry", self.clock.now())

        await self.thread.call(append)
        self.summarizer.reopened("press")

    async def again(self) -> Floor:
        """The same folder after the agent was killed and started."""
        await self.thread.flush()
        await self.thread.call(self.store.close)
        self.thread._executor.shutdown()
        self.killed = True
        return Floor(self.store.folder, self.configuration, self.clock)

    def facts(self, kind: str, withdrawn: bool = False, check: bool = True) -> list[dict[str, Any]]:
        """The truth: of each key the highest revision, by start."""
        latest: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["type"] == f"edge.{kind}.v1":
                data = event["data"]
                if check:
                    VALID[kind].validate(data)
                assert data["revision"] == (latest[data["key"]]["revision"] + 1 if data["key"] in latest else 0)
                latest[data["key"]] = data
        return sorted(
            (data for data in latest.values() if withdrawn or not data["withdrawn"]),
            key=lambda data: parse(data["start"]),
        )


def clock_times(found: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(data["start"][11:-1], data["end"] and data["end"][11:-1]) for data in found]


def of(issued: list[dict[str, Any]], word: str) -> list[dict[str, Any]]:
    return [data for data in issued if f"/{word}/" in data["key"]]


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
    jsonschema.validate(windows[0], record.schema("production"))


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
