"""`edge-agent read`: one sweep of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, load_usable, print_json, print_table
from edge_agent.contract import ConfigError

if TYPE_CHECKING:
    from edge_agent.config import Configuration
    from edge_agent.contract import Device, Driver, Reading

STREAM_S = 5.0
"""How long a subscription may take to bring the present value of every tag."""


def read(
    device: Annotated[str, typer.Argument(help="The device's name in the configuration.")],
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Read every tag of a device once: raw, scaled, quality, age, and why it is bad.

    While an agent runs it is asked what it read last, since the link is its own; otherwise the device is read here.

    Example: `edge-agent read press-01-plc`
    """
    configuration = load_usable(config)
    rows = _from_agent(configuration, device)
    if rows is None:
        rows = _from_device(configuration, device)
    if json_lines:
        for row in rows:
            print_json(row)
        return
    print_table(["tag", "raw", "value", "quality", "age s", "why"], [shown(row) for row in rows])


def shown(row: dict[str, Any]) -> list[str]:
    """A tag as people see it: raw, scaled, quality, age, and why it is bad, with its place in the configuration."""
    why = row["cause"] or ""
    if row["quality"] == "bad" and why and row.get("place"):
        why = f"{why} ({row['place']})"
    age = "-" if row["age_s"] is None else f"{row['age_s']:.1f}"
    value = _text(row["value"]) + (f" {row['unit']}" if row.get("unit") and row["value"] is not None else "")
    return [row["tag"], _text(row["raw"]), value, row["quality"], age, why]


def device_of(configuration: Configuration, name: str) -> Device:
    """A sound device of the configuration.

    Raises:
        ConfigError: there is none of this name, or it has faults, which the message has.
    """
    device = configuration.devices.get(name)
    if device is None:
        faults = configuration.disabled.get(f"devices.{name}", ())
        known = ", ".join(configuration.devices) or "none"
        raise ConfigError("\n".join([f"no usable device {name!r}; there are: {known}", *map(str, faults)]))
    return device


def _text(value: Any) -> str:
    """A value for people: a float with the seven digits that it has as float32; JSON has all of them."""
    return "-" if value is None else f"{value:.7g}" if isinstance(value, float) else str(value)


def _from_agent(configuration: Configuration, name: str) -> list[dict[str, Any]] | None:
    from edge_agent import control
    from edge_agent.agent import data_folder

    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    socket = control.find(configuration.agent.name, data_folder(configuration.agent))
    return None if socket is None else list(control.ask(socket, "read", device=name))


def _from_device(configuration: Configuration, name: str) -> list[dict[str, Any]]:
    import asyncio
    import time

    from edge_agent import registry
    from edge_agent.agent import data_folder
    from edge_agent.intake import Intake, TagState
    from edge_agent.listing import tag_as_read

    device = device_of(configuration, name)
    assert configuration.agent is not None  # noqa: S101 - load_usable has seen to it
    states = {
        tag: TagState(tag, 0, machine=False, refresh_ns=0, max_skew_ns=device.settings.max_skew) for tag in device.tags
    }
    intake = Intake(states)
    readings = asyncio.run(sweep(registry.construct([device], data_folder(configuration.agent)), device))
    received = time.time_ns()
    intake.accept(readings, received)
    return [tag_as_read(states[tag], time.time_ns(), received) for tag in device.tags]


async def sweep(driver: Driver, device: Device) -> list[Reading]:
    """Connect, one reading for each tag as far as they come, and close."""
    import asyncio
    from contextlib import suppress

    from edge_agent.contract import Streams

    found: dict[str, Reading] = {}
    try:
        await driver.connect()
        streamed = {tag.name for tag in device.tags if isinstance(driver, Streams) and driver.streams(tag)}
        polled = tuple(tag for tag in device.tags if tag.name not in streamed)
        if polled:
            found |= {reading.tag.name: reading for reading in await driver.read(device, polled)}
        if isinstance(driver, Streams) and streamed:
            with suppress(TimeoutError):
                async with asyncio.timeout(STREAM_S):
                    async for batch in driver.stream():
                        found |= {reading.tag.name: reading for reading in batch}
                        if streamed <= found.keys():
                            break
    finally:
        await driver.close()
    return list(found.values())
