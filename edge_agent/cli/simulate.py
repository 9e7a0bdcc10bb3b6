"""`edge-agent simulate`: the plant alone."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from edge_agent.simulator.serve import Endpoints

_INTRODUCTION = """\
A simulated plant (seed {seed}), {state}:
  press-01      Modbus TCP   {endpoints.press}
  oven          OPC UA       {endpoints.oven}
  packing-cell  MT-SICS      {endpoints.scale}
                Modbus RTU   {endpoints.counter} (device id 1)
Read it from another terminal: edge-agent run config/
Ctrl-C ends it and says what was made."""


def simulate(
    seed: Annotated[int, typer.Option(help="Another number is another life of the machines.")] = 1,
    modbus_port: Annotated[int, typer.Option(min=0, max=65535, help="For press-01; 0 is any free port.")] = 5020,
    opcua_port: Annotated[int, typer.Option(min=0, max=65535, help="For oven; 0 is any free port.")] = 4840,
    serial_dir: Annotated[Path, typer.Option(help="The folder of packing-cell's serial lines.")] = Path(
        "/tmp/edge-agent-plant"  # noqa: S108 - the plant refuses a folder that is not the user's own
    ),
    hold: Annotated[bool, typer.Option("--hold", help="Machines stand idle until the command start.")] = False,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Take commands from stdin: start, freeze, truth, stop. Implies --json.")
    ] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of text.")] = False,
) -> None:
    """Serve a small plant on 127.0.0.1: a press, an oven and a packing cell, over their real protocols.

    Example: `edge-agent simulate`, and in another terminal `edge-agent run config/`.
    """
    from edge_agent.simulator.plant import PlantError
    from edge_agent.simulator.serve import simulate as run_plant

    def ready(endpoints: Endpoints) -> None:
        if json_lines and not stdin:
            print(json.dumps({name: getattr(endpoints, name) for name in endpoints.__slots__}), flush=True)
        elif not stdin:
            state = "standing idle" if hold else "running"
            print(_INTRODUCTION.format(seed=seed, state=state, endpoints=endpoints), flush=True)

    try:
        truth = asyncio.run(
            run_plant(
                seed=seed,
                modbus_port=modbus_port,
                opcua_port=opcua_port,
                serial_dir=serial_dir,
                hold=hold,
                control=stdin,
                ready=ready,
            )
        )
    except PlantError as error:
        print(f"edge-agent simulate: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if json_lines and not stdin:
        print(json.dumps({"answer": "truth", **truth}))
    elif not stdin:
        _print_table(truth)


def _print_table(truth: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    states = [state for state in next(iter(truth["machines"].values()))["time_s"] if state != "idle"]
    title = f"What the plant made in {truth['elapsed_s']:.0f} s: parts, and seconds in each state"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("machine", no_wrap=True)
    for heading in ("produced", "good", "scrap", *(state.replace("_", " ") for state in states)):
        table.add_column(heading, justify="right")
    for name, made in truth["machines"].items():
        counts = (str(made[count]) for count in ("produced", "good", "scrap"))
        table.add_row(name, *counts, *(f"{made['time_s'][state]:.1f}" for state in states))
    Console().print(table)
