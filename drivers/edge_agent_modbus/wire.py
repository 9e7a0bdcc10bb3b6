"""One request at a time, and its own answer or none.

An answer is taken only when its transaction (TCP), unit, function, byte count, length and CRC (RTU) are those of the
request that is waiting. Over TCP a late answer is known by its transaction and dropped, and a stream whose frames have
lost their boundaries is dropped as a whole, because what is yet to come of it could be taken for something else. RTU
has no transactions: after
anything but a right answer the line must be quiet for as long as an answer may take before the next request goes out.
That state outlives the connection, because a late answer does too.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from edge_agent.contract import NotConnected
from edge_agent_modbus.frames import MAX_MBAP_LENGTH, MBAP_HEAD_BYTES, REFUSAL_FRAME_BYTES, Request, find_rtu_answer

_UNASKED_LIMIT_BYTES = 4096
"""More than this without being asked, and the peer is cut off: nobody's late answers are that long."""
_SETTLE_PERIODS = 3
"""A line that is not quiet within this many periods of quiet is babbling."""
_DATA_AT = 9


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
        if self._lost is None and (self._quiet_s or (quiet_s and self._heard + quiet_s > self._loop.time())):
            await self._settle(max(quiet_s, pause_s))
        if self._lost is not None:
            raise NotConnected(self._lost)
        self._quiet_s = 0.0
        self._unasked = 0
        self._request = request
        on_the_wire_s = self.wire_time_s(request)
        limit_s += on_the_wire_s
        self._drain_s = drain_s + on_the_wire_s
        answer: asyncio.Future[bytes | int] = self._loop.create_future()
        self._answer = answer
        timer = self._loop.call_later(limit_s, self._expire, limit_s)
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
        if self._unasked > _UNASKED_LIMIT_BYTES:
            self._drop(f"the peer sends without being asked, such as {self._stray[:16].hex(' ')}")

    def _drop(self, reason: str) -> None:
        abort = self._abort
        self.lost(reason)
        abort()

    async def _settle(self, quiet_s: float) -> None:
        """Wait until the line has been quiet for so long."""
        # A task may run before the loop hands over bytes that came in the same round: two rounds let them in.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        give_up = self._loop.time() + _SETTLE_PERIODS * quiet_s
        while (left_s := self._heard + quiet_s - self._loop.time()) > 0:
            if self._loop.time() > give_up:
                raise Nonsense(self._stray)
            await asyncio.sleep(left_s)


class MbapExchange(Exchange):
    """Modbus TCP: each answer carries the transaction of its request."""

    def __init__(self) -> None:
        super().__init__()
        self._transaction = 0
        self._head = b""
        self._whole = 0
        self._abandoned: deque[bytes] = deque(maxlen=256)  # the heads of answers that may still come
        self._strange = b""
        self._shapes: set[bytes] = set()  # the heads of all answers that were ever asked for, without transaction
        self._began_s = 0.0  # when the first piece came of what lies in the buffer
        self._fragments_until_s = 0.0  # until when a piece of an answer that was given up may come

    def opened(self, write: Callable[[bytes], None], abort: Callable[[], None]) -> None:
        super().opened(write, abort)
        self._abandoned.clear()  # a new connection brings nothing of the old one
        self._fragments_until_s = 0.0

    def received(self, data: bytes) -> None:
        answer = self._answer
        if (
            answer is not None
            and data.startswith(self._head)
            and len(data) == self._whole
            and not self._buffer
            and not self._abandoned
            and not answer.done()
        ):
            self._heard = self._loop.time()
            answer.set_result(data[_DATA_AT:])
        else:
            self._heard = self._loop.time()
            self._count_unasked(data)
            self._sort(data)

    def _send(self, request: Request) -> None:
        self._transaction = self._transaction % 0xFFFF + 1
        number = self._transaction.to_bytes(2, "big")
        self._head = number + request.mbap_answer
        self._whole = _DATA_AT + request.size
        self._strange = b""
        self._shapes.add(request.mbap_answer)
        self._write(number + request.mbap)

    def _sort(self, data: bytes) -> None:
        """Take whole frames out of what has come; the right one settles the request."""
        buffer = self._buffer
        in_pieces = bool(buffer)
        if not in_pieces:
            self._began_s = self._heard
        buffer += data
        outcome: bytes | int | Nonsense | None = None
        said = bytes(buffer[:64])
        while len(buffer) >= MBAP_HEAD_BYTES:
            length = int.from_bytes(buffer[4:6], "big")
            if buffer[2] or buffer[3] or not 3 <= length <= MAX_MBAP_LENGTH:
                break
            if len(buffer) < MBAP_HEAD_BYTES + length:
                break
            frame = bytes(buffer[: MBAP_HEAD_BYTES + length])
            del buffer[: MBAP_HEAD_BYTES + length]
            if outcome is None:
                outcome = self._judge(frame)
                if in_pieces and isinstance(outcome, bytes | int) and self._may_be_mixed(frame):
                    self._derail(frame)
                    return
            in_pieces = False
        if buffer and (outcome is not None or not self._may_go_on()):
            # What follows is no frame, so that what preceded it may have been none either.
            self._derail(said)
        elif outcome is not None:
            self._settle_with(outcome)

    def _may_be_mixed(self, frame: bytes) -> bool:
        """Whether something else may have come between the pieces of this frame, and taken the place of its end."""
        if self._began_s < self._fragments_until_s:
            return True
        return any(frame.find(shape, 3) >= 0 for shape in self._shapes)

    def _derail(self, said: bytes) -> None:
        self._settle_with(Nonsense(said, lost=True))
        self._drop(f"the peer's frames have lost their boundaries: {said[:16].hex(' ')}")

    def _may_go_on(self) -> bool:
        """Whether what is left may be the beginning of a frame."""
        head = self._buffer[:MBAP_HEAD_BYTES]
        if any(head[2:4]):
            return False
        return len(head) < MBAP_HEAD_BYTES or 3 <= int.from_bytes(head[4:6], "big") <= MAX_MBAP_LENGTH

    def _judge(self, frame: bytes) -> bytes | int | Nonsense | None:
        request = self._request
        if request is None or self._idle() or frame[:2] != self._head[:2]:
            late = [head for head in self._abandoned if head[:2] == frame[:2]]
            if late:
                self._abandoned.remove(late[0])
            else:
                self._strange = frame
            return None
        if any(head in frame for head in self._abandoned):
            return Nonsense(frame)  # cut short, and filled up by a late answer of just the missing length
        if frame.startswith(self._head) and len(frame) == self._whole:
            return frame[_DATA_AT:]
        if frame[2:8] == b"\0\0\0\3" + request.refusal and len(frame) == _DATA_AT:
            return frame[8]
        return Nonsense(frame)

    def _expire(self, limit_s: float) -> None:
        if self._buffer and not self._idle():
            self._derail(bytes(self._buffer))  # half a frame: nobody knows where the next one would begin
        else:
            super()._expire(limit_s)

    def _said(self) -> bytes:
        return self._strange

    def _disturbed(self) -> None:
        self._abandoned.append(self._head)
        self._fragments_until_s = self._loop.time() + self._drain_s


