"""How much room the store takes, and what goes first when there is no more: in order, bounded, counted, named."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edge_agent.contract import NS_PER_S
from edge_agent.store.delivery import is_sound
from edge_agent.store.files import BALLAST, PUT_ASIDE, drop_ballast, is_full
from edge_agent.store.losses import Losses, consecutive
from edge_agent.store.records import SACRIFICED_UNTIL, forget, raise_fact
from edge_agent.timestamps import parse

BALLAST_BYTES = 4 * 2**20
"""Freed when the disk is full: even deleting needs room for the write-ahead log."""
CAUSE = "disk_full"
_ROWS = 5_000
_LOOKED_AT = 1_000_000
"""So many of the oldest readings are looked at for what can go: a commit waits meanwhile."""
_STALE_NS = 3 * 86_400 * NS_PER_S
_PROCESS = "('process', 'alarm')"
_SPARED = "id NOT IN (SELECT value FROM json_each(:kept))"
_LAST = (
    "SELECT id FROM reading WHERE machine = 1 AND tag = ? AND time < ? AND quality <= ? "
    "ORDER BY time DESC, id DESC LIMIT 1"
)

_NOT_NEWEST = "position < (SELECT max(position) FROM record)"
"""The newest record stays: SQLite would give its number again, to one that whoever is past it would never see."""


class Room:
    """The room of one store. Every method but `ballast` ones belongs to the store's thread, and to a transaction."""

    def __init__(self, connection: sqlite3.Connection, losses: Losses, folder: Path) -> None:
        self._connection = connection
        self._losses = losses
        self._ballast = folder / BALLAST
        self._folder = folder

    def used(self) -> int:
        """Bytes of the database that hold something; pages that are free will be used again."""
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return int((pages - free) * size)

    def sacrifice(self, until: int, horizon: int, *, needed: bool = True) -> dict[str, int]:
        """Delete until no more than so many bytes are used, the least valuable first; how many of what.

        Args:
            until: bytes.
            horizon: readings from before this time can change nothing any more.
            needed: whether what is still needed may go, too: readings of windows and jobs that are open, and, last,
                records that the broker has not answered for.
        """
        gone: dict[str, int] = {}
        borders = self._borders()
        kept = json.dumps(self._anchors(borders))
        open_since = 2**62 if needed else min(borders, default=0)
        for name, step in (
            ("spare_readings", lambda: self._readings("machine = 0", kept)),
            ("old_readings", lambda: self._machines_readings(horizon, kept)),
            ("accepted_records", self._accepted_records),
            ("open_readings", lambda: self._machines_readings(open_since, kept)),
            ("dead_letters", self._dead_letters),
            ("process_records", lambda: self._waiting_records(f"type IN {_PROCESS}")),
            ("records", lambda: self._waiting_records(f"type NOT IN ('gap', {_PROCESS[1:]}")),
            ("gaps", lambda: self._waiting_records("type = 'gap'")),
        ):
            count = 0 if name in ("process_records", "records", "gaps") and not needed else self._until(until, step)
            if count:
                gone[name] = count
        return gone

    def _until(self, limit: int, step: Callable[[], int]) -> int:
        count = 0
        while self.used() > limit and (deleted := step()):
            count += deleted
        return count

    def _machines_readings(self, before: int, kept: str) -> int:
        return self._readings(f"machine = 1 AND time < {before}", kept)

    def _borders(self) -> list[int]:
        """Up to where windows of any size are closed, and since when jobs are open, in ns since 1970 UTC."""
        db = self._connection
        closed = [time for (time,) in db.execute("SELECT DISTINCT closed_until FROM progress")]
        newest = max(closed, default=0)  # a machine that is not configured any more holds nothing
        closed = [time for time in closed if time > newest - _STALE_NS]
        jobs = db.execute(
            "SELECT key, epoch, number, topic, payload, crc FROM record "
            "WHERE position IN (SELECT max(position) FROM record WHERE type = 'job' GROUP BY topic)"
        )
        with suppress(ValueError):
            for key, *said in jobs:
                if is_sound(*said) and json.loads(said[3])["data"]["open"]:
                    closed.append(parse(key.rpartition("/")[2]))
        return closed

    def _anchors(self, borders: Sequence[int]) -> list[int]:
        """The ids of readings that stay: of each machine's tag the newest, and the last good one before each border.

        What holds now is not to be forgotten; and what a counter has counted since a border is still counted, though
        not when, from the reading before it to the next one that is left.
        """
        db = self._connection
        found: set[int] = set()
        for (tag,) in db.execute("SELECT id FROM tag WHERE machine = 1").fetchall():
            for quality, before in [(2, 2**62), *((1, border) for border in (*borders, 2**62))]:
                found.update(db.execute(_LAST, (tag, before, quality)).fetchone() or ())
        return sorted(found)

    def _readings(self, where: str, kept: str) -> int:
        db = self._connection
        # The newest reading stays whatever it is, for the same reason as the newest record. What stays of the oldest
        # does not count: else a device that has long been lost would hold everything behind its last reading.
        first = f"(SELECT id FROM reading WHERE {_SPARED} ORDER BY id LIMIT 1)"  # noqa: S608 - ours
        oldest = f"id >= {first} AND id < min({first} + {_LOOKED_AT}, (SELECT max(id) FROM reading))"  # noqa: S608 - ours
        ids = f"SELECT id FROM reading WHERE {oldest} AND {where} AND {_SPARED} ORDER BY id LIMIT {_ROWS}"  # noqa: S608
        figures = "count(*), min(time), max(time), max(machine)"
        found = db.execute(f"SELECT {figures} FROM reading WHERE id IN ({ids})", {"kept": kept})  # noqa: S608 - ours
        count, start, end, machine = found.fetchone()
        if count:
            db.execute(f"DELETE FROM reading WHERE id IN ({ids})", {"kept": kept})  # noqa: S608 - ours
            if machine:
                self._losses.add("readings", CAUSE, start=start, until=end + 1, count=count)
                raise_fact(db, SACRIFICED_UNTIL, end + 1)
        return int(count)

    def _accepted_records(self) -> int:
        """What is said again of the facts that go here must have a higher revision than they had."""
        db = self._connection
        where = (
            "position IN (SELECT position FROM record WHERE answered IS NOT NULL "  # noqa: S608
            f"AND {_NOT_NEWEST} AND position NOT IN (SELECT position FROM dead_letter) ORDER BY position LIMIT {_ROWS})"
        )
        until, revision = db.execute(f"SELECT max(issued), max(revision) FROM record WHERE {where}").fetchone()  # noqa: S608
        forget(db, until, revision)
        return db.execute(f"DELETE FROM record WHERE {where}").rowcount  # noqa: S608 - ours

    def _dead_letters(self) -> int:
        """Those that a gap record has named."""
        count = self._connection.execute(
            "DELETE FROM record WHERE position IN "  # noqa: S608 - ours
            f"(SELECT position FROM dead_letter WHERE named = 1 AND {_NOT_NEWEST} ORDER BY position LIMIT ?)",
            (_ROWS,),
        ).rowcount
        self._connection.execute("DELETE FROM dead_letter WHERE position NOT IN (SELECT position FROM record)")
        return count

    def _waiting_records(self, where: str) -> int:
        """The oldest that the broker has not answered for; each is named, and of gap records that were lost, one is."""
        db = self._connection
        ids = (
            f"SELECT position FROM record WHERE answered IS NULL AND {_NOT_NEWEST} AND {where} "  # noqa: S608
            f"ORDER BY position LIMIT {_ROWS // 10}"
        )
        columns = "epoch, topic, sequence, issued"
        sql = f"SELECT {columns} FROM record WHERE position IN ({ids}) ORDER BY {columns}"  # noqa: S608 - ours
        rows = db.execute(sql).fetchall()
        for group in consecutive(rows, lambda row: (row[:2], row[2])):
            (epoch, topic, first, issued), (_, _, last, later) = group[0], group[-1]
            self._losses.add(
                "records", CAUSE, start=issued, until=later + 1, count=len(group),
                topic=topic, epoch=epoch, first=first, last=last,
            )  # fmt: skip
        db.execute(f"DELETE FROM record WHERE position IN ({ids})")  # noqa: S608 - ours
        return len(rows)

    def free(self) -> int:
        """Bytes of the database that hold nothing."""
        return self.size() - self.used()

    def is_full(self) -> bool:
        """Whether the disk has no room to speak of."""
        return is_full(self._folder)

    def on_disk(self) -> int:
        """Bytes that the disk still has for us."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def size(self) -> int:
        """Bytes of the database's file, with its free pages."""
        pages, size = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return int(pages * size)

    def forget_damaged(self, most: int) -> list[str]:
        """Delete the oldest databases that were put aside, beyond `most` bytes; their names. The newest stays."""
        parts: dict[int, list[Path]] = {}
        for path in self._folder.iterdir():
            if found := PUT_ASIDE.match(path.name):
                parts.setdefault(int(found[1]), []).append(path)
        kept, gone = sorted(parts), []
        while len(kept) > 1 and sum(path.stat().st_size for number in kept for path in parts[number]) > most:
            for path in parts[kept.pop(0)]:
                path.unlink()
                gone.append(path.name)
        return gone

    def give_back(self) -> None:
        """Give free pages back to the file system, and empty the write-ahead log; outside a transaction."""
        self._connection.execute("PRAGMA incremental_vacuum(1000)").fetchall()
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def begin_log_anew(self) -> None:
        """Have the write-ahead log written from its begin again, in the room that it has; outside a transaction."""
        self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    # ------------------------------------------------------------------------------------------------- ballast

    def take_ballast(self) -> bool:
        """Have the ballast on disk, where there is room for it four times over; whether it is there."""
        with suppress(OSError):
            if self._ballast.exists() and self._ballast.stat().st_size == BALLAST_BYTES:
                return True
            if self.on_disk() < 4 * BALLAST_BYTES:
                return False
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
            return True
        return False

    def drop_ballast(self) -> bool:
        """Free the ballast; whether there was any."""
        return drop_ballast(self._folder)
