"""Devices, their tags, and what is read of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

from edge_agent.contract.settings import DeviceSettings, TagSettings


@dataclass(frozen=True, slots=True, eq=False)
class Tag:
    """A configured, named value of a device. Compared by identity; `name` is `device.tag`."""

    name: str
    settings: TagSettings
    poll_ns: int
    place: str = ""
    """Where it stands in the configuration: `devices/press-01.yaml:12`."""

    @property
    def short_name(self) -> str:
        """The name within its device."""
        return self.name.partition(".")[2]


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One peer, reached through one driver, with all its tags in the order of the configuration."""

    name: str
    settings: DeviceSettings
    tags: tuple[Tag, ...]


class Quality(IntEnum):
    """How far a value can be trusted: the severities of an OPC UA StatusCode. BAD has the value None."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class Origin(StrEnum):
    """Where a reading came from: seen as it happened, or read later from the device's own history."""

    LIVE = "live"
    HISTORY = "history"


Value = bool | int | float | str | bytes | tuple[bool | int | float | str, ...] | None


class Reading(NamedTuple):
    """One tag's value at one time.

    `time` is the device's own time in integer nanoseconds since 1970 UTC, or None: the poller stamps it with the time
    of receipt. `cause` says why a reading is not good: a status code's name, `illegal_data_address`, `device_offline`.
    `server_time` is when a server between the device and us knew of it (OPC UA), None where there is none; it is kept
    beside `time`, and nothing is computed from it.
    """

    tag: Tag
    time: int | None
    value: Value
    quality: Quality = Quality.GOOD
    cause: str | None = None
    origin: Origin = Origin.LIVE
    server_time: int | None = None


def bad(tag: Tag, cause: str, time: int | None = None, server_time: int | None = None) -> Reading:
    """The reading of a tag that has no value, and why."""
    return Reading(tag, time, None, Quality.BAD, cause, Origin.LIVE, server_time)
