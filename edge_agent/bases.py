"""How a configuration computes, kept under its hash: a revision is made with what was in force at the first close.

What the arithmetic is given (machines, calendar) is written as JSON and read again: plain values as they are, all else
with the name of its kind. A field that an older version did not have takes its default.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from edge_agent.equipment import CounterRules, FromCount, IncrementRules, PulseRules, Rules, StatusMap, rules
from edge_agent.equipment.stops import ReasonRules
from edge_agent.equipment.work import WorkRules
from edge_agent.metrics import Definition
from edge_agent.production import Machine
from edge_agent.shifts import Calendar, Shift

log = logging.getLogger(__name__)

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Machine, StatusMap, Rules, FromCount, CounterRules, PulseRules, IncrementRules, Definition, ReasonRules,
        WorkRules, Calendar, Shift, rules.Rule, rules.Operand, rules.Comparison, rules.Not, rules.All, rules.Any,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Basis:
    """What one configuration computes with."""

    machines: Mapping[str, Machine]
    calendar: Calendar


def write(basis: Basis) -> str:
    """The basis as text."""
    given = {"machines": dict(basis.machines), "calendar": basis.calendar}
    return json.dumps(_plain(given), ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> Basis:
    """The basis from its text.

    Raises:
        ValueError: it is none, or one of a version that this one does not understand.
    """
    try:
        found = _made(json.loads(text))
        return Basis(found["machines"], found["calendar"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the basis of a configuration that this version understands: {error}") from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Fraction | date):
        return {"is": type(value).__name__, "of": str(value)}
    if isinstance(value, tuple | list | frozenset):
        kind = "frozenset" if isinstance(value, frozenset) else "tuple"
        return {"is": kind, "of": [_plain(each) for each in (sorted(value) if kind == "frozenset" else value)]}
    if isinstance(value, Mapping):
        return {"is": "dict", "of": [[_plain(key), _plain(each)] for key, each in value.items()]}
    if is_dataclass(value) and type(value).__name__ in _KINDS:
        own = {each.name: _plain(getattr(value, each.name)) for each in fields(value) if each.compare}
        return {"is": type(value).__name__, "of": own}
    raise TypeError(f"{type(value).__name__} cannot be kept")


def _made(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind, of = value["is"], value["of"]
    if kind == "Fraction":
        return Fraction(of)
    if kind == "date":
        return date.fromisoformat(of)
    if kind == "dict":
        return {_made(key): _made(each) for key, each in of}
    if kind in ("tuple", "frozenset"):
        return (frozenset if kind == "frozenset" else tuple)(_made(each) for each in of)
    made = _KINDS[kind]
    known = {each.name for each in fields(made)}
    return made(**{name: _made(each) for name, each in of.items() if name in known})
