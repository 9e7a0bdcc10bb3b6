"""Damage to a store's files, as disks, power cuts and people do it; each at a random place."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge_agent.store.files import DATABASE, IDENTITY

PAGE = 4_096


def checkpointed(folder: Path) -> None:
    with sqlite3.connect(folder / DATABASE) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def torn_page(folder: Path, chance: random.Random) -> None:
    checkpointed(folder)
    path = folder / DATABASE
    page = chance.randrange(1, path.stat().st_size // PAGE)
    overwrite(path, page * PAGE + chance.choice([0, 512, 2_048]), chance.randbytes(512))


def zeroed_pages(folder: Path, chance: random.Random) -> None:
    checkpointed(folder)
    path = folder / DATABASE
    for _ in range(5):
        overwrite(path, chance.randrange(1, path.stat().st_size // PAGE) * PAGE, bytes(PAGE))


def header(folder: Path, chance: random.Random) -> None:
    checkpointed(folder)
    overwrite(folder / DATABASE, chance.randrange(16), bytes([chance.randrange(1, 255)]) * 8)


def header_zeroed(folder: Path, chance: random.Random) -> None:
    checkpointed(folder)
    overwrite(folder / DATABASE, 0, bytes(chance.choice([16, 100, 512, PAGE])))


def log_zeroed(folder: Path, chance: random.Random) -> None:
    """From a random place to the end: what a file system may leave of what was not synced."""
    path = folder / f"{DATABASE}-wal"
    size = path.stat().st_size
    at = chance.randrange(size)
    overwrite(path, at, bytes(size - at))


def truncated(folder: Path, chance: random.Random) -> None:
    checkpointed(folder)
    path = folder / DATABASE
    with path.open("r+b") as file:
        file.truncate(chance.randrange(PAGE, path.stat().st_size))


def emptied(folder: Path, chance: random.Random) -> None:
    for name in (DATABASE, f"{DATABASE}-wal"):
        (folder / name).write_bytes(b"")


def removed(folder: Path, chance: random.Random) -> None:
    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()


def log_removed(folder: Path, chance: random.Random) -> None:
    (folder / f"{DATABASE}-wal").unlink()


def log_truncated(folder: Path, chance: random.Random) -> None:
    path = folder / f"{DATABASE}-wal"
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def log_flipped(folder: Path, chance: random.Random) -> None:
    path = folder / f"{DATABASE}-wal"
    at = chance.randrange(path.stat().st_size)
    overwrite(path, at, bytes([path.read_bytes()[at] ^ (1 << chance.randrange(8))]))


def identity_damaged(folder: Path, chance: random.Random) -> None:
    (folder / IDENTITY).write_bytes(chance.randbytes(20))


def value_flipped(folder: Path, chance: random.Random) -> None:
    """A bit within a record's bytes, which no check of SQLite's sees."""
    checkpointed(folder)
    path = folder / DATABASE
    content = path.read_bytes()
    places = [at for at in range(0, len(content), 101) if content[at : at + 8] == b"yyyyyyyy"]
    overwrite(path, chance.choice(places), b"z")


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    torn_page, zeroed_pages, header, header_zeroed, truncated, emptied, removed, log_removed, log_truncated,
    log_flipped, log_zeroed, identity_damaged, value_flipped,
]  # fmt: skip
