"""Faults of the configuration: each with its place, what is wrong, what is allowed and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]
Path = tuple[str | int, ...]
"""Where in the document: keys and list indices, from the top."""

EVERYTHING = "all"
"""The scope of a fault that stops the agent as a whole."""

_FOUND_LENGTH = 60
_ALLOWED_COUNT = 24
_SHORTEST_SECRET = 4
_USERINFO = re.compile(r"(?<=://)\S*@")
_SECRET_WORD = re.compile(r"pass(word|wd|phrase|code)|secret|token|credential|api_?key|private_?key", re.IGNORECASE)


class Place(NamedTuple):
    """A file, and the line and column in it, both counted from 1; 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake. `str(fault)` is the line that people read: place, severity, where, what, and the cure."""

    place: Place
    message: str
    where: Path = ()
    found: str | None = None
    """The offending text, or None where the message says it or it must not be seen."""
    allowed: tuple[str, ...] = ()
    suggestion: str | None = None
    severity: Severity = "error"
    scope: str = EVERYTHING
    """What it stops: `all`, `devices.NAME` or `machines.NAME`."""

    def __str__(self) -> str:
        where = f"{dotted(self.where)}: " if self.where else ""
        text = f"{self.place}: {self.severity}: {where}{self.message}"
        if self.found is not None:
            text += f"; found {quoted(self.found)}"
        if self.allowed:
            text += f"; allowed: {', '.join(self.allowed[:_ALLOWED_COUNT])}"
            text += ", …" if len(self.allowed) > _ALLOWED_COUNT else ""
        if self.suggestion is not None:
            text += f"; did you mean {quoted(self.suggestion)}?"
        return text


def dotted(path: Path) -> str:
    """A path as people write it: `devices.press.tags.count`, `summarize[2]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            printable = step if step.isprintable() else repr(step)[1:-1]
            text += ("." if text else "") + shortened(printable)
    return text


def shortened(text: str) -> str:
    """The text, cut to what fits into a line of a terminal."""
    return text if len(text) <= _FOUND_LENGTH else text[: _FOUND_LENGTH - 1] + "…"


def quoted(text: str) -> str:
    """The text in quotes, short, on one line, without control characters or the user and password of a URL."""
    return repr(shortened(without_userinfo(text)))


def without_userinfo(text: str) -> str:
    """The text with the user and password of a URL left out."""
    return _USERINFO.sub("…@", text)


def closest(text: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that was probably meant, or None."""
    by_fold = {word.casefold().replace("-", "_"): word for word in allowed}
    near = difflib.get_close_matches(text.casefold().replace("-", "_")[:100], by_fold, n=1, cutoff=0.6)
    return by_fold[near[0]] if near else None


def scope_of(path: Path) -> str:
    """What a fault at this path stops: a device, a machine, or everything."""
    if len(path) >= 2 and path[0] in ("devices", "machines"):
        return f"{path[0]}.{path[1]}"
    return EVERYTHING


def speaks_of_secret(text: str) -> bool:
    """Whether the text names a password, token or the like, so that what stands beside it is not shown."""
    return _SECRET_WORD.search(text) is not None


@dataclass(slots=True)
class Report:
    """The faults found so far, and the secrets that none of them may show."""

    faults: list[Fault] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    unknown: set[Place] = field(default_factory=set)
    """Keys that nothing knows; what stands there may be anything, so it is not kept."""
    unreadable: bool = False
    """A file could not be read, so what seems to be missing may stand in it."""

    def add(self, fault: Fault) -> None:
        """Note a fault."""
        self.faults.append(fault)

    def hide(self, secret: str) -> None:
        """Show this text in no fault, unless it is so short that it stands in half of all words."""
        if len(secret) >= _SHORTEST_SECRET:
            self.secrets.add(secret)

    def stops(self, scope: str) -> bool:
        """Whether an error was found in this scope."""
        return any(fault.scope == scope and fault.severity == "error" for fault in self.faults)

    def result(self) -> tuple[Fault, ...]:
        """All faults, each once, without secrets, in order of their places."""
        once = {str(fault): fault for fault in map(self._scrubbed, self.faults)}
        return tuple(sorted(once.values(), key=lambda fault: (fault.place, dotted(fault.where), str(fault))))

    def _scrubbed(self, fault: Fault) -> Fault:
        message, found, suggestion = fault.message, fault.found, fault.suggestion
        if found is not None and speaks_of_secret(found):
            found = None
        for secret in sorted(self.secrets, key=len, reverse=True):
            message = message.replace(secret, "…")
            found = found and found.replace(secret, "…")
            suggestion = suggestion and suggestion.replace(secret, "…")
        return replace(fault, message=without_userinfo(message), found=found, suggestion=suggestion)
