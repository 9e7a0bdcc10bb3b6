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
TAGS = 10_000
_COLUMNS = "tag, time, value, quality, cause, received, machine, source, server"
_INSERT = f"INSERT INTO reading ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


def run(folder: Path, seconds: float, group: int = GROUP) -> list[Figure]:
    """Rows a second and bytes a row; both stores take turns, group by group."""
    bare = _bare(folder / "bare")
    with closing(bare):
        ours_s, theirs_s, groups = asyncio.run(_take_turns(folder / "ours", bare, seconds, group))
    size = sum(path.stat().st_size for path in (folder / "ours").glob(DATABASE))
    rows = groups * group
    return [
        Figure("Store, time for a durable row", ours_s / rows * 1e6, "µs", theirs_s / rows * 1e6, "µs, bare sqlite3"),
        Figure("Store, durable rows per second", rows / ours_s, "1/s"),
        Figure("Store, disk for a reading", size / rows, "bytes"),
    ]


def rows_of(group: int) -> Iterator[list[Row]]:
    """Groups of readings as they come from many devices, each value another than before."""
    start = time.time_ns()
    number = 0
    while True:
        now = start + number // TAGS * NS_PER_S
        yield [(n % TAGS + 1, now, n * 7 % 65536, 0, None, None, 0, None, None) for n in range(number, number + group)]
        number += group


async def _take_turns(folder: Path, bare: sqlite3.Connection, seconds: float, group: int) -> tuple[float, float, int]:
    store = Store(folder)
    store.begin(time.time_ns())
    thread = StoreThread(store, SystemClock(), NS_PER_S // 2)
    ours_s = theirs_s = 0.0
    groups = 0
    try:
        for rows in rows_of(group):
            began = time.perf_counter()
            thread.append(rows)
            await thread.flush()
            ours_s += (turn := time.perf_counter()) - began
            _insert(bare, rows)
            theirs_s += time.perf_counter() - turn
            groups += 1
            if ours_s + theirs_s >= seconds:
                return ours_s, theirs_s, groups
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
