"""Listening to a line that nobody has described: frames by whatever ends them, and a device to begin with."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence

from pydantic import ValidationError

from edge_agent.contract import ConfigError, Heard, NotConnected, Suggestion
from edge_agent_serial.checksums import nmea
from edge_agent_serial.port import Port
from edge_agent_serial.profiles import PROFILES
from edge_agent_serial.settings import SerialSettings, parse_line

OPEN_LIMIT_S = 9.0
SILENCE_S = 0.05
REQUEST_EVERY_S = 1.0
LONGEST_BYTES = 1024
ENDS = (b"\r\n", b"\r", b"\n", b"\x03")
"""What ends a frame, the first one that is there."""
_NUMBER = re.compile(r"[+-]? *[0-9]+(?:\.[0-9]+)?")
_LONGEST_PATTERN = 1_000
_TRIED = ("sics", "and", "cas", "ohaus", "nmea", "scanner")
_SENTENCE = re.compile(r"[A-Z][A-Z0-9]{4},")
_CODE = re.compile(r"\][A-Za-z][0-9A-Za-z][ -~\x1d]+|(?=.*[0-9])[0-9A-Za-z-]{6,}")
"""What a bar-code scanner sends: an AIM identifier before it, or six letters and digits or more."""


async def sniff(url: str, line: str | None, request: bytes) -> AsyncGenerator[Heard, None]:
    """Frames as they come, until the generator is closed."""
    port = Port(url, _settings(url, line).line)
    try:
        await port.open(OPEN_LIMIT_S)
        buffer, ask_at = b"", time.monotonic()
        while True:
            now = time.monotonic()
            if request and now >= ask_at and await port.write(request):
                ask_at = now + REQUEST_EVERY_S
            wake_at = ask_at if request else now + REQUEST_EVERY_S
            chunk = await port.receive(min(wake_at, now + SILENCE_S) if buffer else wake_at)
            if chunk is None and time.monotonic() - port.last_byte_at < SILENCE_S:
                continue
            buffer += chunk.data if chunk is not None else b""
            frames, buffer = _cut(buffer, silent=chunk is None)
            for frame, end in frames:
                yield Heard(time.time_ns(), frame, end)
    finally:
        await port.close()


def _settings(url: str, line: str | None) -> SerialSettings:
    """Checks the URL and the line settings as the driver does.

    Raises:
        ConfigError: they cannot be meant.
    """
    given = {"driver": "serial", "url": url, "profile": "scanner", "force": True}
    try:
        return SerialSettings.model_validate(given | ({} if line is None else {"line": parse_line(line)}))
    except ValueError as error:
        told = (
            error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else str(error)
        )
        raise ConfigError(f"{url}: {told.removeprefix('Value error, ')}") from error


def _cut(buffer: bytes, *, silent: bool) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The frames at the beginning of a buffer with what ended each, and what is left."""
    frames: list[tuple[bytes, bytes]] = []
    while buffer:
        found = [(at, end) for end in ENDS if (at := buffer.find(end)) >= 0]
        at, end = min(found, key=lambda each: (each[0], -len(each[1])), default=(-1, b""))
        if at < 0 or (end == b"\r" and at == len(buffer) - 1 and not silent):  # a line feed may follow
            break
        frames += [(buffer[:at], end)] if at else []
        buffer = buffer[at + len(end) :]
    if buffer and (silent or len(buffer) > LONGEST_BYTES):
        frames, buffer = [*frames, (buffer, b"")], b""
    return frames, buffer


# ---------------------------------------------------------------------------------------------------- suggesting


def suggest(url: str, line: str | None, heard: Sequence[Heard]) -> Suggestion:
    """A device that understands what was heard, as far as that can be told."""
    if not heard:
        raise NotConnected(f"{url}: nothing was heard")
    end = Counter(one.end for one in heard).most_common(1)[0][0]
    start = b"\x02" if all(one.data.startswith(b"\x02") for one in heard) else b""
    frames = [one.data.removeprefix(start) for one in heard if one.end == end]
    notes = [f"{len(frames)} frames, ended by {_shown(end) if end else 'silence'}"]
    for name in _TRIED:
        known = [frame for frame in frames if _knows(name, frame)]
        if known and len(known) * 2 >= len(frames):
            notes.append(f"they look like the profile {name}")
            return Suggestion(
                _yaml(url, line, start, end, [f"profile: {name}"], _of_profile(name, known)), tuple(notes)
            )
    pattern, groups = _pattern(frames)
    notes.append("the names are guesses: call each what it is")
    keys = [f"pattern: '{pattern.replace(chr(39), chr(39) * 2)}'"]
    return Suggestion(_yaml(url, line, start, end, keys, groups), tuple(notes))


