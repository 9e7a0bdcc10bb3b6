"""One connection to the broker, to see whether it works: nothing is published, and no will is left behind."""

from __future__ import annotations

import secrets

from edge_agent.config.models import MqttSettings
from edge_agent.uplink import words
from edge_agent.uplink.connection import MQTT_3_1_1, MQTT_5, Connection, ConnectionLimits
from edge_agent.uplink.words import Lost


async def try_broker(settings: MqttSettings, agent: str) -> str:
    """Log in as the agent would, under another client id, so that a running one is not thrown out; what was agreed.

    Raises:
        Lost: it does not work; the message says what to check.
    """
    client_id = f"{agent}-check-{secrets.token_hex(3)}"
    versions = [MQTT_3_1_1] if settings.version == "3.1.1" else [MQTT_5]
    for version in versions:
        connection = Connection(settings, client_id, version, None, ConnectionLimits(), lambda *_: None)
        try:
            terms = await connection.open()
        except Lost as error:
            if settings.version == "auto" and version == MQTT_5 and error.code == words.UNSUPPORTED_VERSION:
                versions.append(MQTT_3_1_1)
                continue
            raise
        finally:
            await connection.close(politely=True)
        name = "5" if version == MQTT_5 else "3.1.1, whose acknowledgement proves less"
        return f"MQTT {name}, packets up to {terms.maximum_packet_bytes} bytes"
    raise AssertionError("a version is always tried")
