"""What is sent next: what is new, then one at a time what a broker may hang up over, then what waited."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S
from edge_agent.uplink.poison import Suspects
from edge_agent.uplink.settle import Outbox, Settler, Waiting


class Lanes:
    """The records of one connection that are ready to be sent, fetched from the outbox a batch at a time.

    Attributes:
        border: the newest record when the connection came up: all up to it is backlog.
    """

    def __init__(
        self, outbox: Outbox, settler: Settler, suspects: Suspects, clock: Clock, *, batch: int, backlog_per_s: float
    ) -> None:  # fmt: skip
        self._outbox = outbox
        self._settler = settler
        self._suspects = suspects
        self._batch = batch
        self._pace = _Pace(backlog_per_s, clock)
        self._suspected: deque[Waiting] = deque()
        self._live: deque[Waiting] = deque()
        self._backlog: deque[Waiting] = deque()
        self.border = 0
        self._live_cursor = 0
        self._more_live = False
        self._backlog_cursor: int | None = -1  # None: there is no more
        self._looks = 0
        self._under_way: frozenset[int] = frozenset()  # not to be taken from the backlog once more

    async def begin(self) -> None:
        """Find out where the backlog ends, and fetch what is suspected."""
        self.border = self._live_cursor = await self._outbox.newest()
        suspected = self._suspects.positions()
        # Some may be sent, and no more in the lane, before this ends; of some the outbox does not know the answer yet.
        self._under_way = frozenset(suspected) | self._settler.positions()
        for position in suspected:
            found = await self._outbox.waiting(position - 1, 1, position)
            self._suspected.extend(found)
            if not found:
                self._suspects.cleared(position)

    async def look_again(self, under_way: Iterable[int]) -> None:
        """Fetch the backlog once more from its begin, without what is `under_way`: older records wait again."""
        waiting = (*self._suspected, *self._live, *self._backlog)
        self._under_way = frozenset(under_way) | {each.position for each in waiting}
        await self._settler.try_to_flush()
        self._under_way |= self._settler.positions() | {each.position for each in self._live}
        self.border = self._live_cursor  # what is beyond it comes in the other lane
        self._backlog_cursor = -1
        self._looks += 1

    async def fetch(self) -> int:
        """Fetch what there is room for, the new ones first; how many."""
        return await self._fetch_live() + await self._fetch_backlog()

    async def _fetch_live(self) -> int:
        if self._has_enough(self._live):
            return 0
        records = await self._outbox.waiting(self._live_cursor, self._batch)
        if records:
            self._live_cursor = records[-1].position
            self._live.extend(records)
        self._more_live = len(records) == self._batch
        return len(records)

    async def _fetch_backlog(self) -> int:
        if self._backlog_cursor is None or self._has_enough(self._backlog):
            return 0
        look = self._looks
        records = await self._outbox.waiting(self._backlog_cursor, self._batch, self.border)
        if look != self._looks:  # somebody wants it from its begin, meanwhile
            return 1
        self._backlog_cursor = records[-1].position if records else None
        self._backlog.extend(each for each in records if each.position not in self._under_way)
        return len(records)

    def _has_enough(self, lane: deque[Waiting]) -> bool:
        return len(lane) > self._batch // 2

    @property
    def has_live(self) -> bool:
        """Whether something new is ready."""
        return bool(self._live)

    @property
    def full(self) -> bool:
        """Whether there is more in the outbox, which has no room here yet."""
        return self._has_enough(self._live) or (self._backlog_cursor is not None and self._has_enough(self._backlog))

    @property
    def hungry(self) -> bool:
        """Whether there is more in the outbox, and room for it."""
        return (self._more_live and not self._has_enough(self._live)) or (
            self._backlog_cursor is not None and not self._has_enough(self._backlog)
        )

    def suspect(self, record: Waiting) -> None:
        """Have this one sent alone."""
        self._suspected.append(record)

    def next(self, *, alone: bool = True) -> Waiting | float | None:
        """The next record, or how many seconds to wait for it; None where nothing is ready.

        `alone`: nothing is in flight. What is suspected waits for that, and the backlog for what is suspected.
        """
        if self._live:
            return self._live.popleft()
        if self._suspected:
            return self._suspected.popleft() if alone else None
        if not self._backlog:
            return None
        wait_s = self._pace.take()
        return wait_s if wait_s else self._backlog.popleft()


class _Pace:
    """So many a second, and a little at once."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s / 20)
        self._left = self._most
        self._clock = clock
        self._at = clock.monotonic()

    def take(self) -> float:
        """Take one: 0.0, or how many seconds to wait before there is one again."""
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) / NS_PER_S * self._per_s)
        self._at = now
        if self._left < 1.0:
            return max(0.001, (1.0 - self._left) / self._per_s)
        self._left -= 1.0
        return 0.0
