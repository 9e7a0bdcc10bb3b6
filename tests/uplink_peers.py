"""The two neighbours of the uplink in tests: an outbox in memory, and a broker that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from edge_agent.config.models import MqttSettings
from edge_agent.uplink import Limits, Uplink, Waiting
from edge_agent.uplink.settle import Outbox

STATUS = "edge/v1/acme/lyon/_agents/gw1/status"
QUICK = Limits(
    backoff_min_s=0.02,
    backoff_max_s=0.1,
    connack_s=2.0,
    dial_s=2.0,
    hang_up_s=1.0,
    watch_s=0.05,
    stop_s=2.0,
    slow_min_s=0.05,
    slow_max_s=0.2,
    takeover_s=0.3,
    poison_min_s=0.2,
    poison_max_s=1.0,
)
"""The product's limits, shortened."""


class MemoryOutbox:
    """An outbox without a disk, which remembers what it was told."""

    def __init__(self) -> None:
        self.records: dict[int, Waiting] = {}
        self.accepted_positions: list[int] = []
        self.refusals: dict[int, tuple[int, str]] = {}
        self.groups = 0
        self._changed = asyncio.Condition()

    def add(self, topic: str, payload: bytes, issued: int | None = None) -> int:
        position = len(self.records)
        self.records[position] = Waiting(position, topic, payload, time.time_ns() if issued is None else issued)
        return position

    async def waiting(self, after: int, limit: int, until: int | None = None) -> Sequence[Waiting]:
        await asyncio.sleep(0)
        done = {*self.accepted_positions, *self.refusals}
        last = len(self.records) if until is None else until
        found = [each for each in self.records.values() if after < each.position <= last and each.position not in done]
        return found[:limit]

    async def newest(self) -> int:
        return len(self.records) - 1

    async def accepted(self, positions: Sequence[int]) -> None:
        async with self._changed:
            self.groups += 1
            known = set(self.accepted_positions)  # one may be told twice after an interruption
            self.accepted_positions.extend(each for each in positions if each not in known)
            self._changed.notify_all()

    async def refused(self, position: int, reason_code: int, reason: str) -> None:
        async with self._changed:
            self.refusals[position] = (reason_code, reason)
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool], limit_s: float = 10) -> None:
        """Wait until the outbox was told enough."""
        async with asyncio.timeout(limit_s), self._changed:
            await self._changed.wait_for(condition)


async def until(condition: Callable[[], bool], limit_s: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - figures are asked, they do not tell
            await asyncio.sleep(0.005)


def make_uplink(outbox: Outbox, url: str, *, limits: Limits = QUICK, **settings: Any) -> Uplink:
    return Uplink(
        MqttSettings.model_validate({"url": url, **settings}),
        "gw1",
        outbox,
        status_topic=STATUS,
        online=lambda: b"online",
        offline=b"offline",
        limits=limits,
    )


@contextlib.asynccontextmanager
async def running(uplink: Uplink) -> AsyncIterator[Uplink]:
    """The uplink at work, and stopped as the agent stops it."""
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class StubBroker:
    """As much of a broker (MQTT 5 and 3.1.1) as a test needs, and as unkind as it asks for.

    `answer` gives the reason code for the n-th PUBLISH (from 0), or None: no answer yet. `connack` is everything after
    the packet's length. An answer comes after `delay_s`.
    """

    def __init__(
        self,
        answer: Callable[[int], int | None] = lambda _: 0,
        connack: Callable[[int], bytes | None] = lambda _: b"\0\0\0",
        delay_s: float = 0.0,
    ) -> None:
        self._answer = answer
        self._connack = connack
        self._delay_s = delay_s
        self.connects: list[bytes] = []
        self.connected_at: list[float] = []
        self.publishes: list[tuple[str, bytes, bytes]] = []
        """Topic, payload and the whole packet of each PUBLISH."""
        self.farewells = 0
        self.unanswered = 0
        self.most_unanswered = 0
        self.withheld = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.answers_pings = True
        self.hangs_up_at_once = False

    async def __aenter__(self) -> StubBroker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0.01)  # for connections that were accepted in this moment
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await self._packet(reader, writer)
        writer.close()

    async def _packet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = (await reader.readexactly(1))[0] >> 4
        length = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = await reader.readexactly(length)
        if kind == 1:
            self.connects.append(body)
            self.connected_at.append(time.monotonic())
            if self.hangs_up_at_once:
                writer.transport.abort()
            elif (connack := self._connack(len(self.connects) - 1)) is not None:
                writer.write(bytes([0x20, len(connack)]) + connack)
        elif kind == 3:
            self._publish(body, writer)
        elif kind == 14:
            self.farewells += 1
        elif kind == 12 and self.answers_pings:
            writer.write(b"\xd0\0")

    def _publish(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(body[:2], "big")
        topic, mid = body[2 : 2 + size].decode(), body[2 + size : 4 + size]
        five = self.connects[-1][6] == 5
        payload = 4 + size + (1 + body[4 + size] if five else 0)  # properties are below 128 bytes in all tests
        number = len(self.publishes)
        self.publishes.append((topic, body[payload:], body))
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)

        def acknowledge(code: int) -> None:
            self.unanswered -= 1
            writer.write(b"\x40\x03" + mid + bytes([code]) if five else b"\x40\x02" + mid)

        code = self._answer(number)
        if code is None:
            self.withheld += 1
        else:
            asyncio.get_running_loop().call_later(self._delay_s, acknowledge, code)
