"""A day of the simulated plant, second by second: what the records say against what really happened.

An agent polls each second and stores by exception; its readings go through the daemon's code. The truth is asked at
the moments of the polls, for between them nobody looks: a state lasts from a poll to the next.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_agent.backtest import Trial
from edge_agent.config import Configuration, load
from edge_agent.contract import Reading
from edge_agent.intake import Intake, TagState
from edge_agent.simulator.machine import STATUS_CODES, Snapshot
from edge_agent.simulator.plant import Plant
from edge_agent.timestamps import parse, rfc3339

S, MS = 1_000_000_000, 1_000_000
WINDOW_S = 10
SHORT_STOP_S = 10
DAY_STARTS = parse("2026-11-24T05:00:00Z")
"""06:00 in Paris. The first poll comes in the window before it, the last one in the window after the end."""
FIRST_PRODUCED, FIRST_SCRAP = 2**32 - 9_000, 2**16 - 150
"""What the counters show at first: both wrap in the course of the day."""
CONFIGURATION = """
agent: {name: gw1, enterprise: acme, site: lyon, timezone: Europe/Paris}
mqtt: {url: "mqtt://127.0.0.1:1"}
calendar:
  production_day_starts: "06:00"
  shifts: {early: {from: "06:00", to: "14:00"}, late: {from: "14:00", to: "22:00"}, night: {from: "22:00", to: "06:00"}}
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:1
    poll: 1 s
    tags:
      produced: {address: "holding:0", type: uint32}
      scrap: {address: "holding:2", type: uint16}
      status: {address: "holding:3"}
machines:
  machine:
    area: hall
    line: a
    state: {tag: plc.status, map: {1: producing, 2: delay, 3: down, 4: setup, 5: planned_stop, 6: idle}}
    counts:
      produced: {tag: plc.produced, rollover: 4294967296, max_rate: 4 /s}
      scrap: {tag: plc.scrap, rollover: 65536, max_rate: 4 /s}
    planned_run_time_per_item: 800 ms
    short_stop: 10 s
    summarize: [10 s, 1 h, shift, day]
"""
Record = dict[str, Any]
Window = tuple[dict[str, int], int, int]
"""Milliseconds in each state that there was, items produced, and scrap."""


class Day(NamedTuple):
    """What happened, asked at each poll; how long after each full second the polls come; and what the records say."""

    truth: list[Snapshot]
    poll_at_ms: int
    records: list[Record]


class Seen(NamedTuple):
    """What one poll reads."""

    status: int
    produced: int
    scrap: int


def polls_of(name: str, hours: int) -> list[Snapshot]:
    """The truth at each poll, from one window before the day's start to one window after the end."""
    machine = Plant(seed=11).machines[name]
    return [machine.at(second * S) for second in range(hours * 3600 + 2 * WINDOW_S)]


def seen_in(truth: Sequence[Snapshot]) -> list[Seen]:
    return [
        Seen(STATUS_CODES[one.state], (FIRST_PRODUCED + one.produced) % 2**32, (FIRST_SCRAP + one.scrap) % 2**16)
        for one in truth
    ]


def stored(configuration: Configuration, seen: Sequence[Seen], poll_at_ms: int) -> Iterator[str]:
    """The lines of a CSV with what the agent would store: changes, and what holds each 60 s."""
    tags = {tag.name: tag for device in configuration.devices.values() for tag in device.tags}
    states = {
        tag: TagState(tag, number, machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)
        for number, tag in enumerate(tags.values())
    }
    names, intake = list(tags), Intake(states)
    yield "tag,time,value,quality\n"
    for poll, one in enumerate(seen):
        readings = [Reading(tags[f"plc.{name}"], None, value) for name, value in one._asdict().items()]
        for number, time, cell, *_ in intake.accept(readings, DAY_STARTS + (poll - WINDOW_S) * S + poll_at_ms * MS):
            yield f"{names[number]},{rfc3339(time)},{cell},good\n"


async def records_of(folder: Path, seen: Sequence[Seen], poll_at_ms: int = 370) -> list[Record]:
    (folder / "config").mkdir()
    (folder / "config" / "all.yaml").write_text(CONFIGURATION)
    configuration = load(folder / "config")
    (folder / "store").mkdir()
    trial = Trial(configuration, folder / "store")
    await trial.run(stored(configuration, seen, poll_at_ms), "the plant's day")
    return [one["data"] for one in trial.records() if one["type"] == "production"]


def named_by_length(truth: Sequence[Snapshot]) -> list[str]:
    """The state at each poll; of a stop that is shorter than `short_stop`, as long as it was seen: short_stop."""
    named: list[str] = []
    for stopped, run in groupby((one.state for one in truth), key=lambda state: state in ("delay", "down")):
        states = list(run)
        named += ["short_stop"] * len(states) if stopped and len(states) < SHORT_STOP_S else states
    return named


def expected_in(day: Day, length_s: int) -> list[Window]:
    """What each window of this length ought to say, from the day's start on."""
    truth, poll_at_ms, _ = day
    states = named_by_length(truth)
    windows: list[Window] = []
    for first in range(WINDOW_S, len(truth) - 2 * WINDOW_S + 1, length_s):
        last = first + length_s - 1
        # The poll before the window holds until the first one in it, and the last one until the window's end.
        ms = Counter({states[first - 1]: poll_at_ms})
        for state in states[first:last]:
            ms[state] += 1000
        ms[states[last]] += 1000 - poll_at_ms
        before, after = truth[first - 1], truth[last]
        windows.append(
            (
                {state: part for state, part in ms.items() if part},
                after.produced - before.produced,
                after.scrap - before.scrap,
            )
        )
    return windows


