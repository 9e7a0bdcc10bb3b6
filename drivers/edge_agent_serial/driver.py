"""The serial driver: instruments that are asked, and instruments that speak by themselves."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from edge_agent.contract import (
    NS_PER_S,
    ConfigError,
    Device,
    DeviceFault,
    Driver,
    Heard,
    NotConnected,
    Reading,
    SameAdapter,
    Suggestion,
    Tag,
    bad,
)
from edge_agent_serial.frames import Framer
from edge_agent_serial.port import Chunk, Port
from edge_agent_serial.profiles import Dialect, Sentences
from edge_agent_serial.settings import SerialSettings, SerialTagSettings
from edge_agent_serial.sniff import sniff, suggest

BEGIN_AGAIN_S = 10.0
"""After such a silence an instrument that was told to speak is told again."""
_OPEN_LIMIT_S = 9.0  # pyserial's own: 5 s for a connection, and 3 s for the options of RFC 2217
_SLICE_S = 0.2  # the longest sleep, so that a lost port is seen in between
_SENTENCE_FIELD = re.compile(r"[A-Z][A-Z0-9]+\.[1-9][0-9]?")
_SHOWN_BYTES = 40
_TRIES = 3  # to find the line quiet at the very moment of a request
_QUIET_S = 0.1  # after such a pause the next byte begins a frame; within a frame, bytes follow each other faster


class SerialDriver(Driver):
    """One serial port, with the instruments behind it."""

    Settings = SerialSettings
    TagSettings = SerialTagSettings

    @classmethod
    def link(cls, settings: SerialSettings) -> str:
        """The port: devices of one URL share it."""
        return settings.url

    def __init__(self, devices: Sequence[Device]) -> None:
        """Take the devices of one port.

        Raises:
            ConfigError: a tag's address is no group of its pattern, or the devices cannot share the port.
        """
        if not devices:
            raise ConfigError("a serial port without a device")
        self._instruments = {device: _Instrument(device) for device in devices}
        self._first = next(iter(self._instruments.values()))
        self._check_shared()
        self._port: Port | None = None
        self._same = SameAdapter(self._first.settings.url)
        self._drain_s = max(one.settings.drain for one in self._instruments.values()) / NS_PER_S
        self._doubtful = True  # an answer to an earlier request may still come
        self._answer_until = 0.0  # when that request's time is over, or the port was opened (monotonic)

    def _check_shared(self) -> None:
        names = ", ".join(device.name for device in self._instruments)
        if len({one.settings.line for one in self._instruments.values()}) > 1:
            raise ConfigError(f"{names}: one port has one line setting; write the same `line` for all of them")
        if len(self._instruments) > 1 and any(not one.dialect.request for one in self._instruments.values()):
            raise ConfigError(
                f"{names}: an instrument that speaks by itself needs a port of its own; or give a request"
            )

    async def connect(self) -> None:
        """Open the port, from nothing.

        Raises:
            NotConnected: it is not there, in use, another adapter than before, or did not open in time.
        """
        await self.close()
        settings = self._first.settings
        if self._port is not None and self._port.alive:
            raise NotConnected(f"{settings.url}: still being closed by the system; is the adapter hung?")
        self._port = Port(settings.url, settings.line, self._same)
        self._doubtful = True
        try:
            await self._port.open(_OPEN_LIMIT_S)
        except NotConnected:
            self._port.abandon()
            raise
        now = time.monotonic()
        self._answer_until = max(self._answer_until, now)
        for one in self._instruments.values():
            one.begin(now)

    async def close(self) -> None:
        """Let go of the port within 2 s; idempotent."""
        if self._port is not None:
            await self._port.close()

    def _opened(self) -> Port:
        if self._port is None:
            raise NotConnected(f"{self._first.settings.url}: not open")
        self._port.check()
        return self._port

    # ------------------------------------------------------------------------------------- asked instruments

    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        """Ask the instrument once: one reading for each of the tags. Nothing for one that speaks by itself.

        Raises:
            DeviceFault: no answer, or a line that is never quiet.
            NotConnected: the port is gone.
        """
        port = self._opened()
        one = self._instruments[device]
        if not one.dialect.request:
            return []
        for _ in range(_TRIES):
            await self._settle(port, one)
            deadline = time.monotonic() + one.timeout_s
            self._doubtful, self._answer_until = True, deadline
            if await port.write(one.dialect.request):
                break
        else:
            raise DeviceFault(one.device, f"{port.url}: something comes before each request; does it send by itself?")
        frame = await self._answer(port, one, deadline)
        return one.dialect.readings(frame, tags)

    async def _settle(self, port: Port, one: _Instrument) -> None:
        """Leave nothing on the line that could be taken for the next answer."""
        if port.discard():
            self._doubtful = True
        give_up = max(time.monotonic(), self._answer_until) + one.timeout_s + self._drain_s
        while self._doubtful:
            quiet_at = max(port.last_byte_at, self._answer_until) + self._drain_s
            rest_s = quiet_at - time.monotonic()
            if rest_s <= 0:
                break
            if time.monotonic() > give_up:
                raise DeviceFault(
                    one.device,
                    f"{port.url}: the line is never quiet; if {one.device.name} sends by itself, leave out `request`",
                )
            await asyncio.sleep(min(rest_s, _SLICE_S))
            port.check()
        port.discard()

    async def _answer(self, port: Port, one: _Instrument, deadline: float) -> bytes | None:
        """The first frame that is an answer; failing that, the last that is none."""
        one.framer.restart()
        heard = b""
        strange: list[bytes | None] = []
        while True:
            chunk = await port.receive(one.patience(deadline))
            if chunk is None and not one.framer.pending:
                break
            heard = (heard + chunk.data)[-_SHOWN_BYTES:] if chunk else heard
            frames = one.framer.feed(chunk.data) if chunk else one.framer.flush()
            if chunk is None and not frames:
                break
            for position, frame in enumerate(frames, 1):
                if one.dialect.recognizes(frame):
                    self._doubtful = position < len(frames) or bool(one.framer.pending)
                    return frame
            strange = frames[-1:] or strange
        if strange:
            return strange[0]
        raise DeviceFault(one.device, one.complaint(heard))

    # --------------------------------------------------------------------------------- instruments that speak

    def streams(self, tag: Tag) -> bool:
        """Whether the tag's instrument speaks by itself: it has no request."""
        return not self._first.dialect.request

    async def stream(self) -> AsyncIterator[Sequence[Reading]]:
        """A batch for each arrival of frames: one reading for each frame and tag; none while the line is silent.

        Raises:
            NotConnected: the port is gone.
        """
        port, one = self._opened(), self._first
        while one.dialect.begin and not await port.write(one.dialect.begin):
            port.discard()
        begun_at = time.monotonic()
        while True:
            again_at = max(begun_at, port.last_byte_at) + BEGIN_AGAIN_S if one.dialect.begin else None
            chunk = await port.receive(one.patience(again_at))
            if chunk is None and again_at is not None and time.monotonic() >= again_at:
                await port.write(one.dialect.begin)  # it was switched off and on, and has forgotten
                begun_at = time.monotonic()
            if batch := one.hear(chunk) if chunk is not None else one.fell_silent():
                yield batch

    # --------------------------------------------------------------------------------------------- commissioning

    @classmethod
    def sniff(cls, url: str, line: str | None, request: bytes) -> AsyncGenerator[Heard, None]:
        """Frames as they come over a port that nobody has described yet."""
        return sniff(url, line, request)

    @classmethod
    def suggest(cls, url: str, line: str | None, heard: Sequence[Heard]) -> Suggestion:
        """A device that understands these frames."""
        return suggest(url, line, heard)


