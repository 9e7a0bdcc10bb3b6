"""`edge-agent report`: a shift report for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, load_usable, print_json
from edge_agent.contract import EdgeAgentError


def report(
    machine: Annotated[str, typer.Argument(help="The machine's name.")],
    shift: Annotated[
        str | None, typer.Option(help="A shift's name, or day.", show_default="the running one, else the last")
    ] = None,
    day: Annotated[
        str | None, typer.Option(help="The production day on which it began, as 2026-11-23.", show_default="the last")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write one HTML file that needs nothing beside it.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """A shift of one machine for people: states, losses, counts against pace, OEE by hour, and what is missing.

    Example: `edge-agent report press-01 --shift early --day 2026-11-23 --html early.html`
    """
    data = _data(config, {"machine": machine, "shift": shift, "day": _day(day)})
    if json_lines:
        print_json(data)
        return
    from rich.console import Console

    from edge_agent.cli.report import page, print_report

    if html is None:
        print_report(data, Console())
        return
    try:
        html.write_text(page(data), encoding="utf-8")
    except OSError as error:
        raise EdgeAgentError(f"{html}: {error.strerror}; name a file that can be written") from error
    print(f"{html}: {html.stat().st_size / 1000:.0f} kB")


def _day(text: str | None) -> str | None:
    from datetime import date

    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise typer.BadParameter(f"--day: {text!r} is no date, such as 2026-11-23") from error


def _data(config: Path | None, arguments: dict[str, Any]) -> Any:
    """The figures from the running agent, else from its files."""
    import asyncio

    from edge_agent import control
    from edge_agent.agent import data_folder

    configuration = load_usable(config)
    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    folder = data_folder(configuration.agent)
    socket = control.find(configuration.agent.name, folder)
    if socket is not None:
        return next(iter(control.ask(socket, "report", **arguments)))
    from edge_agent.report import from_files

    return asyncio.run(from_files(configuration, folder, arguments))
