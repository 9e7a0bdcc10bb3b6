"""Windows: a machine's history cut to them, measured, and added up where product, job or shift change inside them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial, reduce
from typing import TypeVar

from edge_agent import equipment, metrics
from edge_agent.contract import NS_PER_S
from edge_agent.entries import Entry
from edge_agent.equipment import CAUSES, DELAY, DOWN, LABELS, STATES, Row, Timeline
from edge_agent.equipment.stops import UNCLASSIFIED
from edge_agent.equipment.work import Work
from edge_agent.metrics import Planned
from edge_agent.production.counting import Counting
from edge_agent.production.history import History, first_ns
from edge_agent.production.model import Downtime, Interval, Machine, Pace, Tally, WindowData
from edge_agent.production.present import unsettled_since
from edge_agent.shifts import Calendar, intersection, overlap_ns

T = TypeVar("T")


def compute(
    machine: Machine,
    calendar: Calendar,
    rows: Mapping[str, Sequence[Row]],
    windows: Sequence[Interval],
    known_until_ns: int,
    entries: Sequence[Entry] = (),
) -> list[WindowData]:
    """The data of each window, in the order given. Windows may overlap and differ in length.

    Args:
        machine: how its readings are to be understood.
        calendar: the site's shifts and production days.
        rows: for each of the machine's tags its readings in time order, reaching back as `lookback_ns` says and
            forward to `known_until_ns`, so that a stop's length is seen.
        windows: half-open [start, end), in ns.
        known_until_ns: all readings before this are here; nothing is assumed from here on.
        entries: what people told of the machine.
    """
    if not windows:
        return []
    first, last = min(start for start, _ in windows), max(end for _, end in windows)
    # Beyond the last window too: how long a stop lasts is seen only where it ends.
    within = (first_ns(machine, rows, first), max(last, known_until_ns))
    history = History(machine, calendar, rows, within, known_until_ns, entries)
    parts = [_parts(history, window) for window in windows]
    measured = iter(_measured(history, [part for own in parts for part in own]))
    return [_whole(machine, [next(measured) for _ in own]) for own in parts]


def _parts(history: History, window: Interval) -> list[Work]:
    """A window cut where shift, product or job change."""
    work, found = history.work, []
    for start, end in history.calendar.parts(*window):
        place = bisect_right(work, start, key=lambda span: span.start_ns) - 1
        while place < len(work) and work[place].start_ns < end:
            span = work[place]
            found.append(Work(max(start, span.start_ns), min(end, span.end_ns), span.product, span.job))
            place += 1
    return found


@dataclass(frozen=True, slots=True)
class _Measured:
    """A part of a window with one shift, product and job, and what is remarkable in it."""

    data: WindowData
    notes: tuple[str, ...]


def _whole(machine: Machine, parts: Sequence[_Measured]) -> WindowData:
    """The window that its parts make."""
    if len(parts) == 1:
        return parts[0].data
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(_sum(machine, [part.data for part in parts], notes), segments=tuple(p.data for p in parts))


def added(machine: Machine, calendar: Calendar, spans: Sequence[WindowData], segments: bool = True) -> WindowData:
    """Spans that follow one another as one window, such as the days of a long job; with its segments, or without."""
    if len(spans) == 1:
        return spans[0]
    whole = _together(machine, spans)
    if not segments:
        return whole
    parts: list[list[WindowData]] = []
    for part in (part for span in spans for part in span.segments or (span,)):
        if parts and _goes_on(calendar, parts[-1][-1], part):
            parts[-1].append(part)
        else:
            parts.append([part])
    if len(parts) == 1:
        return whole
    return replace(whole, segments=tuple(part[0] if len(part) == 1 else _together(machine, part) for part in parts))


def _goes_on(calendar: Calendar, before: WindowData, after: WindowData) -> bool:
    """Whether two parts that follow one another have one shift, product and job, and were cut only to be computed."""
    same = (before.product, before.job) == (after.product, after.job)
    return same and len(calendar.parts(before.start_ns, after.end_ns)) == 1


def _together(machine: Machine, spans: Sequence[WindowData]) -> WindowData:
    notes = tuple(dict.fromkeys(flag for span in spans for flag in span.flags if not flag.endswith("_over_1")))
    return _sum(machine, spans, notes)


def _with_good(spans: Sequence[WindowData]) -> Sequence[WindowData]:
    """The spans; where only some know of scrap, in the others all that was produced is good."""
    if all(span.quantities["good"] is None for span in spans):
        return spans
    return [
        span
        if span.quantities["good"] is not None
        else replace(span, quantities=span.quantities | {"good": span.quantities["produced"]})
        for span in spans
    ]


def _planned_in(machine: Machine, span: WindowData) -> Planned:
    """The planned run time of a span's items, over its products."""
    if span.segments:
        parts = span.segments if span.quantities["good"] is None else _with_good([span, *span.segments])[1:]
        return reduce(_plus, (_planned_in(machine, part) for part in parts))
    if span.planned_run_time_ns is not None:
        return _planned(machine, span.planned_run_time_ns, span.quantities)
    # Of several products without segments the sums are all there is.
    produced, good = (span.kpis.sums[name] for name in ("planned_run_produced_s", "planned_run_good_s"))
    return Planned(produced, produced if good is None and span.kpis.sums["good"] is None else good)


