"""The CSV of readings to rows of the store: typed from the configuration, each mistake with its place and its cure."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any

from edge_agent.contract import EdgeAgentError, Quality, Tag
from edge_agent.store import Row
from edge_agent.store.values import PACKED, pack
from edge_agent.timestamps import parse

COLUMNS = ("tag", "time", "value", "quality", "cause", "received")
_REQUIRED = COLUMNS[:4]
_QUALITIES = {quality.name.lower(): int(quality) for quality in Quality}
_BAD = int(Quality.BAD)
_CACHED_MINUTES = 1_000
_TRUTH = {"true": True, "false": False}

Cell = Callable[[str], Any]


class ReadingsError(EdgeAgentError):
    """The CSV cannot be used; the message names the file, the line, the column and the cure."""


class Readings:
    """The rows of a CSV, in order of arrival. Only tags that a machine draws on become rows.

    Attributes:
        unknown: tags of the file that are not configured, each once, with the line of its first reading.
        ignored: tags that are configured, and that no machine draws on.
    """

    def __init__(self, lines: Iterable[str], name: str, ids: Mapping[str, int], tags: Mapping[str, Tag]) -> None:
        """Take the lines of a file; nothing is read yet.

        Args:
            lines: the file's, with their line feeds; the first is the header.
            name: what messages call the file.
            ids: the store's ids of the tags that machines draw on.
            tags: every configured tag, by name.
        """
        self._reader = csv.reader(lines)
        self._name = name
        self._tags = tags
        self._cells = {tag: (number, _cell_of(tags[tag])) for tag, number in ids.items()}
        self._minutes: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self._disorder: str | None = None
        self.ignored: set[str] = set()

    def __iter__(self) -> Iterator[Row]:
        """The rows: tag id, time, cell, quality, cause, received (None: not given, or as the time), and the rest.

        Raises:
            ReadingsError: the first mistake in the file.
        """
        try:
            yield from self._rows()
        except (csv.Error, UnicodeDecodeError) as error:
            raise ReadingsError(
                f"{self._name}:{self._reader.line_num + 1}: not a CSV in UTF-8: {error}; "
                "`edge-agent readings` writes one"
            ) from error

    def _rows(self) -> Iterator[Row]:
        places = self._places()
        width, known, time_of = len(places), self._cells, self._time
        time, same = 0, None
        tag_at, time_at, value_at, quality_at = (places[name] for name in _REQUIRED)
        cause_at, received_at = places.get("cause"), places.get("received")
        for row in self._reader:
            if len(row) != width:
                if not row:
                    continue  # an empty line, as at the end of many files
                message = f"{len(row)} columns where the header has {width}; quote a value that holds a comma"
                raise ReadingsError(f"{self._name}:{self._reader.line_num}: {message}")
            entry = known.get(row[tag_at])
            if entry is None:
                self._remember(row[tag_at])
                continue
            number, cell_of = entry
            if row[time_at] != same:  # the tags of one poll share their time
                time = time_of(row, time_at, "time")
                same = row[time_at]
            quality = _QUALITIES.get(row[quality_at])
            if quality is None:
                raise self._error("quality", f"{row[quality_at]!r} is not good, uncertain or bad")
            text = row[value_at]
            cell = None
            if quality != _BAD and (text or cell_of is _text):
                try:
                    cell = cell_of(text)
                except ValueError as error:
                    raise self._error("value", f"{text!r} {error}") from error
            cause = row[cause_at] or None if cause_at is not None else None
            received = None
            if received_at is not None and row[received_at]:
                received = time_of(row, received_at, "received")
            yield number, time, cell, quality, cause, received if received != time else None, 1, None, None

    def _places(self) -> dict[str, int]:
        header = next(self._reader, [])
        names = [name.strip().lstrip("\ufeff") for name in header]
        missing = [name for name in _REQUIRED if name not in names]
        strange = [name for name in names if name not in COLUMNS or names.count(name) > 1]
        if missing or strange:
            found = "is missing: " + ", ".join(missing) if missing else "is not known: " + ", ".join(strange)
            raise ReadingsError(
                f"{self._name}:1: a column {found}; the header is {','.join(COLUMNS)}, the last two optional"
            )
        return {name: place for place, name in enumerate(names)}

    def _time(self, row: list[str], place: int, column: str) -> int:
        """The nanoseconds of an RFC 3339 time; most of a file's share their minute with the one before."""
        text = row[place]
        minute = self._minutes.get(text[:17])
        if minute is not None and text[-1] == "Z" and text[17:19].isdigit() and text[17] < "6" and len(text) < 31:
            if len(text) == 20:
                return minute + int(text[17:19]) * 1_000_000_000
            if text[19] == "." and (digits := text[20:-1]).isdigit():
                return minute + int(text[17:19] + digits.ljust(9, "0"))
        try:
            time = parse(text)
            if text[-1] == "Z" and text[16:17] == ":":
                if len(self._minutes) >= _CACHED_MINUTES:
                    self._minutes.clear()
                self._minutes[text[:17]] = parse(f"{text[:17]}00Z")
        except ValueError as error:
            raise self._error(column, str(error)) from error
        return time

    def _error(self, column: str, message: str) -> ReadingsError:
        return ReadingsError(f"{self._name}:{self._reader.line_num}: column {column}: {message}")

    def _remember(self, tag: str) -> None:
        if tag in self._tags:
            self.ignored.add(tag)
        else:
            self.unknown.setdefault(tag, self._reader.line_num)

    def disordered(self, ago_ns: int) -> None:
        """Take note, once, that the row at hand lies so long before one above it and says not when it came."""
        if self._disorder is None:
            self._disorder = (
                f"{self._name}:{self._reader.line_num}: lies {ago_ns / 1e9:.0f} s before a row above it, so it is "
                "taken as one that came late; if the file is not in order of arrival, sort it by time"
            )

    def complaints(self) -> Iterator[str]:
        """What is to be said of tags that are not configured, in order of appearance, and of disorder."""
        for tag, line in self.unknown.items():
            near = get_close_matches(tag, self._tags, 1)
            hint = f"did you mean {near[0]}?" if near else "its readings are left out"
            yield f"{self._name}:{line}: {tag} is none of the configured tags; {hint}"
        if self._disorder is not None:
            yield self._disorder


