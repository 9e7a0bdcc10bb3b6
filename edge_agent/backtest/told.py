"""Entries for a trial, from JSON lines: what people would have told the agent, and when."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from edge_agent.contract import EdgeAgentError
from edge_agent.desk import EntryRefused, Request
from edge_agent.timestamps import parse


class EntriesError(EdgeAgentError):
    """The file of entries cannot be used; the message names the file, the line and the cure."""


class Told(NamedTuple):
    """One entry to be taken: when, what, where it stands, and the number by which others of its file know it."""

    made: int
    request: Request
    place: str
    number: int | None = None


def read(lines: Iterable[str], name: str) -> list[Told]:
    """The entries of a file, in the order in which they were made.

    Each line is an object with `machine`, `kind`, `start` or `made` or both, and as needed `end`, `by`, `entry` (its
    number) and `body`: the `data` of an entry's record, or a line that `edge-agent records --type entry --json` prints.

    Raises:
        EntriesError: a line is none.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        if line := line.lstrip("\ufeff").strip():
            found.append(_told(line, f"{name}:{number}"))
    return sorted(found, key=lambda told: told.made)


def _told(line: str, place: str) -> Told:
    try:
        given = _data(json.loads(line))
        start, end, made = (parse(given[name]) if given.get(name) else None for name in ("start", "end", "made"))
        made = start if made is None else made
        if made is None:
            raise EntryRefused("neither start nor made says when it was")
        request = Request.of({**_plain(given), "start": start, "end": end})
    except (ValueError, AttributeError, TypeError, EntryRefused) as error:
        raise EntriesError(
            f"{place}: {error}; a line is an object with machine, kind, start, and as needed end, made, by, body"
        ) from error
    number = given.get("entry")
    by = request.by if given.get("by") else "entries"
    return Told(made, replace(request, by=by), place, number if isinstance(number, int) else None)


def _data(line: Any) -> dict[str, Any]:
    """The data of an entry, however much is around it."""
    for name in ("event", "data"):
        if isinstance(line, dict):
            line = line.get(name, line)
    if not isinstance(line, dict):
        raise EntryRefused("it is no object")
    return line


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("machine", "kind", "by", "body") if name in given}
