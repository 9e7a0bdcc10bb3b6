"""A serial port, confined to one thread: what blocks there blocks nothing else.

Opening, closing and writing may hang for many seconds in a kernel or an adapter, and pyserial's objects may not be
closed while another thread uses them. So one thread opens the port, reads, writes and closes it; the event loop hands
it bytes and takes bytes from a bounded buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import socket
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import serial

from edge_agent.contract import LOOK_AGAIN_S, NotConnected, SameAdapter
from edge_agent_serial.settings import Line

BUFFERED_BYTES = 256 * 1024
"""What is kept of a line that nobody reads; more is lost, and said to be."""

_READ_BYTES = 4096
_WRITE_LIMIT_S = 1.0
_CLOSE_LIMIT_S = 2.0
_RETURN_LIMIT_S = 0.1  # for the thread's last steps after it has said that it ended: microseconds
_SLICE_S = 0.5  # the longest wait of the thread; it is woken for work
_SLICE_WITHOUT_DESCRIPTOR_S = 0.02
# What pyserial and the operating system raise for a port that cannot be opened or is gone; termios.error is no OSError,
# and ValueError is pyserial's select() with a descriptor above 1023.
_FOREIGN = (OSError, termios.error, ValueError)


class Chunk(NamedTuple):
    """Bytes that arrived together, and when (monotonic seconds); no bytes: some were lost here."""

    at: float
    data: bytes


class Port:
    """One opening of a serial port: `open`, then `write` and `receive`, then `close`; a new one for each connection."""

    def __init__(self, url: str, line: Line, same: SameAdapter | None = None) -> None:
        self.url, self.line = url, line
        self._same = same
        self.last_byte_at = 0.0
        self._lock = threading.Lock()
        self._bell = -1  # an eventfd that wakes the thread; guarded by the lock, so that no foreign descriptor is rung
        self._closing = False
        self._outgoing: deque[tuple[bytes, asyncio.Future[bool]]] = deque()
        self._chunks: deque[Chunk] = deque()
        self._held_bytes = 0
        self._lost: BaseException | None = None
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------ on the event loop

    async def open(self, limit_s: float) -> None:
        """Open the port, within a time.

        Raises:
            NotConnected: it is not there, not ours to use, or did not open in time.
        """
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"serial {self.url}", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(limit_s):
                await self._opened
        except TimeoutError as error:
            raise NotConnected(f"{self.url}: did not open within {limit_s:g} s; is the host reachable?") from error
        except _FOREIGN as error:
            absent = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)
            within_s = LOOK_AGAIN_S if absent and self.url.startswith("/") else None
            raise NotConnected(f"{self.url}: {self._why_not_open(error)}", retry_within_s=within_s) from error

    async def write(self, data: bytes) -> bool:
        """Send the bytes; False, and nothing is sent, where bytes have come that nobody has taken.

        Raises:
            NotConnected: the port is gone, or does not take them.
        """
        self.check()
        sent: asyncio.Future[bool] = self._loop.create_future()
        self._outgoing.append((data, sent))
        self._ring()
        try:
            async with asyncio.timeout(2 * _WRITE_LIMIT_S):
                return await sent
        except TimeoutError as error:
            raise NotConnected(f"{self.url}: takes no bytes; is the adapter hung?") from error
        except _FOREIGN as error:
            raise NotConnected(f"{self.url}: {self._why_lost(error)}") from error

    async def receive(self, until: float | None = None) -> Chunk | None:
        """The next bytes in order of arrival; None when the monotonic time `until` comes first.

        Raises:
            NotConnected: the port is gone, and all that it brought has been taken.
        """
        while True:
            with self._lock:
                if self._chunks:
                    chunk = self._chunks.popleft()
                    self._held_bytes -= len(chunk.data)
                    return chunk
                self._news.clear()
            self.check()
            try:
                async with asyncio.timeout(None if until is None else max(0.0, until - time.monotonic())):
                    await self._news.wait()
            except TimeoutError:
                return None

    def discard(self) -> bool:
        """Forget what has arrived and was not taken; whether there was anything."""
        with self._lock:
            had = bool(self._chunks)
            self._chunks.clear()
            self._held_bytes = 0
        return had

    def check(self) -> None:
        """Nothing, while the port lives.

        Raises:
            NotConnected: it is gone, or closed.
        """
        if self._closing or self._thread is None:
            raise NotConnected(f"{self.url}: closed")
        if self._lost is not None:
            raise NotConnected(f"{self.url}: {self._why_lost(self._lost)}") from self._lost

    @property
    def alive(self) -> bool:
        """Whether the thread still holds, opens or closes the port."""
        return self._thread is not None and not self._ended.done()

    def abandon(self) -> None:
        """Let go of the port as soon as it can be done, without waiting for it."""
        self._closing = True
        if self._thread is not None:
            self._news.set()
            self._ring()

    async def close(self) -> None:
        """Let go of the port within 2 s; a port that takes longer to close is left to its thread."""
        self.abandon()
        if self._thread is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await asyncio.shield(self._ended)
            self._thread.join(_RETURN_LIMIT_S)

    def _ring(self) -> None:
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _why_not_open(self, error: BaseException) -> str:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.ENOENT:
            return "is not there: is the adapter plugged in? See ls -l /dev/serial/by-id/"
        if number in (errno.EACCES, errno.EPERM):
            return "may not be opened: the agent's user must be in the group dialout, and the unit allow the device"
        if number in (errno.EBUSY, errno.EAGAIN):
            return "is in use by another program: see `fuser -v` with its path"
        if isinstance(error, termios.error) and error.args[0] == errno.EINVAL:
            return f"does not take the line settings {self.line}"
        if not self.url.startswith("/"):
            return f"no connection: is the serial server on, and its port number right? ({error})"
        return f"is not a usable serial port ({error})"

    def _why_lost(self, error: BaseException) -> str:
        if not self.url.startswith("/"):
            return f"the serial server closed the connection ({error})"
        if isinstance(error, _Moved):
            return "the name leads to another port now; was the adapter plugged in elsewhere?"
        if os.path.exists(self.url):  # noqa: PTH110 (a stat of devtmpfs does not block)
            return f"the port failed ({error}); was it unplugged for a moment, or is another program reading it?"
        return "the adapter was unplugged"

    # ---------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        port: serial.SerialBase | None = None
        try:
            port = _open(self.url, self.line)
            if self._same is not None and self.url.startswith("/"):
                self._same.check(_descriptor(port))
            self._tell(self._opened)
            self._serve(port)
        except (NotConnected, *_FOREIGN) as error:
            self._lost = error
        finally:
            if port is not None:
                _close(port)
            with self._lock:
                os.close(self._bell)
                self._bell = -1
            self._lost = self._lost or ConnectionError("closed")
            self._tell(self._opened, self._lost)
            while self._outgoing:
                self._tell(self._outgoing.popleft()[1], self._lost)
            self._later(self._news.set)
            self._tell(self._ended)

    def _serve(self, port: serial.SerialBase) -> None:
        local, look_at = self.url.startswith("/"), 0.0
        fd = _descriptor(port)
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if fd >= 0:
            poll.register(fd, select.POLLIN)
        slice_ms = 1000 * (_SLICE_S if fd >= 0 else 0)
        while not self._closing:
            ready = dict(poll.poll(slice_ms))
            if self._bell in ready:
                os.eventfd_read(self._bell)
            if local and time.monotonic() >= look_at:
                look_at = time.monotonic() + _SLICE_S
                _check_name(self.url, fd)
            if fd < 0:
                self._keep(port.read(1) + port.read(port.in_waiting))  # type: ignore[attr-defined]
            elif fd in ready:  # before any write, which takes what has come as well
                self._keep(_read(fd))
            while self._outgoing and not self._closing:
                data, sent = self._outgoing.popleft()
                self._write(port, fd, data, sent)

    def _write(self, port: serial.SerialBase, fd: int, data: bytes, sent: asyncio.Future[bool]) -> None:
        """Write, unless an answer to an earlier request has come in the meantime: it would be taken for the next."""
        try:
            if fd < 0:
                self._keep(port.read(port.in_waiting))  # type: ignore[attr-defined]
            elif _ready(fd):
                self._keep(_read(fd))
            quiet = not self._chunks
            if quiet:
                port.write(data)
        except _FOREIGN as error:
            self._tell(sent, error)
            raise
        self._later(lambda: None if sent.done() else sent.set_result(quiet))

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        now = time.monotonic()
        with self._lock:
            self.last_byte_at = now
            losing = bool(self._chunks) and not self._chunks[-1].data
            # A loss goes on until half is taken, so that it is one loss and not many.
            if self._held_bytes + len(data) <= (BUFFERED_BYTES // 2 if losing else BUFFERED_BYTES):
                self._chunks.append(Chunk(now, data))
                self._held_bytes += len(data)
            else:
                if losing:
                    self._chunks.pop()
                self._chunks.append(Chunk(now, b""))  # with the time of its end
        self._later(self._news.set)

    def _tell(self, future: asyncio.Future[Any], error: BaseException | None = None) -> None:
        def settle() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # marks it as seen: its waiter may have given up

        self._later(settle)

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before the port let go
            self._loop.call_soon_threadsafe(call)


def _open(url: str, line: Line) -> serial.SerialBase:
    local = url.startswith("/")
    port: serial.SerialBase = serial.serial_for_url(
        url,
        baudrate=line.baud,
        bytesize=line.data_bits,
        parity=line.parity,
        stopbits=line.stop_bits,
        timeout=_SLICE_WITHOUT_DESCRIPTOR_S,
        write_timeout=None if url.startswith("rfc2217:") else _WRITE_LIMIT_S,  # there the socket has its own
        exclusive=True if local else None,
    )
    try:
        if local:
            _claim(_descriptor(port))
        else:
            _keep_alive(port._socket)  # type: ignore[attr-defined]
    except BaseException:
        _close(port)
        raise
    return port


class _Moved(ConnectionError):
    """The port's name leads to another one."""


