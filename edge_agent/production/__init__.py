"""One machine's facts from its stored readings and the entries of its people (pure).

`compute` gives windows: times, quantities, KPIs, and what is missing. `stops_of` and `jobs_of` give stops and jobs,
`present` the state now. The same rows, entries and settings give the same facts, however they were windowed and
whenever they are asked. The order of work: the machine's own state; its stops and their reasons; the schedule over
them; the cut to windows; the counts' steps, each booked in the window of the reading that shows it; the KPIs, on what
was made while somebody looked.
"""

from edge_agent.equipment.stops import UNCLASSIFIED
from edge_agent.production.history import History, cut_stop, entries_since, lookahead_ns, lookback_ns
from edge_agent.production.model import (
    COUNTER_LOOKBACK_READINGS,
    Downtime,
    Interval,
    Machine,
    Pace,
    Present,
    Tally,
    WindowData,
)
from edge_agent.production.present import present, unsettled_since_ns
from edge_agent.production.windows import added, compute

__all__ = [
    "COUNTER_LOOKBACK_READINGS",
    "UNCLASSIFIED",
    "Downtime",
    "History",
    "Interval",
    "Machine",
    "Pace",
    "Present",
    "Tally",
    "WindowData",
    "added",
    "compute",
    "cut_stop",
    "entries_since",
    "lookahead_ns",
    "lookback_ns",
    "present",
    "unsettled_since_ns",
]
