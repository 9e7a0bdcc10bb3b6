"""The one clock: wall time for stamping, monotonic time for waiting. Tests put a fake in its place."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import time
from pathlib import Path
from typing import Literal, Protocol

EARLIEST_NS = 1_767_225_600 * 1_000_000_000
"""2026-01-01: a clock that says less is not set, since this program is younger."""

Trust = Literal["synchronized", "unsynchronized", "stepped"]

log = logging.getLogger(__name__)

_STEP_NS = 1_000_000_000
"""More than any daemon slews between two looks."""
_DISTRUST_NS = 3_600 * 1_000_000_000
"""As long as the longest fixed window."""
_TIMESYNC_MARK = Path("/run/systemd/timesync/synchronized")
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
    """The machine's own clocks. A step of the wall time is told once, and distrusted for an hour."""

    def __init__(self) -> None:
        self._ahead = time.time_ns() - time.monotonic_ns()
        self._stepped_at: int | None = None

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()

    async def sleep_until(self, when: int) -> None:
        await asyncio.sleep(max(0, when - time.monotonic_ns()) / 1e9)

    def trust(self) -> Trust:
        if self._has_stepped():
            return "stepped"
        state = _LIBC.adjtimex(ctypes.create_string_buffer(256))  # reads, since all modes are zero
        known = 0 <= state < _TIME_ERROR or _TIMESYNC_MARK.exists()
        return "synchronized" if known else "unsynchronized"

    def _has_stepped(self) -> bool:
        """Whether the wall time has jumped against the monotonic time within the last hour."""
        now = time.monotonic_ns()
        step = time.time_ns() - now - self._ahead
        self._ahead += step
        if abs(step) > _STEP_NS:
            self._stepped_at = now
            direction = "forward" if step > 0 else "back"
            log.warning(
                "the clock was set %s by %.1f s: windows of this time are not reliable", direction, abs(step) / 1e9
            )
        return self._stepped_at is not None and now - self._stepped_at < _DISTRUST_NS
