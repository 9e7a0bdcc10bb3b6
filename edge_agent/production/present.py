"""What a machine does now, and since when what was said of it may still change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_agent import equipment
from edge_agent.entries import Entry
from edge_agent.equipment import LABELS, STATES, Row, Timeline
from edge_agent.production.history import History, first_ns, own_states
from edge_agent.production.model import Machine, Present
from edge_agent.shifts import Calendar


def present(
    machine: Machine,
    calendar: Calendar,
    rows: Mapping[str, Sequence[Row]],
    now_ns: int,
    entries: Sequence[Entry] = (),
) -> Present:
    """The machine's state at `now_ns`, from its stored rows. A stop that has only begun is not a short stop yet."""
    reach = min(first_ns(machine, rows, now_ns), now_ns - 1)
    history = History(machine, calendar, rows, (reach, now_ns), now_ns, entries)
    labels = history.timeline.labels.tolist()
    place = len(labels) - 1
    while place and labels[place - 1] == labels[-1]:
        place -= 1
    since_ns = int(history.timeline.edges[place])
    undecided = machine.state.undecided(rows, machine.hold_ns, now_ns)
    until_ns = None if undecided is None else undecided[1]
    known = labels[-1] < equipment.UNKNOWN
    last = history.stops[-1] if history.stops else None
    stands = last is not None and last.open and (labels[-1] in (equipment.DELAY, equipment.DOWN) or last.planned)
    reason = last.reason.name if last is not None and stands else None
    work = history.work[-1]
    return Present(
        STATES[labels[-1]] if known else "unknown",
        since_ns,
        None if known else LABELS[labels[-1]],
        until_ns,
        reason,
        work.product,
        work.job,
    )


def unsettled_since_ns(machine: Machine, rows: Mapping[str, Sequence[Row]], known_until_ns: int) -> int | None:
    """Since when the states may yet change without a late reading, in ns; else None.

    A stop may be open at `known_until_ns` and turn out to be short, or the next item may come too late. Windows that
    overlap [this, known_until_ns) and are already published may change then.
    """
    reach = min(first_ns(machine, rows, known_until_ns), known_until_ns - 1)
    own = own_states(machine, rows, (reach, known_until_ns), known_until_ns)
    return unsettled_since(machine, rows, own, known_until_ns)


def unsettled_since(
    machine: Machine, rows: Mapping[str, Sequence[Row]], own: Timeline, known_until_ns: int
) -> int | None:
    """The same, from the machine's own states."""
    undecided = machine.state.undecided(rows, machine.hold_ns, known_until_ns)
    if undecided is None:
        return equipment.open_stop_since(own, machine.definition.short_stop_ns, known_until_ns)
    # A stop before it may go on through it.
    stop = equipment.open_stop_since(own, machine.definition.short_stop_ns, undecided[0])
    return undecided[0] if stop is None else min(stop, undecided[0])
