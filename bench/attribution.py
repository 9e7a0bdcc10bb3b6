"""Whether a value is ever credited to another register: a million late or damaged answers, on a serial line and TCP.

Below the driver's own `read` and its own framing lies a wire in this process, in virtual time, so that waiting costs
nothing. Some hundreds go over a real pseudo terminal and a real socket in real time. The answers are those of
`modbus_lies`; each register tells its unit and its address, so that a wrong value shows itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import tty
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from edge_agent.contract import Device, DeviceFault, NotConnected, Quality, Tag
from edge_agent_modbus import ModbusDevice, ModbusDriver, ModbusTag
from edge_agent_modbus.ports import Port
from edge_agent_modbus.wire import Exchange

from .figures import Figure
from .modbus_lies import Answer, Liar, oracle
from .virtual import run_virtually

ANSWERS = 1_000_000
REAL_ANSWERS = 400
_TIMEOUT_S, _DRAIN_S = 0.1, 0.15
_REAL_TIMEOUT_S, _REAL_DRAIN_S = 0.03, 0.04
_UNITS = (5, 6)
_GROUPS = ((100, 3), (130, 3), (160, 3), (200, 12), (612, 12))
"""Where the blocks begin, and how many registers they have: several alike, so that their answers look alike."""
Say = Callable[[bytes], Answer]


def run(_folder: Path, seconds: float, answers: int = ANSWERS) -> list[Figure]:
    """Wrong values of so many late or damaged answers; `seconds` bounds each of the real links."""
    figures = []
    for name, scheme, many in (
        ("a serial line", "rtu", answers),
        ("a serial line with echo", "rtu+echo", answers // 10),
        ("TCP", "tcp", answers),
    ):
        counts = run_virtually(virtual(scheme, many))
        figures += [
            Figure(f"Attribution on {name}, wrong of {many:,} bad answers", counts["wrong"], "values", bar=0),
            Figure(f"Attribution on {name}, right meanwhile", counts["right"], "values"),
        ]
    for name, real in (("a pseudo terminal", over_a_pty), ("a socket", over_a_socket)):
        counts = asyncio.run(real(min(answers, REAL_ANSWERS), seconds))
        figures.append(
            Figure(f"Attribution over {name}, wrong of {counts['lies']} bad answers", counts["wrong"], "values", bar=0)
        )
    return figures


# ------------------------------------------------------------------------------------ the wire in this process


class Wire:
    """What lies between the exchange and a peer: a serial line outlives its port, a TCP connection does not."""

    def __init__(self, say: Say, request_bytes: int, outlives: bool) -> None:
        self._say, self._request_bytes, self._outlives = say, request_bytes, outlives
        self._opened: Exchange | None = None
        self._connection = 0

    def open(self, exchange: Exchange) -> Port:
        """A new connection."""
        self._connection += 1
        self._opened = exchange
        exchange.opened(self._write, self._abort)
        return self

    async def close(self) -> None:
        """End it."""
        exchange, self._opened = self._opened, None
        if exchange is not None:
            exchange.lost("closed")

    def _abort(self) -> None:
        self._opened = None

    def _write(self, data: bytes) -> None:
        assert len(data) == self._request_bytes, "requests come whole and one by one"
        loop = asyncio.get_running_loop()
        for delay_s, said in self._say(data):
            loop.call_later(delay_s, self._deliver, said, self._connection)

    def _deliver(self, said: bytes, connection: int) -> None:
        if self._opened is not None and (self._outlives or connection == self._connection):
            self._opened.received(said)


class WiredDriver(ModbusDriver):
    """The driver as it is, on a wire of ours."""

    def __init__(self, devices: Sequence[Device], wire: Wire) -> None:
        super().__init__(devices)
        self._wire = wire

    async def _new_port(self) -> Port:
        return self._wire.open(self._exchange)


async def virtual(scheme: str, answers: int, seed: int = 1, drain_s: float = _DRAIN_S) -> Counter[str]:
    """What came of so many lies; `drain_s` is what the driver is told, the peer is late by up to the real one."""
    liar = Liar(random.Random(seed), _TIMEOUT_S, _DRAIN_S)
    serial, echo = scheme.startswith("rtu"), scheme == "rtu+echo"
    say = liar.rtu_behind_an_echo if echo else liar.rtu
    wire = Wire(say, 8, outlives=True) if serial else Wire(liar.tcp, 12, outlives=False)
    url = "rtu:///dev/line?baud=115200" if serial else "tcp://127.0.0.1"
    devices = make_devices(url, _TIMEOUT_S, drain_s, echo=echo)
    return await tally(WiredDriver(devices, wire), devices, liar, answers, impatience=random.Random(seed))


# -------------------------------------------------------------------------------------------- the real links


async def over_a_pty(answers: int, seconds: float) -> Counter[str]:
    """The same over a pseudo terminal, in real time."""
    liar = Liar(random.Random(2), _REAL_TIMEOUT_S, _REAL_DRAIN_S, punctual=False)
    far, near = pty.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    loop = asyncio.get_running_loop()
    buffer = bytearray()

    def say(data: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(far, data)

    def readable() -> None:
        buffer.extend(os.read(far, 1024))
        while len(buffer) >= 8:
            for delay_s, said in liar.rtu(bytes(buffer[:8])):
                loop.call_later(delay_s, say, said)
            del buffer[:8]

    loop.add_reader(far, readable)
    devices = make_devices(f"rtu://{os.ttyname(near)}?baud=115200&parity=N&stop=1", _REAL_TIMEOUT_S, _REAL_DRAIN_S)
    try:
        return await tally(ModbusDriver(devices), devices, liar, answers, seconds)
    finally:
        loop.remove_reader(far)
        await asyncio.sleep(_REAL_TIMEOUT_S + _REAL_DRAIN_S)  # what is still to be said
        os.close(far)
        os.close(near)


async def over_a_socket(answers: int, seconds: float) -> Counter[str]:
    """The same over a TCP connection, in real time."""
    liar = Liar(random.Random(3), _REAL_TIMEOUT_S, _REAL_DRAIN_S, punctual=False)
    loop = asyncio.get_running_loop()

    def say(writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                for delay_s, said in liar.tcp(await reader.readexactly(12)):
                    loop.call_later(delay_s, say, writer, said)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        devices = make_devices(f"tcp://127.0.0.1:{port}", _REAL_TIMEOUT_S, _REAL_DRAIN_S)
        return await tally(ModbusDriver(devices), devices, liar, answers, seconds)


# ----------------------------------------------------------------------------------------------- the reader


def make_devices(url: str, timeout_s: float, drain_s: float, *, echo: bool = False) -> list[Device]:
    """Two units, each with all the blocks."""
    devices = []
    for unit in _UNITS:
        settings = ModbusDevice.model_validate(
            {
                "driver": "modbus", "url": url, "device_id": unit, "max_gap": 0, "echo": echo,
                "timeout": f"{timeout_s * 1000:g} ms", "drain": f"{drain_s * 1000:g} ms",
            }
        )  # fmt: skip
        tags = [
            Tag(f"u{unit}.r{n}", ModbusTag(address=f"holding:{n}"), 10**9)
            for start, count in _GROUPS
            for n in range(start, start + count)
        ]
        devices.append(Device(f"u{unit}", settings, tuple(tags)))
    return devices


async def tally(
    driver: ModbusDriver,
    devices: Sequence[Device],
    liar: Liar,
    answers: int,
    seconds: float = float("inf"),
    impatience: random.Random | None = None,
) -> Counter[str]:
    """Read by turns, as the poller does, until so many lies were told; what the readings were worth.

    With `impatience` one read of ten is given up in its middle, and half of the links with it.
    """
    groups = [(device, tags) for device in devices for tags in _groups(device)]
    counts: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until_s, turn = loop.time() + seconds, 0
    await driver.connect()
    try:
        while liar.lies < answers and loop.time() < until_s:
            device, tags = groups[turn % len(groups)]
            turn += 1
            patience_s = None
            if impatience is not None and impatience.random() < 0.1:
                patience_s = impatience.uniform(0, 1.5 * _TIMEOUT_S)
            try:
                async with asyncio.timeout(patience_s):
                    readings = await driver.read(device, tags)
            except TimeoutError:
                counts["given up"] += 1
                if impatience is not None and impatience.random() < 0.5:
                    await _again(driver.close, driver.connect)
            except DeviceFault:
                counts["fault"] += 1
            except NotConnected:
                counts["lost"] += 1
                await _again(driver.close, driver.connect)
            else:
                for reading in readings:
                    counts[_verdict(device, reading)] += 1
    finally:
        await driver.close()
    counts["lies"] = liar.lies
    return counts


def _groups(device: Device) -> list[tuple[Tag, ...]]:
    groups, at = [], 0
    for _, count in _GROUPS:
        groups.append(device.tags[at : at + count])
        at += count
    return groups


async def _again(*steps: Callable[[], Awaitable[None]]) -> None:
    for step in steps:
        await step()


def _verdict(device: Device, reading: Any) -> str:
    if reading.quality is Quality.BAD:
        return "bad"
    right = oracle(device.settings.device_id, reading.tag.settings.place().address)  # type: ignore[attr-defined]
    return "right" if reading.value == right else "wrong"