def _sum(machine: Machine, spans: Sequence[WindowData], notes: tuple[str, ...]) -> WindowData:
    spans = _with_good(spans)
    planned = reduce(_plus, (_planned_in(machine, span) for span in spans))
    times_ns, missing_ns = (
        {name: sum(each[name] for each in several) for name in several[0]}
        for several in ([span.times_ns for span in spans], [span.missing_ns for span in spans])
    )
    quantities: dict[str, Tally | None] = {}
    for name in spans[0].quantities:
        counted = [tally for span in spans if (tally := span.quantities[name]) is not None]
        quantities[name] = reduce(Tally.plus, counted) if counted else None
    stops = [span.downtime for span in spans]
    downtime = Downtime(
        sum(each.stops for each in stops),
        sum(each.failures for each in stops),
        _added(each.by_reason_ns for each in stops),
    )
    kpis = _kpis(machine, times_ns, quantities, planned, downtime.failures)
    paces = [span.pace for span in spans if span.pace is not None]
    return WindowData(
        spans[0].start_ns, spans[-1].end_ns, times_ns, missing_ns, sum(span.uncertain_ns for span in spans),
        quantities, kpis, (*kpis.flags, *notes), any(span.count_gap for span in spans),
        all(span.settled for span in spans), tuple(dict.fromkeys(each for span in spans for each in span.unmapped)),
        by_reason=_by_reason(spans, quantities),
        product=_constant(span.product for span in spans),
        job=_constant(span.job for span in spans),
        planned_run_time_ns=_constant(span.planned_run_time_ns for span in spans),
        downtime=downtime,
        pace=Pace(paces[0].goal, sum((pace.expected for pace in paces), Fraction(0))) if paces else None,
    )  # fmt: skip


def _by_reason(spans: Sequence[WindowData], quantities: Mapping[str, Tally | None]) -> dict[str, dict[str, int]]:
    """The items by reason; where only some spans know reasons, the items of the others have none."""
    found = {}
    for name in dict.fromkeys(name for span in spans for name in span.by_reason):
        items = found[name] = _added(span.by_reason.get(name, {}) for span in spans)
        whole = quantities[name]
        if whole is not None and (rest := whole.total - sum(items.values())):
            items[UNCLASSIFIED] = items.get(UNCLASSIFIED, 0) + rest
    return found


