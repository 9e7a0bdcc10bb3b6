"""Topics that wait by themselves, so that the others go on: the broker has no room for them, or hangs up over them.

Their records stay in the outbox. When the pause is over one of them is tried, alone; if it fares as before, the pause
is longer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_agent.contract import NS_PER_S


@dataclass(slots=True)
class _Topic:
    size: int
    pause_s: float
    until: int
    busy: bool
    tried: int | None = None
    """The record of which it is not known yet how it fares."""


class Parked:
    """Outlives the connections. Times are those of the monotonic clock, in ns."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def topics(self) -> tuple[str, ...]:
        """All that wait by themselves."""
        return tuple(sorted(self._topics))

    def is_busy(self, topic: str) -> bool:
        """Whether the broker has no room for it, and nothing worse."""
        return topic in self._topics and self._topics[topic].busy

    def park(self, topic: str, size: int, now: int, first_s: float, most_s: float, *, busy: bool = False) -> None:
        """Have messages of `size` bytes or more wait: `first_s`, then twice as long, up to `most_s`.

        Args:
            topic: where they go.
            size: of the payload.
            now: the time.
            first_s: the first pause.
            most_s: the longest pause.
            busy: the broker said so; when it takes one again, all such topics go on.
        """
        known = self._topics.get(topic)
        pause_s = first_s if known is None else min(most_s, 2 * known.pause_s)
        size = size if known is None else min(size, known.size)
        until = now + int(pause_s * random.uniform(0.75, 1.0) * NS_PER_S)
        self._topics[topic] = _Topic(size, pause_s, until, busy)

    def holds(self, topic: str, size: int, now: int, position: int | None = None) -> bool:
        """Whether such a message has to wait; the record that is being tried has not."""
        known = self._topics.get(topic)
        if known is None or size < known.size or (position is not None and position == known.tried):
            return False
        return now < known.until

    def tries(self, topic: str, size: int, now: int, position: int) -> bool:
        """Whether this record is the one that is tried after a pause; those behind it wait for what comes of it."""
        known = self._topics.get(topic)
        if known is None or size < known.size:
            return False
        if now >= known.until:
            known.until, known.tried = now + int(known.pause_s * NS_PER_S), position
        return known.tried == position

    def accepted(self, topic: str, size: int) -> bool:
        """The broker has taken such a message: whether some wait no more."""
        known = self._topics.get(topic)
        if known is None or size < known.size:
            return False
        del self._topics[topic]
        if known.busy:
            self._topics = {name: each for name, each in self._topics.items() if not each.busy}
        return True

    def next_due(self, now: int) -> int | None:
        """When the next pause is over."""
        return min((each.until for each in self._topics.values() if each.until > now), default=None)

    def clear(self) -> None:
        """Begin anew: somebody has put the broker right."""
        self._topics.clear()
