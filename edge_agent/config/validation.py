"""Nodes to validated models, and pydantic's messages to faults in plain words, each at its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, TypeVar, get_args
from zoneinfo import available_timezones

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_agent.config.document import Entry, Node, Scalar, resolve
from edge_agent.config.faults import Fault, Path, Place, Report, closest, scope_of, speaks_of_secret
from edge_agent.contract import ConfigError, Secret

Model = TypeVar("Model", bound=BaseModel)

DRIVER_MISTAKES = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What a driver's own checks may raise by mistake on settings that nobody thought of; a driver is foreign code."""


def driver_mistake(error: Exception) -> str:
    """The fault's message for such a mistake; without the error's own text, which may hold a secret."""
    return f"the driver cannot check these settings ({type(error).__name__}); compare them with its documentation"


def validated(
    model: type[Model], entry: Entry, path: Path, report: Report, without: Collection[str] = ()
) -> Model | None:
    """The model of a mapping in the document, or None; every mistake in it is reported.

    Args:
        model: what the mapping must be.
        entry: the mapping, with its key.
        path: where it stands in the document.
        report: takes the faults.
        without: keys of the mapping that the caller reads itself.
    """
    node = entry.value
    if node.mapping is None:
        report.add(_fault(node.place, f"expected keys with values below this, not {node.kind}", path))
        return None
    for key, given in node.mapping.items():
        if _is_secret(model, (key,)):
            report.hide(given.value.text or "")
    as_text: set[Path] = set()
    while True:
        settings = Node(*node.place, {key: item for key, item in node.mapping.items() if key not in without})
        try:
            return model.model_validate(plain(settings, as_text))
        except ConfigError as error:
            report.add(_fault(entry.key.place, str(error), path))
            return None
        except DRIVER_MISTAKES as error:
            report.add(_fault(entry.key.place, driver_mistake(error), path))
            return None
        except ValidationError as error:
            details = error.errors(include_url=False)
            words = {_text_path(detail, node) for detail in details} - {None} - as_text
            if not words:
                _translate(details, model, entry, path, report, without)
                return None
            as_text.update(path for path in words if path is not None)


def plain(node: Node, as_text: Collection[Path] = (), path: Path = ()) -> Any:
    """The node as Python's own types; scalars at the paths in `as_text` as they are written."""
    if isinstance(node.value, dict):
        mapping: dict[Scalar, Any] = {}
        for text, entry in node.value.items():
            key = text if (*path, text, "[key]") in as_text else _value(entry.key)
            mapping[key] = plain(entry.value, as_text, (*path, text))
        return mapping
    if isinstance(node.value, list):
        return [plain(item, as_text, (*path, index)) for index, item in enumerate(node.value)]
    return node.text if path in as_text else node.value


def _value(key: Node) -> Scalar:
    return key.value if not isinstance(key.value, dict | list) else None


def _text_path(detail: ErrorDetails, node: Node) -> Path | None:
    """The path of a number or truth value that stands where text is meant, such as a product called 4711."""
    if detail["type"] not in ("string_type", "literal_error"):
        return None
    place = _find(node, detail["loc"])
    target = place.entry.key if place.is_key and place.entry else place.node
    if not isinstance(target.value, bool | int | float):
        return None
    return (*place.path, "[key]") if place.is_key else place.path


