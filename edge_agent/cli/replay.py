"""`edge-agent replay` and `verify`: send records again, and prove what a subscriber received."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, load_usable, parse_time, print_json, zone_of
from edge_agent.contract import ConfigError

if TYPE_CHECKING:
    from edge_agent.capture import Findings

_MEANINGS = {
    "waiting": "are in the outbox: verify again when they are sent",
    "unlike": "are all there, and are not what their manifest says",
    "unproven": "came, but a manifest cannot prove them: others of their topic and hour did not",
    "unknown": "are not in this store: pruned, damaged on its disk, or of another agent",
    "before": "are from before the first of their topic",
    "unreadable": "lines are no events",
}
_PATIENCE_S = 600.0
"""Hundreds of thousands of records are sent again in many commits, between those of readings."""


def replay(
    config: ConfigOption = None,
    since: Annotated[str | None, typer.Option(help="Issued from this time on: RFC 3339, or how long ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Issued before this time.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only those of this topic.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="The dead letters, which the broker had refused.")] = False,
    json_lines: JsonOption = False,
) -> None:
    """Send records again: the same bytes with the same identity, marked as backlog, behind what is live.

    Example: `edge-agent replay --since "2026-11-23 06:00" --until "2026-11-23 14:00"`
    """
    from edge_agent import control
    from edge_agent.agent import data_folder
    from edge_agent.listing import send_again
    from edge_agent.store import Store

    if since is None and not dead:
        raise ConfigError("say from when: --since '2 h', or --dead for what the broker had refused")
    configuration = load_usable(config)
    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    begin, end = (parse_time(text, zone_of(configuration)) for text in (since, until))
    arguments: dict[str, Any] = {"since": begin, "until": end, "topic": topic, "dead": dead}
    folder = data_folder(configuration.agent)
    socket = control.find(configuration.agent.name, folder)
    if socket is not None:
        (answer,) = control.ask(socket, "replay", timeout_s=_PATIENCE_S, **arguments)
    else:
        with Store(folder, create=False) as store:
            answer = {"records": send_again(store, arguments)}
    if json_lines:
        print_json(answer)
    else:
        when = "now" if socket is not None else "at the next `edge-agent run`"
        print(f"{answer['records']} records are sent again {when}")


def verify(
    capture: Annotated[Path, typer.Argument(help="What a subscriber received, an event a line.")],
    config: ConfigOption = None,
    manifests: Annotated[
        bool, typer.Option("--manifests", help="Compare with the manifests and gap records in the capture alone.")
    ] = False,
    json_lines: JsonOption = False,
) -> None:
    """Say what of the issued records is missing in a capture, came twice, or was altered on the way.

    The capture is compared with this agent's store, or, with --manifests, with what the records say of themselves,
    anywhere and without the agent. Lines are events, `topic event` (mosquitto_sub -v) or %j objects. Exit code 1 if
    anything is missing or altered, still waits in the outbox, or cannot be read.

    Example: `mosquitto_sub -t 'edge/v1/#' > capture.jsonl; edge-agent verify capture.jsonl`
    """
    from edge_agent.capture import against_manifests, against_store, read

    with capture.open("rb") as lines:
        received = read(lines, str(capture))
    if manifests:
        found = against_manifests(received)
    else:
        from edge_agent.cli.common import listed
        from edge_agent.listing import issued_page

        configuration = load_usable(config)
        found = against_store(received, listed(configuration, "issued", issued_page, {}))
    if json_lines:
        print_json(found.as_json())
    else:
        _print(found)
    if not found.good:
        sys.exit(1)


def _print(found: Findings) -> None:
    print(
        f"{found.received} received: {found.right} as they were issued, {found.doubled} came again, {found.missing} "
        f"missing, {found.altered} altered, {found.named} not delivered and said so"
    )
    for what, names in found.which.items():
        for name in names:
            print(f"{what}: {name}")
    for what, meaning in _MEANINGS.items():
        if count := getattr(found, what):
            print(f"{what}: {count} {meaning}")
    if found.not_captured:
        print(f"nothing was captured of {len(found.not_captured)} topics, such as {found.not_captured[0]}")
