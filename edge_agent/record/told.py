"""What the record of an entry says: who told what, when, and for when."""

from __future__ import annotations

from typing import Any

from edge_agent.entries import SPANS, Entry
from edge_agent.timestamps import rfc3339


def entry_topic(prefix: str, subject: str) -> str:
    """Where the entries for one machine go."""
    return f"{prefix}/{subject}/entry"


def entry_data(subject: str, epoch: int, entry: Entry) -> dict[str, Any]:
    """The data of an entry's record; its number counts in the store's epoch."""
    return {
        "key": f"{subject}/entry/{epoch}.{entry.number}",
        "revision": 0,
        "machine": entry.machine,
        "entry": entry.number,
        "kind": entry.kind,
        "by": entry.by,
        "made": rfc3339(entry.made_ns),
        "start": rfc3339(entry.start_ns),
        "end": rfc3339(entry.end_ns) if entry.kind in SPANS else None,
        "body": dict(entry.body),
    }
