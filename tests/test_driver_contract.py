"""What every driver must do, tried on every driver that is registered: the contract as behaviour.

For a driver of your own, copy this file and write one `Peer`: a real far end on this machine, that can be started,
frozen and killed. The driver comes by its entry point, as the agent gets it.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from edge_agent.contract import (
    Device,
    DeviceFault,
    DeviceSettings,
    Driver,
    NotConnected,
    Quality,
    Reading,
    Settings,
    Streams,
    Tag,
    TagSettings,
)

LIMIT_S = 10.0
"""No call takes longer, whatever the peer does."""

_TESTS = Path(__file__).parent
_NOBODY = "127.0.0.1:9"  # the port `discard`, which no test machine serves


# ------------------------------------------------------------------------------------------------- the peers


class Peer(ABC):
    """A real far end of one driver. `start` and `stop` may be called again and again; the address stays the same."""

    driver: str
    """The name of the entry point."""
    good: dict[str, Any]
    """A tag that has a value."""
    bad: dict[str, Any]
    """A tag that the driver accepts and the peer, or the value, does not."""
    silence: Literal["at once", "at connect", "never"] = "at once"
    """When the driver has to notice, within LIMIT_S, that the peer is there and says nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def start(self) -> None:
        """Serve, unless it does."""

    @abstractmethod
    def stop(self) -> None:
        """Die as at a power cut, unless it is dead."""

    @abstractmethod
    def freeze(self) -> None:
        """Be there and say nothing, until `stop`."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The device in YAML, without `driver`."""

    @abstractmethod
    def nowhere(self) -> tuple[dict[str, Any], str]:
        """The device in YAML with a URL where nothing is, and what an error has to name."""

    def stir(self) -> None:  # noqa: B027 (most peers need none)
        """Say something, where the peer speaks by itself and only when something happens."""


class ServerPeer(Peer):
    """A server in a process of its own, which prints its address when it listens and takes `--port`."""

    script: str
    scheme: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._process: subprocess.Popen[str] | None = None
        self._port = "0"

    def start(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, str(_TESTS / self.script), "--port", self._port]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_TESTS)
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip().rpartition(":")[2].rpartition(" ")[2]
        assert self._port.isdecimal(), f"{self.script} did not say its port"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def settings(self) -> dict[str, Any]:
        return {"url": f"{self.scheme}://127.0.0.1:{self._port}", "timeout": "1 s", "poll": "100 ms"}

    def nowhere(self) -> tuple[dict[str, Any], str]:
        return {**self.settings(), "url": f"{self.scheme}://{_NOBODY}"}, _NOBODY


class ModbusPeer(ServerPeer):
    """A thousand holding registers; the bad tag is the one behind the last, next to the good one."""

    driver = "modbus"
    script, scheme = "modbus_server.py", "tcp"
    good = {"address": "holding:999", "type": "uint16"}
    bad = {"address": "holding:1000", "type": "uint16"}


class OpcuaPeer(ServerPeer):
    """Items that change ten times a second; the bad tag is a node that is not there."""

    driver = "opcua"
    script, scheme = "opcua_server.py", "opc.tcp"
    good = {"address": "nsu=urn:test:first;s=Count"}
    bad = {"address": "nsu=urn:test:first;s=Nothing"}
    silence = "at connect"  # later it takes three keep-alives of 10 s, which the driver's own tests shorten

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "security": "none"}


class SerialPeer(Peer):
    """A scale on a pseudo-terminal, served by a thread; the bad tag wants a number where there is a unit."""

    driver = "serial"
    good = {"address": "weight", "type": "float"}
    bad = {"address": "unit", "type": "int"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "port"
        self._far = self._near = -1
        self._silent = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is not None:
            return
        self._silent.clear()
        self._over.clear()
        self._far, self._near = os.openpty()
        tty.setraw(self._near)
        self.path.symlink_to(os.ttyname(self._near))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._thread = None
            os.close(self._far)
            os.close(self._near)
            self.path.unlink()

    def freeze(self) -> None:
        self._silent.set()

    def settings(self) -> dict[str, Any]:
        return {"url": str(self.path), "profile": "sics", "timeout": "500 ms", "drain": "100 ms"}

    def nowhere(self) -> tuple[dict[str, Any], str]:
        return {**self.settings(), "url": "/dev/serial/by-id/no-such-port"}, "/dev/serial/by-id/no-such-port"

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._far, select.POLLIN)
        while not self._over.is_set():
            if poll.poll(20) and b"SI" in os.read(self._far, 4096) and not self._silent.is_set():
                os.write(self._far, b"S S     100.00 g\r\n")


