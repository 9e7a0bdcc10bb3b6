"""`edge-agent watch`: the tags of a device, live."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, load_usable, print_json
from edge_agent.cli.read import device_of, shown

if TYPE_CHECKING:
    from edge_agent.config import Configuration

Rows = list[dict[str, Any]]
STYLES = {"good": "", "uncertain": "yellow", "bad": "red"}


def watch(
    device: Annotated[str, typer.Argument(help="The device's name in the configuration.")],
    every: Annotated[str, typer.Option(help="How often to look.")] = "1 s",
    duration: Annotated[str | None, typer.Option("--for", help="End by itself after this.")] = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Show the tags of a device live: raw, scaled, quality, age, and why it is bad. Ctrl-C ends it.

    A running agent is asked, since the link is its own; otherwise the device is read here, with the agent's own
    patience: it is connected again when it was lost. Without a terminal, and with --json, each change is a line.

    Example: `edge-agent watch press-01-plc`
    """
    import asyncio

    from edge_agent.contract import NS_PER_S, parse_duration

    configuration = load_usable(config)
    device_of(configuration, device)
    try:
        pause_s = parse_duration(every) / NS_PER_S
        limit_s = None if duration is None else parse_duration(duration) / NS_PER_S
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    live = sys.stdout.isatty() and not json_lines
    with _screen(device) if live else nullcontext(_lines(json_lines)) as show, suppress(KeyboardInterrupt):
        asyncio.run(_watch(configuration, device, max(pause_s, 0.1), limit_s, show))


async def _watch(
    configuration: Configuration, name: str, pause_s: float, limit_s: float | None, show: Callable[[Rows, str], None]
) -> None:
    import asyncio
    from contextlib import aclosing

    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s), aclosing(_looks(configuration, name, pause_s)) as looks:
            async for rows, told in looks:
                show(rows, told)


async def _looks(configuration: Configuration, name: str, pause_s: float) -> AsyncGenerator[tuple[Rows, str], None]:
    """What is known at each look, and what there is to say of the link."""
    import asyncio

    from edge_agent import control
    from edge_agent.agent import data_folder

    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    socket = control.find(configuration.agent.name, data_folder(configuration.agent))
    if socket is None:
        async for look in _read_here(configuration, name, pause_s):
            yield look
        return
    while True:
        rows = await asyncio.to_thread(lambda: list(control.ask(socket, "read", device=name)))
        yield rows, f"through the running agent {configuration.agent.name}"
        await asyncio.sleep(pause_s)


async def _read_here(configuration: Configuration, name: str, pause_s: float) -> AsyncGenerator[tuple[Rows, str], None]:
    import asyncio
    import logging
    import time

    from edge_agent import registry
    from edge_agent.agent import data_folder
    from edge_agent.clock import SystemClock
    from edge_agent.intake import Intake, TagState
    from edge_agent.listing import tag_as_read
    from edge_agent.poller import Link

    device = configuration.devices[name]
    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    logging.getLogger("edge_agent").setLevel(logging.CRITICAL)  # the screen says it
    states = {
        tag: TagState(tag, 0, machine=False, refresh_ns=0, max_skew_ns=device.settings.max_skew) for tag in device.tags
    }
    driver = registry.construct([device], data_folder(configuration.agent))
    link = Link(name, driver, [device], Intake(states), lambda rows: None, SystemClock())
    running = asyncio.create_task(link.run())
    try:
        while True:
            (figures,) = link.figures
            told = figures.error or f"read here, {device.settings.url}"
            rows = [tag_as_read(states[tag], time.time_ns(), figures.last_read) for tag in device.tags]
            yield rows, told
            await asyncio.sleep(pause_s)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _lines(json_lines: bool) -> Callable[[Rows, str], None]:
    """A line for each tag that has changed since it was last shown."""
    before: dict[str, tuple[Any, ...]] = {}

    def show(rows: Rows, told: str) -> None:
        for row in rows:
            now = (row["raw"], row["value"], row["quality"], row["cause"])
            if before.get(row["tag"]) == now or row["cause"] == "not_started":
                continue
            before[row["tag"]] = now
            if json_lines:
                print_json(row)
            else:
                print("  ".join(shown(row)).rstrip())
        sys.stdout.flush()

    return show


@contextmanager
def _screen(name: str) -> Iterator[Callable[[Rows, str], None]]:
    """A table that is drawn anew at each look, and left as it was last."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    live = Live(console=Console(), auto_refresh=False)

    def show(rows: Rows, told: str) -> None:
        table = Table(title=f"{name}: {told}", title_justify="left", title_style="bold")
        for column in ("tag", "raw", "value", "quality", "age s", "why"):
            table.add_column(column, justify="right" if column in ("raw", "value", "age s") else "left")
        for row in rows:
            table.add_row(*shown(row), style=STYLES.get(row["quality"], ""))
        live.update(table, refresh=True)

    with live:
        yield show
