"""Whether records agree with their published schemas; thousands are checked, so by a compiled validator."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs

from edge_agent import record


@cache
def _validator(kind: str, envelope: bool) -> Any:
    return jsonschema_rs.validator_for(record.envelope_schema(kind) if envelope else record.schema(kind))


def agree(data: Any, kind: str) -> None:
    """Nothing, where the data of a record agrees with the schema of its type; else jsonschema_rs.ValidationError."""
    _validator(kind, False).validate(data)


def whole_agrees(event: Any, kind: str | None = None) -> None:
    """The same for a whole record with its attributes, by its own type unless one is given."""
    _validator(kind or event["type"].split(".")[1], True).validate(event)
