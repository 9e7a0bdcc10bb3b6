"""`edge-agent status`, `readings` and `records`: what the agent knows and has stored."""

from __future__ import annotations

import csv
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edge_agent.cli.common import (
    ConfigOption,
    JsonOption,
    listed,
    load_usable,
    parse_time,
    print_json,
    print_table,
    zone_of,
)
from edge_agent.contract import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.config import Configuration

SinceOption = Annotated[str | None, typer.Option(help="From this time on: RFC 3339, or how long ago (`2 h`).")]
SHOWN_TAGS = 10
UntilOption = Annotated[str | None, typer.Option(help="Before this time.")]


def status(config: ConfigOption = None, json_lines: JsonOption = False) -> None:
    """Say what the running agent knows: its devices and links, machines, buffer and uplink.

    Exit code 1 when no agent runs.

    Example: `edge-agent status --config /etc/edge-agent`
    """
    from edge_agent import control
    from edge_agent.agent import data_folder

    settings = load_usable(config).agent
    assert settings is not None  # noqa: S101 - load_usable has seen to it
    folder = data_folder(settings)
    socket = control.find(settings.name, folder)
    if socket is None:
        raise EdgeAgentError(f"no agent {settings.name} runs with the data folder {folder}; start it: edge-agent run")
    (answer,) = control.ask(socket, "status")
    if json_lines:
        print_json(answer)
    else:
        _print_status(answer)


def _print_status(answer: dict[str, Any]) -> None:
    from edge_agent.timestamps import rfc3339_ms

    def ago(since: int | None) -> str:
        return f"{(answer['now'] - since) / 1e9:.0f} s" if since else "-"

    print(f"{answer['agent']} {answer['version']}, process {answer['pid']}, since {rfc3339_ms(answer['started'])}")
    print(f"configuration {answer['directory']}, {answer['configuration'][:19]}…\n")
    if not answer["settled"]:
        print("the clock is not set: readings wait in memory until it is\n")
    elif abs(answer["clock_ahead_s"]) >= 1:
        print(f"the clock was set: the agent's time is {answer['clock_ahead_s']:.0f} s ahead of it\n")
    rows = [
        [one["device"], one["driver"], "connected" if one["connected"] else "lost", ago(one["since"]),
         str(one["polls"]), str(one["skipped"]), str(one["readings"]), one["error"] or ""]
        for one in answer["devices"]
    ]  # fmt: skip
    print_table(["device", "driver", "link", "since", "polls", "skipped", "readings", "error"], rows)
    for one in answer["devices"]:
        for tag in one.get("bad", ())[:SHOWN_TAGS]:
            print(f"\n{tag['tag']} ({tag['place']}) is bad since {ago(tag['since'])}: {tag['cause']}")
        if len(one.get("bad", ())) > SHOWN_TAGS:
            print(f"{len(one['bad']) - SHOWN_TAGS} more; `edge-agent read {one['device']}` shows them")
        if one.get("muted_until", 0) > answer["now"]:
            print(
                f"\n{one['device']} is muted until {rfc3339_ms(one['muted_until'])}: the log says nothing of its loss"
            )
    for name, faults in answer["disabled"].items():
        print(f"\n{name} is disabled (misconfigured):", *faults, sep="\n  ")
    print()
    rows = []
    for one in answer["machines"]:
        newest = one["newest"] or {"quantity": {}, "kpi": {}, "start": "-"}
        oee = newest["kpi"].get("oee_index")
        why = one.get("reason") or one["cause"] or "-"
        rows.append([one["machine"], one["state"] or "-", why, ago(one["since"]), one.get("job") or "-",
                     one.get("product") or "-", newest["start"], str(newest["quantity"].get("produced", "-")),
                     "-" if oee is None else f"{oee:.1%}"])  # fmt: skip
    columns = ["machine", "state", "why", "since", "job", "product", "newest window", "produced", "OEE"]
    print_table(columns, rows)
    buffer, uplink = answer["buffer"], answer["uplink"]
    print(
        f"\nbuffer  {buffer['bytes'] / 1e6:.1f} MB, about {buffer['readings']} readings; "
        f"{buffer['waiting']} records wait, {buffer['refused']} refused, {buffer['dropped']} readings dropped"
    )
    if buffer["error"]:
        print(f"        {buffer['error']}")
    state = (
        f"connected by MQTT {uplink['protocol']}" if uplink["connected"] else f"not connected: {uplink['last_error']}"
    )
    print(f"uplink  {uplink['broker']}: {state}; {uplink['accepted']} accepted, {uplink['in_flight']} in flight")
    for topic in uplink["parked"]:
        print(f"        {topic} waits: the broker is busy for it, or hangs up over it")


def readings(
    config: ConfigOption = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only this tag, as device.tag; may be repeated.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    json_lines: JsonOption = False,
) -> None:
    """List stored readings in order of arrival, as CSV or as JSON lines.

    Example: `edge-agent readings --tag press-01-plc.part_count --since "10 min"`
    """
    from edge_agent.listing import readings_page

    configuration = load_usable(config)
    begin, end = (parse_time(text, zone_of(configuration)) for text in (since, until))
    arguments = {"tags": tag or [], "since": begin, "until": end}
    _warn_of_unknown(configuration, tag or [])
    items = listed(configuration, "readings", readings_page, arguments)
    if json_lines:
        for item in items:
            print_json(item)
        return
    columns = ("tag", "time", "value", "quality", "cause", "received")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for item in items:
        writer.writerow([_cell(item[column]) for column in columns])


def _warn_of_unknown(configuration: Configuration, tags: list[str]) -> None:
    """Name tags that are not configured: a mistyped one lists nothing, and one of the past is listed all the same."""
    known = [tag.name for device in configuration.devices.values() for tag in device.tags]
    for name in tags:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ", which are called device.tag"
            print(f"edge-agent: {name} is none of the configured tags{hint}", file=sys.stderr)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def records(
    config: ConfigOption = None,
    kind: Annotated[
        Literal["production", "downtime", "job", "entry", "gap", "manifest"] | None,
        typer.Option("--type", help="Only this type."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that the broker owes an answer.")] = False,
    dead: Annotated[bool, typer.Option("--dead", help="Only the dead letters: the broker will not have them.")] = False,
    json_lines: JsonOption = False,
) -> None:
    """List issued records in order of issue, and what the broker answered.

    Dead letters are kept; `edge-agent replay --dead` sends them again once the broker has been put right.

    Example: `edge-agent records --type production --since "1 h"`
    """
    from edge_agent.listing import records_page

    configuration = load_usable(config)
    begin, end = (parse_time(text, zone_of(configuration)) for text in (since, until))
    arguments = {"type": kind, "since": begin, "until": end, "waiting": waiting, "dead": dead}
    items = listed(configuration, "records", records_page, arguments)
    if json_lines:
        for item in items:
            print_json(item)
        return
    rows = []
    for item in items:
        event, code = item["event"] or {"id": "?", "data": {"key": "damaged in the store"}}, item["reason_code"]
        data = event["data"]
        answer = "waiting" if code is None else "accepted" if code < 0x80 else f"refused: {item['reason']}"
        produced = data.get("quantity", {}).get("produced", "")
        rows.append([event["id"], data["key"], str(data.get("revision", "")), str(produced), answer])
    print_table(["id", "key", "revision", "produced", "broker"], rows)
