"""What an instrument asks and answers: the built-in profiles, and the dialect that a device's settings spell out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from edge_agent.contract import Quality, Reading, Tag, bad
from edge_agent_serial.checksums import nmea
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
    refused: tuple[tuple[re.Pattern[str], str], ...] = ()
    """Frames that say why there is no value, by pattern, and the cause that each means."""
    begin: bytes = b""
    """Sent after the port was opened, and after a long silence, to an instrument that then speaks by itself."""
    verify: Callable[[bytes], bytes | None] | None = None
    """Gives the frame without its checksum, or None where that is wrong."""
    strip: bool = False
    """Whether texts lose the spaces around them, as in columns."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the pattern's groups, which are the addresses that a tag can have."""
        return tuple(self.pattern.groupindex)

    def recognizes(self, frame: bytes | None) -> bool:
        """Whether the frame is an answer of this instrument: a value or a refusal."""
        verified = None if frame is None or self._damaged(frame) else self._verified(frame)
        text = None if verified is None else self._text(verified)
        return text is not None and (self._refusal(text) is not None or self.pattern.fullmatch(text) is not None)

    def _verified(self, frame: bytes) -> bytes | None:
        return frame if self.verify is None else self.verify(frame)

    def _refusal(self, text: str) -> str | None:
        """Why a frame has no value, where it says so."""
        if text in self.refusals:
            return self.refusals[text]
        return next((cause for pattern, cause in self.refused if pattern.fullmatch(text)), None)

    def readings(self, frame: bytes | None, tags: tuple[Tag, ...]) -> list[Reading]:
        """One reading for each tag from one frame; BAD with its cause where the frame holds no such value."""
        if frame is None:
            return [bad(tag, "frame_too_long") for tag in tags]
        if self._damaged(frame):
            return [bad(tag, "parity_error") for tag in tags]
        verified = self._verified(frame)
        if verified is None:
            return [bad(tag, "checksum_error") for tag in tags]
        return self._verified_readings(verified, tags)

    def _verified_readings(self, frame: bytes, tags: tuple[Tag, ...]) -> list[Reading]:
        text = self._text(frame)
        if text is None:
            return [bad(tag, "pattern_mismatch") for tag in tags]
        refusal = self._refusal(text)
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
        if self.strip:
            if kind in ("float", "int") and _goes_on(match, group):
                return bad(tag, "cut_number")
            text = text.strip(" ")
        if kind in ("float", "int") and self._other_unit(tag, match):
            return bad(tag, "unit_mismatch")
        try:
            value = self.words[group][text] if kind == "bool" and group in self.words else parse(text, kind)
        except Unusable as error:
            return bad(tag, str(error))
        if kind in ("float", "int") and self._unstable(match):
            return Reading(tag, None, value, Quality.UNCERTAIN, "unstable")
        return Reading(tag, None, value)

    def _unstable(self, match: re.Match[str]) -> bool:
        return bool(self.stability) and not self.words[self.stability][match[self.stability] or ""]

    def _other_unit(self, tag: Tag, match: re.Match[str]) -> bool:
        """Whether the instrument shows another unit than the tag is in: grams that are taken for kilograms."""
        wanted = getattr(tag.settings, "wire_unit", None)
        if wanted is None and tag.settings.scale in (None, 1.0):
            wanted = tag.settings.unit
        if wanted is None or "unit" not in self.groups:
            return False
        shown = (match["unit"] or "").strip()
        return wanted not in (shown, UCUM.get(shown.lower()))


def _goes_on(match: re.Match[str], group: str) -> bool:
    """Whether the number in a column goes on beyond it: what is left of a number is another number."""
    (start, end), text, part = match.span(group), match.string, _PART_OF_A_NUMBER
    return (start > 0 and text[start - 1] in part and text[start] in part) or (
        end < len(text) and text[end - 1] in part and text[end] in part
    )


_PART_OF_A_NUMBER = "0123456789.+-eE"
_NUMBER = r"[+-]? *[0-9]+(?:\.[0-9]+)?"
_UNIT = r"(?P<unit>[A-Za-z%]+)"
_OVERFLOWING = (re.compile(r".*(?:\^{3,}|-{3,}|_{3,}|\bO-?L\b|\bOL,|\bErr\b).*"), "overload")
_BELOW = (re.compile(r"OL,(?:(?:GS|NT|TR),)?-.*"), "underload")
_STABLE = {"stable": {"S": True, "D": False, "ST": True, "QT": True, "US": False, "U": False, "": True, "?": False}}

SICS = Dialect(
    pattern=re.compile(r"S (?P<stable>[SD]) (?=.{10} \S) *(?P<weight>-?[0-9]+(?:\.[0-9]+)?) (?P<unit>\S+) *"),
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
    words=_STABLE,
    stability="stable",
)
"""MT-SICS level 0: balances and scales of Mettler-Toledo, and those that follow it, such as KERN's KCP. A weight stands
at the right of ten characters: one that lost a digit is none."""

