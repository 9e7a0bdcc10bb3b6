"""The conversation of Modbus RTU: an answer is known only by having been awaited."""

from __future__ import annotations

from edge_agent_modbus.frames import REFUSAL_FRAME_BYTES, Request, find_rtu_answer
from edge_agent_modbus.wire import UNASKED_LIMIT_BYTES, Exchange, Nonsense


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
            if len(self._buffer) > UNASKED_LIMIT_BYTES:
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
        now_s = self._loop.time()
        self._quiet_s = max(self._quiet_s, self._drain_s)
        self._heard = now_s
        # Given up early (cancelled, cut off, nonsense), its answer may still come in time, and then late.
        self._free_s = max(now_s, self._due_s) + self._drain_s
