"""The one clock: wall time for stamping, monotonic time for waiting. Tests put a fake in its place."""

from __future__ import annotations

import asyncio
import ctypes
import time
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID

EARLIEST_NS = 1_793_491_200 * 1_000_000_000
"""2026-11-01: a clock that says less is not set, since this program is younger."""
PROVISIONAL_NS = 1_767_225_600 * 1_000_000_000
"""2026-01-01: from here on time is counted while nothing tells what it is, which stays before `EARLIEST_NS`."""

Trust = Literal["synchronized", "unsynchronized", "stepped"]

_TIMESYNC_MARK = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LIBC = ctypes.CDLL(None)
_TIME_ERROR = 5  # what adjtimex(2) returns while no daemon keeps the clock


class Clock(Protocol):
    """Time as the agent sees it, in integer nanoseconds."""

    def now(self) -> int:
        """Wall time since 1970 UTC."""
        ...

    def monotonic(self) -> int:
        """Time that never steps; only differences mean something."""
        ...

    async def sleep_until(self, when: int) -> None:
        """Wait until the monotonic time `when`; at least one turn of the loop."""
        ...

    def trust(self) -> Trust:
        """Whether the wall time is known to be right."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()

    async def sleep_until(self, when: int) -> None:
        await asyncio.sleep(max(0, when - time.monotonic_ns()) / 1e9)

    def trust(self) -> Trust:
        state = _LIBC.adjtimex(ctypes.create_string_buffer(256))  # reads, since all modes are zero
        known = 0 <= state < _TIME_ERROR or _TIMESYNC_MARK.exists()
        return "synchronized" if known else "unsynchronized"


def boot() -> int | None:
    """A number of 63 bits that is another one after each start of the machine; None where there is no such thing.

    The monotonic clock goes on from run to run of the agent while it stays the same.
    """
    try:
        return UUID(_BOOT_ID.read_text().strip()).int >> 65
    except (OSError, ValueError):
        return None