class ScannerPeer(SerialPeer):
    """A scanner on a pseudo-terminal, which speaks by itself; the bad tag wants a number where there is a word."""

    good = {"address": "code", "type": "string"}
    bad = {"address": "code", "type": "int"}
    silence = "never"  # a scanner that says nothing is a scanner at rest

    def settings(self) -> dict[str, Any]:
        return {"url": str(self.path), "pattern": "(?P<code>[A-Z0-9]+)"}

    def stir(self) -> None:
        os.write(self._far, b"A100\r\n")


class ScpiPeer(Peer):
    """A multimeter of the driver that docs/drivers.md shows, in a process of its own."""

    driver = "scpi"
    good = {"address": "MEAS:VOLT:DC?"}
    bad = {"address": "MEAS:RES?"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._server is None:
            command = [sys.executable, str(_TESTS / "scpi_instrument.py"), str(self.port)]
            self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self._server.stdout is not None
            assert self._server.stdout.readline() == "listening\n"

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def freeze(self) -> None:
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)

    def settings(self) -> dict[str, Any]:
        return {"url": f"scpi://127.0.0.1:{self.port}", "timeout": "500 ms"}

    def nowhere(self) -> tuple[dict[str, Any], str]:
        return {"url": f"scpi://{_NOBODY}"}, _NOBODY


PEERS: tuple[type[Peer], ...] = (ModbusPeer, OpcuaPeer, SerialPeer, ScannerPeer, ScpiPeer)


@pytest.fixture(scope="module", params=PEERS, ids=lambda kind: kind.__name__)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A peer that is kept from test to test, since servers take long to start."""
    one: Peer = request.param(tmp_path_factory.mktemp("peer"))
    yield one
    one.stop()


@pytest.fixture
def peer(bench: Peer) -> Peer:
    """A peer that serves."""
    bench.start()
    return bench


# -------------------------------------------------------------------------------------------------- the driver


@cache
def documented() -> type[Driver]:
    """The driver that docs/drivers.md shows, as whoever copies it would have it."""
    (code,) = re.findall(r"```python\n(.*?)```", (_TESTS.parent / "docs" / "drivers.md").read_text(), re.DOTALL)
    module = ModuleType("edge_agent_scpi")
    sys.modules[module.__name__] = module
    exec(compile(code, "docs/drivers.md", "exec"), module.__dict__)
    driver: type[Driver] = module.ScpiDriver
    return driver


def registered() -> dict[str, type[Driver]]:
    """The drivers by the names of their entry points, and the one of the documentation."""
    found = {entry.name: entry.load() for entry in entry_points(group="edge_agent.drivers")}
    return found | {"scpi": documented()}


def device_of(peer: Peer, settings: dict[str, Any] | None = None, **tags: dict[str, Any]) -> Device:
    """A device as the configuration makes it."""
    kind = registered()[peer.driver]
    given = kind.Settings.model_validate({"driver": peer.driver, **(settings or peer.settings())})
    made = (Tag(f"bench.{name}", kind.TagSettings.model_validate(tag), given.poll) for name, tag in tags.items())
    return Device("bench", given, tuple(made))


def driver_of(peer: Peer, device: Device) -> Driver:
    """The driver of one link with one device."""
    return registered()[peer.driver]([device])


def comes_by_stream(driver: Driver, tag: Tag) -> bool:
    """Whether the poller would leave this tag to the stream."""
    return isinstance(driver, Streams) and driver.streams(tag)


@asynccontextmanager
async def streaming(driver: Driver) -> AsyncIterator[AsyncIterator[Sequence[Reading]]]:
    """The driver's stream, ended with the block."""
    assert isinstance(driver, Streams)
    stream = driver.stream()
    try:
        yield stream
    finally:
        if (aclose := getattr(stream, "aclose", None)) is not None:
            await aclose()


