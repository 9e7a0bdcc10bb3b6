"""`edge-agent schema`: what it prints are schemas, and what the agent reads and writes agrees with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from edge_agent import record
from edge_agent.cli import app
from edge_agent.cli.schema import config_schema
from edge_agent.registry import installed

CONFIG = Path(__file__).parent.parent / "config"
MACHINE = "machines: {m: {area: a, line: b, state: {tag: p.s, map: {1: producing}}, counts: {good: {tag: p.c}}, "
DRAFT = jsonschema.Draft202012Validator


def printed(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["schema", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def as_an_editor_sees_it(value: Any) -> Any:
    """JSON: keys are texts, and a date is one."""
    if isinstance(value, dict):
        return {str(key): as_an_editor_sees_it(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_an_editor_sees_it(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def loaded(text: str) -> Any:
    return as_an_editor_sees_it(YAML(typ="safe", pure=True).load(text))


@pytest.fixture(scope="module")
def configuration() -> Any:
    return DRAFT(config_schema(installed()))


def defaults(schema: Any) -> Iterator[tuple[Any, Any]]:
    """Every default with the schema that it stands in."""
    if isinstance(schema, dict):
        if "default" in schema:
            yield schema["default"], schema
        for inner in schema.values():
            yield from defaults(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from defaults(inner)


def test_schema_records_prints_a_valid_schema_of_every_type() -> None:
    made = printed("records")
    assert tuple(made) == record.TYPES
    for kind, schema in made.items():
        DRAFT.check_schema(schema)
        assert schema["$id"] == f"urn:edge-agent:schema:{kind}:1"


def test_schema_records_of_one_type_prints_it_alone_and_with_its_envelope() -> None:
    assert printed("records", "--type", "production") == record.schema("production")
    event = printed("records", "--type", "gap", "--event")
    assert event == record.envelope_schema("gap")
    DRAFT.check_schema(event)


def test_schema_of_an_unknown_type_is_a_usage_error_that_names_the_types() -> None:
    result = CliRunner().invoke(app, ["schema", "records", "--type", "productoin"])
    assert result.exit_code == 2
    assert "production" in result.output


def test_schema_config_is_a_valid_schema() -> None:
    DRAFT.check_schema(printed("config"))


@pytest.mark.parametrize("path", sorted(CONFIG.rglob("*.yaml")), ids=lambda path: path.stem)
def test_example_configuration_agrees_with_the_schema(path: Path, configuration: Any) -> None:
    configuration.validate(loaded(path.read_text("utf-8")))


def test_every_default_in_the_schema_of_the_configuration_agrees_with_its_own_schema(configuration: Any) -> None:
    found = list(defaults(configuration.schema))
    assert len(found) > 30
    assert configuration.schema["$defs"]["BufferSettings"]["properties"]["commit"]["default"] == "500 ms"
    for default, schema in found:
        if isinstance(default, str):
            configuration.evolve(schema=schema).validate(default)


@pytest.mark.parametrize(
    "text",
    [
        "agent: {name: gw1, enterprise: acme}",
        "agent: {name: gw.1, enterprise: acme, site: lyon}",
        "agnet: {}",
        "mqtt: {url: 'mqtt://h', password: {vault: x}}",
        "buffer: {refresh: 60}",
        "devices: {plc: {driver: modbus, url: 'tcp://h'}}",
        "devices: {plc: {driver: modbsu, url: 'tcp://h', tags: {a: {address: 40001}}}}",
        "devices: {plc: {driver: modbus, url: 'tcp://h', tags: {a: {address: 40001, word_ordre: CDAB}}}}",
        "devices: {plc: {driver: opcua, url: 'opc.tcp://h', tags: {a: {address: i=2258}}}}",
        "calendar: {shifts: {early: {from: '6:00', to: '14:00'}}}",
        "machines: {m: {area: a, line: b, state: {tag: p.s, map: {1: producing}}, counts: {}}}",
        "machines: {m: {area: a, line: b, state: {tag: p.s, map: {1: prodcing}}, counts: {produced: {tag: p.c}}}}",
        MACHINE + "reason: {tree: [jam/]}}}",
        MACHINE + "reason: {tag: p.a, map: {17: ''}}}}",
        MACHINE + "product: {run_time: 2 s}}}",
        MACHINE + "product: {planned_run_time_per_item: {A: 2}}}}",
        MACHINE + "job: {operation: p.o}}}",
        MACHINE + "job: {tag: p.o, fields: {no batch: p.b}}}}",
        MACHINE + "goal: 3600}}",
    ],
)
def test_mistake_in_the_configuration_disagrees_with_the_schema(text: str, configuration: Any) -> None:
    assert not configuration.is_valid(loaded(text))


@pytest.mark.parametrize(
    "text",
    [
        "mqtt: {url: 'mqtt://h', version: 5, password: {credential: mqtt}}",
        "mqtt: {url: 'mqtt://h', version: 3.1.1, password: open}",
        "calendar: {closed: [2026-12-25]}",
        "machines: {m: {area: a, line: b, state: {tag: p.s, map: {1: producing}}, counts: {good: {tag: p.c}},"
        " summarize: [10 s, 1min, 1 h, shift]}}",
        MACHINE + "summarize: [job], goal: 3600 /h}}",
        MACHINE + "reason: {tag: p.a, map: {17: a/b c, x: d}, tree: [e / f, g], planned_stop: [e]}}}",
        MACHINE + "product: {tag: p.r, planned_run_time_per_item: {A 1: 2 s, 4711: 500 ms}}}}",
        MACHINE + "job: {tag: p.o, operation: p.s, planned_quantity: p.q, fields: {batch: p.b}}}}",
        "devices: {s: {driver: serial, url: /dev/ttyS0, profile: sics, tags: {weight: {address: weight}}}}",
    ],
)
def test_what_check_accepts_agrees_with_the_schema(text: str, configuration: Any) -> None:
    configuration.validate(loaded(text))
