"""What was received, compared with what was issued: missing, doubled, altered."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_agent.capture.reading import Capture, Event, Place

SHOWN = 20
Range = tuple[int, int]
"""The first and the last sequence."""


@dataclass
class Findings:
    """What was found; lists name at most the first few, counts count all."""

    received: int = 0
    right: int = 0
    doubled: int = 0
    missing: int = 0
    altered: int = 0
    named: int = 0
    waiting: int = 0
    unlike: int = 0
    unproven: int = 0
    unknown: int = 0
    before: int = 0
    unreadable: int = 0
    not_captured: list[str] = field(default_factory=list)
    which: dict[str, list[str]] = field(
        default_factory=lambda: {"missing": [], "altered": [], "unlike": [], "unreadable": []}
    )

    def note(self, what: str, name: str, count: int = 1) -> None:
        """Count one more, and remember its name."""
        setattr(self, what, getattr(self, what) + count)
        if len(self.which[what]) < SHOWN:
            self.which[what].append(name)

    @property
    def good(self) -> bool:
        """Whether everything arrived as it was issued, or is named in a gap record."""
        return not (self.missing or self.altered or self.waiting or self.unlike or self.unreadable)

    def as_json(self) -> dict[str, Any]:
        """As `verify --json` prints it."""
        return {"good": self.good} | asdict(self)


class _Received:
    """What came, by its identity and by its place, and what of it can be told without knowing what was issued."""

    def __init__(self, capture: Capture) -> None:
        self.found = Findings(received=len(capture.events))
        for place in capture.unreadable:
            self.found.note("unreadable", place)
        self.topics = {event.topic for event in capture.events}
        self.digests: dict[str, set[str]] = defaultdict(set)
        self.own: dict[Place, dict[int, Event]] = defaultdict(dict)
        self._altered: set[str] = set()
        for event in capture.events:
            before, digest = self.digests[event.id], event.digest
            self.found.doubled += digest in before
            first = self.own[event.place].setdefault(event.sequence, event)
            if before - {digest} or first.id != event.id:
                self.alter(event.id)
            before.add(digest)

    def alter(self, id: str) -> None:
        """Count one as altered, once."""
        if id not in self._altered:
            self._altered.add(id)
            self.found.note("altered", id)

    def unknown(self, known: set[str]) -> int:
        """How many are neither known nor altered."""
        return len(self.digests.keys() - known - self._altered)


def against_store(capture: Capture, issued: Iterable[Mapping[str, Any]]) -> Findings:
    """Compare with what a store says that it issued: `id`, `source`, `topic`, `sequence`, `sha256`, and how it fared.

    Judged are the topics of which there is anything, from the first number of each epoch that was received to the last.
    """
    came = _Received(capture)
    found, spans = came.found, _spans(capture.events)
    known: set[str] = set()
    elsewhere: set[str] = set()
    others: dict[Place, set[int]] = defaultdict(set)  # that the store knows, and that did not arrive
    highest: dict[Place, int] = {}
    sources: set[str] = set()
    for one in issued:
        id, source, topic, sequence = one["id"], one["source"], one["topic"], one["sequence"]
        _, epoch, number = id.rsplit(":", 2)
        place = (source, int(epoch), topic)
        highest[place] = max(sequence, highest.get(place, 0))
        sources.add(source)
        low, high = spans.get(place[:2], (1, 0))
        if id in came.digests:
            known.add(id)
            if came.digests[id] == {one["sha256"]}:
                found.right += 1
            else:
                came.alter(id)
        elif topic not in came.topics:
            elsewhere.add(topic)
        elif place in came.own and sequence in came.own[place]:
            came.alter(came.own[place][sequence].id)
        else:
            others[place].add(sequence)
            if low <= int(number) <= high:
                _tell(found, one)
    _tell_holes(came, others, highest, sources, _latest_gaps(capture.events))
    found.unknown = came.unknown(known)
    found.not_captured = sorted(elsewhere)
    return found


def _spans(events: Iterable[Event]) -> dict[tuple[str, int], Range]:
    """The lowest and the highest number that was received of each source and epoch."""
    spans: dict[tuple[str, int], Range] = {}
    for event in events:
        low, high = spans.get((event.source, event.epoch), (event.number, event.number))
        spans[event.source, event.epoch] = (min(low, event.number), max(high, event.number))
    return spans


def _tell(found: Findings, one: Mapping[str, Any]) -> None:
    if one["delivered"]:
        found.note("missing", one["id"])
    elif one["waiting"]:
        found.waiting += 1
    else:
        found.named += 1


def _tell_holes(
    came: _Received, others: Mapping[Place, set[int]], highest: Mapping[Place, int], sources: set[str],
    gaps: list[Event],
) -> None:  # fmt: skip
    """Count sequences that neither arrived nor are known to the store, up to the highest that it knows."""
    ranges = _ranges(gaps)
    whole = [(gap.source, gap.data["epoch"]) for gap in gaps if gap.data["epoch"] and not gap.data["first_sequence"]]
    for place, own in came.own.items():
        source, epoch, _ = place
        if source in sources and not any(source == of and epoch <= until for of, until in whole):
            high = min(max(own), highest.get(place, max(own)))
            _tell_absent(came.found, place, (min(own), high), own.keys() | others.get(place, set()), ranges[place])


def against_manifests(capture: Capture) -> Findings:
    """Compare with the manifests and gap records among the events themselves.

    Of the first epoch of each source a topic is judged from the first sequence on that was received.
    """
    came = _Received(capture)
    ranges = _ranges(_latest_gaps(capture.events))
    earliest: dict[str, int] = {}
    for event in capture.events:
        earliest[event.source] = min(event.epoch, earliest.get(event.source, event.epoch))
    elsewhere: set[str] = set()
    told: dict[Place, list[Mapping[str, Any]]] = defaultdict(list)
    for manifest in (event for event in _once(capture.events) if event.type == "manifest"):
        for topic, each in manifest.data["topics"].items():
            if topic in came.topics:
                told[manifest.source, manifest.data["epoch"], topic].append(each)
            else:
                elsewhere.add(topic)
    for place, manifests in told.items():
        own = came.own.get(place, {})
        last = max(int(each["last"]) for each in manifests)
        begun = min(own, default=last + 1) if place[1] <= earliest[place[0]] else 1
        for each in manifests:
            _compare(came.found, place, each, own, begun, ranges[place])
        for hole in _holes((begun, last), [(int(each["first"]), int(each["last"])) for each in manifests]):
            here = _within(own, hole)
            came.found.unproven += len(here)
            _tell_absent(came.found, place, hole, here, ranges[place])
    came.found.not_captured = sorted(elsewhere)
    return came.found


def _compare(
    found: Findings, place: Place, told: Mapping[str, Any], own: Mapping[int, Event], begun: int, gaps: list[Range]
) -> None:
    """Judge what a manifest tells of a topic, from the sequence `begun` on."""
    first, last = int(told["first"]), int(told["last"])
    low = min(max(first, begun), last + 1)
    found.before += low - first
    here = _within(own, (low, last))
    missing = _tell_absent(found, place, (low, last), here, gaps)
    unnamed = [each for each in here if not any(begin <= each <= end for begin, end in gaps)]
    if low == first:
        for some in (here, unnamed):
            if _digest(own[each] for each in some) == told["sha256"]:
                found.right += len(some)
                found.unproven += len(here) - len(some)
                return
        if len(here) == last - first + 1 or (not missing and told["count"] == len(unnamed)):
            found.note("unlike", _said(place, (first, last)), len(here))
            return
    found.unproven += len(here)


def _within(own: Mapping[int, Event], wanted: Range) -> list[int]:
    """The sequences of a range that are here, in their order."""
    low, high = wanted
    if high - low < len(own):
        return [each for each in range(low, high + 1) if each in own]
    return sorted(each for each in own if low <= each <= high)


def _digest(events: Iterable[Event]) -> str:
    digest = hashlib.sha256()
    for event in events:
        digest.update(f"{event.id}\n{event.digest}\n".encode())
    return digest.hexdigest()


def _tell_absent(found: Findings, place: Place, wanted: Range, here: Iterable[int], gaps: list[Range]) -> int:
    """Count what is not here: `named` where a gap names it, else `missing`; how many are missing."""
    covered = [(each, each) for each in here]
    missing = [*_holes(wanted, [*covered, *gaps])]
    for hole in missing:
        found.note("missing", _said(place, hole), hole[1] - hole[0] + 1)
    count = _size(missing)
    found.named += _size(_holes(wanted, covered)) - count
    return count


def _holes(wanted: Range, covered: Iterable[Range]) -> Iterator[Range]:
    """The ranges of what is wanted that nothing covers."""
    low, high = wanted
    for begin, end in sorted(covered):
        if low > high:
            return
        if begin > low:
            yield low, min(begin - 1, high)
        low = max(low, end + 1)
    if low <= high:
        yield low, high


def _size(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _said(place: Place, sequences: Range) -> str:
    first, last = sequences
    return f"{place[2]} {first}{f' to {last}' if last > first else ''} of epoch {place[1]}"


def _once(events: Iterable[Event]) -> Iterator[Event]:
    seen: set[str] = set()
    for event in events:
        if event.id not in seen:
            seen.add(event.id)
            yield event


def _latest_gaps(events: Iterable[Event]) -> list[Event]:
    """The gap records of records that stand: the newest revision of each key, unless it is withdrawn."""
    latest: dict[tuple[str, str], Event] = {}
    for event in events:
        if event.type == "gap" and event.data["what"] == "records":
            key = (event.source, event.data["key"])
            if key not in latest or _version(event) > _version(latest[key]):
                latest[key] = event
    return [event for event in latest.values() if not event.data["withdrawn"]]


def _version(event: Event) -> tuple[int, int]:
    return event.epoch, event.data["revision"]


def _ranges(gaps: Iterable[Event]) -> dict[Place, list[Range]]:
    """The sequences that gap records name, by place."""
    found: dict[Place, list[Range]] = defaultdict(list)
    for gap in gaps:
        data = gap.data
        if data["first_sequence"]:
            found[gap.source, data["epoch"], data["topic"]].append(
                (int(data["first_sequence"]), int(data["last_sequence"]))
            )
    return found