def _knows(name: str, frame: bytes) -> bool:
    """Whether the profile means such a frame; of a scanner's, that takes anything, whether it is like a code."""
    if name == "nmea":
        body = nmea(frame)
        return body is not None and _SENTENCE.match(body.decode("latin-1")) is not None
    if name == "scanner":
        return _CODE.fullmatch(frame.decode("latin-1")) is not None
    return PROFILES[name].recognizes(frame)


def _of_profile(name: str, known: Sequence[bytes]) -> dict[str, str]:
    """The tags of a profile that would have a value, and what to write behind `type:`."""
    if name == "nmea":
        names = {frame[1:].decode("latin-1").partition(",")[0] for frame in known}
        kinds = Counter(each[2:] for each in names)
        return {f"{each[2:] if kinds[each[2:]] == 1 else each}.1": "string" for each in sorted(names)}
    return {"code": "string, store: every"} if name == "scanner" else {"weight": "float", "stable": "bool"}


def _yaml(url: str, line: str | None, start: bytes, end: bytes, keys: Sequence[str], groups: dict[str, str]) -> str:
    frame = [f"start: {_shown(start)}"] if start else []
    if end not in (b"\r\n", b""):
        frame.append(f"end: {_shown(end)}")
    elif not end:
        frame.append("silence: 50 ms")
    lines = ["devices:", "  instrument-1:", "    driver: serial", f"    url: {json.dumps(url)}"]
    if re.fullmatch(r"/dev/tty(USB|ACM)[0-9]+", url):
        lines.append("    force: true   # better: the name of `ls -l /dev/serial/by-id/` that stays the same")
    lines += [f"    line: {line}"] if line is not None else []
    lines += [f"    frame: {{{', '.join(frame)}}}"] if frame else []
    lines += [f"    {key}" for key in keys]
    if any("profile: sics" in key or "profile: and" in key or "profile: ohaus" in key for key in keys):
        lines.append("    # it is asked for each value; if it sends by itself: profile sics-repeat, or another request")
    lines.append("    tags:")
    for group, kind in groups.items():
        lines.append(f"      {group.replace('.', '_').lower()}: {{address: {group}, type: {kind}}}")
    return "\n".join(lines)


def _shown(data: bytes) -> str:
    """Bytes as YAML's double quotes write them."""
    text = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02x}" for byte in data)
    return f'"{text}"'.replace("\\x0d", "\\r").replace("\\x0a", "\\n")


def _pattern(frames: Sequence[bytes]) -> tuple[str, dict[str, str]]:
    """A pattern with a group for each number that all frames have at the same place, else one group for the whole."""
    texts = [frame.decode("latin-1") for frame in frames]
    shapes = Counter(_NUMBER.sub("\0", text) for text in texts)
    shape, count = shapes.most_common(1)[0]
    if "\0" not in shape or count * 2 < len(texts):
        return "(?P<text>.+)", {"text": "string"}
    pieces, groups = [], {}
    for number, literal in enumerate(shape.split("\0")):
        if number:
            name = f"value{number}"
            groups[name] = "float"
            pieces.append(rf"(?P<{name}>[+-]? *[0-9]+(?:\.[0-9]+)?)")
        pieces.append("".join(_literal(literal)))
    pattern = "".join(pieces)
    return (pattern, groups) if len(pattern) <= _LONGEST_PATTERN else ("(?P<text>.+)", {"text": "string"})


def _literal(text: str) -> Iterator[str]:
    """Words as they are, and any number of spaces where there was one: columns move with the width of a number."""
    for part in re.split(r"( +)", text):
        shown = (re.escape(each) if " " <= each <= "~" else f"\\x{ord(each):02x}" for each in part)
        yield " *" if part.startswith(" ") else "".join(shown)
