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
    """One entry to be taken: when, what, and where it stands."""

    made: int
    request: Request
    place: str


def read(lines: Iterable[str], name: str) -> list[Told]:
    """The entries of a file, in the order in which they were made.

    Each line is an object with `machine`, `kind`, `start`, and as needed `end`, `made` (default: `start`), `by` and
    `body`: the `data` of an entry's record, or a line that `edge-agent records --type entry --json` prints.

    Raises:
        EntriesError: a line is none.
    """
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found.append(_told(line, f"{name}:{number}"))
    return sorted(found, key=lambda told: told.made)


def _told(line: str, place: str) -> Told:
    try:
        given = json.loads(line)
        given = given.get("event", given)
        given = given.get("data", given)
        start = parse(given["start"])
        end = parse(given["end"]) if given.get("end") else None
        request = Request.of({**_plain(given), "start": start, "end": end})
        made = parse(given["made"]) if given.get("made") else start
    except (ValueError, AttributeError, KeyError, TypeError, EntryRefused) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise EntriesError(
            f"{place}: {what}; a line is an object with machine, kind, start, and as needed end, made, by, body"
        ) from error
    return Told(made, replace(request, by=request.by if given.get("by") else "entries"), place)


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("machine", "kind", "by", "body") if name in given}
