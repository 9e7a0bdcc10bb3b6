"""A serial line without hardware: a pseudo terminal whose far end answers, behind a stable name in a folder."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_agent.simulator.plant import PlantError

_READ_BYTES = 4096


@contextmanager
def private_folder(folder: Path) -> Iterator[Path]:
    """A folder that only we can write to, made if need be, and removed afterwards if we made it.

    Raises:
        PlantError: what is there is not a folder, others could put something into it, or another plant uses it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True)
        made = True
    except FileExistsError:
        made = False
    except OSError as error:
        raise PlantError(f"cannot make the folder {folder} for the serial lines: {error.strerror}") from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PlantError(f"{folder} is not a folder; choose another one for the serial lines")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PlantError(f"others may write to {folder}; choose a folder of your own for the serial lines")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"another plant has its serial lines in {folder}; end that one or choose another folder"
            raise PlantError(text) from error
        try:
            yield folder
        finally:
            if made:
                with suppress(OSError):  # somebody put something of their own into it
                    folder.rmdir()
    finally:
        os.close(handle)


@contextmanager
def serial_line(link: Path, respond: Callable[[bytes], bytes]) -> Iterator[str]:
    """A serial port at `link`; `respond` gets each chunk that a client wrote and gives what it reads. Gives the path.

    Clients may open and close it as often as they like. What nobody reads is lost when the line is full, as on a wire.

    Raises:
        PlantError: `link` is a file of somebody else's.
    """
    ours, theirs = os.openpty()
    loop = asyncio.get_running_loop()

    def readable() -> None:
        with suppress(BlockingIOError):
            if answer := respond(os.read(ours, _READ_BYTES)):
                os.write(ours, answer)

    try:
        tty.setraw(theirs)  # no echo, no change of CR and LF
        os.set_blocking(ours, False)
        name = os.ttyname(theirs)
        # `theirs` stays open: with no client left, reading our end would fail, and the raw mode would be forgotten
        _point(link, name)
        loop.add_reader(ours, readable)
        try:
            yield str(link)
        finally:
            loop.remove_reader(ours)
            if link.is_symlink() and str(link.readlink()) == name:
                link.unlink()
    finally:
        os.close(ours)
        os.close(theirs)


def _point(link: Path, target: str) -> None:
    if link.is_symlink():
        link.unlink()  # left by a plant that was killed
    try:
        link.symlink_to(target)
    except FileExistsError as error:
        text = f"{link} is in the way and not a serial line of ours; remove it or choose another folder"
        raise PlantError(text) from error
