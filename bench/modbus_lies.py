"""The ways in which Modbus peers answer late, damaged, or with what is not theirs; each within the limits promised.

A register tells its unit and its address, so that a reader can tell where a value came from. Delays are in shares of
the time-out: 0 to 1 is in time; up to 1 plus the drain is late, and what comes then must be credited to nobody.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Answer = Sequence[tuple[float, bytes]]
"""Bytes to send, each after a delay in seconds, counted from the request."""
UNASKED_S = 0.001
"""A repetition on a serial line comes within the silence between frames (1.75 ms): later it could be an answer."""


def oracle(unit: int, address: int) -> int:
    """What a register of these peers holds: nowhere else is the same value."""
    return (unit % 16) << 12 | (address & 0xFFF)


def answer_to(request: bytes) -> bytes:
    """The right answer to `unit function start count`, without framing."""
    unit, start, count = request[0], int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
    data = b"".join(oracle(unit, address).to_bytes(2, "big") for address in range(start, start + count))
    return request[:2] + bytes((len(data),)) + data


def crc(body: bytes) -> bytes:
    """The CRC of Modbus, bit by bit, as it travels."""
    value = 0xFFFF
    for byte in body:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


def rtu(body: bytes) -> bytes:
    """A body in the frame of Modbus RTU."""
    return body + crc(body)


def mbap(transaction: int, body: bytes) -> bytes:
    """A body in the frame of Modbus TCP."""
    return transaction.to_bytes(2, "big") + b"\0\0" + len(body).to_bytes(2, "big") + body


def wrong_body(chance: random.Random, body: bytes, request: bytes) -> bytes:
    """An answer of another place whose unit, function, count or length is not what was asked."""
    foreign = answer_to(request[:2] + bytes((request[2] ^ 2,)) + request[3:])
    return chance.choice(
        (
            bytes((body[0] % 247 + 1,)) + foreign[1:],
            foreign[:1] + bytes((7 - body[1],)) + foreign[2:],
            foreign[:2] + bytes((foreign[2] + 2,)) + b"\x12\x34" + foreign[3:],
            foreign[:2] + bytes((foreign[2] - 2,)) + foreign[5:],
            foreign[:2] + bytes((foreign[2] - 1,)) + foreign[4:],
            foreign[:2] + bytes((foreign[2] + 2,)) + foreign[3:],
        )
    )


def flipped(chance: random.Random, frame: bytes) -> bytes:
    """Up to 3 bits, anywhere."""
    value = int.from_bytes(frame, "little")
    for bit in chance.sample(range(8 * len(frame)), chance.randint(1, 3)):
        value ^= 1 << bit
    return value.to_bytes(len(frame), "little")


def burst(chance: random.Random, frame: bytes) -> bytes:
    """Up to 16 neighbouring bits, in the order of the line: the least significant of each byte first."""
    damage = chance.randrange(1, 1 << 16) << chance.randrange(8 * len(frame) - 15)
    return (int.from_bytes(frame, "little") ^ damage).to_bytes(len(frame), "little")


class Liar:
    """Answers as told by chance; what it says of a request stays within the limits.

    `punctual` is for virtual time; in real time a busy machine is late by itself, so that limits are kept with room.
    """

    def __init__(self, chance: random.Random, timeout_s: float, drain_s: float, *, punctual: bool = True) -> None:
        self.chance = chance
        self.lies = 0
        self._timeout_s, self._drain_s = timeout_s, drain_s
        self._latest, self._unasked_s = (0.98, UNASKED_S) if punctual else (0.5, 0.0)
        self._last = b""

    def late_s(self) -> float:
        """A delay beyond the time-out, by no more than the drain."""
        return self._timeout_s + self.chance.uniform(0.01, self._latest) * self._drain_s

    def rtu(self, frame: bytes) -> Answer:
        """What comes back over a serial line."""
        body = answer_to(frame[:6])
        right = rtu(body)
        wrong = wrong_body(self.chance, body, frame[:6])
        stranger = rtu(bytes((body[0] % 247 + 1,)) + body[1:])
        return self._say(right, rtu(wrong), stranger, _RTU, self._unasked_s)

    def rtu_behind_an_echo(self, frame: bytes) -> Answer:
        """The same behind an adapter that gives back what is sent, one time of ten damaged, cut, or not at all."""
        echo = frame
        if self.chance.random() < 0.1:
            cut = self.chance.randrange(1, len(frame))
            echo = self.chance.choice((flipped(self.chance, frame), frame[:cut], frame[cut:], b""))
        return [(0.0, echo), *self.rtu(frame)]

    def tcp(self, frame: bytes) -> Answer:
        """What comes back over a connection."""
        number = int.from_bytes(frame[:2], "big")
        body = answer_to(frame[6:])
        right = mbap(number, body)
        wrong = mbap(number, wrong_body(self.chance, body, frame[6:]))
        foreign = answer_to(frame[6:8] + bytes((frame[8] ^ 2,)) + frame[9:])
        stranger = mbap((number + self.chance.choice((-1, 1, 256, -number))) & 0xFFFF, foreign)
        return self._say(right, wrong, stranger, _TCP, self.chance.uniform(0, self._drain_s))

    def _say(self, right: bytes, wrong: bytes, stranger: bytes, kinds: Sequence[str], again_s: float) -> Answer:
        chance = self.chance
        if chance.random() < 0.25:
            self._last = right
            return [(0.0, right)]
        self.lies += 1
        cut = chance.randrange(1, len(right))
        before, self._last = self._last, right
        said: dict[str, Callable[[], Answer]] = {
            "late": lambda: [(self.late_s(), right)],
            "truncated": lambda: [(0.0, right[:cut])],
            "truncated and late": lambda: [(self.late_s(), right[:cut])],
            "halves": lambda: [(0.0, right[:cut]), (self.late_s(), right[cut:])],
            "flipped": lambda: [(0.0, flipped(chance, right))],
            "burst": lambda: [(0.0, burst(chance, right))],
            "damaged and late": lambda: [(self.late_s(), flipped(chance, right))],
            "wrong": lambda: [(0.0, wrong)],
            "wrong and right": lambda: [(0.0, wrong + right)],
            "twice": lambda: [(0.0, right + right)],
            "again": lambda: [(0.0, right), (again_s, right)],
            "the last one again": lambda: [(0.0, before), (0.0, right)],
            "interleaved": lambda: [(0.0, bytes(byte for pair in zip(right, stranger, strict=True) for byte in pair))],
            "inserted": lambda: [(0.0, right[:cut] + stranger + right[cut:])],
            "stranger first": lambda: [(0.0, stranger), (0.0, right)],
            "trickled": lambda: self._trickled(right, self._timeout_s * 0.9),
            "trickled too long": lambda: self._trickled(right, self.late_s()),
            "silent": list,
        }
        return said[chance.choice(kinds)]()

    def _trickled(self, frame: bytes, whole_s: float) -> Answer:
        return [(whole_s * (n + 1) / len(frame), frame[n : n + 1]) for n in range(len(frame))]


_BOTH = (
    "late", "late", "truncated", "truncated and late", "halves", "wrong", "wrong and right", "twice", "again",
    "interleaved", "inserted", "stranger first", "trickled", "trickled too long", "silent",
)  # fmt: skip
_RTU = (*_BOTH, "flipped", "flipped", "burst", "burst", "damaged and late")
_TCP = (*_BOTH, "the last one again")
