"""The settings of a serial device and of its tags."""

from __future__ import annotations

import re
from dataclasses import replace
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
from edge_agent_serial.frames import Framer
from edge_agent_serial.profiles import PROFILES, Dialect

_LINE = re.compile(r"([0-9]{2,7}) +([5-8])([NEOMSneoms])(1|1\.5|2)")
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
    max_length: int = Field(default=1024, ge=1, le=65536)
    """A frame of more bytes is dropped, up to the next `end`."""

    @model_validator(mode="after")
    def _end_or_length(self) -> Frame:
        if self.end is not None and self.length is not None:
            raise ValueError("a frame has an end or a length, not both")
        return self

    def framer(self) -> Framer:
        """A new framer for such frames."""
        end = self.end or ("" if self.length else "\r\n")
        return Framer(
            end=end.encode(), start=(self.start or "").encode(), length=self.length or 0, limit=self.max_length
        )


class SerialTagSettings(TagSettings):
    """One value of a serial instrument."""

    address: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The name of a group in the device's pattern; with `profile: sics`: weight, unit or stable."""
    type: Literal["float", "int", "string", "bool"] | None = None
    """What the text means. Default: the profile's, and `string` where there is a pattern."""


class SerialSettings(DeviceSettings):
    """An instrument on a serial line."""

    line: LineSettings = Line()
    """Baud rate, data bits, parity, stop bits: `9600 8N1`. `socket://` has its own."""
    force: bool = Field(default=False, validate_default=True)
    """Takes a name such as /dev/ttyUSB0, which another adapter may have after the next start."""
    profile: Literal["sics"] | None = None
    """A built-in instrument; otherwise `pattern`."""
    request: WireText | None = Field(default=None, min_length=1, max_length=256)
    r"""Sent for each answer, such as "SI\r\n". Without it the instrument speaks by itself."""
    frame: Frame = Frame()
    pattern: str | None = Field(default=None, max_length=1024, validate_default=True)
    """A regular expression for a whole frame, without its end; its named groups are the addresses of tags."""
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
        if "profile" in info.data and (info.data["profile"] is None) == (pattern is None):
            raise ValueError("give profile: sics, or a pattern with named groups (one of them)")
        if pattern is None:
            return None
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if not compiled.groupindex:
            raise ValueError("give each value a name, as in (?P<weight>[0-9.]+): tags find it by that")
        return pattern

    def dialect(self) -> Dialect:
        """How this instrument is asked and understood."""
        if self.profile is not None:
            dialect = PROFILES[self.profile]
        else:
            dialect = Dialect(pattern=re.compile(self.pattern or ""), encoding=self.encoding)
        request = dialect.request if self.request is None else self.request.encode()
        return replace(dialect, request=request, parity=self.line.parity != "N")
