"""The files of a store: its lock, its database at the newest schema, and what becomes of a damaged one."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlite_utils import Database

from edge_agent.contract import EdgeAgentError
from edge_agent.store import identity as identities
from edge_agent.store.faults import damage
from edge_agent.store.identity import IDENTITY as IDENTITY
from edge_agent.store.salvage import salvage
from edge_agent.store.schema import APPLICATION_ID, VERSION, migrations
from edge_agent.store.values import as_text

log = logging.getLogger(__name__)

DATABASE = "edge-agent.db"
LOCK = "lock"
BALLAST = "ballast"
FULL_BYTES = 2**20
SALVAGE = "salvage"
"""Holds the name of a damaged database that has been put aside, until what can be read of it has been saved."""
PUT_ASIDE = re.compile(re.escape(DATABASE) + r"\.damaged-(\d+)")
"""A database that was put aside, its log and whatever else belongs to it, by its number."""
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "mmap_size = 0",
    "journal_size_limit = 8000000",
    "cache_size = -4000",
    "temp_store = MEMORY",
)


class StoreError(EdgeAgentError):
    """The store cannot be opened; the message names the file and the cure."""


class StoreDamaged(StoreError):
    """SQLite found that the file is no sound database; closing the store puts it aside."""


class StoreInUse(StoreError):
    """Another process holds the data folder's lock."""


def take_lock(path: Path) -> IO[str]:
    """The lock of a folder, and its file, which belongs to whom the folder does, also where root has made it.

    Root follows no link that the agent's user may have put there, and gives away no file that has another name.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.fdopen(os.open(path, flags, 0o600), "r+", encoding="ascii")
    owner, made = path.parent.stat(), os.fstat(file.fileno())
    if os.geteuid() == 0 and made.st_uid != owner.st_uid and made.st_nlink == 1:
        with suppress(OSError):  # a root that may not
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreInUse(
            f"{path.parent} is in use by another agent (process {holder}); "
            "stop it, or give this one a data folder of its own (agent.data)"
        ) from None
    with suppress(OSError):  # on a full disk: the number only helps people
        file.write(f"{os.getpid():<20}\n")  # over the one before, which takes no room
        file.flush()
    return file


def is_full(folder: Path) -> bool:
    """Whether the disk has no room to speak of."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < FULL_BYTES


def connect(path: Path) -> sqlite3.Connection:
    """An open connection to a database of ours, at the newest schema.

    `synchronous=FULL` because WAL with NORMAL loses what was committed since the last checkpoint when power is cut.
    """
    new = not path.exists()
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
    connection.text_factory = as_text
    try:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if _is_ours(connection, path) and (owner != APPLICATION_ID or version > _migrated(connection)):
            raise damage("its header does not say what its tables do")
        if owner not in (0, APPLICATION_ID) or (owner == 0 and tables):
            raise StoreError(f"{path} is another program's database; set agent.data to a folder of the agent's own")
        if version > VERSION:
            raise StoreError(f"{path} was written by a newer version of edge-agent: install that one, or a later")
        if not tables:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is written: later it has no effect
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        if version < VERSION:
            migrations.apply(Database(connection, execute_plugins=False, recursive_triggers=False))
            connection.execute(f"PRAGMA user_version = {VERSION}")
        if new:
            identities.fsync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the second file lies beside the database, and the tables are those of a store."""
    if identities.read(path.with_name(IDENTITY)) is None:
        return False
    ours = "SELECT count(*) FROM sqlite_master WHERE name IN ('_sqlite_migrations', 'record', 'reading', 'fact')"
    return bool(connection.execute(ours).fetchone()[0] == 4)


def _migrated(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM _sqlite_migrations").fetchone()[0])


_NO_FAULT_OF_THE_FILE = (
    "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_PERM",
    "SQLITE_AUTH", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT",
)  # fmt: skip


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite says that the file is no sound database, or that a table of ours is not there."""
    name = getattr(error, "sqlite_errorname", "")
    missing = name == "SQLITE_ERROR" and str(error).startswith(("no such", "malformed database schema"))
    return name in ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_CORRUPT_INDEX") or missing


