"""Opening the one database: its lock, its pragmas, its migrations, its identity, and what to do when it is damaged."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, ParamSpec, TypeVar

from edge_agent.store import identity as identities
from edge_agent.store.delivery import Delivery
from edge_agent.store.entries import Entries
from edge_agent.store.faults import damage
from edge_agent.store.files import (
    DATABASE,
    IDENTITY,
    LOCK,
    StoreDamaged,
    StoreError,
    connect,
    drop_ballast,
    fails_by_itself,
    is_damage,
    is_full,
    keep_log,
    put_aside,
    salvaged,
    take_lock,
)  # fmt: skip
from edge_agent.store.holes import Holes
from edge_agent.store.identity import Identity
from edge_agent.store.losses import Losses
from edge_agent.store.readings import Readings, Row
from edge_agent.store.records import DOUBTED_UNTIL, Draft, Freeze, Issued, Records
from edge_agent.store.room import Room

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """The store of one agent, in its data folder. Plain and synchronous; belongs to the thread that uses it.

    Attributes:
        readings: what was read.
        records: what was issued.
        delivery: what the broker has answered of it, and what not.
        entries: what people told, and what is to be looked at again.
        holes: what outages left open.
        losses: what is gone for good, until a gap record has named it.
        room: how much disk it takes, and what goes first.
        identity: the epoch and the reserved numbers of this run; None until `begin`.
        ended_well: whether the run before ended in good order, known from `begin` on; or what it left has been looked
            at since.
    """

    def __init__(self, folder: Path, *, create: bool = True, durable: bool = True) -> None:
        """Take the folder's lock and open the database in it; with `create`, make what is missing.

        A file that is no sound database any more is put aside and kept; what can be read of it is in the one that takes
        its place. A store that is not `durable`, for trials, waits for no disk.

        Raises:
            StoreInUse: another process holds the lock.
            StoreError: no store there (without `create`), another program's database, a newer version's, or no access.
        """
        self.folder = folder
        self.path = folder / DATABASE
        self.identity: Identity | None = None
        self.damaged: Path | None = None
        self.ended_well = True
        self._is_damaged = False
        if not create and not self.path.exists():
            raise StoreError(f"no store in {folder}: no agent has run with this data folder (agent.data) yet")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(folder / LOCK)
        except OSError as error:
            raise StoreError(
                f"{folder}: {error.strerror}; give the agent's user read and write access to it, or set agent.data"
            ) from error
        try:
            self.with_room(self._open, create)
        except BaseException:
            self._lock.close()
            raise
        self._durable = durable
        if not durable:
            self._connection.execute("PRAGMA synchronous = OFF")
        self.readings = Readings(self._connection)
        self.records = Records(self._connection)
        self.delivery = Delivery(self._connection)
        self.entries = Entries(self._connection)
        self.holes = Holes(self._connection, self.readings)
        self.losses = Losses(self._connection)
        self.room = Room(self._connection, self.losses, folder)
        self._next_number = self._issued = 0

    def _open(self, create: bool) -> None:
        if create:
            self.damaged = salvaged(self.folder)
        keep_log(self.path)
        try:
            self._connection = connect(self.path)
        except sqlite3.DatabaseError as error:
            if not create or not (is_damage(error) or fails_by_itself(error, self.path)):
                raise StoreError(f"{self.path}: {error}; if it is damaged, `edge-agent run` sets it aside") from error
            log.error("%s: %s", self.path, error)
            put_aside(self.path)
            self.damaged = salvaged(self.folder)
            self._connection = connect(self.path)

    def with_room(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns; where it fails on a full disk, it is done once more with the room of the ballast."""
        try:
            return work(*args, **kwargs)
        except (sqlite3.Error, OSError, StoreError):
            if not is_full(self.folder) or not drop_ballast(self.folder):
                raise
            log.error("the disk is full: the ballast is freed; make room on it")
            return work(*args, **kwargs)

    # ------------------------------------------------------------------------------------------ a run begins

    def begin(self, now: int, cause: str = "agent_down", first_epoch: int = 1) -> Identity:
        """Begin a run: fix the identity on disk, and say that since the last sign of life nothing is known.

        `first_epoch` is that of a store of which nothing is known at all.
        """
        path = self.folder / IDENTITY
        in_file, in_database = identities.read(path), self._identity_in_database()
        begun = identities.begin(in_file, in_database, first_epoch)
        gone = identities.lost(in_file, in_database)
        with self.transaction():
            if gone is not None and in_file is not None:
                log.error("%s has lost %d records that it had committed", self.path, gone[1] - gone[0] + 1)
                self.losses.add("records", "damaged", count=gone[1] - gone[0] + 1, epoch=in_file.epoch, start=now)
            elif in_file and in_file.starts and (in_database is None or in_database.epoch < in_file.epoch):
                log.error("%s is empty or an older copy: records of epoch %d are gone", self.path, in_file.epoch)
                self.losses.add("records", "damaged", epoch=in_file.epoch, start=now)
                self.losses.add("readings", "damaged", start=now)
            alive = self.fact("alive")
            if alive is not None:
                self.readings.mark_down(alive, cause)
            self._set_identity(begun)
            if in_database is not None and begun.epoch != in_database.epoch:
                self.set_fact(DOUBTED_UNTIL, now)
            self.set_fact("alive", now)
            self.ended_well = bool(self.fact("ended_well"))
            self.set_fact("ended_well", 0)
        # After the commit: who is ended between the two has named what is lost, and begins one epoch more.
        identities.write(path, begun)
        self.identity, self._next_number = begun, begun.reserved
        return begun

    def end(self) -> None:
        """Remember that the run ended in good order: no page needs to be looked at again, if none has to be now."""
        with self.transaction():
            self.set_fact("ended_well", int(self.ended_well))

    def _identity_in_database(self) -> Identity | None:
        epoch, starts, reserved = self.fact("epoch"), self.fact("starts"), self.fact("reserved")
        if epoch is None or starts is None or reserved is None:
            return None
        return Identity(epoch, starts, reserved, self.fact("issued") or 0)

    def _set_identity(self, identity: Identity) -> None:
        self.set_fact("epoch", identity.epoch)
        self.set_fact("starts", identity.starts)
        self.set_fact("reserved", identity.reserved)
        self.set_fact("issued", identity.issued)

    # ------------------------------------------------------------------------------------------ transactions

    def transaction(self) -> Transaction:
        """A transaction as a context: durable when it ends, undone when it raises."""
        return Transaction(self._connection, self._mark)

    def _mark(self) -> None:
        """After a commit: what was issued in it is in the second file, too, before anybody sends it."""
        if self.identity is not None and self._issued > self.identity.issued:
            self._issued = self.fact("issued") or 0  # less, when the records of a transaction were undone with it
        if self.identity is not None and self._issued > self.identity.issued:
            marked = replace(self.identity, issued=self._issued)
            with suppress(OSError):  # a full disk: the mark stays behind, and follows at the next commit
                if self._durable:
                    identities.write(self.folder / IDENTITY, marked, now=False)
                self.identity = marked

    def append(self, rows: Sequence[Row], now: int) -> None:
        """Make rows durable together with the sign of life `now`."""
        with self.transaction():
            self.readings.append(rows, now)
            self.set_fact("alive", now)

    def issue(self, drafts: Sequence[Draft], freeze: Freeze, now: int) -> None:
        """Number the drafts, freeze them and put them into the outbox; within a transaction of the caller."""
        if self.identity is None:
            raise StoreError("a store issues records only in a run of the agent")
        self._reserve(len(drafts))
        if drafts:
            self._next_number = self.records.issue(drafts, freeze, self.identity.epoch, self._next_number, now)
            self._issued = self._next_number - 1
            self.set_fact("issued", self._issued)

    def take_number(self) -> Issued:
        """A number for what is published without being kept (`state`, `status`): unique, without a sequence."""
        if self.identity is None:
            raise StoreError("a store gives numbers only in a run of the agent")
        if self._next_number >= self.identity.reserved:
            with self.transaction():
                self._reserve(1)
        self._next_number += 1
        return Issued(self.identity.epoch, self._next_number - 1, 0)

    def _reserve(self, count: int) -> None:
        """Have at least so many numbers reserved, on disk in both files; within a transaction."""
        while self.identity is not None and self._next_number + count > self.identity.reserved:
            more = self.identity.with_block()
            identities.write(self.folder / IDENTITY, more)
            self._set_identity(more)
            self.identity = more

    # ------------------------------------------------------------------------------------------------- facts

    def fact(self, name: str) -> int | None:
        """A single integer that the agent remembers, such as `alive`, the time of the last sign of life."""
        sql = "SELECT value FROM fact WHERE name = ? AND typeof(value) = 'integer'"  # a flipped bit may say otherwise
        row = self._connection.execute(sql, (name,)).fetchone()
        return row[0] if row else None

    def facts(self, prefix: str) -> dict[str, int]:
        """The integers whose names begin so, without that beginning."""
        sql = "SELECT name, value FROM fact WHERE substr(name, 1, ?) = ? AND typeof(value) = 'integer'"
        found = self._connection.execute(sql, (len(prefix), prefix))
        return {name[len(prefix) :]: value for name, value in found}

    def set_fact(self, name: str, value: int) -> None:
        """Remember an integer."""
        self._connection.execute(
            "INSERT INTO fact (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def remember_configuration(self, hash: str, document: str, now: int, basis: str | None = None) -> None:
        """Keep a configuration under its hash, and that it is in force from now on: records name it.

        `basis` is how it computes, as `edge_agent.bases` writes it.
        """
        with self.transaction():
            self._connection.execute(
                "INSERT INTO configuration (hash, time, document, basis) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (hash) DO UPDATE SET basis = coalesce(configuration.basis, excluded.basis)",
                (hash, now, document, basis),
            )
            if not (before := self.applied()) or before[-1][1] != hash:
                self._connection.execute("INSERT OR REPLACE INTO applied (time, hash) VALUES (?, ?)", (now, hash))

    def applied(self) -> list[tuple[int, str]]:
        """Since when which configuration was in force, by its hash, in order."""
        return self._connection.execute("SELECT time, hash FROM applied ORDER BY time").fetchall()

    def basis(self, hash: str) -> str | None:
        """How a configuration computes; None where nothing is known of it."""
        row = self._connection.execute("SELECT basis FROM configuration WHERE hash = ?", (hash,)).fetchone()
        return row[0] if row else None

    def register(self, tags: Iterable[tuple[str, bool]]) -> dict[str, int]:
        """The ids of tags by name, durable; see `Readings.register`."""
        with self.transaction():
            return self.readings.register(tags)

    def check(self, seconds: float, how: Literal["quick_check", "integrity_check"] = "quick_check") -> bool:
        """Have SQLite check the whole database for so long; whether it came to an end. `integrity_check` is thorough.

        Raises:
            sqlite3.DatabaseError: it is damaged.
        """
        until = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        try:
            found = self._connection.execute(f"PRAGMA {how}(1)").fetchone()[0]
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                return False
            raise
        finally:
            self._connection.set_progress_handler(None, 0)
        if found != "ok":
            raise damage(found)
        return True

    def look_at_pages(self, done: dict[str, int], limit: int) -> bool:
        """Read at most so many rows of each table from where `done` says; whether there are more.

        Raises:
            sqlite3.DatabaseError: a page cannot be read.
        """
        more = False
        for table, column in (("reading", "quality"), ("record", "crc"), ("entry", "body")):
            after = done.get(table, 0)
            last = self._connection.execute(
                f"SELECT max(row) FROM (SELECT rowid AS row, {column} FROM {table} NOT INDEXED WHERE rowid > ? "  # noqa: S608
                f"AND {column} IS NOT 'never' ORDER BY rowid LIMIT ?)",
                (after, limit),
            ).fetchone()[0]
            if last is not None:
                done[table], more = last, True
        return more

    def figures(self) -> dict[str, int]:
        """Bytes on disk, about how many readings, records waiting and refused."""
        size = sum(path.stat().st_size for path in self.folder.glob(DATABASE + "*"))
        return {"bytes": size, "readings": self.readings.count(), **self.delivery.figures()}

    def translated(self, error: sqlite3.Error | OSError) -> StoreError:
        """What an error of SQLite or the disk means for the agent; damage is remembered until `close`."""
        by_itself = getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY")
        if isinstance(error, sqlite3.DatabaseError) and (
            is_damage(error) or (by_itself and fails_by_itself(error, self.path))
        ):
            self._is_damaged = True
            return StoreDamaged(f"{self.path}: {error}")
        return StoreError(f"{self.path}: {error}{'; make room on this disk' if is_full(self.folder) else ''}")

    def close(self) -> None:
        """Close the database, put it aside when it was found damaged, and let go of the lock; idempotent."""
        with suppress(sqlite3.DatabaseError):  # a damaged one may fail to close in good order
            self._connection.close()
        try:
            if self._is_damaged:
                self._is_damaged = False
                log.error("%s is damaged: kept as %s", self.path, put_aside(self.path).name)
        finally:
            self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{self.path}: {error}; if it is damaged, `edge-agent run` sets it aside") from error


class Transaction:
    """BEGIN, and COMMIT or ROLLBACK; `committed` is called after a COMMIT."""

    def __init__(self, connection: sqlite3.Connection, committed: Callable[[], None]) -> None:
        self._connection = connection
        self._committed = committed

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
                self._committed()
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    self._connection.execute("ROLLBACK")
