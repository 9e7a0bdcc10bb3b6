"""How many windows of one machine are computed in a second: each alone, as they close, and eight hours at once.

And what the window of a whole shift and of a whole day cost, from the stored readings to the figures.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from edge_agent.contract import NS_PER_S
from edge_agent.equipment import CounterRules, Row, StatusMap
from edge_agent.metrics import Definition
from edge_agent.production import COUNTER_LOOKBACK_READINGS, Machine, WindowData, added, compute, lookback_ns
from edge_agent.shifts import Calendar
from edge_agent.store import Store
from edge_agent.summarizer.line import LONG_NS

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


def run(folder: Path, seconds: float) -> list[Figure]:
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
        *_from_the_store(folder / "metrics"),
    ]


def _from_the_store(folder: Path) -> list[Figure]:
    """A shift of 8 h and a day of 24 h as one window, with each tag read each second; in pieces, as in the daemon."""
    day_s = 24 * 3_600
    with Store(folder, durable=False) as store:
        ids = store.register([(tag, True) for tag in _MACHINE.tags])
        rows = [(ids[tag], *row, None, 1, None, None) for tag, own in _rows(0, day_s).items() for row in own]
        store.append(rows, START + day_s * NS_PER_S)
        del rows

        def close(length_s: int) -> float:
            pieces: list[WindowData] = []
            began = time.perf_counter()
            for begin in range(START, START + length_s * NS_PER_S, LONG_NS):
                end = min(begin + LONG_NS, START + length_s * NS_PER_S)
                since = begin - lookback_ns(_MACHINE)
                found = store.readings.steps_of(_MACHINE.tags, since, end, COUNTER_LOOKBACK_READINGS)
                pieces += compute(_MACHINE, _CALENDAR, found, [(begin, end)], end)
            added(_MACHINE, _CALENDAR, pieces)
            return time.perf_counter() - began

        took = [min(close(length_s) for _ in range(3)) for length_s in (SPAN_S, day_s)]
        tracemalloc.start()
        close(day_s)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return [
        Figure("Metrics, a shift of 8 h from the store", took[0] * 1_000, "ms"),
        Figure("Metrics, a day of 24 h from the store", took[1] * 1_000, "ms"),
        Figure("Metrics, memory for that day", peak / 1e6, "MB"),
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
