"""A database whose first page is damaged: SQLite opens none of it, though everything else may be sound.

What stands on that page follows from the schema alone: our tables are made in the same order in every store, so their
roots are the same pages. A copy with the first page of a new store can be read, and is believed only when what it then
shows is ours: the epoch of the second file, tags by name, records with their checksums.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from edge_agent.store import identity as identities
from edge_agent.store.delivery import is_sound

SUFFIX = ".mended"
_PAGE = 4_096
_PAGES_AT, _FREE_AT = 28, 32
_SAMPLE = 20


def is_readable(path: Path) -> bool:
    """Whether SQLite finds tables in the file."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return bool(db.execute("SELECT count(*) FROM pragma_table_info('record')").fetchone()[0])
    except sqlite3.DatabaseError:
        return False


def mended(damaged: Path, new: Path) -> Path | None:
    """A copy of the damaged database with the schema pages of the `new` one; None where that makes no store of it."""
    copy = damaged.with_name(damaged.name + SUFFIX)
    for pages in ([1], _schema_pages(new)):
        shutil.copyfile(damaged, copy)
        if (log := damaged.with_name(damaged.name + "-wal")).exists():
            shutil.copyfile(log, copy.with_name(copy.name + "-wal"))
        _transplant(new, copy, pages)
        if _is_ours(copy, damaged.parent / identities.IDENTITY):
            return copy
        remove(copy)
    return None


def _schema_pages(new: Path) -> list[int]:
    """The pages of a new store that hold its schema: all but the roots of tables and indices, and the pointer map."""
    with closing(sqlite3.connect(f"file:{new}?mode=ro", uri=True)) as db:
        roots = {root for (root,) in db.execute("SELECT rootpage FROM sqlite_master")}
    return [page for page in range(1, new.stat().st_size // _PAGE + 1) if page not in roots and page != 2]


def _transplant(new: Path, copy: Path, pages: list[int]) -> None:
    with new.open("rb") as source, copy.open("r+b") as target:
        for page in pages:
            source.seek((page - 1) * _PAGE)
            content = bytearray(source.read(_PAGE))
            if page == 1:  # pages that were free are nobody's in the copy: it is only read
                content[_PAGES_AT:_FREE_AT] = (copy.stat().st_size // _PAGE).to_bytes(4, "big")
                content[_FREE_AT : _FREE_AT + 8] = bytes(8)
            target.seek((page - 1) * _PAGE)
            target.write(content)


def remove(copy: Path) -> None:
    """Delete a copy, and what SQLite keeps beside it."""
    for suffix in ("-wal", "-shm", ""):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _is_ours(copy: Path, identity: Path) -> bool:
    told = identities.read(identity)
    try:
        with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as db:
            epochs = db.execute("SELECT value FROM fact WHERE name = 'epoch'").fetchall()
            tags = db.execute("SELECT name, machine FROM tag LIMIT ?", (_SAMPLE,)).fetchall()
            records = db.execute("SELECT epoch, number, topic, payload, crc FROM record LIMIT ?", (_SAMPLE,)).fetchall()
    except sqlite3.DatabaseError:
        return False
    return (
        len(epochs) == 1
        and (told is None or told.epoch == epochs[0][0])
        and all(isinstance(name, str) and "." in name and machine in (0, 1) for name, machine in tags)
        and all(is_sound(*row) for row in records)
    )
