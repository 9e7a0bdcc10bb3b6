"""The one clock: wall time for stamping, monotonic time for waiting. Tests put a fake in its place."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


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


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()

    async def sleep_until(self, when: int) -> None:
        await asyncio.sleep(max(0, when - time.monotonic_ns()) / 1e9)
