"""How long the buffer lasts, as it is told beforehand, against what a store really takes."""

from __future__ import annotations

from itertools import cycle
from math import inf
from pathlib import Path

import pytest
from fakes import START, FakeClock, S, row
from test_summarizer import CONFIG as PRESS
from test_summarizer import NOON, Bench, run_machine

from edge_agent.capacity import INDEX_BYTES, READING_BYTES, RECORD_BYTES, capacity, told
from edge_agent.config import load
from edge_agent.store import Draft, Store

CONFIG = """
agent: {{name: gw1, enterprise: acme, site: lyon}}
mqtt: {{url: "mqtt://127.0.0.1:1"}}
buffer: {{max_size: {size}, keep_readings: {readings}, keep_records: {records}}}
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:1
    poll: 1 s
    tags: {{{tags}}}
"""
TAGS = ", ".join(f't{number}: {{address: "holding:{number}"}}' for number in range(1_000))


def hours(folder: Path, size: str = "1 GB", readings: str = "14 d", records: str = "90 d") -> tuple[float, float]:
    text = CONFIG.format(size=size, readings=readings, records=records, tags=TAGS)
    (folder / "all.yaml").write_text(text)
    return capacity(load(folder))


def test_hours_of_room_follow_from_the_rates(tmp_path: Path) -> None:
    busy_h, quiet_h = hours(tmp_path)
    assert busy_h == pytest.approx(0.95e9 / (READING_BYTES * 1_000) / 3_600)
    assert quiet_h == inf, "a thousand values a minute for two weeks are less"


def test_buffer_that_holds_what_is_kept_is_never_reached(tmp_path: Path) -> None:
    assert hours(tmp_path, readings="5 h") == (inf, inf)


def test_machines_count_with_their_index_and_their_records(tmp_path: Path) -> None:
    machine = """
machines:
  press:
    area: hall
    line: a
    state: {tag: plc.t0, map: {1: producing}}
    counts: {produced: {tag: plc.t1, max_rate: 1 /s}}
    planned_run_time_per_item: 1 s
    summarize: [10 s, 1 h]
"""
    text = CONFIG.format(size="1 GB", readings="14 d", records="90 d", tags=TAGS)
    (tmp_path / "all.yaml").write_text(text + machine)
    rate = READING_BYTES * 1_000 + 2 * INDEX_BYTES + RECORD_BYTES * (1 / 10 + 1 / 3_600)
    assert capacity(load(tmp_path)).busy_h == pytest.approx(0.95e9 / rate / 3_600)


@pytest.mark.parametrize("machine", [0, 1])
def test_bytes_of_a_reading_are_those_of_a_store(tmp_path: Path, machine: int) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        store.register([(f"plc.t{number}", bool(machine)) for number in range(100)])
        before = store.room.used()
        for second in range(1_000):
            rows = [
                row(tag + 1, START + second * S, (tag * 7 + second) % 65_536, machine=machine) for tag in range(100)
            ]
            store.append(rows, START + second * S)
        each = (store.room.used() - before) / 100_000
    assert each == pytest.approx(READING_BYTES + machine * INDEX_BYTES, rel=0.25)


async def test_bytes_of_a_record_are_those_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "all.yaml").write_text(PRESS)
    bench = Bench(tmp_path / "data", load(tmp_path / "config"), FakeClock(NOON))
    run_machine(bench, 0, 300)
    await bench.close_at(305)
    made = [one.payload for one in bench.store.records.page(limit=100) if one.type == "production"]
    await bench.thread.close()
    assert len(made) > 20
    with Store(tmp_path / "other") as store:
        store.begin(START)
        before = store.room.used()
        drafts = [
            Draft(
                "production", "edge/v1/acme/lyon/hall/a/press/production/10s", "acme/lyon/hall/a/press", {}, f"k{each}"
            )
            for each in range(1_000)
        ]
        payloads = cycle(made)
        with store.transaction():
            store.issue(drafts, lambda *_: next(payloads), START)
        each = (store.room.used() - before) / len(drafts)
    assert each == pytest.approx(RECORD_BYTES, rel=0.25)


def test_hours_are_told_in_days_where_there_are_many() -> None:
    assert [told(hours) for hours in (0.4, 53.2, 99.9, 100, 480)] == ["0 h", "53 h", "100 h", "4 days", "20 days"]
