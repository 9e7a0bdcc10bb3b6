"""`edge-agent asyncapi`: the document keeps the rules of AsyncAPI 3, and names the topics that records really go to."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from edge_agent.backtest import Trial
from edge_agent.cli import app
from edge_agent.config import load
from edge_agent.store import Store

CONFIG = Path(__file__).parent.parent / "config"
CASE = Path(__file__).parent / "cases" / "agent_killed_while_the_machine_ran"


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
        mqtt = operation["bindings"]["mqtt"]
        kept = operation["channel"]["$ref"].endswith(("state", "status"))
        assert (mqtt["qos"], mqtt["retain"]) == (1, kept)
    assert sent == {f"#/channels/{name}" for name in document["channels"]}


def test_payloads_are_schemas_in_the_format_that_they_name(document: Any) -> None:
    for schema in document["components"]["schemas"].values():
        assert schema["schemaFormat"] == "application/schema+json;version=draft-07"
        jsonschema.Draft7Validator.check_schema(schema["schema"])
        used = json.dumps(schema["schema"])
        assert not re.findall(r'"(\$defs|unevaluated\w+|dependent\w+|prefixItems|minContains)"', used)


def test_records_go_to_the_addresses_of_the_document_and_agree_with_its_payloads(tmp_path: Path) -> None:
    document = printed(CASE / "config")
    with (CASE / "readings.csv").open() as lines:
        asyncio.run(Trial(load(CASE / "config"), tmp_path).run(lines, "readings.csv"))
    with Store(tmp_path, create=False) as store:
        stored = store.records.page()
    by_address = {channel["address"]: channel for channel in document["channels"].values()}
    assert {one.type for one in stored} == {"production", "gap"}
    for one in stored:
        (message,) = by_address[one.topic]["messages"].values()
        payload = resolved(document, resolved(document, message["$ref"])["payload"]["$ref"])
        jsonschema.Draft7Validator(payload["schema"]).validate(json.loads(one.payload))
