"""A look at everything in a store: whether SQLite finds it sound, and each record as it was issued."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from edge_agent.store.database import Store

_SLICE = 2_000


def figures(store: Store) -> dict[str, Any]:
    """What the store holds and how much room it takes, for people."""
    return {
        **store.figures(),
        "free_bytes": store.room.free(),
        "epoch": store.fact("epoch"),
        "alive": store.fact("alive"),
        "sacrificed": store.facts("sacrificed."),
        "unnamed_losses": len(store.losses.pending(_SLICE)),
        "kept_damaged": sorted(path.name for path in store.folder.glob("*.damaged-*[0-9]")),
    }


def proved(store: Store, seconds: float) -> dict[str, Any]:
    """What a look of at most so many seconds finds: `sqlite`, `records` looked at, `altered` ones, `finished`."""
    until = time.monotonic() + seconds
    try:
        finished, said = store.check(seconds, "integrity_check"), "ok"
    except sqlite3.DatabaseError as damage:
        return {"sqlite": str(damage), "records": 0, "altered": 0, "finished": True}
    records = altered = after = 0
    while found := store.delivery.issued_after(after, _SLICE):
        if time.monotonic() > until:
            finished = False
            break
        after = found[-1].position
        records += len(found)
        altered += sum(one.payload is None for one in found)
    return {"sqlite": said, "records": records, "altered": altered, "finished": finished}
