"""The serial driver against scripted instruments on pseudo-terminals and sockets."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import serial
from serial.rfc2217 import PortManager
from serial_instrument import Instrument, serial_device

from edge_agent.contract import ConfigError, Device, DeviceFault, NotConnected, Quality, Reading, Streams
from edge_agent_serial import SerialDriver
from edge_agent_serial.port import Port
from edge_agent_serial.settings import Line

_WEIGHT = {"weight": {"address": "weight"}}
_CODE = {"code": {"address": "code"}}
_SCANNER: dict[str, Any] = {"pattern": "(?P<code>[0-9]+)", "frame": {"end": "\r\n"}}
_TIOCGEXCL = 0x80045440


@pytest.fixture
async def instrument(tmp_path: Path) -> AsyncIterator[Instrument]:
    """An instrument that is plugged in and says nothing yet."""
    one = Instrument(tmp_path / "scale")
    one.plug()
    yield one
    one.unplug()


@asynccontextmanager
async def _connected(*devices: Device) -> AsyncIterator[SerialDriver]:
    driver = SerialDriver(devices)
    try:
        await driver.connect()
        yield driver
    finally:
        await driver.close()


def _scale(instrument: Instrument, **settings: Any) -> Device:
    given = {"profile": "sics", "timeout": "200 ms", "drain": "100 ms", **settings}
    return serial_device(str(instrument.path), _WEIGHT, **given)


def _answering(instrument: Instrument, *answers: bytes) -> None:
    """One answer for each request, the last one for all that follow; an empty one is silence."""
    left = list(answers)

    def script(request: bytes) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer:
            instrument.send(answer)

    instrument.script = script


async def _weight(driver: SerialDriver, device: Device) -> Reading:
    (reading,) = await driver.read(device, device.tags)
    return reading


async def _take(driver: SerialDriver, count: int, limit_s: float = 3) -> list[Reading]:
    readings: list[Reading] = []
    stream = driver.stream()
    try:
        async with asyncio.timeout(limit_s):
            async for batch in stream:
                readings += batch
                if len(readings) >= count:
                    break
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return readings


# ----------------------------------------------------------------------------------------- asked and answering


async def test_read_answer_gives_the_weight(instrument: Instrument) -> None:
    _answering(instrument, b"S S     100.00 g\r\n")
    device = _scale(instrument)
    async with _connected(device) as driver:
        reading = await _weight(driver, device)
        assert (reading.tag, reading.value, reading.quality, reading.time) == (
            device.tags[0],
            100.0,
            Quality.GOOD,
            None,
        )
        assert instrument.requests == [b"SI\r\n"]


async def test_read_overload_is_bad_and_next_answer_good(instrument: Instrument) -> None:
    _answering(instrument, b"S +\r\n", b"S S       1.00 g\r\n")
    device = _scale(instrument)
    async with _connected(device) as driver:
        over = await _weight(driver, device)
        assert (over.value, over.quality, over.cause) == (None, Quality.BAD, "overload")
        assert (await _weight(driver, device)).value == 1.0


async def test_read_slow_trickle_within_the_timeout_is_one_answer(instrument: Instrument) -> None:
    answer = b"S S     100.00 g\r\n"

    def trickle(request: bytes) -> None:
        for position in range(len(answer)):
            instrument.send_later(0.01 * position, answer[position : position + 1])

    instrument.script = trickle
    device = _scale(instrument, timeout="1 s")
    async with _connected(device) as driver:
        assert (await _weight(driver, device)).value == 100.0


async def test_read_garbage_before_the_answer_is_skipped(instrument: Instrument) -> None:
    _answering(instrument, b"\xff\x00garbage\r\nSI\r\nS S       5.00 g\r\n")
    device = _scale(instrument)
    async with _connected(device) as driver:
        assert (await _weight(driver, device)).value == 5.0


async def test_read_frame_that_is_no_answer_is_bad(instrument: Instrument) -> None:
    _answering(instrument, b"S S   1#0.00 g\r\n", b"S S       5.00 g\r\n")
    device = _scale(instrument)
    async with _connected(device) as driver:
        reading = await _weight(driver, device)
        assert (reading.value, reading.quality, reading.cause) == (None, Quality.BAD, "pattern_mismatch")
        assert (await _weight(driver, device)).value == 5.0


async def test_read_silence_is_a_device_fault_that_says_what_to_check(instrument: Instrument) -> None:
    device = _scale(instrument)
    async with _connected(device) as driver:
        with pytest.raises(
            DeviceFault, match=r"did not answer b'SI\\r\\n' within 0.2 s: .* on, .*cable.*9600 8N1"
        ) as caught:
            await driver.read(device, device.tags)
        assert caught.value.device is device
        _answering(instrument, b"S S       5.00 g\r\n")
        assert (await _weight(driver, device)).value == 5.0


async def test_read_bytes_without_an_end_are_shown(instrument: Instrument) -> None:
    _answering(instrument, b"\x8f\x8f\x8f")
    device = _scale(instrument)
    async with _connected(device) as driver:
        with pytest.raises(DeviceFault, match=r"sent b'\\x8f\\x8f\\x8f': check .*9600 8N1"):
            await driver.read(device, device.tags)


async def test_read_late_answers_are_never_the_next_ones(instrument: Instrument) -> None:
    def answer() -> bytes:
        return f"S S {len(instrument.requests):8}.0 g\r\n".encode()

    instrument.script = lambda request: None if len(instrument.requests) % 3 == 1 else instrument.send(answer())
    device = _scale(instrument, timeout="150 ms", drain="150 ms")
    heard: list[object] = []
    async with _connected(device) as driver:
        for _ in range(9):
            try:
                heard.append((await _weight(driver, device)).value)
            except DeviceFault:
                heard.append("late")
                instrument.send_later(0.01 * len(heard), answer())
    assert heard == ["late", 2.0, 3.0, "late", 5.0, 6.0, "late", 8.0, 9.0]


async def test_read_cancelled_in_the_middle_leaves_its_answer_to_nobody(instrument: Instrument) -> None:
    instrument.script = lambda request: instrument.send_later(0.1, f"S S {len(instrument.requests):8}.0 g\r\n".encode())
    device = _scale(instrument)
    async with _connected(device) as driver:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(driver.read(device, device.tags), 0.15)
        await driver.close()
        await driver.connect()
        assert (await _weight(driver, device)).value == 2.0
    assert instrument.requests == [b"SI\r\n"] * 2


async def test_read_line_that_is_never_quiet_is_a_device_fault(instrument: Instrument) -> None:
    device = _scale(instrument)

    async def babble() -> None:
        while True:
            instrument.send(b"S S       1.00 g\r\n")
            await asyncio.sleep(0.02)

    babbling = asyncio.create_task(babble())
    try:
        async with _connected(device) as driver:
            with pytest.raises(DeviceFault, match=r"never quiet; .*leave out `request`"):
                await driver.read(device, device.tags)
        assert instrument.requests == []
    finally:
        babbling.cancel()


async def test_read_two_instruments_on_one_port_each_get_their_own_answer(instrument: Instrument) -> None:
    instrument.script = lambda request: instrument.send(b"1=11\r\n" if request == b"?1\n" else b"2=22\r\n")
    devices = [
        serial_device(
            str(instrument.path), {"v": {"address": "v", "type": "int"}}, name=f"gauge-{number}",
            request=f"?{number}\n", pattern=f"{number}=(?P<v>[0-9]+)", drain="10 ms",
        )
        for number in (1, 2)
    ]  # fmt: skip
    async with _connected(*devices) as driver:
        assert [(await _weight(driver, device)).value for device in devices] == [11, 22]


async def test_read_tag_of_wrong_type_is_bad_and_its_neighbour_good(instrument: Instrument) -> None:
    _answering(instrument, b"S S       5.00 g\r\n")
    tags = {"weight": {"address": "weight"}, "unit": {"address": "unit", "type": "float"}}
    device = serial_device(str(instrument.path), tags, profile="sics")
    async with _connected(device) as driver:
        weight, unit = await driver.read(device, device.tags)
        assert (weight.value, weight.quality) == (5.0, Quality.GOOD)
        assert (unit.value, unit.quality, unit.cause) == (None, Quality.BAD, "not_a_number")
        assert [one.tag for one in await driver.read(device, device.tags[1:])] == [device.tags[1]]


async def test_request_is_not_sent_over_an_answer_that_nobody_has_taken(instrument: Instrument) -> None:
    port = Port(str(instrument.path), Line())
    try:
        await port.open(2)
        instrument.send(b"S S       1.00 g\r\n")
        assert not await port.write(b"SI\r\n")
        port.discard()
        assert await port.write(b"SI\r\n")
        async with asyncio.timeout(2):
            while not instrument.requests:  # noqa: ASYNC110 (the instrument has no event)
                await asyncio.sleep(0.01)
    finally:
        await port.close()
    assert instrument.requests == [b"SI\r\n"]


# --------------------------------------------------------------------------------------- speaking by themselves


async def test_stream_every_scan_is_a_reading_in_order(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), _CODE, **_SCANNER)
    async with _connected(device) as driver:
        assert isinstance(driver, Streams)
        assert driver.streams(device.tags[0])
        assert await driver.read(device, device.tags) == []
        await asyncio.sleep(0.11)  # the pause that tells a frame's beginning from its rest
        for code in (b"4006381333931\r\n", b"40063", b"81333931\r\n40", b"17\r\n"):
            instrument.send(code)
            await asyncio.sleep(0.01)
        assert [one.value for one in await _take(driver, 3)] == ["4006381333931", "4006381333931", "4017"]


async def test_stream_no_scan_is_lost_while_the_loop_is_busy(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), _CODE, **_SCANNER)
    async with _connected(device) as driver:
        await asyncio.sleep(0.11)

        def scan() -> None:
            for number in range(400):
                instrument.send(b"%08d\r\n" % number)
                time.sleep(0.0005)

        scanning = threading.Thread(target=scan)
        scanning.start()
        time.sleep(0.25)  # noqa: ASYNC251 (the busy loop that is meant)
        readings = await _take(driver, 400)
        scanning.join()
    assert [one.value for one in readings] == [f"{number:08}" for number in range(400)]


async def test_stream_first_bytes_of_a_running_instrument_are_no_frame(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), _CODE, **_SCANNER)
    async with _connected(device) as driver:
        instrument.send(b"3931\r\n4017\r\n")
        assert [one.value for one in await _take(driver, 1)] == ["4017"]


async def test_stream_where_every_scan_counts_says_that_the_first_bytes_may_have_been_one(
    instrument: Instrument,
) -> None:
    device = serial_device(str(instrument.path), {"code": {"address": "code", "store": "every"}}, **_SCANNER)
    async with _connected(device) as driver:
        instrument.send(b"3931\r\n4017\r\n")
        found = await _take(driver, 2)
    assert [one.cause if one.quality is Quality.BAD else one.value for one in found] == ["incomplete_frame", "4017"]


async def test_stream_frame_that_never_ended_is_bad_and_not_glued_to_the_next(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), _CODE, timeout="50 ms", **_SCANNER)
    async with _connected(device) as driver:
        await asyncio.sleep(0.11)
        instrument.send(b"40063")
        await asyncio.sleep(0.1)
        instrument.send(b"4017\r\n")
        broken, scan = await _take(driver, 2)
    assert (broken.value, broken.quality, broken.cause) == (None, Quality.BAD, "incomplete_frame")
    assert scan.value == "4017"


async def test_stream_frames_that_do_not_match_are_bad(instrument: Instrument) -> None:
    device = serial_device(
        str(instrument.path), _CODE, pattern="(?P<code>[0-9]+)", frame={"end": "\r\n", "max_length": 8}
    )
    async with _connected(device) as driver:
        await asyncio.sleep(0.11)
        instrument.send(b"NOREAD\r\n123456789\r\n12\r\n")
        readings = await _take(driver, 3)
    assert [(one.value, one.cause) for one in readings] == [
        (None, "pattern_mismatch"), (None, "frame_too_long"), ("12", None)
    ]  # fmt: skip


async def test_stream_more_than_the_buffer_holds_is_told_as_overflow(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent_serial.port.BUFFERED_BYTES", 20_000)
    device = serial_device(str(instrument.path), _CODE, **_SCANNER)
    async with _connected(device) as driver:
        await asyncio.sleep(0.11)
        for number in range(4000):
            instrument.send(b"%08d\r\n" % number)
        await asyncio.sleep(0.1)
        early = await _take(driver, 1500)
        instrument.send(b"\r\n77\r\n")
        late = await _take(driver, 1)
        while late[-1].value != "77":
            late += await _take(driver, 1)
    values = [one.value for one in early + late]
    lost_at = [one.cause for one in early + late].index("overflow")
    assert values[:lost_at] == [f"{number:08}" for number in range(lost_at)]
    assert 1500 < lost_at <= 2000
    assert values[-1] == "77"
    assert (values.count(None), len(values)) == (1, lost_at + 2)


# ---------------------------------------------------------------------------------------------- losing the port


async def test_stream_unplug_is_not_connected_within_a_second(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), _CODE, **_SCANNER)
    async with _connected(device) as driver:
        waiting = asyncio.create_task(_take(driver, 1))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        instrument.unplug()
        with pytest.raises(NotConnected, match="unplugged"):
            await waiting
        assert time.monotonic() - began < 1


async def test_read_unplug_while_waiting_is_not_connected_and_replug_works(instrument: Instrument) -> None:
    instrument.script = lambda request: instrument.unplug()
    device = _scale(instrument, timeout="1500 ms")
    async with _connected(device) as driver:
        began = time.monotonic()
        with pytest.raises(NotConnected, match="unplugged"):
            await driver.read(device, device.tags)
        assert time.monotonic() - began < 1
        await driver.close()
        with pytest.raises(NotConnected, match="is not there: is the adapter plugged in"):
            await driver.connect()
        await driver.close()
        instrument.plug()
        _answering(instrument, b"S S       5.00 g\r\n")
        await driver.connect()
        assert (await _weight(driver, device)).value == 5.0


async def test_read_unplug_between_reads_is_not_connected_at_once(instrument: Instrument) -> None:
    device = _scale(instrument)
    async with _connected(device) as driver:
        instrument.unplug()
        with pytest.raises(NotConnected):
            await driver.read(device, device.tags)


async def test_close_while_streaming_ends_the_stream(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), _CODE, **_SCANNER)
    async with _connected(device) as driver:
        waiting = asyncio.create_task(_take(driver, 1))
        await asyncio.sleep(0.02)
        await driver.close()
        with pytest.raises(NotConnected, match="closed"):
            await waiting


# ---------------------------------------------------------------------------------------------- opening


async def test_connect_claims_the_port_and_close_frees_it(instrument: Instrument) -> None:
    def claimed() -> int:
        fd = os.open(instrument.path, os.O_RDWR | os.O_NOCTTY)
        try:
            assert termios.tcgetattr(fd)[0] & termios.INPCK, "a damaged character comes as a guess"
            return int(struct.unpack("i", fcntl.ioctl(fd, _TIOCGEXCL, b"\0\0\0\0"))[0])
        finally:
            os.close(fd)

    async with _connected(_scale(instrument)) as driver:
        with serial.Serial() as other, pytest.raises(serial.SerialException):
            other.port, other.exclusive = str(instrument.path), True
            other.open()
        if os.geteuid() == 0:  # the kernel lets only root past the claim, to look
            assert claimed() == 1
        await driver.close()
        assert claimed() == 0


async def test_connect_port_in_use_says_so(instrument: Instrument) -> None:
    device = _scale(instrument)
    async with _connected(device):
        second = SerialDriver([device])
        with pytest.raises(NotConnected, match="in use by another program"):
            await second.connect()
        await second.close()


async def test_connect_file_that_is_no_port_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    driver = SerialDriver([serial_device(str(tmp_path / "file"), _WEIGHT, profile="sics")])
    with pytest.raises(NotConnected, match="not a usable serial port"):
        await driver.connect()
    await driver.close()


def test_driver_address_that_is_no_group_names_device_tag_and_groups() -> None:
    with pytest.raises(ConfigError, match=r"scale: .*scale\.w \(wieght\); there are stable, weight, unit"):
        SerialDriver([serial_device("/dev/x", {"w": {"address": "wieght"}}, profile="sics")])


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"profile": "sics"}, {"profile": "sics", "line": "2400 8N1"}, "a, b: one port has one line setting"),
        ({"profile": "sics"}, {"pattern": "(?P<weight>x)"}, "a, b: .* a port of its own"),
    ],
)
def test_driver_devices_that_cannot_share_a_port_are_refused(
    first: dict[str, Any], second: dict[str, Any], says: str
) -> None:
    devices = [serial_device("/dev/x", _WEIGHT, name=name, **given) for name, given in (("a", first), ("b", second))]
    with pytest.raises(ConfigError, match=says):
        SerialDriver(devices)


# ---------------------------------------------------------------------------------------------- serial servers


async def test_socket_server_is_read_lost_and_read_again() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.readline():
            writer.write(b"S S       5.00 g\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    device = serial_device(f"socket://127.0.0.1:{port}", _WEIGHT, profile="sics", drain="50 ms")
    async with server, _connected(device) as driver:
        assert (await _weight(driver, device)).value == 5.0
        writers[0].close()
        await writers[0].wait_closed()
        with pytest.raises(NotConnected, match="serial server closed"):
            while True:
                await driver.read(device, device.tags)
        await driver.close()
        await driver.connect()
        assert (await _weight(driver, device)).value == 5.0
        writers[1].close()


class _Writer(NamedTuple):
    """What pyserial's port manager wants of a connection."""

    connection: socket.socket

    def write(self, data: bytes) -> None:
        self.connection.sendall(data)


