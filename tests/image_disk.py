"""A disk of its own: ext4 in a file, mounted; it can lose power, be filled by others, or turn read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MB = 64


def can_mount() -> bool:
    """Whether this machine lets us mount a file: root, mkfs.ext4 and a loop device."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        return False
    return subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode == 0


needs_loop = pytest.mark.skipif(not can_mount(), reason="a disk of its own takes root, mkfs.ext4 and a loop device")


@contextmanager
def mounted(image: Path, at: Path, *options: str) -> Iterator[Path]:
    """The image mounted there."""
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", ",".join(("loop", *options)), str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def made(image: Path, mb: int = MB) -> Path:
    """An empty ext4 in a file."""
    with image.open("wb") as file:
        file.truncate(mb * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return image


class Disk:
    """One disk, mounted at `at` from the beginning until `close`. What is not synced stays in memory."""

    def __init__(self, folder: Path, at: Path, mb: int = MB) -> None:
        self.at = at
        self.image = made(folder / "image", mb)
        self._others, self._full = at / "somebody else's", False
        at.mkdir(exist_ok=True)
        self._mount()

    def _mount(self) -> None:
        options = "loop,commit=600,errors=remount-ro"
        subprocess.run(["mount", "-o", options, str(self.image), str(self.at)], check=True)

    def _unmount(self) -> None:
        for _ in range(50):  # what was killed just now may still be on its way out
            if subprocess.run(["umount", str(self.at)], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", str(self.at)], check=True)

    def lose_power(self) -> None:
        """What had been synced until now is all that there is. Whoever wrote must have been killed just before."""
        copy = self.image.with_suffix(".cut")
        shutil.copyfile(self.image, copy)
        self._unmount()
        copy.replace(self.image)
        self._mount()
        if not self._full:
            self._others.unlink(missing_ok=True)  # they had deleted it, which was not synced

    def fill(self) -> None:
        """Have somebody else write until there is no room."""
        self._full = True
        with self._others.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(2**16))

    def free(self) -> None:
        """Have them delete it again."""
        self._full = False
        self._others.unlink(missing_ok=True)

    def break_down(self) -> None:
        """Have the kernel find an error in the file system: from now on it is read-only."""
        device = subprocess.run(
            ["findmnt", "-n", "-o", "SOURCE", str(self.at)], capture_output=True, text=True, check=True
        ).stdout.strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")

    def mend(self) -> None:
        """Check it and mount it again. Nobody may use it meanwhile."""
        self._unmount()
        subprocess.run(["fsck.ext4", "-f", "-y", str(self.image)], check=False, capture_output=True)
        self._mount()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.at)], check=False)
