"""Records in the database: issued with their frozen bytes, kept until the broker answers, listed for people."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge_agent.store.delivery import checksum, is_sound
from edge_agent.store.faults import damage


@dataclass(frozen=True)
class Draft:
    """A record before it has its number: what it says, where it goes, and the key of the fact it states."""

    type: str
    topic: str
    subject: str
    data: dict[str, Any]
    key: str | None = None
    revision: int = 0
    configuration: str | None = None
    """The hash of the configuration that made it; None: the present one."""


class Issued(NamedTuple):
    """The identity that a draft was given. `sequence` is 0 for what carries none."""

    epoch: int
    number: int
    sequence: int


class StoredRecord(NamedTuple):
    """One record as people list it. `answered` is the time of the broker's answer, None while it waits."""

    position: int
    epoch: int
    number: int
    type: str
    key: str | None
    revision: int | None
    topic: str
    sequence: int | None
    issued: int
    payload: bytes
    answered: int | None
    reason_code: int | None
    reason: str | None


SACRIFICED_UNTIL = "sacrificed_until"
"""Fact: the newest reading of a machine that went for room, or was not saved from damage, was before this time."""
DOUBTED_UNTIL = "doubted_until"
"""Fact: when the newest epoch began. What was said before may be more than the store knows: it has lost some, or is an
older copy."""
FORGOTTEN_UNTIL, FORGOTTEN_REVISION = "forgotten_until", "forgotten_revision"
"""Facts: when the newest record that went for room was issued, and the highest revision of all of them."""


class Progress(NamedTuple):
    """How far one machine's windows of one size are closed, and since when and why nothing was observed, if so."""

    closed_until: int
    unobserved_since: int | None = None
    unobserved_cause: str | None = None


_COLUMNS = ", ".join(StoredRecord._fields)
_SAID = "epoch, number, topic, payload, crc, issued, revision"
_OF_KEYS = f"SELECT key, {_SAID} FROM record WHERE key >= ? AND key <= ?"  # noqa: S608 - ours


def forget(connection: sqlite3.Connection, until: int | None, revision: int | None) -> None:
    """Remember that what was said up to `until`, up to this revision, is not known any more."""
    for name, value in ((FORGOTTEN_UNTIL, until), (FORGOTTEN_REVISION, revision)):
        if value is not None:
            raise_fact(connection, name, value)


