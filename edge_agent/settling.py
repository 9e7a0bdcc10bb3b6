"""What waits until the agent's time is settled, and what the readings must say when the time is set forward."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from edge_agent.clock import boot
from edge_agent.contract import NS_PER_S
from edge_agent.intake import Intake, later
from edge_agent.poller import Link
from edge_agent.store import Row, Store, StoreError, StoreThread
from edge_agent.timeline import Timeline

log = logging.getLogger(__name__)

LOOK_NS = NS_PER_S
MOST_ROWS = 100_000
"""About 20 MB of readings wait for the clock."""
BOOT, OFFSET, DRIFT_NS = "boot", "clock_offset", NS_PER_S // 20
"""The facts by which a restarted agent goes on with its time, and how far the second may be from what is true."""


def recalled_offset(store: Store, alive: int | None, monotonic: int) -> int | None:
    """The offset of the agent's time that a run before has left; None where the machine was started since."""
    offset, here = store.fact(OFFSET), boot()
    if alive is None or offset is None or here is None or store.fact(BOOT) != here:
        return None
    return offset if monotonic + offset >= alive - NS_PER_S else None


class Settling:
    """Looks at the clock each second. Until the time is settled it keeps rows in memory; `run` is a task of the agent.

    Attributes:
        dropped: how many rows were too many for the memory.
        when_settled: called at that moment, if it comes later.
    """

    def __init__(self, timeline: Timeline, thread: StoreThread, intake: Intake, most: int = MOST_ROWS) -> None:
        self._timeline = timeline
        self._thread = thread
        self._intake = intake
        self._most = most
        self._began = timeline.now()
        self._rows: deque[Row] = deque(maxlen=most)
        self._settled = asyncio.Event()
        self._written: int | None = None
        self.dropped = 0
        self.when_settled: list[Callable[[], None]] = []
        if timeline.settled:
            self._settled.set()

    def append(self, rows: Sequence[Row]) -> None:
        """Take rows for the store, or for later."""
        if self._settled.is_set():
            self._thread.append(rows)
            return
        self.dropped += max(0, len(self._rows) + len(rows) - self._most)
        self._rows.extend(rows)

    def after(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
        """The same work, begun when the time is settled."""

        async def begun() -> None:
            await self._settled.wait()
            await work()

        return begun

    async def run(self, links: Iterable[Link]) -> None:
        """Look at the clock, for ever."""
        while True:
            self.look(links)
            with suppress(StoreError):  # said by the store's thread
                await self._remember()
            await self._timeline.sleep_until(self._timeline.monotonic() + LOOK_NS)

    def look(self, links: Iterable[Link]) -> None:
        """Settle the time, or follow the clock, if now is the moment."""
        before = self._timeline.now()
        forward_ns = self._timeline.look(full=len(self._rows) == self._most)
        if forward_ns is None:
            return
        if not self._settled.is_set():
            self._settle(forward_ns)
            return
        now = self._timeline.now()
        for link in links:
            link.leapt(before, now)

    def end(self) -> None:
        """Give the store what waits, as it is dated; of a time that nobody can tell it is lost, and that is noted."""
        if not self._settled.is_set() and not self._timeline.patient:
            self._settle(0)

    async def note_loss(self) -> None:
        """Remember in the store what was lost, so that a gap record names it."""
        lost, self.dropped = self.dropped + (0 if self._settled.is_set() else len(self._rows)), 0
        if lost:
            log.error("%d readings of before the clock was set are lost", lost)
            await self._thread.call(_note, self._thread.store, self._began, lost)

    def _settle(self, forward_ns: int) -> None:
        self._intake.set_forward(forward_ns, self._began)
        rows = [later(row, forward_ns) for row in self._rows]
        self._rows.clear()
        self._began += forward_ns
        self._settled.set()
        self._thread.append(rows)
        for told in self.when_settled:
            told()

    async def _remember(self) -> None:
        if not self._settled.is_set():
            return
        if self.dropped:
            await self.note_loss()
        offset = self._timeline.offset
        if self._written is None or abs(offset - self._written) > DRIFT_NS:
            await self._thread.call(_remember, self._thread.store, offset)
            self._written = offset


def _remember(store: Store, offset: int) -> None:
    with store.transaction():
        store.set_fact(OFFSET, offset)
        store.set_fact(BOOT, boot() or 0)


def _note(store: Store, start: int, count: int) -> None:
    with store.transaction():
        store.losses.add("readings", "overflow", start=start, count=count)
