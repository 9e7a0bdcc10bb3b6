"""Whole chunks of bounded size for asyncua, which by itself would buffer and decrypt whatever a server announces."""

from __future__ import annotations

import asyncio

MAX_CHUNK_BYTES = 4 * 2**20
MAX_MESSAGE_BYTES = 32 * 2**20
MAX_CHUNKS = 4_096
"""A message of the largest size in the smallest chunks of a server (OPC 10000-6, 7.1.2.3)."""
MAX_UNTRUSTED_BYTES = 2**20
"""A message from whom nobody has logged in to yet."""
MAX_HANDSHAKE_BYTES = 16 * 2**10
"""An Acknowledge, an Error, or the opening of a channel, each block of which costs RSA."""
LEAST_BUFFER_BYTES = 8_192
_HEADER_BYTES = 8
_ACK_BYTES = 20


class Frames(asyncio.Protocol):
    """Stands between a transport and asyncua's protocol: passes on one whole chunk at a time, or ends the connection.

    `fault` says why it was ended here; `lost` is set when the transport is gone; `trusted`, once somebody has logged
    in, allows long messages.
    """

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
        self._buffer = bytearray()
        self._message_bytes = self._chunks = 0
        self.trusted = False
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
            more = chunk[3:4] == b"C"
            self._message_bytes, self._chunks = (self._message_bytes + size, self._chunks + 1) if more else (0, 0)
            self._inner.data_received(chunk)

    def _bounded(self) -> bool:
        size = int.from_bytes(self._buffer[4:8], "little")
        handshake = self._buffer[:3] != b"MSG"
        most = MAX_MESSAGE_BYTES if self.trusted else MAX_UNTRUSTED_BYTES
        if size < _HEADER_BYTES or size > (MAX_HANDSHAKE_BYTES if handshake else MAX_CHUNK_BYTES):
            self.fault = f"it announced a chunk of {size} bytes: {bytes(self._buffer[:_HEADER_BYTES]).hex(' ')}"
        elif self._message_bytes + size > most:
            self.fault = f"it sent a message of more than {most} bytes"
        elif self._chunks >= MAX_CHUNKS:
            self.fault = f"it sent a message in more than {MAX_CHUNKS} chunks"
        elif self._buffer[:3] == b"ACK" and len(self._buffer) >= _ACK_BYTES:
            least = min(int.from_bytes(self._buffer[at : at + 4], "little") for at in (12, 16))
            if least < LEAST_BUFFER_BYTES:
                self.fault = f"it takes or sends no more than {least} bytes at once; {LEAST_BUFFER_BYTES} is the least"
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