def raise_fact(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Remember the highest of the values that a fact was given."""
    connection.execute(
        "INSERT INTO fact (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (name, value),
    )


Freeze = Callable[[Draft, Issued], bytes]


class Records:
    """The records of a store. Every method belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def issue(self, drafts: Iterable[Draft], freeze: Freeze, epoch: int, first_number: int, now: int) -> int:
        """Give each draft its number and sequence, freeze its bytes, and put it into the outbox; the next number."""
        db, number = self._connection, first_number
        for draft in drafts:
            sequence = db.execute(
                "INSERT INTO topic (epoch, name, sequence) VALUES (?, ?, 1) "
                "ON CONFLICT (epoch, name) DO UPDATE SET sequence = sequence + 1 RETURNING sequence",
                (epoch, draft.topic),
            ).fetchone()[0]
            payload = freeze(draft, Issued(epoch, number, sequence))
            db.execute(
                "INSERT INTO record (epoch, number, type, key, revision, topic, sequence, issued, payload, crc) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    epoch,
                    number,
                    draft.type,
                    draft.key,
                    draft.revision,
                    draft.topic,
                    sequence,
                    now,
                    payload,
                    checksum(epoch, number, draft.topic, payload),
                ),
            )
            number += 1
        return number

    def first_revision(self, start: int) -> int:
        """The revision under which a fact of that start is said for the first time, as far as is known.

        0, unless records of that time had to go for room: what is said now must come after what was said then.
        """
        found = dict(
            self._connection.execute(
                "SELECT name, value FROM fact WHERE name IN (?, ?)", (FORGOTTEN_UNTIL, FORGOTTEN_REVISION)
            ).fetchall()
        )
        return found.get(FORGOTTEN_REVISION, 0) + 1 if start < found.get(FORGOTTEN_UNTIL, start) else 0

    def latest(self, key: str) -> dict[str, Any] | None:
        """The `data` of the highest revision of a key; None when nothing was published under it."""
        event = self.latest_event(key)
        data: dict[str, Any] | None = event and event["data"]
        return data

    def latest_event(self, key: str) -> dict[str, Any] | None:
        """The whole event of the highest revision of a key; None when nothing was published under it."""
        row = self._connection.execute(
            f"SELECT {_SAID} FROM record WHERE key = ? ORDER BY epoch DESC, revision DESC LIMIT 1",  # noqa: S608 - ours
            (key,),
        ).fetchone()
        return self._event(*row) if row else None

    def _event(
        self, epoch: int, number: int, topic: str, payload: bytes, crc: int | None, issued: int, revision: int
    ) -> dict[str, Any] | None:
        """The event of a record; None where the disk has changed it, which is then as if it had gone."""
        if not is_sound(epoch, number, topic, payload, crc):
            forget(self._connection, issued, revision)
            return None
        event: dict[str, Any] = json.loads(payload)
        return event

    def latest_between(self, prefix: str, first: str, last: str) -> list[dict[str, Any]]:
        """The `data` of the highest revisions of the keys from `prefix + first` to `prefix + last`, in their order.

        With those of the one key before them.
        """
        low, high = prefix + first, prefix + last
        before = self._connection.execute(
            "SELECT key FROM record WHERE key < ? AND key > ? ORDER BY key DESC LIMIT 1", (low, prefix)
        ).fetchone()
        found = self._connection.execute(
            f"{_OF_KEYS} ORDER BY key, epoch, revision", (before[0] if before else low, high)
        )
        return self._latest_of(found)

    def latest_near(self, prefix: str, first: str, last: str, beyond: int) -> list[dict[str, Any]]:
        """The same as `latest_between`, with those of `beyond` keys before them, and of as many after them."""
        low, high, none = prefix + first, prefix + last, prefix + "~"
        select = "SELECT DISTINCT key FROM record WHERE key > ? AND key < ? ORDER BY key"
        before = self._connection.execute(f"{select} DESC LIMIT ?", (prefix, low, beyond)).fetchall()
        after = self._connection.execute(f"{select} LIMIT ?", (high, none, beyond)).fetchall()
        found = self._connection.execute(
            f"{_OF_KEYS} ORDER BY key, epoch, revision",
            (before[-1][0] if before else low, after[-1][0] if after else high),
        )
        return self._latest_of(found)

    def _latest_of(self, found: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
        latest = {row[0]: row for row in found}
        events = (self._event(*row[1:]) for row in latest.values())
        return [event["data"] for event in events if event is not None]

    def page(
        self, *, type: str | None = None, since: int | None = None, until: int | None = None,
        waiting: bool = False, dead: bool = False, after: int = 0, limit: int = 1_000,
    ) -> list[StoredRecord]:  # fmt: skip
        """Records in order of issue from the one after the position `after`; issued in [since, until)."""
        conditions: list[tuple[str, Any]] = [("position > ?", after)]
        conditions += [("type = ?", type)] if type else []
        conditions += [("issued >= ?", since)] if since is not None else []
        conditions += [("issued < ?", until)] if until is not None else []
        where = " AND ".join(sql for sql, _ in conditions) + (" AND answered IS NULL" if waiting else "")
        where += " AND position IN (SELECT position FROM dead_letter)" if dead else ""
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM record WHERE {where} ORDER BY position LIMIT ?",  # noqa: S608 - names are ours
            (*(given for _, given in conditions), limit),
        )
        return [StoredRecord(*row) for row in found]

    def progress(self, machine: str, window: str) -> Progress | None:
        """How far this machine's windows of this size are closed; None before the first."""
        row = self._connection.execute(
            "SELECT closed_until, unobserved_since, unobserved_cause FROM progress WHERE machine = ? AND window = ?",
            (machine, window),
        ).fetchone()
        if row and not all(value is None or isinstance(value, int) for value in row[:2]):
            raise damage(f"a mark of {machine} is no number")
        return Progress(*row) if row else None

    def set_progress(self, machine: str, window: str, progress: Progress) -> None:
        """Move the mark up to which this machine's windows of this size are closed."""
        self._connection.execute(
            "INSERT OR REPLACE INTO progress (machine, window, closed_until, unobserved_since, unobserved_cause) "
            "VALUES (?, ?, ?, ?, ?)",
            (machine, window, *progress),
        )

    def prune(self, before: int, limit: int) -> int:
        """Delete at most `limit` answered records issued before `before`; how many were deleted."""
        deleted = self._connection.execute(
            "DELETE FROM record WHERE position IN "
            "(SELECT position FROM record WHERE issued < ? AND answered IS NOT NULL "
            "AND position < (SELECT max(position) FROM record) ORDER BY issued LIMIT ?)",
            (before, limit),
        ).rowcount
        if deleted:
            self._connection.execute("DELETE FROM dead_letter WHERE position NOT IN (SELECT position FROM record)")
        return deleted
