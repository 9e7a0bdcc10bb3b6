"""The settings of a serial device and of its tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from edge_agent.contract import DeviceSettings, Period, Settings, TagSettings, parse_duration
from edge_agent_serial.checksums import Checksum
from edge_agent_serial.frames import Framer
from edge_agent_serial.profiles import PROFILES, Dialect

_LINE = re.compile(r"([0-9]{2,7}) +([5-8])([NEOMSneoms])(1|1\.5|2)")
_COLUMNS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
MOST_COLUMNS = 65_536
LEAST_SILENCE_NS, MOST_SILENCE_NS = parse_duration("2 ms"), parse_duration("10 s")
_MOVING_NAME = re.compile(r"/dev/tty(USB|ACM)[0-9]+")
_RFC2217_OPTIONS = re.compile(
    r"(ign_set_control|poll_modem|timeout=[0-9.]+)(&(ign_set_control|poll_modem|timeout=[0-9.]+))*"
)
_SPELLED_ESCAPE = re.compile(r"\\[rntx0]")


class Line(NamedTuple):
    """The line settings of a port."""

    baud: int = 9600
    data_bits: int = 8
    parity: str = "N"
    stop_bits: float = 1

    def __str__(self) -> str:
        return f"{self.baud} {self.data_bits}{self.parity}{self.stop_bits:g}"


def parse_line(text: Any) -> Any:
    """The line settings in `9600 8N1`: baud rate, data bits, parity (N, E, O, M or S) and stop bits.

    Raises:
        ValueError: written otherwise; the message says how.
    """
    if isinstance(text, Line):
        return text
    match = _LINE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError("write baud rate, data bits, parity (N, E, O) and stop bits, such as 9600 8N1 or 2400 7E1")
    baud, data_bits, parity, stop_bits = match.groups()
    if not 50 <= int(baud) <= 4_000_000:
        raise ValueError("the baud rate lies between 50 and 4000000; most instruments have 9600, 4800 or 2400")
    return Line(int(baud), int(data_bits), parity.upper(), float(stop_bits))


def _wire_text(text: str) -> str:
    if _SPELLED_ESCAPE.search(text):
        raise ValueError(r'write it in double quotes, "\r\n": in single quotes a backslash is only a backslash')
    if not text.isascii():
        raise ValueError(r'only ASCII characters; other bytes as "\x02"')
    return text


LineSettings = Annotated[
    Line,
    BeforeValidator(parse_line),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _LINE.pattern, "examples": ["9600 8N1", "2400 7E1"]}),
]
WireText = Annotated[str, AfterValidator(_wire_text)]
"""Bytes as a text in double quotes: `"SI\\r\\n"`, `"\\x02"`."""


class Frame(Settings):
    r"""Where a message begins and ends. Default: a line that ends with CR LF."""

    end: WireText | None = Field(default=None, min_length=1, max_length=16)
    r"""The last characters, such as "\r\n", "\r" or "\x03"."""
    start: WireText | None = Field(default=None, min_length=1, max_length=16)
    r"""The first characters, such as "\x02"; all before them is noise."""
    length: int | None = Field(default=None, ge=1, le=65536)
    """The number of bytes after `start`, where there is no `end`."""
    silence: Period | None = None
    """The pause that ends a frame, where nothing else does: `20 ms`. USB adapters hold bytes back for up to 16 ms."""
    max_length: int = Field(default=1024, ge=1, le=65536)
    """A frame of more bytes is dropped, up to the next `end`."""

    @model_validator(mode="after")
    def _end_or_length(self) -> Frame:
        if sum(each is not None for each in (self.end, self.length, self.silence)) > 1:
            raise ValueError("a frame has an end, a length or a silence: one of them, not both")
        if self.silence is not None and self.start is not None:
            raise ValueError("a frame that silence ends begins with the first byte after it: leave out start")
        if self.silence is not None and not LEAST_SILENCE_NS <= self.silence <= MOST_SILENCE_NS:
            raise ValueError("a silence lies between 2 ms and 10 s; shorter ones are lost in adapters and in Linux")
        return self

    @property
    def end_bytes(self) -> bytes:
        """What ends a frame; nothing where a length or a silence does."""
        return (self.end or ("" if self.length or self.silence else "\r\n")).encode()

    def framer(self, trailer: int = 0) -> Framer:
        """A new framer for such frames, with so many bytes behind their end."""
        return Framer(
            end=self.end_bytes, start=(self.start or "").encode(), length=self.length or 0, limit=self.max_length,
            trailer=trailer,
        )  # fmt: skip


class ChecksumSettings(Settings):
    """How a frame says that it is whole. What does not match is BAD, and never a value."""

    kind: Literal["xor", "sum", "lrc", "crc16"]
    """`xor`, `sum` (modulo 256), `lrc` (its two's complement) or `crc16` (as in Modbus, low byte first)."""
    form: Literal["hex", "raw"] = "hex"
    """Written as hexadecimal digits, or as bytes."""
    with_start: bool = False
    """Made over the start characters, too."""
    after_end: bool = False
    """It follows the end characters and is made over them, too: STX … ETX BCC."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_word(cls, given: Any) -> Any:
        return {"kind": given} if isinstance(given, str) else given

    def checksum(self) -> Checksum:
        """What verifies frames."""
        return Checksum(self.kind, self.form == "hex", self.with_start, self.after_end)


def _columns(given: dict[str, str]) -> dict[str, str]:
    for name, text in given.items():
        match = _COLUMNS.fullmatch(text)
        if not name.isidentifier() or match is None:
            raise ValueError(f"{name}: {text}: write a name and its first and last column, such as weight: 3-10")
        if not 1 <= int(match[1]) <= int(match[2] or match[1]) <= MOST_COLUMNS:
            raise ValueError(f"{name}: {text}: columns are counted from 1 to {MOST_COLUMNS}, the first one first")
    return given


def pattern_of(columns: Mapping[str, str]) -> str:
    """The regular expression whose groups stand in these columns, which may overlap."""
    spans = [(name, _COLUMNS.fullmatch(text)) for name, text in columns.items()]
    groups = [
        f"(?=.{{{int(found[1]) - 1}}}(?P<{name}>.{{{int(found[2] or found[1]) - int(found[1]) + 1}}}))"
        for name, found in spans
        if found is not None
    ]
    return "(?s:" + "".join(groups) + ".*)"


class SerialTagSettings(TagSettings):
    """One value of a serial instrument."""

    address: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[1-9][0-9]?)?$")]
    """A group of the device's pattern or profile, such as weight or stable; of NMEA a field: `GGA.2`, `GPGSV.3`."""
    wire_unit: str | None = None
    """The unit that the instrument must show, where `scale` makes another of it; `unit` unless given."""
    type: Literal["float", "int", "string", "bool"] | None = None
    """What the text means. Default: the profile's, and `string` where there is a pattern."""


class SerialSettings(DeviceSettings):
    """An instrument on a serial line."""

    line: LineSettings = Line()
    """Baud rate, data bits, parity, stop bits: `9600 8N1`. `socket://` has its own."""
    force: bool = Field(default=False, validate_default=True)
    """Takes a name such as /dev/ttyUSB0, which another adapter may have after the next start."""
    profile: Literal["sics", "sics-repeat", "and", "ohaus", "cas", "scanner", "nmea"] | None = None
    """A built-in instrument; otherwise `pattern` or `columns`."""
    request: WireText | None = Field(default=None, min_length=1, max_length=256)
    r"""Sent for each answer, such as "SI\r\n". Without it the instrument speaks by itself."""
    frame: Frame = Frame()
    pattern: str | None = Field(default=None, max_length=1024, validate_default=True)
    """A regular expression for a whole frame, without its end; its named groups are the addresses of tags."""
    columns: Annotated[dict[str, str] | None, AfterValidator(lambda given: given and _columns(given))] = Field(
        default=None, validate_default=True
    )
    """Instead of a pattern, where each value stands, counted from 1: `{weight: 3-10, unit: 12-14}`."""
    checksum: ChecksumSettings | None = None
    """`xor`, `sum`, `lrc` or `crc16`, as hexadecimal digits at the end of each frame; or with `form`, `with_start`,
    `after_end`."""
    begin: WireText | None = Field(default=None, min_length=1, max_length=256)
    r"""Sent after opening, and after 10 s of silence, to an instrument that then speaks by itself: "SIR\r\n"."""
    encoding: Literal["ascii", "latin-1", "utf-8"] = "latin-1"
    """How the frame's bytes are text."""
    timeout: Period = parse_duration("1 s")
    """The longest wait for an answer; of an instrument that speaks by itself: the longest pause within a frame."""
    drain: Period = parse_duration("300 ms")
    """How late an answer may come after its time-out without being taken for the next one's."""

    @field_validator("url")
    @classmethod
    def _url_of_a_port(cls, url: str) -> str:
        if url.startswith("/"):
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("socket", "rfc2217"):
            raise ValueError("expected a path such as /dev/serial/by-id/…, socket://host:port or rfc2217://host:port")
        try:
            port = parts.port
        except ValueError:
            port = None
        options_known = not parts.query or (parts.scheme == "rfc2217" and _RFC2217_OPTIONS.fullmatch(parts.query))
        if not parts.hostname or not port or parts.username or parts.path.strip("/") or not options_known:
            raise ValueError(f"expected {parts.scheme}://host:port, such as {parts.scheme}://10.20.0.13:4001")
        return url

    @field_validator("force")
    @classmethod
    def _name_that_stays(cls, force: bool, info: ValidationInfo) -> bool:
        url = info.data.get("url", "")
        if _MOVING_NAME.fullmatch(url) and not force:
            raise ValueError(
                f"url: {url} may be another adapter after the next start or replug; write the one of "
                "`ls -l /dev/serial/by-id/` that points to it (or by-path), or force: true"
            )
        return force

    @field_validator("pattern")
    @classmethod
    def _pattern_with_groups(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        if pattern is not None and info.data.get("profile") is not None:
            raise ValueError("give a profile or a pattern with named groups: one of them")
        if pattern is None:
            return None
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if not compiled.groupindex:
            raise ValueError("give each value a name, as in (?P<weight>[0-9.]+): tags find it by that")
        return pattern

    @model_validator(mode="after")
    def _one_way_to_read_frames(self) -> SerialSettings:
        ways = [self.profile, self.pattern, self.columns]
        if sum(way is not None for way in ways) != 1:
            raise ValueError("give a profile (sics, and …), a pattern with named groups, or columns: one of them")
        if self.begin is not None and self.dialect().request:
            raise ValueError("an instrument that is asked needs no begin: leave out one of them")
        if self.checksum is not None:
            if self.profile == "nmea":
                raise ValueError("NMEA sentences have their own checksum: leave it out")
            if self.checksum.after_end and not self.frame.end_bytes:
                raise ValueError("checksum.after_end: the frame has no end that it could follow")
            if self.checksum.form == "raw" and self.frame.end_bytes and not self.checksum.after_end:
                raise ValueError("a raw checksum before the end could look like the end: use after_end, or a length")
        return self

    def dialect(self) -> Dialect:
        """How this instrument is asked and understood."""
        if self.profile is not None:
            dialect = PROFILES[self.profile]
        elif self.columns is not None:
            dialect = Dialect(pattern=re.compile(pattern_of(self.columns)), encoding=self.encoding, strip=True)
        else:
            dialect = Dialect(pattern=re.compile(self.pattern or ""), encoding=self.encoding)
        request = dialect.request if self.request is None else self.request.encode()
        begin = dialect.begin if self.begin is None else self.begin.encode()
        verify = dialect.verify
        if self.checksum is not None:
            start, end = (self.frame.start or "").encode(), self.frame.end_bytes
            verify = partial(self.checksum.checksum().verified, start=start, end=end)
        return replace(dialect, request=request, begin=begin, verify=verify, parity=self.line.parity != "N")

    def framer(self) -> Framer:
        """A new framer for this instrument's frames."""
        follows = self.checksum is not None and self.checksum.after_end
        return self.frame.framer(self.checksum.checksum().size if self.checksum is not None and follows else 0)
