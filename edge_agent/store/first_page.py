"""A database whose first page is damaged: SQLite opens none of it, though everything else may be sound.

Where only its number of pages is wrong, or the file is cut off, SQLite is told to go by the file's size. Else what
stands on that page follows from the schema alone: our tables are made in the same order in every store that this
version has made, so their roots are the same pages (in one that was brought forward they are not). With the first page
of a new store it can be read, and is believed only when what it then shows is ours: the epoch of the second file, tags
by name, records with their checksums. Its own pages are kept beside it meanwhile, and put back afterwards: a copy of a
large database would take longer than there is time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from edge_agent.store import identity as identities
from edge_agent.store.delivery import is_sound
from edge_agent.store.values import as_text

SUFFIX = ".pages"
_PAGE = 4_096
_PAGES_AT, _FREE_UNTIL = 28, 40
"""Where the header says how many pages there are, and which are free; 0: as many as the file has, and none."""
_SAMPLE = 20


def is_readable(path: Path) -> bool:
    """Whether SQLite finds tables in the file."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return bool(db.execute("SELECT count(*) FROM pragma_table_info('record')").fetchone()[0])
    except sqlite3.DatabaseError:
        return False


@contextmanager
def mended(damaged: Path, new: Path) -> Iterator[None]:
    """The damaged database so that SQLite can read it, if there is a way; then as it was.

    By the size of the file, else with the schema pages of the `new` one, if that makes a store of it.
    """
    put_back(damaged)
    try:
        if not (is_readable(damaged) and _is_counted(damaged)) and not (
            (_transplanted(damaged, damaged, [1]) and is_readable(damaged))
            or any(_transplanted(new, damaged, pages) and _is_ours(damaged) for pages in ([1], _schema_pages(new)))
        ):
            put_back(damaged)
        yield
    finally:
        put_back(damaged)


def _is_counted(damaged: Path) -> bool:
    """Whether the header says how many pages the file has."""
    with damaged.open("rb") as file:
        return int.from_bytes(file.read(_PAGE)[_PAGES_AT : _PAGES_AT + 4], "big") == damaged.stat().st_size // _PAGE


def put_back(damaged: Path) -> None:
    """Give a database its own pages again, also where whoever had changed them was killed."""
    kept = damaged.with_name(damaged.name + SUFFIX)
    if not kept.exists():
        return
    with kept.open("rb") as source, damaged.open("r+b") as target:
        while number := source.read(8):
            target.seek((int.from_bytes(number, "big") - 1) * _PAGE)
            target.write(source.read(_PAGE))
        os.fsync(target.fileno())
    kept.unlink()


def _schema_pages(new: Path) -> list[int]:
    """The pages of a new store that hold its schema: all but the roots of tables and indices, and the pointer map."""
    with closing(sqlite3.connect(f"file:{new}?mode=ro", uri=True)) as db:
        roots = {root for (root,) in db.execute("SELECT rootpage FROM sqlite_master")}
    return [page for page in range(1, new.stat().st_size // _PAGE + 1) if page not in roots and page != 2]


def _transplanted(source: Path, damaged: Path, pages: Sequence[int]) -> bool:
    """Put these pages of a database into the damaged one, its size as the number of pages; whether it has them."""
    put_back(damaged)
    size = damaged.stat().st_size
    pages = [page for page in pages if page * _PAGE <= size]
    given = {page: _page(source, page) for page in pages}
    part = damaged.with_name(damaged.name + SUFFIX + ".new")
    with part.open("wb") as kept:
        for page in pages:
            kept.write(page.to_bytes(8, "big") + _page(damaged, page))
        kept.flush()
        os.fsync(kept.fileno())
    part.replace(damaged.with_name(damaged.name + SUFFIX))
    with damaged.open("r+b") as target:
        for page, content in given.items():
            target.seek((page - 1) * _PAGE)
            target.write(content)
            if page == 1:  # pages that were free are nobody's: it is only read
                target.seek(_PAGES_AT)
                target.write(bytes(_FREE_UNTIL - _PAGES_AT))
    return bool(pages)


def _page(path: Path, page: int) -> bytes:
    with path.open("rb") as file:
        file.seek((page - 1) * _PAGE)
        return file.read(_PAGE)


def _is_ours(damaged: Path) -> bool:
    told = identities.read(damaged.parent / identities.IDENTITY)
    try:
        with closing(sqlite3.connect(f"file:{damaged}?mode=ro", uri=True)) as db:
            db.text_factory = as_text
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
