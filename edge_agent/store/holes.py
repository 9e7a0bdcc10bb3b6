"""Holes that an outage left in the readings, and what devices remember of them: asked for once, put in with care."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edge_agent.contract import Quality
from edge_agent.store.readings import Readings, Row, Step

OUTAGES = ("device_offline", "agent_down")
"""The causes of BAD readings that say no more than that nobody looked; a device's own history supersedes them."""

_COLUMNS = "hole.id, tag.name, start, reached, until"


class Hole(NamedTuple):
    """A time of one tag of which the device's history has not been read to the end."""

    id: int
    tag: str
    start: int
    """The first moment of which nothing is known, integer nanoseconds since 1970 UTC."""
    reached: int
    """Everything before this has been read."""
    until: int


class Holes:
    """The holes of a store. Every method belongs to the store's thread; those that write, to a transaction."""

    def __init__(self, connection: sqlite3.Connection, readings: Readings) -> None:
        self._connection = connection
        self._readings = readings

    def open(self, tag: int, start: int, since: int, until: int) -> None:
        """Remember that the history of [since, until) is to be read; nothing is known from `start` on."""
        self._connection.execute(
            "INSERT INTO hole (tag, start, since, reached, until, closed) VALUES (?, ?, ?, ?, ?, 0)",
            (tag, start, since, since, until),
        )

    def pending(self, tags: Iterable[str]) -> list[Hole]:
        """The holes of these tags that are still to be read, oldest first."""
        wanted = set(tags)
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM hole JOIN tag ON tag.id = hole.tag WHERE closed = 0 ORDER BY until, hole.id"  # noqa: S608 - names are ours
        )
        return [hole for hole in map(Hole._make, found) if hole.tag in wanted]

    def before(self, tag: str, time: int) -> Step | None:
        """The last good reading before a time, of a tag that a machine draws on."""
        steps = [step for step in self._readings.steps(tag, time, time, 1) if step[2] < Quality.BAD]
        return steps[-1] if steps else None

    def fill(self, hole: Hole, rows: Sequence[Row], reached: int) -> None:
        """Put in what the device remembered of a hole up to `reached`."""
        self._readings.insert(rows)
        self._connection.execute("UPDATE hole SET reached = ? WHERE id = ?", (reached, hole.id))

    def close(self, hole: Hole, known_from: int | None) -> None:
        """Ask no more. What is known from `known_from` on supersedes the BAD readings that the outage wrote there.

        A hole of which nothing was told is forgotten: a link that comes and goes must not fill the disk with them.
        """
        if known_from is None:
            self._connection.execute("DELETE FROM hole WHERE id = ?", (hole.id,))
            return
        self._connection.execute(
            "DELETE FROM reading WHERE machine = 1 AND tag = (SELECT id FROM tag WHERE name = ?) "
            "AND time >= ? AND time < ? AND quality = ? AND cause IN (?, ?)",
            (hole.tag, max(hole.start, known_from), hole.until, int(Quality.BAD), *OUTAGES),
        )
        self._connection.execute("UPDATE hole SET closed = 1 WHERE id = ?", (hole.id,))

    def start_of(self, tag: str, first: int) -> int | None:
        """The start of the hole in which late readings of a tag begin; None where they begin in none."""
        row = self._connection.execute(
            "SELECT start FROM hole JOIN tag ON tag.id = hole.tag WHERE tag.name = ? AND since <= ? AND until > ? "
            "ORDER BY start LIMIT 1",
            (tag, first, first),
        ).fetchone()
        return None if row is None else int(row[0])

    def prune(self, before: int) -> None:
        """Forget holes that ended before `before`."""
        self._connection.execute("DELETE FROM hole WHERE until < ?", (before,))
