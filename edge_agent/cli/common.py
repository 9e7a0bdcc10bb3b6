"""What several verbs share: which configuration, which agent, how to print."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.contract import ConfigError

if TYPE_CHECKING:
    from edge_agent.config import Configuration
    from edge_agent.listing import Page

_HAS_OFFSET = re.compile(r"([Zz]|[+-]\d\d:?\d\d)$")
_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d)?")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="The configuration directory.", show_default="$EDGE_AGENT_CONFIG, /etc/edge-agent, ./config"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def directory(given: Path | None) -> Path:
    """The configuration directory: the one given, $EDGE_AGENT_CONFIG, /etc/edge-agent, or ./config."""
    if given is not None:
        return given
    if "EDGE_AGENT_CONFIG" in os.environ:
        return Path(os.environ["EDGE_AGENT_CONFIG"])
    system = Path("/etc/edge-agent")
    return system if system.is_dir() else Path("config")


def load_usable(given: Path | None) -> Configuration:
    """The configuration, if the agent could run with it.

    Raises:
        ConfigError: it could not; the message has the faults that stop it.
    """
    from edge_agent.config import load

    configuration = load(directory(given))
    if configuration.fatal:
        stops = [str(fault) for fault in configuration.errors if fault.scope == "all"]
        raise ConfigError("\n".join(["the configuration cannot be used:", *stops]))
    return configuration


def listed(configuration: Configuration, verb: str, page: Page, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The items of a listing: from the running agent, else from the store's files under their lock."""
    from edge_agent import control
    from edge_agent.agent import data_folder
    from edge_agent.store import Store

    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    folder = data_folder(configuration.agent)
    socket = control.find(configuration.agent.name, folder)
    if socket is not None:
        yield from control.ask(socket, verb, **arguments)
        return
    with Store(folder, create=False) as store:
        after: int | None = 0
        while after is not None:
            items, after = page(store, arguments, after)
            yield from items


def zone_of(configuration: Configuration) -> str:
    """The time zone of the times that people write."""
    return "UTC" if configuration.agent is None else configuration.agent.timezone


def parse_time(text: str | None, zone: str = "UTC", ahead: bool = False) -> int | None:
    """A time as people write it, in ns since 1970 UTC; None for None.

    How long ago (`2 h`), an RFC 3339 time, one without an offset in the zone (`2026-11-23 14:05`), or a time of day in
    the zone (`14:05`): the last one that was, or, with `ahead`, today's.
    """
    from datetime import datetime, timedelta
    from time import time_ns
    from zoneinfo import ZoneInfo

    from edge_agent.contract import parse_duration
    from edge_agent.timestamps import parse

    if text is None:
        return None
    text = text.strip()
    try:
        return time_ns() - parse_duration(text)
    except ValueError:
        pass
    try:
        if _HAS_OFFSET.search(text):
            return parse(text)
        now = datetime.now(ZoneInfo(zone))
        of_day = _OF_DAY.fullmatch(text)
        local = datetime.fromisoformat(f"{now.date()}T{text:0>5}" if of_day else text).replace(tzinfo=ZoneInfo(zone))
        if of_day and local > now and not ahead:
            local -= timedelta(days=1)
        return int(local.timestamp() * 1_000) * 1_000_000
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time; 14:05, 2026-11-23 14:05 or 2 h (ago) are") from error


def print_json(item: Any) -> None:
    """One object on one line."""
    sys.stdout.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A table for people: columns aligned, no lines around it, the width of what it holds."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
