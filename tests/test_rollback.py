"""A store that does not know the last that it has said: an older copy, or one that has lost its newest pages."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, S
from test_summarizer import NOON, Bench
from test_summarizer import configuration as configuration

from edge_agent.config import Configuration
from edge_agent.store.files import DATABASE


async def run_on(bench: Bench, start: int, end: int) -> None:
    """A part each second, and windows closed as they are due."""
    for second in range(start, end):
        bench.put("plc.count", second, 1_000 + second)
        bench.put("plc.status", second, 1)
        await bench.clock.advance(second + 1 - (bench.clock.now() - NOON) / S)
        await bench.summarizer.close_due()


def truth(events: list[dict[str, Any]], window: str) -> dict[str, dict[str, Any]]:
    """What a consumer holds: of each key the highest (epoch, revision)."""
    found: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
    for event in events:
        data = event["data"]
        if event["type"] == "edge.production.v1" and data["window"] == window:
            version = (event["epoch"], data["revision"])
            if data["key"] not in found or version >= found[data["key"]][0]:
                found[data["key"]] = (version, data)
    return {key: data for key, (_, data) in found.items()}


@pytest.mark.parametrize("copied", [12, 47, 71])
async def test_parts_that_an_older_copy_counts_again_are_taken_back_where_they_had_been_said(
    tmp_path: Path, configuration: Configuration, copied: int
) -> None:
    clock, folder = FakeClock(NOON), tmp_path / "data"
    bench = Bench(folder, configuration, clock)
    await run_on(bench, 0, copied)
    with sqlite3.connect(tmp_path / "copy") as copy:
        bench.store._connection.backup(copy)
    copy.close()
    await run_on(bench, copied, 133)
    events = bench.events()
    await bench.thread.close()
    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()
    shutil.copyfile(tmp_path / "copy", folder / DATABASE)
    await clock.advance(7)
    bench = Bench(folder, configuration, clock)
    await run_on(bench, 140, 190)
    events += bench.events()
    await bench.thread.close()
    for window, last in (("10s", 180), ("1min", 180)):
        produced = {key[-10:-1]: data["quantity"]["produced"] for key, data in truth(events, window).items()}
        assert sum(produced.values()) == last - 1, produced


@pytest.mark.parametrize("kept", [0, NOON + 10 * S], ids=["nothing is left", "states are left"])
async def test_windows_of_before_a_store_that_knows_of_no_count_stay_as_they_were_said(
    tmp_path: Path, configuration: Configuration, kept: int
) -> None:
    clock, folder = FakeClock(NOON), tmp_path / "data"
    bench = Bench(folder, configuration, clock)
    await run_on(bench, 0, 133)
    events, before = bench.events(), truth(bench.events(), "10s")
    await bench.thread.close()
    with sqlite3.connect(folder / DATABASE) as db:
        counts = "tag = (SELECT id FROM tag WHERE name = 'plc.count')"
        db.execute(f"DELETE FROM reading WHERE {counts} OR time >= ?", (kept,))
        db.execute("DELETE FROM record")
        db.execute("UPDATE progress SET closed_until = ?", (NOON + 60 * S,))
        db.execute("UPDATE fact SET value = value - 5 WHERE name = 'issued'")
        db.execute("UPDATE fact SET value = ? WHERE name = 'alive'", (NOON + 15 * S,))
    db.close()
    await clock.advance(7)
    bench = Bench(folder, configuration, clock)
    await run_on(bench, 140, 190)
    events += bench.events()
    after = truth(events, "10s")
    assert {key: after[key] for key in before} == before
    assert sum(data["quantity"]["produced"] for data in after.values()) == 119 + 39
    await bench.thread.close()
