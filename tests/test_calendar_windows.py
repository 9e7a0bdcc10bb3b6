"""Windows of shifts and production days through the summarizer: when they close, what they hold, what is said again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from agreement import agree
from fakes import FakeClock, S, row
from hypothesis import given, settings
from hypothesis import strategies as st
from test_summarizer import CONFIG, Bench

from edge_agent.config import Configuration, load
from edge_agent.equipment import Row
from edge_agent.machines import summarized
from edge_agent.production import Machine, Tally, WindowData, compute
from edge_agent.shifts import Calendar, Shift, windows
from edge_agent.timestamps import parse

H = 3_600
CALENDAR = """
buffer: {refresh: 1 h}
calendar:
  production_day_starts: "06:00"
  shifts:
    early: {from: "06:00", to: "14:00"}
    late: {from: "14:00", to: "22:00"}
    night: {from: "22:00", to: "06:00"}
"""
WORKDAYS = CALENDAR.replace('{from: "22:00", to: "06:00"}', '{days: mon-thu, from: "22:00", to: "06:00"}')


def configured(folder: Path, calendar: str, sizes: str) -> Configuration:
    folder.mkdir(exist_ok=True)
    (folder / "all.yaml").write_text(CONFIG.replace("[10 s, 1 min, 1 h]", sizes) + calendar)
    return load(folder)


def bench_at(tmp_path: Path, begin: str, calendar: str = CALENDAR, sizes: str = "[30 min, shift, day]") -> Bench:
    """A bench whose seconds count from `begin`."""
    return Bench(tmp_path / "data", configured(tmp_path / "config", calendar, sizes), FakeClock(parse(begin)))


class Machinery:
    """A machine that makes an item each ten minutes, on a bench whose clock began at `begin`."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.begin = bench, bench.clock.now()

    def put(self, tag: str, at: float, value: Any, cause: str | None = None) -> None:
        quality = 0 if cause is None else 2
        time = self.begin + round(at * S)
        self.bench.thread.append([row(self.bench.ids[tag], time, value, quality, cause)])

    def run(self, start: int, end: int) -> None:
        for second in range(start, end, 600):
            self.put("plc.count", second, 1_000 + second // 600)
            self.put("plc.status", second, 1)

    async def close_at(self, seconds: float) -> list[dict[str, Any]]:
        before = len(self.bench.records())
        await self.bench.clock.advance(seconds - (self.bench.clock.now() - self.begin) / S)
        await self.bench.summarizer.close_due()
        return self.bench.records()[before:]


def spans(records: list[dict[str, Any]], size: str) -> list[tuple[str, str, str | None, str]]:
    return [
        (data["start"][5:16], data["end"][5:16], data["shift"], data["production_day"])
        for data in records
        if data["window"] == size
    ]


async def test_shift_and_day_close_when_their_settle_time_has_passed(tmp_path: Path) -> None:
    bench = bench_at(tmp_path, "2026-11-23T12:00:00Z")
    machine = Machinery(bench)
    machine.run(0, 18 * H)
    assert spans(await machine.close_at(H + 4.9), "shift") == []
    assert spans(await machine.close_at(H + 5), "shift") == [("11-23T05:00", "11-23T13:00", "early", "2026-11-23")]
    for half_hour in range(3, 35):
        await machine.close_at(half_hour * H // 2 + 5)
    assert spans(bench.records(), "shift")[1:] == [
        ("11-23T13:00", "11-23T21:00", "late", "2026-11-23"),
        ("11-23T21:00", "11-24T05:00", "night", "2026-11-23"),
    ]
    assert spans(bench.records(), "day") == [("11-23T05:00", "11-24T05:00", None, "2026-11-23")]
    (day,) = bench.truth("day").values()
    assert [part["shift"] for part in day["segments"]] == ["early", "late", "night"]
    assert bench.produced("shift") == bench.produced("day") == bench.produced("30min") == 17 * 6 - 1
    for data in bench.records():
        agree(data, "production")
    assert day["key"] == "acme/lyon/hall/a/press/production/day/2026-11-23T05:00:00Z"
    await bench.thread.close()


@pytest.mark.parametrize(
    ("begin", "night", "day", "hours"),
    [
        ("2026-03-28T05:00:00Z", ("03-28T21:00", "03-29T04:00"), ("03-28T05:00", "03-29T04:00"), 7),
        ("2026-10-24T04:00:00Z", ("10-24T20:00", "10-25T05:00"), ("10-24T04:00", "10-25T05:00"), 9),
    ],
)
async def test_night_shift_over_a_change_of_the_clocks_has_7_or_9_hours(
    tmp_path: Path, begin: str, night: tuple[str, str], day: tuple[str, str], hours: int
) -> None:
    bench = bench_at(tmp_path, begin)
    machine = Machinery(bench)
    machine.run(0, (hours + 17) * H)
    for _ in range(8):
        await machine.close_at((hours + 16) * H + 5)
    found = list(bench.truth("shift").values())
    (whole,) = bench.truth("day").values()
    assert [sum(data["time_s"].values()) for data in found] == [8 * H, 8 * H, hours * H]
    assert sum(whole["time_s"].values()) == (hours + 16) * H
    assert (found[2]["shift"], found[2]["start"][5:16], found[2]["end"][5:16]) == ("night", *night)
    assert (whole["start"][5:16], whole["end"][5:16]) == day
    assert [data["quantity"]["produced"] for data in found] == [47, 48, hours * 6]
    assert whole["quantity"]["produced"] == sum(data["quantity"]["produced"] for data in found)
    await bench.thread.close()


async def test_shift_and_day_of_a_long_absence_are_published_and_hold_every_part(tmp_path: Path) -> None:
    bench = bench_at(tmp_path, "2026-11-26T12:00:00Z", WORKDAYS)
    machine = Machinery(bench)
    machine.run(0, H)
    for tag in ("plc.count", "plc.status"):
        machine.put(tag, H, None, "agent_down")
    machine.run(100 * H, 101 * H)
    for _ in range(40):
        await machine.close_at(101 * H)
    found = spans(bench.records(), "shift")
    assert [shift for *_, shift, _ in found].count("off") == 3, "Friday's, Saturday's and Sunday's night"
    assert all(before[1] == after[0] for before, after in pairwise(found))
    days = list(bench.truth("day").values())
    assert [data["production_day"][8:] for data in days] == ["26", "27", "28", "29"]
    assert [data["completeness"]["ratio"] for data in days[1:]] == [0.0, 0.0, 0.0]
    await machine.close_at(114 * H + 5)
    await machine.close_at(114 * H + 6)
    await machine.close_at(114 * H + 7)
    gaps = sum(data["produced"] for data in bench.records() if "what" in data and data["window"] == "30min")
    assert bench.produced("shift") == bench.produced("day") == bench.produced("30min") + gaps == 605
    await bench.thread.close()


async def test_late_reading_revises_the_day_and_the_shift_that_it_belongs_to(tmp_path: Path) -> None:
    bench = bench_at(tmp_path, "2026-11-24T04:00:00Z")
    machine = Machinery(bench)
    machine.run(0, H)
    for _ in range(4):
        await machine.close_at(H + 5)
    assert bench.produced("day") == bench.produced("shift") == 5
    machine.put("plc.count", H - 60, 1_006)
    await bench.thread.flush()
    machine.put("plc.count", H + 60, 1_006)
    await machine.close_at(H + 1_805)
    issued = await machine.close_at(H + 1_810)
    assert [(data["window"], data["revision"], data["revised_because"]) for data in issued if data["revision"]] == [
        ("30min", 1, "late_reading"), ("shift", 1, "late_reading"), ("day", 1, "late_reading"),
    ]  # fmt: skip
    assert {data["previous"]["quantity"]["produced"] for data in issued if data["revision"]} == {3, 5}
    assert bench.produced("day") == bench.produced("shift") == 6
    await bench.thread.close()


async def test_short_stop_over_the_start_of_a_day_is_looked_at_again_once_it_has_ended(tmp_path: Path) -> None:
    bench = bench_at(tmp_path, "2026-11-24T04:00:00Z", sizes="[10 s, shift, day]")
    machine = Machinery(bench)
    machine.run(0, H)
    machine.put("plc.status", H - 1, 2)
    for _ in range(4):
        await machine.close_at(H + 5)
    (line,) = bench.summarizer._lines
    assert line.unsettled == machine.begin + (H - 1) * S
    await bench.clock.advance(3)
    await bench.thread.flush()
    assert bench.summarizer._gather._goes_on(line, line.unsettled, bench.clock.now())
    machine.put("plc.status", H + 8, 1)
    issued = await machine.close_at(H + 15)
    revised = [(data["window"], data["time_s"]["short_stop"]) for data in issued if data["revision"]]
    assert revised == [("10s", 1.0), ("shift", 1.0), ("day", 1.0)]
    await bench.thread.close()


async def test_calendar_that_is_edited_goes_on_where_the_last_window_ended(tmp_path: Path) -> None:
    first = bench_at(tmp_path, "2026-11-24T04:00:00Z")
    machine = Machinery(first)
    machine.run(0, 48 * H)
    for _ in range(4):
        await machine.close_at(H + 5)
    edited = configured(tmp_path / "config", CALENDAR.replace('starts: "06:00"', 'starts: "00:00"'), "[shift, day]")
    assert not edited.faults
    await first.thread.call(first.store.close)
    first.thread._executor.shutdown()
    machine.bench = second = Bench(tmp_path / "data", edited, first.clock)
    for _ in range(10):
        await machine.close_at(45 * H)
    found = spans(second.records(), "day")
    assert [(start, end) for start, end, *_ in found] == [
        ("11-23T05:00", "11-24T05:00"), ("11-24T05:00", "11-24T23:00"), ("11-24T23:00", "11-25T23:00"),
    ]  # fmt: skip
    assert second.produced("day") == 43 * 6 - 1
    await second.thread.close()


async def test_query_of_the_docs_rolls_half_hours_up_to_what_the_shifts_say(tmp_path: Path) -> None:
    bench = bench_at(tmp_path, "2026-11-24T05:00:00Z")
    machine = Machinery(bench)
    machine.run(0, 25 * H)
    for stop in (2, 5, 11, 20):
        machine.put("plc.status", stop * H + 601, 3)
    await machine.close_at(24 * H + 5)
    for _ in range(8):
        await machine.close_at(24 * H + 5)
    machine.put("plc.count", 24 * H - 60, 2_000)
    await bench.thread.flush()
    await machine.close_at(24 * H + 1_805)
    await machine.close_at(24 * H + 1_810)
    assert any(data["revision"] for data in bench.records())
    docs = (Path(__file__).parent.parent / "docs" / "records.md").read_text()
    query = docs.partition("```sql\n")[2].partition("```")[0]
    assert "= 'shift'" in query
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE production (key TEXT, epoch INTEGER, revision INTEGER, data TEXT)")
        for data in bench.records():
            db.execute("INSERT INTO production VALUES (?, 1, ?, ?)", (data["key"], data["revision"], json.dumps(data)))
        given = db.execute(query).fetchall()
        rolled_up = db.execute(query.replace("= 'shift'", "= '30min'")).fetchall()
    names = ("availability", "effectiveness", "quality_ratio", "oee_index")
    said = {
        (data["production_day"], data["shift"]): [data["kpi"][name] for name in names]
        for data in bench.truth("shift").values()
    }
    for rows in (given, rolled_up):
        found = {(day, shift): [value and round(value, 6) for value in values] for day, shift, *values in rows}
        assert {key: found[key] for key in said} == said
    assert len(said) == 3
    assert len({tuple(values) for values in said.values()}) == 3
    await bench.thread.close()


# ------------------------------------------------------------------------------------------ the oracle

BEGIN = parse("2026-10-24T18:00:00Z")
SPAN = 11 * H
PARIS = Calendar(
    "Europe/Paris",
    360,
    (
        Shift.of("night", "mon-sun", "22:00", "06:00", ["02:00-02:30"]),
        Shift.of("early", "mon-sun", "06:10", "14:00"),
    ),
)


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    configuration = configured(tmp_path_factory.mktemp("config"), CALENDAR, "[10 s, shift, day]")
    polls = {tag.name: tag.poll_ns for tag in configuration.devices["plc"].tags}
    return summarized("press", configuration.machines["press"], "acme/lyon/hall/a/press", polls, H * S).machine


def _rows(values: st.SearchStrategy[int]) -> st.SearchStrategy[list[Row]]:
    reading = st.tuples(st.integers(0, SPAN - 1), st.none() | values)
    return st.lists(reading, max_size=60, unique_by=lambda pair: pair[0]).map(
        lambda pairs: [
            (BEGIN + at * S, value, 2 if value is None else 0, "device_offline" if value is None else None)
            for at, value in sorted(pairs, key=lambda pair: pair[0])
        ]
    )


def _made(found: list[WindowData]) -> Tally:
    return Tally(*map(sum, zip(*(data.quantities["produced"] or Tally() for data in found), strict=True)))


@settings(max_examples=12, deadline=None)
@given(status=_rows(st.integers(1, 4)), count=_rows(st.integers(0, 999)))
def test_parts_and_times_of_shifts_and_days_are_those_of_ten_seconds(
    press: Machine, status: list[Row], count: list[Row]
) -> None:
    rows = {"plc.status": status, "plc.count": count}
    sizes = {}
    for size in ("10s", "1h", "shift", "day"):
        cut = list(windows(PARIS, size, BEGIN, BEGIN + SPAN * S))
        sizes[size] = compute(press, PARIS, rows, cut, BEGIN + 2 * SPAN * S)
    assert len({_made(found) for found in sizes.values()}) == 1
    # Days reach beyond the range, where all is unknown, so only known states are compared.
    known = [
        [sum(data.times_ns[state] for data in found) for state in ("producing", "short_stop", "delay", "down")]
        for found in sizes.values()
    ]
    assert all(each == known[0] for each in known)