def said_in(records: Sequence[Record], window: str, count: int) -> list[Window]:
    """What the first windows of this size say, from the day's start on."""
    chosen = [one for one in records if one["window"] == window and parse(one["start"]) >= DAY_STARTS][:count]
    return [
        (
            {state: round(1000 * seconds) for state, seconds in one["time_s"].items() if seconds},
            one["quantity"]["produced"],
            one["quantity"]["scrap"],
        )
        for one in chosen
    ]


def differences(day: Day, window: str, length_s: int) -> list[str]:
    """Where the records of one size of window are not what happened; empty when all agree."""
    expected = expected_in(day, length_s)
    said = said_in(day.records, window, len(expected))
    found = [f"{len(said)} windows instead of {len(expected)}"] if len(said) != len(expected) else []
    pairs = enumerate(zip(said, expected, strict=False))
    return found + [f"{window} {number}: {one} instead of {other}" for number, (one, other) in pairs if one != other]


@pytest.fixture(scope="module", params=[("press-01", 370), ("packing-cell", 0)], ids=["press-01", "packing-cell"])
def day(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """The day of one machine: polls within the windows for the first, just at their edges for the second."""
    name, poll_at_ms = request.param
    truth = polls_of(name, 24)
    records = asyncio.run(records_of(tmp_path_factory.mktemp("day"), seen_in(truth), poll_at_ms))
    return Day(truth, poll_at_ms, records)


@pytest.mark.parametrize(("window", "length_s"), [("10s", WINDOW_S), ("1h", 3600), ("shift", 28_800), ("day", 86_400)])
def test_records_of_a_day_say_what_really_happened(day: Day, window: str, length_s: int) -> None:
    assert differences(day, window, length_s) == []


def test_windows_of_each_size_hold_every_part_of_the_day_once(day: Day) -> None:
    truth, _, records = day
    for window in ("10s", "1h", "shift", "day"):
        chosen = [one for one in records if one["window"] == window]
        assert sum(one["quantity"]["produced"] for one in chosen) == truth[-1].produced
        assert sum(one["quantity"]["scrap"] for one in chosen) == truth[-1].scrap
    assert truth[-1].produced > 2**32 - FIRST_PRODUCED, "the counter has wrapped"
    assert truth[-1].scrap > 2**16 - FIRST_SCRAP, "and so has that of the rejects"


def test_kpis_of_a_day_are_those_of_what_really_happened(day: Day) -> None:
    ms, produced, scrap = expected_in(day, 86_400)[0]
    record = next(one for one in day.records if one["window"] == "day" and parse(one["start"]) == DAY_STARTS)
    run_ms, busy_ms = ms["producing"], 86_400_000 - ms["planned_stop"]
    assert record["kpi"]["availability"] == round(run_ms / busy_ms, 6)
    assert record["kpi"]["effectiveness"] == round(800 * produced / run_ms, 6)
    assert record["kpi"]["quality_ratio"] == round((produced - scrap) / produced, 6)
    assert record["kpi"]["oee_index"] == round(800 * (produced - scrap) / busy_ms, 6)
    assert record["completeness"]["complete"] is True


def test_polls_of_a_day_find_the_short_stops_and_miss_a_thousandth_of_the_time() -> None:
    truth = polls_of("press-01", 24)
    seen = Counter(one.state for one in truth)
    for state, ns in truth[-1].time_ns.items():
        assert abs(seen[state] - ns / S) < 0.001 * len(truth), state
    short = poll = 0
    for state, run in groupby(one.state for one in truth):
        polls = len(list(run))
        if state in ("delay", "down") and 0 < poll < len(truth) - polls:
            lasted_ns = truth[poll + polls].time_ns[state] - truth[poll - 1].time_ns[state]
            assert (polls < SHORT_STOP_S) == (lasted_ns < SHORT_STOP_S * S)
            short += polls < SHORT_STOP_S
        poll += polls
    assert short > 1000


def mistakes(truth: list[Snapshot], records: list[Record]) -> list[str]:
    return differences(Day(truth, 370, records), "10s", WINDOW_S)


@pytest.mark.parametrize("what", ["status", "produced", "scrap"])
async def test_comparison_fails_when_one_tag_is_a_second_late(what: str, tmp_path: Path) -> None:
    truth = polls_of("press-01", 1)
    seen = seen_in(truth)
    late = [now._replace(**{what: getattr(before, what)}) for now, before in zip(seen, seen[:1] + seen, strict=False)]
    assert mistakes(truth, await records_of(tmp_path, late)) != []


async def test_comparison_fails_when_one_part_is_counted_twice(tmp_path: Path) -> None:
    truth = polls_of("press-01", 1)
    twice = [one._replace(produced=one.produced + (poll > 1800)) for poll, one in enumerate(seen_in(truth))]
    assert len(mistakes(truth, await records_of(tmp_path, twice))) == 1


async def test_comparison_fails_when_two_states_are_swapped(tmp_path: Path) -> None:
    truth = polls_of("press-01", 1)
    swapped = [one._replace(status={3: 4, 4: 3}.get(one.status, one.status)) for one in seen_in(truth)]
    assert len(mistakes(truth, await records_of(tmp_path, swapped))) > 10
