"""What a report does not know, in sentences: unobserved time, doubtful counts, figures that cannot be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from edge_agent.cli.report.looks import CAUSES, KPI_REASONS, flag, in_words
from edge_agent.cli.report.words import cleaned, duration, number, percent, several

ALL_SEEN = "Nothing: all of the scheduled time was observed."


class _Lost(Protocol):
    @property
    def seconds(self) -> float: ...
    @property
    def stops(self) -> int | None: ...


def not_known(window: Mapping[str, Any], unclassified: Sequence[_Lost]) -> tuple[str, ...]:
    """What is missing in the figures of a shift, most important first; one sentence when nothing is.

    Args:
        window: the data of the production record of the shift.
        unclassified: the time lost without a reason, if stops are recorded.
    """
    if not window:
        return ("There are no figures for this shift.",)
    found = [
        *_unobserved(window.get("completeness") or {}),
        *_doubtful(window.get("quantity") or {}),
        *(flag(cleaned(one)) for one in window.get("flags") or ()),
        *_unexplained(unclassified),
        *_without_figures(window),
    ]
    return tuple(found) or (ALL_SEEN,)


def _unobserved(completeness: Mapping[str, Any]) -> Iterator[str]:
    if not completeness:
        yield "Nobody says how much of the time was observed."
        return
    missing = {cause: seconds for cause, seconds in (completeness.get("missing_s") or {}).items() if seconds}
    share = completeness.get("ratio")
    if missing:
        causes = ", ".join(f"{in_words(CAUSES, cleaned(cause))} {duration(lost)}" for cause, lost in missing.items())
        if len(missing) == 1:
            causes = in_words(CAUSES, cleaned(next(iter(missing))))
        seen = "" if share is None else f" {percent(_below_whole(share), 2)} of the scheduled time was observed."
        yield f"{duration(sum(missing.values()))} not observed: {causes}.{seen}"
    elif share is not None and share < 1:
        yield f"Only {percent(_below_whole(share), 2)} of the scheduled time was observed."
    uncertain_s = completeness.get("uncertain_s")
    if uncertain_s:
        yield f"{duration(uncertain_s)} rest on readings of uncertain quality."


def _below_whole(share: float) -> float:
    """A ratio under 1 never reads 100 %."""
    return min(share, 0.9999) if share < 1 else share


def _doubtful(quantity: Mapping[str, Any]) -> Iterator[str]:
    unobserved, quarantined = quantity.get("unobserved"), quantity.get("quarantined")
    if unobserved:
        yield f"{several(unobserved, 'item')} made while nobody looked: counted, but in no ratio."
    if quarantined:
        yield f"{several(quarantined, 'item')} in jumps of the counter that are not believed: not in produced."


def _unexplained(unclassified: Sequence[_Lost]) -> Iterator[str]:
    for one in unclassified:
        if one.seconds:
            often = "" if not one.stops else f" in {several(one.stops, 'stop')}"
            yield f"{duration(one.seconds)} of downtime{often} without a reason."


def _without_figures(window: Mapping[str, Any]) -> Iterator[str]:
    values, reasons, quantity = window.get("kpi") or {}, window.get("kpi_reason") or {}, window.get("quantity") or {}
    if values.get("oee_index") is None:
        why = in_words(KPI_REASONS, cleaned(reasons.get("oee_index") or "not known"))
        yield f"No OEE: {why}."
    silent = [name for name in ("produced", "good", "scrap", "rework") if quantity.get(name) is None]
    if silent:
        yield f"Not counted: {', '.join(silent)}."
    if not window.get("pace"):
        yield "No goal is set."
    revisable = window.get("final") is False and not window.get("withdrawn")
    if window.get("revision"):
        because = in_words({}, cleaned(window.get("revised_because") or "not known"))
        yield f"Revision {number(window['revision'])} of these figures ({because})."
    elif revisable and window.get("revisable_until"):
        yield "Late readings or entries may still change these figures."
