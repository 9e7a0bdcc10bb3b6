"""What begins the data of every fact that may be said again: its key, and which saying of it this is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.timestamps import rfc3339

Because = Literal["late_reading", "backfill", "late_loss", "reclassified", "entry", "clock"]
EventBecause = Because | Literal["ended", "reason"]
"""Why a stop or a job is said again: it may also be over, or have another reason."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One saying of a fact.

    Attributes:
        number: 0 for the first, then one more each time.
        because: why it is said again; None for the first.
        previous: what was said before, as far as a consumer needs it to post a difference; None for the first.
        withdrawn: the fact has ceased.
        revisable_until_ns: until when something may still change it; None when that is not known.
        final: nothing can change it any more.
    """

    number: int = 0
    because: EventBecause | None = None
    previous: Mapping[str, Any] | None = None
    withdrawn: bool = False
    revisable_until_ns: int | None = None
    final: bool = False

    def head(self, key: str, machine: str) -> dict[str, Any]:
        """The first fields of the data of a fact."""
        until = None if self.final else self.revisable_until_ns
        return {
            "key": key,
            "revision": self.number,
            "revised_because": self.because,
            "previous": self.previous,
            "withdrawn": self.withdrawn,
            "final": self.final,
            "revisable_until": None if until is None else rfc3339(until),
            "machine": machine,
        }


FIRST = Revision()
