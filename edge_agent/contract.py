"""All that the author of a driver reads: tags, readings, the driver itself, settings, errors.

A driver is one class behind an entry point of the group `edge_agent.drivers`. It reads and translates;
the poller paces, scales, backs off, counts and gives up. Built-in drivers have no privileges.

The order of calls: the class is constructed (which opens nothing), then `connect`, then any number of `read`s,
one at a time, and, for a driver that `Streams`, one running `stream`; then `close`, which may come at any time
and more than once. After `NotConnected` the poller calls `close`, waits, and calls `connect` on the same object:
`connect` begins from nothing each time.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

# ------------------------------------------------------------------------------------------------ errors


class EdgeAgentError(Exception):
    """The base of what the agent raises on purpose. The message names the place and the cure."""


class ConfigError(EdgeAgentError):
    """The configuration cannot be used; exit code 78."""


class NotConnected(EdgeAgentError):
    """The link is lost or was never there: close, wait, connect again."""


class ProtocolFault(NotConnected):
    """The peer talked nonsense twice in a row; the message shows its bytes."""


class DeviceFault(EdgeAgentError):
    """One device does not answer on a link that lives: this device waits, the link goes on."""

    def __init__(self, device: Device, message: str) -> None:
        super().__init__(message)
        self.device = device


# -------------------------------------------------------------------------------------------- quantities

NS_PER_S = 1_000_000_000
_DURATION_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": NS_PER_S, "min": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S, "d": 86_400 * NS_PER_S,
}  # fmt: skip
_SIZE_BYTES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_RATE_S = {"s": 1, "min": 60, "h": 3_600}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)\s*")
_RATE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*/\s*([a-z]+)\s*")


def _with_unit(text: Any, units: dict[str, int], what: str, examples: str) -> int:
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a {what} is a number and its unit, such as {examples}")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"unknown unit {unit!r} in a {what}; allowed: {', '.join(units)}")
    exact = Fraction(number) * units[unit]
    if exact.denominator != 1:
        raise ValueError(f"a {what} of {text!r} is finer than the agent counts")
    return int(exact)


def parse_duration(text: Any) -> int:
    """A duration such as `500ms`, `1 s`, `8h` or `14 d`, in integer nanoseconds.

    Raises:
        ValueError: no unit, an unknown unit, or not a number; the message says what to write.
    """
    return _with_unit(text, _DURATION_NS, "duration", "500 ms, 1 s, 8 h or 14 d")


def parse_size(text: Any) -> int:
    """A size such as `2 GB` or `64 MiB`, in bytes (k, M, G are powers of ten; Ki, Mi, Gi of two).

    Raises:
        ValueError: no unit, an unknown unit, or not a number; the message says what to write.
    """
    return _with_unit(text, _SIZE_BYTES, "size", "2 GB or 512 MiB")


def parse_rate(text: Any) -> Fraction:
    """A rate such as `2 /s` or `1400 /h`, as an exact number per second.

    Raises:
        ValueError: not a number per unit of time; the message says what to write.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _RATE_S:
        raise ValueError("a rate is a number per s, min or h, such as 2 /s or 1400 /h")
    return Fraction(match[1]) / _RATE_S[match[2]]


def _more_than_zero(value: Any) -> Any:
    if value <= 0:
        raise ValueError("must be more than zero")
    return value


