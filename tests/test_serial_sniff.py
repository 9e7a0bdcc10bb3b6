"""Listening to a serial line that nobody has described, and the line's own manners: silence, repeat, replug."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tty
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from serial_instrument import Instrument, serial_device

from edge_agent.config import load
from edge_agent.contract import ConfigError, Heard, NotConnected, Quality, Sniffs
from edge_agent_serial import SerialDriver
from edge_agent_serial import driver as driver_module
from edge_agent_serial.settings import SerialSettings

NS = 10**9


@pytest.fixture
async def instrument(tmp_path: Path) -> AsyncIterator[Instrument]:
    one = Instrument(tmp_path / "port")
    one.plug()
    yield one
    one.unplug()


async def heard(instrument: Instrument, *said: bytes, count: int, request: bytes = b"") -> list[Heard]:
    found: list[Heard] = []
    async with asyncio.timeout(8), aclosing(SerialDriver.sniff(str(instrument.path), None, request)) as frames:
        for number, data in enumerate(said):
            instrument.send_later(0.2 + 0.12 * number, data)
        async for frame in frames:
            found.append(frame)
            if len(found) >= count:
                break
    return found


def test_driver_has_the_power() -> None:
    assert isinstance(SerialDriver, Sniffs)


@pytest.mark.parametrize(
    ("said", "frames"),
    [
        ((b"one\r\ntwo\r\n",), [(b"one", b"\r\n"), (b"two", b"\r\n")]),
        ((b"one\rtw", b"o\r"), [(b"one", b"\r"), (b"tw", b""), (b"o", b"\r")]),
        ((b"one\ntwo\n",), [(b"one", b"\n"), (b"two", b"\n")]),
        ((b"\x02one\x03",), [(b"\x02one", b"\x03")]),
        ((b"\x01\x02\x99", b"\x01\x02\x98"), [(b"\x01\x02\x99", b""), (b"\x01\x02\x98", b"")]),
    ],
)
async def test_sniff_cuts_frames_by_whatever_ends_them(
    instrument: Instrument, said: tuple[bytes, ...], frames: list[tuple[bytes, bytes]]
) -> None:
    assert [(one.data, one.end) for one in await heard(instrument, *said, count=len(frames))] == frames


async def test_sniff_asks_only_what_it_is_told_to(instrument: Instrument) -> None:
    instrument.script = lambda request: instrument.send(b"S S     100.00 g\r\n")
    (one,) = await heard(instrument, count=1, request=b"SI\r\n")
    assert (one.data, instrument.requests[0]) == (b"S S     100.00 g", b"SI\r\n")
    instrument.requests.clear()
    await heard(instrument, b"x\r\n", count=1)
    assert instrument.requests == []


async def test_sniff_of_a_port_that_is_not_there_or_a_line_that_is_none_says_so(tmp_path: Path) -> None:
    for url, line, error in ((str(tmp_path / "no"), None, NotConnected), ("/dev/ttyS0", "9600", ConfigError),
                             ("COM3", None, ConfigError)):  # fmt: skip
        with pytest.raises(error):
            async with aclosing(SerialDriver.sniff(url, line, b"")) as frames:
                async for _ in frames:
                    pass


def suggested(folder: Path, frames: list[bytes], end: bytes = b"\r\n") -> tuple[Any, SerialSettings, str]:
    """The device that is suggested, as the configuration loads it."""
    told = SerialDriver.suggest("/dev/serial/by-id/port", "9600 8N1", [Heard(0, frame, end) for frame in frames])
    (folder / "all.yaml").write_text(
        'agent: {name: g, enterprise: a, site: l}\nmqtt: {url: "mqtt://127.0.0.1:1"}\n' + told.yaml + "\n"
    )
    configuration = load(folder)
    assert not configuration.faults, [str(fault) for fault in configuration.faults]
    device = configuration.devices["instrument-1"]
    assert isinstance(device.settings, SerialSettings)
    return device, device.settings, told.yaml


@pytest.mark.parametrize(
    ("frames", "profile"),
    [
        ([b"S S     100.00 g", b"S D      99.00 g"], "sics"),
        ([b"ST,+00123.45  g"], "and"),
        ([b"S,+ 12.3 kg"], "cas"),
        ([b"     12.34 g  ?"], "ohaus"),
        ([b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47"], "nmea"),
        ([b",M,,*47", b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47"], "nmea"),
        ([b"4006381333931", b"5901234123457"], "scanner"),
        ([b"]C10104006381333931\x1d10A1"], "scanner"),
    ],
)
def test_suggestion_for_a_known_instrument_is_its_profile(tmp_path: Path, frames: list[bytes], profile: str) -> None:
    device, settings, text = suggested(tmp_path, frames)
    assert settings.profile == profile, text
    assert {tag.settings.store for tag in device.tags} == {"every" if profile == "scanner" else "change"}
    found = [one for frame in frames for one in settings.dialect().readings(frame, device.tags)]
    assert found
    whole = [one for one in found if one.cause != "checksum_error"]
    assert whole
    assert all(one.quality is not Quality.BAD for one in whole), text


@pytest.mark.parametrize(
    ("frames", "end", "values"),
    [
        ([b"T= 21.5 C, H= 40 %", b"T=  9.5 C, H= 41 %"], b"\r", [21.5, 40.0, 9.5, 41.0]),
        ([b"\x02+12.5'x", b"\x02-3.25'x"], b"\x03", [12.5, -3.25]),
        ([b"[12];(3)"], b"\n", [12.0, 3.0]),
        ([b"$ 12.50", b"$  9.25"], b"\r\n", [12.5, 9.25]),
    ],
)
def test_suggestion_for_an_unknown_instrument_reads_its_numbers(
    tmp_path: Path, frames: list[bytes], end: bytes, values: list[float]
) -> None:
    device, settings, text = suggested(tmp_path, frames, end)
    framer, dialect = settings.framer(), settings.dialect()
    cut = framer.feed(b"".join(frame + end for frame in frames))
    found = [one.value for frame in cut for one in dialect.readings(frame, device.tags)]
    assert found == values, text


def test_suggestion_for_any_frames_is_a_device_that_loads(tmp_path: Path) -> None:
    chance = random.Random(3)
    for number in range(60):
        frames = [chance.randbytes(chance.randrange(1, 30)) for _ in range(chance.randrange(1, 4))]
        end = chance.choice([b"\r\n", b"\r", b"\n", b"\x03", b""])
        (tmp_path / str(number)).mkdir()
        suggested(tmp_path / str(number), [frame.replace(end, b"") or b"x" if end else frame for frame in frames], end)


async def test_sniff_verb_shows_frames_and_a_device(tmp_path: Path) -> None:
    far, near = os.openpty()
    tty.setraw(near)
    command = [sys.executable, "-m", "edge_agent", "sniff", os.ttyname(near), "--frames", "2", "--for", "6 s"]
    process = await asyncio.to_thread(
        lambda: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )
    try:
        for _ in range(40):
            os.write(far, b"S S     100.00 g\r\n")
            await asyncio.sleep(0.15)
            if process.poll() is not None:
                break
        out, err = await asyncio.to_thread(process.communicate)
    finally:
        process.kill()
        os.close(far)
        os.close(near)
    assert process.returncode == 0, err
    assert r"S S     100.00 g\r\n" in out
    assert "    profile: sics" in out


# --------------------------------------------------------------------------------------------- the line's own manners


async def streamed(device: Any, instrument: Instrument, *said: bytes, count: int) -> list[Any]:
    driver = SerialDriver([device])
    await driver.connect()
    found: list[Any] = []
    try:
        async with asyncio.timeout(5), aclosing(driver.stream()) as batches:  # type: ignore[type-var]
            for number, data in enumerate(said):
                instrument.send_later(0.3 + 0.2 * number, data)
            async for batch in batches:
                found += [one.cause if one.quality is Quality.BAD else one.value for one in batch]
                if len(found) >= count:
                    break
    finally:
        await driver.close()
    return found


async def test_frames_that_only_silence_ends_are_read_one_by_one(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), {"w": {"address": "w", "type": "int"}}, pattern="W(?P<w>[0-9]+)",
                           frame={"silence": "40 ms"})  # fmt: skip
    assert await streamed(device, instrument, b"W1", b"W22", b"W333", count=3) == [1, 22, 333]


async def test_answer_that_only_silence_ends_is_read(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), {"w": {"address": "w", "type": "int"}}, pattern="W(?P<w>[0-9]+)",
                           frame={"silence": "40 ms"}, request="?\n", timeout="500 ms", drain="50 ms")  # fmt: skip
    instrument.script = lambda request: instrument.send(b"W42")
    driver = SerialDriver([device])
    await driver.connect()
    try:
        assert [one.value for one in await driver.read(device, device.tags)] == [42]
        assert [one.value for one in await driver.read(device, device.tags)] == [42]
    finally:
        await driver.close()


async def test_instrument_that_is_told_once_to_repeat_is_told_once_and_listened_to(instrument: Instrument) -> None:
    device = serial_device(str(instrument.path), {"w": {"address": "weight", "unit": "g"}}, profile="sics-repeat")
    found = await streamed(device, instrument, b"S S     100.00 g\r\n", b"S D     101.00 g\r\n", count=2)
    assert found == [100.0, 101.0]
    assert instrument.requests == [b"SIR\r\n"]


async def test_instrument_that_was_switched_off_and_on_is_told_to_repeat_again(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "BEGIN_AGAIN_S", 0.3)
    device = serial_device(str(instrument.path), {"w": {"address": "weight", "unit": "g"}}, profile="sics-repeat")
    instrument.script = lambda request: instrument.send(b"S S     %6.2f g\r\n" % len(instrument.requests))
    # The first answer comes at once, and might be the rest of one to somebody else.
    assert await streamed(device, instrument, count=2) == [2.0, 3.0]
    assert instrument.requests == [b"SIR\r\n"] * 3
