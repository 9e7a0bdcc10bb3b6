"""What the configuration may say and this version does not compute yet: one table, from which later versions delete."""

from __future__ import annotations

from edge_agent.config.document import Entry
from edge_agent.config.faults import Fault, Path, Report, scope_of
from edge_agent.config.models import JOB, MachineSettings

NOT_YET = ("process",)
"""Keys of a machine that are accepted, and not used before a later version."""


def computed_windows(machine: MachineSettings) -> tuple[str, ...]:
    """The fixed windows of a machine and those of the calendar, in the order of the configuration.

    Not `job`, whose windows begin and end with the jobs: `"job" in machine.summarize` says whether there are any.
    """
    return tuple(window for window in dict.fromkeys(machine.summarize) if window != JOB)


def check_later(machine: Entry, path: Path, report: Report) -> None:
    """Warn of what this version does not compute."""
    settings = machine.value.mapping or {}
    for key in NOT_YET:
        if key in settings:
            message = "comes with a later version; it is accepted and not used yet"
            place = settings[key].key.place
            report.add(Fault(place, message, (*path, key), severity="warning", scope=scope_of(path)))
