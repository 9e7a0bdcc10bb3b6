"""What each machine does now: its retained state at the broker, told when it changes and each minute."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from edge_agent import production, record
from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S
from edge_agent.envelope import Envelope
from edge_agent.equipment import Row
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Machine, Present
from edge_agent.shifts import Calendar
from edge_agent.store import StoreThread

REPEAT_NS = 60 * NS_PER_S
EXPIRY_S = 180
REACH_NS = 3_600 * NS_PER_S
"""How far back a state that is looked at for the first time is followed to its beginning."""


class Broadcaster(Protocol):
    """The uplink as far as latest values go."""

    def publish_latest(self, topic: str, payload: bytes, expiry_s: int | None) -> None:
        """Keep the latest value of a topic at the broker."""
        ...


@dataclass
class _Seen:
    """One machine: its state when it was looked at last, from which readings, and when it was told."""

    machine: Machine
    present: Present | None = None
    readings: tuple[Row | None, ...] = ()
    told: int = 0


class States:
    """The present states of all machines."""

    def __init__(
        self,
        machines: Iterable[Machine],
        calendar: Calendar,
        thread: StoreThread,
        uplink: Broadcaster,
        envelope: Envelope,
        clock: Clock,
    ) -> None:
        self._seen = {machine.name: _Seen(machine) for machine in machines}
        self._calendar = calendar
        self._thread = thread
        self._uplink = uplink
        self._envelope = envelope
        self._clock = clock

    def present(self, machine: str) -> Present | None:
        """A machine's state as it was found last; None before the first look."""
        return self._seen[machine].present

    async def tell(self) -> None:
        """Publish each machine's present state, when it has changed or a minute has passed.

        Raises:
            StoreError: the store does not answer, or gives no number; the next call tries again.
        """
        tags = [tag for seen in self._seen.values() for tag in seen.machine.state.tags]
        newest = await self._thread.call(self._thread.store.readings.newest_of, tags)
        for seen in self._seen.values():
            readings = tuple(newest[tag] for tag in seen.machine.state.tags)
            now, until = self._clock.now(), seen.present.until_ns if seen.present else None
            due = now - seen.told >= REPEAT_NS
            changed = readings != seen.readings or (until is not None and now >= until)
            if any(readings) and (due or changed):
                await self._look(seen, due)
                seen.readings = readings

    async def _look(self, seen: _Seen, due: bool) -> None:
        """Find a machine's present state, and tell it when it is due or another one."""
        machine, before, now = seen.machine, seen.present, self._clock.now()
        reach = now - (REACH_NS if before is None else production.lookback_ns(machine))
        steps_of = self._thread.store.readings.steps_of
        rows = await self._thread.call(steps_of, machine.state.tags, reach, now, COUNTER_LOOKBACK_READINGS)
        found = production.present(machine, self._calendar, rows, now)
        same = before is not None and (found.state, found.cause) == (before.state, before.cause)
        if before is not None and same and found.since_ns <= reach:
            found = found._replace(since_ns=before.since_ns)
        seen.present = found
        if due or not same:
            await self._publish(seen, found, now)

    async def _publish(self, seen: _Seen, present: Present, now: int) -> None:
        subject = seen.machine.subject
        data = record.state_data(seen.machine, present, self._calendar.shift_at(now))
        issued = await self._thread.call(self._thread.store.take_number)
        payload = self._envelope.freeze("state", subject, data, issued)
        seen.told = now
        self._uplink.publish_latest(record.state_topic(self._envelope.publisher.prefix, subject), payload, EXPIRY_S)
