"""One connection to the broker: one paho client object, from the name lookup to the end of its thread.

paho runs its own thread. Its callbacks do nothing but hand what they were told to the event loop, so that no error of
ours can kill that thread; and since something else may (paho reports itself connected for ever then), the thread's
life and the kernel's note of the last inbound byte are watched from outside.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config.models import MqttSettings
from edge_agent.contract import ConfigError
from edge_agent.uplink import expiry, words
from edge_agent.uplink.threads import in_thread
from edge_agent.uplink.tls import tls_context
from edge_agent.uplink.words import Lost

__all__ = ["MQTT_3_1_1", "MQTT_5", "Connection", "ConnectionLimits", "MQTTProtocolVersion", "Terms", "Will"]

MQTT_5 = MQTTProtocolVersion.MQTTv5
MQTT_3_1_1 = MQTTProtocolVersion.MQTTv311

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_GUESSES = {
    False: "; if it wants TLS, write mqtts:// or wss://",
    True: "; if it asks for a certificate, see mqtt.certificate and mqtt.key",
}
_OF_THE_NETWORK = ("timed out", "unreachable", "No route")
_SELECT_LIMIT = 1024  # paho waits with select(), which knows no descriptor from here on
_MOST_INBOUND = 65_536
"""Nothing is subscribed: only acknowledgements come."""
_TCP_INFO_LAST_DATA_RECV = 52  # offset in Linux's struct tcp_info, milliseconds


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the agent vanishes."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class Terms:
    """What the broker's CONNACK allows."""

    receive_maximum: int = 65_535
    maximum_packet_bytes: int = 268_435_460
    keepalive_s: int = 15


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How long one connection waits for what."""

    keepalive_s: int = 15
    dial_s: float = 20.0
    """Name lookup, TCP and TLS together."""
    connack_s: float = 10.0
    hang_up_s: float = 2.0
    user_timeout_s: float = 20.0
    """TCP_USER_TIMEOUT: sent bytes that nobody acknowledges end the connection."""


class _Client(mqtt.Client):
    """paho's client, which closes its sockets when a handshake fails, and stops however its thread ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sockets: list[socket.socket] = []
        self._given_up = False
        super().__init__(*args, **kwargs)

    def _create_socket_connection(self) -> socket.socket:
        opened = super()._create_socket_connection()
        self.sockets.append(opened)
        if self._given_up:  # in the moment between: whoever gave up has not seen this one
            raise TimeoutError("given up")
        return opened

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > _MOST_INBOUND:  # paho gathers a packet of any size in memory
            raise OSError(errno.EMSGSIZE, f"the broker sends a packet of {bufsize} bytes")
        return super()._sock_recv(bufsize)

    def close_sockets(self) -> None:
        for opened in self.sockets:
            opened.close()

    def give_up(self) -> None:
        """End what the thread that dials waits for; it closes the sockets."""
        self._given_up = True
        for opened in [*self.sockets]:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        with suppress(AttributeError):  # paho forgets a thread that ends, also between its own check and join
            self.loop_stop()


