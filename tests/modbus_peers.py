"""Modbus peers that misbehave as told, and the oracle: every register tells its unit and its address."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.contract import Device, Quality, Reading, Tag
from edge_agent_modbus import ModbusDevice, ModbusTag

Answer = Sequence[tuple[float, bytes]]
"""Bytes to send, each after a delay in seconds."""


def oracle(unit: int, address: int) -> int:
    """What a register of these peers holds: nowhere else is the same value."""
    return (unit % 16) << 12 | (address & 0xFFF)


def data_for(request: bytes) -> bytes:
    """The right answer's data to `unit function start count`."""
    unit, start, count = request[0], int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
    return b"".join(oracle(unit, address).to_bytes(2, "big") for address in range(start, start + count))


def answer_to(request: bytes) -> bytes:
    """The right answer, without framing."""
    data = data_for(request)
    return request[:2] + bytes((len(data),)) + data


def mbap(transaction: int, body: bytes, protocol: int = 0) -> bytes:
    """A body in the frame of Modbus TCP."""
    return transaction.to_bytes(2, "big") + protocol.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def rtu(body: bytes) -> bytes:
    """A body in the frame of Modbus RTU, with a CRC computed bit by bit."""
    value = 0xFFFF
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return body + value.to_bytes(2, "little")


def make_device(url: str, addresses: Sequence[Any], name: str = "plc", **settings: Any) -> Device:
    """A device with a tag for each address, or for each dictionary of settings."""
    tags = tuple(
        Tag(f"{name}.t{n}", ModbusTag(**(given if isinstance(given, dict) else {"address": given})), 10**9)
        for n, given in enumerate(addresses)
    )
    return Device(name, ModbusDevice(driver="modbus", url=url, **settings), tags)


def values(readings: Sequence[Reading]) -> dict[str, Any]:
    """Values by short tag name; BAD ones by their cause, in brackets."""
    return {
        reading.tag.short_name: [reading.cause] if reading.quality is Quality.BAD else reading.value
        for reading in readings
    }


class TcpPeer:
    """A TCP server that answers each request as `reply(transaction, request)` says."""

    def __init__(self, reply: Callable[[int, bytes], Answer]) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self._asked = asyncio.Event()
        self.connections = 0
        self._open = 0
        self._none = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> TcpPeer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"tcp://127.0.0.1:{self.port}"

    async def asked(self) -> None:
        """Wait for a request that came after this was last awaited."""
        await self._asked.wait()
        self._asked.clear()

    async def alone(self) -> None:
        """Wait until nobody is connected."""
        await self._none.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._open += 1
        self._none.clear()
        try:
            while True:
                frame = await reader.readexactly(12)
                self.requests.append(frame[6:])
                self._asked.set()
                self._start(self._send(writer, self.reply(int.from_bytes(frame[:2], "big"), frame[6:])))
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._open -= 1
            if not self._open:
                self._none.set()

    def _start(self, sending: Any) -> None:
        task = asyncio.get_running_loop().create_task(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        for delay_s, data in answer:
            if delay_s:
                await asyncio.sleep(delay_s)
            if not writer.is_closing():
                writer.write(data)


class PtyPeer:
    """A serial line whose far end answers each request as `reply(request)` says."""

    def __init__(self, reply: Callable[[bytes], Answer]) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self._asked = asyncio.Event()
        self._buffer = b""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> PtyPeer:
        self._far, self._near = pty.openpty()
        tty.setraw(self._near)
        self.path = os.ttyname(self._near)
        os.set_blocking(self._far, False)
        asyncio.get_running_loop().add_reader(self._far, self._readable)
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.unplug()

    @property
    def url(self) -> str:
        """Where a client opens it; a pty has no parity."""
        return f"rtu://{self.path}?baud=115200&parity=N&stop=1"

    async def asked(self) -> None:
        """Wait for a request that came after this was last awaited."""
        await self._asked.wait()
        self._asked.clear()

    def unplug(self) -> None:
        """Pull the adapter."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._far)
            os.close(self._far)
            os.close(self._near)

    def say(self, data: bytes) -> None:
        """Put bytes on the line."""
        if self._open:
            os.write(self._far, data)

    def _readable(self) -> None:
        self._buffer += os.read(self._far, 1024)
        while len(self._buffer) >= 8:
            frame, self._buffer = self._buffer[:8], self._buffer[8:]
            assert rtu(frame[:6]) == frame, "a request with a wrong CRC"
            self.requests.append(frame[:6])
            self._asked.set()
            task = asyncio.get_running_loop().create_task(self._send(self.reply(frame[:6])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, answer: Answer) -> None:
        for delay_s, data in answer:
            if delay_s:
                await asyncio.sleep(delay_s)
            self.say(data)
