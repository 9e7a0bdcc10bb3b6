"""Whatever people tell, and whenever: in the end the records say what readings and entries say, computed at once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from desk_bench import CONFIG, DeskBench, clock_time
from fakes import FakeClock, S
from test_summarizer import NOON

from edge_agent import production, record
from edge_agent.desk import EntryRefused
from edge_agent.entries import KINDS
from edge_agent.production import COUNTER_LOOKBACK_READINGS, History, WindowData
from edge_agent.production.downtime import stops_of
from edge_agent.production.jobs import jobs_of
from edge_agent.timestamps import parse

Record = dict[str, Any]
LONG = 5_400
OF_REVISION = {"revision", "revised_because", "previous", "final", "revisable_until"}
LABELS = {"job", "downtime", "segments", "product"}
SHORT = CONFIG.replace("summarize: [1 min, 1 h, shift, job]", "summarize: [1 min, 10 min, 1 h, shift]")


def readings(rng: random.Random) -> list[tuple[float, str, Any, str | None]]:
    """The readings of an hour and a half with stops, holes, resets and jumps, in order of time."""
    rows: list[tuple[float, str, Any, str | None]] = []
    count = second = 0
    while second < LONG:
        what = rng.choice(["run", "run", "run", "stop", "hole", "jump"])
        for _ in range(rng.randrange(2, 40)):
            count = (count + (10 if what == "run" else 0)) % 65_536
            cause = "device_offline" if what == "hole" else None
            rows.append((second, "plc.count", None if cause else count, cause))
            rows.append((second, "plc.status", None if cause else (3 if what == "stop" else 1), cause))
            rows.append((second, "plc.rejects", None if cause else second // 900, cause))
            rows.append((second, "plc.alarm", None if cause else (17 if what == "stop" else 0), cause))
            second += 10
        if what == "jump":
            count = rng.randrange(0, 65_536)
    return rows


async def tell_something(bench: DeskBench, rng: random.Random, now: float) -> None:
    """One entry of any kind, for a time until now."""
    at, kind = rng.uniform(0, now), rng.choice(KINDS)
    reason = rng.choice(["guard open", "planned/retooling", "hydraulics/low pressure"])
    until = min(now, at + rng.uniform(1, 900)) if kind == "reason" else at + rng.uniform(1, 900)
    given: dict[str, dict[str, Any]] = {
        "reason": {"until": until, "reason": reason},
        "scrap": {"count": rng.choice([-1, 2, 5]), "reason": rng.choice([None, "size/long"])},
        "rework": {"count": 2},
        "correction": {"count": rng.choice([-3, 4]), "quantity": rng.choice(["produced", "scrap"])},
        "planned-stop": {"until": until},
        "job-start": {"job": rng.choice(["A", "B"]), "product": rng.choice([None, "X"])},
        "job-end": {},
        "note": {"text": "x"},
        "counter-replaced": {"tag": "plc.count", "value": rng.choice([None, 0, 40_000])},
        "withdraw": {"entry": rng.randrange(1, bench.store.entries.newest() + 2)},
    }
    try:
        await bench.tell(kind, at=at, **given[kind])
    except EntryRefused:
        assert kind in ("withdraw", "job-end", "reason")


def computed(bench: DeskBench, windows: list[tuple[int, int]], known: int) -> tuple[list[WindowData], History]:
    site = bench.summarizer.site
    machine, since = site.basis.machines["press"], NOON - 86_400 * S
    rows = bench.store.readings.steps_of(machine.tags, since, known, COUNTER_LOOKBACK_READINGS)
    entries = bench.store.entries.of("press", since, known)
    history = History(machine, site.calendar, rows, (NOON, known), known, entries)
    return production.compute(machine, site.calendar, rows, windows, known, entries), history


def stated(data: Record, without: set[str]) -> Record:
    """What a record says, its flags as a set."""
    said = {name: value for name, value in data.items() if name not in OF_REVISION | without}
    return said | {"flags": sorted(data["flags"])}


def check_windows(bench: DeskBench, known: int) -> None:
    site, machine = bench.summarizer.site, bench.summarizer.site.basis.machines["press"]
    said = [
        data
        for data in bench.last("production")
        if data["machine"] == "press" and parse(data["end"]) <= known - 600 * S
    ]
    windows = [(parse(data["start"]), parse(data["end"])) for data in said]
    for data, found in zip(said, computed(bench, windows, known)[0], strict=True):
        fresh = json.loads(record.freeze(record.production_data(machine, site.calendar, data["window"], found)))
        labels = LABELS if data["window"].endswith("min") else set()
        assert stated(data, labels) == stated(fresh, labels), data["key"]
    assert len(said) > 60


def check_stops(bench: DeskBench, known: int) -> None:
    _, history = computed(bench, [], known)
    fresh = {
        clock_time((stop.start_ns - NOON) / S): (
            stop.end_ns and (stop.end_ns - NOON) / S,
            stop.reason.name,
            stop.planned,
        )
        for stop in stops_of(history)
    }
    said = {
        data["start"]: (data["end"] and (parse(data["end"]) - NOON) / S, data["reason"], data["planned"])
        for data in bench.last("downtime")
        if data["machine"] == "press" and not data["withdrawn"]
    }
    assert said == fresh


def check_jobs(bench: DeskBench, known: int) -> None:
    _, history = computed(bench, [], known)
    fresh = {(job.name, job.start_ns, job.end_ns) for job in jobs_of(history)}
    said = {
        (data["job"], parse(data["start"]), data["end"] and parse(data["end"]))
        for data in bench.last("job")
        if data["machine"] == "press" and not data["withdrawn"]
    }
    assert said == fresh


async def hour_and_a_half(bench: DeskBench, rng: random.Random) -> None:
    """Readings as they come, windows as they close, and now and then somebody says something."""
    rows = readings(rng)
    for now in range(60, LONG, 60):
        while rows and rows[0][0] < now:
            second, tag, value, cause = rows.pop(0)
            bench.put(tag, second, value, cause)
        await bench.close_at(now)
        if rng.random() < 0.25:
            await tell_something(bench, rng, now)
    for second in range(LONG, LONG + 300, 10):
        await bench.close_at(second)


@pytest.mark.parametrize("seed", range(3))
async def test_records_say_in_the_end_what_readings_and_entries_say(tmp_path: Path, seed: int) -> None:
    bench = DeskBench(tmp_path, FakeClock(NOON), SHORT)
    try:
        await hour_and_a_half(bench, random.Random(seed))
        assert bench.store.entries.reopened("press") == []
        known = bench.clock.now()
        check_windows(bench, known)
        check_stops(bench, known)
        check_jobs(bench, known)
    finally:
        await bench.thread.close()
