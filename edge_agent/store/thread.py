"""The store's asyncio front: one thread for the one connection, readings gathered and committed in groups."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S, Quality
from edge_agent.store.database import Store
from edge_agent.store.files import StoreDamaged, StoreError
from edge_agent.store.readings import Row

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SIGN_OF_LIFE_NS = NS_PER_S
CHECK_S, CHECK_EVERY_NS = 5.0, 60 * NS_PER_S
MAX_WAITING_ROWS = 200_000
"""About 40 MB: what is kept in memory while the disk stalls. Beyond it readings are dropped, counted and marked."""


class StoreThread:
    """One store in one thread. `append` never waits; `flush` makes durable; `call` runs anything on the store.

    Attributes:
        committed: the wall time up to which every reading received is durable.
        dropped: how many readings were dropped because the disk stalled.
        last_try: the monotonic time of the last commit that was begun.
    """

    def __init__(self, store: Store, clock: Clock, commit_ns: int, max_waiting: int = MAX_WAITING_ROWS) -> None:
        self.store = store
        self.committed = 0
        self.dropped = 0
        self.rows_written = 0
        self.failing: str | None = None
        self._damage: StoreDamaged | None = None
        self._clock = clock
        self._commit_ns = commit_ns
        self._max_waiting = max_waiting
        self._waiting: list[Row] = []
        self._overflow: dict[int, Row] = {}
        self._flushing = asyncio.Lock()
        self._last_commit = self._check_at = 0
        self.last_try = clock.monotonic()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")

    def append(self, rows: Sequence[Row]) -> None:
        """Take rows for the next commit. Never waits: while the disk stalls, memory holds a bounded number."""
        if len(self._waiting) + len(rows) <= self._max_waiting:
            self._waiting += rows
            return
        self.dropped += len(rows)
        for row in rows:
            if row[0] not in self._overflow:
                tag, time, _, _, _, received, machine, source, server = row
                bad = int(Quality.BAD)
                self._overflow[tag] = (tag, time, None, bad, "overflow", received, machine, source, server)

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns, run in the store's thread.

        What a row makes no sense of may be the doing of the disk: SQLite is asked, and says so.

        Raises:
            StoreDamaged: the file is no sound database any more; `run` then ends with the same.
            StoreError: the disk refuses.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, lambda: work(*args, **kwargs))
        except (TypeError, ValueError, LookupError, sqlite3.IntegrityError) as error:
            if self._clock.monotonic() >= self._check_at:
                self._check_at = self._clock.monotonic() + CHECK_EVERY_NS
                try:
                    await loop.run_in_executor(self._executor, self.store.check, CHECK_S, "integrity_check")
                except sqlite3.Error as damage:
                    raise self._translated(damage) from error
            if isinstance(error, sqlite3.IntegrityError):
                raise self._translated(error) from error
            raise
        except (sqlite3.Error, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error | OSError) -> StoreError:
        translated = self.store.translated(error)
        if isinstance(translated, StoreDamaged):
            self._damage = translated
        return translated

    async def flush(self) -> None:
        """Commit every row that was appended before this call, and the sign of life.

        Raises:
            StoreError: the disk refuses; the rows stay in memory for the next try.
        """
        # The rows are on their way: whoever is cancelled here must not take them along.
        under_way = asyncio.ensure_future(self._flush())
        under_way.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be nobody's any more
        await asyncio.shield(under_way)

    async def _flush(self) -> None:
        async with self._flushing:
            now, rows, overflow = self._clock.now(), self._waiting, self._overflow
            self.last_try = self._clock.monotonic()
            self._waiting, self._overflow = [], {}
            try:
                await self.call(self.store.append, rows, now)
            except StoreError as error:
                meanwhile, self._waiting = self._waiting, rows
                self._overflow |= overflow  # of each tag the first that was dropped
                self.append(meanwhile)
                if self.failing is None:
                    log.error("readings cannot be stored: %s; kept in memory (at most %d)", error, self._max_waiting)
                self.failing = str(error)
                raise
            self._waiting = [*overflow.values(), *self._waiting]
            if self.failing is not None:
                log.info("readings are stored again")
                self.failing = None
            self.committed, self.rows_written = now, self.rows_written + len(rows)
            self._last_commit = self._clock.monotonic()

    async def run(self) -> None:
        """The group commit: every `commit` while there are rows, and a sign of life each second.

        Raises:
            StoreDamaged: somebody's call found the database damaged: nothing can be relied on, begin anew.
        """
        due = self._clock.monotonic()
        while True:
            due = max(due + self._commit_ns, self._clock.monotonic())
            await self._clock.sleep_until(due)
            if self._damage is not None:
                raise self._damage
            quiet = self._clock.monotonic() - self._last_commit
            if self._waiting or self._overflow or quiet >= SIGN_OF_LIFE_NS - self._commit_ns // 2:
                try:
                    await self.flush()
                except StoreError:
                    due += SIGN_OF_LIFE_NS

    async def close(self) -> None:
        """Commit what is left and close the store."""
        try:
            await self.flush()
        except StoreError as error:
            log.error("the last readings are lost: %s", error)
        else:
            with suppress(StoreError):
                await self.call(self.store.end)
        finally:
            await self.call(self.store.close)
            self._executor.shutdown(wait=True)
