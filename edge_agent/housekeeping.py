"""What the store needs now and then: old rows deleted, its size bounded, a full disk left, its pages looked at."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress

from edge_agent.clock import Clock
from edge_agent.config.models import BufferSettings
from edge_agent.contract import NS_PER_S
from edge_agent.store import StoreError, StoreThread

log = logging.getLogger(__name__)

EVERY_NS = 5 * NS_PER_S
AGAIN_NS = NS_PER_S
PRUNE_NS = 60 * NS_PER_S
PRUNE_ROWS = 20_000
DAY_NS = 86_400 * NS_PER_S
FULL_RATIO, LEFT_RATIO = 0.95, 0.90
"""Of `max_size`: when something has to go, and how much may stay. The write-ahead log needs some, too."""
STEP_BYTES = 4 * 2**20
FULL_STEP_BYTES, SMALL_STEP = 2**20, 4
"""So much is deleted in one transaction, of a small database no more than one part of so many: commits do not wait
long, and on a full disk the log needs as much room."""
LOOK_ROWS = 20_000
CHECK_S = 2.0
"""Commits wait so long at most, once, after a run that did not end in good order."""


class Housekeeper:
    """Looks after one store. `run` is a task of the agent."""

    def __init__(self, thread: StoreThread, settings: BufferSettings, clock: Clock, alive: int | None) -> None:
        """`alive` is the last sign of life before this run, in ns since 1970 UTC; None: this is the first."""
        self._thread = thread
        self._settings = settings
        self._clock = clock
        self._prune_at = 0
        self._full = False
        self._shrink_to: int | None = None
        self._told_until = 0
        self._looked_until: dict[str, int] | None = None if thread.store.ended_well else {}
        self._checked = thread.store.ended_well
        self._alive = alive
        self.begin_to_age()

    def begin_to_age(self) -> None:
        """Reckon age from the time that it is now: at the begin, and once more when the agent's time is settled."""
        now = self._clock.now()
        # A clock that is far ahead of the last sign of life may be wrong: it is believed when it is synchronized.
        began = self._alive if self._alive is not None and now - self._alive > DAY_NS else now
        self._anchor = began - self._clock.monotonic()

    async def run(self) -> None:
        """Do it, a little at a time, for ever."""
        while True:
            more = False
            with suppress(StoreError):  # the store's thread says it; the disk may have room again
                more = await self._do_some()
            await self._clock.sleep_until(self._clock.monotonic() + (AGAIN_NS if more else EVERY_NS))

    async def _do_some(self) -> bool:
        call, room = self._thread.call, self._thread.store.room
        full_now = self._thread.failing is not None and room.is_full()
        if self._full or full_now:
            await call(self._leave_full_disk, full_now)
        if not self._checked:
            self._checked = True
            if await call(self._thread.store.check, CHECK_S):
                self._looked_at_all()
            # A large one takes longer: its pages are read, which finds less.
        more = await call(self._bound)
        more = (self._looked_until is not None and await call(self._look_at_pages)) or more
        if self._clock.monotonic() >= self._prune_at:
            gc.collect()  # it is set to run seldom, and what little garbage has cycles must not pile up for hours
            if await call(self._prune):
                more = True
            else:
                self._prune_at = self._clock.monotonic() + PRUNE_NS
                await call(room.take_ballast)
                if gone := await call(room.forget_damaged, self._settings.max_size):
                    log.warning("deleted, since they took more than buffer.max_size: %s", ", ".join(gone))
        return more

    # ------------------------------------------------------------------------------------------------------ age

    def now(self) -> int:
        """The time by which rows are old: never ahead of what has passed, unless the clock is known to be right."""
        now = self._clock.now()
        return now if self._clock.trust() == "synchronized" else min(now, self._anchor + self._clock.monotonic())

    def _prune(self) -> bool:
        """Delete a bounded number of old rows; whether there were any."""
        store, now, buffer = self._thread.store, self.now(), self._settings
        with store.transaction():
            # A day longer: the windows of the oldest day that is not final begin before it.
            kept = now - buffer.keep_readings - DAY_NS
            readings = store.readings.prune(kept, PRUNE_ROWS)
            store.holes.prune(kept)
            records = store.records.prune(min(now - buffer.keep_records, kept), PRUNE_ROWS)
        return readings + records > 0

    # ----------------------------------------------------------------------------------------------------- size

    def _bound(self) -> bool:
        """Keep within `max_size`, a step at a time; whether there is more to do."""
        room, most = self._thread.store.room, self._settings.max_size
        if self._shrink_to is None and room.used() > most * FULL_RATIO:
            self._shrink_to = int(most * LEFT_RATIO)
        if self._shrink_to is not None:
            gone = self._sacrifice(max(self._shrink_to, room.used() - STEP_BYTES))
            if not gone or room.used() <= self._shrink_to:
                self._shrink_to = None
        elif (before := room.size()) > most:  # it was made smaller
            room.give_back()  # nothing, of a database that an early version has made
            return most < room.size() < before
        return self._shrink_to is not None

    def _sacrifice(self, until: int, *, needed: bool = True) -> bool:
        """Delete until so many bytes are used, what is needed only with `needed`; whether there was anything."""
        store = self._thread.store
        with store.transaction():
            gone = store.room.sacrifice(until, self.now() - self._settings.keep_readings, needed=needed)
            for name, count in gone.items():
                store.set_fact(f"sacrificed.{name}", (store.fact(f"sacrificed.{name}") or 0) + count)
        now = self._clock.monotonic()
        if gone and now >= self._told_until:
            self._told_until = now + DAY_NS // 24
            log.warning("no more room (buffer.max_size, or the disk): the least valuable rows go: %s", gone)
        return bool(gone)

    def _leave_full_disk(self, full_now: bool) -> None:
        """Others have filled the disk: free the ballast, and have free pages in the database, so that the rest goes on.

        What is needed stays, records that wait and readings of open windows: it is not given up for what others write.
        When nothing else is left to go, readings are dropped in memory, and counted. Nothing is given back to the disk,
        which others would take.
        """
        room = self._thread.store.room
        if not self._full:
            self._full = True
            room.drop_ballast()
            log.error("the disk is full: the ballast is freed, and the least valuable rows go; make room on it")
        used, short = room.used(), FULL_STEP_BYTES - room.free() - room.on_disk()
        if short > 0:
            self._sacrifice(used - min(short, used // SMALL_STEP), needed=False)
        room.begin_log_anew()
        if not full_now and room.take_ballast():
            self._full = False
            log.info("there is room on the disk again")

    # -------------------------------------------------------------------------------------------------- integrity

    def _look_at_pages(self) -> bool:
        """Read some rows of each table, so that a torn page is found while nobody needs it; whether there are more.

        An error goes to the store's thread: the store begins anew with what can be salvaged.
        """
        assert self._looked_until is not None  # noqa: S101 - the caller has seen to it
        more = self._thread.store.look_at_pages(self._looked_until, LOOK_ROWS)
        if not more:
            self._looked_at_all()
            log.debug("every page of the store was read and is sound")
        return more

    def _looked_at_all(self) -> None:
        """From here on the end of the run may be in good order: no start has to look again."""
        self._looked_until = None
        self._thread.store.ended_well = True
