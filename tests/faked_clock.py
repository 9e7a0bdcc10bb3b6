"""The wall clock of another process, set at will; its monotonic clock runs on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

_FOUND = [
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    *Path("/usr/local/lib").glob("faketime/libfaketimeMT.so.1"),
]

needs_faketime = pytest.mark.skipif(not _FOUND, reason="libfaketime is not installed: apt install libfaketime")


def has_faketime() -> bool:
    """Whether clocks can be faked here."""
    return bool(_FOUND)


class FakedClock:
    """Give `environment` to a process; `set` then sets its clock, by so many seconds from the true one."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": str(_FOUND[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set(0)

    def set(self, seconds: float) -> None:
        """From now on the process sees a time that is so much ahead."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self._file)

    def lose(self) -> None:
        """Have it begin at 1970, as without a battery."""
        self.set(60 - time.time())
