"""Tag readings to intervals of machine state, and to counts: pure, exact, without a clock.

`timeline` turns the stored readings of a status tag into spans of machine state, finds the short stops among them and
lays the schedule over them. `counts` turns the readings of a count into steps of items; `counters` has the kind that
only counts up. `sources` has the three ways to a machine's state: a status and its map, `rules`, the count of items.
"""

from edge_agent.equipment.counters import CounterRules, Step
from edge_agent.equipment.counts import CountRules, IncrementRules, PulseRules, is_hole, steps
from edge_agent.equipment.sources import FromCount, Rules, StateSource, StatusMap, Unmapped
from edge_agent.equipment.timeline import (
    CAUSES,
    DELAY,
    DOWN,
    LABELS,
    NOT_SCHEDULED,
    PRODUCING,
    STATES,
    UNKNOWN,
    Row,
    Timeline,
    apply_schedule,
    coverage,
    is_bad,
    mark_short_stops,
    open_stop_since,
    state_timeline,
    stop_runs,
    watch_count,
)

__all__ = [
    "CAUSES",
    "DELAY",
    "DOWN",
    "LABELS",
    "NOT_SCHEDULED",
    "PRODUCING",
    "STATES",
    "UNKNOWN",
    "CountRules",
    "CounterRules",
    "FromCount",
    "IncrementRules",
    "PulseRules",
    "Row",
    "Rules",
    "StateSource",
    "StatusMap",
    "Step",
    "Timeline",
    "Unmapped",
    "apply_schedule",
    "coverage",
    "is_bad",
    "is_hole",
    "mark_short_stops",
    "open_stop_since",
    "state_timeline",
    "steps",
    "stop_runs",
    "watch_count",
]
