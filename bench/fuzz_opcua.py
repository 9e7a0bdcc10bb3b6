"""Damaged frames through the decoders of the OPC UA driver: what escapes, what is taken, what is credited otherwise."""

from __future__ import annotations

import asyncio
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from edge_agent.contract import Reading, Tag, TagSettings
from edge_agent_opcua.frames import MAX_CHUNK_BYTES, Frames
from edge_agent_opcua.values import data_change, readings_of
from edge_agent_opcua.wire import DecodeError, Wire

from .figures import Figure

FRAMES = 1_000_000
MEMORY_BAR_MB = 50.0
_TICKS = 134_000_000_001_234_567
_TAGS = tuple(Tag(f"fuzz.t{n}", TagSettings(address=n), 1) for n in range(8))
_INTERESTING = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x00\x00\x00\x00", b"\xff\xff\x00\x00")

Decode = Callable[[bytes], object]


def _values() -> list[bytes]:
    """DataValues of many kinds, with a source time."""
    text = struct.pack("<i5s", 5, b"Gr\xc3\xbc\xc3"[:5])
    variants = (
        b"\x0b" + struct.pack("<d", 1.5),
        b"\x06" + struct.pack("<i", -7),
        b"\x01\x01",
        b"\x0c" + text,
        b"\x0d" + struct.pack("<q", _TICKS),
        b"\x0e" + bytes(range(16)),
        b"\x11\x03\x02\x00" + text,
        b"\x15\x03" + text + text,
        b"\x86" + struct.pack("<i3i", 3, 1, 2, 3),
        b"\x8c" + struct.pack("<i", 2) + text + text,
        b"\xc6" + struct.pack("<i4ii2i", 4, 1, 2, 3, 4, 2, 2, 2),
        b"\x16\x01\x00\x76\x03\x01" + text,
        b"\x98" + struct.pack("<i", 2) + b"\x01\x01\x06" + struct.pack("<i", 9),
        b"\x17\x03\x0b" + struct.pack("<dI", 2.5, 0x40900000),
    )
    plain = [b"\x05" + variant + struct.pack("<q", _TICKS) for variant in variants]
    full = [b"\x3f" + variant + struct.pack("<IqHqH", 0x480, _TICKS, 1, _TICKS, 2) for variant in variants]
    return [*plain, *full, b"\x0e" + struct.pack("<Iqq", 0x808C0000, _TICKS, _TICKS)]


def _change(chance: random.Random, values: list[bytes]) -> bytes:
    items = [struct.pack("<I", chance.randrange(8)) + chance.choice(values) for _ in range(chance.randint(1, 6))]
    return struct.pack("<i", len(items)) + b"".join(items) + struct.pack("<i", -1)


def _array(chance: random.Random, values: list[bytes]) -> bytes:
    items = [chance.choice(values) for _ in range(chance.randint(1, 6))]
    return struct.pack("<i", len(items)) + b"".join(items)


def _body(type_id: int, body: bytes) -> bytes:
    return b"\x01\x00" + struct.pack("<HBi", type_id, 1, len(body)) + body


def _publish(chance: random.Random, values: list[bytes]) -> bytes:
    return struct.pack("<Ii2IBIqi", 7, 2, 1, 2, 0, 3, _TICKS, 1) + _body(811, _change(chance, values))


def _history(chance: random.Random, values: list[bytes]) -> bytes:
    return struct.pack("<Ii4s", 0, 4, b"more") + _body(658, _array(chance, values))


def _damaged(chance: random.Random, whole: bytes, other: bytes) -> bytes:
    """Bits turned, bytes changed, lengths replaced, cut off, spliced, or moved apart."""
    data = bytearray(whole)
    for _ in range(chance.randint(1, 3)):
        at, kind = chance.randrange(len(data) or 1), chance.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
        elif kind == 2:
            data[at : at + 4] = chance.choice(_INTERESTING)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:] = other[chance.randrange(len(other)) :]
        else:
            data += chance.randbytes(chance.randint(1, 8))
    return bytes(data)


