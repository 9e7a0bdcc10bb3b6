"""Whole chunks of bounded size for asyncua, which by itself would buffer whatever a server announces."""

from __future__ import annotations

import asyncio

MAX_CHUNK_BYTES = 4 * 2**20
MAX_MESSAGE_BYTES = 32 * 2**20
_HEADER_BYTES = 8


class Frames(asyncio.Protocol):
    """Stands between a transport and asyncua's protocol: passes on one whole chunk at a time, or ends the connection.

    `fault` says why it was ended here; `lost` is set when the transport is gone.
    """

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
        self._buffer = bytearray()
        self._message_bytes = 0
        self.fault: str | None = None
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the transport."""
        if self.fault is not None:
            return
        self._buffer += data
        while len(self._buffer) >= _HEADER_BYTES and self._bounded():
            size = int.from_bytes(self._buffer[4:8], "little")
            if len(self._buffer) < size:
                return
            chunk = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._message_bytes = self._message_bytes + size if chunk[3:4] == b"C" else 0
            self._inner.data_received(chunk)

    def _bounded(self) -> bool:
        size = int.from_bytes(self._buffer[4:8], "little")
        if size < _HEADER_BYTES or size > MAX_CHUNK_BYTES:
            self.fault = f"it announced a chunk of {size} bytes: {bytes(self._buffer[:_HEADER_BYTES]).hex(' ')}"
        elif self._message_bytes + size > MAX_MESSAGE_BYTES:
            self.fault = f"it sent a message of more than {MAX_MESSAGE_BYTES} bytes"
        if self.fault is None:
            return True
        self._buffer.clear()
        self._transport.abort()
        return False

    def eof_received(self) -> None:
        """The peer closed; so do we."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever still waits for an answer."""
        self.lost.set()
        self._inner.connection_lost(exc)
