"""What stands in YAML for a Modbus device and its tags, and the URL of a link."""

from __future__ import annotations

from typing import Any, NamedTuple, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field as Key
from pydantic import ValidationInfo, field_validator, model_validator

from edge_agent.contract import DeviceSettings, Duration, Period, TagSettings, parse_duration
from edge_agent_modbus.address import (
    MAX_STRING_BYTES,
    Field,
    Place,
    TypeName,
    WordOrder,
    field_of,
    parse_address,
    type_of,
)

DEFAULT_PORT = 502
URL_FORMS = (
    "tcp://host[:port], rtu:///dev/serial/by-id/…?baud=19200&parity=E&stop=1 (three slashes), or rtu+tcp://host:port"
)
_BAUDS = (1200, 2400, 4800, 9600, 14400, 19200, 28800, 38400, 57600, 76800, 115200, 230400, 460800, 921600)


class Line(NamedTuple):
    """How characters stand on a serial line; always 8 data bits."""

    baud: int = 19200
    parity: str = "E"
    stop: int = 1

    def __str__(self) -> str:
        return f"{self.baud} 8{self.parity}{self.stop}"


class Target(NamedTuple):
    """Where a link leads: `place` is a host or the path of a serial port."""

    scheme: str
    place: str
    port: int = 0
    line: Line = Line()

    @property
    def key(self) -> str:
        """The URL normalised, without the line: the devices behind one port or host share it."""
        if self.scheme == "rtu":
            return f"rtu://{self.place}"
        return f"{self.scheme}://{self.peer}"

    @property
    def peer(self) -> str:
        """What messages call it."""
        if self.scheme == "rtu":
            return self.place
        host = f"[{self.place}]" if ":" in self.place else self.place
        return f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Where a URL leads.

    Raises:
        ValueError: not a form that this driver knows; the message says what to write.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{error}; expected {URL_FORMS}") from error
    if parts.fragment or parts.username is not None:
        raise ValueError(f"expected {URL_FORMS}")
    if parts.scheme == "rtu":
        return _serial(parts)
    if parts.scheme not in ("tcp", "rtu+tcp") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"expected {URL_FORMS}")
    if port is None and parts.scheme == "rtu+tcp":
        raise ValueError("rtu+tcp has no usual port; write rtu+tcp://host:port")
    if port == 0:
        raise ValueError("port 0 is no port")
    return Target(parts.scheme, parts.hostname, port or DEFAULT_PORT)


def _serial(parts: SplitResult) -> Target:
    if parts.netloc or parts.path in ("", "/"):
        raise ValueError("a serial port has three slashes and its whole path, such as rtu:///dev/serial/by-id/…")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := given.keys() - {"baud", "parity", "stop"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))} in the URL; allowed: baud, parity, stop")
    parity = given.get("parity", "E").upper()
    if parity not in ("E", "O", "N"):
        raise ValueError(f"parity is E (even), O (odd) or N (none), not {given['parity']!r}")
    baud = given.get("baud", "19200")
    if baud not in map(str, _BAUDS):
        raise ValueError(f"baud is one of {', '.join(map(str, _BAUDS))}, not {baud!r}")
    stop = given.get("stop", "2" if parity == "N" else "1")
    if stop not in ("1", "2"):
        raise ValueError(f"stop is 1 or 2 bits, not {stop!r}")
    return Target("rtu", parts.path, line=Line(int(baud), parity, int(stop)))


class ModbusDevice(DeviceSettings):
    """A Modbus server, reached over TCP, over a serial line, or over a serial line behind a TCP port."""

    device_id: int = Key(default=1, ge=0, le=255, strict=True)
    """The unit identifier: 1 to 247 on a serial line; 0 or 255 for some devices that stand alone on TCP."""
    timeout: Period = parse_duration("1 s")
    """How long an answer may take."""
    pause: Duration = 0
    """The least time between an answer and the next request, for devices that need one (some loggers: 300 ms)."""
    max_read: int = Key(default=125, ge=1, le=125, strict=True)
    """The most registers in one request (16 times as many bits), for devices that allow fewer than 125."""
    max_gap: int = Key(default=8, ge=0, le=124, strict=True)
    """Up to this many unused registers (16 times as many bits) are read along to save a request; 0: none."""

    @field_validator("url")
    @classmethod
    def _url_of_a_link(cls, url: str) -> str:
        parse_url(url)
        return url

    @model_validator(mode="after")
    def _id_for_the_line(self) -> Self:
        if self.target().scheme != "tcp" and not 1 <= self.device_id <= 247:
            raise ValueError(f"device_id: a serial line has the ids 1 to 247, not {self.device_id}")
        return self

    def target(self) -> Target:
        """Where the URL leads."""
        return parse_url(self.url)


class ModbusTag(TagSettings):
    """A value of a Modbus device."""

    address: int | str
    """`holding:100`, `input:5`, `coil:3`, `discrete:7` (counted from 0), `holding:7.3` (a bit), or Modicon `40001`."""
    type: TypeName | None = None
    """Default: bool for bits, uint16 for registers."""
    word_order: WordOrder = "ABCD"
    """The bytes of the big-endian value ABCD in the order in which they come; BADC swaps the bytes of a string."""
    length: int | None = Key(default=None, strict=True)
    """Of a string, in bytes, two to a register."""

    @field_validator("address", mode="before")
    @classmethod
    def _address_that_exists(cls, given: Any) -> Any:
        parse_address(given)
        return given

    @field_validator("type")
    @classmethod
    def _type_of_the_table(cls, given: str | None, info: ValidationInfo) -> str | None:
        if "address" in info.data:
            type_of(parse_address(info.data["address"]), given)
        return given

    @field_validator("scale", "offset", "deadband")
    @classmethod
    def _only_for_numbers(cls, given: float | None, info: ValidationInfo) -> float | None:
        kind = _kind(info.data)
        if given is not None and kind in ("bool", "string"):
            raise ValueError(f"a {kind} is no number: leave {info.field_name} out")
        return given

    @field_validator("word_order")
    @classmethod
    def _order_that_means_something(cls, given: str, info: ValidationInfo) -> str:
        kind = _kind(info.data)
        if kind == "bool":
            raise ValueError("a bool has no word order: leave it out")
        if kind == "string" and given not in ("ABCD", "BADC"):
            raise ValueError("a string is ABCD, or BADC when the bytes of each register are swapped")
        return given

    @field_validator("length")
    @classmethod
    def _length_of_a_string(cls, given: int | None, info: ValidationInfo) -> int | None:
        kind = _kind(info.data)
        if given is None or kind is None:
            return given
        if kind != "string":
            raise ValueError(f"only a string has a length; a {kind} has its own: leave it out")
        if given % 2 or not 2 <= given <= MAX_STRING_BYTES:
            raise ValueError(f"the length of a string is in bytes, even, 2 to {MAX_STRING_BYTES}, not {given}")
        return given

    @model_validator(mode="after")
    def _within_the_table(self) -> Self:
        self.field()
        return self

    def place(self) -> Place:
        """Where the tag begins."""
        return parse_address(self.address)

    def field(self) -> Field:
        """What the tag occupies."""
        return field_of(self.place(), self.type, self.word_order, self.length)


def _kind(data: dict[str, Any]) -> str | None:
    """The type of the tag so far, or None where address or type are already at fault."""
    if "address" not in data or "type" not in data:
        return None
    return type_of(parse_address(data["address"]), data["type"])
