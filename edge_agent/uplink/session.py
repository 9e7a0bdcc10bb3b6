"""What happens while connected: what is sent next, how much at once, and when the connection counts as dead."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S
from edge_agent.uplink import words
from edge_agent.uplink.connection import MQTT_5, Connection, Terms
from edge_agent.uplink.lanes import Lanes
from edge_agent.uplink.limits import Limits
from edge_agent.uplink.messages import Latest, Messages, packet_bytes
from edge_agent.uplink.parked import Parked
from edge_agent.uplink.poison import STRIKES, Suspects
from edge_agent.uplink.settle import Outbox, Settler, Waiting
from edge_agent.uplink.words import Lost

log = logging.getLogger("edge_agent.uplink")

_REMEMBERED_REFUSALS = 1_000
UNSETTLED_AT_ALL = 1_000_000
"""Answers that wait in memory while the outbox takes none: delivery goes on from a disk that can only be read."""


@dataclass(slots=True)
class Tally:
    """Counts since the start of the agent."""

    sent: int = 0
    accepted: int = 0
    refused: int = 0
    no_subscriber: int = 0
    slowed: int = 0
    refusals_logged: set[tuple[str, int]] = field(default_factory=set)


class _Sent(NamedTuple):
    what: Waiting | Latest
    at: int


class Session:
    """One connected period. `run` ends only with an error; `finish` ends it well."""

    def __init__(
        self,
        connection: Connection,
        terms: Terms,
        outbox: Outbox,
        settler: Settler,
        latest: dict[str, Latest],
        status_topic: str,
        news: asyncio.Event,
        limits: Limits,
        clock: Clock,
        tally: Tally,
        suspects: Suspects,
        parked: Parked,
    ) -> None:
        self._connection = connection
        self._terms = terms
        self._outbox = outbox
        self._settler = settler
        self._latest = latest
        self._news = news
        self._limits = limits
        self._clock = clock
        self._tally = tally
        self._most = max(1, min(limits.window, terms.receive_maximum))
        self._window = self._most
        # The agent's status first, then the other latest values, then the records.
        self._dirty = {topic: None for topic in [status_topic, *latest] if topic in latest}
        self._suspects = suspects
        self._parked = parked
        self._lanes = Lanes(
            outbox, settler, suspects, clock, batch=limits.batch, backlog_per_s=limits.backlog_per_s
        )  # fmt: skip
        self._again: list[Waiting] = []
        self._alone = False  # what is suspected is in flight, and nothing else may be
        self._slowed: Counter[str] = Counter()
        self._look_again = False
        self._trial: asyncio.TimerHandle | None = None
        self._in_flight: dict[int, _Sent] = {}
        self._hungry = asyncio.Event()
        self._empty = asyncio.Event()
        self._resume: asyncio.TimerHandle | None = None
        self._refill: asyncio.TimerHandle | None = None
        self._slow_s = 0.0
        self._finishing = False
        self._messages = Messages(connection.version == MQTT_5)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    async def run(self) -> None:
        """Send what waits until the connection is lost.

        Raises:
            Lost: the connection ended, or was given up; the message says why.
        """
        self._pump()
        await self._settler.try_to_flush()  # what the last connection left, before anything is fetched again
        self._suspects.keep_topics(self._latest)
        await self._lanes.begin()
        self._pump()
        work: list[Coroutine[Any, Any, None]] = [self._fetch(), self._settler.run(self._pump), self._watch()]
        tasks = [asyncio.create_task(job) for job in work]
        watched: list[asyncio.Future[Any]] = [*tasks, self._connection.lost]
        try:
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for timer in (self._resume, self._refill, self._trial):
                if timer is not None:
                    timer.cancel()
        for ended in done:
            if isinstance(ended, asyncio.Task):
                ended.result()  # raises what ended it
        raise self._connection.lost.result()

    async def finish(self, offline: Latest) -> bool:
        """Wait for what is in flight, publish the last status, and wait for its acknowledgement; False: in vain."""
        self._finishing = True
        try:
            async with asyncio.timeout(self._limits.stop_s):
                await self._quiet()
                if offline.topic in self._latest:
                    self._send(offline)
                    await self._quiet()
                await self._settler.flush()
        except (TimeoutError, Lost) as error:
            log.warning("stopped before the broker had acknowledged everything: %s", str(error) or "no answer in time")
            return False
        return True

    def in_flight_now(self) -> list[Waiting | Latest]:
        """What the broker has not answered for."""
        return [sent.what for sent in self._in_flight.values()]

    def look_again(self) -> None:
        """Have the backlog fetched once more from its begin: older records wait again."""
        self._look_again = True
        self._hungry.set()
        self._news.set()

    async def _quiet(self) -> None:
        while self._in_flight and not self._connection.lost.done():
            self._empty.clear()
            await self._empty.wait()

    def publish_latest(self, topic: str) -> None:
        self._dirty[topic] = None
        self._pump()

    # ---------------------------------------------------------------------------------------------------- out

    async def _fetch(self) -> None:
        """Keep records ready: the next ones are fetched while those before them are sent."""
        while True:
            self._hungry.clear()
            self._news.clear()
            if self._look_again:
                self._look_again = False
                sent = [each.position for each in self.in_flight_now() if isinstance(each, Waiting)]
                await self._lanes.look_again([*sent, *(each.position for each in self._again)])
            if await self._lanes.fetch():
                self._pump()
            elif self._lanes.full:
                await _first_of(self._hungry, self._news)
            else:
                await _event_or_timeout(self._news, self._limits.idle_s)

    def _pump(self) -> None:
        """Send as much as may be in flight."""
        try:
            while not self._finishing and not self._alone and len(self._in_flight) < self._window:
                what = self._next_latest() or self._next_record()
                if what is None:
                    break
                self._send(what)
        except Lost as error:
            self._connection.lose(error)
        if self._lanes.hungry:
            self._hungry.set()

    def _next_latest(self) -> Latest | None:
        now = self._clock.monotonic()
        for topic in [*self._dirty]:
            value = self._latest[topic]
            if value.expires is not None and value.expires <= now:
                del self._dirty[topic]
                self._suspects.cleared(topic)  # it is not sent any more
            elif self._parked.holds(topic, len(value.payload), now):
                self._try_later()
            elif topic not in self._suspects or (not self._in_flight and not self._lanes.has_live):
                del self._dirty[topic]
                return value
        return None

    def _next_record(self) -> Waiting | None:
        most = UNSETTLED_AT_ALL if self._settler.refused_by_outbox else self._limits.unsettled
        if not self._lanes.has_live and any(topic in self._suspects for topic in self._dirty):
            return None  # a latest value waits to be alone
        while self._resume is None and len(self._settler) < most:
            found = heapq.heappop(self._again) if self._again else self._lanes.next(alone=not self._in_flight)
            if isinstance(found, float):
                if self._refill is None:
                    self._refill = asyncio.get_running_loop().call_later(found, self._refilled)
                return None
            if found is None or self._may_go(found):
                return found
        return None

    def _may_go(self, record: Waiting) -> bool:
        """Whether a record may be sent now. One that is parked stays in the outbox, and is fetched when it is due."""
        where = record.topic, len(record.payload), self._clock.monotonic(), record.position
        if self._parked.holds(*where):
            self._suspects.cleared(record.position)
            self._try_later()
            return False
        if self._parked.tries(*where):
            self._suspects.add(record.position, 0 if self._parked.is_busy(record.topic) else STRIKES - 1)
        if record.position in self._suspects and self._in_flight:
            self._lanes.suspect(record)
            return False
        return True

    def _try_later(self) -> None:
        """Look again for what is parked, when the first pause is over."""
        now = self._clock.monotonic()
        due = self._parked.next_due(now)
        if self._trial is None and due is not None:
            self._trial = asyncio.get_running_loop().call_later((due - now) / NS_PER_S + 0.001, self._try_now)

    def _try_now(self) -> None:
        self._trial = None
        self.look_again()
        self._pump()

    def _refilled(self) -> None:
        self._refill = None
        self._pump()

    def _send(self, what: Waiting | Latest) -> None:
        now = self._clock.monotonic()
        if isinstance(what, Latest):
            properties, retain = self._messages.latest(what, now), True
        else:
            properties, retain = self._messages.record(self._waited(what)), False
        if packet_bytes(what.topic, what.payload, properties) > self._terms.maximum_packet_bytes:
            limit = self._terms.maximum_packet_bytes
            self._refused(what, words.TOO_LARGE, f"the broker takes at most {limit} bytes: raise its limit")
            return
        if not what.topic or "\0" in what.topic:
            self._refused(what, words.TOPIC_INVALID, "")
            return
        try:
            mid = self._connection.publish(what.topic, what.payload, retain, properties)
        except ValueError as error:
            self._refused(what, words.TOPIC_INVALID, str(error))
            return
        self._in_flight[mid] = _Sent(what, now)
        self._alone = _key(what) in self._suspects
        if isinstance(what, Waiting):
            self._tally.sent += 1

    def _waited(self, record: Waiting) -> bool:
        """Whether a record was there before this connection, or longer than a while."""
        late = self._clock.now() - record.issued > self._limits.backlog_s * NS_PER_S
        return record.position <= self._lanes.border or late

    # ----------------------------------------------------------------------------------------------------- in

    def acknowledged(self, mid: int, code: int, told: str) -> None:
        """The broker's answer to one message."""
        sent = self._in_flight.pop(mid, None)
        if sent is None:
            return
        if not self._in_flight:
            self._empty.set()
            self._alone = False
        self._suspects.cleared(_key(sent.what))
        if code in words.SLOW_DOWN:
            self._slow_down(sent.what, code, told)
        else:
            self._slowed.pop(sent.what.topic, None)
            if self._parked.accepted(sent.what.topic, len(sent.what.payload)):
                self.look_again()
            if code >= words.SUCCESS_BELOW:
                self._refused(sent.what, code, told)
            elif isinstance(sent.what, Waiting):
                self._accepted(sent.what, code)
        self._pump()

    def _accepted(self, record: Waiting, code: int) -> None:
        self._tally.accepted += 1
        self._tally.no_subscriber += code == words.NO_SUBSCRIBERS
        self._settler.accept(record.position)
        self._window = min(self._most, self._window * 2)
        self._slow_s = 0.0

    def _refused(self, what: Waiting | Latest, code: int, told: str) -> None:
        reason = words.reason(code, told)
        self._suspects.cleared(_key(what))
        if isinstance(what, Waiting):
            self._tally.refused += 1
            self._settler.refuse(what.position, code, reason)
        logged = self._tally.refusals_logged
        if (what.topic, code) not in logged and len(logged) < _REMEMBERED_REFUSALS:
            logged.add((what.topic, code))
            kept = "; such records are kept and not sent again" if isinstance(what, Waiting) else ""
            log.error("the broker refuses what is published on %s: %s%s", what.topic, reason, kept)

    def _slow_down(self, what: Waiting | Latest, code: int, told: str) -> None:
        """Send the same again after a pause, one at a time until the broker accepts again.

        A topic for which it is busy again and again waits by itself, and so does a latest value at once: records go on.
        """
        limits, topic = self._limits, what.topic
        self._tally.slowed += 1
        self._window = 1
        if self._slow_s == 0.0:
            log.warning("the broker asks to slow down: %s", words.reason(code, told))
        self._slowed[topic] += 1
        if isinstance(what, Latest) or topic in self._parked or self._slowed[topic] >= limits.slow_at_most:
            if isinstance(what, Latest):
                self._dirty.setdefault(topic)
            self._again = sorted(each for each in self._again if each.topic != topic)
            self._parked.park(topic, 0, self._clock.monotonic(), limits.slow_min_s, limits.slow_max_s, busy=True)
            self._slow_s = max(self._slow_s, limits.slow_min_s)
            self._try_later()
            return
        assert isinstance(what, Waiting)  # noqa: S101 - see above
        heapq.heappush(self._again, what)
        if self._resume is None:
            self._slow_s = min(limits.slow_max_s, max(limits.slow_min_s, self._slow_s * 2))
            loop = asyncio.get_running_loop()
            self._resume = loop.call_later(self._slow_s * random.uniform(0.5, 1.0), self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._pump()

    # -------------------------------------------------------------------------------------------------- watch

    async def _watch(self) -> None:
        """End the connection when paho's thread is dead, the broker silent, or an acknowledgement overdue."""
        where = self._connection.where
        silence_s = self._limits.silence_s
        if (
            self._terms.keepalive_s != self._limits.keepalive_s
        ):  # the broker's counts: it is asked for a sign that often
            silence_s = max(silence_s, self._terms.keepalive_s * 5 / 3) if self._terms.keepalive_s else math.inf
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + int(self._limits.watch_s * NS_PER_S))
            if not self._connection.is_alive():
                raise Lost(f"{where}: the MQTT client's thread has ended")
            if self._connection.silence_s() > silence_s:
                raise Lost(f"{where}: the broker has been silent for {silence_s:g} s: check it and the network")
            if self._in_flight:
                oldest = next(iter(self._in_flight.values())).at
                if self._clock.monotonic() - oldest > self._limits.ack_s * NS_PER_S:
                    raise Lost(
                        f"{where}: no acknowledgement for {self._limits.ack_s:g} s: look at the broker", by_broker=True
                    )


def _key(what: Waiting | Latest) -> int | str:
    return what.position if isinstance(what, Waiting) else what.topic


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _event_or_timeout(event: asyncio.Event, limit_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
