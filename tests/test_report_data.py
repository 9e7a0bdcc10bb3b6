"""The data of a shift report: of which time, and that it says what the records of the same time say."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from desk_bench import CONFIG, DeskBench, clock_time
from fakes import FakeClock, S
from test_cli import Folder, until
from test_summarizer import NOON

from edge_agent.contract import ConfigError
from edge_agent.record import previous_of
from edge_agent.report import gathered, span_of
from edge_agent.shifts import Calendar, Shift
from edge_agent.store import Store
from edge_agent.timestamps import parse, rfc3339

Data = dict[str, Any]
HOUR = 3_600
OF_REVISION = {"revision", "revised_because", "previous", "final", "revisable_until", "key", "withdrawn"}


# ------------------------------------------------------------------------------------------- of which time


def shift(name: str, begin: int, end: int, days: str = "0123456") -> Shift:
    return Shift(name, frozenset(map(int, days)), begin * 60, end * 60)


THREE = Calendar("Europe/Paris", 360, (shift("early", 6, 14), shift("late", 14, 22), shift("night", 22, 6)))
WEEKDAYS = Calendar("Europe/Paris", 360, (shift("early", 6, 14, "01234"),))
NONE = Calendar("Europe/Paris", 360)
FRIDAY_NIGHT = ("2026-11-20T21", "2026-11-21T05", "night", "2026-11-20")


def span(calendar: Calendar, now: str, name: str | None = None, day: str | None = None) -> tuple[str, str, Any, str]:
    found = span_of(calendar, name, date.fromisoformat(day) if day else None, parse(now))
    return rfc3339(found.start), rfc3339(found.end), found.shift, found.day.isoformat()


@pytest.mark.parametrize(
    ("calendar", "now", "name", "day", "expected"),
    [
        (THREE, "2026-11-23T12:00:00Z", None, None, ("2026-11-23T05", "2026-11-23T13", "early", "2026-11-23")),
        (THREE, "2026-11-23T13:00:00Z", None, None, ("2026-11-23T05", "2026-11-23T13", "early", "2026-11-23")),
        (THREE, "2026-11-23T13:00:01Z", None, None, ("2026-11-23T13", "2026-11-23T21", "late", "2026-11-23")),
        (THREE, "2026-11-23T12:00:00Z", "late", None, ("2026-11-22T13", "2026-11-22T21", "late", "2026-11-22")),
        (THREE, "2026-11-23T02:00:00Z", None, None, ("2026-11-22T21", "2026-11-23T05", "night", "2026-11-22")),
        (THREE, "2026-11-23T12:00:00Z", "night", "2026-11-20", FRIDAY_NIGHT),
        (THREE, "2026-11-23T12:00:00Z", None, "2026-11-20", FRIDAY_NIGHT),
        (THREE, "2026-11-23T12:00:00Z", "day", None, ("2026-11-23T05", "2026-11-24T05", None, "2026-11-23")),
        (THREE, "2026-11-23T05:00:00Z", "day", None, ("2026-11-22T05", "2026-11-23T05", None, "2026-11-22")),
        (WEEKDAYS, "2026-11-22T12:00:00Z", None, None, ("2026-11-20T05", "2026-11-20T13", "early", "2026-11-20")),
        (NONE, "2026-11-23T12:00:00Z", None, None, ("2026-11-23T05", "2026-11-24T05", None, "2026-11-23")),
        (NONE, "2026-11-23T12:00:00Z", "day", "2026-11-01", ("2026-11-01T05", "2026-11-02T05", None, "2026-11-01")),
        (THREE, "2026-03-29T12:00:00Z", "night", None, ("2026-03-28T21", "2026-03-29T04", "night", "2026-03-28")),
        (THREE, "2026-10-25T12:00:00Z", "night", None, ("2026-10-24T20", "2026-10-25T05", "night", "2026-10-24")),
        (NONE, "2026-10-25T12:00:00Z", "day", "2026-10-24", ("2026-10-24T04", "2026-10-25T05", None, "2026-10-24")),
    ],
)  # fmt: skip
def test_report_is_of_the_shift_that_is_meant(
    calendar: Calendar, now: str, name: str | None, day: str | None, expected: tuple[str, str, Any, str]
) -> None:
    start, end, *rest = expected
    assert span(calendar, now, name, day) == (f"{start}:00:00Z", f"{end}:00:00Z", *rest)


@pytest.mark.parametrize(
    ("calendar", "name", "day", "cure"),
    [
        (THREE, "erly", None, "no shift 'erly'; did you mean early?"),
        (THREE, "x", None, "no shift 'x'; there are: early, late, night, day"),
        (NONE, "early", None, "no shift 'early'; there are: day"),
        (THREE, "late", "2026-11-23", "there was no such shift then"),
        (THREE, None, "2026-11-24", "there was no such shift then"),
        (THREE, "day", "2026-11-24", "2026-11-24 has not begun"),
        (NONE, None, "2026-11-24", "2026-11-24 has not begun"),
        (WEEKDAYS, None, "2026-11-22", "there was no such shift then"),
        (THREE, None, "0001-01-01", "outside of 1971-01-01 to 2261-01-01"),
        (THREE, "day", "9999-12-31", "outside of 1971-01-01 to 2261-01-01"),
    ],
)
def test_shift_that_there_was_not_is_refused_with_a_cure(
    calendar: Calendar, name: str | None, day: str | None, cure: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(cure)):
        span(calendar, "2026-11-23T12:00:00Z", name, day)


# --------------------------------------------------------------------------------------- what it says


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeskBench]:
    """From twelve to four: a stop with an alarm code, short ones, a hole, one that goes on as the shift changes."""
    made = DeskBench(tmp_path, FakeClock(NOON), CONFIG)
    made.put("plc.alarm", 0, 0)
    made.run(0, 600)
    made.put("plc.alarm", 600, 17)
    made.run(600, 905, status=3)
    made.put("plc.alarm", 905, 0)
    made.run(905, 1_800)
    made.run(1_800, 1_830, status=2)
    made.run(1_830, 2_400)
    made.put("plc.status", 2_400, None, "device_offline")
    made.put("plc.count", 2_400, None, "device_offline")
    made.run(2_700, HOUR - 300)
    made.run(HOUR - 300, 2 * HOUR, status=3)
    made.run(2 * HOUR, 4 * HOUR - 60)
    made.run(4 * HOUR - 60, 4 * HOUR, status=2)
    await made.close_at(4 * HOUR)
    await made.tell("scrap", at=700, count=3, reason="dimension/too long")
    await made.tell("note", at=800, text="a new die", by="bob")
    await made.tell("note", at=900, text="never mind")
    await made.tell("withdraw", entry=3)
    await made.tell("reason", at=HOUR, until=HOUR + 60, reason="guard open")
    await made.close_at(4 * HOUR + 6)
    yield made
    await made.thread.close()


async def report(bench: DeskBench, **arguments: Any) -> Data:
    await bench.thread.flush()
    return await gathered(bench.summarizer.site, bench.thread, {"machine": "press"} | arguments, bench.clock.now())


def stated(data: Data) -> Data:
    return {name: value for name, value in data.items() if name not in OF_REVISION}


async def test_window_and_hours_are_those_of_the_records(bench: DeskBench) -> None:
    data = await report(bench, shift="early")
    (shift,) = [one for one in bench.truth("shift").values() if one["machine"] == "press"]
    hours = {one["start"]: one for one in bench.truth("1h").values() if one["machine"] == "press"}
    assert stated(data["window"]) == stated(shift)
    assert stated(data["hours"][-1]) == stated(hours[clock_time(0)])
    assert data["hours"][-1]["quantity"]["scrap"] == 3
    late = await report(bench, shift="late")
    assert [stated(one) for one in late["hours"][:3]] == [stated(hours[clock_time(n * HOUR)]) for n in (1, 2, 3)]
    assert previous_of(data["window"])["revision"] == 0


async def test_stops_are_those_of_the_records_also_one_that_goes_on_as_the_shift_ends(bench: DeskBench) -> None:
    records = {one["start"]: one for one in bench.last("downtime") if one["machine"] == "press"}
    assert list(records) == [clock_time(second) for second in (600, HOUR - 300, 4 * HOUR - 60)]
    early, late = await report(bench, shift="early"), await report(bench, shift="late")
    assert [stated(stop) for stop in early["downtime"]] == [
        stated(records[clock_time(600)]), stated(records[clock_time(HOUR - 300)])
    ]  # fmt: skip
    assert early["downtime"][1]["end"] == clock_time(2 * HOUR)
    assert early["downtime"][1]["reason"] == "guard open"
    assert stated(late["downtime"][0]) == stated(records[clock_time(HOUR - 300)])
    assert late["downtime"][-1]["open"] is True


async def test_states_cover_the_time_and_sum_to_it(bench: DeskBench) -> None:
    for name, end in (("early", HOUR), ("late", 4 * HOUR + 6)):
        data = await report(bench, shift=name)
        states = data["states"]
        assert (states[0]["start"], states[-1]["end"]) == (data["start"], clock_time(end))
        assert all(one["end"] == other["start"] and one["state"] != other["state"] for one, other in pairwise(states))
        sums: dict[str, float] = {}
        for one in states:
            sums[one["state"]] = sums.get(one["state"], 0) + (parse(one["end"]) - parse(one["start"])) / S
        assert sums == {state: time for state, time in data["window"]["time_s"].items() if time}


async def test_counts_end_at_what_the_window_has(bench: DeskBench) -> None:
    data = await report(bench, shift="early")
    last, quantity = data["counts"][-1], data["window"]["quantity"]
    assert (last["time"], last["produced"], last["good"]) == (data["end"], quantity["produced"], quantity["good"])
    assert (data["counts"][0]["time"], data["counts"][0]["produced"]) == (data["start"], 0)
    assert len(data["counts"]) <= 241
    assert data["counts"] == sorted(data["counts"], key=lambda point: point["time"])


async def test_notes_are_those_of_its_time_that_still_count(bench: DeskBench) -> None:
    assert (await report(bench, shift="early"))["notes"] == [
        {"time": clock_time(800), "by": "bob", "text": "a new die"}
    ]
    assert (await report(bench, shift="late"))["notes"] == []


async def test_report_of_the_running_shift_ends_now(bench: DeskBench) -> None:
    data = await report(bench)
    assert (data["shift"], data["now"], data["window"]["end"]) == ("late", clock_time(4 * HOUR + 6), data["now"])
    assert data["end"] == "2026-11-23T21:00:00Z"
    assert data["hours"][-1]["end"] == data["now"]


async def test_report_of_a_time_without_readings_says_that_nothing_is_known(bench: DeskBench) -> None:
    data = await report(bench, shift="night", day="2026-11-20")
    assert data["window"]["time_s"]["unknown"] == 8 * HOUR
    assert [one["state"] for one in data["states"]] == ["unknown"]
    assert (data["downtime"], data["notes"]) == ([], [])


async def test_hours_of_a_day_on_which_the_clocks_change_are_as_many_as_it_has(bench: DeskBench) -> None:
    for day, hours in (("2026-03-28", 23), ("2026-10-24", 25), ("2026-10-25", 24)):
        data = await report(bench, shift="day", day=day)
        assert (data["shift"], data["production_day"], len(data["hours"])) == (None, day, hours)
        assert data["window"]["time_s"]["unknown"] == sum(hour["time_s"]["unknown"] for hour in data["hours"])
        assert sum(data["window"]["time_s"].values()) == hours * HOUR


async def test_hours_of_a_shift_that_begins_between_them_are_cut_to_it(tmp_path: Path) -> None:
    text = CONFIG.replace('{from: "06:00", to: "14:00"}', '{from: "06:00", to: "13:20"}')
    bench = DeskBench(tmp_path, FakeClock(NOON), text.replace('{from: "14:00"', '{from: "13:20"'))
    bench.run(0, 2 * HOUR)
    await bench.close_at(2 * HOUR)
    early, late = await report(bench, shift="early"), await report(bench, shift="late")
    assert (early["hours"][-1]["start"], early["hours"][-1]["end"]) == (clock_time(0), clock_time(1_200))
    assert (late["hours"][0]["start"], late["hours"][0]["end"]) == (clock_time(1_200), clock_time(HOUR))
    assert late["hours"][0]["quantity"]["produced"] == 2_400
    await bench.thread.close()


async def test_machine_that_there_is_not_is_refused_with_a_cure(bench: DeskBench) -> None:
    with pytest.raises(ConfigError, match=r"no machine 'Press'.*did you mean press"):
        await report(bench, machine="Press")


async def test_counter_that_was_replaced_long_before_its_last_readings_is_no_jump(tmp_path: Path) -> None:
    bench = DeskBench(tmp_path, FakeClock(NOON), CONFIG)
    bench.run(0, HOUR - 100, step=60)
    bench.made = 60_000
    bench.run(HOUR - 90, 2 * HOUR, step=60)
    await bench.close_at(2 * HOUR)
    await bench.tell("counter-replaced", at=HOUR - 95, tag="plc.count", value=60_000)
    data = await report(bench, shift="late")
    assert data["window"]["quantity"]["quarantined"] == 0
    assert data["window"]["quantity"]["produced"] == 3_600
    await bench.thread.close()


# ------------------------------------------------------------------------------ from agent, and from its folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path, 1)
    yield made
    made.close()


def yesterday(folder: Folder) -> str:
    """A store with readings of yesterday, from eight in the morning (UTC) to noon; the day."""
    day = (datetime.now(UTC) - timedelta(days=1)).date()
    begin = parse(f"{day}T08:00:00Z")
    with Store(folder.data) as store:
        store.begin(begin)
        ids = store.register([("plc.count", True), ("plc.status", True), ("plc.level", False)])
        rows: list[Any] = []
        for second in range(0, 4 * HOUR, 10):
            stopped = 600 <= second < 1_200
            rows.append((ids["plc.count"], begin + second * S, second, 0, None, None, 1, None, None))
            rows.append((ids["plc.status"], begin + second * S, 2 if stopped else 1, 0, None, None, 1, None, None))
        store.append(rows, begin + 4 * HOUR * S)
    folder.change("{1: producing}", "{1: producing, 2: delay}")
    return day.isoformat()


def test_report_is_the_same_from_the_running_agent_and_from_its_folder(folder: Folder) -> None:
    day = yesterday(folder)
    agent = folder.run_agent()
    until(lambda: (folder.data / "agent.sock").exists(), "the agent listens")
    live = folder.lines("report", "press", "--day", day)
    agent.terminate()
    agent.communicate()
    after = folder.lines("report", "press", "--day", day)
    assert live[0].pop("now") < after[0].pop("now")
    assert live == after
    assert live[0]["window"]["quantity"]["produced"] == 4 * HOUR - 10
    assert live[0]["window"]["time_s"]["delay"] == 600.0


def test_report_page_of_a_real_store_needs_nothing_from_outside(folder: Folder, tmp_path: Path) -> None:
    day = yesterday(folder)
    run = folder.ask("report", "press", "--day", day, "--html", str(tmp_path / "out.html"))
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "out.html").read_text()
    assert run.stdout.startswith(f"{tmp_path / 'out.html'}: ")
    assert "14390" in re.sub(r"[,\s\u00a0\u202f]", "", page)
    named = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page))
    assert not [one for one in named if not one.startswith(("#", "data:"))]
    assert not re.findall(r"@import|<script[^>]+src|<link|<iframe|http-equiv=.refresh", page)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert all("www.w3.org" in one for one in addresses), "names of XML, which nobody fetches"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["press", "--shift", "early"], 78, "no shift 'early'; there are: day"),
        (["press", "--day", "tomorrow"], 2, "is no date, such as 2026-11-23"),
        (["press", "--day", "2199-01-01"], 78, "has not begun"),
        (["pres"], 78, "no machine 'pres' in the configuration; did you mean press?"),
        (["press", "--html", "/nowhere/out.html"], 1, "/nowhere/out.html: No such file or directory"),
    ],
)
def test_report_that_cannot_be_made_says_so_in_one_line(
    folder: Folder, arguments: list[str], code: int, says: str
) -> None:
    yesterday(folder)
    run = folder.ask("report", *arguments)
    assert run.returncode == code
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert code == 2 or len(run.stderr.splitlines()) == 1


def test_report_without_a_store_says_that_no_agent_has_run(folder: Folder) -> None:
    run = folder.ask("report", "press")
    assert run.returncode == 1
    assert "no agent has run" in run.stderr
    assert not folder.data.exists()


def test_report_from_the_folder_leaves_the_folder_as_it_was(folder: Folder) -> None:
    yesterday(folder)
    with Store(folder.data, create=False) as store:
        before = (store.fact("seen"), store.readings.count(), store.delivery.figures())
    assert json.loads(folder.ask("report", "press", "--json").stdout)["machine"] == "press"
    with Store(folder.data, create=False) as store:
        assert (store.fact("seen"), store.readings.count(), store.delivery.figures()) == before
