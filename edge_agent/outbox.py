"""The store's outbox as the uplink wants it: batches of waiting records, and the broker's answers."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.clock import Clock
from edge_agent.store import StoreThread
from edge_agent.store.delivery import DAMAGED
from edge_agent.uplink import Waiting


class StoreOutbox:
    """The records of one store that the broker has not answered for."""

    def __init__(self, thread: StoreThread, clock: Clock) -> None:
        self._thread = thread
        self._delivery = thread.store.delivery
        self._clock = clock

    async def waiting(self, after: int, limit: int, until: int | None = None) -> Sequence[Waiting]:
        """At most `limit` records without an answer, with positions in (after, until], in order."""
        return await self._thread.call(self._waiting, after, limit, until)

    async def newest(self) -> int:
        """The position of the newest record."""
        return await self._thread.call(self._delivery.newest)

    async def accepted(self, positions: Sequence[int]) -> None:
        """Write down that the broker has accepted these."""
        await self._thread.call(self._accepted, positions)

    async def refused(self, position: int, reason_code: int, reason: str) -> None:
        """Put one that the broker will not have among the dead letters."""
        await self._thread.call(self._bury, [position], reason_code, reason)

    def _waiting(self, after: int, limit: int, until: int | None) -> list[Waiting]:
        """What is delivered is what was issued, byte for byte: what the disk has changed is a dead letter."""
        while found := self._delivery.waiting(after, limit, until):
            if changed := [one.position for one in found if one.answered]:
                self._mend(changed)
            damaged = [one.position for one in found if not one.sound]
            if damaged:
                self._bury(damaged, DAMAGED, "its bytes in the store are not those that were issued")
            if len(damaged) < len(found):
                return [Waiting(*one[:4]) for one in found if one.sound]
            after = found[-1].position
        return []

    def _accepted(self, positions: Sequence[int]) -> None:
        with self._thread.store.transaction():
            self._delivery.answer(positions, self._clock.now(), 0)

    def _mend(self, positions: Sequence[int]) -> None:
        with self._thread.store.transaction():
            self._delivery.mend(positions)

    def _bury(self, positions: Sequence[int], reason_code: int, reason: str) -> None:
        with self._thread.store.transaction():
            self._delivery.bury(positions, self._clock.now(), reason_code, reason)
