"""The envelope of everything that this agent publishes: who says it, when, by which clock, under which number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_agent import record
from edge_agent.clock import Clock
from edge_agent.store import Issued


class Envelope:
    """Puts what one agent says into events, and freezes their bytes."""

    def __init__(self, publisher: record.Publisher, clock: Clock) -> None:
        self.publisher = publisher
        self._clock = clock

    def freeze(
        self, kind: str, subject: str, data: dict[str, Any], issued: Issued, configuration: str | None = None
    ) -> bytes:
        """The bytes of an event of this kind, made now; `configuration` made it, or the present one."""
        made = record.event(
            self.publisher if configuration is None else replace(self.publisher, configuration=configuration),
            kind,
            subject,
            data,
            epoch=issued.epoch,
            number=issued.number,
            sequence=issued.sequence or None,
            time_ns=self._clock.now(),
            clock=self._clock.trust(),
        )
        return record.freeze(made)
