"""Readings in the database: appended in groups, read back as step functions by tag and time."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from edge_agent.contract import NS_PER_S, Quality, Value
from edge_agent.store.faults import damage
from edge_agent.store.values import fitting, unpack

Row = tuple[int, int, Any, int, str | None, int | None, int, int | None, int | None]
"""What is inserted: tag id, time, cell, quality, cause, received (None: as time), 1 when a machine draws on the tag.

Then how long after `time` the device's own time and its server's are, in nanoseconds; None where it gave none.
"""

Step = tuple[int, Value, int, str | None]
"""What a step function is made of: time, value, quality, cause."""

_ROWS_PER_INSERT = 100
_ARRIVAL_NS = 10 * NS_PER_S
_STEP = "SELECT time, value, quality, cause FROM reading WHERE machine = 1 AND tag = ? AND "


_COLUMNS = ("tag", "time", "value", "quality", "cause", "received", "machine", "source", "server")
_EMPTY = {3: 0, 4: None, 5: None, 6: 0, 7: None, 8: None}
"""What most rows have in a column: where all rows of an insert do, it is written out and not bound."""


@cache
def _insert_sql(rows: int, empty: tuple[int, ...]) -> str:
    written = {0: "0", None: "NULL"}
    one = ", ".join(written[_EMPTY[place]] if place in empty else "?" for place in range(len(_COLUMNS)))
    return f"INSERT INTO reading ({', '.join(_COLUMNS)}) VALUES " + ", ".join([f"({one})"] * rows)  # noqa: S608 - names are ours


_NEWEST = (
    "(SELECT id FROM reading AS newest WHERE newest.machine = 1 AND newest.tag = reading.tag AND newest.quality < {} "
    "ORDER BY newest.time DESC, newest.id DESC LIMIT 1)"
)
_PRUNE = (
    "DELETE FROM reading WHERE id IN (SELECT id FROM reading WHERE id < ? ORDER BY id LIMIT ?) "  # noqa: S608 - ours
    f"AND NOT (machine = 1 AND id IN ({_NEWEST.format(3)}, {_NEWEST.format(2)}))"
)


class StoredReading(NamedTuple):
    """One reading as people list it; `received` is None where it equals `time`, the last two where none was given."""

    id: int
    tag: str
    time: int
    value: Value
    quality: Quality
    cause: str | None
    received: int | None
    source_time: int | None
    server_time: int | None


class Arrived(NamedTuple):
    """Readings of one tag: the first and the last time among them, how many, and whether all are BAD."""

    tag: str
    first: int
    last: int
    readings: int
    all_bad: bool


class Readings:
    """The readings of a store. Every method belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last_arrival = 0

    def register(self, tags: Iterable[tuple[str, bool]]) -> dict[str, int]:
        """The ids of tags by name, given each name and whether a machine draws on it; new names get new ids."""
        db = self._connection
        known = {name: (number, machine) for number, name, machine in db.execute("SELECT id, name, machine FROM tag")}
        for name, machine in tags:
            if name not in known:
                cursor = db.execute("INSERT INTO tag (name, machine) VALUES (?, ?)", (name, int(machine)))
                known[name] = (cursor.lastrowid, int(machine))
            elif machine and not known[name][1]:
                # A machine draws on this tag from now on: its earlier readings join the index.
                number = known[name][0]
                db.execute("UPDATE tag SET machine = 1 WHERE id = ?", (number,))
                db.execute("UPDATE reading SET machine = 1 WHERE tag = ?", (number,))
        return {name: number for name, (number, _) in known.items()}

    def append(self, rows: Sequence[Row], now: int) -> None:
        """Insert rows in order of arrival."""
        db = self._connection
        self.insert(rows)
        if rows and now - self._last_arrival >= _ARRIVAL_NS:
            self._last_arrival = now
            db.execute("INSERT OR IGNORE INTO arrival SELECT ?, max(id) FROM reading", (now,))

    def insert(self, rows: Sequence[Row]) -> None:
        """Insert rows, without a note of when they arrived."""
        for start in range(0, len(rows), _ROWS_PER_INSERT):
            self._insert(rows[start : start + _ROWS_PER_INSERT])

    def _insert(self, rows: Sequence[Row]) -> None:
        """Insert some rows with one statement, which costs a quarter of a statement for each.

        Columns that are empty in all of them are not bound: sqlite3 spends more on a None than on all the numbers.
        """
        columns = [*zip(*rows, strict=True)]
        count = len(rows)
        empty = tuple(place for place, none in _EMPTY.items() if columns[place].count(none) == count)
        bound = [column for place, column in enumerate(columns) if place not in empty]
        cells: list[Any] = [None] * (len(bound) * len(rows))
        for place, column in enumerate(bound):
            cells[place :: len(bound)] = column
        try:
            self._connection.execute(_insert_sql(len(rows), empty), cells)
        except (OverflowError, UnicodeEncodeError):  # rare, so they are looked for only now
            self._insert([(*row[:2], fitting(row[2]), row[3], fitting(row[4]), *row[5:]) for row in rows])

    def mark_down(self, alive: int, cause: str) -> None:
        """Say that nothing is known of any tag after `alive`, the agent's last sign of life."""
        db = self._connection
        for tag, machine in db.execute("SELECT id, machine FROM tag").fetchall():
            last = self._last(tag) if machine else None
            if machine and (last is None or last[1] == Quality.BAD):
                continue
            time = max(alive, last[0] if last else 0) + 1
            self._insert([(tag, time, None, int(Quality.BAD), cause, None, machine, None, None)])

    def mark_misconfigured(self, devices: Collection[str], now: int) -> None:
        """Say that from now on nothing is known of the tags of these devices, because a fault disables them."""
        for tag, machine, name in self._connection.execute("SELECT id, machine, name FROM tag").fetchall():
            if name.partition(".")[0] in devices:
                last = self._last(tag)
                time = now if last is None else max(now, last[0] + 1)
                self._insert([(tag, time, None, int(Quality.BAD), "misconfigured", None, machine, None, None)])

    def newest_good(self, tag: str) -> int | None:
        """The time of the newest reading with a value of a machine's tag."""
        sql = _STEP + "quality < 2 ORDER BY time DESC, id DESC LIMIT 1"
        found = self._connection.execute(sql, (self._number(tag),)).fetchone()
        return None if found is None else int(found[0])

    def _last(self, tag: int) -> tuple[int, int] | None:
        found: tuple[int, int] | None = self._connection.execute(
            "SELECT time, quality FROM reading WHERE machine = 1 AND tag = ? ORDER BY time DESC, id DESC LIMIT 1",
            (tag,),
        ).fetchone()
        if found is not None and not all(isinstance(each, int) for each in found):
            raise damage("a reading's time or quality is no number")
        return found

    def steps(self, tag: str, start: int, end: int, good_before: int = 0) -> list[Step]:
        """The readings of a machine's tag in [start, end), in order of time, with what holds at the start.

        Begins with the last reading before `start`, and reaches back over `good_before` good ones where there are.
        """
        number = self._number(tag)
        if number is None:
            return []
        before = self._connection.execute(
            _STEP + "time < ? ORDER BY time DESC, id DESC LIMIT 1", (number, start)
        ).fetchall()
        before += self._connection.execute(
            _STEP + "time < ? AND quality < 2 ORDER BY time DESC, id DESC LIMIT ?", (number, start, good_before)
        ).fetchall()
        since = min([start, *(step[0] for step in before)])
        found = self._connection.execute(_STEP + "time >= ? AND time < ? ORDER BY time, id", (number, since, end))
        return [(time, unpack(cell), quality, cause) for time, cell, quality, cause in found]

    def steps_of(self, tags: Iterable[str], start: int, end: int, good_before: int = 0) -> dict[str, list[Step]]:
        """The steps of each of these machines' tags; see `steps`."""
        return {tag: self.steps(tag, start, end, good_before) for tag in tags}

    def newest(self, tag: str) -> Step | None:
        """The newest reading of a machine's tag."""
        number = self._number(tag)
        sql = _STEP + "time > 0 ORDER BY time DESC, id DESC LIMIT 1"
        found = None if number is None else self._connection.execute(sql, (number,)).fetchone()
        return None if found is None else (found[0], unpack(found[1]), found[2], found[3])

    def newest_of(self, tags: Iterable[str]) -> dict[str, Step | None]:
        """The newest reading of each of these machines' tags."""
        return {tag: self.newest(tag) for tag in tags}

    def first_time(self, tags: Iterable[str]) -> int | None:
        """The time of the oldest reading of these machine's tags; None when there is none."""
        times = []
        for tag in tags:
            row = self._connection.execute(
                "SELECT time FROM reading WHERE machine = 1 AND tag = (SELECT id FROM tag WHERE name = ?) "
                "ORDER BY time LIMIT 1",
                (tag,),
            ).fetchone()
            times += [row[0]] if row else []
        return min(times, default=None)

    def first_good(self, tags: Iterable[str]) -> int | None:
        """The time of the oldest reading with a value of these machine's tags; None when there is none."""
        return min((time for tag in tags if (time := self.next_good(tag, 0)) is not None), default=None)

    def last_id(self) -> int:
        """The id of the newest reading; 0 without any."""
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM reading").fetchone()[0])

    def arrived(self, after: int, before: int) -> list[Arrived]:
        """Of each machine's tag the readings that arrived after the id `after` and are of a time before `before`."""
        found = self._connection.execute(
            "SELECT tag.name, min(time), max(time), count(*), min(quality) >= 2 FROM reading NOT INDEXED "
            "JOIN tag ON tag.id = reading.tag "
            "WHERE reading.id > ? AND reading.machine = 1 AND time < ? GROUP BY reading.tag ORDER BY 1",
            (after, before),
        )
        return [Arrived(name, first, last, count, bool(bad)) for name, first, last, count, bad in found]

    def refuse(self, tag: str, after: int, before: int) -> Arrived:
        """Delete the readings of a tag that arrived after the id `after` and are of a time before `before`."""
        where = "machine = 1 AND tag = ? AND id > ? AND time < ?"
        given = (self._number(tag), after, before)
        first, last, count, bad = self._connection.execute(
            f"SELECT min(time), max(time), count(*), min(quality) >= 2 FROM reading WHERE {where}",  # noqa: S608 - ours
            given,
        ).fetchone()
        self._connection.execute(f"DELETE FROM reading WHERE {where}", given)  # noqa: S608 - ours
        return Arrived(tag, first or before, last or before, count, bool(bad))

    def next_good(self, tag: str, time: int) -> int | None:
        """The time of a machine's tag's first good reading after `time`."""
        row = self._connection.execute(
            "SELECT time FROM reading WHERE machine = 1 AND tag = ? AND time > ? AND quality < 2 ORDER BY time LIMIT 1",
            (self._number(tag), time),
        ).fetchone()
        return row[0] if row else None

    def page(
        self, *, tags: Sequence[str] = (), since: int | None = None, until: int | None = None, after: int = 0,
        limit: int = 1_000,
    ) -> list[StoredReading]:  # fmt: skip
        """Readings as stored, in order of arrival, from the one after the id `after`; times in [since, until)."""
        where, given = ["reading.id > ?"], [self._reading_before(since, after)]
        if tags:
            where.append(f"tag.name IN ({', '.join('?' * len(tags))})")
            given += list(tags)  # type: ignore[arg-type]
        if since is not None:
            where.append("time >= ?")
            given.append(since)
        if until is not None:
            where.append("time < ?")
            given.append(until)
        sql = (
            "SELECT reading.id, tag.name, time, value, quality, cause, received, time + source, time + server "  # noqa: S608 - names are ours
            f"FROM reading JOIN tag ON tag.id = reading.tag WHERE {' AND '.join(where)} ORDER BY reading.id LIMIT ?"
        )
        return [
            StoredReading(number, tag, time, unpack(cell), Quality(quality), *rest)
            for number, tag, time, cell, quality, *rest in self._connection.execute(sql, (*given, limit))
        ]

    def _reading_before(self, since: int | None, after: int) -> int:
        """An id at or before the first reading that may lie at `since` or later: a minute of arrivals of slack."""
        if since is None:
            return after
        row = self._connection.execute(
            "SELECT reading FROM arrival WHERE time <= ? ORDER BY time DESC LIMIT 1", (since - 60 * NS_PER_S,)
        ).fetchone()
        return max(after, row[0] if row else 0)

    def prune(self, before: int, limit: int) -> int:
        """Delete at most `limit` of the readings that arrived before `before`; how many were deleted.

        Of each machine's tag the newest reading stays, however old, and the newest with a value: a window's start needs
        the one, and the next step of a counter the other.
        """
        db = self._connection
        row = db.execute("SELECT reading FROM arrival WHERE time <= ? ORDER BY time DESC LIMIT 1", (before,)).fetchone()
        if row is None:
            return 0
        cursor = db.execute(_PRUNE, (row[0], limit))
        db.execute("DELETE FROM arrival WHERE time < (SELECT max(time) FROM arrival WHERE time <= ?)", (before,))
        return cursor.rowcount

    def count(self) -> int:
        """About how many readings are stored, without counting them."""
        low = self._connection.execute("SELECT min(id) FROM reading").fetchone()[0]
        high = self._connection.execute("SELECT max(id) FROM reading").fetchone()[0]
        return 0 if low is None else int(high - low + 1)

    def _number(self, tag: str) -> int | None:
        row = self._connection.execute("SELECT id FROM tag WHERE name = ?", (tag,)).fetchone()
        return row[0] if row else None
