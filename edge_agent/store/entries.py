"""What people told, and what is to be looked at again, in the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edge_agent.entries import Entry, Kind

_COLUMNS = "number, machine, kind, said_by, made, start, until, body"


class Reopened(NamedTuple):
    """A time of one machine that is to be looked at again, and why; `made` is when that was found."""

    id: int
    machine: str
    start: int
    end: int
    why: str
    made: int


class Entries:
    """The entries of a store: appended, never changed. Every method belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def append(
        self, machine: str, kind: Kind, by: str, made: int, start: int, end: int, body: Mapping[str, Any]
    ) -> Entry:
        """Append an entry; within a transaction of the caller."""
        number = self._connection.execute(
            "INSERT INTO entry (machine, kind, said_by, made, start, until, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (machine, kind, by, made, start, end, json.dumps(dict(body), ensure_ascii=False)),
        ).lastrowid
        return Entry(int(number or 0), machine, kind, by, made, start, end, dict(body))

    def of(self, machine: str, since: int, until: int) -> list[Entry]:
        """A machine's entries that overlap [since, until), with the job's before it, and whatever withdraws one."""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM entry WHERE machine = ? AND (kind = 'withdraw' OR (start < ? AND until >= ?)) "  # noqa: S608 - names are ours
            "UNION "
            f"SELECT * FROM (SELECT {_COLUMNS} FROM entry WHERE machine = ? AND start < ? "
            "AND kind IN ('job-start', 'job-end') ORDER BY start DESC, number DESC LIMIT 20) ORDER BY number",
            (machine, until, since, machine, since),
        )
        return [_entry(row) for row in found]

    def numbered(self, number: int) -> Entry | None:
        """One entry; None when there is none of this number."""
        row = self._connection.execute(f"SELECT {_COLUMNS} FROM entry WHERE number = ?", (number,)).fetchone()  # noqa: S608
        return None if row is None else _entry(row)

    def newest(self) -> int:
        """The number of the newest entry; 0 without any."""
        return int(self._connection.execute("SELECT coalesce(max(number), 0) FROM entry").fetchone()[0])

    # ---------------------------------------------------------------------------------- to be looked at again

    def reopen(self, machine: str, start: int, end: int, why: str, made: int) -> None:
        """Remember that [start, end) of a machine is to be looked at again; within a transaction of the caller."""
        self._connection.execute(
            "INSERT INTO reopened (machine, start, until, why, made) VALUES (?, ?, ?, ?, ?)",
            (machine, start, end, why, made),
        )

    def reopened(self, machine: str) -> list[Reopened]:
        """What is to be looked at again of a machine, in the order in which it was found."""
        found = self._connection.execute(
            "SELECT id, machine, start, until, why, made FROM reopened WHERE machine = ? ORDER BY id", (machine,)
        )
        return [Reopened(*row) for row in found]

    def looked_at(self, ids: Iterable[int]) -> None:
        """Forget what has been looked at; within a transaction of the caller."""
        self._connection.executemany("DELETE FROM reopened WHERE id = ?", [(each,) for each in ids])


def _entry(row: tuple[Any, ...]) -> Entry:
    number, machine, kind, by, made, start, end, body = row
    return Entry(number, machine, kind, by, made, start, end, json.loads(body))
