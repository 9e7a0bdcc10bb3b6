"""The store's outbox as the uplink wants it: batches of waiting records, and the broker's answers."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.clock import Clock
from edge_agent.store import StoreThread
from edge_agent.uplink import Waiting


class StoreOutbox:
    """The records of one store that the broker has not answered for."""

    def __init__(self, thread: StoreThread, clock: Clock) -> None:
        self._thread = thread
        self._records = thread.store.records
        self._clock = clock

    async def waiting(self, after: int, limit: int) -> Sequence[Waiting]:
        """At most `limit` records without an answer, from the one after the position `after`, in order."""
        return [Waiting(*row) for row in await self._thread.call(self._records.waiting, after, limit)]

    async def accepted(self, positions: Sequence[int]) -> None:
        """Write down that the broker has accepted these."""
        await self._thread.call(self._answer, positions, 0, None)

    async def refused(self, position: int, reason_code: int, reason: str) -> None:
        """Write down that the broker will not have this one."""
        await self._thread.call(self._answer, [position], reason_code, reason)

    def _answer(self, positions: Sequence[int], reason_code: int, reason: str | None) -> None:
        with self._thread.store.transaction():
            self._records.answer(positions, self._clock.now(), reason_code, reason)
