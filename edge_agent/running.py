"""What a machine has made so far, in a shift or for a job: kept up to now, a little at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_agent import production
from edge_agent.contract import NS_PER_S
from edge_agent.entries import Entry
from edge_agent.equipment import Row
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Machine, WindowData
from edge_agent.shifts import Calendar
from edge_agent.store import StoreThread

STRIDE_NS = 3_600 * NS_PER_S
"""How much is computed at once, so that a long job needs little memory; and how far apart the times are from which a
total may go on when something later has changed.
"""
LAG_NS = 120 * NS_PER_S
"""What is more recent is computed at each call: a reading may come late, and nothing said of its time is wrong yet."""


@dataclass
class _Total:
    start: int
    data: WindowData | None
    until: int
    marks: list[tuple[int, WindowData]] = field(default_factory=list)
    """What it was at some earlier times, by which it need not begin anew when something later has changed."""


class Running:
    """The totals of one machine, by name, each from its start until now."""

    def __init__(self, machine: Machine, calendar: Calendar, thread: StoreThread) -> None:
        self._machine = machine
        self._calendar = calendar
        self._thread = thread
        self._totals: dict[str, _Total] = {}

    def forget(self, since: int | None = None) -> None:
        """Compute anew, at the next call, what is since this time (None: all): something in it has changed."""
        kept, self._totals = self._totals, {}
        if since is None:
            return
        for name, total in kept.items():
            marks = [mark for mark in total.marks if mark[0] <= since]
            if marks:
                self._totals[name] = _Total(total.start, marks[-1][1], marks[-1][0], marks)

    async def total(self, name: str, start: int, now: int) -> WindowData | None:
        """What was made from `start` until `now`, as one window; None where that is no time.

        Items, pace, product and job are those of the whole time. A stop that a call has cut is not known to be short.

        Raises:
            StoreError: the store does not answer.
        """
        total = self._totals.get(name)
        if total is None or total.start != start or total.until > now:
            total = self._totals[name] = _Total(start, None, start)
        while total.until < now - LAG_NS:
            until = min(now - LAG_NS, total.until + STRIDE_NS)
            data = await self._until(total, until)
            total.data, total.until = data, until
            if until - (total.marks[-1][0] if total.marks else total.start) >= STRIDE_NS:
                total.marks.append((until, data))
        return await self._until(total, now) if total.until < now else total.data

    async def _until(self, total: _Total, until: int) -> WindowData:
        """A total with what was made since."""
        rows, entries = await self._thread.call(self._evidence, total.until, until)
        return await asyncio.to_thread(self._piece, total, rows, entries, until)

    def _evidence(self, start: int, until: int) -> tuple[dict[str, list[Row]], list[Entry]]:
        store, since = self._thread.store, start - production.lookback_ns(self._machine)
        rows = store.readings.steps_of(self._machine.tags, since, until, COUNTER_LOOKBACK_READINGS)
        since = production.entries_since(self._machine, rows, since)
        return rows, store.entries.of(self._machine.name, since, until)

    def _piece(self, total: _Total, rows: dict[str, list[Row]], entries: Sequence[Entry], until: int) -> WindowData:
        window = (total.until, until)
        (piece,) = production.compute(self._machine, self._calendar, rows, [window], until, entries)
        return (
            piece
            if total.data is None
            else production.added(self._machine, self._calendar, [total.data, piece], segments=False)
        )
