"""The outbox as the uplink sees it, and the answers of the broker on their way into it, in groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from edge_agent.contract import EdgeAgentError

RETRY_S = 5.0
AT_ONCE = 4_096
"""So many answers are written down in one commit, however many have waited."""


class Waiting(NamedTuple):
    """A record that the broker has not accepted yet. `issued` is in nanoseconds since 1970 UTC."""

    position: int
    topic: str
    payload: bytes
    issued: int


class Outbox(Protocol):
    """The store's side of the uplink: what waits, and what became of it."""

    async def waiting(self, after: int, limit: int, until: int | None = None) -> Sequence[Waiting]:
        """Up to `limit` records neither accepted nor refused, with positions in (after, until], in their order."""
        ...

    async def newest(self) -> int:
        """The position of the newest record; what is issued from now on comes behind it."""
        ...

    async def accepted(self, positions: Sequence[int]) -> None:
        """The broker's reason code said success. A position may come twice after an interruption."""
        ...

    async def refused(self, position: int, reason_code: int, reason: str) -> None:
        """The broker will not have this record: kept, counted, not sent again. It may come twice, too."""
        ...


class Settler:
    """Collects the broker's answers and gives them to the outbox in groups, so that it commits seldom.

    Answers outlive the connection that brought them: what could not be given to the outbox is given at the next
    occasion, before anything is fetched again.
    """

    def __init__(self, outbox: Outbox, group: int, every_s: float) -> None:
        self._outbox = outbox
        self._group = group
        self._every_s = every_s
        self._accepted: list[int] = []
        self._refused: list[tuple[int, int, str]] = []
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._lock = asyncio.Lock()
        self.settled = asyncio.Event()
        self.refused_by_outbox = False

    def __len__(self) -> int:
        return len(self._accepted) + len(self._refused)

    def accept(self, position: int) -> None:
        self._accepted.append(position)
        self._some.set()
        if len(self._accepted) >= self._group:
            self._many.set()

    def refuse(self, position: int, reason_code: int, reason: str) -> None:
        self._refused.append((position, reason_code, reason))
        self._some.set()

    async def run(self, tried: Callable[[], None]) -> None:
        """Give groups to the outbox until cancelled. What it does not take now is kept, and tried again.

        `tried` is called after each time: there may be room for further answers.
        """
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._many.wait()
            taken = await self.try_to_flush()
            tried()
            if not taken:
                await asyncio.sleep(RETRY_S)

    async def try_to_flush(self) -> bool:
        """Give all answers to the outbox; False where it takes none now, as on a disk that is full or read-only."""
        try:
            await self.flush()
        except EdgeAgentError:
            self.refused_by_outbox = True
            self._some.set()  # they are still here, also when no further answer comes
            return False
        self.refused_by_outbox = False
        return True

    def positions(self) -> set[int]:
        """The records of which the outbox does not know the answer yet."""
        return {*self._accepted, *(position for position, *_ in self._refused)}

    async def flush(self) -> None:
        """Give all answers to the outbox now. An answer is forgotten only when the outbox has taken it."""
        async with self._lock:
            self._some.clear()
            self._many.clear()
            while accepted := tuple(self._accepted[:AT_ONCE]):
                await self._outbox.accepted(accepted)
                del self._accepted[: len(accepted)]
            while self._refused:
                await self._outbox.refused(*self._refused[0])
                del self._refused[0]
            self.settled.set()