class _Spot:
    """The node that an error's location leads to, as far as the document goes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entry: Entry | None = None
        self.path: Path = ()
        self.is_key = False
        self.rest: tuple[int | str, ...] = ()


def _find(node: Node, location: tuple[int | str, ...]) -> _Spot:
    spot = _Spot(node)
    for index, step in enumerate(location):
        value = spot.node.value
        if isinstance(value, dict) and (key := _key(value, step)) is not None:
            spot.entry = value[key]
            spot.node = spot.entry.value
            spot.path = (*spot.path, key)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            spot.entry, spot.node, spot.path = None, value[step], (*spot.path, step)
        elif isinstance(value, dict) and step == 0:
            continue  # one thing where a list of things may stand
        else:
            spot.rest = location[index:]
            break
    if "[key]" in spot.rest:
        spot.is_key, spot.rest = True, tuple(step for step in spot.rest if step != "[key]")
    return spot


def _key(mapping: dict[str, Entry], step: int | str) -> str | None:
    if isinstance(step, str) and step in mapping:
        return step
    return next((text for text, entry in mapping.items() if str(entry.key.value) == str(step)), None)


# ------------------------------------------------------------------------------------ pydantic's words to ours

_PLAIN_WORDS = {
    "string_type": "expected text", "string_too_short": "is too short", "string_too_long": "is too long",
    "int_type": "expected a whole number", "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number", "int_parsing_size": "the number is too large",
    "float_type": "expected a number", "float_parsing": "expected a number", "finite_number": "must be finite",
    "bool_type": "expected true or false", "bool_parsing": "expected true or false",
    "dict_type": "expected keys with values below this", "model_type": "expected keys with values below this",
    "model_attributes_type": "expected keys with values below this", "list_type": "expected a list such as [a, b]",
    "tuple_type": "expected a list such as [a, b]", "set_type": "expected a list such as [a, b]",
    "path_type": "expected a path", "bytes_type": "expected text", "none_required": "must be empty",
}  # fmt: skip
_UNQUOTED = {"int_type", "int_parsing", "float_type", "float_parsing", "bool_type", "bool_parsing"}
_DATE = "expected a date such as 2026-12-25"
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$": "a name has letters, digits, _ and -, at most 64, and begins with a letter "
    "or digit",
    r"^[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9][A-Za-z0-9_-]*$": "expected a tag as device.tag",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": 'expected a time of day such as "06:00"',
    r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$": 'expected a break such as "09:00-09:15"',
    r"^[^+#\s/]+(/[^+#\s/]+)*$": "expected topic levels such as edge/v1, without +, #, spaces or an empty level",
}
_DAYS = "expected days such as mon-fri, or mon, wed, sat"
_BOUNDS = {
    "greater_than": ("gt", "more than"), "greater_than_equal": ("ge", "at least"), "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"), "multiple_of": ("multiple_of", "a multiple of"),
}  # fmt: skip
_UNITS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "millis": "ms", "milliseconds": "ms",
    "m": "min", "mins": "min", "minute": "min", "minutes": "min", "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
    "day": "d", "days": "d", "us": "us", "gb": "GB", "mb": "MB", "kb": "kB", "tb": "TB", "gib": "GiB", "mib": "MiB",
    "g": "GB", "k": "kB", "b": "B",
}  # fmt: skip

_SYNONYMS = {
    "running": "producing", "run": "producing", "auto": "producing", "on": "producing", "execute": "producing",
    "stopped": "down", "stop": "down", "fault": "down", "error": "down", "alarm": "down", "failure": "down",
    "waiting": "delay", "wait": "delay", "blocked": "delay", "starved": "delay", "changeover": "setup",
    "break": "planned_stop", "pause": "planned_stop", "maintenance": "planned_stop", "off": "not_scheduled",
    "even": "E", "odd": "O", "none": "N",
}  # fmt: skip


def _translate(
    details: list[ErrorDetails],
    model: type[BaseModel],
    entry: Entry,
    path: Path,
    report: Report,
    without: Collection[str],
) -> None:
    unions: dict[tuple[Place, Path], list[Fault]] = {}
    for detail in details:
        spot = _find(entry.value, detail["loc"])
        fault = _fault_of(detail, spot, model, entry, path, without)
        if detail["type"] == "extra_forbidden":
            report.unknown.add(fault.place)
        if spot.rest and detail["type"] not in ("missing", "extra_forbidden"):
            unions.setdefault((fault.place, fault.where), []).append(fault)
        else:
            report.add(fault)
    for faults in unions.values():
        report.add(_either(faults))


def _either(faults: list[Fault]) -> Fault:
    """One fault for a value that could have been one of several things and is none."""
    messages = list(dict.fromkeys(fault.message.removeprefix("expected ") for fault in faults))
    if len(messages) == 1:
        return faults[0]
    return replace(faults[0], message=f"expected {' or '.join(messages)}")


def _fault_of(
    detail: ErrorDetails, spot: _Spot, model: type[BaseModel], entry: Entry, path: Path, without: Collection[str]
) -> Fault:
    where = (*path, *spot.path)
    key_place = spot.entry.key.place if spot.entry else (spot.node.place if spot.path else entry.key.place)
    kind = detail["type"]
    if kind == "missing":
        return _missing(detail, model, key_place, where)
    if kind in ("extra_forbidden", "invalid_key"):
        fields = [name for known in _models_at(model, detail["loc"][:-1]) for name in _field_names(known)]
        if _is_secret(model, spot.path[:-1]):
            return _fault(key_place, "a secret is one of {file: …}, {env: …} or {credential: …}", where[:-1])
        known_keys = sorted({*fields, *(without if len(spot.path) == 1 else ())})
        key = str(detail["loc"][-1])
        message = "this key is not known"
        if key.isdecimal():
            message += "; if it belongs to a number, write a decimal point, such as 0.1"
        suggestion = closest(key, known_keys)
        return _fault(key_place, message, where, allowed=tuple(known_keys), suggestion=suggestion)
    message, allowed = _words(detail)
    if kind == "string_pattern_mismatch" and message.startswith("does not"):
        message = _description(model, detail["loc"]) or message
    if isinstance(spot.node.value, str) and not isinstance(resolve(spot.node.value), str) and kind in _UNQUOTED:
        message += ", without quotes"
    place = key_place if spot.is_key or isinstance(spot.node.value, dict) else spot.node.place
    text = spot.entry.key.text if spot.is_key and spot.entry else spot.node.text
    if isinstance(spot.node.value, dict) and (inner := _named_inside(message, spot)) is not None:
        message, spot = message.partition(": ")[2], inner
        place = spot.entry.key.place if spot.entry else spot.node.place
        return _fault(place, message, (*path, *spot.path))
    if _is_secret(model, spot.path):
        return _fault(place, message, where, allowed=allowed)
    suggestion = _suggestion(message, text or "", allowed)
    if text == "":
        message, text = f"is empty; {message}", None
    if text is None and isinstance(spot.node.value, list | dict) and message.startswith("expected"):
        message += f", not {spot.node.kind}"
    return _fault(place, message, where, found=text, allowed=allowed, suggestion=suggestion)


def _missing(detail: ErrorDetails, model: type[BaseModel], place: Place, where: Path) -> Fault:
    name = str(detail["loc"][-1])
    description = _description(model, detail["loc"])
    return _fault(place, f"the key `{name}` is missing" + (f": {description}" if description else ""), where)


def _description(model: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    """What the model says of a field, on one line and without the full stop."""
    for known in _models_at(model, location[:-1]):
        for name, field in known.model_fields.items():
            if location[-1] in (field.alias, name) and field.description:
                return " ".join(field.description.split()).rstrip(".")
    return None


def _words(detail: ErrorDetails) -> tuple[str, tuple[str, ...]]:
    """The message in plain words, and the words that are allowed, if they can be listed."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        message = str(context.get("error", detail["msg"]))
        head, separator, tail = message.partition("; allowed: ")
        return (head, tuple(tail.split(", "))) if separator else (message, ())
    if kind == "literal_error":
        return "this word is not known", tuple(re.findall(r"'([^']*)'", str(context.get("expected", ""))))
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern", ""))
        days = _DAYS if pattern.startswith("^(mon|tue") else f"does not have the form {pattern}"
        return _PATTERNS.get(pattern, days), ()
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {context.get(name)}", ()
    if kind == "too_short":
        return f"needs {context.get('min_length')} or more", ()
    if kind == "too_long":
        return f"may have {context.get('max_length')} or fewer", ()
    if kind.startswith("date"):
        return _DATE, ()
    return _PLAIN_WORDS.get(kind) or detail["msg"][:1].lower() + detail["msg"][1:], ()


