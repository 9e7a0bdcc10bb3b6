"""Modbus: the driver against real servers, and what it says of devices that refuse, fall silent or go away."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from modbus_peers import Answer, PtyPeer, TcpPeer, answer_to, make_device, mbap, oracle, rtu, values
from modbus_server import value_at
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge_agent.contract import Device, DeviceFault, NotConnected, parse_duration
from edge_agent_modbus import ModbusDriver

QUICK = {"timeout": "50 ms"}


@asynccontextmanager
async def driving(*devices: Device) -> AsyncIterator[ModbusDriver]:
    driver = ModbusDriver(devices)
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])


# ------------------------------------------------------------------------------------------- real servers


def real_device(unit: int = 1) -> SimDevice:
    registers = [
        SimData(0, values=[value_at(n, unit) for n in range(300)], datatype=DataType.REGISTERS),
        SimData(400, values=[-5], datatype=DataType.INT32),
        SimData(402, values=[123456.0], datatype=DataType.FLOAT32),
        SimData(404, values=["recipe A"], datatype=DataType.STRING),
        SimData(500, values=[1, 2, 3], datatype=DataType.REGISTERS),
    ]
    bits = [SimData(0, values=[n % 3 == 0 for n in range(160)], datatype=DataType.BITS)]
    inputs = [SimData(0, values=[9, 8, 7], datatype=DataType.REGISTERS)]
    return SimDevice(unit, (bits, bits, registers, inputs))


@asynccontextmanager
async def serving(server: Any) -> AsyncIterator[Any]:
    await server.serve_forever(background=True)
    try:
        yield server
    finally:
        await server.shutdown()


MIXED = [
    "holding:0",
    40300,
    {"address": "holding:400", "type": "int32"},
    {"address": "holding:402", "type": "float32"},
    {"address": "holding:404", "type": "string", "length": 8},
    "input:2",
    "coil:3",
    "discrete:4",
    "holding:1.3",
]
MIXED_VALUES = {
    "t0": value_at(0), "t1": value_at(299), "t2": -5, "t3": 123456.0, "t4": "recipe A", "t5": 7, "t6": True,
    "t7": False, "t8": bool(value_at(1) >> 3 & 1),
}  # fmt: skip


async def test_read_from_a_tcp_server_gives_every_type_and_table() -> None:
    port = free_port()
    async with serving(ModbusTcpServer(real_device(), address=("127.0.0.1", port))):
        device = make_device(f"tcp://127.0.0.1:{port}", MIXED)
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == MIXED_VALUES


async def test_read_from_rtu_over_tcp_gives_every_type_and_table() -> None:
    port = free_port()
    server = ModbusTcpServer(real_device(), framer=FramerType.RTU, address=("127.0.0.1", port))
    async with serving(server):
        device = make_device(f"rtu+tcp://127.0.0.1:{port}", MIXED)
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == MIXED_VALUES


@contextmanager
def pty_pair(folder: Path) -> Iterator[tuple[str, str]]:
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


async def test_read_from_a_serial_server_with_two_devices_gives_each_its_own(tmp_path: Path) -> None:
    with pty_pair(tmp_path) as (near, far):
        server = ModbusSerialServer([real_device(1), real_device(2)], port=far, baudrate=115200)
        async with serving(server):
            url = f"rtu://{near}?baud=115200&parity=N"
            first, second = make_device(url, MIXED, "a"), make_device(url, ["holding:7"], "b", device_id=2)
            async with driving(first, second) as driver:
                for _ in range(3):
                    assert values(await driver.read(first, first.tags)) == MIXED_VALUES
                    assert values(await driver.read(second, second.tags)) == {"t0": value_at(7, 2)}


async def test_tags_a_real_server_refuses_are_bad_and_the_others_are_read() -> None:
    port = free_port()
    async with serving(ModbusTcpServer(real_device(), address=("127.0.0.1", port))):
        device = make_device(f"tcp://127.0.0.1:{port}", ["holding:298", "holding:299", "holding:301", "holding:500"])
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == {
                "t0": value_at(298), "t1": value_at(299), "t2": ["illegal_data_address"], "t3": 1,
            }  # fmt: skip


# --------------------------------------------------------------------------------------------- exceptions


def refusing(bad: set[int], code: int = 2, longest: int = 125) -> Any:
    """A peer that refuses every read that touches one of these registers or is too long."""

    def reply(number: int, request: bytes) -> Answer:
        start, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        if count > longest or bad & set(range(start, start + count)):
            return [(0, mbap(number, bytes((request[0], request[1] | 0x80, code))))]
        return [(0, mbap(number, answer_to(request)))]

    return reply


async def test_refused_tag_in_a_block_is_found_once_and_kept_apart() -> None:
    async with TcpPeer(refusing({57})) as peer:
        device = make_device(peer.url, [f"holding:{n}" for n in range(100)])
        expected = {f"t{n}": oracle(1, n) for n in range(100)} | {"t57": ["illegal_data_address"]}
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == expected
            search = len(peer.requests)
            assert values(await driver.read(device, device.tags)) == expected
            assert len(peer.requests) - search == 2  # what is before it, and what is behind it
            assert search <= 16


async def test_device_that_refuses_long_blocks_is_read_in_shorter_ones() -> None:
    async with TcpPeer(refusing(set(), code=3, longest=60)) as peer:
        device = make_device(peer.url, [f"holding:{n}" for n in range(100)])
        async with driving(device) as driver:
            for _ in range(3):
                assert values(await driver.read(device, device.tags)) == {f"t{n}": oracle(1, n) for n in range(100)}
            assert len(peer.requests) == 1 + 3 * 2


async def test_device_that_refuses_everything_is_asked_a_bounded_number_of_times() -> None:
    async with TcpPeer(refusing(set(range(200)))) as peer:
        device = make_device(peer.url, [f"holding:{n}" for n in range(100)])
        async with driving(device) as driver:
            got = values(await driver.read(device, device.tags))
            assert got == {f"t{n}": ["illegal_data_address"] for n in range(100)}
            assert len(peer.requests) < 200
            peer.requests.clear()
            assert values(await driver.read(device, device.tags)) == got
            assert len(peer.requests) == 1  # so that a dead device does not look alive
            peer.reply = lambda number, request: [(0, mbap(number, answer_to(request)))]
            await driver.read(device, device.tags)
            assert values(await driver.read(device, device.tags)) == {f"t{n}": oracle(1, n) for n in range(100)}
            assert len(peer.requests) == 3


@pytest.mark.parametrize(
    ("code", "cause"),
    [(1, "illegal_function"), (4, "server_device_failure"), (6, "server_device_busy"), (99, "exception_99")],
)
async def test_exception_of_a_device_is_the_cause_of_bad_readings(code: int, cause: str) -> None:
    async with TcpPeer(refusing({1, 2}, code)) as peer:
        device = make_device(peer.url, ["holding:1", "holding:2"])
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == {"t0": [cause], "t1": [cause]}


@pytest.mark.parametrize("code", [2, 3, 4])
async def test_tags_that_a_device_refuses_cost_their_neighbours_nothing_in_the_same_poll(code: int) -> None:
    refused = set(range(3, 250, 4))
    async with TcpPeer(refusing(refused, code)) as peer:
        device = make_device(peer.url, [f"holding:{n}" for n in range(250)])
        async with driving(device) as driver:
            for _ in range(2):
                got = values(await driver.read(device, device.tags))
                assert {int(name[1:]) for name, value in got.items() if isinstance(value, list)} == refused
                assert all(got[f"t{n}"] == oracle(1, n) for n in set(range(250)) - refused)
            peer.reply = lambda number, request: [(0, mbap(number, answer_to(request)))]
            await driver.close()
            await driver.connect()  # it may have got another program
            peer.requests.clear()
            assert values(await driver.read(device, device.tags)) == {f"t{n}": oracle(1, n) for n in range(250)}
            assert len(peer.requests) == 2


@pytest.mark.parametrize("code", [5, 6])
async def test_busy_device_is_no_reason_to_split(code: int) -> None:
    async with TcpPeer(refusing(set(range(9)), code)) as peer:
        device = make_device(peer.url, [f"holding:{n}" for n in range(9)])
        async with driving(device) as driver:
            assert set(map(str, values(await driver.read(device, device.tags)).values())) in (
                {"['acknowledge']"},
                {"['server_device_busy']"},
            )
            assert len(peer.requests) == 1


async def test_refused_bits_of_one_register_are_not_asked_for_one_by_one() -> None:
    async with TcpPeer(refusing({7})) as peer:
        device = make_device(peer.url, ["holding:6", *(f"holding:7.{bit}" for bit in range(16)), "holding:8"])
        async with driving(device) as driver:
            got = values(await driver.read(device, device.tags))
            assert (got["t0"], got["t1"], got["t16"], got["t17"]) == (
                oracle(1, 6), ["illegal_data_address"], ["illegal_data_address"], oracle(1, 8),
            )  # fmt: skip
            assert len(peer.requests) <= 5


@pytest.mark.parametrize("code", [10, 11])
async def test_gateway_that_does_not_reach_a_device_faults_that_device(code: int) -> None:
    async with TcpPeer(refusing({1}, code)) as peer:
        far, near = make_device(peer.url, ["holding:1"], "far"), make_device(peer.url, ["holding:2"], "near")
        async with driving(far, near) as driver:
            with pytest.raises(DeviceFault, match=r"gateway does not reach far .*gateway_") as caught:
                await driver.read(far, far.tags)
            assert caught.value.device is far
            assert values(await driver.read(near, near.tags)) == {"t0": oracle(1, 2)}


# ------------------------------------------------------------------------------- silence, loss, connecting


async def test_lone_silent_device_is_a_fault_and_then_a_lost_link() -> None:
    async with TcpPeer(lambda _number, _request: []) as peer:
        device = make_device(peer.url, ["holding:1"], **QUICK)
        async with driving(device) as driver:
            with pytest.raises(DeviceFault, match=r"plc \(device_id 1 .* does not answer within 0.05 s"):
                await driver.read(device, device.tags)
            with pytest.raises(NotConnected, match="2 times in a row"):
                await driver.read(device, device.tags)


async def test_silent_device_beside_one_that_answers_stays_a_fault() -> None:
    def reply(number: int, request: bytes) -> Answer:
        return [(0, mbap(number, answer_to(request)))] if request[0] == 1 else []

    async with TcpPeer(reply) as peer:
        alive, dead = (
            make_device(peer.url, ["holding:1"]),
            make_device(peer.url, ["holding:1"], "b", device_id=2, **QUICK),
        )
        async with driving(alive, dead) as driver:
            for _ in range(4):
                with pytest.raises(DeviceFault) as caught:
                    await driver.read(dead, dead.tags)
                assert caught.value.device is dead
                assert values(await driver.read(alive, alive.tags)) == {"t0": oracle(1, 1)}
            assert peer.connections == 1


async def test_link_whose_devices_are_all_silent_is_lost() -> None:
    async with TcpPeer(lambda _number, _request: []) as peer:
        devices = [make_device(peer.url, ["holding:1"], name, device_id=n, **QUICK) for n, name in enumerate("ab", 1)]
        async with driving(*devices) as driver:
            for device in [*devices, devices[0]]:
                with pytest.raises(DeviceFault):
                    await driver.read(device, device.tags)
            with pytest.raises(NotConnected, match="any device"):
                await driver.read(devices[1], devices[1].tags)


async def test_half_open_link_is_found_within_three_polls_though_others_are_polled_seldom() -> None:
    async with TcpPeer(lambda number, request: [(0, mbap(number, answer_to(request)))]) as peer:
        often, *seldom = [make_device(peer.url, ["holding:1"], f"d{n}", device_id=n, **QUICK) for n in range(1, 5)]
        async with driving(often, *seldom) as driver:
            for device in (often, *seldom):
                await driver.read(device, device.tags)
            peer.reply = lambda _number, _request: []
            polls = 0
            with pytest.raises(NotConnected, match="any device"):
                while polls < 9:
                    polls += 1
                    with contextlib.suppress(DeviceFault):
                        await driver.read(often, often.tags)
            assert polls <= 3


async def test_silent_device_beside_one_that_is_polled_seldom_stays_a_fault() -> None:
    def reply(number: int, request: bytes) -> Answer:
        return [(0, mbap(number, answer_to(request)))] if request[0] == 2 else []

    async with TcpPeer(reply) as peer:
        dead, seldom = (make_device(peer.url, ["holding:1"], f"d{n}", device_id=n, **QUICK) for n in (1, 2))
        async with driving(dead, seldom) as driver:
            await driver.read(seldom, seldom.tags)
            for _ in range(6):
                with pytest.raises(DeviceFault):
                    await driver.read(dead, dead.tags)
            assert peer.connections == 1
            assert sum(said[0] == 2 for said in peer.requests) <= 1 + 6


async def test_link_that_was_lost_serves_again_after_connect() -> None:
    port = free_port()
    device = make_device(f"tcp://127.0.0.1:{port}", ["holding:5"])
    driver = ModbusDriver([device])
    for _ in range(2):
        async with serving(ModbusTcpServer(real_device(), address=("127.0.0.1", port))):
            await driver.connect()
            assert values(await driver.read(device, device.tags)) == {"t0": value_at(5)}
        with pytest.raises(NotConnected, match=f"127.0.0.1:{port}"):
            await driver.read(device, device.tags)
    await driver.close()
    await driver.close()
    with pytest.raises(NotConnected):
        await driver.read(device, device.tags)


async def test_close_during_a_read_ends_it_at_once() -> None:
    async with TcpPeer(lambda _number, _request: []) as peer:
        device = make_device(peer.url, ["holding:1"], timeout="60 s")
        async with driving(device) as driver:
            reading = asyncio.ensure_future(driver.read(device, device.tags))
            await peer.asked()
            await driver.close()
            with pytest.raises(NotConnected, match="closed"):
                await reading


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tcp://127.0.0.1:{port}", "connection refused by 127.0.0.1:{port}: is Modbus TCP switched on"),
        ("rtu+tcp://127.0.0.1:{port}", "raw TCP mode"),
        ("tcp://no-such-host.invalid", "unknown host no-such-host.invalid"),
        ("rtu:///dev/no-such-port", "/dev/no-such-port is not there: is the adapter plugged in?"),
        ("rtu:///dev/null", "cannot be opened as a serial port"),
    ],
)
async def test_connect_that_fails_says_what_to_check(url: str, says: str) -> None:
    port = free_port()
    driver = ModbusDriver([make_device(url.format(port=port), [], timeout="5 s")])
    with pytest.raises(NotConnected, match=re.escape(says.format(port=port))):
        await driver.connect()
    await driver.close()


async def test_connect_to_a_host_that_drops_packets_ends_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for client in waiting:  # the queue is full: further requests to connect are dropped
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            driver = ModbusDriver([make_device(f"tcp://127.0.0.1:{full.getsockname()[1]}", [], timeout="100 ms")])
            began = time.monotonic()
            with pytest.raises(NotConnected, match=r"no answer from .* within 0.1 s"):
                await driver.connect()
            assert time.monotonic() - began < 2
        finally:
            for client in waiting:
                client.close()


async def test_unplugged_serial_port_is_a_lost_link_at_once() -> None:
    async with PtyPeer(lambda request: [(0, rtu(answer_to(request)))]) as peer:
        device = make_device(peer.url, ["holding:1"], timeout="60 s")
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == {"t0": oracle(1, 1)}
            peer.reply = lambda _request: []
            await peer.asked()
            reading = asyncio.ensure_future(driver.read(device, device.tags))
            await peer.asked()
            peer.unplug()
            with pytest.raises(NotConnected, match="unplugged"):
                await asyncio.wait_for(reading, 5)


async def test_pty_given_a_parity_is_opened_without_again_and_again() -> None:
    async with PtyPeer(lambda request: [(0, rtu(answer_to(request)))]) as peer:
        device = make_device(f"rtu://{peer.path}", ["holding:1"])  # 19200 8E1
        for _ in range(3):
            async with driving(device) as driver:
                assert values(await driver.read(device, device.tags)) == {"t0": oracle(1, 1)}


async def test_serial_port_in_use_is_refused_by_name() -> None:
    async with PtyPeer(lambda _request: []) as peer:
        device = make_device(peer.url, ["holding:1"])
        async with driving(device):
            with pytest.raises(NotConnected, match=r"in use by another program: `fuser"):
                await ModbusDriver([device]).connect()


async def test_pause_of_a_device_is_kept_between_requests() -> None:
    async with TcpPeer(lambda number, request: [(0, mbap(number, answer_to(request)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30", "holding:60"], pause="40 ms")
        async with driving(device) as driver:
            began = time.monotonic()
            await driver.read(device, device.tags)
            assert time.monotonic() - began >= 2 * 0.04


# ------------------------------------------------------------------------------------- the tests' own server


def test_server_process_counts_until_it_is_frozen() -> None:
    command = [sys.executable, "-m", "tests.modbus_server", "--counter", "10", "--rate", "1000", "--set", "3=42"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().split()[1])
            device = make_device(
                f"tcp://127.0.0.1:{port}",
                ["holding:3", {"address": "holding:10", "type": "uint32"}],
                timeout="5 s",
            )
            seen = asyncio.run(read_twice(device))
            assert seen[0]["t0"] == 42
            assert seen[0]["t1"] < seen[1]["t1"]
            process.stdin.write("freeze\ncount\n")
            process.stdin.flush()
            frozen, count = process.stdout.readline().split()[1], process.stdout.readline().split()[1]
            assert frozen == count
            assert [each["t1"] for each in asyncio.run(read_twice(device))] == [int(count)] * 2
        finally:
            process.stdin.close()
            process.terminate()


async def read_twice(device: Device) -> list[dict[str, Any]]:
    async with driving(device) as driver:
        first = values(await driver.read(device, device.tags))
        await asyncio.sleep(parse_duration("20 ms") / 1e9)
        return [first, values(await driver.read(device, device.tags))]