def _schema(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


_DURATION_SCHEMA = _schema(r"^\s*[0-9]+(\.[0-9]+)?\s*(ns|us|µs|ms|s|min|h|d)\s*$", "500 ms", "1 s", "14 d")

Duration = Annotated[int, BeforeValidator(parse_duration), _DURATION_SCHEMA]
"""A span of time, in YAML with its unit; integer nanoseconds in code."""

Period = Annotated[int, AfterValidator(_more_than_zero), BeforeValidator(parse_duration), _DURATION_SCHEMA]
"""A duration of more than zero."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    _schema(r"^\s*[0-9]+(\.[0-9]+)?\s*([kKMGT]i?)?B\s*$", "2 GB", "512 MiB"),
]
"""A number of bytes, in YAML with its unit; integer bytes in code."""

Rate = Annotated[
    Fraction,
    AfterValidator(_more_than_zero),
    BeforeValidator(parse_rate),
    PlainSerializer(lambda rate: f"{rate} /s", return_type=str),
    _schema(r"^\s*[0-9]+(\.[0-9]+)?\s*/\s*(s|min|h)\s*$", "2 /s", "1400 /h"),
]
"""Items per unit of time, in YAML with its unit; an exact number per second in code."""


# ---------------------------------------------------------------------------------------------- settings


class Settings(BaseModel):
    """The base of everything that stands in YAML: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Secret(Settings):
    """A secret by reference: `{file: …}`, `{env: …}` or `{credential: …}` (a systemd credential).

    A literal string is accepted, and `edge-agent check` warns about it. The value is read when it is used, so that a
    rotated file is seen at the next connect, and it appears in no representation, log or error.
    """

    file: Path | None = None
    env: str | None = None
    credential: str | None = None
    literal: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"literal": given}
        if not isinstance(given, dict) or len(given) != 1 or "literal" in given:
            raise ValueError("a secret is one of {file: …}, {env: …} or {credential: …}")
        return given

    def resolve(self) -> str:
        """The secret itself, without the line feed that ends a file.

        Raises:
            ConfigError: the file, variable or credential is not there.
        """
        if self.literal is not None:
            return self.literal
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise ConfigError(f"the environment variable {self.env} is not set")
            return value
        try:
            return self.path().read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"the secret in {self.path()} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the secret in {self.path()} is not text in UTF-8") from error
        except ValueError as error:  # a NUL
            raise ConfigError(f"expected a path of a secret's file, not {str(self.path())!r}") from error

    def path(self) -> Path:
        """The file of a secret that is a file or a credential.

        Raises:
            ConfigError: it is neither, or there is no credentials directory outside the systemd unit.
        """
        if self.file is not None:
            return self.file
        if self.credential is None:
            raise ConfigError("this secret must be a {file: …} or a {credential: …}")
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise ConfigError(f"the credential {self.credential!r} exists only inside the systemd unit")
        return Path(directory) / self.credential

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class DeviceSettings(Settings):
    """What every device has. A driver adds its own fields in a subclass, `Driver.Settings`."""

    driver: str
    """The name of the driver, as `edge-agent drivers` lists it."""
    url: str
    """Where the device is reached, in the driver's own form."""
    poll: Period = parse_duration("1 s")
    """How often the tags are read; a tag may have its own."""
    max_skew: Duration = parse_duration("2 s")
    """How far the device's own time may be from the time of receipt before the time of receipt is used instead."""


class TagSettings(Settings):
    """What every tag has. A driver adds its own fields in a subclass, `Driver.TagSettings`."""

    address: Any
    """The place in the device, in the driver's own form."""
    type: str | None = None
    """The type of the value, in the driver's own words."""
    unit: str | None = None
    """The unit, as a UCUM code: `Cel`, `kPa`, `mm/s`, `kW.h`."""
    scale: float | None = None
    """The raw number is multiplied by this."""
    offset: float | None = None
    """This is added after scaling."""
    deadband: float | None = None
    """A change of no more than this, in scaled units, is not stored (the refresh still is)."""
    poll: Period | None = None
    """How often this tag is read; the device's `poll` unless given."""
    store: Literal["change", "every"] = "change"
    """`change`: a reading is stored when it changes, and every refresh. `every`: each one is stored (scanners)."""


@dataclass(frozen=True, slots=True, eq=False)
class Tag:
    """A configured, named value of a device. Compared by identity; `name` is `device.tag`."""

    name: str
    settings: TagSettings
    poll_ns: int

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


# ---------------------------------------------------------------------------------------------- readings


class Quality(IntEnum):
    """How far a value can be trusted: the severities of an OPC UA StatusCode. BAD has the value None."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class Origin(StrEnum):
    """Where a reading came from: seen as it happened, or read later from the device's own history."""

    LIVE = "live"
    HISTORY = "history"


Value = bool | int | float | str | bytes | tuple[bool | int | float, ...] | None


class Reading(NamedTuple):
    """One tag's value at one time.

    `time` is the device's own time in integer nanoseconds since 1970 UTC, or None: the poller stamps it with the time
    of receipt. `cause` says why a reading is not good: a status code's name, `illegal_data_address`, `device_offline`.
    """

    tag: Tag
    time: int | None
    value: Value
    quality: Quality = Quality.GOOD
    cause: str | None = None
    origin: Origin = Origin.LIVE


def bad(tag: Tag, cause: str, time: int | None = None) -> Reading:
    """The reading of a tag that has no value, and why."""
    return Reading(tag, time, None, Quality.BAD, cause)


# ------------------------------------------------------------------------------------------------ driver


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
