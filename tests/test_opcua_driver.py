"""The OPC UA driver against real servers: what it delivers, and how it finds out that one is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua as asyncua_types
from asyncua.server.user_managers import UserManager
from opcua_server import build, endpoint_of

import edge_agent_opcua.subscription as subscription_module
from edge_agent.contract import Device, Driver, NotConnected, ProtocolFault, Quality, Reading, Streams, Tag
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.settings import OpcuaSettings, OpcuaTagSettings

ua: Any = asyncua_types
SERVER = Path(__file__).with_name("opcua_server.py")
FIRST, SECOND = "urn:test:first", "urn:test:second"
PATIENCE_S = 8.0


class ServerProcess:
    """`opcua_server.py` in a process of its own."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = self._answer().split()[1]
        self.port = self.url.rpartition(":")[2]

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def tell(self, command: str) -> None:
        """Give a command, and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        if command != "stop":
            assert self._answer() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def server(*options: str) -> Iterator[ServerProcess]:
    running = ServerProcess(*options)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def shared() -> Iterator[ServerProcess]:
    with server("--items", "5", "--interval", "0.1") as running:
        yield running


@pytest.fixture
def quick_keep_alives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription_module, "KEEP_ALIVE_MS", 400)
    monkeypatch.setattr(subscription_module, "LEAST_SILENCE_S", 1.0)


def device(url: str, name: str = "plc", poll: str = "100 ms", **tags: str | dict[str, Any]) -> Device:
    """A device whose tags are addresses or all the fields of a tag."""
    settings = OpcuaSettings.model_validate(
        {"driver": "opcua", "url": url, "security": "none", "poll": poll, "timeout": "1 s"}
    )
    made = [
        Tag(
            f"{name}.{tag}",
            OpcuaTagSettings.model_validate(given if isinstance(given, dict) else {"address": given}),
            settings.poll,
        )
        for tag, given in tags.items()
    ]
    return Device(name, settings, tuple(made))


def client_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of this loop, without those of a server in it."""
    coroutines: dict[asyncio.Task[Any], Any] = {task: task.get_coro() for task in asyncio.all_tasks()}
    return {task for task, coroutine in coroutines.items() if "server" not in coroutine.cr_code.co_filename}


@asynccontextmanager
async def connected(*devices: Device) -> AsyncIterator[OpcuaDriver]:
    before = client_tasks()
    driver = OpcuaDriver(devices)
    try:
        await driver.connect()
        yield driver
    finally:
        await driver.close()
        await driver.close()
        assert client_tasks() == before


async def until(stream: AsyncIterator[Sequence[Reading]], enough: Callable[[list[Reading]], bool]) -> list[Reading]:
    """What a stream brings until it is enough."""
    readings: list[Reading] = []
    async with asyncio.timeout(PATIENCE_S):
        async for batch in stream:
            readings += batch
            if enough(readings):
                return readings
    raise AssertionError("the stream ended")


def values(readings: Sequence[Reading], name: str) -> list[Any]:
    return [reading.value for reading in readings if reading.tag.short_name == name]


async def test_driver_has_the_shape_of_the_contract(shared: ServerProcess) -> None:
    driver = OpcuaDriver([device(shared.url, a="i=2258", b={"address": "i=2258", "mode": "read"})])
    assert isinstance(driver, Driver)
    assert isinstance(driver, Streams)
    a, b = driver._devices[0].tags
    assert (driver.streams(a), driver.streams(b)) == (True, False)
    await driver.close()


async def test_read_answers_for_each_tag_in_order_with_time_and_cause(shared: ServerProcess) -> None:
    plc = device(
        shared.url,
        gone=f"nsu={FIRST};s=Gone",
        value=f"nsu={SECOND};s=Value",
        elsewhere="nsu=urn:nobody;s=Value",
        clock="i=2258",
        item=f"nsu={FIRST};s=Item0",
        status="i=2259",
        build="i=2260",
    )
    async with connected(plc) as driver:
        readings = await driver.read(plc, plc.tags)
    gone, value, elsewhere, clock, item, status, build_info = readings
    assert [reading.tag for reading in readings] == list(plc.tags)
    assert (gone.value, gone.quality, gone.cause) == (None, Quality.BAD, "BadNodeIdUnknown")
    assert elsewhere == Reading(plc.tags[2], None, None, Quality.BAD, "BadNodeIdUnknown")
    assert (value.value, value.quality) == (SECOND, Quality.GOOD)
    assert isinstance(clock.value, str)
    assert clock.value.startswith("20")
    assert (status.value, status.quality) == (0, Quality.GOOD)  # the enumeration ServerState: running
    assert build_info.cause == "unsupported_type ExtensionObject"
    assert item.time is not None
    assert abs(item.time - time.time_ns()) < 10 * 10**9


