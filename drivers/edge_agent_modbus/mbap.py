"""The conversation of Modbus TCP: each answer carries the transaction of its request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edge_agent_modbus.frames import MAX_MBAP_LENGTH, MBAP_HEAD_BYTES, Request
from edge_agent_modbus.wire import Exchange, Nonsense

_DATA_AT = 9


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
