"""What can still be read of a damaged database, into a new one: in a process of its own, with limits.

The new database has what could be copied, readings from the newest on, and in its table `loss` what could not. It says
no more in which epoch it is than that a new one must begin. The damaged file is only read.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from edge_agent.store import first_page
from edge_agent.store.records import SACRIFICED_UNTIL, raise_fact
from edge_agent.store.values import as_text

SECONDS = 7.0
"""An agent must have begun within ten seconds; what is not copied by then stays in the damaged file."""
MEMORY_BYTES = 2 * 2**30
NO_ROOM = 28
"""The program's exit code where the disk had no room for the new database."""
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", errno.ENOSPC, errno.EDQUOT)
_PR_SET_PDEATHSIG = 1
_CHUNK = 4_096
_LAST_ROW = 2**63 - 1
_GRID = (*range(64), *(of << octave for octave in range(57) for of in range(64, 128)))
"""Where the end of a table is looked for: 64 places in each octave."""
_SMALL = ("fact", "topic", "tag", "configuration", "applied", "progress", "entry", "reopened", "hole", "loss")
_TABLES = (*_SMALL, "record", "dead_letter", "reading")
"""In order of importance: what records are made of, then records, then readings."""
_BY_TIME = ("applied",)
"""Its rows are numbered by time: few, and all of them or none."""
_MARKS = {"manifest_position": "SELECT max(position) FROM record", "seen": "SELECT max(id) FROM reading"}
"""Facts that say how far somebody has come, as `ledger` and `summarizer.late` name them."""
_INDEXED = {"record": "idx_record_epoch_number"}


def salvage(damaged: Path, new: Path) -> dict[str, int] | None:
    """Copy what can be read to `new`, which has our schema and nothing else: rows by table; None: nothing can be.

    It is not durable yet.

    Raises:
        OSError: the disk has no room for it.
    """
    program = "from edge_agent.store.salvage import main; main()"
    command = [sys.executable, "-c", program, str(damaged), str(new), str(SECONDS), str(os.getpid())]
    try:
        run = subprocess.run(command, capture_output=True, timeout=SECONDS + 2, check=True)  # noqa: S603 - ours
        found: dict[str, int] = json.loads(run.stdout)
    except subprocess.CalledProcessError as error:
        if error.returncode == NO_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        return None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found or None


