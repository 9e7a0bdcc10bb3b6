"""What JSON Schemas of records are made of: times, texts, counts, names, objects."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TIME: Schema = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3,9})?Z$"}
TEXT: Schema = {"type": "string"}
SEQUENCE: Schema = {"type": "string", "pattern": r"^\d{12,}$"}
FLAG: Schema = {"type": "boolean"}
SECONDS: Schema = {"type": "number", "minimum": 0}
COUNT: Schema = {
    "oneOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?\d{16,}$"}],
    "description": "an integer; beyond 2^53 a string of its digits",
}
NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}
WORD: Schema = {"type": "string", "pattern": r"^[a-z0-9_]+$"}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def an_object(properties: dict[str, Schema], description: str | None = None) -> Schema:
    made: Schema = {"type": "object", "properties": properties, "required": list(properties)}
    return made if description is None else {"description": description} | made


def words(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}