def fails_by_itself(error: sqlite3.DatabaseError, path: Path) -> bool:
    """Whether a database of ours cannot be opened for no fault of the disk, of rights, or of another process."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_READONLY") and not os.access(path.parent, os.W_OK):
        return False
    return not name.startswith(_NO_FAULT_OF_THE_FILE) and identities.read(path.with_name(IDENTITY)) is not None


def put_aside(path: Path) -> Path:
    """Rename a damaged database and what belongs to it, to be looked at by `salvaged`; nothing is deleted.

    Raises:
        StoreError: the disk does not let us.
    """
    kept = _new_name(path)
    try:
        try:
            _mark(path.parent, kept.name)
        except OSError:
            if not drop_ballast(path.parent):
                raise
            _mark(path.parent, kept.name)
        _rename(path, kept)
    except OSError as error:
        raise StoreError(f"{path} is damaged, and cannot be put aside: {error}; make room on this disk") from error
    return kept


def _new_name(path: Path) -> Path:
    """Beyond all that there are, so that the newest is known by its number."""
    found = (PUT_ASIDE.match(each.name) for each in path.parent.iterdir())
    return path.with_name(f"{path.name}.damaged-{max([0, *(int(each[1]) for each in found if each)]) + 1}")


def _mark(folder: Path, name: str) -> None:
    """From here on a start goes on with the salvage, wherever it was stopped."""
    mark = folder / SALVAGE
    with mark.with_suffix(".new").open("w", encoding="ascii") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    mark.with_suffix(".new").replace(mark)
    identities.fsync_folder(folder)


def _marked(folder: Path) -> Path | None:
    """The database that is to be salvaged; a mark that names none of ours counts for nothing."""
    try:
        name = (folder / SALVAGE).read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return None
    return folder / name if PUT_ASIDE.fullmatch(name) else None


def keep_log(path: Path) -> None:
    """Put the log of a database that is gone or emptied aside: SQLite would delete it, with all that is in it."""
    log_of_it = path.with_name(f"{path.name}-wal")
    if (path.exists() and path.stat().st_size) or not log_of_it.exists() or not log_of_it.stat().st_size:
        return
    kept = _new_name(path)
    kept = log_of_it.rename(kept.with_name(f"{kept.name}-wal"))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    identities.fsync_folder(path.parent)
    log.error("%s is gone or empty: its log is kept as %s", path.name, kept.name)


def _rename(path: Path, kept: Path) -> None:
    """The database first, then what belongs to it: the log alone would be written over by a new one."""
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists() and not kept.with_name(kept.name + suffix).exists():
            part.rename(kept.with_name(kept.name + suffix))
    identities.fsync_folder(path.parent)


def remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _salvaged(damaged: Path, new: Path) -> dict[str, int] | None:
    """Rows by table that are durable in `new`; None: nothing can be read.

    Raises:
        StoreError: the disk does not take it; the damaged file is there for another try.
    """
    try:
        remove(new)
        connect(new).close()
        rows = salvage(damaged, new)
        if rows is not None:
            with new.open("r+b") as file:  # however long that takes
                os.fsync(file.fileno())
        elif is_full(new.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except (sqlite3.Error, OSError) as error:
        with suppress(OSError):
            remove(new)
        raise StoreError(
            f"{damaged} is damaged and could not be salvaged yet: {error}; make room on this disk and start again"
        ) from error
    return rows


def drop_ballast(folder: Path) -> bool:
    """Free the ballast of the store in a folder; whether there was any."""
    try:
        (folder / BALLAST).unlink()
    except OSError:
        return False
    return True


def salvaged(folder: Path) -> Path | None:
    """Make a store of what can be read of one that was put aside and not looked at yet; where that one is.

    Raises:
        StoreError: the disk has no room for it: the next start tries again.
    """
    damaged, path = _marked(folder), folder / DATABASE
    if damaged is None:
        return None
    if not damaged.exists() or not path.exists():
        _rename(path, damaged)  # what a kill or a power cut has stopped in the middle
    if not path.exists():
        new = folder / f"{DATABASE}.salvaged"
        try:
            rows = _salvaged(damaged, new)
        except StoreError:
            if not drop_ballast(folder):
                raise
            log.error("the disk is full: the ballast is freed; make room on it")
            rows = _salvaged(damaged, new)
        if rows is None:
            remove(new)
            log.error("%s was damaged and is kept as %s; nothing of it can be read", DATABASE, damaged.name)
        else:
            new.replace(path)
            told = ", ".join(f"{rows.get(name, 0)} {name}" for name in ("reading", "record", "entry"))
            log.error("%s was damaged and is kept as %s; salvaged: %s", DATABASE, damaged.name, told)
        identities.fsync_folder(folder)
    (folder / SALVAGE).unlink(missing_ok=True)
    return damaged
