"""What a report shows, worked out once for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_agent.cli.report import words
from edge_agent.cli.report.looks import BY, KPI_REASONS, LOOKS, UNCLASSIFIED, UNKNOWN, in_words
from edge_agent.cli.report.missing import not_known
from edge_agent.cli.report.words import Zone, cleaned, duration, number, percent, seconds_of

SHORT_STOPS = "short stops"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its name, and what is to be said of it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one state, in seconds since 1970 UTC."""

    start: float
    end: float
    state: str


@dataclass(frozen=True, slots=True)
class Part:
    """The time in one state."""

    state: str
    seconds: float
    share: float | None


@dataclass(frozen=True, slots=True)
class Loss:
    """Time lost for one reason; `stops` is None where nobody counts them, `kind` a state, `other`, `unclassified`."""

    reason: str
    seconds: float
    stops: int | None
    share: float
    kind: str

    @property
    def told(self) -> str:
        """How much and how often."""
        often = [] if self.stops is None else [words.several(self.stops, "stop")]
        return " · ".join([duration(self.seconds), percent(self.share, 0), *often])


@dataclass(frozen=True, slots=True)
class Stop:
    """One downtime event; an open one lasts until the time of the report. `lost_s`: what of it was not planned."""

    start: float
    end: float | None
    seconds: float
    lost_s: float
    lasted: str
    reason: str
    by: str
    state: str
    work: str


