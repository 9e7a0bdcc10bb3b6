"""What a device recorded while nobody looked, put where the outage left a hole.

A hole is written down when the link is back, and asked for until the device has told all of it, over restarts and
further outages. What it told becomes late readings, which re-open what was published of that time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing, suppress

from edge_agent.clock import Clock
from edge_agent.contract import NO_HISTORY, NS_PER_S, Device, HasHistory, HistoryPart, Reading, Tag
from edge_agent.intake import Intake, TagState, converted
from edge_agent.machines import POLLS_HELD
from edge_agent.store import OUTAGES, Hole, Row, Store, StoreError, StoreThread
from edge_agent.store.values import pack

log = logging.getLogger(__name__)

BEGIN_AFTER_NS = 2 * NS_PER_S
"""The present values come first: live readings never wait for old ones."""
AGAIN_NS = 60 * NS_PER_S
"""How often tags are looked for that came back later than their link."""
NAMED = 10
EARLIER_NS = 10 * NS_PER_S
"""What the device had not yet delivered when the link was lost is asked for, too, as far back as this."""


class Backfill:
    """The history of the tags of one link."""

    def __init__(
        self, driver: HasHistory, devices: Sequence[Device], intake: Intake, thread: StoreThread, clock: Clock,
        keep_ns: int,
    ) -> None:  # fmt: skip
        self._driver = driver
        self._intake = intake
        self._thread = thread
        self._clock = clock
        self._keep_ns = keep_ns
        self._without: set[Tag] = set()  # the device keeps nothing of these
        self._tags = {
            device: {tag.name: tag for tag in device.tags if driver.has_history(tag)} for device in devices
        }  # fmt: skip

    async def run(self) -> None:
        """Ask for what was lost, once the link is back; for ever, as the link's other jobs.

        Raises:
            NotConnected: the link is lost; the rest is asked for when it is back.
        """
        wait_ns = BEGIN_AFTER_NS
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + wait_ns)
            with suppress(StoreError):  # the store's thread says it; the holes stay open until the disk has room again
                for device, tags in self._tags.items():
                    await self._look(device, tuple(tags.values()))
            wait_ns = AGAIN_NS

    async def _look(self, device: Device, tags: Sequence[Tag]) -> None:
        if not tags:
            return
        await self._thread.flush()  # the hole's own beginning must be in the store
        holes = await self._thread.call(self._open, tags)
        for until in sorted({hole.until for hole in holes}):
            await self._fill(device, [hole for hole in holes if hole.until == until])

    def _open(self, tags: Sequence[Tag]) -> list[Hole]:
        """Write down the holes that have been left since the last time; all that are still open."""
        store, now = self._thread.store, self._clock.now()
        with store.transaction():
            for tag in tags:
                state = self._intake.states[tag]
                if state.lost_since is not None and state.cause not in OUTAGES and tag not in self._without:
                    since = max(_asked_from(state), now - self._keep_ns)
                    store.holes.open(state.id, state.lost_since, since, now)
                    state.lost_since = None
            return store.holes.pending(tag.name for tag in tags)

    async def _fill(self, device: Device, holes: Sequence[Hole]) -> None:
        """Ask for the holes of one outage together."""
        told = await self._driver.device_time(device)
        skew_ns = 0 if told is None else told - self._clock.now()
        if abs(skew_ns) <= device.settings.max_skew:  # its times are taken as they are, as those of live readings
            skew_ns = 0
        tags, states = self._tags[device], self._intake.states
        by_tag = {tags[hole.tag]: _Filling(hole, tags[hole.tag], states[tags[hole.tag]], skew_ns) for hole in holes}
        since, until = min(hole.reached for hole in holes) + skew_ns, holes[0].until + skew_ns
        unknown: dict[str, list[str]] = {}
        readings = 0
        async with aclosing(self._driver.history(tuple(by_tag), since, until)) as parts:
            async for part in parts:
                filling = by_tag[part.tag]
                if filling.over:
                    continue
                readings += len(part.readings)
                await self._thread.call(filling.take, self._thread.store, part, self._clock.now())
                if part.error == NO_HISTORY:
                    self._without.add(part.tag)
                elif part.error is not None:
                    unknown.setdefault(part.error, []).append(part.tag.short_name)
        if readings:
            away_s = (holes[0].until - min(hole.start for hole in holes)) / NS_PER_S
            log.info("%s: %d readings of its own history, of %.0f s without it", device.name, readings, away_s)
        for error, names in unknown.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            shown = ", ".join(names[:NAMED]) + more
            log.warning("%s: no history of %s: %s; the gap stays", device.name, shown, error)


def recalled(store: Store, tag: str, drawn_on: bool, alive: int | None) -> tuple[int | None, int | None]:
    """At a start: since when nothing is known of a tag, and the newest time that it had; None where nothing is missing.

    `alive` is the last sign of life of the run before; of a tag that no machine draws on, no more is known than this.
    """
    if not drawn_on:
        return None if alive is None else alive + 1, None
    newest = store.readings.newest(tag)
    lost = newest is not None and newest[3] in OUTAGES
    return newest[0] if newest is not None and lost else None, store.readings.newest_good(tag)


def _asked_from(state: TagState) -> int:
    """From when on the device is asked: after what it delivered last, also where that was before the loss."""
    assert state.lost_since is not None  # noqa: S101 - the caller has seen to it
    if state.lost_after is None:
        return state.lost_since
    return max(state.lost_after + 1, state.lost_since - EARLIER_NS)


class _Filling:
    """One hole while it is filled. `take` belongs to the store's thread."""

    def __init__(self, hole: Hole, tag: Tag, state: TagState, skew_ns: int) -> None:
        self._hole = hole
        self._near_ns = POLLS_HELD * tag.poll_ns  # what was seen last holds as long as between any two readings
        self._begin = max(hole.start, hole.reached)
        self._state = state
        self._skew_ns = skew_ns
        self._last: Row | None = None  # the newest that is known
        self._known_from: int | None = None
        self._begun = False
        self.over = False

    def take(self, store: Store, part: HistoryPart, now: int) -> None:
        """Put a part of the history in."""
        rows: list[Row] = []
        with store.transaction():
            if part.holds and not self._begun and (before := store.holes.before(self._hole.tag, self._begin)):
                time, value, quality, cause = before
                self._last = (self._state.id, time, pack(value), quality, cause, now, self._state.machine, None, None)
            self._begun = True
            for reading in part.readings:
                self._keep(rows, reading, now, holds=part.holds)
            if part.complete and part.holds:
                self._hold(rows, self._hole.until, now)
            store.holes.fill(self._hole, rows, rows[-1][1] + 1 if rows else self._hole.reached)
            self.over = part.complete or part.error is not None
            if self.over:
                store.holes.close(self._hole, self._known_from if part.complete else None)

    def _keep(self, rows: list[Row], reading: Reading, now: int, *, holds: bool) -> None:
        """Add a reading, unless it is outside the hole, came live as well, or only repeats the one before it."""
        assert reading.time is not None  # noqa: S101 - history has times, as its contract says
        state, last, time = self._state, self._last, reading.time - self._skew_ns
        if not self._hole.reached <= time < self._hole.until or (state.stream and reading.time in state.shown):
            return
        value, quality, cause = converted(state, reading)
        server = None if reading.server_time is None else reading.server_time - time
        cell, source = pack(value), reading.time - time
        row = (state.id, time, cell, int(quality), cause, now, state.machine, source, server)
        repeats = last is not None and last[2:5] == row[2:5] and time - last[1] < state.refresh_ns
        begins = self._known_from is None and time >= self._hole.start
        if repeats and not begins and not state.stream:
            return
        if holds:
            self._hold(rows, time, now)
        self._put(rows, row)

    def _hold(self, rows: list[Row], until: int, now: int) -> None:
        """Say up to `until` what holds, at the hole's begin and at each refresh."""
        state = self._state
        while self._last is not None and not state.stream:
            time = self._begin if self._last[1] < self._begin else self._last[1] + state.refresh_ns
            if time >= until:
                return
            self._put(rows, (state.id, time, *self._last[2:5], now, state.machine, None, None))

    def _put(self, rows: list[Row], row: Row) -> None:
        rows.append(row)
        self._last = row
        if self._known_from is None and row[1] >= self._hole.start:
            near = row[1] - self._hole.start <= self._near_ns
            self._known_from = self._hole.start if near else row[1]
