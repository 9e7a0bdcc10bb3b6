"""How many rows a second become durable, beside bare `executemany` into the same tables."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge_agent.clock import SystemClock
from edge_agent.contract import NS_PER_S
from edge_agent.store import Row, Store, StoreThread
from edge_agent.store.files import DATABASE, PRAGMAS

from .figures import Figure

GROUP = 5_000
"""Rows in one commit: 10,000 readings a second, a commit each 500 ms."""
SMALL_GROUP = 50
"""A gateway with a hundred readings a second."""
TAGS = 10_000
_COLUMNS = "tag, time, value, quality, cause, received, machine, source, server"
_INSERT = f"INSERT INTO reading ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def run(folder: Path, seconds: float, group: int = GROUP) -> list[Figure]:
    """Rows a second and bytes a row; both stores take turns, group by group."""
    bare = _bare(folder / "bare")
    with closing(bare):
        took, theirs_s = asyncio.run(_take_turns(folder / "ours", bare, seconds, group))
    size = sum(path.stat().st_size for path in (folder / "ours").glob(DATABASE))
    rows, ours_s = len(took) * group, sum(took)
    return [
        Figure("Store, time for a durable row", ours_s / rows * 1e6, "µs", theirs_s / rows * 1e6, "µs, bare sqlite3"),
        Figure("Store, durable rows per second", rows / ours_s, "1/s"),
        Figure("Store, disk for a reading", size / rows, "bytes"),
        *(figure for some in (group, SMALL_GROUP) for figure in _commits(folder / f"{some}", seconds / 4, some)),
    ]


def _commits(folder: Path, seconds: float, group: int) -> list[Figure]:
    """How long a commit takes, and what is written to the disk for each reading, with its log and its checkpoints."""
    took, written = asyncio.run(_commit(folder, seconds, group))
    ordered = sorted(took)
    return [
        Figure(f"Store, commit of {group:,} readings, median", ordered[len(took) // 2] * 1e3, "ms"),
        Figure(f"Store, commit of {group:,} readings, 99 %", ordered[len(took) * 99 // 100] * 1e3, "ms"),
        Figure(f"Store, written for a reading, {group:,} a commit", written / (len(took) * group), "bytes"),
    ]


async def _commit(folder: Path, seconds: float, group: int) -> tuple[list[float], int]:
    store = Store(folder)
    store.begin(time.time_ns())
    thread = StoreThread(store, SystemClock(), NS_PER_S // 2)
    took: list[float] = []
    before, end = _written(), time.monotonic() + seconds
    try:
        for rows in rows_of(group):
            began = time.perf_counter()
            thread.append(rows)
            await thread.flush()
            took.append(time.perf_counter() - began)
            if time.monotonic() >= end:
                break
    finally:
        await thread.close()
    return took, _written() - before


def _written() -> int:
    """Bytes that this process has had written to disks so far."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def rows_of(group: int) -> Iterator[list[Row]]:
    """Groups of readings as they come from many devices, each value another than before."""
    start = time.time_ns()
    number = 0
    while True:
        now = start + number // TAGS * NS_PER_S
        yield [(n % TAGS + 1, now, n * 7 % 65536, 0, None, None, 0, None, None) for n in range(number, number + group)]
        number += group


async def _take_turns(folder: Path, bare: sqlite3.Connection, seconds: float, group: int) -> tuple[list[float], float]:
    store = Store(folder)
    store.begin(time.time_ns())
    thread = StoreThread(store, SystemClock(), NS_PER_S // 2)
    took: list[float] = []
    theirs_s = 0.0
    end = time.monotonic() + seconds
    try:
        for rows in rows_of(group):
            began = time.perf_counter()
            thread.append(rows)
            await thread.flush()
            took.append((turn := time.perf_counter()) - began)
            _insert(bare, rows)
            theirs_s += time.perf_counter() - turn
            if time.monotonic() >= end:
                return took, theirs_s
    finally:
        await thread.close()
    raise AssertionError("the groups have no end")


def _bare(folder: Path) -> sqlite3.Connection:
    Store(folder).close()
    db = sqlite3.connect(folder / DATABASE, isolation_level=None)
    for pragma in PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    return db


def _insert(db: sqlite3.Connection, rows: list[Row]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany(_INSERT, rows)
    db.execute("COMMIT")
