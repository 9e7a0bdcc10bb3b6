"""A subscriber: what a central system would receive. For the demo, which shows and checks what arrives."""

from __future__ import annotations

import queue
from types import TracebackType
from typing import Any, NamedTuple, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.contract import EdgeAgentError

ANSWER_S = 10.0


class Received(NamedTuple):
    """One message as it arrived."""

    topic: str
    payload: bytes
    retained: bool


class Subscriber:
    """Everything that arrives on a topic filter, in order, until it is closed."""

    def __init__(self, host: str, port: int, topics: str, *, five: bool = True) -> None:
        """Connect and subscribe.

        Raises:
            EdgeAgentError: the broker does not answer in time.
        """
        self._received: queue.SimpleQueue[Received] = queue.SimpleQueue()
        subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
        protocol = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        client.on_subscribe = lambda *_: subscribed.put(None)
        client.on_message = self._take
        self._client = client
        try:
            client.connect(host, port, keepalive=30)
            client.loop_start()
            subscribed.get(timeout=ANSWER_S)
        except (OSError, queue.Empty) as error:
            self.close()
            raise EdgeAgentError(f"no broker answers at {host}:{port}") from error

    def _take(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self._received.put(Received(message.topic, bytes(message.payload), message.retain))

    def taken(self) -> list[Received]:
        """What has arrived since the last call."""
        found = []
        while not self._received.empty():
            found.append(self._received.get())
        return found

    def close(self) -> None:
        """Leave the broker; idempotent."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
