"""What stands in YAML for a Modbus device and its tags, and the URL of a link."""

from __future__ import annotations

from typing import Any, NamedTuple, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field as Key
from pydantic import ValidationInfo, field_validator, model_validator

from edge_agent.contract import DeviceSettings, Duration, Period, TagSettings, parse_duration
from edge_agent_modbus.address import (
    LAST_ADDRESS,
    MAX_STRING_BYTES,
    SHORT_ORDERS,
    Field,
    Place,
    Span,
    TypeName,
    WordOrder,
    field_of,
    parse_address,
    parse_range,
    type_of,
)

DEFAULT_PORT = 502
MOST_DELAY_NS = parse_duration("30 s")
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

    single_reads: bool = False
    """Each value in a request of its own, for devices that mix values up, or refuse, when several are read at once."""
    forbidden: tuple[str, ...] = ()
    """Ranges that are never read, not even along with others: `["holding:200-299"]`."""
    address_offset: int = Key(default=0, ge=-LAST_ADDRESS, le=LAST_ADDRESS, strict=True)
    """Added to every address, for manuals that count otherwise: -1 where their first register is holding:1."""
    connect_delay: Duration = 0
    """How long to wait after connecting, for devices that are not ready at once."""
    close_after_poll: bool = False
    """Hang up after each poll, for TCP devices that have few connections to give."""
    echo: bool = False
    """The adapter repeats what is sent, as some RS-485 adapters do: the repetition is taken off and checked."""
    drain: Duration | None = None
    """The longest that an answer may come after the timeout; so long a serial line is left alone after a fault."""
    budget: Period | None = None
    """The most that one read may take from the other devices of its link; the rest waits for the next poll."""

    @field_validator("connect_delay")
    @classmethod
    def _not_for_ever(cls, given: int) -> int:
        if given > MOST_DELAY_NS:
            raise ValueError("a device that needs more than 30 s after connecting would never be read")
        return given

    @field_validator("forbidden")
    @classmethod
    def _ranges_that_exist(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for text in given:
            parse_range(text)
        return given

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

    @model_validator(mode="after")
    def _what_the_link_can(self) -> Self:
        scheme = self.target().scheme
        if self.close_after_poll and scheme == "rtu":
            raise ValueError("close_after_poll: a serial port stays open; this is for TCP")
        if self.echo and scheme == "tcp":
            raise ValueError("echo: Modbus TCP has none; this is for two-wire serial lines")
        return self

    def forbidden_spans(self) -> tuple[Span, ...]:
        """The forbidden ranges, as addresses on the wire."""
        offset = self.address_offset
        spans = map(parse_range, self.forbidden)
        return tuple(Span(span.table, span.start + offset, span.end + offset) for span in spans)

    @property
    def drain_ns(self) -> int:
        """How long after the time-out an answer may still come."""
        return self.timeout if self.drain is None else self.drain

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
    count: int | None = Key(default=None, ge=1, strict=True)
    """Makes an array of so many numbers, kept raw, as for a waveform: it is read in one request."""

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
        if given in SHORT_ORDERS and kind not in ("int64", "uint64", "float64"):
            raise ValueError(f"{given} has eight bytes, and a {kind} has not: write {SHORT_ORDERS[given]}")
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

    @field_validator("count")
    @classmethod
    def _count_of_numbers(cls, given: int | None, info: ValidationInfo) -> int | None:
        kind = _kind(info.data)
        if given is not None and kind in ("bool", "string"):
            raise ValueError(f"an array has numbers: a {kind} has no count")
        return given

    @model_validator(mode="after")
    def _array_is_raw(self) -> Self:
        for name in ("scale", "offset", "deadband"):
            if self.count is not None and getattr(self, name) is not None:
                raise ValueError(f"{name}: an array is stored as it is: leave out {name}")
        return self

    @model_validator(mode="after")
    def _within_the_table(self) -> Self:
        self.field()
        return self

    def place(self) -> Place:
        """Where the tag begins."""
        return parse_address(self.address)

    def field(self) -> Field:
        """What the tag occupies."""
        return field_of(self.place(), self.type, self.word_order, self.length, self.count)


def _kind(data: dict[str, Any]) -> str | None:
    """The type of the tag so far, or None where address or type are already at fault."""
    if "address" not in data or "type" not in data:
        return None
    return type_of(parse_address(data["address"]), data["type"])