# ------------------------------------------------------------------------------------------------------- values


def _cell_of(tag: Tag) -> Cell:
    """How the text of a tag's value becomes a cell: by its type in the configuration, else by what it looks like."""
    settings = tag.settings
    kind = (settings.type or "").rstrip("0123456789")
    if kind in ("int", "uint", "float", "double") and (settings.scale is not None or settings.offset is not None):
        return _float
    return _CELLS.get(kind, _any)


def _text(text: str) -> Any:
    """A text as it is: of a tag that is a string, a good empty one is an empty string and not none."""
    return text


def _bool(text: str) -> Any:
    if text not in _TRUTH:
        raise ValueError("is not true or false, as the tag's type wants")
    return pack(_TRUTH[text])


def _int(text: str) -> Any:
    try:
        number = int(text)
    except ValueError:
        raise ValueError("is not a whole number, as the tag's type wants") from None
    return number if -(2**63) <= number < 2**63 else pack(number)


def _float(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("is not a number, as the tag's type wants") from None
    if not isfinite(number):
        raise ValueError("is no finite number; leave the value empty and write bad, with the cause not_a_number")
    return number


def _any(text: str) -> Any:
    """A tag without a type: a truth value, a number, an array of those, else the text."""
    if text in _TRUTH:
        return pack(_TRUTH[text])
    for number_of in (_int, _float):
        try:
            return number_of(text)
        except ValueError:
            continue
    if text.startswith("["):
        try:
            array = json.loads(text)
        except ValueError:
            return text
        return pack(tuple(array)) if tuple in PACKED else text
    return text


_CELLS: dict[str, Cell] = {
    "bool": _bool, "int": _int, "uint": _int, "float": _float, "double": _float, "string": _text,
}  # fmt: skip
