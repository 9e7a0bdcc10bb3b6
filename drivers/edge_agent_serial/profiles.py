"""What an instrument asks and answers: the built-in profiles, and the dialect that a device's settings spell out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.contract import Quality, Reading, Tag, bad
from edge_agent_serial.frames import Unusable, parse


@dataclass(frozen=True)
class Dialect:
    """How to ask an instrument, and how to read one frame of its answer."""

    pattern: re.Pattern[str]
    """Matches a whole frame; its named groups are the addresses of tags."""
    request: bytes = b""
    """What is sent for each answer; empty: the instrument speaks by itself."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Whole frames that say why there is no value, by the cause that they mean."""
    types: Mapping[str, str] = field(default_factory=dict)
    """The types of groups where the tag names none; `string` otherwise."""
    words: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """The instrument's own words for true and false, by group."""
    stability: str = ""
    """The group that says whether the numbers are stable."""
    encoding: str = "latin-1"
    parity: bool = False
    """Whether the line checks parity, so that a NUL is a damaged character."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the pattern's groups, which are the addresses that a tag can have."""
        return tuple(self.pattern.groupindex)

    def recognizes(self, frame: bytes | None) -> bool:
        """Whether the frame is an answer of this instrument: a value or a refusal."""
        if frame is None or self._damaged(frame):
            return False
        text = self._text(frame)
        return text is not None and (text in self.refusals or self.pattern.fullmatch(text) is not None)

    def readings(self, frame: bytes | None, tags: tuple[Tag, ...]) -> list[Reading]:
        """One reading for each tag from one frame; BAD with its cause where the frame holds no such value."""
        if frame is None:
            return [bad(tag, "frame_too_long") for tag in tags]
        if self._damaged(frame):
            return [bad(tag, "parity_error") for tag in tags]
        text = self._text(frame)
        if text is None:
            return [bad(tag, "pattern_mismatch") for tag in tags]
        refusal = self.refusals.get(text)
        if refusal is not None:
            return [bad(tag, refusal) for tag in tags]
        match = self.pattern.fullmatch(text)
        if match is None:
            return [bad(tag, "pattern_mismatch") for tag in tags]
        return [self._reading(tag, match) for tag in tags]

    def _damaged(self, frame: bytes) -> bool:
        return self.parity and b"\0" in frame

    def _text(self, frame: bytes) -> str | None:
        try:
            return frame.decode(self.encoding)
        except UnicodeDecodeError:
            return None

    def _reading(self, tag: Tag, match: re.Match[str]) -> Reading:
        group = str(tag.settings.address)
        text = match[group]
        if text is None:
            return bad(tag, "pattern_mismatch")
        kind = tag.settings.type or self.types.get(group, "string")
        try:
            value = self.words[group][text] if kind == "bool" and group in self.words else parse(text, kind)
        except Unusable as error:
            return bad(tag, str(error))
        if kind in ("float", "int") and self._unstable(match):
            return Reading(tag, None, value, Quality.UNCERTAIN, "unstable")
        return Reading(tag, None, value)

    def _unstable(self, match: re.Match[str]) -> bool:
        return bool(self.stability) and not self.words[self.stability][match[self.stability]]


SICS = Dialect(
    pattern=re.compile(r"S (?P<stable>[SD]) +(?P<weight>-? *[0-9]+(?:\.[0-9]+)?) +(?P<unit>\S+) *"),
    request=b"SI\r\n",
    refusals={
        "S I": "not_executable",
        "S +": "overload",
        "S -": "underload",
        "ES": "syntax_error",
        "ET": "transmission_error",
        "EL": "logical_error",
    },
    types={"weight": "float", "stable": "bool"},
    words={"stable": {"S": True, "D": False}},
    stability="stable",
)
"""MT-SICS level 0: balances and scales of Mettler-Toledo, and those that follow it, such as KERN's KCP."""

PROFILES: Mapping[str, Dialect] = {"sics": SICS}
