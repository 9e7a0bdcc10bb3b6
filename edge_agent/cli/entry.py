"""`edge-agent entry` and `edge-agent device`: what people tell the running agent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, load_usable, parse_time, print_json, zone_of

if TYPE_CHECKING:
    from edge_agent.config import Configuration

entry = typer.Typer(
    no_args_is_help=True,
    help="Tell the agent a reason, scrap, a job, a planned stop. Entries are kept for ever and correct what was said.",
    epilog="Times: 14:05 or 2026-11-23 14:05 in the agent's time zone, with an offset as 2026-11-23T14:05:00Z, or how "
    "long ago: 20 min. What was told is published on …/MACHINE/entry.",
)
device = typer.Typer(no_args_is_help=True, help="Tell the agent about a device.")

MachineArgument = Annotated[str, typer.Argument(help="The machine's name.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who says it.", show_default="the user who asks")]
AtOption = Annotated[str | None, typer.Option("--at", help="When it was.", show_default="now")]
FromOption = Annotated[str | None, typer.Option("--from", help="When it began.")]
ToOption = Annotated[str | None, typer.Option("--to", help="When it was over.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why: hydraulics/low pressure.")]
CountArgument = Annotated[int, typer.Argument(help="How many; below 0 takes back (write -- before it).")]


def _tell(config: Path | None, json_lines: bool, kind: str, machine: str, by: str | None, **said: Any) -> None:
    """Send an entry to the running agent, and print what it has written down. Times are in the agent's zone."""
    from edge_agent.contract import EdgeAgentError
    from edge_agent.control import LONGEST_REQUEST_BYTES

    configuration = load_usable(config)
    zone, ahead = zone_of(configuration), kind == "planned-stop"
    times = {name: parse_time(said.pop(name, None), zone, ahead) for name in ("start", "end")}
    if (length := said.pop("for_ns", None)) is not None:
        times["end"] = (time.time_ns() if times["start"] is None else times["start"]) + length
    arguments = {"kind": kind, "machine": machine, "by": by} | times | said
    if len(json.dumps(arguments)) > LONGEST_REQUEST_BYTES // 2:
        raise EdgeAgentError("that is too much to tell at once; make it shorter")
    for item in _asked(configuration, "entry", arguments):
        if json_lines:
            print_json(item)
        else:
            when = f"for {item['start']}" + (f" to {item['end']}" if item["end"] else "")
            print(f"{item['machine']}: entry {item['entry']}, {item['kind']} by {item['by']} {when}")


def _asked(configuration: Configuration, verb: str, arguments: dict[str, Any]) -> Iterator[Any]:
    """The running agent's answer; without one nothing can be told."""
    from edge_agent import control
    from edge_agent.agent import data_folder
    from edge_agent.contract import EdgeAgentError

    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    socket = control.find(configuration.agent.name, data_folder(configuration.agent))
    if socket is None:
        raise EdgeAgentError(f"{configuration.agent.name} does not run here; start it with `edge-agent run`")
    yield from control.ask(socket, verb, **arguments)


