"""What lets a consumer prove that it has everything: the data of manifests."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edge_agent.timestamps import rfc3339

HOUR_NS = 3_600 * 1_000_000_000


class TopicDigest:
    """The records of one topic in one manifest, in the order of their sequences."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.count = 0
        self._hash = hashlib.sha256()

    def add(self, sequence: int, payload: bytes | None) -> None:
        """Take the next record; None: its bytes are lost, so that nobody can prove it."""
        self.first = sequence if self.first is None else self.first
        self.last = sequence
        self.count += 1
        try:
            id = json.loads(payload or b"")["id"]
        except (ValueError, KeyError, TypeError):
            id = None
        if payload is None or id is None:
            self._hash.update(b"?\n")
            return
        self._hash.update(f"{id}\n{hashlib.sha256(payload).hexdigest()}\n".encode())

    def as_data(self) -> dict[str, Any]:
        """As a manifest has it."""
        return {
            "first": f"{self.first or 0:012d}",
            "last": f"{self.last:012d}",
            "count": self.count,
            "sha256": self._hash.hexdigest(),
        }


def manifest_data(
    subject: str, epoch: int, hour: int, first_number: int, last_number: int, topics: dict[str, TopicDigest]
) -> dict[str, Any]:
    """The data of a manifest: what was issued in one UTC hour, by topic.

    Where the clock was set back an hour may have several, each of other numbers: so a number is part of the key.

    Args:
        subject: the agent's path.
        epoch: the epoch of all these records.
        hour: hours since 1970 UTC.
        first_number: the number, in the epoch, of the first of these records.
        last_number: that of the last one.
        topics: their digests by topic.
    """
    start = rfc3339(hour * HOUR_NS)
    return {
        "key": f"{subject}/manifest/{start}/{epoch}:{first_number}",
        "revision": 0,
        "start": start,
        "end": rfc3339((hour + 1) * HOUR_NS),
        "epoch": epoch,
        "first_number": first_number,
        "last_number": last_number,
        "count": sum(each.count for each in topics.values()),
        "topics": {topic: digest.as_data() for topic, digest in sorted(topics.items())},
    }
