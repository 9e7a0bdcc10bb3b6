"""What each machine does now: its retained state at the broker, told when it changes and each minute."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from edge_agent import production, record
from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S
from edge_agent.entries import Entry
from edge_agent.envelope import Envelope
from edge_agent.equipment import Row
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Machine, Present, WindowData
from edge_agent.production.jobs import JobFact, progress
from edge_agent.running import Running
from edge_agent.shifts import DAY, Calendar
from edge_agent.store import Store, StoreError, StoreThread
from edge_agent.timestamps import parse, rfc3339

log = logging.getLogger(__name__)

REPEAT_NS = 60 * NS_PER_S
EXPIRY_S = 180
SETTLED_NS = 5 * NS_PER_S
"""Counts are told up to so long ago: what was read since may not be stored yet."""
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
    tags: tuple[str, ...]
    running: Running
    present: Present | None = None
    readings: tuple[Row | None, ...] = ()
    told: int = 0
    silent_until: int = 0
    """Until then it is not tried again, because it could not be told."""


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
        changed: Callable[[str], None],
    ) -> None:
        """Take the machines; `changed` is told of each whose readings or state have changed."""
        self._seen = {
            machine.name: _Seen(machine, _telling_tags(machine), Running(machine, calendar, thread))
            for machine in machines
        }
        self._calendar = calendar
        self._thread = thread
        self._uplink = uplink
        self._envelope = envelope
        self._clock = clock
        self._changed = changed

    def present(self, machine: str) -> Present | None:
        """A machine's state as it was found last; None before the first look."""
        return self._seen[machine].present

    def forget(self, machine: str, since: int) -> None:
        """Reckon a machine's counts from `since` anew, and look at its state: something since then has changed."""
        self._seen[machine].running.forget(since)
        self._seen[machine].readings = ()

    async def tell(self) -> None:
        """Publish each machine's present state, when it has changed or a minute has passed.

        Raises:
            StoreError: the store does not answer, or gives no number; the next call tries again.
        """
        tags = [tag for seen in self._seen.values() for tag in seen.tags]
        newest = await self._thread.call(self._thread.store.readings.newest_of, tags)
        for seen in self._seen.values():
            readings = tuple(newest[tag] for tag in seen.tags)
            now, until = self._clock.now(), seen.present.until_ns if seen.present else None
            due = now - seen.told >= REPEAT_NS
            changed = readings != seen.readings or (until is not None and now >= until)
            if any(readings) and (due or changed) and now >= seen.silent_until:
                if changed:
                    self._changed(seen.machine.name)
                seen.readings = readings
                try:
                    await self._look(seen, due)
                except StoreError:
                    seen.readings = ()
                    raise
                except Exception:  # one machine's state must not stop the others
                    log.exception("%s: the state could not be told; trying again in a minute", seen.machine.name)
                    seen.silent_until = now + REPEAT_NS

    async def _look(self, seen: _Seen, due: bool) -> None:
        """Find a machine's present state, and tell it when it is due or another one."""
        before, now = seen.present, self._clock.now()
        reach = now - (REACH_NS if before is None else production.lookback_ns(seen.machine))
        rows, entries, said = await self._thread.call(self._evidence, seen, reach, now)
        found = production.present(seen.machine, self._calendar, rows, now, entries)
        if found.reason is not None and said is not None:
            found = found._replace(reason=said)
        same = before is not None and found._replace(since_ns=0, until_ns=0) == before._replace(since_ns=0, until_ns=0)
        stays = before is not None and (found.state, found.cause) == (before.state, before.cause)
        if before is not None and stays and found.since_ns <= reach:
            found = found._replace(since_ns=before.since_ns)
        seen.present = found
        if due or not same:
            self._changed(seen.machine.name)
            await self._publish(seen, found, now)

    def _evidence(self, seen: _Seen, since: int, now: int) -> tuple[dict[str, list[Row]], list[Entry], str | None]:
        """Rows and entries, and the published reason of the stop that goes on: it may have begun before the rows."""
        store, subject = self._thread.store, seen.machine.subject
        rows = store.readings.steps_of(seen.tags, since, now, COUNTER_LOOKBACK_READINGS)
        stops = store.records.latest_between(f"{subject}/downtime/", rfc3339(now), rfc3339(now))
        said = next((stop["reason"] for stop in stops if stop["open"] and not stop["withdrawn"]), None)
        return rows, store.entries.of(seen.machine.name, since, now), said

    async def _publish(self, seen: _Seen, present: Present, now: int) -> None:
        subject, shift = seen.machine.subject, self._calendar.shift_at(now)
        settled = min(now, self._thread.committed) - SETTLED_NS
        counts = await seen.running.total("shift", self._begin(now), settled)
        work = await self._work(seen, present, settled, now)
        data = record.state_data(seen.machine, present, shift, counts, work)
        issued = await self._thread.call(self._thread.store.take_number)
        payload = self._envelope.freeze("state", subject, data, issued)
        seen.told = now
        self._uplink.publish_latest(record.state_topic(self._envelope.publisher.prefix, subject), payload, EXPIRY_S)

    def _begin(self, now: int) -> int:
        """When the running shift began; outside shifts, or without any, the production day."""
        turns = self._calendar.turns(now, now + 1)
        return turns[0].start_ns if turns else self._calendar.day_bounds(self._calendar.day_of_window(DAY, now))[0]

    async def _work(self, seen: _Seen, present: Present, settled: int, now: int) -> dict[str, Any] | None:
        """The job in work, and how far it has come."""
        if present.job is None:
            return None
        job = await self._thread.call(_open_job, self._thread.store, seen.machine, present.job, now)
        if job is None:
            return None
        so_far: WindowData | None = await seen.running.total("job", job.start_ns, settled)
        return record.job_progress(progress(seen.machine, self._calendar, job, so_far, now))


def _telling_tags(machine: Machine) -> tuple[str, ...]:
    """The tags whose readings tell what a machine does now, and why."""
    reason = () if machine.reasons.tag is None else (machine.reasons.tag,)
    return tuple(dict.fromkeys([*machine.state.tags, *reason, *machine.worked.tags]))


def _open_job(store: Store, machine: Machine, name: str, now: int) -> JobFact | None:
    """The open job of this name as it was published, with what its tags say now. In the store's thread."""
    for data in reversed(store.records.latest_between(f"{machine.subject}/job/", rfc3339(now), rfc3339(now))):
        if data["open"] and data["job"] == name and not data["withdrawn"]:
            tag = machine.worked.planned_quantity_tag
            newest = store.readings.newest(tag) if tag else None
            planned = newest[1] if newest and isinstance(newest[1], int) else data["planned_quantity"]
            return JobFact(
                name, parse(data["start"]), None, data["started_by"], None, data["operation"], data["product"], planned
            )
    return None
