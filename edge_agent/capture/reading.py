"""The events that a subscriber received, out of the lines that it wrote down."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.contract import EdgeAgentError

_WITHOUT_SEQUENCE = ("state", "status", "health")
_ID = re.compile(r".+:[0-9]{1,18}:[0-9]{1,18}", re.DOTALL)
_EMPTY = (b"", b"(null)")
"""How a value that was cleared looks behind its topic."""

Place = tuple[str, int, str]
"""Source, epoch and topic: in it sequences count."""


class CaptureError(EdgeAgentError):
    """No line of a capture is an event; the message has the place of the first."""


@dataclass(frozen=True)
class Event:
    """One event as it was received."""

    id: str
    source: str
    type: str
    topic: str
    epoch: int
    sequence: int
    payload: bytes
    data: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Its number in its epoch."""
        return int(self.id.rpartition(":")[2])

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def place(self) -> Place:
        """Where its sequence counts."""
        return self.source, self.epoch, self.topic


@dataclass
class Capture:
    """The events of a capture that carry a sequence, and which lines are no events."""

    events: list[Event] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read(lines: Iterable[bytes], name: str) -> Capture:
    """A capture of events as they are, behind their topic, or in objects of `%j`.

    Raises:
        CaptureError: there are lines, and none is any of these.
    """
    capture = Capture()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = _event(line.rstrip(b"\r\n"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            capture.unreadable.append(f"{name}:{number}: no event ({str(error)[:200]})")
            continue
        if event is not None:
            capture.events.append(event)
    if capture.unreadable and not capture.events:
        raise CaptureError(f"{capture.unreadable[0]}; capture them with mosquitto_sub -t 'edge/v1/#', one a line")
    return capture


def _event(line: bytes) -> Event | None:
    """The event on a line; None for what carries no sequence, and for a value that was cleared."""
    topic = None
    if not line.startswith(b"{"):
        before, space, line = line.partition(b" ")
        if space and line.strip() in _EMPTY:
            return None
        topic = before.decode("utf-8", "replace")
    made = json.loads(line)
    if "specversion" not in made:  # mosquitto_sub -F %j: an object that holds the topic, and the payload as a text
        topic, payload = made["topic"], made["payload"]
        if payload in (None, ""):
            return None
        if not isinstance(payload, str):
            raise ValueError("its payload was taken apart, as by %J: capture with %j, or with -v")
        line = payload.encode()
        made = json.loads(line)
    kind = made["type"].split(".")[1]
    if kind in _WITHOUT_SEQUENCE:
        return None
    id, data = _typed(made, "id", str), _typed(made, "data", dict)
    if not _ID.fullmatch(id):
        raise ValueError("its id ends in no epoch and number")
    source, topic = _typed(made, "source", str), topic or topic_of(made)
    for text in (id, source, topic, *_check(kind, data)):
        text.encode()  # half of a surrogate pair could not be said
    return Event(id, source, kind, topic, _typed(made, "epoch", int), int(_typed(made, "sequence", str)), line, data)


def _typed(made: Mapping[str, Any], name: str, kind: type) -> Any:
    value = made[name]
    if type(value) is not kind:
        raise ValueError(f"its {name} is no {kind.__name__}")
    return value


def _check(kind: str, data: Mapping[str, Any]) -> Iterable[str]:
    """Whether a gap record or a manifest says what is taken from it; the topics that a manifest tells of."""
    if kind == "manifest":
        _typed(data, "epoch", int)
        topics: dict[str, Any] = _typed(data, "topics", dict)
        for told in topics.values():
            int(_typed(told, "first", str)), int(_typed(told, "last", str))
            _typed(told, "count", int), _typed(told, "sha256", str)
        return topics
    if kind == "gap":
        _typed(data, "key", str), _typed(data, "revision", int), _typed(data, "withdrawn", bool)
        if _typed(data, "what", str) == "records" and data["first_sequence"] is not None:
            int(_typed(data, "first_sequence", str)), int(_typed(data, "last_sequence", str))
            _typed(data, "epoch", int), _typed(data, "topic", str)
        elif data["epoch"] is not None:
            _typed(data, "epoch", int)
    return ()


def topic_of(event: Mapping[str, Any]) -> str:
    """The topic on which an event was published, as it says of itself."""
    subject, kind = event["subject"], event["type"].split(".")[1]
    enterprise, site = subject.split("/")[:2]
    agent = event["source"].partition(f"/{enterprise}/{site}/_agents/")
    prefix = agent[0].lstrip("/")
    if kind in ("gap", "manifest"):
        return f"{prefix}/{enterprise}/{site}/_agents/{agent[2]}/{kind}"
    return f"{prefix}/{subject}/{kind}" + (f"/{event['data']['window']}" if kind == "production" else "")
