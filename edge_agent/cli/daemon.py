"""`edge-agent run` and `edge-agent check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import JsonOption, directory, print_json

if TYPE_CHECKING:
    from edge_agent.config import Configuration, Fault

Directory = Annotated[
    Path | None,
    typer.Argument(help="The configuration directory.", show_default="$EDGE_AGENT_CONFIG, /etc/edge-agent, ./config"),
]


def run(
    config: Directory = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what drivers do, for finding faults.")] = False,
) -> None:
    """Run the agent: read devices, store readings, compute records, send them to the broker.

    A fault in agent, buffer, mqtt or calendar stops it with exit code 78; a fault in one device or machine disables
    that one, and the rest runs. SIGTERM and SIGINT end it in good order, with exit code 0.

    Example: `edge-agent run /etc/edge-agent`
    """
    import asyncio
    import gc
    import logging

    gc.disable()  # nothing of what is loaded now becomes garbage
    from edge_agent.agent import Agent
    from edge_agent.cli import log_to_stderr
    from edge_agent.config import load

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    configuration = load(directory(config))
    for fault in configuration.faults:
        logging.log(logging.ERROR if fault.severity == "error" else logging.WARNING, "%s", fault)
    if configuration.fatal:
        sys.exit(78)
    for name in configuration.disabled:
        logging.error("%s is disabled until its faults are mended", name)
    # Tags live as long as the agent, and readings end by their reference counts: the collector, which took a fifth of
    # the time, need not look at the first ever again, and at the second seldom.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    gc.enable()
    asyncio.run(Agent(configuration).run())


def check(
    config: Directory = None,
    connect: Annotated[
        bool, typer.Option("--connect", help="Then try each device and the broker: one line each, with the cure.")
    ] = False,
    json_lines: JsonOption = False,
) -> None:
    """Check the configuration: every fault at once, each with file, line, column and its cure. Opens no socket.

    Exit code 78 when there are errors, 0 when there are at most warnings; with `--connect`, 1 when something that is
    configured well does not answer. What a running agent is connected to is asked of it, not tried again.

    Example: `edge-agent check /etc/edge-agent --connect`
    """
    from edge_agent.config import load

    configuration = load(directory(config))
    for fault in configuration.faults:
        if json_lines:
            print_json(_as_json(fault))
        else:
            print(fault)
    errors, warnings = len(configuration.errors), len(configuration.warnings)
    if not json_lines:
        print(
            f"{configuration.directory}: {len(configuration.devices)} devices, {len(configuration.machines)} machines; "
            f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        )
        for name in configuration.disabled if not configuration.fatal else ():
            print(f"run would disable {name} and run the rest")
        if configuration.devices and not configuration.fatal:
            _tell_room(configuration)
    answer = True
    if connect and configuration.agent is not None:
        from edge_agent.cli.connect import try_all

        answer = try_all(configuration, json_lines)
    if errors:
        sys.exit(78)
    if not answer:
        sys.exit(1)


def _tell_room(configuration: Configuration) -> None:
    from math import isinf

    from edge_agent.capacity import capacity, told

    room = capacity(configuration)
    if isinf(room.busy_h):
        print("buffer.max_size has room for all that keep_readings and keep_records ask for")
        return
    quiet = "never" if isinf(room.quiet_h) else f"after {told(room.quiet_h)}"
    print(
        f"buffer.max_size is reached after {told(room.busy_h)} when every value changes at each poll, {quiet} when "
        "none does; from then on the oldest and least needed rows go"
    )


def _as_json(fault: Fault) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(fault) | {"place": str(fault.place), "text": str(fault)}
