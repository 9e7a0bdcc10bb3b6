"""`edge-agent asyncapi`: an AsyncAPI 3 document of everything that the loaded configuration publishes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edge_agent.cli.common import ConfigOption

if TYPE_CHECKING:
    from edge_agent.config import Configuration
    from edge_agent.record import Publisher

Json = dict[str, Any]

_RETAINED = {"state", "status", "health"}
_EXPIRES_S = {"state": 180, "health": 180}
_TITLES = {
    "production": "One window of one machine: states, quantities, KPIs, and what is missing.",
    "downtime": "One stop of a machine: when, how long, why; said when it opens, ends, gets another reason, or ceases.",
    "job": "One job on a machine: said when it starts, and with its figures when it ends.",
    "entry": "What a person told the agent of a machine; never said again.",
    "gap": "A range of which something is missing or not published.",
    "manifest": "What was issued in a UTC hour, by topic, so that a consumer can prove that it has all.",
    "state": "What a machine does now; repeated each minute.",
    "health": "How the agent itself does; repeated each minute.",
    "status": "Whether the agent is there; also its last will.",
}
_BINDING = "0.2.0"
_HEADERS: Json = {
    "type": "object",
    "properties": {
        "backlog": {
            "const": "true",
            "description": "A user property, on MQTT 5 only: the record waited before it was sent.",
        }
    },
}


def asyncapi(config: ConfigOption = None) -> None:
    """Print an AsyncAPI 3.0 document (JSON) of the topics and records of the loaded configuration.

    Example: `edge-agent asyncapi --config /etc/edge-agent > asyncapi.json`
    """
    from edge_agent.cli.common import load_usable

    print(json.dumps(document(load_usable(config)), ensure_ascii=False, indent=2))


def document(configuration: Configuration) -> Json:
    """The AsyncAPI document: one server, one channel for each topic, one message for each type of record."""
    from edge_agent import __version__, record
    from edge_agent.contract import ConfigError

    agent, mqtt = configuration.agent, configuration.mqtt
    if agent is None or mqtt is None:
        raise ConfigError("the configuration has no agent or no mqtt section")
    publisher = record.Publisher(
        agent.name, agent.enterprise, agent.site, mqtt.topic_prefix, __version__, configuration.hash
    )
    channels = _channels(configuration, publisher)
    kinds = list(dict.fromkeys(kind for kind, _ in channels.values()))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Edge Agent {agent.name}",
            "version": __version__,
            "description": f"What {agent.name} publishes with the configuration {configuration.hash}.",
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {"broker": _server(mqtt.url)},
        "channels": {name: _channel(kind, topic) for name, (kind, topic) in channels.items()},
        "operations": {f"send.{name}": _operation(name, kind) for name, (kind, _) in channels.items()},
        "components": {
            "messages": {kind: _message(kind) for kind in kinds},
            "schemas": {kind: _schema(kind) for kind in kinds},
        },
    }


def _channels(configuration: Configuration, publisher: Publisher) -> dict[str, tuple[str, str]]:
    """The type of record and the topic of each channel, by its name."""
    from edge_agent import record
    from edge_agent.config import computed_windows
    from edge_agent.config.models import JOB

    prefix = publisher.prefix
    found: dict[str, tuple[str, str]] = {
        "status": ("status", record.agent_topic(publisher, "status")),
        "health": ("health", record.agent_topic(publisher, "health")),
        "gap": ("gap", record.agent_topic(publisher, "gap")),
        "manifest": ("manifest", record.agent_topic(publisher, "manifest")),
    }
    for name, settings in configuration.machines.items():
        subject = publisher.machine_subject(settings.area, settings.line, name)
        found[f"{name}.state"] = ("state", record.state_topic(prefix, subject))
        found[f"{name}.downtime"] = ("downtime", record.downtime_topic(prefix, subject))
        found[f"{name}.job"] = ("job", record.job_topic(prefix, subject))
        found[f"{name}.entry"] = ("entry", record.entry_topic(prefix, subject))
        for window in (*computed_windows(settings), *((JOB,) if JOB in settings.summarize else ())):
            topic = record.production_topic(prefix, subject, window)
            found[f"{name}.production.{window}"] = ("production", topic)
    return found


def _server(url: str) -> Json:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    protocol = {"mqtts": "secure-mqtt"}.get(parts.scheme, parts.scheme)
    made: Json = {"host": parts.netloc, "protocol": protocol, "protocolVersion": "5"}
    return made | ({"pathname": parts.path} if parts.path else {})


def _channel(kind: str, topic: str) -> Json:
    return {
        "address": topic,
        "servers": [{"$ref": "#/servers/broker"}],
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"}},
    }


def _operation(channel: str, kind: str) -> Json:
    mqtt: Json = {"qos": 1, "retain": kind in _RETAINED, "bindingVersion": _BINDING}
    if kind in _EXPIRES_S:
        mqtt["messageExpiryInterval"] = _EXPIRES_S[kind]
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind}"}],
        "bindings": {"mqtt": mqtt},
    }


def _message(kind: str) -> Json:
    return {
        **({} if kind in _RETAINED else {"headers": _HEADERS}),
        "name": f"edge.{kind}.v1",
        "title": kind,
        "summary": _TITLES.get(kind, f"A record of the type {kind}."),
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"#/components/schemas/{kind}"},
        "bindings": {
            "mqtt": {
                "payloadFormatIndicator": 1,
                "contentType": "application/cloudevents+json",
                "bindingVersion": _BINDING,
            }
        },
    }


def _schema(kind: str) -> Json:
    """The event's schema. Draft 7 is what every tool must read; ours use no word that it lacks."""
    from edge_agent import record

    schema = record.envelope_schema(kind) | {"$schema": "http://json-schema.org/draft-07/schema#"}
    return {"schemaFormat": "application/schema+json;version=draft-07", "schema": schema}
