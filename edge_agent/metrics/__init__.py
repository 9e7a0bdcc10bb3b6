"""Spans and counts in, numbers out: times cut to windows, and the KPIs of ISO 22400-2 (pure)."""

from edge_agent.metrics.elements import by_window, milliseconds, time_in
from edge_agent.metrics.oee import (
    KPIS,
    SUMS,
    Definition,
    Kpis,
    Planned,
    kpis,
    planned_busy_ns,
    planned_operation_ns,
    ratio,
)

__all__ = [
    "KPIS",
    "SUMS",
    "Definition",
    "Kpis",
    "Planned",
    "by_window",
    "kpis",
    "milliseconds",
    "planned_busy_ns",
    "planned_operation_ns",
    "ratio",
    "time_in",
]
