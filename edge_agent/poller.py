"""One supervised task for each link: connect, read on the clock, back off, reconnect; the only place that retries.

Polls are due at fixed times from the start of a connection, so they do not drift; a poll that comes too late is skipped
and counted, never made up for. A link speaks once when it is lost and once when it is back.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S, Device, DeviceFault, Driver, NotConnected, Reading, Streams, Tag
from edge_agent.intake import Intake
from edge_agent.store import Row
from edge_agent.tag_faults import TagFaults

log = logging.getLogger(__name__)

OFFLINE, AGENT_DOWN = "device_offline", "agent_down"
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 10.0
BACKSTOP_S = 60.0
"""A driver bounds every call itself; one that does not loses its link after this."""
CLOSE_S = 10.0
STABLE_NS = 5 * NS_PER_S
"""What has answered for so long is back; what is lost sooner had never come back."""
OVERSLEPT_NS = 3 * NS_PER_S
"""A task that wakes so much too late was stopped with its whole process, or starved: nobody looked in the meantime."""


class Outage:
    """Whether something is lost: told once when it goes, and once when it has been back for a while.

    What comes back for a moment only goes on with the same outage, its silence and its growing delays. While it is
    muted nothing is told; what is still lost after that is told then.
    """

    def __init__(self, name: str, clock: Clock, rng: random.Random, muted: Callable[[], bool]) -> None:
        self.failures = 0
        self._told = False
        self._muted = muted
        self._name = name
        self._clock = clock
        self._rng = rng
        self._since = 0
        self._alive_since: int | None = None

    def lost(self, error: str) -> None:
        """It failed, once more or for the first time."""
        self.failures += 1
        self._alive_since = None
        if self.failures == 1:
            self._since = self._clock.monotonic()
        if not self._told and not self._muted():
            self._told = True
            log.warning("%s: lost: %s; trying again", self._name, error)

    def answers(self) -> None:
        """It gave a sign of life."""
        if not self.failures:
            return
        now = self._clock.monotonic()
        if self._alive_since is None:
            self._alive_since = now
        if now - self._alive_since >= STABLE_NS:
            away_s = (self._alive_since - self._since) / NS_PER_S
            if self._told:
                log.info("%s: back since %.0f s, after %.1f s and %d failures", self._name, STABLE_NS / NS_PER_S,
                         away_s, self.failures)  # fmt: skip
            self.failures, self._told = 0, False

    @property
    def delay_ns(self) -> int:
        """How long to wait before the next try."""
        return delay_ns(self.failures, self._rng) if self.failures else 0


@dataclass
class DeviceFigures:
    """What the agent knows of one device, for people."""

    device: str
    driver: str
    link: str
    connected: bool = False
    since: int | None = None
    error: str | None = None
    polls: int = 0
    skipped: int = 0
    faults: int = 0
    connects: int = 0
    readings: int = 0
    last_read: int | None = None
    duration_ns: int = 0
    muted_until: int = 0
    """Until then nothing is logged of its being lost, in ns of the wall time."""
    bad: list[dict[str, Any]] = field(default_factory=list)
    """Its tags that are bad while it answers: `tag`, `cause`, `place` in the configuration, `since`."""


@dataclass(eq=False)
class Group:
    """The tags of one device that are read together, and when they are due."""

    device: Device
    tags: tuple[Tag, ...]
    period_ns: int
    due: int = 0


@dataclass(eq=False)
class Watched:
    """One device on the link: its figures, and how long it must wait after it did not answer."""

    device: Device
    figures: DeviceFigures
    streamed: tuple[Tag, ...]
    polled: tuple[Tag, ...]
    outage: Outage
    faults: TagFaults
    retry_at: int = 0
    last_seen: int = 0
    stream_seen: int = 0
    groups: list[Group] = field(default_factory=list)


def delay_ns(failures: int, rng: random.Random) -> int:
    """How long to wait after so many failures in a row: from 0.2 s doubling to 10 s, less a random part of a half."""
    longest = min(FIRST_DELAY_S * 2 ** min(failures - 1, 16), LONGEST_DELAY_S)
    return int(longest * rng.uniform(0.5, 1.0) * NS_PER_S)


class Link:
    """One link with its devices: runs until cancelled."""

    def __init__(
        self, key: str, driver: Driver, devices: Sequence[Device], intake: Intake,
        append: Callable[[Sequence[Row]], None], clock: Clock, rng: random.Random | None = None,
        fill: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:  # fmt: skip
        self.key = key
        self._driver = driver
        self._intake = intake
        self._append = append
        self._clock = clock
        self._rng = rng or random.Random()
        self._fill = fill
        self._greeted = False
        names = ", ".join(device.name for device in devices)
        self._outage = Outage(names, clock, self._rng, lambda: all(map(self._muted, self.figures)))
        self._watched = [self._watch(device) for device in devices]
        self._by_tag = {tag: watched for watched in self._watched for tag in watched.device.tags}

    @property
    def figures(self) -> list[DeviceFigures]:
        """The figures of the link's devices."""
        return [watched.figures for watched in self._watched]

    def _muted(self, figures: DeviceFigures) -> bool:
        return self._clock.now() < figures.muted_until

    @property
    def names(self) -> str:
        """The devices behind this link, for a log line."""
        return ", ".join(watched.device.name for watched in self._watched)

    def _watch(self, device: Device) -> Watched:
        streams = self._driver.streams if isinstance(self._driver, Streams) else lambda tag: False
        streamed = tuple(tag for tag in device.tags if streams(tag))
        polled = tuple(tag for tag in device.tags if not streams(tag))
        figures = DeviceFigures(device.name, device.settings.driver, self.key)
        outage = Outage(device.name, self._clock, self._rng, lambda: self._muted(figures))
        watched = Watched(device, figures, streamed, polled, outage, TagFaults(device.name))
        for period in sorted({tag.poll_ns for tag in polled}):
            tags = tuple(tag for tag in polled if tag.poll_ns == period)
            watched.groups.append(Group(device, tags, period))
        return watched

    # ---------------------------------------------------------------------------------------- connecting

    async def run(self) -> None:
        """Keep the link: connect, serve, and after a loss wait and connect again, for ever."""
        while True:
            patience_ns: int | None = None
            try:
                async with asyncio.timeout(BACKSTOP_S):
                    await self._driver.connect()
                self._up()
                await self._serve()
            except NotConnected as error:
                self._down(str(error))
                patience_ns = None if error.retry_within_s is None else int(error.retry_within_s * NS_PER_S)
            except TimeoutError:
                self._down("the driver did not come back in time; the link is closed")
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody asked this task to end: something within the driver was cancelled, and let it out.
                self._down("the driver was interrupted; the link is closed")
            except Exception as error:  # a driver's bug must not stop the other links
                log.debug("%s: unexpected", self.names, exc_info=error)
                self._down(f"unexpected {type(error).__name__} in the driver: {error}")
            finally:
                await self._close()
            delay = self._outage.delay_ns
            wait = delay if patience_ns is None else min(delay, patience_ns)
            await self._clock.sleep_until(self._clock.monotonic() + wait)

    async def _close(self) -> None:
        with suppress(TimeoutError, NotConnected, OSError):
            async with asyncio.timeout(CLOSE_S):
                await self._driver.close()

    def _up(self) -> None:
        now = self._clock.now()
        for watched in self._watched:
            watched.retry_at = 0
            watched.figures.connects += 1
            if not watched.groups:
                self._answered(watched, now)

    def _down(self, error: str) -> None:
        for watched in self._watched:
            self._lost(watched, error, streamed=True)
        self._outage.lost(error)

    # ------------------------------------------------------------------------------------------- serving

    async def _serve(self) -> None:
        """Poll, stream and ask for history until the link is lost; whichever finds it ends all."""
        jobs = [asyncio.create_task(self._poll(), name=f"poll {self.key}")]
        if isinstance(self._driver, Streams) and any(watched.streamed for watched in self._watched):
            jobs.append(asyncio.create_task(self._stream(self._driver), name=f"stream {self.key}"))
        if self._fill is not None:
            jobs.append(asyncio.create_task(self._fill(), name=f"history {self.key}"))
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            for job in done:
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
        raise NotConnected("the stream has ended")

    async def _poll(self) -> None:
        start = self._clock.monotonic()
        queue: list[tuple[int, int, Group, Watched]] = []
        for watched in self._watched:
            for group in watched.groups:
                group.due = start
                queue.append((start, len(queue), group, watched))
        if not queue:
            await asyncio.Event().wait()
        heapq.heapify(queue)
        while True:
            due, number, group, watched = queue[0]
            wake_at = max(due, self._clock.monotonic())
            await self._clock.sleep_until(due)
            if self._clock.monotonic() - wake_at > OVERSLEPT_NS:
                self._overslept()
            if self._clock.monotonic() >= watched.retry_at:
                await self._read(group, watched)
            missed = max(0, self._clock.monotonic() - due) // group.period_ns
            watched.figures.skipped += missed
            group.due = due + (missed + 1) * group.period_ns
            heapq.heapreplace(queue, (group.due, number, group, watched))

    def _overslept(self) -> None:
        for watched in self._watched:
            if watched.figures.connected:
                self._append(self._intake.lost(watched.polled, watched.last_seen, AGENT_DOWN))

    def leapt(self, before: int, now: int) -> None:
        """Say that the agent's time went from `before` to `now` in a moment: nothing is known of what lies between."""
        for watched in self._watched:
            if watched.figures.connected:
                self._append(self._intake.leapt(watched.device.tags, before, now))
                watched.last_seen = watched.stream_seen = now

    async def _read(self, group: Group, watched: Watched) -> None:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(BACKSTOP_S):
                readings = await self._driver.read(group.device, group.tags)
        except DeviceFault as fault:
            watched.figures.faults += 1
            watched.outage.lost(str(fault))
            watched.retry_at = self._clock.monotonic() + watched.outage.delay_ns
            self._lost(watched, str(fault), streamed=False)
            return
        now = self._clock.now()
        rows = self._intake.accept(readings, now)
        if rows:
            self._append(rows)
        self._tell_turned(now)
        watched.last_seen = now
        watched.figures.polls += 1
        watched.figures.readings += len(readings)
        watched.figures.duration_ns = self._clock.monotonic() - began
        self._answered(watched, now)

    async def _stream(self, driver: Streams) -> None:
        async with aclosing(driver.stream()) as batches:
            async for readings in batches:
                self._take(readings)

    def _take(self, readings: Sequence[Reading]) -> None:
        """A batch of a stream; an empty one says that everything holds."""
        now = self._clock.now()
        rows = self._intake.accept(readings, now)
        heard = Counter(self._by_tag[reading.tag] for reading in readings) if len(self._watched) > 1 else None
        for watched in heard or self._watched:
            watched.stream_seen = now
            watched.figures.readings += len(readings) if heard is None else heard[watched]
            self._answered(watched, now)
            if not readings:
                rows += self._intake.hold(watched.streamed, now)
        if rows:
            self._append(rows)
        self._tell_turned(now)

    # --------------------------------------------------------------------------------------- transitions

    def _answered(self, watched: Watched, now: int) -> None:
        figures = watched.figures
        figures.last_read = now
        self._outage.answers()
        watched.outage.answers()
        if figures.connected:
            return
        figures.connected, figures.since, figures.error = True, now, None
        if not self._greeted:
            self._greeted = True
            log.info("%s: connected (%s)", self.names, self.key)

    def _tell_turned(self, now: int) -> None:
        """Say which tags went bad while their device answers: the others lose nothing."""
        turned = self._intake.turned
        if not turned:
            return
        for watched in self._watched:
            own = [each for each in turned if self._by_tag.get(each[0]) is watched]
            if own:
                watched.faults.turned(own, now, muted=self._muted(watched.figures))
                watched.figures.bad = [
                    {"tag": fault.tag.name, "cause": fault.cause, "place": fault.tag.place, "since": fault.since}
                    for fault in watched.faults.now_bad()
                ]
        turned.clear()

    def _lost(self, watched: Watched, error: str, *, streamed: bool) -> None:
        """Say that nothing is known of the device's polled tags, and, with `streamed`, of those that stream."""
        figures, now = watched.figures, self._clock.now()
        if figures.connected or figures.since is None:
            figures.since = now
        figures.connected, figures.error = False, error
        rows = self._intake.lost(watched.polled, watched.last_seen or now, OFFLINE)
        if streamed:
            rows += self._intake.lost(watched.streamed, watched.stream_seen or now, OFFLINE)
        if rows:
            self._append(rows)
