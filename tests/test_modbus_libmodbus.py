"""Modbus: against servers that nobody here wrote (libmodbus), with a client that nobody here wrote beside (mbpoll)."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from libmodbus_server import FLOAT, FLOATS_AT, SIZE, TCP_UNIT, bit_of, is_installed
from modbus_peers import make_device, oracle, values

from edge_agent.contract import Device, DeviceFault, NotConnected, ScanFinding, ScanRequest
from edge_agent_modbus import ModbusDriver

pytestmark = pytest.mark.skipif(not is_installed(), reason="libmodbus is not installed: apt install libmodbus5")
ROOT = Path(__file__).resolve().parent.parent
RTU_UNIT = 5
TAGS = [
    "holding:0",
    "40200",
    "input:399",
    "coil:17",
    "discrete:399",
    "holding:7.3",
    *({"address": f"holding:{FLOATS_AT + 2 * n}", "type": "float32", "word_order": order}
      for n, order in enumerate(["ABCD", "CDAB", "BADC", "DCBA"])),
    {"address": "input:10", "count": 100},
]  # fmt: skip


def expected(unit: int) -> dict[str, Any]:
    return {
        "t0": oracle(unit, 0), "t1": oracle(unit, 199), "t2": oracle(unit, 399), "t3": bit_of(unit, 17),
        "t4": bit_of(unit, 399), "t5": bool(oracle(unit, 7) >> 3 & 1),
        **{f"t{n}": FLOAT for n in range(6, 10)}, "t10": tuple(oracle(unit, n) for n in range(10, 110)),
    }  # fmt: skip


@contextmanager
def server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "tests/libmodbus_server.py", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline().split()[1])
    finally:
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.wait(5)
        process.stdout.close()


@contextmanager
def line(folder: Path) -> Iterator[tuple[str, str]]:
    if shutil.which("socat") is None:
        pytest.skip("socat is not installed: apt install socat")
    ends = (str(folder / "near"), str(folder / "far"))
    process = subprocess.Popen(["socat", *(f"pty,rawer,link={end}" for end in ends)])
    try:
        until = time.monotonic() + 5
        while not all(Path(end).exists() for end in ends):
            assert time.monotonic() < until, "socat made no ptys"
            time.sleep(0.01)
        yield ends
    finally:
        process.terminate()
        process.wait(5)


@asynccontextmanager
async def driving(*devices: Device) -> AsyncIterator[ModbusDriver]:
    driver = ModbusDriver(devices)
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


def mbpoll(*arguments: str) -> list[str]:
    """What mbpoll reads, in order."""
    if shutil.which("mbpoll") is None:
        pytest.skip("mbpoll is not installed: apt install mbpoll")
    done = subprocess.run(["mbpoll", "-1", "-0", *arguments], capture_output=True, text=True, timeout=20, check=True)
    return re.findall(r"^\[\d+\]:\s+(\S+)", done.stdout, re.MULTILINE)


async def test_libmodbus_tcp_server_gives_every_type_and_table() -> None:
    with server("tcp") as (_, port):
        device = make_device(f"tcp://127.0.0.1:{port}", TAGS, device_id=TCP_UNIT)
        async with driving(device) as driver:
            for _ in range(3):
                assert values(await driver.read(device, device.tags)) == expected(TCP_UNIT)


async def test_libmodbus_rtu_server_gives_every_type_and_table(tmp_path: Path) -> None:
    with line(tmp_path) as (near, far), server("rtu", far, str(RTU_UNIT)):
        device = make_device(f"rtu://{near}?baud=115200&parity=N&stop=1", TAGS, device_id=RTU_UNIT)
        async with driving(device) as driver:
            for _ in range(3):
                assert values(await driver.read(device, device.tags)) == expected(RTU_UNIT)


async def test_libmodbus_rtu_server_beside_a_dead_unit_is_right_or_silent(tmp_path: Path) -> None:
    """It takes the request after an unanswered one for the answer of that other unit, and so misses it."""
    with line(tmp_path) as (near, far), server("rtu", far, str(RTU_UNIT)):
        url = f"rtu://{near}?baud=115200&parity=N&stop=1"
        device = make_device(url, TAGS, device_id=RTU_UNIT, timeout="300 ms")
        stranger = make_device(url, ["holding:1"], "b", device_id=9, timeout="300 ms")
        answered = 0
        async with driving(device, stranger) as driver:
            for poll in range(6):
                if poll % 3 == 0:
                    with pytest.raises(DeviceFault):
                        await driver.read(stranger, stranger.tags)
                try:
                    assert values(await driver.read(device, device.tags)) == expected(RTU_UNIT)
                    answered += 1
                except DeviceFault:
                    continue
        assert answered >= 3


async def test_mbpoll_reads_the_same_as_the_driver_over_tcp() -> None:
    with server("tcp") as (_, port):
        where = ("-m", "tcp", "-a", str(TCP_UNIT), "-p", str(port))
        tags = [f"holding:{n}" for n in range(20)] + [f"coil:{n}" for n in range(20)]
        device = make_device(f"tcp://127.0.0.1:{port}", tags, device_id=TCP_UNIT)
        async with driving(device) as driver:
            ours = list(values(await driver.read(device, device.tags)).values())
            bits = await asyncio.to_thread(mbpoll, *where, "-t", "0", "-r", "0", "-c", "20", "127.0.0.1")
            registers = await asyncio.to_thread(mbpoll, *where, "-t", "4:hex", "-r", "0", "-c", "20", "127.0.0.1")
        assert [bool(int(bit)) for bit in bits] == ours[:20]
        assert [int(text, 16) for text in registers] == ours[20:]
        for first, order in ((FLOATS_AT, ("-B",)), (FLOATS_AT + 2, ())):  # high word first, low word first
            floats = (*where, "-t", "4:float", *order, "-r", str(first), "-c", "1", "127.0.0.1")
            assert [float(text) for text in await asyncio.to_thread(mbpoll, *floats)] == [FLOAT]


async def test_mbpoll_reads_the_same_as_the_driver_on_a_line(tmp_path: Path) -> None:
    with line(tmp_path) as (near, far), server("rtu", far, str(RTU_UNIT)):
        device = make_device(f"rtu://{near}?baud=115200&parity=N&stop=1", [f"input:{n}" for n in range(20)])
        device = make_device(device.settings.url, [f"input:{n}" for n in range(20)], device_id=RTU_UNIT)
        async with driving(device) as driver:
            ours = list(values(await driver.read(device, device.tags)).values())
        where = ("-m", "rtu", "-a", str(RTU_UNIT), "-b", "115200", "-P", "none", "-t", "3:hex", "-r", "0", "-c", "20")
        assert [int(text, 16) for text in await asyncio.to_thread(mbpoll, *where, near)] == ours


async def test_libmodbus_refusing_a_block_costs_the_neighbours_nothing() -> None:
    with server("tcp") as (_, port):
        device = make_device(f"tcp://127.0.0.1:{port}", [f"holding:{n}" for n in range(390, 405)])
        async with driving(device) as driver:
            got = values(await driver.read(device, device.tags))
        assert got == {
            f"t{n - 390}": oracle(1, n) if n < SIZE else ["illegal_data_address"] for n in range(390, 405)
        }  # fmt: skip


async def test_scan_of_a_libmodbus_line_finds_its_unit_and_its_registers(tmp_path: Path) -> None:
    with line(tmp_path) as (near, far), server("rtu", far, str(RTU_UNIT)):
        settings = make_device(f"rtu://{near}?baud=115200&parity=N&stop=1", [], timeout="300 ms").settings
        request = ScanRequest((4, RTU_UNIT, 6), ("holding",), 350, 449)
        async with aclosing(ModbusDriver.scan(settings, request)) as steps:  # type: ignore[arg-type]
            found = [finding async for step in steps for finding in step.findings]
        assert found == [
            ScanFinding(RTU_UNIT),
            ScanFinding(RTU_UNIT, "holding", 350, SIZE - 1),
        ]


async def test_half_open_link_is_found_within_three_polls_and_comes_back() -> None:
    with server("tcp") as (process, port):
        device = make_device(f"tcp://127.0.0.1:{port}", ["holding:1", "holding:2"], timeout="200 ms")
        async with driving(device) as driver:
            await driver.read(device, device.tags)
            process.send_signal(signal.SIGSTOP)
            for _ in range(3):
                try:
                    await driver.read(device, device.tags)
                except DeviceFault:
                    continue
                except NotConnected:
                    break
            else:
                pytest.fail("three polls, and the link is still believed in")
            await driver.close()
            await driver.connect()  # the kernel accepts for the process that stands still
            with pytest.raises(DeviceFault):
                await driver.read(device, device.tags[:1])
            process.send_signal(signal.SIGCONT)
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 2)}
            assert values(await driver.read(device, device.tags[:1])) == {"t0": oracle(1, 1)}