class RtuExchange(Exchange):
    """Modbus RTU, on a serial line or through TCP: an answer is known only by having been awaited.

    Args:
        character_s: the time of one character on the line; 0 where the line is somebody else's.
        echo: whether the adapter repeats what is sent, in front of what the device answers.
    """

    def __init__(self, character_s: float = 0.0, echo: bool = False) -> None:
        super().__init__()
        self._echo = echo
        self._echo_due = b""
        self._character_s = character_s
        # Above 19200 baud the specification fixes the silence between frames.
        self._silence_s = max(3.5 * character_s, 0.00175) if character_s else 0.0

    @property
    def silence_s(self) -> float:
        return self._silence_s

    def wire_time_s(self, request: Request) -> float:
        asked = len(request.rtu) * (2 if self._echo else 1)
        return (asked + REFUSAL_FRAME_BYTES + request.size) * self._character_s

    def received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._answer is None or self._request is None or self._answer.done():
            self._overheard(data)
            return
        self._buffer += data
        if self._echo_due and not self._echo_came():
            return
        found = find_rtu_answer(self._buffer, self._request)
        if found is None:
            if len(self._buffer) > _UNASKED_LIMIT_BYTES:
                self._count_unasked(bytes(self._buffer))
            return
        said, end = found
        all_said, rest = bytes(self._buffer), bytes(self._buffer[end:])
        self._buffer.clear()
        if len(rest) >= REFUSAL_FRAME_BYTES and not all_said[:end].endswith(rest):
            # More than noise follows, and it is not the answer once more: what was found may be made of two things.
            self._settle_with(Nonsense(all_said))
        else:
            self._settle_with(said)
        if rest:
            self._overheard(rest)

    def _send(self, request: Request) -> None:
        self._buffer.clear()
        if self._echo:
            self._echo_due = request.rtu
        self._write(request.rtu)

    def _echo_came(self) -> bool:
        """Take the repetition of the request off what has come; what differs from it is nonsense."""
        due, buffer = self._echo_due, self._buffer
        if buffer.startswith(due):
            del buffer[: len(due)]
            self._echo_due = b""
            return bool(buffer)
        if not due.startswith(buffer):
            self._settle_with(Nonsense(bytes(buffer)))
        return False

    def _overheard(self, data: bytes) -> None:
        """A few stray bytes are noise; what may be an answer must have died away before the next request."""
        self._count_unasked(data)
        if self._unasked >= REFUSAL_FRAME_BYTES:
            self._quiet_s = max(self._quiet_s, self._drain_s)

    def _said(self) -> bytes:
        return bytes(self._buffer) if len(self._buffer) >= REFUSAL_FRAME_BYTES else b""

    def _disturbed(self) -> None:
        self._quiet_s = max(self._quiet_s, self._drain_s)
        self._heard = self._loop.time()


def _nowhere(_data: bytes) -> None:
    """Where bytes go without a connection."""


def _nothing() -> None:
    """What ends without a connection."""
