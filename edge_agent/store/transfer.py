"""A store in one file, for a replacement gateway: readings, records that wait, entries, epoch, certificates."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from edge_agent.store import identity as identities
from edge_agent.store.database import Store
from edge_agent.store.files import BALLAST, DATABASE, IDENTITY, LOCK, SALVAGE, StoreError, connect, take_lock
from edge_agent.store.salvage import salvaged

IMPORT = "import"
"""Holds what an import brings, until all of it is there and proven; one that broke off has left nothing else."""
_LEFT_HERE = (LOCK, BALLAST, SALVAGE, IMPORT, "agent.sock", "lost+found")
_MAY_BE_THERE = (LOCK, BALLAST, IMPORT, "agent.sock", "lost+found")
_PIECE_BYTES = 2**20
_NO_ARCHIVE = (OSError, EOFError, ValueError, ArithmeticError, LookupError, zlib.error, tarfile.TarError)
"""What reading an archive raises of which a bit has flipped."""


def export(folder: Path, target: Path) -> list[str]:
    """Write everything in a data folder to a new file that only its owner may read; which links were left out.

    Raises:
        StoreInUse: an agent runs on it.
        StoreError: there is no store, or one whose epoch is not known, or the file exists or cannot be written.
    """
    if folder.resolve() in target.resolve().parents:
        raise StoreError(f"{target} is in the data folder, which is what is exported: give a file outside of {folder}")
    with Store(folder, create=False) as store:
        known, issued = identities.read(folder / IDENTITY), store.fact("issued") or 0
        if known is None or known.epoch != store.fact("epoch") or known.issued > issued:
            raise StoreError(
                f"{folder / IDENTITY} is not there, or says something else than the database: start the agent once "
                "(`edge-agent run`), which puts it right, stop it, and export again"
            )
        store.room.give_back()  # the log is in the database now
        paths = [path for path in sorted(folder.rglob("*")) if _travels(path.relative_to(folder).as_posix())]
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    _pack(file, folder, paths)
            except BaseException:
                target.unlink()
                raise
        except OSError as error:
            raise StoreError(f"{target}: {error.strerror or error}") from error
    return [path.relative_to(folder).as_posix() for path in paths if path.is_symlink()]


def _travels(name: str) -> bool:
    """Whether a file of a data folder goes to another gateway."""
    return name.split("/")[0] not in _LEFT_HERE and not name.startswith((f"{DATABASE}-", f"{DATABASE}."))


def _pack(file: IO[bytes], folder: Path, paths: Sequence[Path]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for path in paths:
            if path.is_file() and not path.is_symlink():
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    file.flush()
    os.fsync(file.fileno())


def salvage_to(damaged: Path, folder: Path) -> dict[str, int]:
    """Make a store of what can be read of a damaged database, in a new folder; rows by table.

    Raises:
        StoreError: there is no such file, or the folder is not empty.
    """
    if not damaged.is_file():
        raise StoreError(f"{damaged}: there is no such file")
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty: give a new folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    connect(folder / DATABASE).close()
    try:
        return salvaged(damaged, folder / DATABASE, float("inf"))
    except sqlite3.DatabaseError:
        return {}


def bring_in(source: Path, folder: Path, now: int) -> list[str]:
    """Put what `export` wrote into an empty data folder; the names of its files. A new epoch begins there.

    All of it or nothing, also when it breaks off. Whoever is stopped by force between the last renames leaves a folder
    in which an agent begins with an empty store, in an epoch of its own, since the database comes last.

    Args:
        source: the file.
        folder: where to.
        now: in ns since 1970 UTC, by the gateway's clock.

    Raises:
        StoreInUse: an agent runs there.
        StoreError: the folder is not empty, or the file is damaged or not one of ours.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with take_lock(folder / LOCK):
            there = sorted(path.name for path in folder.iterdir() if path.name not in _MAY_BE_THERE)
            if there:
                what = "a store" if DATABASE in there else ", ".join(there)
                raise StoreError(
                    f"{folder} has {what} already: an import goes into an empty data folder; move aside what is there"
                )
            temporary = folder / IMPORT
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                names = _unpacked(source, temporary, folder.stat())
                _raise_epoch(temporary / IDENTITY, now, folder.stat())
                others = {path.name for path in temporary.iterdir()} - {IDENTITY, DATABASE}
                for name in (IDENTITY, *sorted(others), DATABASE):
                    (temporary / name).rename(folder / name)
                    identities.fsync_folder(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}; nothing was brought in") from error
    return names


def _unpacked(source: Path, into: Path, owner: os.stat_result) -> list[str]:
    """Write the files of an archive to a new folder, piece by piece, and prove its checksum; their names."""
    names: list[str] = []
    into.mkdir(mode=0o700)
    try:
        with gzip.open(source) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    odd = path.is_absolute() or ".." in path.parts or not _travels(member.name)
                    content = None if odd or not member.isfile() else archive.extractfile(member)
                    if content is None:
                        raise StoreError(f"{source} holds {member.name!r}, which no export does")
                    _write(into, path, content, owner)
                    names.append(member.name)
            while stream.read(_PIECE_BYTES):
                pass  # the checksum is at its end
    except _NO_ARCHIVE as error:
        raise StoreError(f"{source}: {error}; nothing was brought in") from error
    if not {DATABASE, IDENTITY} <= {*names}:
        raise StoreError(f"{source} is no export of a store")
    return names


def _raise_epoch(path: Path, now: int, owner: os.stat_result) -> None:
    """Have the next start begin an epoch that no other gateway begins, since this file is not that of the database.

    The old gateway may have gone on after the export, and another one may have been given the same file before.
    """
    brought = identities.read(path)
    if brought is None:
        raise StoreError(f"{path.name} in it is unreadable: start the agent once on the old gateway, and export again")
    epoch = max(brought.epoch + 1, identities.first_epoch(now))
    identities.write(path, replace(brought, epoch=epoch, starts=0, issued=0))  # nobody has begun in it
    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _write(folder: Path, name: PurePosixPath, content: IO[bytes], owner: os.stat_result) -> None:
    path = folder / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file, _PIECE_BYTES)
        file.flush()
        os.fsync(descriptor)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    for each in path.parents:
        if each == folder or folder in each.parents:
            os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
    identities.fsync_folder(path.parent)
