"""A million fuzzed frames into each framing: nothing escapes but what the framing may raise, and no wrong value.

Half of the requests get one answer that is damaged within the limits promised (see `modbus_lies`): its value must be
right or absent. The others get a burst of anything, grown from right frames and from nothing: what comes of it must at
least be of the right length. In virtual time, on a wire in this process.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

from edge_agent.contract import NotConnected
from edge_agent_modbus.address import COIL, HOLDING, INPUT
from edge_agent_modbus.frames import Request
from edge_agent_modbus.mbap import MbapExchange
from edge_agent_modbus.rtu import RtuExchange
from edge_agent_modbus.wire import Exchange, Nonsense, Refusal, Silence

from .figures import Figure
from .modbus_lies import Liar, answer_to, mbap, rtu
from .virtual import run_virtually

FRAMES = 1_000_000
_TIMEOUT_S, _DRAIN_S = 0.05, 0.05
_CHARACTER_S = 11 / 115_200
_BURST = 30
_LATEST_S = 0.01
_LENGTHS = (0, 1, 2, 3, 4, 5, 253, 254, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
_CODES = (0, 1, 2, 5, 6, 10, 11, 128, 255)
REGISTERS = [Request(unit, table, at, count) for unit, table, at, count in (
    (5, HOLDING, 100, 3), (5, HOLDING, 130, 3), (6, HOLDING, 100, 3), (5, INPUT, 100, 3), (5, HOLDING, 200, 12),
    (6, HOLDING, 500, 1), (5, HOLDING, 300, 125),
)]  # fmt: skip
ANY = [*REGISTERS, Request(5, COIL, 0, 1), Request(5, COIL, 7, 2000)]


def run(_folder: Path, _seconds: float, frames: int = FRAMES) -> list[Figure]:
    """What escaped, and what was wrong, of so many frames for each framing."""
    figures = []
    for name in ("rtu", "tcp"):
        counts = run_virtually(Fuzz(name, random.Random(1)).run(frames))
        told = f"of {counts['frames']:,} fuzzed frames"
        figures += [
            Figure(f"Fuzz of Modbus {name.upper()}, exceptions {told}", counts["escaped"], "exceptions", bar=0),
            Figure(f"Fuzz of Modbus {name.upper()}, wrong values {told}", counts["wrong"], "values", bar=0),
        ]
    return figures


class Fuzz:
    """One exchange, and a peer that says anything."""

    def __init__(self, framing: str, chance: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._is_tcp = framing == "tcp"
        self._chance = chance
        self._exchange: Exchange = MbapExchange() if self._is_tcp else RtuExchange(_CHARACTER_S)
        self._liar = Liar(chance, _TIMEOUT_S, _DRAIN_S)
        self._within = False
        self._connection = 0

    async def run(self, frames: int) -> Counter[str]:
        """Ask until so many frames have come."""
        asyncio.get_running_loop().set_exception_handler(self._escaped)
        while self.counts["frames"] < frames:
            if not self._exchange.is_open:
                self._connection += 1
                self._exchange.opened(self._answer, lambda: None)
            self._within = self._chance.random() < 0.5
            await self._ask(self._chance.choice(REGISTERS if self._within else ANY))
            if not self._within:  # what was said to one request must not be said to the next: no limit covers that
                await asyncio.sleep(2 * _LATEST_S)
        await self._recover()
        return self.counts

    def _escaped(self, _loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
        self.counts["escaped"] += 1

    async def _ask(self, request: Request) -> None:
        try:
            said = await self._exchange.ask(request, _TIMEOUT_S, 0.0, _DRAIN_S)
        except (Refusal, Silence, Nonsense, NotConnected) as absent:
            self.counts[type(absent).__name__] += 1
            return
        except Exception:  # noqa: BLE001 - to count these is what this is for
            self.counts["escaped"] += 1
            return
        right = answer_to(request.rtu[:6])[3:] if request in REGISTERS else None
        self.counts["right" if said == right else "other"] += 1
        if len(said) != request.size or (self._within and said != right):
            self.counts["wrong"] += 1

    async def _recover(self) -> None:
        """After all of it a right answer is still understood."""
        self._exchange.lost("the end")
        await asyncio.sleep(10 * (_TIMEOUT_S + _DRAIN_S))
        loop = asyncio.get_running_loop()
        self._exchange.opened(lambda data: _soon(loop, self._exchange, self._right(data)), lambda: None)
        self._within, before = True, self.counts["right"]
        await self._ask(REGISTERS[0])
        if self.counts["right"] == before:
            self.counts["escaped"] += 1

    # ------------------------------------------------------------------------------------------- the peer

    def _answer(self, frame: bytes) -> None:
        loop, connection = asyncio.get_running_loop(), self._connection
        if self._within:
            said = self._liar.tcp(frame) if self._is_tcp else self._liar.rtu(frame)
            self.counts["frames"] += 1
        else:
            count = self._chance.randint(1, _BURST)
            said = [(self._chance.choice((0.0, 0.0, _LATEST_S)), self._anything(frame)) for _ in range(count)]
            self.counts["frames"] += count
        for delay_s, data in said:
            loop.call_later(delay_s, self._deliver, data, connection)

    def _deliver(self, data: bytes, connection: int) -> None:
        if data and (connection == self._connection or not self._is_tcp):
            self._exchange.received(data)

    def _right(self, frame: bytes) -> bytes:
        if self._is_tcp:
            return mbap(int.from_bytes(frame[:2], "big"), answer_to(frame[6:]))
        return rtu(answer_to(frame[:6]))

    def _anything(self, frame: bytes) -> bytes:
        chance = self._chance
        if chance.random() < 0.1:
            return chance.randbytes(chance.randint(0, 300))
        body = frame[6:] if self._is_tcp else frame[:6]
        if chance.random() < 0.2:
            return self._framed(frame, bytes((body[0], body[1] | 0x80, chance.choice(_CODES))))
        if chance.random() < 0.3:
            return self._framed(frame, self._changed(body[:2] + chance.randbytes(chance.randint(0, 260))))
        damaged = bytearray(self._right(frame) if body[1] in (3, 4) else frame)
        for _ in range(chance.randint(0, 3)):
            self._damage(damaged)
        return bytes(damaged)

    def _framed(self, frame: bytes, body: bytes) -> bytes:
        if not self._is_tcp:
            return rtu(body)
        number = int.from_bytes(frame[:2], "big")
        return mbap((number + self._chance.choice((0, 0, 0, -1, 256))) & 0xFFFF, body)

    def _changed(self, body: bytes) -> bytes:
        damaged = bytearray(body)
        self._damage(damaged)
        return bytes(damaged)

    def _damage(self, frame: bytearray) -> None:
        chance = self._chance
        if not frame:
            return
        at = chance.randrange(len(frame))
        kind = chance.randrange(6)
        if kind == 0:
            frame[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del frame[at:]
        elif kind == 2:
            frame[at:at] = chance.randbytes(chance.randint(1, 8))
        elif kind == 3:
            frame[at:at] = frame[:at]
        elif kind == 4:
            frame[4:6] = chance.choice(_LENGTHS).to_bytes(2, "big")
        else:
            frame[at] = chance.choice((0, 3, 0x7F, 0x80, 0xFF))


def _soon(loop: asyncio.AbstractEventLoop, exchange: Exchange, data: bytes) -> None:
    loop.call_soon(exchange.received, data)
