"""A machine's counts over a time, ready to be summed by window; with what people told of items."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import accumulate, pairwise

from edge_agent import equipment, metrics
from edge_agent.entries import Entry, of_kind
from edge_agent.equipment import CounterRules, CountRules, Row, Step
from edge_agent.equipment.stops import UNCLASSIFIED
from edge_agent.production.history import History
from edge_agent.production.model import Interval, Tally

Quantities = dict[str, Tally | None]
ByReason = dict[str, dict[str, int]]
TOLD = ("produced", "scrap", "rework")
"""The quantities that people may add to."""


class Counting:
    """All counts of a machine, and the entries of scrap, rework and corrections."""

    def __init__(self, history: History) -> None:
        self._counts = {
            name: [_Count(history, rules) for rules in several] for name, several in history.machine.counts.items()
        }
        told = of_kind(history.entries, "correction", "scrap", "rework")
        self._told = {name: _Told([entry for entry in told if _of(entry) == name]) for name in TOLD}

    def quantities(self, start_ns: int, end_ns: int) -> tuple[Quantities, ByReason]:
        """The items booked in [start, end) by quantity, None where nothing counts them; and those that have reasons.

        Scrap that people tell of was among the good items: what was produced stays. A correction of what was produced
        is of good items.
        """
        tallies = {name: [count.tally(start_ns, end_ns) for count in several] for name, several in self._counts.items()}
        found = _completed({name: reduce(Tally.plus, several) for name, several in tallies.items()})
        told = {name: each.sum(start_ns, end_ns) for name, each in self._told.items()}
        by_reason = self._by_reason(tallies, start_ns, end_ns)
        if any(amount is not None for amount in told.values()):
            found = _with_told(found, told)
            for name in ("scrap", "rework"):
                self._told[name].by_reason(by_reason, found[name], start_ns, end_ns)
        return found, by_reason

    def flags(self, start_ns: int, end_ns: int) -> Iterable[str]:
        """What the steps in a window say, once each, behind the name of the quantity."""
        return dict.fromkeys(
            f"{name}_{word}"
            for name, several in self._counts.items()
            for count in several
            for word in count.words(start_ns, end_ns)
        )

    def _by_reason(self, tallies: Mapping[str, Sequence[Tally]], start_ns: int, end_ns: int) -> ByReason:
        """The items of each quantity that has reasons, by reason; what has none among them is `unclassified`."""
        found: ByReason = {}
        for name, several in self._counts.items():
            if any(count.reason for count in several):
                items = found.setdefault(name, {})
                for count, tally in zip(several, tallies[name], strict=True):
                    reason = count.reason or UNCLASSIFIED
                    items[reason] = items.get(reason, 0) + tally.total
        return found


def _of(entry: Entry) -> str:
    return str(entry.body.get("quantity", "produced")) if entry.kind == "correction" else entry.kind


def _completed(counted: dict[str, Tally]) -> Quantities:
    """Of produced, good and scrap the third, where two are counted."""
    produced, good, scrap = counted.get("produced"), counted.get("good"), counted.get("scrap")
    if produced is None and good is not None and scrap is not None:
        produced = good.plus(scrap)
    elif good is None and produced is not None and scrap is not None:
        good = produced - scrap
    elif scrap is None and produced is not None and good is not None:
        scrap = produced - good
    return {"produced": produced, "good": good, "scrap": scrap, "rework": counted.get("rework")}


def _with_told(found: Quantities, told: Mapping[str, int | None]) -> Quantities:
    corrected, scrapped, reworked = (told[name] for name in ("produced", "scrap", "rework"))
    produced, good, scrap, rework = (found[name] for name in ("produced", "good", "scrap", "rework"))
    if corrected is not None:
        produced, good = (each and each.plus(Tally(corrected)) for each in (produced, good))
    if scrapped is not None:
        good = (good or produced or Tally()) - Tally(scrapped) if good or produced else None
        scrap = (scrap or Tally()).plus(Tally(scrapped))
    if reworked is not None:
        rework = (rework or Tally()).plus(Tally(reworked))
    return {"produced": produced, "good": good, "scrap": scrap, "rework": rework}


class _Told:
    """Entries that add items to one quantity."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def sum(self, start_ns: int, end_ns: int) -> int | None:
        counts = [int(entry.body["count"]) for entry in self._here(start_ns, end_ns)]
        return sum(counts) if counts else None

    def by_reason(self, found: ByReason, whole: Tally | None, start_ns: int, end_ns: int) -> None:
        """Add the items told in a window under their reasons, where any reason is known; together they are `whole`."""
        here = self._here(start_ns, end_ns)
        if not here or whole is None or not any(_of(entry) in found or entry.body.get("reason") for entry in here):
            return
        items = found.setdefault(_of(here[0]), {})
        for entry in here:
            reason = entry.body.get("reason") or UNCLASSIFIED
            items[reason] = items.get(reason, 0) + int(entry.body["count"])
        if rest := whole.total - sum(items.values()):
            items[UNCLASSIFIED] = items.get(UNCLASSIFIED, 0) + rest

    def _here(self, start_ns: int, end_ns: int) -> list[Entry]:
        return [entry for entry in self._entries if start_ns <= entry.start_ns < end_ns]


class _Count:
    """One count's steps."""

    def __init__(self, history: History, rules: CountRules) -> None:
        own, self.reason = history.own, rules.reason
        self._steps = steps = _steps(history, rules)
        blind = metrics.time_in(own.edges, own.labels >= equipment.UNKNOWN, [(s.since_ns, s.time_ns) for s in steps])
        self._times = [step.time_ns for step in steps]
        self._total = [0, *accumulate(step.items for step in steps)]
        unobserved = (step.items if step.gap or ns else 0 for step, ns in zip(steps, blind, strict=True))
        self._unobserved = [0, *accumulate(unobserved)]
        self._quarantined = [0, *accumulate(step.quarantined for step in steps)]

    def tally(self, start_ns: int, end_ns: int) -> Tally:
        first, last = self._range(start_ns, end_ns)
        sums = (self._total, self._unobserved, self._quarantined)
        return Tally(*(each[last] - each[first] for each in sums))

    def words(self, start_ns: int, end_ns: int) -> Iterable[str]:
        """What its steps in a window say."""
        first, last = self._range(start_ns, end_ns)
        return (word for step in self._steps[first:last] for word in step.flags)

    def _range(self, start_ns: int, end_ns: int) -> Interval:
        return bisect_left(self._times, start_ns), bisect_left(self._times, end_ns)


def _steps(history: History, rules: CountRules) -> list[Step]:
    """A count's steps; where the counter was replaced it begins anew, from what it showed then, if that is known."""
    rows, hold_ns = history.rows.get(rules.tag, ()), history.machine.hold_ns.get(rules.tag)
    replaced = history.replaced(rules.tag) if isinstance(rules, CounterRules) else []
    if not replaced:
        return equipment.steps(rows, rules, hold_ns, history.known_until_ns)
    found: list[Step] = []
    bounds = [(rows[0][0] if rows else 0, None), *replaced, (history.known_until_ns, None)]
    for (start, shown), (end, _) in pairwise(bounds):
        own: list[Row] = [] if shown is None else [(start, shown, 0, None)]
        own += [row for row in rows if start <= row[0] < end]
        found += equipment.steps(own, rules, hold_ns, history.known_until_ns)
    return found
