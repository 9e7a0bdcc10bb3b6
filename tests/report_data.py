"""Shifts to report of: a full one, one of which hardly anything is known, one that still runs."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 11, 23, 5, tzinfo=UTC)
HOURS = 8
HOSTILE = '<script>alert("1")</script> $5 & $_{'
STATES = (
    "producing", "short_stop", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled", "unknown",
)  # fmt: skip
STOPS = (  # begins after min, lasts s, state, reason, by
    (31, 300, "down", "hydraulics/low pressure", "plc"),
    (74, 1_260, "down", "hydraulics/low pressure", "person"),
    (118, 95, "delay", "starved", "plc"),
    (200, 610, "delay", HOSTILE, "person"),
    (262, 150, "down", "unclassified", None),
    (330, 480, "down", "tool/broken ejector", "person"),
    (401, 120, "delay", "starved", "plc"),
    (455, 75, "down", "unclassified", None),
)
OTHERS = ((150, 900, "setup"), (240, 1_200, "planned_stop"), (300, 9.8, "unknown"), (372, 240, "unknown"))


def at(minutes: float) -> str:
    return (START + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timeline(until_min: float) -> list[tuple[float, float, str]]:
    """Stops and the like, short stops between them, producing in the rest; begin and end in minutes."""
    chance = random.Random(7)
    fixed = [(begin, begin + lasts / 60, state) for begin, lasts, state, *_ in (*STOPS, *OTHERS)]
    found: list[tuple[float, float, str]] = []
    reached = 0.0
    for begin, end, state in [*sorted(fixed), (HOURS * 60, HOURS * 60, "producing")]:
        while reached < begin:
            run = min(begin, reached + chance.uniform(6, 22))
            found.append((reached, run, "producing"))
            short = min(begin, run + chance.uniform(0.1, 0.8))
            found.append((run, short, "short_stop"))
            reached = short
        found.append((begin, end, state))
        reached = end
    return [(begin, min(end, until_min), state) for begin, end, state in found if begin < min(end, until_min)]


def production(pieces: list[tuple[float, float, str]], begin: float, end: float) -> dict[str, Any]:
    """The data of a production record, as far as a report reads it."""
    times = dict.fromkeys(STATES, 0.0)
    for first, last, state in pieces:
        times[state] = round(times[state] + max(0.0, min(last, end) - max(first, begin)) * 60, 3)
    produced = round(times["producing"] / 2.1)
    scrap = round(produced * 0.011)
    busy = sum(times.values()) - times["planned_stop"] - times["unknown"] - times["setup"]
    availability, effectiveness = (times["producing"] / busy, 2.0 * produced / times["producing"]) if busy else (0, 0)
    kpi = {
        "availability": availability, "effectiveness": effectiveness, "quality_ratio": (produced - scrap) / produced,
        "oee_index": 2.0 * (produced - scrap) / busy, "scrap_ratio": scrap / produced, "rework_ratio": None,
        "mttr_h": 0.21,
    }  # fmt: skip
    scheduled = sum(times.values())
    lost = times["unknown"]
    return {
        "machine": "press-01", "window": "shift", "start": at(begin), "end": at(end), "revision": 0, "final": False,
        "time_s": times, "kpi": kpi, "kpi_reason": {"rework_ratio": "rework_not_counted"}, "flags": [],
        "quantity": {
            "produced": produced, "good": produced - scrap, "scrap": scrap, "rework": None, "unobserved": 118,
            "quarantined": 0, "unit": "1", "scrap_by_reason": {"dimension/too long": scrap - 31, "unclassified": 31},
            "rework_by_reason": {},
        },
        "completeness": {
            "observed_s": scheduled - lost, "missing_s": {"device_offline": lost} if lost else {},
            "uncertain_s": 0.0, "ratio": (scheduled - lost) / scheduled, "complete": not lost,
        },
    }  # fmt: skip


def full(until_min: float = HOURS * 60) -> dict[str, Any]:
    """An early shift with stops, a changeover, a break, a lost device, notes; whole, or so far."""
    pieces = timeline(until_min)
    stops = [stop for stop in STOPS if stop[0] < until_min]
    window = production(pieces, 0, until_min)
    by_reason: dict[str, float] = {}
    for begin, lasts, _, reason, _ in stops:
        by_reason[reason] = by_reason.get(reason, 0.0) + min(lasts, (until_min - begin) * 60)
    window["downtime"] = {"stops": len(stops), "failures": 3, "by_reason_s": by_reason}
    window["pace"] = {"goal_per_h": 1600.0, "expected": round(1600 * (until_min - 20) / 60), "ahead": None}
    window["pace"]["ahead"] = window["quantity"]["produced"] - window["pace"]["expected"]
    window["segments"] = [
        {"job": "4711-010", "product": "cup 80 mm", "quantity": {"produced": 4200, "good": 4150, "scrap": 50},
         "time_s": {"producing": 9000.0}},
        {"job": "4712-010", "product": HOSTILE, "quantity": {"produced": 7000, "good": 6930, "scrap": 70},
         "time_s": {"producing": 15000.0, "down": 900.0}},
    ]  # fmt: skip
    return {
        "machine": "press-01", "subject": "acme/lyon/press-hall/line-a/press-01", "timezone": "Europe/Paris",
        "shift": "early", "production_day": "2026-11-23", "start": at(0), "end": at(HOURS * 60), "now": at(until_min),
        "window": window,
        "hours": [production(pieces, 60 * hour, min(60 * hour + 60, until_min))
                  for hour in range(HOURS) if 60 * hour < until_min],
        "states": [{"start": at(begin), "end": at(end), "state": state} for begin, end, state in pieces],
        "downtime": [_event(stop, until_min) for stop in stops],
        "counts": _counts(pieces, until_min),
        "notes": [{"time": at(97), "by": "m.durand", "text": "Pump 2 replaced; watch the pressure."},
                  {"time": at(215), "by": "operator <b>3</b>", "text": HOSTILE}],
    }  # fmt: skip


def _event(stop: tuple[float, float, str, str, str | None], until_min: float) -> dict[str, Any]:
    begin, lasts, state, reason, by = stop
    open_ = begin + lasts / 60 > until_min
    return {
        "start": at(begin), "end": None if open_ else at(begin + lasts / 60), "duration_s": None if open_ else lasts,
        "reason": reason, "reason_by": by, "state": state, "time_s": {state: lasts}, "job": None, "product": None,
        "planned": False, "seen_whole": begin != 455,
    }  # fmt: skip


def _counts(pieces: list[tuple[float, float, str]], until_min: float) -> list[dict[str, Any]]:
    counts = []
    for minute in range(0, int(until_min) + 1, 2):
        run = sum(max(0.0, min(end, minute) - begin) for begin, end, state in pieces if state == "producing")
        counts.append({"time": at(minute), "produced": round(run * 60 / 2.1), "good": round(run * 60 / 2.1 * 0.989)})
    return counts


def sparse() -> dict[str, Any]:
    """All that may be null is null."""
    window = dict.fromkeys(production([(0, 1, "producing")], 0, 1))
    window["time_s"] = dict.fromkeys(STATES, 0.0) | {"unknown": 28_800.0}
    window["kpi"] = dict.fromkeys(("oee_index", "availability", "effectiveness", "quality_ratio"))
    window["kpi_reason"] = {"oee_index": "no_planned_run_time", "availability": "no_planned_busy_time",
                            "effectiveness": "no_planned_run_time", "quality_ratio": "good_not_counted"}  # fmt: skip
    window["quantity"] = dict.fromkeys(("produced", "good", "scrap", "rework", "unobserved", "quarantined", "unit"))
    window["completeness"] = {"observed_s": 0.0, "missing_s": {"agent_down": 28_790.2, "device_offline": 9.8},
                              "uncertain_s": 0.0, "ratio": 0.0, "complete": False}  # fmt: skip
    window |= {"downtime": None, "pace": None, "segments": []}
    return {
        "machine": "press-01", "subject": "acme/lyon/press-hall/line-a/press-01", "timezone": "Europe/Paris",
        "shift": None, "production_day": None, "start": at(0), "end": at(HOURS * 60), "now": at(HOURS * 60),
        "window": window, "hours": [window | {"start": at(0), "end": at(60)}],
        "states": [{"start": at(0), "end": at(HOURS * 60), "state": "unknown"}],
        "downtime": [], "counts": [], "notes": [],
    }  # fmt: skip
