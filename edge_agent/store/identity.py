"""Numbers that are never given twice: the epoch and the block of reserved record numbers, in a second, fsynced file.

The database may be lost, emptied or rolled back to yesterday's copy; this file then says which numbers are spent. The
database carries the same three figures. When the two disagree, a new epoch begins: harmless when a crash fell between
the two writes, and necessary in every other case.

The file also says which number was issued last, written after the record was committed and before it is sent. A
database that says less has lost what it had committed: SQLite drops the rest of a damaged write-ahead log silently.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_agent.clock import EARLIEST_NS, PROVISIONAL_NS
from edge_agent.contract import NS_PER_S

IDENTITY = "identity.json"
BLOCK = 1_000
"""Record numbers reserved at a time."""


@dataclass(frozen=True)
class Identity:
    """What has been promised so far: `epoch`, how often the agent began in it, the first number not reserved, and the
    last one issued."""

    epoch: int
    starts: int
    reserved: int
    issued: int = 0

    def with_block(self) -> Identity:
        """The same with one more block reserved."""
        return replace(self, reserved=self.reserved + BLOCK)


def read(path: Path) -> Identity | None:
    """The identity in the file; None when there is no file or it is not readable as one."""
    try:
        found = json.loads(path.read_bytes())
        return Identity(
            int(found["epoch"]), int(found["starts"]), int(found["reserved"]), int(found.get("issued", 0))
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, identity: Identity, *, now: bool = True) -> None:
    """Put the identity on disk, whole or not at all; unless `now`, a power cut may bring the older one back."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(json.dumps(asdict(identity)).encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if now:
        fsync_folder(path.parent)


def first_epoch(now: int) -> int:
    """An epoch for a store that knows of none: seconds since 2026, beyond those of every store that was made before.

    Where the clock is not set: one at random below all of those.
    """
    return (now - PROVISIONAL_NS) // NS_PER_S if now >= EARLIEST_NS else 1 + secrets.randbelow(2**24)


def fsync_folder(folder: Path) -> None:
    """Make a created or renamed entry of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begin(in_file: Identity | None, in_database: Identity | None, first: int = 1) -> Identity:
    """The identity of a run that starts now, given what the file and the database say.

    Agreement goes on in the same epoch, from the first number that was not reserved; anything else begins a new one.
    Where the file is not there, the database may be an older copy, or gone as well: then the `first` epoch is to be
    beyond all that there were.
    """
    if in_file is not None and in_database is not None:
        same = replace(in_file, issued=0) == replace(in_database, issued=0)
        if same and in_file.issued <= in_database.issued < in_file.reserved:
            return Identity(in_file.epoch, in_file.starts + 1, in_file.reserved, in_database.issued)
    if in_file is None and in_database is None:
        return Identity(first, 1, 1)
    epoch = max(known.epoch if known else 0 for known in (in_file, in_database)) + 1
    return Identity(epoch if in_file else max(epoch, first), 1, 1)


def lost(in_file: Identity | None, in_database: Identity | None) -> tuple[int, int] | None:
    """The first and the last number that were issued and are not in the database; None where none is known to be."""
    if in_file is None or in_database is None or in_file.epoch != in_database.epoch:
        return None
    return (in_database.issued + 1, in_file.issued) if in_file.issued > in_database.issued else None