def _added(several: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in several:
        for name, amount in each.items():
            found[name] = found.get(name, 0) + amount
    return found


def _constant(several: Iterable[T]) -> T | None:
    found = set(several)
    return found.pop() if len(found) == 1 else None


def _plus(one: Planned, other: Planned) -> Planned:
    return Planned(*(None if a is None or b is None else a + b for a, b in zip(one, other, strict=True)))


def _kpis(
    machine: Machine,
    times_ns: Mapping[str, int],
    quantities: Mapping[str, Tally | None],
    planned: Planned,
    failures: int,
) -> metrics.Kpis:
    produced, good, rework = (
        None if tally is None else tally.observed
        for tally in (quantities[name] for name in ("produced", "good", "rework"))
    )
    return metrics.kpis(times_ns, produced, good, machine.definition, rework, planned, failures)


def _measured(history: History, parts: Sequence[Work]) -> list[_Measured]:
    """The data of each part."""
    machine, known_until_ns = history.machine, history.known_until_ns
    timeline = _watched(history)
    spans = [(part.start_ns, part.end_ns) for part in parts]
    times = metrics.by_window(timeline.edges, timeline.labels, len(LABELS), spans)
    uncertain = metrics.time_in(timeline.edges, timeline.uncertain, spans)
    outside = metrics.time_in(timeline.edges, timeline.outside_plan, spans)
    gaps = metrics.time_in(timeline.edges, timeline.count_gap, spans)
    open_since = unsettled_since(machine, history.rows, history.own, known_until_ns)
    downtimes, counting, planned_ns = _downtimes(history, spans), Counting(history), _planned_times(history, spans)
    found = []
    for place, part in enumerate(parts):
        times_ns, missing_ns = _elements(times[place])
        quantities, by_reason = counting.quantities(*spans[place])
        run_time_ns = machine.worked.run_time_ns(part.product)
        planned = _planned(machine, run_time_ns, quantities)
        kpis = _kpis(machine, times_ns, quantities, planned, downtimes[place].failures)
        notes = (
            *counting.flags(*spans[place]),
            *(("producing_outside_plan",) if outside[place] else ()),
            *(("count_gap",) if gaps[place] else ()),
        )
        data = WindowData(
            *spans[place], times_ns, missing_ns, uncertain[place], quantities, kpis, (*kpis.flags, *notes),
            bool(gaps[place]),
            open_since is None or part.end_ns <= open_since or part.start_ns >= known_until_ns,
            machine.state.unmapped(history.rows, *spans[place]) if missing_ns["unmapped_state"] else (),
            by_reason=by_reason, product=part.product, job=part.job, planned_run_time_ns=run_time_ns,
            downtime=downtimes[place],
            pace=None if machine.goal is None else Pace(machine.goal, machine.goal * planned_ns[place] / NS_PER_S),
        )  # fmt: skip
        found.append(_Measured(data, notes))
    return found


def _watched(history: History) -> Timeline:
    """The states, and where counts have holes."""
    machine, timeline = history.machine, history.timeline
    for rules in machine.rules:
        hold_ns, is_hole = machine.hold_ns.get(rules.tag), partial(equipment.is_hole, rules)
        rows = history.rows.get(rules.tag, ())
        timeline = equipment.watch_count(timeline, rows, hold_ns, history.known_until_ns, is_hole)
    return timeline


def _elements(by_label: Sequence[int]) -> tuple[dict[str, int], dict[str, int]]:
    known, missing = by_label[: equipment.UNKNOWN], by_label[equipment.UNKNOWN :]
    return dict(zip(STATES, [*known, sum(missing)], strict=True)), dict(zip(CAUSES, missing, strict=True))


def _planned(machine: Machine, run_time_ns: int | None, quantities: Mapping[str, Tally | None]) -> Planned:
    """The planned run time of one product's items; None where it is not known, unless there are none of them."""
    no_plan = machine.worked.planned_run_time_ns is None and not machine.worked.by_product_ns
    items = [tally.observed if (tally := quantities[name]) is not None else 0 for name in ("produced", "good")]
    if run_time_ns is None:
        return Planned(*(None if no_plan or count else 0 for count in items))
    return Planned(*(run_time_ns * count for count in items))


def _planned_times(history: History, spans: Sequence[Interval]) -> list[int]:
    """The scheduled time without breaks in each span, in ns; only where there is a goal for it."""
    if history.machine.goal is None:
        return []
    scheduled = [history.within] if history.scheduled is None else history.scheduled
    breaks = intersection(scheduled, history.breaks)
    return [overlap_ns(scheduled, *span) - overlap_ns(breaks, *span) for span in spans]


def _downtimes(history: History, spans: Sequence[Interval]) -> list[Downtime]:
    """The stops of each span; planned ones, and those that a break covers, are none."""
    timeline, stops = history.timeline, [stop for stop in history.stops if not stop.planned]
    if not stops:
        return [Downtime()] * len(spans)
    down = timeline.edges[:-1][timeline.labels == DOWN].tolist()
    lost = (timeline.labels == DELAY) | (timeline.labels == DOWN)
    whole = metrics.time_in(timeline.edges, lost, [(stop.start_ns, stop.end_ns) for stop in stops])
    stops = [stop for stop, ns in zip(stops, whole, strict=True) if ns]
    failed = sorted(
        down[place]
        for stop in stops
        if (place := bisect_left(down, stop.start_ns)) < len(down) and down[place] < stop.end_ns
    )
    begins, ends = [stop.start_ns for stop in stops], [stop.end_ns for stop in stops]
    cuts: list[tuple[int, str, Interval]] = []
    for place, (start, end) in enumerate(spans):
        for stop in stops[bisect_right(ends, start) : bisect_left(begins, end)]:
            cuts.append((place, stop.reason.name, (max(start, stop.start_ns), min(end, stop.end_ns))))
    by_reason: list[dict[str, int]] = [{} for _ in spans]
    for (place, reason, _), ns in zip(
        cuts, metrics.time_in(timeline.edges, lost, [cut[2] for cut in cuts]), strict=True
    ):
        if ns:
            by_reason[place][reason] = by_reason[place].get(reason, 0) + ns
    return [
        Downtime(_between(begins, start, end), _between(failed, start, end), by_reason[place])
        for place, (start, end) in enumerate(spans)
    ]


def _between(times: Sequence[int], start: int, end: int) -> int:
    return bisect_left(times, end) - bisect_left(times, start)