def _serve_rfc2217(listener: socket.socket, settings: list[str]) -> None:
    """A scale behind pyserial's own server side of RFC 2217, for one client."""
    connection, _ = listener.accept()
    with connection, serial.serial_for_url("loop://") as line:
        manager = PortManager(line, _Writer(connection))  # type: ignore[arg-type]
        heard = b""
        while data := connection.recv(1024):
            heard += b"".join(manager.filter(data))
            if heard.endswith(b"SI\r\n"):
                heard = b""
                settings.append(f"{line.baudrate} {line.bytesize}{line.parity}{line.stopbits}")
                if len(settings) > 1:
                    return
                connection.sendall(b"".join(manager.escape(b"S S       5.00 g\r\n")))


@pytest.mark.filterwarnings(r"ignore:set(Daemon|Name)")
async def test_rfc2217_server_takes_line_settings_is_read_and_lost() -> None:
    settings: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=_serve_rfc2217, args=(listener, settings))
        serving.start()
        url = f"rfc2217://127.0.0.1:{listener.getsockname()[1]}"
        device = serial_device(url, _WEIGHT, profile="sics", line="2400 7E1", drain="50 ms")
        async with _connected(device) as driver:
            assert (await _weight(driver, device)).value == 5.0
            with pytest.raises(NotConnected, match="serial server closed"):
                await driver.read(device, device.tags)
        serving.join(5)
        assert not serving.is_alive()
    assert settings[0] == "2400 7E1"
