"""What carries the bytes: a TCP connection or a serial port, opened and closed in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import termios
from pathlib import Path
from typing import Protocol, cast

import serial

from edge_agent.contract import LOOK_AGAIN_S, NotConnected, SameAdapter
from edge_agent_modbus.mbap import MbapExchange
from edge_agent_modbus.rtu import RtuExchange
from edge_agent_modbus.settings import Target
from edge_agent_modbus.wire import Exchange

_CLOSE_LIMIT_S = 2.0
_OPEN_LIMIT_S = 1.0
"""Some adapters need longer to open than their devices need to answer."""
_ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
_READ_BYTES = 4096
_BITS_PER_CHARACTER = 11
_PTY_MAJORS = range(136, 144)
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 20_000))


class Port(Protocol):
    """An open connection."""

    async def close(self) -> None:
        """Let go of it, within a bounded time."""


def exchange_for(target: Target, echo: bool = False) -> Exchange:
    """The conversation that a link to this target carries; `echo`: what is sent comes back first."""
    if target.scheme == "tcp":
        return MbapExchange()
    return RtuExchange(_BITS_PER_CHARACTER / target.line.baud if target.scheme == "rtu" else 0.0, echo)


async def open_port(target: Target, limit_s: float, exchange: Exchange, same: SameAdapter | None = None) -> Port:
    """The open connection to the target, carrying the exchange; on a serial line through the `same` adapter as before.

    Raises:
        NotConnected: it cannot be opened; the message says what to check.
    """
    if target.scheme == "rtu":
        return await _open_serial(target, limit_s, exchange, same)
    return await _open_tcp(target, limit_s, exchange)


# ---------------------------------------------------------------------------------------------------- TCP


class TcpPort(asyncio.Protocol):
    """A TCP connection, under the loop's own reading."""

    def __init__(self, target: Target, exchange: Exchange) -> None:
        self._target = target
        self._exchange = exchange
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._closed = asyncio.get_running_loop().create_future()
        self.data_received = exchange.received  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        _tune(transport.get_extra_info("socket"))
        self._exchange.opened(self._transport.write, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"broke: {exc}" if exc else "was closed by the device"
        if not self._closing:  # the exchange may be with another connection by now
            self._exchange.lost(f"the connection to {self._target.peer} {why}")
        if not self._closed.done():
            self._closed.set_result(None)

    async def close(self) -> None:
        """End the connection at once, unsent bytes and all."""
        self._exchange.lost(f"the connection to {self._target.peer} is closed")
        self._closing = True
        if self._transport is not None:
            self._transport.abort()
            await asyncio.wait([self._closed], timeout=_CLOSE_LIMIT_S)


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _open_tcp(target: Target, limit_s: float, exchange: Exchange) -> Port:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit_s):
            _, port = await loop.create_connection(lambda: TcpPort(target, exchange), target.place, target.port)
    except TimeoutError as error:
        raise NotConnected(
            f"no answer from {target.peer} within {limit_s:g} s: is the device powered and on this network, "
            "is the address right, does a firewall stand between?"
        ) from error
    except ConnectionRefusedError as error:
        what = "the serial gateway in raw TCP mode" if target.scheme == "rtu+tcp" else "Modbus TCP switched on"
        raise NotConnected(
            f"connection refused by {target.peer}: is {what} in the device, is the port right, "
            "are all of its connections taken?"
        ) from error
    except socket.gaierror as error:
        raise NotConnected(f"unknown host {target.place}: check its spelling and DNS, or write its address") from error
    except OSError as error:
        raise NotConnected(
            f"no way to {target.peer}: {error.strerror or error}; check this gateway's network settings"
        ) from error
    return port


# ------------------------------------------------------------------------------------------------- serial


class SerialPort:
    """A serial port whose descriptor the event loop watches; opening and closing happen in a thread."""

    def __init__(self, target: Target, port: serial.Serial, exchange: Exchange) -> None:
        self._target = target
        self._port: serial.Serial | None = port
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._descriptor: int = port.fileno()
        os.set_blocking(self._descriptor, False)
        self._loop.add_reader(self._descriptor, self._readable)
        exchange.opened(self._write, self._let_go)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._gone(error.strerror or str(error))
            return
        if data:
            self._exchange.received(data)
        else:
            self._gone("it reports end of file")

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._gone(error.strerror or str(error))
            return
        if written != len(data):
            self._gone("it takes no more bytes")

    def _gone(self, why: str) -> None:
        path = self._target.place
        hint = "is another program using it?" if Path(path).exists() else "it has been unplugged"
        self._let_go()
        self._exchange.lost(f"the serial port {path} is lost ({why}): {hint}")

    def _let_go(self) -> None:
        self._loop.remove_reader(self._descriptor)

    async def close(self) -> None:
        """Give the port back; what has not been sent is thrown away, so that the kernel does not wait for it."""
        self._exchange.lost(f"the serial port {self._target.place} is closed")
        port, self._port = self._port, None
        if port is not None:
            self._let_go()
            closing = self._loop.run_in_executor(None, _close, port)
            await asyncio.wait([closing], timeout=_CLOSE_LIMIT_S)


def _close(port: serial.Serial) -> None:
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(port.fileno(), termios.TCIOFLUSH)
    with contextlib.suppress(OSError, termios.error):
        port.close()


def _is_pty(path: str) -> bool:
    """A pseudo terminal has no parity, and the C library fails on the second attempt to set one."""
    return os.major(Path(path).stat().st_rdev) in _PTY_MAJORS


def _open(target: Target, same: SameAdapter | None) -> serial.Serial:
    line = target.line
    parity = "N" if _is_pty(target.place) else line.parity
    port = serial.Serial(
        target.place, line.baud, parity=parity, stopbits=line.stop, timeout=0, write_timeout=0, exclusive=True
    )
    try:
        if same is not None:
            same.check(port.fileno())
    except BaseException:
        _close(port)
        raise
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(port.fileno(), termios.TCIFLUSH)
    return port


async def _open_serial(target: Target, limit_s: float, exchange: Exchange, same: SameAdapter | None) -> Port:
    limit_s = max(limit_s, _OPEN_LIMIT_S)
    opening = asyncio.get_running_loop().run_in_executor(None, _open, target, same)
    try:
        async with asyncio.timeout(limit_s):
            port = await asyncio.shield(opening)
    except TimeoutError as error:
        opening.add_done_callback(_close_late)
        raise NotConnected(
            f"{target.place} does not open within {limit_s:g} s: unplug the adapter and plug it in"
        ) from error
    except asyncio.CancelledError:
        opening.add_done_callback(_close_late)
        raise
    except (OSError, ValueError, termios.error) as error:  # pyserial's own error is an OSError
        absent = getattr(error, "errno", None) in _ABSENT
        raise NotConnected(_why_not(target.place, error), retry_within_s=LOOK_AGAIN_S if absent else None) from error
    return SerialPort(target, port, exchange)


def _close_late(opening: asyncio.Future[serial.Serial]) -> None:
    """A port that opens after everybody has gone must not stay locked."""
    if not opening.cancelled() and opening.exception() is None:
        _close(opening.result())


def _why_not(path: str, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code in _ABSENT:
        return f"{path} is not there: is the adapter plugged in? `ls /dev/serial/by-id` shows those that are"
    if code == errno.EACCES:
        return f"no permission for {path}: add the agent's user to the group that owns it, usually dialout"
    if code in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return f"{path} is in use by another program: `fuser {path}` shows which"
    return f"{path} cannot be opened as a serial port: {error}"