def _unit_unclear(tag: Tag) -> bool:
    """Whether a scaled value has a unit, and the one on the wire is not said."""
    settings = tag.settings
    assert isinstance(settings, SerialTagSettings)  # noqa: S101 - the registry made it so
    scaled = settings.scale not in (None, 1.0)
    return scaled and settings.unit is not None and settings.wire_unit is None and settings.address != "unit"


class _Instrument:
    """One device on the port: its dialect, its framer, and where in a frame its line stands."""

    def __init__(self, device: Device) -> None:
        if not isinstance(device.settings, SerialSettings):
            raise ConfigError(f"{device.name}: not the settings of a serial device")
        self.device, self.settings = device, device.settings
        self.dialect: Dialect = self.settings.dialect()
        self.framer: Framer = self.settings.framer()
        silence = self.settings.frame.silence
        self.silence_s = None if silence is None else silence / NS_PER_S
        self.timeout_s = self.settings.timeout / NS_PER_S
        self._last_at = 0.0
        groups = self.dialect.groups
        unclear = [tag.name for tag in device.tags if "unit" in groups and _unit_unclear(tag)]
        if unclear:
            raise ConfigError(
                f"{', '.join(unclear)}: scale makes another unit of the instrument's, so say which one it must show, "
                "such as wire_unit: g; else grams could be taken for kilograms"
            )
        if isinstance(self.dialect, Sentences):
            wrong = [tag.name for tag in device.tags if not _SENTENCE_FIELD.fullmatch(str(tag.settings.address))]
            if wrong:
                raise ConfigError(
                    f"{device.name}: write a sentence in capitals and the number of its field, such as GGA.2 or "
                    f"GPGSV.3: {', '.join(wrong)}"
                )
            return
        wrong = [f"{tag.name} ({tag.settings.address})" for tag in device.tags if tag.settings.address not in groups]
        if wrong:
            raise ConfigError(
                f"{device.name}: no group of its pattern: {', '.join(wrong)}; there are {', '.join(groups)}"
            )

    def begin(self, now: float) -> None:
        """The port was opened: unless it is quiet, the first bytes are the rest of a frame."""
        self._last_at = now
        self.framer.restart(hunting=True)

    def patience(self, deadline: float | None) -> float | None:
        """Until when to wait for more bytes: a silence ends a frame that has begun."""
        if self.silence_s is None or not self.framer.pending:
            return deadline
        ends = time.monotonic() + self.silence_s
        return ends if deadline is None else min(ends, deadline)

    def fell_silent(self) -> list[Reading]:
        """The readings of the frame that the silence has ended."""
        tags = self.device.tags
        return [reading for frame in self.framer.flush() for reading in self.dialect.readings(frame, tags)]

    def hear(self, chunk: Chunk) -> list[Reading]:
        """The readings that these bytes of a speaking instrument complete."""
        pause_s, self._last_at = chunk.at - self._last_at, chunk.at
        tags = self.device.tags
        readings: list[Reading] = []
        if not chunk.data:
            self.framer.restart(hunting=True)
            return [bad(tag, "overflow") for tag in tags]
        if self.framer.hunting:
            if pause_s >= _QUIET_S:
                self.framer.restart()
        elif self.framer.pending and pause_s > self.timeout_s:
            # What never ended must not become the beginning of the next frame.
            self.framer.restart()
            readings += [bad(tag, "incomplete_frame") for tag in tags]
        frames = self.framer.feed(chunk.data)
        if self.framer.skipped:  # where each frame counts, what may have been one is a loss, and said to be
            self.framer.skipped = 0
            readings += [bad(tag, "incomplete_frame") for tag in tags if tag.settings.store == "every"]
        for frame in frames:
            readings += self.dialect.readings(frame, tags)
        return readings

    def complaint(self, heard: bytes) -> str:
        """Why there is no answer, and what to check; `heard` is what came instead."""
        asked = f"{self.settings.url}: {self.device.name} did not answer {self.dialect.request!r}"
        within = f"within {self.timeout_s:g} s"
        if heard:
            return (
                f"{asked} with a whole frame {within}, but sent {heard!r}: check that its line settings are "
                f"{self.settings.line}, and the end of its frames"
            )
        return f"{asked} {within}: check that it is on, its cable, and that it is set to {self.settings.line}"
