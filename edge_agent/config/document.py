"""YAML 1.2 text to nodes that know their line and column: the only door to the YAML parser.

The parser's events are composed here, by YAML 1.2's core schema: `06:00`, `no`, `on` and dates are words, `0x10` and
`1e3` are numbers. What could hide something or cost without bound is refused: anchors, aliases, tags, deep nesting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as yaml_events
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from edge_agent.config.faults import Fault, Path, Place, scope_of

MAX_DEPTH = 24
"""Levels of nesting; the deepest that the agent itself knows is 7."""

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_LONGEST_INTEGER = 40

Scalar = bool | int | float | str | None


@dataclass(slots=True)
class Node:
    """A value of the document and its place. Mappings are kept by the text of their keys."""

    file: str
    line: int
    column: int
    value: Scalar | list[Node] | dict[str, Entry]
    text: str | None = None
    """A scalar as it is written, without its quotes."""

    @property
    def place(self) -> Place:
        return Place(self.file, self.line, self.column)

    @property
    def mapping(self) -> dict[str, Entry] | None:
        """The entries of a mapping; none for an empty value; None for anything else."""
        if isinstance(self.value, dict):
            return self.value
        return {} if self.value is None else None

    @property
    def kind(self) -> str:
        """What this is, in plain words."""
        if isinstance(self.value, dict):
            return "a mapping (keys with values)"
        if isinstance(self.value, list):
            return "a list"
        return "nothing" if self.value is None else "a single value"


@dataclass(slots=True)
class Entry:
    """A key of a mapping and its value, each with its place."""

    key: Node
    value: Node


class _Refused(Exception):
    """The rest of the file cannot be read; carries the fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def resolve(text: str) -> Scalar:
    """The value of an unquoted scalar by the core schema of YAML 1.2; numbers that are not finite are NaN.

    A whole number longer than any that a device counts stays text.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0 if text[:2] in ("0x", "0o") else 10) if len(text) <= _LONGEST_INTEGER else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else math.nan
    return math.nan if _NOT_FINITE.fullmatch(text) else text


def compose(text: str, file: str, report: Callable[[Fault], None]) -> Node | None:
    """The top of a document, or None when the text cannot be read (the fault is reported) or holds nothing.

    Args:
        text: the decoded file.
        file: its name in faults.
        report: takes each fault.
    """
    parser = YAML(typ="safe", pure=True)
    composer = _Composer(file, report, parser.parse(text))
    try:
        return composer.document()
    except _Refused as refused:
        report(refused.fault)
    except YAMLError as error:
        report(_syntax_fault(error, text, file))
    except (ValueError, LookupError, AttributeError, TypeError, AssertionError, OverflowError):
        # Some malformed texts upset the parser itself, such as an escape beyond Unicode.
        report(Fault(composer.last, "this is not YAML; check quotes and escapes from here on"))
    return None


class _Composer:
    def __init__(self, file: str, report: Callable[[Fault], None], events: Iterator[Any]) -> None:
        self._file = file
        self._report = report
        self._events = events
        self._path: list[str | int] = []
        self.last = Place(file)
        """Where the parser last was."""

    def document(self) -> Node | None:
        """The one document of the stream."""
        top: Node | None = None
        for event in self._events:
            if isinstance(event, yaml_events.DocumentStartEvent):
                if top is not None:
                    raise self._refused(event, "a second document begins here; put it into a file of its own")
                if event.version not in (None, (1, 2)):
                    raise self._refused(event, "the configuration is YAML 1.2; remove the line %YAML")
                top = self._node(next(self._events))
        return top

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _fault(self, place: Place, message: str) -> Fault:
        path: Path = tuple(self._path)
        return Fault(place, message, where=path, scope=scope_of(path))

    def _refused(self, event: Any, message: str) -> _Refused:
        return _Refused(Fault(self._place(event), message, where=tuple(self._path)))

    def _node(self, event: Any) -> Node:
        self.last = self._place(event)
        if isinstance(event, yaml_events.AliasEvent):
            raise self._refused(
                event,
                "aliases (*name) are not supported: write the value out, or put text that begins with * in quotes",
            )
        if event.anchor is not None:
            raise self._refused(
                event, "anchors (&name) are not supported: remove it, or put text that begins with & in quotes"
            )
        if event.tag is not None:
            raise self._refused(event, "tags (!name) are not supported: remove it, or put text with a ! in quotes")
        if isinstance(event, yaml_events.ScalarEvent):
            return self._scalar(event)
        if len(self._path) >= MAX_DEPTH:
            raise self._refused(event, f"nested more than {MAX_DEPTH} levels deep; look for a bracket too many")
        node = Node(*self.last, None)
        node.value = self._mapping() if isinstance(event, yaml_events.MappingStartEvent) else self._sequence()
        return node

    def _scalar(self, event: Any) -> Node:
        text: str = event.value
        place = self.last
        if not event.implicit[0] or event.style is not None:
            if _SURROGATE.search(text):
                self._report(self._fault(place, "half of a surrogate pair is no character; check the \\u escapes"))
                text = _SURROGATE.sub("�", text)
            return Node(*place, text, text)
        value = resolve(text)
        if isinstance(value, float) and math.isnan(value):
            self._report(self._fault(place, "must be a finite number"))
            value = 0
        return Node(*place, value, text)

    def _sequence(self) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml_events.SequenceEndEvent):
            self._path.append(len(items))
            items.append(self._node(event))
            self._path.pop()
        return items

    def _mapping(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        values: dict[Scalar, Entry] = {}
        while not isinstance(event := next(self._events), yaml_events.MappingEndEvent):
            key = self._node(event)
            if key.text is None or isinstance(key.value, list | dict):
                raise self._refused(event, "a key must be a word or a number; look for a { or [ too many")
            self._path.append(key.text)
            entry = Entry(key, self._node(next(self._events)))
            if entry.value.text == "" and entry.value.value is None:
                # The parser places what is empty at whatever comes next, often lines below.
                entry.value.line, entry.value.column = key.line, key.column
            earlier = entries.get(key.text) or values.get(key.value)
            if earlier is not None:
                self._report(self._fault(key.place, f"this key is used twice; first at {earlier.key.place}"))
            else:
                entries[key.text] = values[key.value] = entry
            self._path.pop()
        return entries


# What the parser says, and what that means to somebody who has never read the specification. The parser's own words
# are not passed on: they may hold pieces of the text, and that may be a password.
_HINTS: tuple[tuple[str, str], ...] = (
    (r"found character '\\t'", "a tab; YAML is indented with spaces, so replace the tab by spaces"),
    (r"found character '[@`%]'", "text that begins with @, ` or % must be in quotes"),
    (r"found character", "this character cannot stand here; put the text in quotes"),
    (r"could not find expected ':'", "no ': ' found here; write `key: value`, with a space after the colon"),
    (
        r"mapping values are not allowed",
        "a ': ' is not allowed here: indent this line like its neighbours, put text with a colon in quotes, "
        "or give the line above its ': '",
    ),
    (
        r"sequence entries are not allowed",
        "a list item cannot begin here; begin it on a line of its own, or put text that begins with - in quotes",
    ),
    (r"expected <block end>", "this line is not indented like its neighbours; or a quote or bracket above is wrong"),
    (r"mapping keys are not allowed", "text that begins with ? must be in quotes"),
    (r"expected the node content", "a value is expected here; look for a bracket or comma too many, or one not closed"),
    (r"expected ',' or '}'", "a comma or the closing } is missing before this"),
    (r"expected ',' or '\]'", "a comma or the closing ] is missing before this"),
    (r"unexpected end of stream|unexpected document separator", "the quote that opens here is never closed"),
    (
        r"unknown escape character|escape sequence",
        "this escape is unknown; in double quotes \\ begins an escape, in single quotes it is an ordinary character",
    ),
    (r"alias|anchor", "text that begins with * or & must be in quotes"),
    (r"tag|handle|URI", "text that begins with ! must be in quotes"),
    (r"directive|YAML document|document start", "a line that begins with % is not text; put text in quotes"),
    (r"block scalar|indentation indicator|chomping", "after | or > the text begins on the next line, indented"),
)


def _syntax_fault(error: YAMLError, text: str, file: str) -> Fault:
    if isinstance(error, ReaderError):
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return Fault(place, f"a control character (code {error.character}) is not allowed here; delete it")
    if not isinstance(error, MarkedYAMLError):
        return Fault(Place(file), "this is not YAML")
    problem = f"{error.problem or ''} {error.context or ''}"
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    if opened is not None and re.search(r"could not find expected ':'|end of stream|document separator", problem):
        mark, opened = opened, None
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, problem)), "this is not YAML; check the line")
    if opened is not None and "expected ',' or" in problem:
        hint += f"; it was opened at line {opened.line + 1}, column {opened.column + 1}"
    place = Place(file) if mark is None else Place(file, mark.line + 1, mark.column + 1)
    return Fault(place, hint)