async def test_stream_begins_with_present_values_and_goes_on_with_changes(shared: ServerProcess) -> None:
    plc = device(shared.url, value=f"nsu={FIRST};s=Value", item=f"nsu={FIRST};s=Item1", gone=f"nsu={FIRST};s=Gone")
    async with connected(plc) as driver:
        stream = driver.stream()
        first = await anext(stream)
        assert [reading.tag for reading in first] == list(plc.tags)
        later = await until(stream, lambda readings: len(values(readings, "item")) >= 5)
        await stream.aclose()
    items = values([*first, *later], "item")
    assert items == [items[0] + n for n in range(len(items))]  # nothing doubled, nothing left out
    assert values([*first, *later], "value") == [FIRST]  # its first notification was what had been read
    assert {reading.cause for reading in [*first, *later] if reading.value is None} == {"BadNodeIdUnknown"}
    times = [reading.time for reading in later if reading.tag.short_name == "item"]
    assert times == sorted(times, key=lambda ns: ns or 0)
    assert None not in times


async def test_stream_without_changes_says_that_the_link_lives(shared: ServerProcess, quick_keep_alives: None) -> None:
    plc = device(shared.url, value=f"nsu={FIRST};s=Value")
    async with connected(plc) as driver:
        stream = driver.stream()
        batches = [await anext(stream) for _ in range(4)]
        await stream.aclose()
    assert [len(batch) for batch in batches] == [1, 0, 0, 0]


async def test_stream_of_two_devices_on_one_link_brings_both(shared: ServerProcess) -> None:
    one = device(shared.url, "one", item=f"nsu={FIRST};s=Item0")
    two = device(shared.url, "two", "200 ms", item=f"nsu={FIRST};s=Item1")
    assert OpcuaDriver.link(one.settings) == OpcuaDriver.link(two.settings)  # type: ignore[arg-type]
    async with connected(one, two) as driver:
        stream = driver.stream()
        readings = await until(
            stream, lambda got: all(sum(reading.tag is each.tags[0] for reading in got) >= 4 for each in (one, two))
        )
        await stream.aclose()
    assert {reading.tag for reading in readings} == {one.tags[0], two.tags[0]}


async def test_stream_shows_a_bad_status_by_name_and_the_recovery(shared: ServerProcess) -> None:
    plc = device(shared.url, count=f"nsu={FIRST};s=Count")
    async with connected(plc) as driver:
        stream = driver.stream()
        await anext(stream)
        await anext(stream)
        shared.tell("status Count BadSensorFailure")
        (reading,) = await until(stream, lambda readings: bool(readings))
        assert (reading.value, reading.quality, reading.cause) == (None, Quality.BAD, "BadSensorFailure")
        shared.tell("write Count 5")
        (reading,) = await until(stream, lambda readings: bool(readings))
        assert (reading.value, reading.quality, reading.cause) == (5, Quality.GOOD, None)
        await stream.aclose()


async def test_source_and_server_time_are_both_kept(shared: ServerProcess) -> None:
    plc = device(shared.url, count=f"nsu={FIRST};s=Count")
    async with connected(plc) as driver:
        stream = driver.stream()
        await anext(stream)
        await anext(stream)
        shared.tell("sourced Count 17 0.4")
        (streamed,) = await until(stream, lambda readings: bool(readings))
        await stream.aclose()
        (read,) = await driver.read(plc, plc.tags)
    for reading in (streamed, read):
        assert reading.value == 17
        assert reading.time is not None
        assert reading.server_time is not None
        assert reading.server_time - reading.time == pytest.approx(0.4e9, abs=1e3)


