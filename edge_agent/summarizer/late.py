"""Readings that came after what they belong to was said: what they re-open, and what came too late for anything."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edge_agent.production import COUNTER_LOOKBACK_READINGS
from edge_agent.store import Draft, Store
from edge_agent.store.readings import Arrived
from edge_agent.summarizer.issue import Issuer
from edge_agent.summarizer.line import Line
from edge_agent.summarizer.site import Site

log = logging.getLogger(__name__)

SEEN = "seen"
"""The fact that remembers up to which reading this has been done."""


def find_late(lines: Sequence[Line], site: Site, store: Store, issuer: Issuer, now: int) -> list[Draft]:
    """Write down what new readings re-open; the gaps of those that are refused. Within a transaction of the caller.

    A late reading re-opens the time from its own to that of its tag's next good reading. One from before the horizon
    is deleted, and named in a gap record.
    """
    newest, seen = store.readings.last_id(), store.fact(SEEN)
    store.set_fact(SEEN, newest)
    if seen is None or newest <= seen:
        return []
    drafts = []
    said_until = max((line.said_until for line in lines), default=0)
    horizon = site.horizon(now)
    tags = {line.of.machine.name: site.tags_since(horizon, line.of.machine) for line in lines}
    for late in store.readings.arrived(seen, said_until):
        concerned = [line for line in lines if late.tag in tags[line.of.machine.name] and late.first < line.said_until]
        first = late.first
        if first < horizon and concerned:
            refused = store.readings.refuse(late.tag, seen, horizon)
            log.warning("%s: %d readings came too late, for a time that is final", late.tag, refused.readings)
            drafts += [issuer.too_late(line, refused.first, refused.last + 1, refused.readings) for line in concerned]
            if late.last < horizon:
                continue
            first = horizon
        hole = store.holes.start_of(late.tag, late.first)
        if hole is not None:  # also the time before the first reading is no longer unknown
            first = min(first, max(hole, horizon))
        why = "backfill" if hole is not None else "late_loss" if late.all_bad else "late_reading"
        for line in concerned:
            end = _end(line, store, late)
            store.entries.reopen(line.of.machine.name, first, max(end, late.last) + 1, why, now)
            line.reopen_at = 0
    return drafts


def _end(line: Line, store: Store, late: Arrived) -> int:
    """Until when a late reading may change what is said: its tag's next good one; of a counter, which holds an unlikely
    step until more readings confirm it, a few more.
    """
    counts = any(rules.tag == late.tag for rules in line.of.machine.rules)
    end = late.last
    for _ in range(COUNTER_LOOKBACK_READINGS if counts else 1):
        following = store.readings.next_good(late.tag, end)
        if following is None:
            return line.said_until
        end = following
    return end
