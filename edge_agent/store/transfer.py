"""A store in one file, for a replacement gateway: readings, records that wait, entries, epoch, certificates."""

from __future__ import annotations

import os
import sqlite3
import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from edge_agent.store import identity as identities
from edge_agent.store.database import Store
from edge_agent.store.files import BALLAST, DATABASE, IDENTITY, LOCK, SALVAGE, StoreError, connect
from edge_agent.store.salvage import salvaged

_LEFT_HERE = (LOCK, BALLAST, SALVAGE, "agent.sock")


def export(folder: Path, target: Path) -> int:
    """Write everything in a data folder to a new file that only its owner may read; how many bytes.

    Raises:
        StoreInUse: an agent runs on it.
        StoreError: there is no store, or the file exists or cannot be written.
    """
    with Store(folder, create=False) as store:
        store.room.give_back()  # the log is in the database now
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
                    for path in sorted(folder.rglob("*")):
                        name = path.relative_to(folder).as_posix()
                        wanted = name not in _LEFT_HERE and not name.startswith((f"{DATABASE}-", f"{DATABASE}."))
                        if wanted and path.is_file() and not path.is_symlink():
                            archive.add(path, name, recursive=False)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{target}: {error.strerror or error}") from error
    return target.stat().st_size


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


def bring_in(source: Path, folder: Path) -> list[str]:
    """Put what `export` wrote into a data folder without a store; the names of its files. A new epoch begins there.

    Raises:
        StoreError: there is a store already, or the file is not one of ours.
    """
    if (folder / DATABASE).exists() or (folder / IDENTITY).exists():
        raise StoreError(f"{folder} has a store already: an import goes into an empty data folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat()
    names = []
    try:
        with tarfile.open(source, "r:gz") as archive:
            members = archive.getmembers()
            if not {DATABASE, IDENTITY} <= {member.name for member in members}:
                raise StoreError(f"{source} is no export of a store")
            for member in members:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.is_absolute() or ".." in path.parts:
                    raise StoreError(f"{source} holds {member.name!r}, which no export does")
                content = archive.extractfile(member)
                assert content is not None  # noqa: S101 - it is a file
                _write(folder / path, content.read(), folder, owner)
                names.append(member.name)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise StoreError(f"{source}: {error}") from error
    brought = identities.read(folder / IDENTITY)
    if brought is not None:  # the old gateway may have gone on after the export: numbers are not to be given twice
        identities.write(folder / IDENTITY, replace(brought, starts=brought.starts + 1))
        os.chown(folder / IDENTITY, owner.st_uid, owner.st_gid)
    return names


def _write(path: Path, content: bytes, folder: Path, owner: os.stat_result) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    for each in path.parents:
        if folder in each.parents:
            os.chown(each, owner.st_uid, owner.st_gid)
    identities.fsync_folder(path.parent)
