"""What stands in for the world outside: a clock that moves when told, a driver that follows a script."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from edge_agent.clock import Trust
from edge_agent.contract import Device, DeviceSettings, Driver, Reading, Tag, TagSettings, parse_duration
from edge_agent.store import Row

S = 1_000_000_000
START = 1_795_000_000 * S  # 2026-11-18T11:06:40Z


def row(
    tag: int, time: int, value: Any, quality: int = 0, cause: str | None = None, *, machine: int = 1
) -> Row:  # fmt: skip
    """A row of the store: of a device without a clock of its own, received at `time`."""
    return tag, time, value, quality, cause, None, machine, None, None


class FakeClock:
    """Time that stands still until `advance`."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._monotonic = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0
        self.trusted: Trust = "synchronized"

    def now(self) -> int:
        return self._now

    def monotonic(self) -> int:
        return self._monotonic

    def trust(self) -> Trust:
        return self.trusted

    def step_wall(self, ns: int) -> None:
        """Set the wall clock, as an operator would; monotonic time does not notice."""
        self._now += ns

    def stop_the_process(self, seconds: float) -> None:
        """Let time pass while nobody runs, as under SIGSTOP; `advance` then wakes who should have woken long ago."""
        self._pass(self._monotonic + round(seconds * S))

    async def sleep_until(self, when: int) -> None:
        if when <= self._monotonic:
            await asyncio.sleep(0)
            return
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking each sleeper at its moment and letting it act before time goes on."""
        end = self._monotonic + round(seconds * S)
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, future = heapq.heappop(self._sleepers)
            self._pass(when)
            if not future.done():
                future.set_result(None)
            await settle()
        self._pass(end)
        await settle()

    def _pass(self, to: int) -> None:
        self._now += max(0, to - self._monotonic)
        self._monotonic = max(self._monotonic, to)


async def settle(turns: int = 20) -> None:
    """Let every task that can run, run."""
    for _ in range(turns):
        await asyncio.sleep(0)


Script = Callable[[Device, tuple[Tag, ...]], Awaitable[Sequence[Reading]] | Sequence[Reading]]


class ScriptedDriver(Driver):
    """A driver whose peer is a function; `connects` raises what stands in its list, in turn."""

    @classmethod
    def link(cls, settings: Any) -> str:
        return str(settings.url)

    def __init__(self, devices: Sequence[Device], script: Script | None = None) -> None:
        self.devices = devices
        self.script: Script = script or (lambda device, tags: [Reading(tag, None, 1) for tag in tags])
        self.refusals: list[Exception] = []
        self.connected = 0
        self.closed = 0
        self.was_closed = asyncio.Event()
        self.reads: list[tuple[str, ...]] = []

    async def connect(self) -> None:
        self.connected += 1
        if self.refusals:
            raise self.refusals.pop(0)

    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        self.reads.append(tuple(tag.name for tag in tags))
        answer = self.script(device, tags)
        return await answer if isinstance(answer, Awaitable) else answer

    async def close(self) -> None:
        self.closed += 1
        self.was_closed.set()


class StreamingDriver(ScriptedDriver):
    """A scripted driver that also brings batches: put them, or an exception, into `batches`."""

    def __init__(self, devices: Sequence[Device], script: Script | None = None) -> None:
        super().__init__(devices, script)
        self.batches: asyncio.Queue[Sequence[Reading] | Exception] = asyncio.Queue()

    def streams(self, tag: Tag) -> bool:
        return True

    async def stream(self) -> Any:
        while True:
            batch = await self.batches.get()
            if isinstance(batch, Exception):
                raise batch
            yield batch


def device(name: str = "plc", tags: Sequence[str] = ("a",), poll: str = "1 s", **settings: Any) -> Device:
    """A device with tags of the given names; further settings go to each tag."""
    made = tuple(
        Tag(f"{name}.{tag}", TagSettings(address=number, **settings), parse_duration(poll))
        for number, tag in enumerate(tags)
    )
    return Device(name, DeviceSettings(driver="scripted", url=f"scripted://{name}"), made)
