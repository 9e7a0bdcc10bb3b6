"""Powers for commissioning, each optional: what the verbs browse, scan, decode, sniff and cert ask of a driver.

They are class methods, found by `isinstance(driver_class, Browses)`: they need no configuration, only settings that
the verb has made of a URL and its options with the driver's own `Settings`, or those of a configured device. They
open a link of their own, are bounded in time and in number, only read, and close what they opened, also when the
generator is closed early. Errors are those of the contract.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from edge_agent.contract.readings import Quality, Value


class Browsed(NamedTuple):
    """A thing in an address space, in depth-first order: its parent is the last one before it of a smaller depth."""

    depth: int
    """0 for the children of where the browsing began."""
    name: str
    """As the device shows it to people."""
    address: str | None
    """As it stands in YAML; None for what has no value to read, such as a folder."""
    type: str | None = None
    """The type of its value in the protocol's words, such as `Double` or `Int32[3]`."""
    unit: str | None = None
    """The unit, as a UCUM code where the device's own is known, else as the device says it."""
    value: Value = None
    quality: Quality = Quality.GOOD
    cause: str | None = None
    """Why there is no value, or why what is below is not shown."""
    history: bool = False
    """Whether the device keeps a history of it."""


@runtime_checkable
class Browses(Protocol):
    """A driver that can show what a device has."""

    @classmethod
    def browse(
        cls, settings: Any, start: str | None, depth: int, limit: int, folder: Path
    ) -> AsyncGenerator[Browsed, None]:
        """What lies below `start` (an address, or None for where the device's own things begin).

        `folder` is the one of `KeepsFiles`. At most `depth` levels and `limit` things; what is not looked into
        says so in `cause`, and so does a last thing called `…` where there are more.
        """
        ...


@dataclass(frozen=True)
class ScanRequest:
    """What to look for on a link."""

    device_ids: tuple[int, ...]
    """Ask these; the first answers are the proof that a device is there."""
    tables: tuple[str, ...] = ()
    """Then find which addresses of these tables each device has; none: only who is there."""
    first: int = 0
    last: int = 999
    """The addresses to try, both included, counted from 0."""


class ScanFinding(NamedTuple):
    """Something that was found: a device, or a run of addresses that it has."""

    device_id: int
    table: str | None = None
    """None: the device itself."""
    first: int = 0
    last: int = 0
    note: str = ""
    """What people should know, such as the exception by which the device showed that it is there."""


class ScanStep(NamedTuple):
    """A sign of progress after each request, with what it found."""

    done: int
    total: int
    """The requests that are expected in all; may grow when a device is found, never beyond the bound that the driver's
    documentation gives."""
    doing: str
    """What is asked, in a few words."""
    findings: tuple[ScanFinding, ...] = ()


@runtime_checkable
class Scans(Protocol):
    """A driver that can look for devices and addresses."""

    SCAN_TABLES: tuple[str, ...]
    """The tables that a request may name."""

    @classmethod
    def scan(cls, settings: Any, request: ScanRequest) -> AsyncGenerator[ScanStep, None]:
        """Ask politely: one request at a time, with the pause of the settings (at least 20 ms) in between; reads only.

        Raises:
            NotConnected: the link is lost, or was never there.
            ConfigError: the request cannot be meant.
        """
        ...


class Decoding(NamedTuple):
    """The same bytes, read in one way."""

    settings: Mapping[str, str]
    """What stands in YAML for this way: `{"type": "float32", "word_order": "CDAB"}`."""
    value: Value
    """None where the bytes cannot mean that; `cause` says why."""
    cause: str | None = None
    plausible: bool = True
    """False where nobody would keep such a number: a denormal float, an exponent beyond 10^±9."""


@runtime_checkable
class Decodes(Protocol):
    """A driver whose devices do not tell the types of their values."""

    @classmethod
    async def fetch(cls, settings: Any, address: str, count: int) -> bytes:
        """The bytes of `count` units of address from `address` on, as they came."""
        ...

    @classmethod
    def decode(cls, data: bytes) -> list[Decoding]:
        """What the first bytes mean in every type and order that they suffice for; pure."""
        ...


class Heard(NamedTuple):
    """Something that came over a line."""

    time: int
    """When it ended, integer nanoseconds since 1970 UTC."""
    data: bytes
    """The frame without its end, as it came."""
    end: bytes = b""
    """The end that was seen; empty: silence ended it."""


@dataclass(frozen=True)
class Suggestion:
    """Where to begin with what was heard."""

    yaml: str
    """A device, ready to paste; comments say what is guessed."""
    notes: tuple[str, ...] = field(default=())


@runtime_checkable
class Sniffs(Protocol):
    """A driver that can listen to a line that nobody has described yet."""

    @classmethod
    def sniff(cls, url: str, line: str | None, request: bytes) -> AsyncGenerator[Heard, None]:
        """What comes, framed by what ends the frames: CR LF, CR, LF, ETX or silence. Ends when it is closed.

        `line` are line settings such as `9600 8N1` (None: the driver's default). `request` is sent once a second, if
        there is one: the only thing that is ever written.

        Raises:
            NotConnected: the line is not there, or in use.
            ConfigError: `url` or `line` cannot be meant.
        """
        ...

    @classmethod
    def suggest(cls, url: str, line: str | None, heard: Sequence[Heard]) -> Suggestion:
        """A device that understands these frames, as far as can be told; pure."""
        ...


class CertificateFacts(NamedTuple):
    """A certificate, for people."""

    store: str
    """`own`, `trusted`, `issuer` or `rejected`."""
    file: Path
    fingerprint: str
    """SHA-256 of its DER, in lower case hexadecimal."""
    subject: str
    issuer: str
    application_uri: str | None
    valid_from: int
    valid_until: int
    """Integer nanoseconds since 1970 UTC."""
    host: str | None = None
    """Of a rejected one, the URL of the server that showed it."""


@runtime_checkable
class Certificates(Protocol):
    """A driver that proves who it is by a certificate, and asks the same of its devices.

    `folder` is the one of `KeepsFiles`.
    """

    @classmethod
    def certificates(cls, folder: Path) -> list[CertificateFacts]:
        """All certificates in the folder; empty while there are none."""
        ...

    @classmethod
    def trust(cls, folder: Path, fingerprint: str) -> CertificateFacts:
        """Move the rejected certificate with this fingerprint (its beginning will do) to those that are trusted.

        Raises:
            ConfigError: there is none, or more than one.
        """
        ...

    @classmethod
    def renew(cls, folder: Path) -> CertificateFacts:
        """Make a new own certificate; the old one is kept aside. Makes the first one where there is none."""
        ...
