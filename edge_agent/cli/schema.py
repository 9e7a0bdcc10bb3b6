"""`edge-agent schema`: JSON Schemas of the records, and of the configuration for editors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from edge_agent.registry import Registry

Schema = dict[str, Any]

_DEFS = "#/$defs/"
_SECRET: Schema = {
    "description": "a secret by reference; `check` warns about one that is written out",
    "anyOf": [
        {"type": "string"},
        *(
            {"type": "object", "properties": {name: {"type": "string"}}, "required": [name], "maxProperties": 1}
            for name in ("file", "env", "credential")
        ),
    ],
}


def schema(
    what: Annotated[Literal["records", "config"], typer.Argument(help="Of the records, or of the configuration.")],
    kind: Annotated[str | None, typer.Option("--type", help="Only of this type of record, such as production.")] = None,
    event: Annotated[bool, typer.Option("--event", help="Of the whole event, not only of its data.")] = False,
) -> None:
    """Print the JSON Schemas (draft 2020-12) of the records, by type, or that of the configuration files, for editors.

    Example: `edge-agent schema config > edge-agent.schema.json`
    """
    if what == "config":
        if kind is not None or event:
            raise typer.BadParameter("--type and --event are for `schema records`")
        from edge_agent.registry import installed

        made = config_schema(installed())
    else:
        made = _records(kind, event)
    print(json.dumps(made, ensure_ascii=False, indent=2))


def _records(kind: str | None, event: bool) -> Schema:
    from edge_agent import record

    if kind is not None and kind not in record.TYPES:
        raise typer.BadParameter(f"no type of record {kind!r}; there are: {', '.join(record.TYPES)}")
    of = record.envelope_schema if event else record.schema
    return {each: of(each) for each in record.TYPES} if kind is None else of(kind)


# ------------------------------------------------------------------------------------------------ configuration


def config_schema(registry: Registry) -> Schema:
    """The JSON Schema of a configuration file, with the settings of these drivers.

    Every file holds a part of the whole, so no section is required.
    """
    from pydantic.json_schema import models_json_schema

    from edge_agent.config import models
    from edge_agent.contract import ConfigError

    sections: dict[str, type[BaseModel]] = {
        "agent": models.AgentSettings,
        "buffer": models.BufferSettings,
        "mqtt": models.MqttSettings,
        "calendar": models.CalendarSettings,
    }
    drivers = {}
    for name in registry.names():
        try:
            drivers[name] = registry.driver(name)
        except ConfigError:
            continue  # `check` names a driver that cannot be loaded
    wanted: list[type[BaseModel]] = [*sections.values(), models.MachineSettings]
    wanted += [model for driver in drivers.values() for model in (driver.Settings, driver.TagSettings)]
    refs, whole = models_json_schema([(model, "validation") for model in dict.fromkeys(wanted)])
    defs: Schema = whole["$defs"]
    for name, driver in drivers.items():
        settings = refs[driver.Settings, "validation"]["$ref"].removeprefix(_DEFS)
        defs[f"device.{name}"] = _device(name, defs[settings], refs[driver.TagSettings, "validation"])
    _mend(defs)
    devices = {"oneOf": [{"$ref": f"{_DEFS}device.{name}"} for name in drivers]}
    named = {"devices": devices, "machines": refs[models.MachineSettings, "validation"]}
    properties = {name: refs[model, "validation"] for name, model in sections.items()}
    properties |= {name: _by_name(one) for name, one in named.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:edge-agent:schema:config:1",
        "title": "Edge Agent configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": defs,
    }


def _by_name(schema: Schema) -> Schema:
    from pydantic import TypeAdapter

    from edge_agent.config.models import Name

    return {"type": "object", "propertyNames": TypeAdapter(Name).json_schema(), "additionalProperties": schema}


def _device(name: str, settings: Schema, tag: Schema) -> Schema:
    """A device of one driver: its settings, with the driver's name and with tags."""
    made = deepcopy(settings)
    made["properties"] |= {
        "driver": made["properties"]["driver"] | {"const": name},
        "tags": _by_name(tag) | {"minProperties": 1, "description": "Names, each with its address."},
    }
    made["required"] = [*made.get("required", ()), "tags"]
    return made


def _mend(defs: Schema) -> None:
    """Put right what the models' own schemas cannot say: what validators accept, and defaults as they are written."""
    from edge_agent.config.models import FIXED_WINDOWS_S, WINDOWS

    defs["Secret"] = _SECRET
    version = defs["MqttSettings"]["properties"]["version"]
    version |= {"enum": [*version["enum"], 5]}
    del version["type"]
    spaced = [re.sub(r"(\d)([a-z])", r"\1 \2", name) for name in FIXED_WINDOWS_S]
    defs["MachineSettings"]["properties"]["summarize"]["items"] = {"enum": [*WINDOWS, *spaced]}
    for each in _schemas(defs):
        if "patternProperties" in each:
            each.setdefault("additionalProperties", False)
        if "default" in each:
            _mend_default(each)


def _schemas(schema: Any) -> Iterator[Schema]:
    """Every schema in a schema, and what looks like one."""
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from _schemas(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _schemas(inner)


def _mend_default(schema: Schema) -> None:
    """A default of nanoseconds or bytes as people write it; one that cannot be written is left out."""
    from pydantic import TypeAdapter

    from edge_agent.contract import Duration, Size

    default = schema["default"]
    if schema.get("type") == "string" and not isinstance(default, str):
        del schema["default"]
        units = {
            TypeAdapter(Duration).json_schema()["pattern"]: ("d", "h", "min", "s", "ms", "us", "ns"),
            TypeAdapter(Size).json_schema()["pattern"]: ("GB", "MB", "kB", "B"),
        }.get(schema.get("pattern"))
        if units is not None:
            schema["default"] = _with_unit(default, units)
    elif default is None:
        del schema["default"]


def _with_unit(number: int, units: tuple[str, ...]) -> str:
    from edge_agent.contract import parse_duration, parse_size

    for unit in units:
        size = parse_size(f"1 {unit}") if unit.endswith("B") else parse_duration(f"1 {unit}")
        if number and number % size == 0:
            return f"{number // size} {unit}"
    return f"0 {units[-3]}"
