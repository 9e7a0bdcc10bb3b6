"""The KPIs of ISO 22400-2:2014 from exact integers, each rounded once, to six decimals; never capped.

A divisor of zero gives no number and a reason. A ratio over 1 is kept and flagged: an effectiveness of 3 means a wrong
planned run time, and hiding it would hide that. All quantities here are those made while somebody looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

KPIS = (
    "availability", "effectiveness", "quality_ratio", "oee_index", "throughput_rate_per_h",
    "nee_index", "technical_efficiency", "setup_rate", "utilization_efficiency",
    "scrap_ratio", "rework_ratio", "first_pass_yield",
    "mtbf_h", "mttf_h", "mttr_h",
    "industry_ooe", "industry_teep",
)  # fmt: skip
"""By their names in records. Those that begin with `industry_` are in wide use and not in ISO 22400-2:2014."""
SUMS = (
    "observed_s", "operation_s", "busy_s", "run_s", "setup_s", "delay_s",
    "planned_run_produced_s", "planned_run_good_s", "produced", "good", "rework",
    "down_s", "failures",
)  # fmt: skip
"""What a consumer adds up to roll up windows, by their names in records; those that end in `_s` are times."""
_NS_PER_H = 3_600_000_000_000
_NOT_RATIOS = frozenset({"throughput_rate_per_h", "mtbf_h", "mttf_h", "mttr_h"})

CountsAs = Literal["availability_loss", "outside_planned_time"]


@dataclass(frozen=True, slots=True)
class Definition:
    """Every choice behind the KPIs; it travels with them in each record. Durations in ns."""

    planned_run_time_ns: int | None = None
    short_stop_ns: int = 60_000_000_000
    short_stop_counts_as: Literal["availability", "effectiveness"] = "availability"
    setup_counts_as: CountsAs = "availability_loss"
    idle_counts_as: CountsAs = "availability_loss"
    planned_stop_counts_as: CountsAs = "outside_planned_time"
    when_offline: Literal["unknown", "down", "delay", "idle", "planned_stop"] = "unknown"
    state_from: Literal["status", "status_and_mode", "rules", "count"] = "status"
    stopped_after_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Kpis:
    """Numbers by name (None: no number), the reason of each None, and what is remarkable.

    `sums` has what the numbers are made of, exact, times in ns: None where it is not counted or cannot be known.
    """

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    sums: dict[str, int | None] = field(default_factory=dict)


def planned_operation_ns(times_ns: Mapping[str, int]) -> int:
    """POT: all time but not_scheduled. Source: ISO 22400-2:2014, planned operation time."""
    return sum(times_ns.values()) - times_ns["not_scheduled"]


def planned_busy_ns(times_ns: Mapping[str, int], definition: Definition) -> int:
    """PBT: POT less unknown, and less what the definition puts outside the planned time.

    Source: ISO 22400-2:2014, planned busy time.
    """
    busy = planned_operation_ns(times_ns) - times_ns["unknown"]
    for state, counts_as in (
        ("setup", definition.setup_counts_as),
        ("idle", definition.idle_counts_as),
        ("planned_stop", definition.planned_stop_counts_as),
    ):
        if counts_as == "outside_planned_time":
            busy -= times_ns[state]
    return busy


def ratio(numerator: int, denominator: int) -> float:
    """numerator / denominator, exact, rounded once to six decimals (a half goes away from zero)."""
    size = (2 * abs(numerator) * 1_000_000 + denominator) // (2 * denominator)
    return (size if numerator >= 0 else -size) / 1_000_000


class _Times(NamedTuple):
    """The time elements that the KPIs divide by and multiply with, in ns, by the definition's choices."""

    busy: int
    """PBT."""
    run: int
    """APT."""
    setup: int
    """AUST."""
    delay: int
    """ADET, without what counts as run."""
    busy_setup: int
    """AUST as far as it is in PBT."""
    operation: int
    """POT."""
    unknown: int
    window: int
    down: int

    @classmethod
    def of(cls, times_ns: Mapping[str, int], definition: Definition) -> _Times:
        run, delay = times_ns["producing"], times_ns["delay"] + times_ns["down"]
        if definition.short_stop_counts_as == "effectiveness":
            run += times_ns["short_stop"]
        else:
            delay += times_ns["short_stop"]
        setup = times_ns["setup"]
        return cls(
            planned_busy_ns(times_ns, definition), run, setup, delay,
            setup if definition.setup_counts_as == "availability_loss" else 0,
            planned_operation_ns(times_ns), times_ns["unknown"], sum(times_ns.values()), times_ns["down"],
        )  # fmt: skip


class Planned(NamedTuple):
    """Planned run time per item x items, over all products, in ns; None where a product's is not known."""

    produced_ns: int | None
    good_ns: int | None


class _Fraction(NamedTuple):
    """A KPI to be: what is divided by what, unless one of the obstacles stands."""

    numerator: int
    denominator: int
    obstacles: Mapping[str, bool]