async def test_answer_that_comes_in_the_moment_in_which_its_time_ends_costs_no_more_than_the_link(
    shared: ServerProcess,
) -> None:
    """The event loop stands still for longer than the time-out while an answer is under way, as on a tired disk."""
    plc = device(shared.url, count=f"nsu={FIRST};s=Count")

    async def reading(driver: OpcuaDriver) -> None:
        while True:
            await driver.read(plc, plc.tags)

    async with connected(plc) as driver:
        task = asyncio.create_task(reading(driver))
        for _ in range(5):
            await asyncio.sleep(0.2)
            if task.done():
                break
            time.sleep(1.2)  # noqa: ASYNC251 - this is the point
        await asyncio.wait([task], timeout=2)
        if not task.done():
            task.cancel()
            pytest.skip("the loop stood still, and no answer was under way")
        with pytest.raises(NotConnected, match="no answer within 1 s"):
            await task


async def test_message_of_more_than_a_megabyte_comes_from_a_server_that_has_been_logged_in_to() -> None:
    server_, nodes = await build([FIRST])
    async with server_:
        large = bytes(3 * 2**20)
        where = ua.NodeId("Large", nodes["Value"].nodeid.NamespaceIndex)
        await server_.nodes.objects.add_variable(where, "Large", large)
        plc = device(endpoint_of(server_), large=f"nsu={FIRST};s=Large")
        async with connected(plc) as driver:
            (reading,) = await driver.read(plc, plc.tags)
        assert reading.value == large


async def test_stream_with_fast_sampling_brings_the_values_between_two_publishings(shared: ServerProcess) -> None:
    plc = device(shared.url, poll="500 ms", count={"address": f"nsu={FIRST};s=Count", "sampling": "10 ms"})
    async with connected(plc) as driver:
        stream = driver.stream()
        await anext(stream)
        await anext(stream)
        shared.tell("burst Count 40")
        readings = await until(stream, lambda got: 40 in values(got, "count"))
        await stream.aclose()
    assert values(readings, "count") == list(range(1, 41))


async def test_values_stay_with_their_namespace_when_the_server_swaps_the_indices() -> None:
    with server("--namespaces", f"{FIRST},{SECOND}") as plant:
        plc = device(plant.url, a=f"nsu={FIRST};s=Value", b=f"nsu={SECOND};s=Value", c=f"nsu={FIRST};s=Value")
        driver = OpcuaDriver([plc])
        try:
            await driver.connect()
            stream = driver.stream()
            before = await anext(stream)
            assert [reading.value for reading in before] == [FIRST, SECOND, FIRST]
            nodes = dict(driver._nodes)
            await anext(stream)
            plant.end()  # with SIGKILL
            with pytest.raises(NotConnected):
                await until(stream, lambda readings: False)
            with pytest.raises(NotConnected):
                await driver.read(plc, plc.tags)
            await driver.close()
            with server("--namespaces", f"{SECOND},{FIRST}", "--port", plant.port):
                await driver.connect()
                assert driver._nodes[plc.tags[0]] == nodes[plc.tags[1]]  # the indices did swap
                stream = driver.stream()
                after = await until(stream, lambda readings: len(readings) >= 3)
                await stream.aclose()
                assert [reading.value for reading in after] == [FIRST, SECOND, FIRST]
                await driver.close()
            with server("--namespaces", SECOND, "--port", plant.port):
                await driver.connect()
                vanished = await anext(driver.stream())
                assert [reading.value for reading in vanished] == [None, SECOND, None]
                assert vanished[0].cause == "BadNodeIdUnknown"
        finally:
            await driver.close()


async def test_stream_of_a_server_that_shuts_down_raises_not_connected() -> None:
    with server() as plant:
        plc = device(plant.url, value=f"nsu={FIRST};s=Value")
        async with connected(plc) as driver:
            stream = driver.stream()
            await anext(stream)
            plant.tell("stop")
            with pytest.raises(NotConnected):
                await until(stream, lambda readings: False)