@entry.command()
def reason(
    machine: MachineArgument,
    reason: Annotated[str, typer.Argument(help="Why it stood still: hydraulics/low pressure.")],
    begin: FromOption = None,
    end: ToOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say why a machine stood still: the stop that goes on, the last one, or those between --from and --to.

    Example: `edge-agent entry reason press-01 "hydraulics/low pressure"`
    """
    _tell(
        config, json_lines, "reason", machine, by,
        start=begin, end=end, body={"reason": reason},
    )  # fmt: skip


@entry.command()
def scrap(
    machine: MachineArgument,
    count: CountArgument,
    reason: ReasonOption = None,
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say that good items were found to be scrap; they are added to what the PLC counts.

    Example: `edge-agent entry scrap press-01 12 --reason "dimension/too long" --at "20 min"`
    """
    _tell(config, json_lines, "scrap", machine, by, start=at, body={"count": count, "reason": reason})


@entry.command()
def rework(
    machine: MachineArgument,
    count: CountArgument,
    reason: ReasonOption = None,
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say that items are to be worked again.

    Example: `edge-agent entry rework press-01 3`
    """
    _tell(config, json_lines, "rework", machine, by, start=at, body={"count": count, "reason": reason})


@entry.command()
def correction(
    machine: MachineArgument,
    count: CountArgument,
    of: Annotated[str, typer.Option("--of", help="Which quantity: produced, scrap, rework.")] = "produced",
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Correct what was counted by so many items.

    Example: `edge-agent entry correction press-01 --at "2 h" -- -5`
    """
    _tell(config, json_lines, "correction", machine, by, start=at, body={"count": count, "quantity": of})


@entry.command("planned-stop")
def planned_stop(
    machine: MachineArgument,
    begin: Annotated[str | None, typer.Option("--from", help="When it begins.", show_default="now")] = None,
    end: Annotated[str | None, typer.Option("--to", help="When it is over.")] = None,
    for_: Annotated[str | None, typer.Option("--for", help="How long it takes, such as 2 h.")] = None,
    reason: ReasonOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say that a machine stands still as planned, now, in the past or in days to come; producing stays producing.

    Example: `edge-agent entry planned-stop press-01 --from 2026-12-24T12:00:00+01:00 --for 6h`
    """
    from edge_agent.contract import parse_duration

    length = None
    if for_ is not None and end is not None:
        raise typer.BadParameter("--for and --to say the same; give one of them")
    if for_ is not None:
        try:
            length = parse_duration(for_)
        except ValueError as error:
            raise typer.BadParameter(f"--for: {error}") from error
    body = {} if reason is None else {"reason": reason}
    _tell(config, json_lines, "planned-stop", machine, by, start=begin, end=end, for_ns=length, body=body)


@entry.command("job-start")
def job_start(
    machine: MachineArgument,
    job: Annotated[str, typer.Argument(help="The order, such as WO-1001.")],
    product: Annotated[str | None, typer.Option(help="What is made.")] = None,
    operation: Annotated[str | None, typer.Option(help="Which operation of the order.")] = None,
    quantity: Annotated[int | None, typer.Option(help="How many good items are wanted.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="Passed through: name=value; may be repeated.")] = None,
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say that a job begins; it ends the one in work.

    Example: `edge-agent entry job-start press-01 WO-1001 --product A100 --quantity 5000 --field customer=acme`
    """
    fields = {}
    for each in field or []:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--field {each}: write name=value")
        fields[name] = value
    body = {"job": job, "product": product, "operation": operation, "planned_quantity": quantity, "fields": fields}
    _tell(config, json_lines, "job-start", machine, by, start=at, body=body)


@entry.command("job-end")
def job_end(
    machine: MachineArgument,
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say that the job in work is over.

    Example: `edge-agent entry job-end press-01`
    """
    _tell(config, json_lines, "job-end", machine, by, start=at, body={})


@entry.command("counter-replaced")
def counter_replaced(
    machine: MachineArgument,
    tag: Annotated[str | None, typer.Option(help="The counter's tag.", show_default="the only one")] = None,
    value: Annotated[int | None, typer.Option(help="What it showed then: items after that count.")] = None,
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Say that a counter was exchanged or set by hand: the jump is no parts.

    Example: `edge-agent entry counter-replaced press-01 --value 0 --at "5 min"`
    """
    body = {"tag": tag, "value": value}
    _tell(config, json_lines, "counter-replaced", machine, by, start=at, body=body)


@entry.command()
def note(
    machine: MachineArgument,
    text: Annotated[str, typer.Argument(help="Words for people; they stand in the shift report.")],
    at: AtOption = None,
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Write a note for people.

    Example: `edge-agent entry note press-01 "new seal on the ram"`
    """
    _tell(config, json_lines, "note", machine, by, start=at, body={"text": text})


@entry.command()
def withdraw(
    number: Annotated[int, typer.Argument(help="The entry's number, as it was printed.")],
    by: ByOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Take an earlier entry back.

    Example: `edge-agent entry withdraw 17`
    """
    _tell(config, json_lines, "withdraw", "", by, body={"entry": number})


@device.command()
def mute(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    for_: Annotated[str, typer.Option("--for", help="How long, such as 2 h; 0 s ends it.")],
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Let the log be silent about a device that is worked on. It is read as before, and its time is unknown as before.

    Example: `edge-agent device mute press-01-plc --for 2h`
    """
    from edge_agent.contract import parse_duration

    try:
        duration = parse_duration(for_)
    except ValueError as error:
        raise typer.BadParameter(f"--for: {error}") from error
    for item in _asked(load_usable(config), "mute", {"device": name, "for_ns": duration}):
        if json_lines:
            print_json(item)
        else:
            print(f"{item['device']}: " + (f"muted until {item['muted_until']}" if duration else "not muted any more"))