@asynccontextmanager
async def stirring(peer: Peer) -> AsyncIterator[None]:
    """Something happens at the peer, again and again."""

    async def stir() -> None:
        while True:
            await asyncio.sleep(0.15)
            peer.stir()

    task = asyncio.create_task(stir())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def collect(driver: Driver, peer: Peer, device: Device, tags: tuple[Tag, ...]) -> list[Reading]:
    """At least one reading for each of the tags, as the poller gets them."""
    asked = tuple(tag for tag in tags if not comes_by_stream(driver, tag))
    readings = list(await driver.read(device, asked)) if asked else []
    waiting = set(tags) - set(asked)
    if waiting:
        async with asyncio.timeout(LIMIT_S), stirring(peer), streaming(driver) as stream:
            async for batch in stream:
                readings += batch
                waiting -= {reading.tag for reading in batch}
                if not waiting:
                    break
    return readings


async def fails(call: Callable[[], Awaitable[object]], *errors: type[Exception]) -> Exception:
    """The error with which the call ends within the limit."""
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(errors) as caught:
            await call()
    return caught.value


async def until_it_fails(driver: Driver, device: Device) -> None:
    """Read, or take from the stream, for ever."""
    if comes_by_stream(driver, device.tags[0]):
        async with streaming(driver) as stream:
            async for _ in stream:
                pass
        return
    while True:
        await driver.read(device, device.tags)


def held() -> tuple[int, int, int]:
    """How many descriptors, threads and tasks there are, without the event loop's own pool of threads."""
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:
        tasks = 0  # no loop runs
    threads = [one for one in threading.enumerate() if not one.name.startswith("asyncio_")]
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), len(threads), tasks


async def settled(before: tuple[int, int, int]) -> tuple[int, int, int]:
    """What is held once callbacks that were under way have run: `before`, or what is left after a second."""
    patience = time.monotonic() + 1
    while (now := held()) != before and time.monotonic() < patience:  # noqa: ASYNC110 (there is no event to wait for)
        await asyncio.sleep(0.01)
    return now


# --------------------------------------------------------------------------------------------- before connecting


def test_registered_drivers_all_have_a_peer() -> None:
    assert set(registered()) == {peer.driver for peer in PEERS}