def _check_name(url: str, fd: int) -> None:
    """Nothing, while the name leads to the port that is open: some adapters vanish without a hang-up."""
    if os.stat(url).st_rdev != os.fstat(fd).st_rdev:  # noqa: PTH116 (devtmpfs does not block)
        raise _Moved(url)


def _claim(fd: int) -> None:
    """Keep other programs out, also those that do not lock; let a damaged character arrive as a NUL, not as a guess."""
    fcntl.ioctl(fd, termios.TIOCEXCL)
    settings = termios.tcgetattr(fd)
    settings[0] = settings[0] & ~(termios.IGNPAR | termios.PARMRK | termios.ISTRIP | termios.BRKINT) | termios.INPCK
    termios.tcsetattr(fd, termios.TCSANOW, settings)


def _keep_alive(connection: socket.socket) -> None:
    """Notice within about 25 s a server that vanished without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)


def _descriptor(port: serial.SerialBase) -> int:
    """The port's file descriptor, -1 where it has none (RFC 2217, whose own thread reads the socket)."""
    try:
        return port.fileno()
    except OSError:
        return -1


def _ready(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _read(fd: int) -> bytes:
    try:
        data = os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return b""
    if not data:
        raise ConnectionError("ready to read, but no data")
    return data


def _close(port: serial.SerialBase) -> None:
    connection: socket.socket | None = getattr(port, "_socket", None)  # pyserial forgets one whose peer is gone
    with contextlib.suppress(*_FOREIGN):
        if connection is None:
            fd = _descriptor(port)
            termios.tcflush(fd, termios.TCOFLUSH)  # a close waits up to 30 s for what the line did not take
            fcntl.ioctl(fd, termios.TIOCNXCL)
    with contextlib.suppress(*_FOREIGN):
        port.close()
    if connection is not None:
        connection.close()
