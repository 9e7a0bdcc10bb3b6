"""The driver: what every one must do, and the powers that some have while the agent runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from edge_agent.contract.readings import Device, Reading, Tag
from edge_agent.contract.settings import DeviceSettings, TagSettings


class Driver(ABC):
    """One object for each link: a TCP connection or a serial port, with the devices behind it.

    A driver waits only as its wire demands (time-out, gap between frames, drain) and bounds every call itself; the
    poller's limit is a backstop that closes the link. It never paces, retries, scales, caches, logs progress or
    decides. Foreign exceptions are translated at this border, once, `from` the original.
    """

    Settings: ClassVar[type[DeviceSettings]] = DeviceSettings
    TagSettings: ClassVar[type[TagSettings]] = TagSettings

    @classmethod
    @abstractmethod
    def link(cls, settings: Any) -> str:
        """The key of the link that a device with these settings needs: equal keys share one driver object."""

    @abstractmethod
    def __init__(self, devices: Sequence[Device]) -> None:
        """Take the devices of one link. Checks what the settings' models could not; opens nothing.

        Raises:
            ConfigError: the devices cannot share this link; the message says which and why.
        """

    @abstractmethod
    async def connect(self) -> None:
        """Open the link, from nothing.

        Raises:
            NotConnected: the peer is not there, refuses, or does not answer in time; the message says what to check.
        """

    @abstractmethod
    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        """One reading for each of the tags that the device can speak for; one bad tag is a BAD reading.

        The poller passes the same tuple each time for the same group, so a plan may be kept by it.

        Raises:
            DeviceFault: this device does not answer, on a link that lives.
            NotConnected: the link is lost.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the link, within a bounded time; idempotent, never raises for a link that is gone."""


@runtime_checkable
class Streams(Protocol):
    """A driver whose link brings readings by itself: a subscription, a scanner."""

    def streams(self, tag: Tag) -> bool:
        """Whether this tag comes by the stream; the poller reads the others."""
        ...

    def stream(self) -> AsyncGenerator[Sequence[Reading], None]:
        """Batches of readings in order of arrival, each bounded, until the link is lost.

        Begins with the present value of every tag that has one. An empty batch says that the link lives and that what
        has not changed holds. A driver that can know this yields an empty batch at least every 10 s, also between
        others; one that cannot (a listening serial port) yields none, and its values go stale. Readings lost inside
        the driver are a BAD reading with the cause `overflow`.

        Raises:
            NotConnected: the link is lost.
        """
        ...


NO_HISTORY = "no_history"
"""The error of a tag of which the device keeps no history: it is not asked again, and nobody is told."""


class HistoryPart(NamedTuple):
    """A part of what a device recorded of one tag, in order of time: bounded in size, later than the part before it."""

    tag: Tag
    readings: Sequence[Reading]
    """Each with the device's time and `Origin.HISTORY`."""
    complete: bool = False
    """The last part: the device has nothing more of the asked time. What the agent wrote down of the outage is
    superseded by what came."""
    holds: bool = False
    """The device ran and recorded every change through all of the asked time, so that between its readings, and before
    the first of them, a value holds."""
    error: str | None = None
    """Why no more of this tag comes, where it is not complete; `NO_HISTORY` where there is none."""


@runtime_checkable
class HasHistory(Protocol):
    """A driver whose devices keep a history of their own, from which the gap that an outage left is filled."""

    def has_history(self, tag: Tag) -> bool:
        """Whether to ask for this tag's history after an outage; known before the link is open."""
        ...

    async def device_time(self, device: Device) -> int | None:
        """What the device's own clock says now, integer nanoseconds since 1970 UTC; None where it does not tell.

        Raises:
            NotConnected: the link is lost.
        """
        ...

    def history(self, tags: Sequence[Tag], start: int, end: int) -> AsyncGenerator[HistoryPart, None]:
        """What the device recorded of the tags in [start, end), integer nanoseconds since 1970 UTC.

        Runs beside `stream` and `read`, on the same link, and delays neither by more than a request.

        Raises:
            NotConnected: the link is lost; what has come so far stands.
        """
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A driver that keeps files from start to start, such as its certificate and whom it trusts."""

    def keep_files_in(self, folder: Path) -> None:
        """A folder of the driver's own, called once before the first `connect`; it may not exist yet. Opens nothing."""
        ...
