"""A PUBLISH as it goes onto the wire: its MQTT 5 properties, packed once, and its size."""

from __future__ import annotations

from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.contract import NS_PER_S

CONTENT_TYPE = "application/cloudevents+json"


class Latest(NamedTuple):
    """A retained latest value. `expires` is a monotonic time in nanoseconds, or None: it never does."""

    topic: str
    payload: bytes
    expires: int | None


class _Packed(Properties):
    """Properties that are packed once: paho's packing costs more than all the rest of a publish."""

    packed: bytes

    def __init__(self, properties: Properties) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        object.__setattr__(self, "packed", bytes(properties.pack()))  # type: ignore[no-untyped-call]

    def pack(self) -> bytes:
        return self.packed


class Messages:
    """The MQTT 5 properties of what is published; none on 3.1.1."""

    def __init__(self, five: bool) -> None:
        self._five = five
        self._live = self._properties()
        self._backlog = self._properties(UserProperty=("backlog", "true"))

    def record(self, waited: bool) -> _Packed | None:
        return self._backlog if waited else self._live

    def latest(self, value: Latest, now: int) -> _Packed | None:
        if value.expires is None:
            return self._live
        return self._properties(MessageExpiryInterval=max(1, round((value.expires - now) / NS_PER_S)))

    def _properties(self, **more: object) -> _Packed | None:
        if not self._five:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.PayloadFormatIndicator = 1
        properties.ContentType = CONTENT_TYPE
        for name, value in more.items():
            setattr(properties, name, value)
        return _Packed(properties)


def packet_bytes(topic: str, payload: bytes, properties: _Packed | None) -> int:
    """The size of a PUBLISH of QoS 1 on the wire, in bytes."""
    packed = len(properties.packed) if properties is not None else 0
    rest = 2 + len(topic.encode("utf-8", "replace")) + 2 + packed + len(payload)
    return 1 + sum(rest >= limit for limit in (0, 128, 16_384, 2_097_152)) + rest