async def test_stream_of_a_frozen_server_raises_not_connected_after_three_keep_alives(quick_keep_alives: None) -> None:
    with server() as plant:
        plc = device(plant.url, value=f"nsu={FIRST};s=Value")
        async with connected(plc) as driver:
            stream = driver.stream()
            for _ in range(3):
                await anext(stream)
            os.kill(plant.process.pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(NotConnected, match="silent for three keep-alives"):
                await until(stream, lambda readings: False)
            assert 1.0 < time.monotonic() - began < 4.0
            with pytest.raises(NotConnected, match="no answer within 1 s, while reading"):
                await driver.read(plc, plc.tags)


async def test_close_ends_a_running_stream(shared: ServerProcess) -> None:
    plc = device(shared.url, value=f"nsu={FIRST};s=Value")
    async with connected(plc) as driver:
        stream = driver.stream()
        await anext(stream)
        waiting = asyncio.create_task(until(stream, lambda readings: False))
        await asyncio.sleep(0.3)
        await driver.close()
        with pytest.raises(NotConnected):
            await waiting
        with pytest.raises(NotConnected, match="no session"):
            await driver.read(plc, plc.tags)


async def test_slow_consumer_is_not_taken_for_a_silent_server(shared: ServerProcess, quick_keep_alives: None) -> None:
    plc = device(shared.url, item=f"nsu={FIRST};s=Item0")
    async with connected(plc) as driver:
        stream = driver.stream()
        await until(stream, lambda readings: len(readings) >= 4)
        time.sleep(2.0)  # noqa: ASYNC251 (the whole agent stood still: longer than three keep-alives)
        assert await until(stream, lambda readings: len(readings) >= 2)
        await stream.aclose()


async def test_connect_where_nothing_listens_says_what_to_check() -> None:
    with pytest.raises(NotConnected, match="connection refused, while connecting; nothing listens there"):
        await OpcuaDriver([device("opc.tcp://127.0.0.1:1", a="i=2258")]).connect()


async def listener(answer: bytes) -> asyncio.Server:
    """A server that is no OPC UA server: it says one thing to whoever comes, and listens on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        while await reader.read(1000):
            pass
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b"", NotConnected, "no answer within 1 s, while saying hello"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolFault, "48 54 54 50"),
        (b"ACKF" + struct.pack("<I", 2**31), ProtocolFault, "announced a chunk of 2147483648 bytes"),
        (b"ACKF" + struct.pack("<I", 9) + b"x", NotConnected, "saying hello"),
    ],
)
async def test_connect_to_what_is_no_server_is_refused(answer: bytes, error: type[Exception], told: str) -> None:
    async with await listener(answer) as listening:
        port = listening.sockets[0].getsockname()[1]
        driver = OpcuaDriver([device(f"opc.tcp://127.0.0.1:{port}", a="i=2258")])
        with pytest.raises(error, match=told):
            await driver.connect()
        await driver.close()


class Nobody(UserManager):
    """Lets nobody in."""

    def get_user(self, *_: Any, **__: Any) -> None:
        return None


async def test_connect_as_a_user_that_the_server_refuses_says_what_to_check() -> None:
    refusing, _ = await build([FIRST])
    refusing.iserver.user_manager = Nobody()
    async with refusing:
        driver = OpcuaDriver([device(endpoint_of(refusing), a="i=2258")])
        with pytest.raises(NotConnected, match="check username and password"):
            await driver.connect()
        await driver.close()


async def test_operation_limits_of_the_server_are_obeyed() -> None:
    limited, nodes = await build([FIRST], items=5)
    for number in (11705, 11714):
        await limited.get_node(ua.NodeId(number, 0)).write_value(2, ua.VariantType.UInt32)
    async with limited:
        plc = device(endpoint_of(limited), **{f"t{n}": f"nsu={FIRST};s=Item{n}" for n in range(5)})
        async with connected(plc) as driver:
            session = driver._session
            assert session is not None
            assert (session.max_items_per_call, session._max_nodes_per_read) == (2, 2)
            stream = driver.stream()
            assert [reading.value for reading in await anext(stream)] == [0.0] * 5
            await anext(stream)
            for n in range(5):
                await nodes[f"Item{n}"].write_value(float(n + 1))
            changed = await until(stream, lambda readings: len(readings) >= 5)
            assert {reading.tag.short_name: reading.value for reading in changed} == {
                f"t{n}": float(n + 1) for n in range(5)
            }
            await stream.aclose()


def test_import_of_the_driver_does_not_load_the_library() -> None:
    code = "import sys, edge_agent_opcua; sys.exit('asyncua' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
