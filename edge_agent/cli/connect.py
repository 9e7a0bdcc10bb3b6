"""What `edge-agent check --connect` does: each device and the broker tried, one line each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_agent import control, registry
from edge_agent.agent import data_folder
from edge_agent.cli.common import print_json
from edge_agent.cli.read import sweep
from edge_agent.contract import ConfigError, Device, DeviceFault, Driver, NotConnected, Quality
from edge_agent.uplink import try_broker

if TYPE_CHECKING:
    from edge_agent.config import Configuration

LIMIT_S = 30.0
"""A backstop; drivers bound their calls themselves."""
NAMED = 5


class Tried(NamedTuple):
    """One line: what was tried, whether it works, and what was seen or what to check."""

    name: str
    works: bool
    told: str


def try_all(configuration: Configuration, json_lines: bool) -> bool:
    """Try each device and the broker, and print a line for each as it is known; whether all of them work."""
    works = True
    for one in _tried(configuration):
        works = works and one.works
        if json_lines:
            print_json(one._asdict())
        else:
            print(f"{'ok  ' if one.works else 'FAIL'}  {one.name}: {one.told}", flush=True)
    return works


def _tried(configuration: Configuration) -> Iterator[Tried]:
    assert configuration.agent is not None  # noqa: S101 - the caller has seen to it
    folder = data_folder(configuration.agent)
    socket = control.find(configuration.agent.name, folder)
    if socket is not None:
        (status,) = control.ask(socket, "status")
        yield from _known_to(status)
        return
    for devices in _links(configuration):
        yield from asyncio.run(_try_link(devices, folder))
    if configuration.mqtt is not None:
        yield asyncio.run(_try_broker(configuration))


def _known_to(status: dict[str, Any]) -> Iterator[Tried]:
    """What the running agent knows: it holds the links."""
    for one in status["devices"]:
        told = "connected, says the running agent" if one["connected"] else str(one["error"] or "not connected yet")
        bad = [f"{tag['tag'].partition('.')[2]} ({tag['place']}) {tag['cause']}" for tag in one.get("bad", ())]
        yield Tried(one["device"], one["connected"] and not bad, told + _named_bad(bad))
    uplink = status["uplink"]
    told = f"connected by MQTT {uplink['protocol']}" if uplink["connected"] else str(uplink["last_error"])
    yield Tried(uplink["broker"], uplink["connected"], told)


def _links(configuration: Configuration) -> list[list[Device]]:
    shared: dict[tuple[type[Driver], str], list[Device]] = {}
    for device in configuration.devices.values():
        driver = registry.driver(device.settings.driver)
        shared.setdefault((driver, driver.link(device.settings)), []).append(device)
    return list(shared.values())


async def _try_link(devices: Sequence[Device], folder: Path) -> list[Tried]:
    """One device after the other: on a shared line they must not talk at once."""
    return [await _try_device(device, folder) for device in devices]


async def _try_device(device: Device, folder: Path) -> Tried:
    began = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT_S):
            readings = await sweep(registry.construct([device], folder), device)
    except (NotConnected, DeviceFault, ConfigError) as error:
        return Tried(device.name, False, str(error))
    except TimeoutError:
        return Tried(device.name, False, f"{device.settings.url}: nothing within {LIMIT_S:g} s")
    took_ms = 1000 * (time.monotonic() - began)
    bad = [
        f"{reading.tag.short_name} ({reading.tag.place}) {reading.cause}"
        for reading in readings
        if reading.quality is Quality.BAD
    ]
    silent = len(device.tags) - len({reading.tag for reading in readings})
    told = f"{len(readings) - len(bad)} of {len(device.tags)} tags in {took_ms:.0f} ms" + _named_bad(bad)
    if silent:
        told += f"; {silent} have said nothing yet: they come when something happens"
    return Tried(device.name, not bad, told)


def _named_bad(bad: Sequence[str]) -> str:
    if not bad:
        return ""
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    return "; bad: " + ", ".join(bad[:NAMED]) + more


async def _try_broker(configuration: Configuration) -> Tried:
    assert configuration.agent is not None  # noqa: S101 - the caller has seen to it
    assert configuration.mqtt is not None  # noqa: S101
    url = configuration.mqtt.url
    try:
        return Tried(url, True, await try_broker(configuration.mqtt, configuration.agent.name))
    except (NotConnected, ConfigError) as error:
        return Tried(url, False, str(error).removeprefix(f"{url}: "))