def kpis(
    times_ns: Mapping[str, int],
    produced: int | None,
    good: int | None,
    definition: Definition,
    rework: int | None = None,
    planned: Planned | None = None,
    failures: int = 0,
) -> Kpis:
    """The KPIs for one window: those of ISO 22400-2 that times and counts can tell, and two of the industry.

    The OEE and NEE indexes, OOE and TEEP are 0 when nothing was made, whatever else is not known. Setup counts for the
    NEE index as far as it is planned busy time. Unknown time is in the base of none but throughput. Scrap is what was
    produced and is not good; first pass is what is good and was not reworked.

    Args:
        times_ns: ns in each of the nine states.
        produced: items made while the state and the count were observed; None: not counted.
        good: the good ones among them; None: not counted.
        definition: the choices behind the numbers.
        rework: items sent to rework while observed; None: not counted.
        planned: the planned run time of what was produced, where products have different ones; else the definition's.
        failures: stops with down time that began to be down in the window.
    """
    result = Kpis()
    times = _Times.of(times_ns, definition)
    if planned is None:
        own = definition.planned_run_time_ns
        planned = Planned(*(None if own is None else own * (items or 0) for items in (produced, good)))
    found = _of_effort(times, planned, produced, good) | _of_times(times) | _of_quality(produced, good, rework)
    found |= _of_failures(times, failures)
    plain = (times.window - times.unknown, times.operation - times.unknown, *times[:4])
    efforts = (found[name] for name in ("effectiveness", "oee_index"))
    made = (None if _lacking(effort.obstacles) else effort.numerator for effort in efforts)
    sums = (*plain, *made, produced, good, rework, times.down, failures)
    result.sums.update(zip(SUMS, sums, strict=True))
    for name in KPIS:
        fraction = found[name]
        reason = next((word for word, stands in fraction.obstacles.items() if stands), None)
        result.values[name] = None if reason else ratio(fraction.numerator, fraction.denominator)
        if reason:
            result.reasons[name] = reason
        elif name not in _NOT_RATIOS and (result.values[name] or 0) > 1:
            result.flags.append(f"{name}_over_1")
    return result


def _lacking(obstacles: Mapping[str, bool]) -> bool:
    """Whether there is no numerator; one that lacks only time to be divided by is a number to add up."""
    return any(stands for word, stands in obstacles.items() if word not in ("no_run_time", "no_planned_busy_time"))


def _counted(produced: int | None) -> dict[str, bool]:
    return {"produced_not_counted": produced is None, "corrected_below_zero": (produced or 0) < 0}


def _good_counted(produced: int | None, good: int | None) -> dict[str, bool]:
    return {"good_not_counted": good is None, "corrected_below_zero": min(good or 0, produced or 0) < 0}


def _of_times(times: _Times) -> dict[str, _Fraction]:
    """What the states alone tell."""
    occupied = times.run + times.setup + times.delay
    return {
        "availability": _Fraction(times.run, times.busy, {"no_planned_busy_time": times.busy <= 0}),
        "technical_efficiency": _Fraction(
            times.run, times.run + times.delay, {"no_run_or_delay_time": times.run + times.delay == 0}
        ),
        "setup_rate": _Fraction(
            times.setup, times.run + times.setup, {"no_run_or_setup_time": times.run + times.setup == 0}
        ),
        "utilization_efficiency": _Fraction(times.run, occupied, {"no_busy_time": occupied == 0}),
    }


def _of_failures(times: _Times, failures: int) -> dict[str, _Fraction]:
    """Mean times, in hours: up is run and setup, to restore is down, between failures is both together."""
    up, none = times.run + times.setup, {"no_failure": failures == 0}
    return {
        "mtbf_h": _Fraction(up + times.down, failures * _NS_PER_H, none),
        "mttf_h": _Fraction(up, failures * _NS_PER_H, none),
        "mttr_h": _Fraction(times.down, failures * _NS_PER_H, none),
    }


def _of_effort(times: _Times, planned: Planned, produced: int | None, good: int | None) -> dict[str, _Fraction]:
    """What was made, in planned run time, of the time there was; and items per hour."""
    no_plan, counted = {"no_planned_run_time": planned.produced_ns is None}, _counted(produced)
    effort = (planned.good_ns or 0) if produced else 0
    needs = {**no_plan, **counted, **(_good_counted(produced, good) if produced != 0 else {})}
    busy, run = {"no_planned_busy_time": times.busy <= 0}, {"no_run_time": times.run == 0}
    operated, lived = times.operation - times.unknown, times.window - times.unknown
    return {
        "effectiveness": _Fraction(planned.produced_ns or 0, times.run, {**no_plan, **counted, **run}),
        "oee_index": _Fraction(effort, times.busy, {**busy, **needs}),
        "throughput_rate_per_h": _Fraction(
            (produced or 0) * _NS_PER_H, times.operation, {"no_planned_operation_time": times.operation <= 0, **counted}
        ),
        "nee_index": _Fraction(
            (times.run + times.busy_setup) * effort,
            times.busy * (times.run if produced else 1),
            {**busy, **needs, **(run if produced else {})},
        ),
        "industry_ooe": _Fraction(effort, operated, {"no_observed_operation_time": operated <= 0, **needs}),
        "industry_teep": _Fraction(effort, lived, {"no_observed_time": lived <= 0, **needs}),
    }


def _of_quality(produced: int | None, good: int | None, rework: int | None) -> dict[str, _Fraction]:
    """What the counts alone tell."""
    made = {**_counted(produced), "nothing_produced": produced == 0}
    made_good = {**made, **_good_counted(produced, good)}
    all_made, all_good, again = produced or 0, good or 0, rework or 0
    scrap_counted = {"scrap_not_counted": good is None, "corrected_below_zero": made_good["corrected_below_zero"]}
    rework_counted = {"rework_not_counted": rework is None, "corrected_below_zero": min(all_made, again) < 0}
    first = {**made_good, **rework_counted, "rework_exceeds_good": again > all_good}
    first["corrected_below_zero"] = min(all_made, all_good, again) < 0
    return {
        "quality_ratio": _Fraction(all_good, all_made, made_good),
        "scrap_ratio": _Fraction(all_made - all_good, all_made, {**made, **scrap_counted}),
        "rework_ratio": _Fraction(again, all_made, {**made, **rework_counted}),
        "first_pass_yield": _Fraction(all_good - again, all_made, first),
    }
