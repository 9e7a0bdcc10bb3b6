"""Entries: what people tell the agent about a machine, appended and never edited (pure).

| kind | what it says | its body |
|---|---|---|
| `reason` | why the stops were that overlap its time | reason |
| `scrap`, `rework` | items found bad, or to be worked again, at its time; below 0 takes back | count, reason |
| `correction` | items that the counter saw too few (or, below 0, too many) at its time | count, quantity |
| `planned-stop` | its time was planned to stand still, as a break is | reason |
| `job-start`, `job-end` | a job begins, or the one in work ends, at its time | job, product, planned_quantity … |
| `counter-replaced` | a counter was exchanged or set at its time; what it showed before means nothing | tag, value |
| `note` | words for people | text |
| `withdraw` | an earlier entry does not count any more | entry |

Of several that say different things of one time the latest appended wins; quantities add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal[
    "reason", "scrap", "rework", "correction", "planned-stop", "job-start", "job-end", "counter-replaced", "note",
    "withdraw",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
SPANS: frozenset[Kind] = frozenset({"reason", "planned-stop"})
"""The kinds that speak of a time from … to; the others speak of an instant."""
LABELS_ONLY: frozenset[Kind] = frozenset({"note", "withdraw"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `number` in order of appending, who said it and when, and for when, in ns.

    `end_ns` is not included; it is `start_ns` for what speaks of an instant.
    """

    number: int
    machine: str
    kind: Kind
    by: str
    made_ns: int
    start_ns: int
    end_ns: int
    body: Mapping[str, Any]

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        """Whether its time and [start, end) share an instant."""
        return self.start_ns < end_ns and start_ns < max(self.end_ns, self.start_ns + 1)


def in_force(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that still count, in order of appending."""
    given = sorted(entries, key=lambda entry: entry.number)
    withdrawn = {entry.body["entry"] for entry in given if entry.kind == "withdraw"}
    return [entry for entry in given if entry.kind != "withdraw" and entry.number not in withdrawn]


def of_kind(entries: Sequence[Entry], *kinds: Kind) -> list[Entry]:
    """Those of these kinds, in order of appending."""
    return [entry for entry in entries if entry.kind in kinds]
