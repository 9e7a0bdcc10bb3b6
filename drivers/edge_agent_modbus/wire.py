"""One request at a time, and its own answer or none.

An answer is taken only when its transaction (TCP), unit, function, byte count, length and CRC (RTU) are those of the
request that is waiting. Over TCP a late answer is known by its transaction and dropped, and a stream whose frames have
lost their boundaries is dropped as a whole, because what is yet to come of it could be taken for something else. RTU
has no transactions: after anything but a right answer the line must be quiet for as long as an answer may be late,
before the next request goes out, counted from the end of the time-out, also where the request was given up before.
That state outlives the connection, because a late answer does too.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from edge_agent.contract import NotConnected
from edge_agent_modbus.frames import Request

UNASKED_LIMIT_BYTES = 4096
"""More than this without being asked, and the peer is cut off: nobody's late answers are that long."""
_SETTLE_PERIODS = 3
"""A line that is not quiet within this many periods of quiet is babbling."""


class Refusal(Exception):
    """The device answered with an exception."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Silence(Exception):
    """No answer in time."""


class Nonsense(Exception):
    """Something came that is not the answer to the request; `lost`: and the connection had to be dropped."""

    def __init__(self, said: bytes, lost: bool = False) -> None:
        super().__init__(said)
        self.said = said
        self.lost = lost


class Exchange(ABC):
    """The conversation on one link, above the connection that carries it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[bytes | int] | None = None
        self._request: Request | None = None
        self._lost: str | None = "not connected yet"
        self._quiet_s = 0.0  # how long the line must have been quiet before the next request; 0: it is settled
        self._heard = 0.0  # when the line was last busy, as the loop counts seconds
        self._due_s = 0.0  # until when the answer to the newest request is in time
        self._free_s = 0.0  # until when an answer that was given up may come; 0: none is out
        self._drain_s = 0.0  # how long after its time-out the answer to the newest request may still come
        self._unasked = 0
        self._stray = b""
        self._write: Callable[[bytes], None] = _nowhere
        self._abort: Callable[[], None] = _nothing
        self._loop: asyncio.AbstractEventLoop

    def opened(self, write: Callable[[bytes], None], abort: Callable[[], None]) -> None:
        """A new connection carries the conversation from here on."""
        self._loop = asyncio.get_running_loop()
        self._write, self._abort = write, abort
        self._buffer.clear()
        self._unasked = 0
        self._lost = None

    @property
    def is_open(self) -> bool:
        """Whether a connection carries it."""
        return self._lost is None

    def lost(self, reason: str) -> None:
        """The connection is gone; whoever waits for an answer is told."""
        if self._lost is None:
            self._lost = reason
            self._write, self._abort = _nowhere, _nothing
            self._settle_with(NotConnected(reason))

    async def ask(self, request: Request, limit_s: float, pause_s: float = 0.0, drain_s: float | None = None) -> bytes:
        """The data of the answer, exactly as many bytes as the request asked for.

        An answer may come up to `limit_s` after the request, and one that is given up, up to `drain_s` (the limit
        unless given) after that.

        Raises:
            Refusal: the device answered with an exception.
            Silence: no answer within the limit.
            Nonsense: something else was said.
            NotConnected: the connection is gone.
        """
        async with self._turn:  # one that was cancelled must have ended before the next begins
            said = await self._ask(request, limit_s, pause_s, limit_s if drain_s is None else drain_s)
        if isinstance(said, int):
            raise Refusal(said)
        return said

    async def _ask(self, request: Request, limit_s: float, pause_s: float, drain_s: float) -> bytes | int:
        quiet_s = self._quiet_s or max(pause_s, self.silence_s)
        if self._lost is None and (
            self._quiet_s or self._free_s or (quiet_s and self._heard + quiet_s > self._loop.time())
        ):
            await self._settle(max(quiet_s, pause_s))
        if self._lost is not None:
            raise NotConnected(self._lost)
        self._quiet_s = self._free_s = 0.0
        self._unasked = 0
        self._request = request
        on_the_wire_s = self.wire_time_s(request)
        limit_s += on_the_wire_s
        self._drain_s = drain_s + on_the_wire_s
        answer: asyncio.Future[bytes | int] = self._loop.create_future()
        self._answer = answer
        self._due_s = self._loop.time() + limit_s
        timer = self._loop.call_at(self._due_s, self._expire, limit_s)
        self._send(request)
        answered = False
        try:
            said = await answer
            answered = True
        finally:
            self._answer = None
            timer.cancel()
            if not answered:
                self._disturbed()
        return said

    @property
    def silence_s(self) -> float:
        """How long the line must be silent between frames."""
        return 0.0

    def wire_time_s(self, request: Request) -> float:
        """How long request and answer take on the line, which is no fault of the device."""
        return 0.0

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Bytes that the connection brought."""

    @abstractmethod
    def _send(self, request: Request) -> None: ...

    @abstractmethod
    def _disturbed(self) -> None:
        """The request ended without a right answer, which may still come."""

    def _settle_with(self, outcome: bytes | int | Exception) -> None:
        answer = self._answer
        if answer is None or answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def _expire(self, limit_s: float) -> None:
        said = self._said()
        self._settle_with(Nonsense(said) if said else Silence(limit_s))

    @abstractmethod
    def _said(self) -> bytes:
        """What was said instead of the answer; empty when nothing was."""

    def _idle(self) -> bool:
        return self._answer is None or self._answer.done()

    def _count_unasked(self, data: bytes) -> None:
        """A peer that babbles must not cost more than its link."""
        self._stray = data[-64:]
        self._unasked += len(data)
        if self._unasked > UNASKED_LIMIT_BYTES:
            self._drop(f"the peer sends without being asked, such as {self._stray[:16].hex(' ')}")

    def _drop(self, reason: str) -> None:
        abort = self._abort
        self.lost(reason)
        abort()

    async def _settle(self, quiet_s: float) -> None:
        """Wait until the line has been quiet for so long, and no answer is out any more."""
        # A task may run before the loop hands over bytes that came in the same round: two rounds let them in.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        give_up = max(self._loop.time(), self._free_s) + _SETTLE_PERIODS * quiet_s
        while (left_s := max(self._heard + quiet_s, self._free_s) - self._loop.time()) > 0:
            if self._loop.time() > give_up:
                raise Nonsense(self._stray)
            await asyncio.sleep(left_s)


def _nowhere(_data: bytes) -> None:
    """Where bytes go without a connection."""


def _nothing() -> None:
    """What ends without a connection."""
