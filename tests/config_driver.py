"""A small driver for the tests of the configuration, behind an entry point of its own, and files to load."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from edge_agent.config import Configuration, load
from edge_agent.contract import (
    ConfigError,
    Device,
    DeviceSettings,
    Driver,
    Period,
    Reading,
    Secret,
    Settings,
    Tag,
    TagSettings,
    parse_duration,
)
from edge_agent.registry import GROUP, Registry

OPENED: list[str] = []
"""What the driver opened: nothing may, while a configuration is loaded."""


class Line(Settings):
    """How the bench is wired."""

    baud: int = Field(default=9600, gt=0)
    parity: Literal["N", "E", "O"] = "N"


class BenchSettings(DeviceSettings):
    """A device of the bench."""

    slot: int = Field(default=1, ge=1, le=9)
    """The slot that it is plugged into."""
    timeout: Period = parse_duration("1 s")
    password: Secret | None = None
    line: Line = Line()
    label: str | None = None
    enabled: bool = True


class BenchTag(TagSettings):
    """A value of the bench."""

    address: int
    """The pin."""

    @model_validator(mode="after")
    def _pins(self) -> BenchTag:
        if self.address == 666:
            raise TypeError("a driver's own mistake")
        if self.address > 99:
            raise ValueError("address: the bench has pins up to 99")
        return self


class BenchDriver(Driver):
    """Refuses two devices in one slot of a link, and pin 13."""

    Settings = BenchSettings
    TagSettings = BenchTag

    @classmethod
    def link(cls, settings: Any) -> str:
        return str(settings.url)

    def __init__(self, devices: Sequence[Device]) -> None:
        slots: dict[int, str] = {}
        for device in devices:
            other = slots.setdefault(device.settings.slot, device.name)  # type: ignore[attr-defined]
            if other != device.name:
                raise ConfigError(f"{other} and {device.name} are in one slot")
            for tag in device.tags:
                if tag.settings.address == 13:
                    raise ConfigError(f"{tag.name}: there is no pin 13")

    async def connect(self) -> None:
        OPENED.append("connect")

    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        return []

    async def close(self) -> None:
        OPENED.append("close")


def entry_point(name: str, value: str) -> EntryPoint:
    """An entry point as an installed package would have it."""
    return EntryPoint(name=name, value=value, group=GROUP)


REGISTRY = Registry([entry_point("bench", "config_driver:BenchDriver"), entry_point("absent", "no_such_module:Driver")])

AGENT = """\
agent: {name: gw1, enterprise: acme, site: lyon}
mqtt: {url: mqtt://localhost}
"""
DEVICE = """\
devices:
  press:
    driver: bench
    url: bench://1
    tags:
      count: {address: 1}
      status: {address: 2}
"""
MACHINE = """\
machines:
  press-01:
    area: hall
    line: a
    state: {tag: press.status, map: {1: producing, 2: down}}
    counts: {produced: {tag: press.count, max_rate: 2 /s}}
"""


def loaded(folder: Path, **files: str) -> Configuration:
    """The configuration of a folder with these files; `agent` and others become agent.yaml and others."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load(folder, REGISTRY)


def lines(configuration: Configuration) -> list[str]:
    """All faults as people see them, without the folder."""
    return [str(fault).replace(f"{configuration.directory}/", "") for fault in configuration.faults]
