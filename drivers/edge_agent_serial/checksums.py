"""Checksums of frames (pure): what the bytes say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import xor
from typing import NamedTuple


def _xor(data: bytes) -> bytes:
    return bytes((reduce(xor, data, 0),))


def _sum(data: bytes) -> bytes:
    return bytes((sum(data) & 0xFF,))


def _lrc(data: bytes) -> bytes:
    return bytes((-sum(data) & 0xFF,))


def crc16(data: bytes) -> bytes:
    """CRC-16 as in Modbus (reflected 0xA001 from 0xFFFF), low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


KINDS: Mapping[str, Callable[[bytes], bytes]] = {"xor": _xor, "sum": _sum, "lrc": _lrc, "crc16": crc16}
"""The kinds, and the bytes that each puts behind its data."""


class Checksum(NamedTuple):
    """Where a frame's checksum stands and what it is made over; without `after_end` it is the end of the frame."""

    kind: str
    hex: bool = True
    """Written as hexadecimal digits, else as raw bytes."""
    with_start: bool = False
    """Made over the start characters, too."""
    after_end: bool = False
    """It follows the end characters, and is made over them, too (STX … ETX BCC)."""

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return len(KINDS[self.kind](b"")) * (2 if self.hex else 1)

    def verified(self, frame: bytes, start: bytes = b"", end: bytes = b"") -> bytes | None:
        """The frame without its checksum; None where that is not what it should be, or missing."""
        text, written = frame[: -self.size], frame[-self.size :]
        if len(frame) < self.size:
            return None
        over = (start if self.with_start else b"") + text + (end if self.after_end else b"")
        due = KINDS[self.kind](over)
        if self.hex:
            return text if written.upper() == due.hex().upper().encode() else None
        return text if written == due else None


def nmea(frame: bytes) -> bytes | None:
    """The body of an NMEA sentence `$…*HH`, without `$` and checksum; None where it is damaged or has none."""
    body, star, written = frame[1:].rpartition(b"*")
    if not frame.startswith(b"$") or not star or written.upper() != _xor(body).hex().upper().encode():
        return None
    return body
