"""How much room the store takes, and what goes first when there is no more: in order, bounded, counted, named."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge_agent.store.losses import Losses, consecutive

BALLAST = "ballast"
BALLAST_BYTES = 4 * 2**20
"""Freed when the disk is full: even deleting needs room for the write-ahead log."""
CAUSE = "disk_full"
_ROWS = 5_000
_LOOKED_AT = 1_000_000
"""So many of the oldest readings are looked at for what can go: a commit waits meanwhile."""
_PROCESS = "('process', 'alarm')"


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

    def sacrifice(self, until: int, horizon: int, *, waiting: bool = True) -> dict[str, int]:
        """Delete until no more than so many bytes are used, the least valuable first; how many of what.

        Args:
            until: bytes.
            horizon: readings from before this time can change nothing any more.
            waiting: whether records that the broker has not answered for may go, too; last.
        """
        gone: dict[str, int] = {}
        for name, step in (
            ("spare_readings", self._spare_readings),
            ("old_readings", lambda: self._machines_readings(horizon)),
            ("accepted_records", self._accepted_records),
            ("open_readings", lambda: self._machines_readings(2**62)),
            ("dead_letters", self._dead_letters),
            ("process_records", lambda: self._waiting_records(f"type IN {_PROCESS}")),
            ("records", lambda: self._waiting_records(f"type NOT IN {_PROCESS}")),
        ):
            count = 0 if name in ("process_records", "records") and not waiting else self._until(until, step)
            if count:
                gone[name] = count
        return gone

    def _until(self, limit: int, step: Callable[[], int]) -> int:
        count = 0
        while self.used() > limit and (deleted := step()):
            count += deleted
        return count

    def _spare_readings(self) -> int:
        return self._readings("machine = 0")

    def _machines_readings(self, before: int) -> int:
        """Of each tag the newest stay: what holds now is not to be forgotten."""
        newest = (
            "(SELECT id FROM reading AS newest WHERE newest.machine = 1 AND newest.tag = reading.tag "
            "ORDER BY newest.time DESC, newest.id DESC LIMIT 1)"
        )
        return self._readings(f"machine = 1 AND time < {before} AND id != {newest}")

    def _readings(self, where: str) -> int:
        db = self._connection
        # The newest reading stays whatever it is, for the same reason as the newest record.
        oldest = f"id < min((SELECT min(id) FROM reading) + {_LOOKED_AT}, (SELECT max(id) FROM reading))"  # noqa: S608
        ids = f"SELECT id FROM reading WHERE {oldest} AND {where} ORDER BY id LIMIT {_ROWS}"  # noqa: S608 - ours
        found = db.execute(f"SELECT count(*), min(time), max(time), max(machine) FROM reading WHERE id IN ({ids})")  # noqa: S608
        count, start, end, machine = found.fetchone()
        if count:
            db.execute(f"DELETE FROM reading WHERE id IN ({ids})")  # noqa: S608 - ours
            if machine:
                self._losses.add("readings", CAUSE, start=start, until=end + 1, count=count)
        return int(count)

    def _accepted_records(self) -> int:
        return self._connection.execute(
            "DELETE FROM record WHERE position IN (SELECT position FROM record WHERE answered IS NOT NULL "  # noqa: S608
            f"AND {_NOT_NEWEST} AND position NOT IN (SELECT position FROM dead_letter) ORDER BY position LIMIT ?)",
            (_ROWS,),
        ).rowcount

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
        """The oldest that the broker has not answered for; each is named. Gap records are the last to go."""
        db = self._connection
        ids = (
            f"SELECT position FROM record WHERE answered IS NULL AND type != 'gap' AND {_NOT_NEWEST} AND {where} "  # noqa: S608
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

    def size(self) -> int:
        """Bytes of the database's file, with its free pages."""
        pages, size = (self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        return int(pages * size)

    def forget_damaged(self, most: int) -> list[str]:
        """Delete the oldest databases that were put aside, beyond `most` bytes; their names. The newest stays."""
        kept = sorted(self._folder.glob("*.db.damaged-*"), key=lambda path: (path.stat().st_mtime, path.name))
        gone = []
        while len(kept) > 1 and sum(path.stat().st_size for path in kept) > most:
            oldest = kept.pop(0)
            oldest.unlink()
            gone.append(oldest.name)
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
            room = os.statvfs(self._folder)
            if room.f_bavail * room.f_frsize < 4 * BALLAST_BYTES:
                return False
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
            return True
        return False

    def drop_ballast(self) -> bool:
        """Free the ballast; whether there was any."""
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True
