"""What the configuration may say and this version does not compute yet: one table, from which later versions delete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edge_agent.config.document import Entry, Node
from edge_agent.config.faults import Fault, Path, Report, scope_of
from edge_agent.config.models import MachineSettings


class Later(NamedTuple):
    """A key of a machine, or some of its values, for a later version. `*` stands for any key or list item."""

    path: tuple[str, ...]
    values: tuple[str, ...] = ()
    """Only these values; the key as a whole when empty."""
    disables: bool = False
    """The machine means nothing without it, so it is disabled; otherwise the key is accepted and not used."""


NOT_YET = (
    Later(("summarize", "*"), values=("job",)),
    Later(("process",)),
    Later(("reason",)),
    Later(("product",)),
    Later(("goal",)),
)


def computed_windows(machine: MachineSettings) -> tuple[str, ...]:
    """The windows of a machine that this version computes, in the order of the configuration."""
    ignored = {value for later in NOT_YET if later.path == ("summarize", "*") for value in later.values}
    return tuple(window for window in dict.fromkeys(machine.summarize) if window not in ignored)


def check_later(entry: Entry, path: Path, report: Report) -> None:
    """Report what this version does not compute: a warning, or an error that disables the machine."""
    for later in NOT_YET:
        for where, key, node in _matches(entry, later.path, ()):
            if later.values and (node.text or "").replace(" ", "") not in later.values:
                continue
            what = f"{node.text!r} comes" if later.values else "comes"
            end = "until then this machine is disabled" if later.disables else "it is accepted and not used yet"
            place = node.place if later.values else key.place
            report.add(
                Fault(
                    place,
                    f"{what} with a later version; {end}",
                    (*path, *where),
                    severity="error" if later.disables else "warning",
                    scope=scope_of(path),
                )
            )


def _matches(entry: Entry, steps: tuple[str, ...], path: Path) -> Iterator[tuple[Path, Node, Node]]:
    if not steps:
        yield path, entry.key, entry.value
    elif isinstance(entry.value.value, dict):
        for name, inner in entry.value.value.items():
            if steps[0] in ("*", name):
                yield from _matches(inner, steps[1:], (*path, name))
    elif isinstance(entry.value.value, list) and steps[0] == "*":
        for index, item in enumerate(entry.value.value):
            yield from _matches(Entry(item, item), steps[1:], (*path, index))
