"""Brokers for tests: mosquitto and amqtt in processes of their own, on ports of their own, ended by their pid."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt install mosquitto")

_AMQTT = """
import asyncio, logging, sys
from amqtt.broker import Broker
logging.disable(logging.CRITICAL)
async def main():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class _Broker:
    """A broker process. `with Mosquitto() as broker:` starts and stops it."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.lost_its_memory = 0

    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process, and wait until it listens."""
        assert self._process is None, "already started"
        self._process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the broker did not start: {self.command()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it well, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start it on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it from running, with its sockets open: a half-open peer."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signal_number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a frozen one would never read its SIGTERM
        try:
            process.wait(30)  # it writes down the sessions and messages that it keeps
        except subprocess.TimeoutExpired:
            self.lost_its_memory += signal_number == signal.SIGTERM
            process.kill()
            process.wait(5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Mosquitto(_Broker):
    """mosquitto with the given lines of configuration after `listener <port> 127.0.0.1`."""

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True, port: int | None = None) -> None:
        super().__init__(port)
        self._file = folder / f"mosquitto-{self.port}.conf"
        user = ["user root"] if os.geteuid() == 0 else []
        self._file.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    f"allow_anonymous {str(anonymous).lower()}",
                    "max_queued_messages 1000000",  # a subscriber in a test must miss nothing (0 makes 2.0.11 hang up)
                    *user,
                    *lines,
                    "",
                ]
            )
        )

    def command(self) -> list[str]:
        if MOSQUITTO is None:
            pytest.skip("mosquitto is not installed: apt install mosquitto")
        return [MOSQUITTO, "-c", str(self._file)]


class Amqtt(_Broker):
    """amqtt, which speaks MQTT 3.1.1 only."""

    def command(self) -> list[str]:
        return [sys.executable, "-W", "ignore", "-c", _AMQTT, str(self.port)]


class Subscriber:
    """Everything that a subscriber receives on a topic filter, in order. Reconnects by itself.

    `persistent`: the broker (with persistence) keeps for it what comes while it is away.
    """

    def __init__(
        self, port: int, topics: str = "#", *, five: bool = True, persistent: bool = False, **login: str
    ) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._subscribed: queue.Queue[None] = queue.Queue()
        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "subscriber" if persistent else "", protocol=version)
        if login:
            client.username_pw_set(**login)
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda client, *_: client.subscribe(topics, 1)
        client.on_subscribe = lambda *_: self._subscribed.put(None)
        client.on_message = lambda _client, _userdata, message: self.messages.put(message)
        if persistent:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3_600
            client.connect("127.0.0.1", port, 60, clean_start=False, properties=properties)
        else:
            client.connect("127.0.0.1", port, 60)
        client.loop_start()
        self._client = client
        self._subscribed.get(timeout=10)

    def next(self, timeout_s: float = 10) -> mqtt.MQTTMessage:
        """The next message; queue.Empty when none comes in time."""
        return self.messages.get(timeout=timeout_s)

    def taken(self) -> Iterator[mqtt.MQTTMessage]:
        """What has come and was not taken yet."""
        while not self.messages.empty():
            yield self.messages.get_nowait()

    def close(self) -> None:
        client: Any = self._client
        client.disconnect()
        client.loop_stop()
        client._reset_sockets()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
