"""The KPIs of ISO 22400-2:2014 from exact integers, each rounded once, to six decimals; never capped.

A divisor of zero gives no number and a reason. A ratio over 1 is kept and flagged: an effectiveness of 3 means a wrong
planned run time, and hiding it would hide that. All quantities here are those made while somebody looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

KPIS = ("availability", "effectiveness", "quality_ratio", "oee_index", "throughput_rate_per_h")
_NS_PER_H = 3_600_000_000_000

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


@dataclass(frozen=True, slots=True)
class Kpis:
    """Numbers by name (None: no number), the reason of each None, and what is remarkable."""

    values: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


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


def kpis(times_ns: Mapping[str, int], produced: int | None, good: int | None, definition: Definition) -> Kpis:
    """The ratios of ISO 22400-2 for one window, and its throughput in items per hour of planned operation time.

    The OEE index is 0 when nothing was made, whatever else is not known. Availability and OEE need planned busy time,
    effectiveness needs run time, throughput needs planned operation time (unknown time is part of that).

    Args:
        times_ns: ns in each of the nine states.
        produced: items made while the state and the count were observed; None: not counted.
        good: the good ones among them; None: not counted.
        definition: the choices behind the numbers.
    """
    result = Kpis()
    busy = planned_busy_ns(times_ns, definition)
    run = times_ns["producing"]
    if definition.short_stop_counts_as == "effectiveness":
        run += times_ns["short_stop"]
    planned = definition.planned_run_time_ns
    operation = planned_operation_ns(times_ns)
    counted = {"produced_not_counted": produced is None, "corrected_below_zero": (produced or 0) < 0}
    good_counted = {"good_not_counted": good is None, "corrected_below_zero": min(good or 0, produced or 0) < 0}

    def put(name: str, numerator: int, denominator: int, obstacles: dict[str, bool]) -> None:
        reason = next((word for word, stands in obstacles.items() if stands), None)
        result.values[name] = None if reason else ratio(numerator, denominator)
        if reason:
            result.reasons[name] = reason

    put("availability", run, busy, {"no_planned_busy_time": busy <= 0})
    put(
        "effectiveness",
        (planned or 0) * (produced or 0),
        run,
        {"no_planned_run_time": planned is None, **counted, "no_run_time": run == 0},
    )
    quality_obstacles = {**counted, "nothing_produced": produced == 0, **good_counted}
    put("quality_ratio", good or 0, produced or 0, quality_obstacles)
    oee_obstacles = {"no_planned_busy_time": busy <= 0, "no_planned_run_time": planned is None, **counted}
    if produced != 0:
        oee_obstacles |= good_counted
    put("oee_index", (planned or 0) * (good or 0) if produced else 0, busy, oee_obstacles)
    per_hour = (produced or 0) * _NS_PER_H
    put("throughput_rate_per_h", per_hour, operation, {"no_planned_operation_time": operation <= 0, **counted})
    result.flags.extend(f"{name}_over_1" for name in KPIS[:-1] if (result.values[name] or 0) > 1)
    return result