SICS_REPEAT = replace(SICS, request=b"", begin=b"SIR\r\n")
"""The same, told to send every weight by itself."""

AND = Dialect(
    pattern=re.compile(
        r"(?P<stable>ST|US|QT),(?:(?:GS|NT|TR),|(?=[+-][0-9.]{8}(?![0-9.])))" + rf"(?P<weight>{_NUMBER}),? *{_UNIT} *"
    ),
    request=b"Q\r\n",
    refused=(_BELOW, _OVERFLOWING),
    types={"weight": "float", "stable": "bool"},
    words=_STABLE,
    stability="stable",
)
"""A&D's standard format, whose numbers have a sign and eight characters: one that lost a digit is none. Also with the
gross and net of its clones. A count (QT) is in `weight`, its unit `PC`."""

OHAUS = Dialect(
    pattern=re.compile(rf" *(?P<weight>{_NUMBER}) +{_UNIT} *(?P<stable>\??) *(?P<legend>[A-Z]{{0,3}}) *"),
    request=b"IP\r\n",
    refusals={"ES": "not_executable"},
    refused=(_OVERFLOWING,),
    types={"weight": "float", "stable": "bool"},
    words=_STABLE,
    stability="stable",
)
"""Ohaus: a weight right-justified, its unit, and a `?` while it is not stable."""

CAS = Dialect(
    pattern=re.compile(
        rf"(?P<stable>ST|US|S|U),(?:(?P<legend>GS|NT),)?(?:[^,]{{2}},)? *(?P<weight>{_NUMBER}),? *{_UNIT} *"
    ),
    refused=(_BELOW, _OVERFLOWING),
    types={"weight": "float", "stable": "bool"},
    words=_STABLE,
    stability="stable",
)
"""CAS and its like: a flag, gross or net, sign and weight; it sends by itself."""

SCANNER = Dialect(pattern=re.compile(r"(?:\](?P<symbology>[A-Za-z][0-9A-Za-z]))?+(?P<code>.+)", re.DOTALL))
"""Bar-code scanners, with the AIM identifier where that is switched on, which by itself is no code; GS1 separators stay
in the code."""


@dataclass(frozen=True)
class Sentences(Dialect):
    """NMEA 0183: each sentence speaks for the tags of its own type, and the others keep what they have.

    An address is a sentence's type and the number of a field, counted from 1: `GGA.2`; with its talker, `GPGSV.3`,
    where several send that sentence. Without it a second talker makes the tag BAD: they are not one value.
    """

    talkers: dict[str, str] = field(init=False, default_factory=dict, compare=False)
    """Who was heard to send each type of sentence; the empty text: more than one."""

    def readings(self, frame: bytes | None, tags: tuple[Tag, ...]) -> list[Reading]:
        """A reading for each tag of this sentence; for all of them where the frame is damaged."""
        body = None if frame is None else nmea(frame)
        if frame is None or body is None:
            return [bad(tag, "frame_too_long" if frame is None else "checksum_error") for tag in tags]
        name, *fields = body.decode("latin-1").split(",")
        talker, kind = name[:2], name[2:]
        addressed = [
            (tag, sentence, number)
            for tag in tags
            for sentence, _, number in (str(tag.settings.address).partition("."),)
        ]
        if any(sentence == kind for _, sentence, _ in addressed) and self.talkers.setdefault(kind, talker) != talker:
            self.talkers[kind] = ""
        return [
            self._field(tag, fields, int(number), alone=sentence == name or self.talkers[kind] == talker)
            for tag, sentence, number in addressed
            if sentence in (name, kind)
        ]

    def _field(self, tag: Tag, fields: list[str], number: int, *, alone: bool) -> Reading:
        if not alone:
            return bad(tag, "several_talkers")
        text = fields[number - 1] if number <= len(fields) else ""
        if not text:
            return bad(tag, "no_value")
        try:
            return Reading(tag, None, parse(text, tag.settings.type or "string"))
        except Unusable as error:
            return bad(tag, str(error))


NMEA = Sentences(pattern=re.compile(r"\$.*"))

PROFILES: Mapping[str, Dialect] = {
    "sics": SICS, "sics-repeat": SICS_REPEAT, "and": AND, "ohaus": OHAUS, "cas": CAS, "scanner": SCANNER, "nmea": NMEA,
}  # fmt: skip
UCUM: Mapping[str, str] = {
    "g": "g", "kg": "kg", "mg": "mg", "t": "t", "lb": "[lb_av]", "lbs": "[lb_av]", "oz": "[oz_av]", "ct": "[car_m]",
    "pc": "{piece}", "pcs": "{piece}", "%": "%",
}  # fmt: skip
"""What instruments call units, in small letters, and their UCUM codes."""
