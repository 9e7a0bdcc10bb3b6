"""Stops and jobs as they were published last, and which of them is which of those that are found now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edge_agent.production import Interval
from edge_agent.store import Store
from edge_agent.timestamps import parse, rfc3339

_SECOND_NS = 1_000_000_000
_BEYOND, _STANDING = 4, 2
"""How many keys beyond a time are looked at first, and how many of them must still stand."""


class Said(NamedTuple):
    """A stop or a job as it was published last, with its bounds in ns; `end` is far away while it is open."""

    data: dict[str, Any]
    key_ns: int
    """The start under which it was first published."""
    start: int
    end: int


class Fresh(NamedTuple):
    """A stop or a job as it is found now; `name` is the job's."""

    start: int
    end: int
    name: str | None = None


def said(store: Store, prefix: str, look: Interval) -> list[Said]:
    """The stops or jobs that were published, not withdrawn, and overlap a time or touch it."""
    found = []
    for data in _around(store, prefix, look):
        start = parse(data["start"])
        end = look[1] + 1 if data["end"] is None else parse(data["end"])
        if not data["withdrawn"] and start <= look[1] and end >= look[0]:
            found.append(Said(data, parse(data["key"].rpartition("/")[2]), start, end))
    return found


def _around(store: Store, prefix: str, look: Interval) -> list[dict[str, Any]]:
    """What has a key in a time, and around it as many as it takes: a key keeps the first start, wherever that moved."""
    # As texts 12:00:00.5Z comes before 12:00:00Z, so a second more is asked for on both sides.
    first, last = rfc3339(look[0] - _SECOND_NS), rfc3339(look[1] + _SECOND_NS)
    beyond = _BEYOND
    while True:
        found = store.records.latest_near(prefix, first, last, beyond)
        before = [data for data in found if data["key"] < prefix + first]
        after = [data for data in found if data["key"] > prefix + last]
        if all(_enough(side, beyond) for side in (before, after)):
            return found
        beyond *= 4


def _enough(side: Sequence[dict[str, Any]], beyond: int) -> bool:
    return len(side) < beyond or sum(not data["withdrawn"] for data in side) >= _STANDING


def free_key(store: Store, key_of: Callable[[int], str], start: int) -> tuple[str, dict[str, Any] | None]:
    """A key for what begins at `start`, and what was withdrawn under it, if so; no other fact has it."""
    while True:
        key = key_of(start)
        before = store.records.latest(key)
        if before is None or before["withdrawn"]:
            return key, before
        start += 1  # another stop was first published with this start, and has moved since


def paired(published: Sequence[Said], found: Sequence[Fresh]) -> list[Said | None]:
    """For each of those found now the published one that it is: of the same first start, of the same start, or near."""
    pairs: list[Said | None] = [None] * len(found)
    free = list(published)
    ways: tuple[Callable[[Said, Fresh], bool], ...] = (
        lambda one, fresh: one.key_ns == fresh.start == one.start,
        lambda one, fresh: one.key_ns == fresh.start,
        lambda one, fresh: one.start == fresh.start,
        lambda one, fresh: one.start < fresh.end and fresh.start < one.end,
    )
    for way in ways:
        for place, fresh in enumerate(found):
            if pairs[place] is None:
                one = next((one for one in free if fresh.name in (None, one.data["job"]) and way(one, fresh)), None)
                if one is not None:
                    pairs[place] = one
                    free.remove(one)
    return pairs