def careful(body: bytes) -> list[Reading]:
    """A DataChangeNotification field by field, as a judge of the quick way."""
    wire = Wire(body)
    readings: list[Reading] = []
    for _ in range(wire.length()):
        handle = wire.u32()
        if handle >= len(_TAGS):
            raise DecodeError("no such item")
        readings += readings_of(_TAGS[handle], wire.data_value())
    for _ in range(wire.length()):
        wire.diagnostic_info()
    wire.end()
    return readings


def outcome(decode: Decode, data: bytes) -> object:
    """What a decoder says; None where it refuses."""
    try:
        return decode(data)
    except DecodeError:
        return None


def _read_answer(data: bytes) -> object:
    wire = Wire(data)
    return [readings_of(_TAGS[0], wire.data_value()) for _ in range(wire.length())]


class _Transport:
    """Stands where the socket is: what a Frames does with it is that it gives up."""

    def abort(self) -> None:
        """Nothing to close."""


class _Inner(asyncio.Protocol):
    """Takes whole chunks, and remembers which are none."""

    wrong = 0

    def data_received(self, data: bytes) -> None:
        """One chunk."""
        self.wrong += not 8 <= len(data) == int.from_bytes(data[4:8], "little") <= MAX_CHUNK_BYTES


def _chunks(chance: random.Random, frames: int) -> int:
    """Chunks with damaged headers, in pieces of any size: how many were passed on that are none."""
    inner = _Inner()
    stream = Frames(inner, cast("Any", _Transport()))
    for _ in range(frames):
        if stream.fault is not None:
            stream = Frames(inner, cast("Any", _Transport()))
        size = chance.choice((8, 9, 30, 7, 0, 2**31, MAX_CHUNK_BYTES + 1, 30, 30))
        data = b"MSG" + chance.choice((b"F", b"C", b"A", b"\xff")) + struct.pack("<I", size) + chance.randbytes(22)
        cut = chance.randrange(len(data))
        stream.data_received(data[:cut])
        stream.data_received(data[cut:])
    return inner.wrong


def run(folder: Path, seconds: float, frames: int = FRAMES) -> list[Figure]:
    """How many exceptions escaped, and how many values were credited otherwise; the time plays no part."""
    from edge_agent_opcua.history import _result
    from edge_agent_opcua.session import published

    chance, values = random.Random(1), _values()
    makers: list[tuple[Callable[[random.Random, list[bytes]], bytes], Decode]] = [
        (_change, lambda data: data_change(data, _TAGS)),
        (_array, _read_answer),
        (
            _publish,
            lambda data: [data_change(body, _TAGS) for kind, body in published(Wire(data)).bodies if kind == 811],
        ),
        (_history, lambda data: _result(Wire(data))),
    ]
    escaped = otherwise = cut = refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(frames * 9 // 10):
        make, decode = makers[number % len(makers)]
        whole, other = make(chance, values), make(chance, values)
        data = _damaged(chance, whole, other)
        try:
            said = outcome(decode, data)
            refused += said is None
            if make is _change:
                otherwise += said != outcome(careful, data)
                cut += outcome(decode, whole[: chance.randrange(len(whole))]) is not None
        except Exception:  # noqa: BLE001 (whatever it is, it is what is counted)
            escaped += 1
    wrong_chunks = _chunks(chance, frames - frames * 9 // 10)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [
        Figure("OPC UA, exceptions of fuzzed frames", escaped, f"of {frames}", bar=0),
        Figure("OPC UA, values credited otherwise than field by field", otherwise, f"of {frames}", bar=0),
        Figure("OPC UA, notifications taken though cut off", cut, f"of {frames}", bar=0),
        Figure("OPC UA, chunks passed on that are none", wrong_chunks, f"of {frames}", bar=0),
        Figure("OPC UA, memory grown by fuzzed frames", grown_mb, "MB", bar=MEMORY_BAR_MB),
        Figure("OPC UA, fuzzed frames refused", refused, f"of {frames}"),
    ]
