"""What the broker has answered and what it has not: the outbox, the dead letters, and what manifests are made of."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

DAMAGED = 0x101
"""Beside the broker's reason codes: the record's bytes are not those that were issued."""
SLICE = 2_000
"""So many records are looked at in one transaction of a replay: commits of readings wait no longer than that takes."""


def checksum(epoch: int, number: int, topic: str, payload: bytes) -> int:
    """The CRC-32 of a record under its identity: a disk that gives other bytes back is found out."""
    return zlib.crc32(payload, zlib.crc32(f"{epoch}:{number}:{topic}:".encode()))


def is_sound(epoch: int, number: int, topic: str, payload: object, crc: int | None) -> bool:
    """Whether a record is as it was issued; one of before there were checksums is taken as it is."""
    return isinstance(payload, bytes) and crc in (None, checksum(epoch, number, topic, payload))


class Unanswered(NamedTuple):
    """A record that waits for the broker.

    `sound` is false where its bytes are not those that were issued. `answered` is true where the index of those that
    wait has it, and the disk has changed the row so that it says something else.
    """

    position: int
    topic: str
    payload: bytes
    issued: int
    sound: bool
    answered: bool


class DeadLetter(NamedTuple):
    """A record that the broker will not have, or that is damaged; kept, and sent again when somebody says so."""

    position: int
    epoch: int
    type: str
    topic: str
    sequence: int
    issued: int
    reason_code: int


class Issue(NamedTuple):
    """What a manifest takes of a record. `reason_code` is the broker's answer, None while it waits."""

    position: int
    epoch: int
    number: int
    topic: str
    sequence: int
    issued: int
    payload: bytes | None
    reason_code: int | None


