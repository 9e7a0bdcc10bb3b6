"""A directory to a configuration: everything that is sound, and every fault with its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.config import faults
from edge_agent.config.devices import load_devices, streams
from edge_agent.config.document import Entry, Node
from edge_agent.config.faults import Fault, Place, Report
from edge_agent.config.files import Merged, read
from edge_agent.config.machines import load_machines
from edge_agent.config.models import AgentSettings, BufferSettings, CalendarSettings, MachineSettings, MqttSettings
from edge_agent.config.sections import load_agent, load_buffer, load_calendar, load_mqtt
from edge_agent.contract import Device
from edge_agent.registry import Registry, installed

_REDACTED = "(redacted)"
_REFERENCES = {"file", "env", "credential"}
_NAMED: set[faults.Path] = {
    ("devices",),
    ("machines",),
    ("devices", "*", "tags"),
    ("machines", "*", "reason", "map"),
    ("machines", "*", "product", "planned_run_time_per_item"),
    ("machines", "*", "job", "fields"),
}
"""Below these paths keys are names that people gave, or values; `*` is the name of a device or machine."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the files say: the sound parts, ready for use, and all that is wrong with the rest."""

    directory: Path
    agent: AgentSettings | None
    buffer: BufferSettings
    mqtt: MqttSettings | None
    calendar: CalendarSettings
    devices: dict[str, Device]
    """The sound devices."""
    machines: dict[str, MachineSettings]
    """The sound machines."""
    disabled: dict[str, tuple[Fault, ...]]
    """`devices.NAME` and `machines.NAME` that cannot be used, with their errors."""
    faults: tuple[Fault, ...]
    """All faults, each once, in order of their places."""
    document: str
    """The merged configuration as canonical JSON; a secret that stands in it is redacted."""
    hash: str
    """`sha256:` and the digest of the document, in hexadecimal."""

    @property
    def errors(self) -> tuple[Fault, ...]:
        """What stops something."""
        return tuple(fault for fault in self.faults if fault.severity == "error")

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """What stops nothing."""
        return tuple(fault for fault in self.faults if fault.severity == "warning")

    @property
    def fatal(self) -> bool:
        """Whether the agent as a whole cannot run with this."""
        return any(fault.scope == faults.EVERYTHING for fault in self.errors)


def load(directory: Path, registry: Registry | None = None) -> Configuration:
    """The configuration in a directory, or in one file; opens no socket, and mistakes never raise.

    Args:
        directory: every `*.yaml` below it is read.
        registry: where drivers are found; the installed ones unless given.
    """
    report = Report()
    merged = read(directory, report)
    named = merged.by_name
    agent = load_agent(merged.sections.get("agent"), directory, report)
    buffer = load_buffer(merged.sections.get("buffer"), report)
    mqtt = load_mqtt(merged.sections.get("mqtt"), directory, report)
    calendar = load_calendar(merged.sections.get("calendar"), report)
    registry = installed() if registry is None else registry
    devices = load_devices(named["devices"], registry, report)
    streamed = partial(streams, devices, registry)
    machines = load_machines(
        named["machines"], named["devices"], devices, streamed, merged.sections.get("calendar"), report
    )
    document = _document(merged, report.unknown)
    found = report.result()
    return Configuration(
        directory=directory,
        agent=agent,
        buffer=buffer,
        mqtt=mqtt,
        calendar=calendar,
        devices=devices,
        machines=machines,
        disabled=_disabled(found),
        faults=found,
        document=document,
        hash=f"sha256:{hashlib.sha256(document.encode()).hexdigest()}",
    )


def _disabled(found: tuple[Fault, ...]) -> dict[str, tuple[Fault, ...]]:
    disabled: dict[str, list[Fault]] = {}
    for fault in found:
        if fault.severity == "error" and fault.scope != faults.EVERYTHING:
            disabled.setdefault(fault.scope, []).append(fault)
    return {scope: tuple(errors) for scope, errors in disabled.items()}


# ---------------------------------------------------------------------------------------------------- document


def _document(merged: Merged, unknown: Collection[Place]) -> str:
    whole: dict[str, Any] = {name: _canonical(entry, (name,), unknown) for name, entry in merged.sections.items()}
    for section, named in merged.by_name.items():
        whole[section] = {name: _canonical(entry, (section, name), unknown) for name, entry in named.items()}
    return json.dumps(whole, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _canonical(entry: Entry, path: faults.Path, unknown: Collection[Place]) -> Any:
    # Names of devices, tags, products … are people's own; only a setting's name says that its value is a secret.
    if entry.key.place in unknown or (not _is_name(path) and _holds_secret(str(path[-1]), entry.value)):
        return _REDACTED
    return _canonical_value(entry.value, path, unknown)


def _is_name(path: faults.Path) -> bool:
    return tuple("*" if index == 1 else step for index, step in enumerate(path[:-1])) in _NAMED


def _canonical_value(node: Node, path: faults.Path, unknown: Collection[Place]) -> Any:
    if isinstance(node.value, dict):
        return {name: _canonical(inner, (*path, name), unknown) for name, inner in node.value.items()}
    if isinstance(node.value, list):
        return [_canonical_value(item, (*path, index), unknown) for index, item in enumerate(node.value)]
    return faults.without_userinfo(node.value) if isinstance(node.value, str) else node.value


def _holds_secret(name: str, node: Node) -> bool:
    if not (faults.speaks_of_secret(name) or name == "key"):
        return False
    return not (isinstance(node.value, dict) and set(node.value) <= _REFERENCES)
