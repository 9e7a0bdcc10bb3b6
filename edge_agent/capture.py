"""What a subscriber received, compared with what was issued: missing, doubled, altered. Needs no agent and no store."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_agent.contract import EdgeAgentError

SHOWN = 20
_WITHOUT_SEQUENCE = ("state", "status", "health")


class CaptureError(EdgeAgentError):
    """A line of a capture is no event; the message has its place."""


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


@dataclass
class Findings:
    """What was found; lists name at most the first few, counts count all."""

    received: int = 0
    right: int = 0
    doubled: int = 0
    missing: int = 0
    altered: int = 0
    named: int = 0
    unlike: int = 0
    not_captured: list[str] = field(default_factory=list)
    which: dict[str, list[str]] = field(default_factory=lambda: {"missing": [], "altered": [], "unlike": []})

    def note(self, what: str, name: str, count: int = 1) -> None:
        """Count one more, and remember its name."""
        setattr(self, what, getattr(self, what) + count)
        if len(self.which[what]) < SHOWN:
            self.which[what].append(name)

    @property
    def good(self) -> bool:
        """Whether everything arrived as it was issued, or is named in a gap record."""
        return not (self.missing or self.altered or self.unlike)

    def as_json(self) -> dict[str, Any]:
        """As `verify --json` prints it."""
        return {"good": self.good} | asdict(self)


# ------------------------------------------------------------------------------------------------------ reading


def read(lines: Iterable[bytes], name: str) -> list[Event]:
    """The events of a capture that carry a sequence: as they are, behind their topic, or in objects of `%j`.

    Raises:
        CaptureError: a line is none of these.
    """
    return [event for number, line in enumerate(lines, 1) if line.strip() and (event := _event(line, name, number))]


def _event(line: bytes, name: str, number: int) -> Event | None:
    line = line.rstrip(b"\r\n")
    topic = None
    if not line.startswith(b"{"):
        before, _, line = line.partition(b" ")
        topic = before.decode("utf-8", "replace")
    try:
        made = json.loads(line)
        if "specversion" not in made:  # mosquitto_sub -F %j: an object that holds the topic, and the payload as a text
            topic, payload = made["topic"], made["payload"]
            if not isinstance(payload, str):
                raise ValueError("its payload was taken apart; write it with %j and -F '%t %p' instead")
            line = payload.encode()
            made = json.loads(line)
        kind = made["type"].split(".")[1]
        if kind in _WITHOUT_SEQUENCE:
            return None
        return Event(
            made["id"], made["source"], kind, topic or topic_of(made), made["epoch"], int(made["sequence"]), line,
            made["data"],
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CaptureError(
            f"{name}:{number}: no event ({error}); capture them with mosquitto_sub -t 'edge/v1/#', one a line"
        ) from error


def topic_of(event: Mapping[str, Any]) -> str:
    """The topic on which an event was published, as it says of itself."""
    subject, kind = event["subject"], event["type"].split(".")[1]
    enterprise, site = subject.split("/")[:2]
    agent = event["source"].partition(f"/{enterprise}/{site}/_agents/")
    prefix = agent[0].lstrip("/")
    if kind in ("gap", "manifest"):
        return f"{prefix}/{enterprise}/{site}/_agents/{agent[2]}/{kind}"
    return f"{prefix}/{subject}/{kind}" + (f"/{event['data']['window']}" if kind == "production" else "")


# ---------------------------------------------------------------------------------------------------- comparing


def against_store(events: list[Event], issued: Iterable[Mapping[str, Any]]) -> Findings:
    """Compare with what a store says that it issued: `id`, `source`, `topic`, `sha256`, `delivered`.

    Judged are the topics of which there is anything, from the first number of each epoch that was received to the last.
    """
    found, by_id = _received(events)
    topics = {event.topic for event in events}
    spans: dict[tuple[str, int], tuple[int, int]] = {}
    for event in events:
        low, high = spans.get((event.source, event.epoch), (event.number, event.number))
        spans[event.source, event.epoch] = (min(low, event.number), max(high, event.number))
    elsewhere: set[str] = set()
    for one in issued:
        _, epoch, number = one["id"].rsplit(":", 2)
        low, high = spans.get((one["source"], int(epoch)), (1, 0))
        digests = by_id.get(one["id"])
        if digests is not None:
            if digests == {one["sha256"]}:
                found.right += 1
            elif one["id"] not in found.which["altered"]:
                found.note("altered", one["id"])
        elif one["topic"] not in topics:
            elsewhere.add(one["topic"])
        elif low <= int(number) <= high:
            if one["delivered"]:
                found.note("missing", one["id"])
            else:
                found.named += 1
    found.not_captured = sorted(elsewhere)
    return found


def against_manifests(events: list[Event]) -> Findings:
    """Compare with the manifests and gap records among the events themselves."""
    found, _ = _received(events)
    by_topic: dict[tuple[str, int, str], dict[int, Event]] = defaultdict(dict)
    for event in events:
        by_topic[event.source, event.epoch, event.topic].setdefault(event.sequence, event)
    gaps = [*_gaps(events)]
    topics = {event.topic for event in events}
    elsewhere: set[str] = set()
    for manifest in (event for event in _once(events) if event.type == "manifest"):
        for topic, told in manifest.data["topics"].items():
            if topic not in topics:
                elsewhere.add(topic)
                continue
            own = by_topic[manifest.source, manifest.data["epoch"], topic]
            _compare(found, told, own, (manifest.source, manifest.data["epoch"], topic), gaps)
    found.not_captured = sorted(elsewhere)
    return found


def _compare(
    found: Findings, told: Mapping[str, Any], own: Mapping[int, Event], where: tuple[str, int, str],
    gaps: list[tuple[tuple[str, int, str], int, int]],
) -> None:  # fmt: skip
    first, last = int(told["first"]), int(told["last"])
    wanted = range(first, last + 1)
    absent = [sequence for sequence in wanted if sequence not in own]
    named = {sequence for place, low, high in gaps if place == where for sequence in absent if low <= sequence <= high}
    found.named += len(named)
    for sequence in absent:
        if sequence not in named and len(wanted) == told["count"]:
            found.note("missing", f"{where[2]} {sequence} of epoch {where[1]}")
    if absent:
        found.right += len(wanted) - len(absent)
        return
    digest = hashlib.sha256()
    for sequence in wanted:
        digest.update(f"{own[sequence].id}\n{own[sequence].digest}\n".encode())
    if digest.hexdigest() == told["sha256"]:
        found.right += len(wanted)
    else:
        found.note("unlike", f"{where[2]} {first} to {last} of epoch {where[1]}", len(wanted))


def _received(events: list[Event]) -> tuple[Findings, dict[str, set[str]]]:
    """What can be told without knowing what was issued; the digests that came under each id."""
    found = Findings(received=len(events))
    by_id: dict[str, set[str]] = defaultdict(set)
    for event in events:
        found.doubled += event.digest in by_id[event.id]
        by_id[event.id].add(event.digest)
    for id, digests in by_id.items():
        if len(digests) > 1:
            found.note("altered", id)
    return found, by_id


def _once(events: Iterable[Event]) -> Iterator[Event]:
    seen: set[str] = set()
    for event in events:
        if event.id not in seen:
            seen.add(event.id)
            yield event


def _gaps(events: Iterable[Event]) -> Iterator[tuple[tuple[str, int, str], int, int]]:
    """Where gap records name records that do not arrive: source, epoch and topic, first and last sequence."""
    for event in events:
        data = event.data
        if event.type == "gap" and data["what"] == "records" and not data["withdrawn"] and data.get("first_sequence"):
            yield (
                (event.source, data["epoch"], data["topic"]),
                int(data["first_sequence"]),
                int(data["last_sequence"]),
            )
