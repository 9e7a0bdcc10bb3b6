"""Bytes to frames, and texts to values (pure): what a serial line says, without the line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from edge_agent.contract import Value

_FLOAT = re.compile(r"([+-]?) *((?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_INTEGER = re.compile(r"([+-]?) *([0-9]+)")
_WORDS = {
    "1": True, "true": True, "on": True, "yes": True,
    "0": False, "false": False, "off": False, "no": False,
}  # fmt: skip
_SMALLEST, _LARGEST, _MOST_DIGITS = -(2**63), 2**64 - 1, 20


class Framer:
    """Cuts a stream of bytes into frames; how the bytes were split on their way makes no difference.

    A frame runs up to `end`, or is `length` bytes long, and begins after `start` where one is given; with neither it
    runs until the line is silent, which is told by `flush`. `trailer` bytes follow the `end` and belong to the frame,
    such as a checksum. Where a frame is longer than `limit` bytes, all up to the next `end` is dropped and told as
    None. Empty frames are no frames.
    """

    def __init__(
        self, *, end: bytes = b"", start: bytes = b"", length: int = 0, limit: int = 1024, trailer: int = 0
    ) -> None:
        if end and length:
            raise ValueError("a frame has either an end or a length")
        self._end, self._start, self._length, self._limit = end, start, length, limit
        self._trailer = trailer
        self.skipped = 0
        """How many rests of frames were skipped, whose beginning nobody knows."""
        self._buffer = bytearray()
        self._cut = False  # bytes of this frame were dropped: it is too long
        self._hunting = False

    @property
    def pending(self) -> bytes:
        """The bytes of a frame that is not complete."""
        return bytes(self._buffer)

    def restart(self, *, hunting: bool = False) -> None:
        """Forget what is pending. `hunting`: the next bytes may be the rest of a frame, so skip to the next `end`."""
        self._buffer.clear()
        self._cut = False
        self._hunting = hunting and bool(self._end) and not self._start

    @property
    def hunting(self) -> bool:
        """Whether the bytes up to the next `end` are skipped, their beginning being unknown."""
        return self._hunting

    def feed(self, data: bytes) -> list[bytes | None]:
        """The frames that these bytes complete, in order; None for each that was too long."""
        self._buffer += data
        if self._end:
            return self._ended()
        if self._length:
            return self._counted()
        if len(self._buffer) > self._limit:
            self._buffer.clear()
            self._cut = True
        return []

    def flush(self) -> list[bytes | None]:
        """The frame that the silence of the line has ended, where nothing else ends one."""
        if self._end or self._length or not (self._buffer or self._cut):
            return []
        text, too_long = bytes(self._buffer), self._cut
        self.restart()
        return [None] if too_long else [text]

    def _ended(self) -> list[bytes | None]:
        frames: list[bytes | None] = []
        while (cut := self._buffer.find(self._end)) >= 0:
            behind = cut + len(self._end)
            if len(self._buffer) < behind + self._trailer:
                break
            text = bytes(self._buffer[:cut] + self._buffer[behind : behind + self._trailer])
            del self._buffer[: behind + self._trailer]
            if not self._hunting:
                frames += self._one(text)
            elif text:
                self.skipped += 1
            self._hunting = self._cut = False
        keep = len(self._start) + self._limit + len(self._end) + self._trailer - 1
        if len(self._buffer) > keep:
            del self._buffer[:-keep]
            self._cut = True
        return frames

    def _one(self, text: bytes) -> list[bytes | None]:
        too_long = self._cut or len(text) > self._limit
        if self._start:
            # The last start wins: what stands before it lost its end.
            _, found, after = text.rpartition(self._start)
            if found and len(after) <= self._limit:
                text, too_long = after, False
            elif not too_long:
                return []
        if too_long:
            return [None]
        return [text] if text else []

    def _counted(self) -> list[bytes | None]:
        frames: list[bytes | None] = []
        skip, whole = len(self._start), len(self._start) + self._length
        while True:
            at = self._buffer.find(self._start)
            if at < 0:
                del self._buffer[: max(0, len(self._buffer) - skip + 1)]
                return frames
            del self._buffer[:at]
            if len(self._buffer) < whole:
                return frames
            frames.append(bytes(self._buffer[skip:whole]))
            del self._buffer[:whole]


class Unusable(ValueError):
    """A text that is not a value of the wanted type; the message is the reading's cause."""


def _number(text: str) -> float:
    match = _FLOAT.fullmatch(text.strip(" "))
    value = float(match[1] + match[2]) if match else math.nan
    if not math.isfinite(value):
        raise Unusable("not_a_number")
    return value


def _integer(text: str) -> int:
    match = _INTEGER.fullmatch(text.strip(" "))
    if match is None:
        raise Unusable("not_a_number")
    digits = match[2].lstrip("0") or "0"
    if len(digits) > _MOST_DIGITS:  # Python itself refuses to read more than some thousands
        raise Unusable("out_of_range")
    value = int(match[1] + digits)
    if not _SMALLEST <= value <= _LARGEST:
        raise Unusable("out_of_range")
    return value


def _truth(text: str) -> bool:
    word = _WORDS.get(text.strip(" ").lower())
    if word is None:
        raise Unusable("pattern_mismatch")
    return word


_PARSERS: dict[str, Callable[[str], Value]] = {"float": _number, "int": _integer, "bool": _truth, "string": str}


def parse(text: str, kind: str) -> Value:
    """The value of a whole text as `float`, `int`, `bool` or `string`; a number is never picked out of other text.

    Raises:
        Unusable: it is none: `not_a_number`, `out_of_range` (more than 64 bits) or `pattern_mismatch`.
    """
    return _PARSERS[kind](text)
