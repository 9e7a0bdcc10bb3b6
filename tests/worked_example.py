"""The worked example of the documentation: what comes of the readings and entries in `docs/example`.

    .venv/bin/python tests/worked_example.py    # writes the examples in docs/*.md anew, after a change of the records

In a page an example is a block of JSON after a comment that says which record it is: its type, for a window its size,
the start in its key, and its revision, as in `<!-- example: production 1h 2026-11-23T10:00:00Z 1 -->`. Of a state the
comment says when it was told. With `event` behind it the whole event is shown.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_agent.backtest import Trial, read_entries
from edge_agent.config import load
from edge_agent.store import Store
from edge_agent.store.records import StoredRecord
from edge_agent.timestamps import parse

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "example"
UNTIL = "2026-11-23T13:00:00Z"
STATES_AT = ("2026-11-23T06:10:00Z",)
EXAMPLE = re.compile(r"<!-- example: ([^>]+) -->\n```json\n(.*?)```", re.DOTALL)
WIDTH = 130
Json = dict[str, Any]


class _Told:
    """Keeps the states that a trial would have published."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def wake(self) -> None:
        pass

    def publish_latest(self, topic: str, payload: bytes, expiry_s: int | None) -> None:
        self.payloads.append(payload)


class _Watched(Trial):
    """A trial that is asked for the machines' states at some times."""

    def __init__(self, folder: Path) -> None:
        told = read_entries((FOLDER / "entries.jsonl").read_text().splitlines(), "entries.jsonl")
        super().__init__(
            load(FOLDER / "config"), folder, until_ns=parse(UNTIL), hold=True, revisions=True, told=told
        )  # fmt: skip
        self.states: dict[str, bytes] = {}
        self._asked = list(STATES_AT)

    async def _pass(self, now: int) -> int:
        while self._asked and parse(self._asked[0]) <= now:
            await super()._pass(parse(self._asked[0]))
            await self._flush()
            told, states = _Told(), self._summarizer.states
            states._uplink = told
            await states.tell()
            self.states[self._asked.pop(0)] = told.payloads[0]
        return await super()._pass(now)


@cache
def example() -> tuple[tuple[StoredRecord, ...], dict[str, bytes]]:
    """Every record of the example, in order of issue, and its states by the time at which they were told."""
    with TemporaryDirectory() as folder:
        trial = _Watched(Path(folder))
        with (FOLDER / "readings.csv").open(newline="") as lines:
            asyncio.run(trial.run(lines, "readings.csv"))
        with Store(Path(folder), create=False) as store:
            return tuple(store.records.page(limit=10_000)), trial.states


def shown(name: str) -> Json:
    """What an example's comment names: the data of a record, or its event.

    Raises:
        KeyError: there is no such record.
    """
    words = name.split()
    whole = words[-1] == "event"
    events = {_name_of(event): event for event in _events()}
    event = events[" ".join(words[:-1] if whole else words)]
    data: Json = event if whole else event["data"]
    return data


def _events() -> Iterator[Json]:
    stored, states = example()
    yield from (json.loads(one.payload) for one in stored)
    yield from (json.loads(payload) | {"told": at} for at, payload in states.items())


def _name_of(event: Json) -> str:
    kind, data = event["type"].split(".")[1], event["data"]
    if kind == "state":
        return f"state {event['told']}"
    size = f" {data['window']}" if kind in ("production", "gap") else ""
    return f"{kind}{size} {data['key'].rpartition('/')[2]} {data['revision']}"


def printed(value: Any, indent: int = 0, taken: int = 0) -> str:
    """JSON as a page shows it: what fits on a line stands on one; `taken` is how much of the first line is."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + taken <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner, pad = indent + 2, " " * (indent + 2)
    if isinstance(value, dict):
        names = [json.dumps(name) + ": " for name in value]
        parts = [
            name + printed(each, inner, inner + len(name) + 1) for name, each in zip(names, value.values(), strict=True)
        ]
    else:
        parts = [printed(each, inner, inner + 1) for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = _filled(parts, WIDTH - inner) if indent and not any("\n" in part for part in parts) else parts
    return opening + "\n" + ",\n".join(pad + line for line in lines) + "\n" + " " * indent + closing


def _filled(parts: list[str], width: int) -> list[str]:
    """The parts on as few lines as hold them."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += ", " + part
        else:
            lines.append(part)
    return lines


def _rewritten(page: str) -> str:
    return EXAMPLE.sub(lambda found: f"<!-- example: {found[1]} -->\n```json\n{printed(shown(found[1]))}\n```", page)


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(_rewritten(path.read_text()))