class _LastError(logging.Handler):
    """Keeps paho's last complaint: the only place where it tells why a socket failed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class Connection:
    """One attempt at a session with the broker. Used once: `open`, any number of `publish`, `close`."""

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        version: MQTTProtocolVersion,
        will: Will | None,
        limits: ConnectionLimits,
        acknowledged: Callable[[int, int, str], None],
        *,
        login: bool = True,
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self.version = version
        self._will = will
        self._login = login
        self._limits = limits
        self._acknowledged = acknowledged
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # for `_closed` and `_dialled`, between the loop and the thread that dials
        self._closed = False
        self._dialled = False
        self._client: _Client | None = None
        self._dialling: _Client | None = None
        self._thread: threading.Thread | None = None
        self._connack: asyncio.Future[Terms] = self._loop.create_future()
        self.lost: asyncio.Future[Lost] = self._loop.create_future()
        self._connack.add_done_callback(lambda future: future.cancelled() or future.exception())  # now it is seen
        self._answers: deque[tuple[int, int, str]] = deque()
        self._answers_told = False
        self._complaint = _LastError()
        url = urlsplit(settings.url)
        self._host, self._port = url.hostname or "", url.port or _PORTS[url.scheme]
        self._secure = url.scheme in ("mqtts", "wss")
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "") if "ws" in url.scheme else None
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.where = f"{url.scheme}://{host}:{self._port}{self._path or ''}"

    # ------------------------------------------------------------------------------------------- for the session

    async def open(self) -> Terms:
        """Connect, and return what the broker allows.

        Raises:
            Lost: the broker is not there, refuses, or does not answer in time; the message says what to check.
        """
        try:
            await in_thread(self._dial, self._limits.dial_s, "uplink-dial")
        except (OSError, ValueError, ConfigError) as error:
            raise words.explain(error, self.where) from error
        try:
            async with asyncio.timeout(self._limits.connack_s):
                return await self._connack
        except TimeoutError as error:
            raise Lost(
                f"{self.where}: connected, but no MQTT answer in time: is it a broker, and well?", silent=True
            ) from error

    def publish(self, topic: str, payload: bytes, retain: bool, properties: Properties | None) -> int:
        """Hand one message to paho, and return its packet identifier. QoS 1.

        Raises:
            Lost: the connection has ended.
            ValueError: this cannot be a topic.
        """
        if self._client is None or self._closed:
            raise Lost(f"{self.where}: the connection is closed")
        info = self._client.publish(topic, payload, 1, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Lost(f"{self.where}: the connection has ended ({mqtt.error_string(info.rc)})")
        return info.mid

    def lose(self, error: Lost) -> None:
        """End this connection with this error; the first one counts."""
        if not self._connack.done():
            self._connack.set_exception(error)
        elif not self.lost.done():
            self.lost.set_result(error)

    def is_alive(self) -> bool:
        """Whether paho's thread lives. paho itself says it is connected even when it does not."""
        return self._thread is not None and self._thread.is_alive()

    def silence_s(self) -> float:
        """Seconds since the kernel last received a byte on this connection; 0.0 when that cannot be told."""
        with suppress(OSError), self._raw_socket() as raw:
            info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            milliseconds: int = struct.unpack_from("I", info, _TCP_INFO_LAST_DATA_RECV)[0]
            return milliseconds / 1000
        return 0.0

    def certificates_end(self) -> list[tuple[str, float]]:
        """Whose certificate ends when, in seconds since 1970 UTC; nothing without TLS."""
        if not self._secure or self._client is None:
            return []
        return expiry.ends(self._client.sockets, self._settings.certificate)

    async def close(self, *, politely: bool = False) -> None:
        """End the connection and its thread, within a limit. May be called again.

        Args:
            politely: with an MQTT DISCONNECT, so that the broker does not publish the will.
        """
        with self._lock:
            self._closed = True
            client = self._client if self._dialled else None
            if client is None and self._dialling is not None:
                self._dialling.give_up()
        if client is None:
            return
        if politely and self.is_alive():
            client.disconnect()
        else:
            self._cut()
        try:
            await in_thread(client.stop, self._limits.hang_up_s, "uplink-hang-up")
        except TimeoutError:
            self._cut()
            with suppress(TimeoutError):
                await in_thread(client.stop, self._limits.hang_up_s, "uplink-hang-up")
        finally:
            self._release(client)

    # ------------------------------------------------------------------------------------- in the thread that dials

    def _dial(self) -> None:
        client = self._dialling = self._build()
        properties = None
        if self.version == MQTT_5 and self._will is not None:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = _MOST_INBOUND
        try:
            client.connect(self._host, self._port, self._limits.keepalive_s, properties=properties)
            if (opened := client.socket()) is not None and opened.fileno() >= _SELECT_LIMIT:
                raise OSError(errno.EMFILE, "too many files are open: paho-mqtt needs a descriptor below 1024")
        except (OSError, ValueError):
            self._dialling = None
            client.close_sockets()
            raise
        with self._lock:
            self._dialling = None
            if self._closed:  # the limit passed meanwhile, and nobody waits any more
                client.close_sockets()
            else:
                self._client = client
                self._dialled = True
                client.loop_start()

    def _build(self) -> _Client:
        settings = self._settings
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if self.version == MQTT_5 else True,
            protocol=self.version,
            transport="tcp" if self._path is None else "websockets",
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True
        client.max_inflight_messages = 0  # the window is the session's
        client.connect_timeout = self._limits.connack_s
        quiet = logging.Logger("paho", logging.ERROR)
        quiet.addHandler(self._complaint)
        client.enable_logger(quiet)
        if self._path is not None:
            client.ws_set_options(path=self._path)
        if self._secure:
            client.tls_set_context(tls_context(settings, client.sockets))
        if self._login:
            client.username_pw_set(settings.username, settings.password.resolve() if settings.password else None)
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, 1, retain=True)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = self._on_socket_open
        return client

    # --------------------------------------------------------------------------------------------- in paho's thread

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(call, *args)

    def _on_connect(
        self, client: mqtt.Client, _: Any, __: mqtt.ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._thread = threading.current_thread()
        self._tell(self._answered, code.value, dict(vars(properties)) if properties is not None else {})

    def _on_publish(self, _: mqtt.Client, __: Any, mid: int, code: ReasonCode, properties: Properties) -> None:
        self._answers.append((mid, code.value, getattr(properties, "ReasonString", "")))
        if not self._answers_told:  # one turn of the event loop for all that came meanwhile
            self._answers_told = True
            self._tell(self._take_answers)

    def _on_disconnect(
        self, _: mqtt.Client, __: Any, flags: mqtt.DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._tell(self.lose, words.ended(code.value, getattr(properties, "ReasonString", "")))
        elif code.value == words.KEPT_SILENT:  # by paho's count
            self._tell(self.lose, Lost(f"{self.where}: the broker has been silent: check it and the network"))
        else:
            self._tell(self._hung_up, self._complaint.text)

    def _on_socket_open(self, client: mqtt.Client, _: Any, opened: Any) -> None:
        with suppress(OSError), socket.fromfd(opened.fileno(), socket.AF_INET, socket.SOCK_STREAM) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._limits.user_timeout_s * 1000))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a broker may switch MQTT's off
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self._limits.keepalive_s)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)

    # ---------------------------------------------------------------------------------------------- on the event loop

    def _answered(self, code: int, properties: dict[str, Any]) -> None:
        if self._connack.done():
            return
        if code != 0:
            self._connack.set_exception(words.ended(code, properties.get("ReasonString", "")))
            return
        self._connack.set_result(
            Terms(
                properties.get("ReceiveMaximum", Terms.receive_maximum),
                properties.get("MaximumPacketSize", Terms.maximum_packet_bytes),
                properties.get("ServerKeepAlive", self._limits.keepalive_s),
            )
        )

    def _take_answers(self) -> None:
        self._answers_told = False  # before the answers: one that comes now is taken here or told again
        while self._answers:
            answer = self._answers.popleft()
            if not self._closed:
                self._acknowledged(*answer)

    def _hung_up(self, complaint: str) -> None:
        silent = not self._connack.done()
        meaning = words.tls(complaint)
        if meaning is None:
            why = f" ({complaint.partition(': ')[2]})" if complaint else ""
            guess = _GUESSES[self._secure] if silent else ""
            meaning = f"the broker hung up{why}: its log may say why{guess}"
        network = any(sign in complaint for sign in _OF_THE_NETWORK)
        self.lose(Lost(f"{self.where}: {meaning}", silent=silent, by_broker=not network))

    def _raw_socket(self) -> socket.socket:
        """A second descriptor of the connection's socket, whatever paho has wrapped around it."""
        opened = self._client.socket() if self._client is not None else None
        if opened is None:
            raise OSError("no socket")
        return socket.fromfd(opened.fileno(), socket.AF_INET, socket.SOCK_STREAM)

    def _cut(self) -> None:
        with suppress(OSError), self._raw_socket() as raw:
            raw.shutdown(socket.SHUT_RDWR)

    def _release(self, client: _Client) -> None:
        """Close what a dead thread left open, and part the client from us, so that it goes at once."""
        if (left := client.socket()) is not None:
            left.close()
        client.on_connect = client.on_publish = client.on_disconnect = client.on_socket_open = None
        self._client = None