class Delivery:
    """The delivery of a store's records. Every method belongs to the store's thread; what writes, to a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    # ------------------------------------------------------------------------------------------------ the outbox

    def waiting(self, after: int, limit: int, until: int | None = None) -> list[Unanswered]:
        """The records without an answer, from the one after the position `after` up to the position `until`."""
        found = self._connection.execute(
            "SELECT position, topic, payload, issued, epoch, number, crc, answered FROM record "
            "WHERE answered IS NULL AND position > ? AND position <= ? ORDER BY position LIMIT ?",
            (after, 2**62 if until is None else until, limit),
        )
        return [
            Unanswered(
                position, topic, payload, issued, is_sound(epoch, number, topic, payload, crc), answered is not None
            )
            for position, topic, payload, issued, epoch, number, crc, answered in found
        ]

    def mend(self, positions: Iterable[int]) -> None:
        """Have rows say what the index says, that they wait: else no answer would take them out of it."""
        self._connection.executemany(
            "UPDATE record SET answered = NULL WHERE position = ?", [(position,) for position in positions]
        )

    def newest(self) -> int:
        """The position of the newest record; 0 without any."""
        return int(self._connection.execute("SELECT coalesce(max(position), 0) FROM record").fetchone()[0])

    def answer(self, positions: Iterable[int], now: int, reason_code: int) -> None:
        """Write down that the broker has accepted these; they leave the outbox."""
        self._connection.executemany(
            "UPDATE record SET answered = ?, reason_code = ?, reason = NULL WHERE position = ?",
            [(now, reason_code, position) for position in positions],
        )

    def bury(self, positions: Iterable[int], now: int, reason_code: int, reason: str) -> None:
        """Put these among the dead letters; they leave the outbox."""
        for position in positions:
            self._connection.execute(
                "UPDATE record SET answered = ?, reason_code = ?, reason = ? WHERE position = ?",
                (now, reason_code, reason, position),
            )
            self._connection.execute("INSERT OR IGNORE INTO dead_letter (position, named) VALUES (?, 0)", (position,))

    def span(self, *, since: int | None = None, until: int | None = None, dead: bool = False) -> tuple[int, int]:
        """Behind which position, and up to which, the records of [since, until) lie, with `dead` all dead letters."""
        if dead:
            found = self._connection.execute("SELECT min(position), max(position) FROM dead_letter")
        else:
            found = self._connection.execute(
                "SELECT min(position), max(position) FROM record WHERE issued >= ? AND issued < ?",
                (since or 0, 2**62 if until is None else until),
            )
        first, last = found.fetchone()
        return (first - 1, last) if first is not None else (0, 0)

    def send_again(
        self, after: int, last: int, *, since: int | None = None, until: int | None = None, topic: str | None = None,
        dead: bool = False,
    ) -> tuple[int, int]:  # fmt: skip
        """Put answered records of a slice of (after, last] back into the outbox, the same bytes; how many, and its end.

        Times of issue in [since, until). Without `dead` those that the broker has accepted, with it those that it has
        refused.
        """
        source = "dead_letter" if dead else "record"
        piece = f"FROM {source} WHERE position > ? AND position <= ? ORDER BY position LIMIT {SLICE}"
        sql = f"SELECT max(position) FROM (SELECT position {piece})"  # noqa: S608 - names are ours
        end = self._connection.execute(sql, (after, last)).fetchone()[0]
        if end is None:
            return 0, last
        given: list[int | str] = [after, end, *(value for value in (since, until, topic) if value is not None)]
        where = f"position IN (SELECT position FROM {source} WHERE position > ? AND position <= ?)"  # noqa: S608 - ours
        where += " AND answered IS NOT NULL"
        where += " AND issued >= ?" if since is not None else ""
        where += " AND issued < ?" if until is not None else ""
        where += " AND topic = ?" if topic is not None else ""
        # Those that are damaged stay: what they said is lost.
        where += f" AND reason_code != {DAMAGED}" if dead else " AND position NOT IN (SELECT position FROM dead_letter)"
        found = self._connection.execute(f"SELECT position FROM record WHERE {where}", given).fetchall()  # noqa: S608
        self._connection.executemany(
            "UPDATE record SET answered = NULL, reason_code = NULL, reason = NULL WHERE position = ?", found
        )
        self._connection.executemany("DELETE FROM dead_letter WHERE position = ?", found)
        return len(found), end

    def figures(self) -> dict[str, int]:
        """How many records wait for the broker, and how many are dead letters."""
        count = self._connection.execute
        waiting = count("SELECT count(*) FROM record WHERE answered IS NULL").fetchone()[0]
        return {"waiting": waiting, "refused": count("SELECT count(*) FROM dead_letter").fetchone()[0]}

    # ------------------------------------------------------------------------------------------- reconciliation

    def unnamed(self, limit: int) -> list[DeadLetter]:
        """Dead letters that no gap record has named yet, by epoch, topic and sequence.

        Of gap records only those that stand before one that the broker has accepted: a broker that refuses them all
        would otherwise be told so by another one, for ever.
        """
        found = self._connection.execute(
            "SELECT record.position, epoch, type, topic, sequence, issued, reason_code "
            "FROM dead_letter JOIN record USING (position) WHERE named = 0 AND (type != 'gap' OR position < ("
            "SELECT coalesce(max(position), 0) FROM record WHERE type = 'gap' AND reason_code < 128)) "
            "ORDER BY epoch, topic, sequence LIMIT ?",
            (limit,),
        )
        return [DeadLetter(*row) for row in found]

    def named(self, letters: Sequence[DeadLetter]) -> None:
        """Remember that a gap record names these."""
        self._connection.executemany(
            "UPDATE dead_letter SET named = 1 WHERE position = ?", [(letter.position,) for letter in letters]
        )

    def issued_after(self, position: int, limit: int) -> list[Issue]:
        """The records after a position, in order of issue; `payload` is None where it is not what was issued."""
        found = self._connection.execute(
            "SELECT position, epoch, number, topic, sequence, issued, payload, reason_code, crc FROM record "
            "WHERE position > ? ORDER BY position LIMIT ?",
            (position, limit),
        )
        rows: list[Issue] = []
        for at, epoch, number, topic, sequence, issued, payload, reason_code, crc in found:
            sound = is_sound(epoch, number, topic, payload, crc)
            rows.append(Issue(at, epoch, number, topic, sequence, issued, payload if sound else None, reason_code))
        return rows