@dataclass(frozen=True, slots=True)
class Hour:
    """The figures of one hour of the shift."""

    start: float
    end: float
    oee: float | None
    why: str
    cells: tuple[str, ...]
    unknown_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown, in the order of showing. Times are seconds since 1970 UTC."""

    machine: str
    subject: str
    title: str
    when: str
    as_of: str
    running: str
    zone: Zone
    start: float
    end: float
    until: float
    oee: Figure
    factors: tuple[Figure, ...]
    quantities: tuple[Figure, ...]
    pace: Figure
    stopped: Figure
    pieces: tuple[Piece, ...]
    parts: tuple[Part, ...]
    losses: tuple[Loss, ...]
    stops: tuple[Stop, ...]
    hours: tuple[Hour, ...]
    counts: tuple[tuple[float, float | None, float | None], ...]
    expected: float | None
    work: tuple[tuple[str, ...], ...]
    by_reason: tuple[tuple[str, str, str], ...]
    notes: tuple[tuple[str, str, str], ...]
    missing: tuple[str, ...]


HOUR_COLUMNS = ("OEE", "availability", "effectiveness", "quality", "produced", "good", "not observed")
WORK_COLUMNS = ("job", "product", "produced", "good", "scrap", "time")


def read(data: Mapping[str, Any]) -> Report:
    """The report of what the agent tells about a shift.

    Args:
        data: `machine`, `subject`, `timezone`, `shift`, `production_day`, `start`, `end`, `now` (when before `end`, the
            shift still runs), `window` (the data of a production record from `start` to the earlier of `end` and `now`,
            with `downtime` and `pace`), `hours` (the same for each hour), `states`, `downtime`, `counts`, `notes`.
            Any of them but `start` and `end` may be null or absent.
    """
    zone = Zone(data.get("timezone"))
    start, end = seconds_of(data["start"]) or 0.0, seconds_of(data["end"]) or 0.0
    now = seconds_of(data.get("now"))
    until = end if now is None else max(start, min(end, now))
    window = data.get("window") or {}
    stops = tuple(sorted((_stop(one, until) for one in data.get("downtime") or ()), key=lambda one: -one.seconds))
    losses = _losses(window, stops)
    oee, *factors = _kpis(window)
    pace = window.get("pace") or {}
    return Report(
        machine=cleaned(data.get("machine") or "machine"), subject=cleaned(data.get("subject") or ""),
        title=_title(data),
        when=", ".join(filter(None, (words.day(data.get("production_day") or ""), zone.span(start, end)))),
        as_of=f"As of {zone.local(now or end):%Y-%m-%d %H:%M} {zone.name}.",
        running=f"The shift still runs: figures so far, until {zone.clock(until)}." if until < end else "",
        zone=zone, start=start, end=end, until=until, oee=oee, factors=tuple(factors), quantities=_quantities(window),
        pace=_pace(pace), stopped=_stopped(window, stops), pieces=_pieces(data.get("states"), start, until),
        parts=_parts(window), losses=losses, stops=stops, hours=tuple(_hour(one) for one in data.get("hours") or ()),
        counts=_counts(data.get("counts")), expected=pace.get("expected"), work=_work(window),
        by_reason=_by_reason(window), notes=_notes(data.get("notes"), zone),
        missing=not_known(window, losses[-1:] if losses and losses[-1].kind == UNCLASSIFIED else ()),
    )  # fmt: skip


def _title(data: Mapping[str, Any]) -> str:
    shift = data.get("shift")
    if shift:
        return "outside the shifts" if shift == "off" else f"{cleaned(shift)} shift"
    return "production day" if data.get("production_day") else "no shift"


def _kpis(window: Mapping[str, Any]) -> Iterable[Figure]:
    values, reasons = window.get("kpi") or {}, window.get("kpi_reason") or {}
    names = {
        "oee_index": "OEE",
        "availability": "availability",
        "effectiveness": "effectiveness",
        "quality_ratio": "quality",
    }
    for field, name in names.items():
        value, reason = values.get(field), reasons.get(field)
        note = "" if value is not None else in_words(KPI_REASONS, cleaned(reason)) if reason else "not known"
        yield Figure(name, percent(value), note)


def _quantities(window: Mapping[str, Any]) -> tuple[Figure, ...]:
    quantity = window.get("quantity") or {}
    shares = {
        "good": ("quality_ratio", "of produced"), "scrap": ("scrap_ratio", "of produced"),
        "rework": ("rework_ratio", "of produced"),
    }  # fmt: skip
    figures = []
    for name in ("produced", "good", "scrap", "rework"):
        value = quantity.get(name)
        field, of = shares.get(name, ("", ""))
        share = (window.get("kpi") or {}).get(field)
        note = f"{percent(share)} {of}" if value is not None and share is not None else ""
        made, good = quantity.get("produced"), quantity.get("good")
        if name == "scrap" and value is None and made is not None and good is not None:
            note = f"produced less good: {number(made - good)}"
        figures.append(Figure(name, "not counted" if value is None else number(value, quantity.get("unit")), note))
    return tuple(figures)


def _pace(pace: Mapping[str, Any]) -> Figure:
    ahead, goal, expected = pace.get("ahead"), pace.get("goal_per_h"), pace.get("expected")
    if not pace or (ahead is None and goal is None):
        return Figure("pace", "no goal")
    told = [f"goal {number(goal)} an hour"] if goal is not None else []
    told += [f"{number(expected)} expected by now"] if expected is not None else []
    if ahead is None:
        return Figure("pace", "not known", ", ".join(told))
    value = "on goal" if ahead == 0 else f"{number(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
    return Figure("pace", value, ", ".join(told))


def _stopped(window: Mapping[str, Any], stops: tuple[Stop, ...]) -> Figure:
    downtime = window.get("downtime") or {}
    by_reason = downtime.get("by_reason_s") or {}
    count, failures, mttr_h = downtime.get("stops"), downtime.get("failures"), (window.get("kpi") or {}).get("mttr_h")
    if count is None and not by_reason and not stops:
        return Figure("stops", "none" if downtime else "not recorded")
    note = duration(sum(lost or 0.0 for lost in by_reason.values()) if downtime else sum(stop.lost_s for stop in stops))
    note += f" · {words.several(failures, 'failure')}" if failures else ""
    note += f", mean {duration(mttr_h * 3600)} to repair" if failures and mttr_h is not None else ""
    return Figure("stops", number(len(stops) if count is None else count), note)


def _pieces(states: Iterable[Mapping[str, Any]] | None, start: float, until: float) -> tuple[Piece, ...]:
    """The timeline without holes: what no state covers was not observed."""
    pieces: list[Piece] = []
    reached = start
    for one in sorted(states or (), key=lambda one: str(one.get("start"))):
        begin, finish = (
            max(reached, seconds_of(one.get("start")) or start),
            min(until, seconds_of(one.get("end")) or until),
        )
        if finish <= begin:
            continue
        if begin > reached:
            pieces.append(Piece(reached, begin, UNKNOWN))
        pieces.append(Piece(begin, finish, cleaned(one.get("state") or UNKNOWN)))
        reached = finish
    if reached < until:
        pieces.append(Piece(reached, until, UNKNOWN))
    return tuple(pieces)


def _parts(window: Mapping[str, Any]) -> tuple[Part, ...]:
    times = {cleaned(state): seconds or 0.0 for state, seconds in (window.get("time_s") or {}).items()}
    total = sum(times.values())
    ordered = [*(state for state in LOOKS if state in times), *(state for state in times if state not in LOOKS)]
    return tuple(Part(state, times[state], times[state] / total if total else None) for state in ordered)


def _losses(window: Mapping[str, Any], stops: tuple[Stop, ...]) -> tuple[Loss, ...]:
    """Reasons and short stops by time lost; unclassified always, and last."""
    given = (window.get("downtime") or {}).get("by_reason_s")
    times: dict[str, float] = {}
    for reason, seconds in [(stop.reason, stop.lost_s) for stop in stops] if given is None else given.items():
        times[cleaned(reason)] = times.get(cleaned(reason), 0.0) + (seconds or 0.0)
    if not times and given is None and (window.get("downtime") is None):
        return ()
    unexplained = times.pop(UNCLASSIFIED, 0.0)
    short_s = (window.get("time_s") or {}).get("short_stop") or 0.0
    states = {stop.reason: stop.state for stop in reversed(stops)}
    lost = [(reason, seconds, states.get(reason, "down")) for reason, seconds in times.items()]
    lost += [(SHORT_STOPS, short_s, "short_stop")] if short_s else []
    lost.sort(key=lambda one: (-one[1], one[0]))
    lost.append((UNCLASSIFIED, unexplained, UNCLASSIFIED))
    total = sum(seconds for _, seconds, _ in lost)
    often = {reason: sum(stop.reason == reason for stop in stops) for reason, _, _ in lost}
    return tuple(
        Loss(reason, seconds, None if kind == "short_stop" or (seconds and not often[reason]) else often[reason],
             seconds / total if total else 0.0, kind)
        for reason, seconds, kind in lost
    )  # fmt: skip


def top(losses: tuple[Loss, ...], most: int) -> list[Loss]:
    """The largest losses, the others as one, and the unclassified."""
    if len(losses) <= most:
        return list(losses)
    shown, rest, last = losses[: most - 2], losses[most - 2 : -1], losses[-1]
    stops = sum(loss.stops or 0 for loss in rest)
    others = Loss(f"{len(rest)} other reasons", sum(loss.seconds for loss in rest), stops or None,
                  sum(loss.share for loss in rest), "other")  # fmt: skip
    return [*shown, others, last]


def _stop(one: Mapping[str, Any], until: float) -> Stop:
    start, end = seconds_of(one.get("start")) or until, seconds_of(one.get("end"))
    given, parts, planned = one.get("duration_s"), one.get("time_s"), bool(one.get("planned"))
    seconds = max(0.0, (until if end is None else end) - start) if given is None else float(given)
    lost_s = 0.0 if planned else sum(parts.get(state) or 0.0 for state in ("delay", "down")) if parts else seconds
    work = " · ".join(cleaned(one[name]) for name in ("job", "product") if one.get(name))
    state = "planned_stop" if planned else cleaned(one.get("state") or UNKNOWN)
    lasted = ("≥ " if one.get("seen_whole") is False and end is not None else "") + duration(seconds)
    reason, by = cleaned(one.get("reason") or UNCLASSIFIED), in_words(BY, cleaned(one.get("reason_by") or ""))
    return Stop(start, end, seconds, lost_s, lasted, reason, by, state, work)


def _hour(one: Mapping[str, Any]) -> Hour:
    oee, *factors = _kpis(one)
    quantity, unknown_s = one.get("quantity") or {}, (one.get("time_s") or {}).get(UNKNOWN)
    cells = (
        *(figure.value for figure in (oee, *factors)), number(quantity.get("produced")), number(quantity.get("good")),
        "0" if unknown_s == 0 else duration(unknown_s),
    )  # fmt: skip
    start, end = seconds_of(one.get("start")) or 0.0, seconds_of(one.get("end")) or 0.0
    return Hour(start, end, (one.get("kpi") or {}).get("oee_index"), oee.note, cells, unknown_s or 0.0)


def _counts(counts: Iterable[Mapping[str, Any]] | None) -> tuple[tuple[float, float | None, float | None], ...]:
    times = ((seconds_of(one.get("time")), one) for one in counts or ())
    return tuple((at, one.get("produced"), one.get("good")) for at, one in times if at is not None)


def _work(window: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Quantities and time of each job and product, where the shift has any."""
    found: dict[tuple[Any, Any], list[float | None]] = {}
    for segment in window.get("segments") or (window,):
        sums = found.setdefault((segment.get("job"), segment.get("product")), [None, None, None, None])
        quantity = segment.get("quantity") or {}
        spent = sum(seconds or 0.0 for seconds in (segment.get("time_s") or {}).values())
        for place, value in enumerate((*(quantity.get(name) for name in ("produced", "good", "scrap")), spent)):
            sums[place] = value if sums[place] is None else (sums[place] or 0) + (value or 0)
    if not any(job or product for job, product in found):
        return ()
    return tuple(
        (cleaned(job or "no job"), cleaned(product or words.MISSING), *map(number, sums[:3]), duration(sums[3]))
        for (job, product), sums in found.items()
    )


def _by_reason(window: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    quantity = window.get("quantity") or {}
    return tuple(
        (what, cleaned(reason), number(items, quantity.get("unit")))
        for what in ("scrap", "rework")
        for reason, items in sorted((quantity.get(f"{what}_by_reason") or {}).items(), key=lambda one: -(one[1] or 0))
        if items
    )


def _notes(notes: Iterable[Mapping[str, Any]] | None, zone: Zone) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (zone.clock(seconds_of(one.get("time"))), cleaned(one.get("by") or words.MISSING),
         cleaned(one.get("text") or "", longest=2000))
        for one in notes or ()
    )  # fmt: skip