class _Salvage:
    def __init__(self, damaged: Path, new: Path, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._old = sqlite3.connect(f"file:{damaged}?mode=ro", uri=True, isolation_level=None)
        self._old.text_factory = as_text
        self._db = sqlite3.connect(new, isolation_level=None)
        self._db.execute("PRAGMA synchronous = OFF")

    def run(self) -> dict[str, int]:
        copied: dict[str, int] = {}
        torn: list[str] = []
        self._db.execute("BEGIN")
        for table in _TABLES:
            try:
                columns = self._columns(table)
            except sqlite3.DatabaseError:
                torn.append(table)
                continue
            if columns:
                gone = [*self._copy(table, columns)]
                torn += [table] if gone else []
                gone += [(row, row) for row in self._senseless(table)]
                copied[table] = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - ours
                torn += [table] if table in _INDEXED and self._by_index(table) != copied[table] else []
                if table == "reading":
                    self._lost_readings(gone)
                    if not gone and self._machines_readings() is None:
                        self._lose("readings", self._epoch(), self._epoch() + 1, None, None, None, None, None)
        self._lost_records(torn)
        self._lower_marks()
        self._begin_anew()
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # synced by whoever takes it
        self._db.close()
        return copied

    def _senseless(self, table: str) -> list[int]:
        """Take out the rows with something else where a whole number belongs, and readings of nobody knows what; which.

        The numbers of tags that are lost are given again, to others.
        """
        numbers = [name for _, name, kind, *_ in self._db.execute(f"PRAGMA table_info({table})") if kind == "INTEGER"]
        wrong = [f"typeof({name}) NOT IN ('integer', 'null')" for name in numbers]
        if table == "reading":
            wrong.append("tag NOT IN (SELECT id FROM tag)")
        if not wrong:
            return []
        where = f"FROM {table} WHERE {' OR '.join(wrong)}"
        rows = [row for (row,) in self._db.execute(f"SELECT rowid {where} ORDER BY rowid")]
        if rows:
            self._db.execute(f"DELETE {where}")
        return rows

    def _by_index(self, table: str) -> int | None:
        """How many rows a table's index has: a torn page may hide rows without an error."""
        try:
            sql = f"SELECT count(*) FROM {table} INDEXED BY {_INDEXED[table]}"  # noqa: S608 - ours
            return int(self._old.execute(sql).fetchone()[0])
        except sqlite3.DatabaseError:
            return None

    def _machines_readings(self) -> int | None:
        """How many readings of machines there are; None where their index has another number of them."""
        copied: int = self._db.execute("SELECT count(*) FROM reading WHERE machine = 1").fetchone()[0]
        try:
            sql = "SELECT count(*) FROM reading INDEXED BY reading_of_machine WHERE machine = 1"
            return copied if self._old.execute(sql).fetchone()[0] == copied else None
        except sqlite3.DatabaseError:
            return None

    def _columns(self, table: str) -> str:
        """The columns that both databases have of a table."""
        both = [{row[1] for row in db.execute(f"PRAGMA table_info({table})")} for db in (self._old, self._db)]
        return ", ".join(f'"{name}"' for name in sorted(both[0] & both[1]))

    def _copy(self, table: str, columns: str) -> Iterator[tuple[int, int]]:
        """Copy a table in pieces, the newest first; the ranges of rows that could not be."""
        if table in _BY_TIME:
            yield from self._piece(table, columns, 0, 0, "rowid >= ? OR rowid > ?")
            return
        end = _LAST_ROW
        brought = 0
        while end > 0:
            if not brought:  # nothing here: go on with the next row that can be read, however far it is
                last, is_next = self._last(table, end)
                if not is_next:
                    yield (last + 1, end)
                if not (end := last):
                    return
            if time.monotonic() > self._deadline:
                yield (1, end)
                return
            start = max(1, end - _CHUNK + 1)
            brought = yield from self._piece(table, columns, start, end)
            end = start - 1

    def _piece(
        self, table: str, columns: str, first: int, last: int, where: str = "rowid BETWEEN ? AND ?"
    ) -> Generator[tuple[int, int], None, int]:  # fmt: skip
        """Copy rows, one by one where they cannot be read together; yields those that cannot be, gives how many are."""
        try:
            rows = self._old.execute(
                f"SELECT {columns} FROM {table} NOT INDEXED WHERE {where}",  # noqa: S608 - names are ours
                (first, last),
            ).fetchall()
        except sqlite3.DatabaseError:
            if first == last:
                yield (first, last)
                return 0
            middle = (first + last) // 2
            older = yield from self._piece(table, columns, first, middle)
            return older + (yield from self._piece(table, columns, middle + 1, last))
        places = ", ".join("?" * (columns.count(",") + 1))
        self._db.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})", rows)  # noqa: S608 - ours

        return len(rows)

    def _last(self, table: str, limit: int) -> tuple[int, bool]:
        """The last row up to `limit` that can be read, or 0; and whether it is known that none lies between.

        A page that cannot be read hides where the table ends. So places are tried, from the highest down, then those
        between the first one that can be read and the one above it, ever finer.
        """
        row = self._row(table, limit)
        if row is not None:
            return row, True
        points: Sequence[int] = [point for point in _GRID if point < limit]
        high = limit
        while True:
            low = row = 0
            for point in reversed(points):
                if (found := self._row(table, point)) is not None:
                    low, row = point, found
                    break
                high = point or high
            if high - low <= 1:
                return row, False
            points = range(low, high, max(1, (high - low) // 64))

    def _row(self, table: str, limit: int) -> int | None:
        """The last row up to `limit`, or 0; None where it cannot be read."""
        sql = f"SELECT rowid FROM {table} NOT INDEXED WHERE rowid <= ? ORDER BY rowid DESC LIMIT 1"  # noqa: S608 - ours
        try:
            found = self._old.execute(sql, (limit,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        return found[0] if found else 0

    # ------------------------------------------------------------------------------------------------ what is lost

    def _lost_readings(self, gone: list[tuple[int, int]]) -> None:
        """Name ranges of readings by the times of their neighbours; windows of before are not computed again."""
        merged: list[list[int]] = []
        for first, last in sorted(gone):
            if merged and first <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], last)
            else:
                merged.append([first, last])
        losses: list[tuple[int, int, int | None]] = []
        for first, last in merged:
            start, until = self._neighbours(first, last)
            count = None if last == _LAST_ROW else last - first + 1
            if losses and start < losses[-1][1]:  # within one time: one loss, since a gap record is known by its start
                since, till, before = losses.pop()
                start, until = min(since, start), max(till, until)
                count = None if count is None or before is None else before + count
            losses.append((start, until, count))
        for start, until, count in losses:
            self._lose("readings", start, until, count, None, None, None, None)
            raise_fact(self._db, SACRIFICED_UNTIL, until)

    def _neighbours(self, first: int, last: int) -> tuple[int, int]:
        """The times of the readings before and after some that are gone; behind the newest that of the sign of life."""
        before = self._db.execute("SELECT time FROM reading WHERE id < ? ORDER BY id DESC LIMIT 1", (first,)).fetchone()
        after = self._db.execute("SELECT time FROM reading WHERE id > ? ORDER BY id LIMIT 1", (last,)).fetchone()
        after = after or self._db.execute("SELECT value FROM fact WHERE name = 'alive'").fetchone()
        start = before[0] if before else self._epoch()
        return start, max(after[0] if after else 0, start) + 1

    def _lost_records(self, torn: list[str]) -> None:
        """Name the sequences of each topic that are not there; from its first record on, where no row is unreadable.

        What is older was deleted in good order then. Otherwise too much is named rather than too little: a consumer
        that has received a record has it, whatever a gap says.
        """
        unknown = "record" in torn or "topic" in torn
        have: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for epoch, topic, sequence, issued in self._db.execute(
            "SELECT epoch, topic, sequence, issued FROM record ORDER BY epoch, topic, sequence"
        ):
            have.setdefault((epoch, topic), []).append((sequence, issued))
        for (epoch, topic), last in self._last_sequences():
            own = have.get((epoch, topic), [])
            begin = [(0, own[0][1] if own else 0)] if unknown else own[:1]
            for (before, issued), (after, later) in pairwise([*begin, *own, (last + 1, own[-1][1] if own else 0)]):
                if after > before + 1:
                    count = after - before - 1
                    self._lose("records", issued, max(issued, later) + 1, count, topic, epoch, before + 1, after - 1)
        if unknown:  # perhaps also on topics of which nothing is left
            self._lose("records", self._epoch(), self._epoch() + 1, None, None, self._epoch(), None, None)

    def _epoch(self) -> int:
        """The newest one; also, in nanoseconds, the time of what is of unknown time: so no two have the same start."""
        sql = (
            "SELECT max(coalesce((SELECT value FROM fact WHERE name = 'epoch'), 0), "
            "coalesce((SELECT max(epoch) FROM record), 0), coalesce((SELECT max(epoch) FROM topic), 0))"
        )
        return int(self._db.execute(sql).fetchone()[0])

    def _last_sequences(self) -> Iterator[tuple[tuple[int, str], int]]:
        sql = (
            "SELECT epoch, name, max(sequence) FROM (SELECT epoch, name, sequence FROM topic "
            "UNION ALL SELECT epoch, topic, sequence FROM record) GROUP BY epoch, name"
        )
        yield from (((epoch, name), last) for epoch, name, last in self._db.execute(sql))

    def _lose(
        self, what: str, start: int, until: int, count: int | None, topic: str | None, epoch: int | None,
        first: int | None, last: int | None,
    ) -> None:  # fmt: skip
        self._db.execute(
            "INSERT INTO loss (what, cause, start, until, count, topic, epoch, first, last) "
            "VALUES (?, 'damaged', ?, ?, ?, ?, ?, ?, ?)",
            (what, start, until, count, topic, epoch, first, last),
        )

    def _lower_marks(self) -> None:
        """Let nothing refer to rows that are not there: their numbers are given again. Those of entries are not."""
        for name, newest in _MARKS.items():
            self._db.execute(f"UPDATE fact SET value = min(value, coalesce(({newest}), 0)) WHERE name = ?", (name,))  # noqa: S608 - ours
        self._db.execute("DELETE FROM dead_letter WHERE position NOT IN (SELECT position FROM record)")
        last = (0,)
        with suppress(sqlite3.DatabaseError):
            last = self._old.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone() or last
        newest = "(SELECT 'entry', max(?, coalesce((SELECT max(number) FROM entry), 0)))"
        self._db.execute("DELETE FROM sqlite_sequence WHERE name = 'entry'")
        self._db.execute(f"INSERT INTO sqlite_sequence (name, seq) SELECT * FROM {newest}", last)  # noqa: S608 - ours

    def _begin_anew(self) -> None:
        """Say so much of the epoch that the next run begins a larger one: the second file will not agree with this."""
        epoch = self._epoch()
        sql = "SELECT coalesce(max(number), 0) FROM record WHERE epoch = ?"
        issued = self._db.execute(sql, (epoch,)).fetchone()[0]
        for name, value in (("epoch", epoch), ("starts", -1), ("reserved", 0), ("issued", issued)):
            self._db.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, value))


def salvaged(damaged: Path, new: Path, seconds: float) -> dict[str, int]:
    """Rows by table that could be copied to `new`; also from a database whose first page is damaged."""
    with first_page.mended(damaged, new):
        return _Salvage(damaged, new, seconds).run()


def main() -> None:
    """Do it, and print how many rows of each table are in the new database."""
    damaged, new, seconds, agent = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # an agent that is killed begins anew, and so does this
    if os.getppid() != int(agent):
        sys.exit("the agent has ended")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        found = salvaged(Path(damaged), Path(new), float(seconds))
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorname", "") in _FULL or getattr(error, "errno", 0) in _FULL:
            sys.exit(NO_ROOM)
        raise
    print(json.dumps(found))  # noqa: T201 - it is a program's answer


if __name__ == "__main__":
    main()