def _suggestion(message: str, text: str, allowed: tuple[str, ...]) -> str | None:
    if (number := re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", text[:100])) and "unit" in message:
        unit = _UNITS.get(number[2].casefold())
        return f"{number[1]} {unit}" if unit else None
    if message.startswith("expected a number") and re.fullmatch(r"[-+]?[0-9]+,[0-9]+", text):
        return text.replace(",", ".")
    if message.startswith("not an IANA time zone"):
        return closest(text, available_timezones())
    synonym = _SYNONYMS.get(text.casefold())
    if synonym in allowed:
        return synonym
    return closest(text, allowed)


def _named_inside(message: str, spot: _Spot) -> _Spot | None:
    """The place inside a mapping that a model's own message names first, as in `counts.scrap: …`."""
    head, separator, _ = message.partition(": ")
    if not separator or not re.fullmatch(r"[\w.-]+", head):
        return None
    inner = _find(spot.node, tuple(int(step) if step.isdecimal() else step for step in head.split(".")))
    if inner.rest or not inner.path:
        return None
    inner.path = (*spot.path, *inner.path)
    return inner


# -------------------------------------------------------------------------------------------- models inside models


def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _models_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that a mapping at this location may be: more than one where the field is a union."""
    models = [model]
    for step in location:
        inner = [
            found
            for known in models
            for name, field in known.model_fields.items()
            if step in (field.alias, name)
            for found in _models_in(field.annotation)
        ]
        models = inner or models
    return models


def _is_secret(model: type[BaseModel], path: Path) -> bool:
    if not path:
        return False
    return any(speaks_of_secret(str(step)) for step in path) or Secret in _models_at(model, path)


def _fault(
    place: Place,
    message: str,
    where: Path,
    *,
    found: str | None = None,
    allowed: tuple[str, ...] = (),
    suggestion: str | None = None,
) -> Fault:
    return Fault(place, message, where, found, allowed, suggestion, scope=scope_of(where))
