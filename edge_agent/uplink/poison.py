"""Records that make a broker hang up: found by sending them one at a time, so that the rest moves on.

A broker may end the connection over one message (too large, a topic that it does not let us use, bytes that it chokes
on) without saying which, or never answer for it. What was in flight then is suspected, and is sent alone after the next
connect. What is alone in flight when that happens three times running, or once with a reason that blames it, is not
sent any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edge_agent.uplink import words
from edge_agent.uplink.words import Lost

STRIKES = 3
HANGS_UP = 0x100
"""Beside the broker's reason codes: it hung up each time that the record was sent."""

Sent = int | str
"""A record by its position, or a latest value by its topic."""


class Suspects:
    """What was in flight when the broker hung up, over all connections."""

    def __init__(self) -> None:
        self._strikes: dict[Sent, int] = {}

    def __contains__(self, sent: Sent) -> bool:
        return sent in self._strikes

    def add(self, sent: Sent, strikes: int = 0) -> None:
        """Suspect this one, too; as if it had been alone in flight so many times already."""
        self._strikes.setdefault(sent, strikes)

    def positions(self) -> list[int]:
        """The records among them, oldest first."""
        return sorted(each for each in self._strikes if isinstance(each, int))

    def keep_topics(self, latest: Collection[str]) -> None:
        """Suspect no latest value that is not published any more."""
        for each in [each for each in self._strikes if isinstance(each, str) and each not in latest]:
            del self._strikes[each]

    def cleared(self, sent: Sent) -> None:
        """The broker has answered for this one."""
        self._strikes.pop(sent, None)

    def lost(self, in_flight: Sequence[Sent], error: Lost) -> tuple[Sent, int, str] | None:
        """A connection ended with these in flight: what is not to be sent any more, and why; None: nothing yet."""
        if not error.by_broker or error.code in words.BLAMES_NO_RECORD:
            return None
        for each in in_flight:
            self.add(each)
        if len(in_flight) != 1:
            return None
        (alone,) = in_flight
        blamed = error.code in words.BLAMES_THE_RECORD
        self._strikes[alone] += STRIKES if blamed else 1
        if self._strikes[alone] < STRIKES:
            return None
        del self._strikes[alone]
        code = error.code if blamed and error.code is not None else HANGS_UP
        return alone, code, f"sent alone, and then: {error}"