def test_construction_opens_nothing(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    registered()  # loads the modules, which may hold what they like
    before = held()
    driver = driver_of(peer, device)
    assert held() == before
    assert isinstance(driver, Driver)


def test_link_is_equal_for_equal_settings_and_differs_by_url(peer: Peer) -> None:
    kind = registered()[peer.driver]
    one, same = device_of(peer).settings, device_of(peer).settings
    other = device_of(peer, peer.nowhere()[0]).settings
    assert isinstance(kind.link(one), str)
    assert kind.link(one) == kind.link(same) != kind.link(other)


def test_settings_unknown_keys_are_refused(peer: Peer) -> None:
    kind = registered()[peer.driver]
    assert issubclass(kind.Settings, DeviceSettings)
    assert issubclass(kind.TagSettings, TagSettings)
    with pytest.raises(ValidationError, match="no_such_key"):
        device_of(peer, {**peer.settings(), "no_such_key": 1})
    with pytest.raises(ValidationError, match="no_such_key"):
        device_of(peer, good={**peer.good, "no_such_key": 1})


def test_settings_every_model_within_forbids_unknown_keys(peer: Peer) -> None:
    kind = registered()[peer.driver]
    for model in (kind.Settings, kind.TagSettings):
        for name, schema in model.model_json_schema().get("$defs", {}).items():
            if schema.get("type") == "object":
                assert schema.get("additionalProperties") is False, f"{model.__name__}: {name}"


def test_settings_an_address_is_required(peer: Peer) -> None:
    with pytest.raises(ValidationError, match="address"):
        device_of(peer, good={key: value for key, value in peer.good.items() if key != "address"})


def test_settings_nothing_changes_after_loading(peer: Peer) -> None:
    settings: Settings = device_of(peer).settings
    with pytest.raises(ValidationError, match="frozen"):
        settings.url = "elsewhere"  # type: ignore[attr-defined]


async def test_close_before_connect_is_allowed_more_than_once(peer: Peer) -> None:
    before = held()
    driver = driver_of(peer, device_of(peer, good=peer.good))
    await driver.close()
    await driver.close()
    assert await settled(before) == before


async def test_read_before_connect_is_not_connected(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    driver = driver_of(peer, device)
    await fails(lambda: until_it_fails(driver, device), NotConnected)
    await driver.close()


async def test_connect_to_nothing_is_not_connected_in_time_and_names_the_place(peer: Peer) -> None:
    settings, place = peer.nowhere()
    before = held()
    driver = driver_of(peer, device_of(peer, settings, good=peer.good))
    for _ in range(2):
        error = await fails(driver.connect, NotConnected)
        assert place in str(error)
        assert len(str(error).replace(place, "").split()) >= 4, f"does not say what to check: {error}"
        await driver.close()
    assert await settled(before) == before


# ---------------------------------------------------------------------------------------------------- connected


async def test_readings_are_those_of_the_contract(peer: Peer) -> None:
    device = device_of(peer, good=peer.good, bad=peer.bad)
    good, wrong = device.tags
    driver = driver_of(peer, device)
    try:
        await driver.connect()
        readings = await collect(driver, peer, device, device.tags)
    finally:
        await driver.close()
    assert {reading.tag for reading in readings} == {good, wrong}
    for reading in readings:
        assert isinstance(reading, Reading)
        assert reading.time is None or abs(reading.time - time.time_ns()) < 3600 * 10**9
        if reading.tag is good:
            assert (reading.quality, reading.cause) == (Quality.GOOD, None)
            assert reading.value is not None
        else:
            assert (reading.quality, reading.value) == (Quality.BAD, None)
            assert reading.cause


async def test_read_gives_readings_only_for_asked_tags(peer: Peer) -> None:
    device = device_of(peer, good=peer.good, other=peer.good)
    driver = driver_of(peer, device)
    try:
        await driver.connect()
        for tags in (device.tags[1:], device.tags[:1], device.tags[1:]):
            asked = tuple(tag for tag in tags if not comes_by_stream(driver, tag))
            assert [reading.tag for reading in await driver.read(device, asked)] == list(asked)
    finally:
        await driver.close()


async def test_connect_read_close_and_again_on_one_object_leaves_nothing(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    before = held()
    driver = driver_of(peer, device)
    for _ in range(3):
        await driver.connect()
        readings = await collect(driver, peer, device, device.tags)
        assert [reading.quality for reading in readings[:1]] == [Quality.GOOD]
        await driver.close()
        await driver.close()
        assert await settled(before) == before


async def test_close_in_the_middle_ends_what_runs(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    before = held()
    driver = driver_of(peer, device)
    await driver.connect()
    running = asyncio.create_task(until_it_fails(driver, device))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(LIMIT_S):
        await driver.close()
    await fails(lambda: running, NotConnected)
    assert await settled(before) == before


async def test_cancelled_in_the_middle_the_object_connects_again(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    before = held()
    driver = driver_of(peer, device)
    await driver.connect()
    running = asyncio.create_task(until_it_fails(driver, device))
    await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.wait([running], timeout=LIMIT_S)
    assert running.cancelled()
    await driver.close()
    await driver.connect()
    assert (await collect(driver, peer, device, device.tags))[0].quality is Quality.GOOD
    await driver.close()
    assert await settled(before) == before


# ------------------------------------------------------------------------------------------------ losing the peer


async def test_peer_that_dies_is_noticed_in_time_and_found_again(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    driver = driver_of(peer, device)
    try:
        await driver.connect()
        running = asyncio.create_task(until_it_fails(driver, device))
        await asyncio.sleep(0.2)
        peer.stop()
        error = await fails(lambda: running, NotConnected, DeviceFault)
        assert str(error)
        await driver.close()
        await fails(driver.connect, NotConnected)
        await driver.close()
        peer.start()
        await driver.connect()
        assert (await collect(driver, peer, device, device.tags))[0].quality is Quality.GOOD
    finally:
        await driver.close()


async def test_peer_that_falls_silent_is_noticed_in_time_and_let_go(peer: Peer) -> None:
    device = device_of(peer, good=peer.good)
    before = held()
    driver = driver_of(peer, device)

    async def begin_again() -> None:
        await driver.connect()
        await until_it_fails(driver, device)

    try:
        await driver.connect()
        await collect(driver, peer, device, device.tags)
        peer.freeze()
        if peer.silence == "at once":
            error = await fails(lambda: until_it_fails(driver, device), NotConnected, DeviceFault)
            assert not isinstance(error, DeviceFault) or error.device is device
        async with asyncio.timeout(LIMIT_S):
            await driver.close()
        if peer.silence != "never":
            await fails(begin_again, NotConnected, DeviceFault)
        async with asyncio.timeout(LIMIT_S):
            await driver.close()
        assert await settled(before) == before
    finally:
        await driver.close()
        peer.stop()
