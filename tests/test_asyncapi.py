"""`edge-agent asyncapi`: the document keeps the rules of AsyncAPI 3, and names the topics that records really go to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner
from worked_example import FOLDER, example

from edge_agent import record
from edge_agent.cli import app
from edge_agent.config import load

CONFIG = Path(__file__).parent.parent / "config"


def printed(config: Path) -> Any:
    result = CliRunner().invoke(app, ["asyncapi", "--config", str(config)])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.fixture(scope="module")
def document() -> Any:
    return printed(CONFIG)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolved(document: Any, reference: str) -> Any:
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        document = document[step]
    return document


def test_document_has_what_asyncapi_3_requires(document: Any) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    for server in document["servers"].values():
        assert {"host", "protocol"} <= server.keys()
        assert "://" not in server["host"]
    for kind in document["components"].values():
        assert all(re.fullmatch(r"[a-zA-Z0-9.\-_]+", name) for name in kind)
    addresses = [channel["address"] for channel in document["channels"].values()]
    assert len(addresses) == len(set(addresses)) > 10


def test_every_reference_leads_somewhere(document: Any) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        assert resolved(document, reference), reference


def test_operations_send_a_message_of_their_channel_with_qos_1(document: Any) -> None:
    sent = set()
    for operation in document["operations"].values():
        assert operation["action"] == "send"
        sent.add(operation["channel"]["$ref"])
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
        assert operation["bindings"]["mqtt"]["qos"] == 1
    assert sent == {f"#/channels/{name}" for name in document["channels"]}


def test_only_latest_values_are_retained_and_all_but_the_status_expire(document: Any) -> None:
    for name, operation in document["operations"].items():
        mqtt = operation["bindings"]["mqtt"]
        kind = next(iter(document["channels"][name.removeprefix("send.")]["messages"]))
        assert mqtt["retain"] == (kind in ("state", "status", "health")), name
        assert mqtt.get("messageExpiryInterval") == (180 if kind in ("state", "health") else None), name


def test_each_machine_has_channels_for_its_state_stops_jobs_entries_and_windows(document: Any) -> None:
    configuration = load(CONFIG)
    for name, settings in configuration.machines.items():
        channels = {channel for channel in document["channels"] if channel.startswith(f"{name}.")}
        windows = {f"{name}.production.{window}" for window in settings.summarize}
        assert channels == {f"{name}.{kind}" for kind in ("state", "downtime", "job", "entry")} | windows


def test_every_type_of_record_has_a_message_with_words_of_its_own(document: Any) -> None:
    messages = document["components"]["messages"]
    assert messages.keys() == set(record.TYPES) == document["components"]["schemas"].keys()
    summaries = [message["summary"] for message in messages.values()]
    assert len(set(summaries)) == len(summaries)
    assert not any(summary.startswith("A record of the type") for summary in summaries)
    assert {kind for kind, message in messages.items() if "headers" not in message} == {"state", "status", "health"}


def test_payloads_are_schemas_in_the_format_that_they_name(document: Any) -> None:
    for schema in document["components"]["schemas"].values():
        assert schema["schemaFormat"] == "application/schema+json;version=draft-07"
        jsonschema.Draft7Validator.check_schema(schema["schema"])
        used = json.dumps(schema["schema"])
        assert not re.findall(r'"(\$defs|unevaluated\w+|dependent\w+|prefixItems|minContains)"', used)


def test_records_go_to_the_addresses_of_the_document_and_agree_with_its_payloads() -> None:
    document = printed(FOLDER / "config")
    stored, states = example()
    by_address = {channel["address"]: channel for channel in document["channels"].values()}
    assert {one.type for one in stored} == {"production", "downtime", "job", "entry", "gap"}
    sent = [(one.topic, one.payload) for one in stored]
    sent += [("edge/v1/acme/lyon/press-hall/line-a/press-01/state", payload) for payload in states.values()]
    for topic, payload in sent:
        (message,) = by_address[topic]["messages"].values()
        found = resolved(document, resolved(document, message["$ref"])["payload"]["$ref"])
        jsonschema.Draft7Validator(found["schema"]).validate(json.loads(payload))
    silent = by_address.keys() - {topic for topic, _ in sent}
    assert {topic.rpartition("/")[2] for topic in silent} == {"status", "manifest", "health"}
