"""How many windows of one machine are computed in a second: each alone, as they close, and eight hours at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from edge_agent.contract import NS_PER_S
from edge_agent.equipment import CounterRules, Row, StatusMap
from edge_agent.metrics import Definition
from edge_agent.production import Machine, compute, lookback_ns
from edge_agent.shifts import Calendar

from .figures import Figure

START = 1_795_392_000 * NS_PER_S
SPAN_S = 8 * 3_600
WINDOW_S = 10
_HOLD_NS = 63 * NS_PER_S
_CALENDAR = Calendar()
_MACHINE = Machine(
    "press-01",
    "acme/lyon/hall/a/press-01",
    StatusMap("plc.status", {1: "producing", 3: "down"}),
    {"plc.status": _HOLD_NS, "plc.count": _HOLD_NS},
    {"produced": (CounterRules("plc.count", Fraction(2), 65_536),)},
    Definition(planned_run_time_ns=NS_PER_S),
)


def run(_folder: Path, seconds: float) -> list[Figure]:
    """Windows a second, with a reading of status and count each second, and a stop each ten minutes."""
    rows = _rows(0, SPAN_S)
    windows = [_window(at) for at in range(0, SPAN_S, WINDOW_S)]
    end = START + SPAN_S * NS_PER_S
    back_s = lookback_ns(_MACHINE) // NS_PER_S + 8
    one_at = SPAN_S // 2
    near = _rows(one_at - back_s, one_at + WINDOW_S)

    def alone() -> int:
        until = START + (one_at + WINDOW_S) * NS_PER_S
        return len(compute(_MACHINE, _CALENDAR, near, [_window(one_at)], until))

    def at_once() -> int:
        return len(compute(_MACHINE, _CALENDAR, rows, windows, end))

    return [
        Figure("Metrics, 10 s windows as they close", _per_second(alone, seconds / 2), "1/s"),
        Figure("Metrics, 10 s windows of 8 h at once", _per_second(at_once, seconds / 2), "1/s"),
    ]


def _rows(start_s: int, end_s: int) -> dict[str, list[Row]]:
    times = [(second, START + second * NS_PER_S) for second in range(start_s, end_s)]
    return {
        "plc.status": [(time_ns, 3 if second % 600 < 90 else 1, 0, None) for second, time_ns in times],
        "plc.count": [(time_ns, second % 65_536, 0, None) for second, time_ns in times],
    }


def _window(at_s: int) -> tuple[int, int]:
    return START + at_s * NS_PER_S, START + (at_s + WINDOW_S) * NS_PER_S


def _per_second(work: Callable[[], int], seconds: float) -> float:
    done, began = work(), time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or done == 0:
        done += work()
    return done / passed if passed else 0.0
