"""The machines of the configuration: validated, and checked against the tags that they draw on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edge_agent.config.devices import check_name, tag_entries
from edge_agent.config.document import Entry, Node
from edge_agent.config.faults import Fault, Path, Report, closest, scope_of
from edge_agent.config.later import check_later
from edge_agent.config.models import MachineSettings
from edge_agent.config.validation import validated
from edge_agent.contract import NS_PER_S, Device
from edge_agent.equipment.rules import parse
from edge_agent.shifts import SHIFT

_LABELS = {
    "state": ("tag",),
    "reason": ("tag",),
    "product": ("tag",),
    "job": ("tag", "operation", "planned_quantity"),
}
"""The keys that name tags whose values are compared or passed on as they are."""


class _Use(NamedTuple):
    """A place in a machine that names a tag."""

    path: Path
    node: Node
    tag: str
    exact: bool
    """Whether the raw value is needed, so that a deadband or a scale would falsify it."""
    every: bool = False
    """Whether each reading counts, so that each must be new, and stored."""


def load_machines(
    named: dict[str, Entry],
    device_entries: dict[str, Entry],
    devices: Mapping[str, Device],
    streams: Callable[[str], bool],
    calendar: Entry | None,
    report: Report,
) -> dict[str, MachineSettings]:
    """The sound machines by name, in the order of the document; the mistakes of the others are reported."""
    machines: dict[str, MachineSettings] = {}
    reasons = _reasons(device_entries, devices, report)
    tags = {f"{device}.{tag}" for device, entry in device_entries.items() for tag in tag_entries(entry)}
    shifts = ((calendar.value.mapping or {}) if calendar else {}).get("shifts")
    for name, entry in named.items():
        path: Path = ("machines", name)
        check_name(entry, path, report)
        check_later(entry, path, report)
        settings = validated(MachineSettings, entry, path, report)
        complete = True
        for use in _uses(entry, path):
            sound = _check_use(use, device_entries, reasons, tags, report)
            complete &= sound and (not use.every or _check_stream(use, streams, report))
        _check_maps(entry, path, report)
        _check_products(entry, path, report)
        if (shifts is None or not shifts.value.value) and not report.unreadable:
            _check_no_shifts(entry, path, report)
        if settings is not None and complete:
            _check_stopped_after(settings, entry, path, devices, report)
        if settings is not None:
            _check_planned_stops(settings, entry, path, report)
        if settings is not None and complete and not report.stops(scope_of(path)):
            machines[name] = settings
    return machines


def _reasons(entries: dict[str, Entry], devices: Mapping[str, Device], report: Report) -> dict[str, str]:
    """Why each device that is not sound is disabled: its first fault."""
    first: dict[str, str] = {}
    for fault in report.result():
        if fault.severity == "error":
            first.setdefault(fault.scope, f"{fault.place}: {fault.message}")
    return {name: first.get(f"devices.{name}", "see its faults") for name in entries if name not in devices}


def _uses(machine: Entry, path: Path) -> Iterator[_Use]:
    settings = machine.value.mapping or {}
    for section, keys in _LABELS.items():
        if section in settings:
            for key in keys:
                yield from _use(settings[section], (*path, section), exact=True, key=key)
    for name, entry in _mapping(settings, "job", "fields").items():
        yield from _named(entry.value, (*path, "job", "fields", name), exact=False)
    state = _mapping(settings, "state")
    if "mode" in state:
        yield from _use(state["mode"], (*path, "state", "mode"), exact=True)
    for word, rule in _mapping(state, "when").items():
        for tag in _tags_in(rule.value):
            yield _Use((*path, "state", "when", word), rule.value, tag, exact=False)
    for section in ("counts", "process"):
        for name, entry in _mapping(settings, section).items():
            several = entry.value.value if isinstance(entry.value.value, list) else None
            for number, item in enumerate(several or ()):
                yield from _use(Entry(item, item), (*path, section, name, number), exact=section == "counts")
            if several is None:
                yield from _use(entry, (*path, section, name), exact=section == "counts")


def _mapping(settings: Mapping[str, Entry], *keys: str) -> Mapping[str, Entry]:
    """What stands below these keys, one inside the other; nothing where a key is absent or no mapping."""
    for key in keys:
        settings = (settings[key].value.mapping or {}) if key in settings else {}
    return settings


def _use(entry: Entry, path: Path, exact: bool, key: str = "tag") -> Iterator[_Use]:
    settings = entry.value.mapping or {}
    if key in settings:
        kind = settings.get("kind")
        every = exact and kind is not None and kind.value.text == "increment"
        yield from _named(settings[key].value, (*path, key), exact, every)


def _named(node: Node, path: Path, exact: bool, every: bool = False) -> Iterator[_Use]:
    """The use of the tag that a node names; none where it names no tag, which the model says."""
    if node.text is not None and node.text.count(".") == 1:
        yield _Use(path, node, node.text, exact, every)


def _tags_in(rule: Node) -> tuple[str, ...]:
    """The tags of a rule; none where it is no rule, which the model says."""
    try:
        return parse(rule.text or "").tags
    except ValueError:
        return ()


def _check_use(
    use: _Use, entries: dict[str, Entry], reasons: Mapping[str, str], tags: set[str], report: Report
) -> bool:
    """Whether the tag is there and can be used so; what is wrong is reported, if it is certain."""
    text = use.tag
    device, _, tag = text.partition(".")
    scope = scope_of(use.path)
    if device in reasons:
        message = f"depends on the device {device!r}, which is disabled: {reasons[device]}"
        report.add(Fault(use.node.place, message, use.path, scope=scope))
        return False
    if text not in tags:
        if report.unreadable and device not in entries:
            return False  # it may stand in the file that could not be read
        known = tag_entries(entries[device]) if device in entries else {}
        near = closest(tag, known)
        suggestion = f"{device}.{near}" if near else closest(text, sorted(tags))
        message = f"the device {device!r} has no such tag" if device in entries else f"there is no device {device!r}"
        report.add(Fault(use.node.place, message, use.path, text, suggestion=suggestion, scope=scope))
        return False
    return not use.exact or _check_raw(use, tag_entries(entries[device])[tag], report)


def _check_raw(use: _Use, tag: Entry, report: Report) -> bool:
    """Whether the tag gives the raw value, and each of them where each counts."""
    sound, scope = True, scope_of(use.path)
    settings = tag.value.mapping or {}
    if use.every and ("store" not in settings or settings["store"].value.text != "every"):
        sound = False
        message = (
            f"{use.tag} is an increment, each reading counts, so each must be stored; "
            f"add store: every to the tag at {tag.key.place}"
        )
        report.add(Fault(use.node.place, message, use.path, scope=scope))
    section = str(use.path[2])
    user = f"a {section}" if section in ("reason", "product", "job") else "a state or a count"
    bands = [key for key in settings if key.endswith("deadband")]  # a driver may have one of its own, in the device
    for key in (*bands, "scale", "offset"):
        if key in settings and settings[key].value.value not in (None, 1 if key == "scale" else 0):
            sound = False
            message = (
                f"{use.tag} has a {key} at {settings[key].key.place}, and {user} needs the raw value; "
                f"remove the {key} or name another tag"
            )
            report.add(Fault(use.node.place, message, use.path, scope=scope))
    return sound


def _check_no_shifts(machine: Entry, path: Path, report: Report) -> None:
    """Report the window `shift` where the calendar has no shifts, so that nothing says when such a window ends."""
    given = (machine.value.mapping or {}).get("summarize")
    items = given.value.value if given is not None else None
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if (item.text or "").strip() == SHIFT:
            message = "there are no shifts; add them under calendar.shifts, or leave this window out"
            report.add(Fault(item.place, message, (*path, "summarize", index), item.text, scope=scope_of(path)))


def _check_stopped_after(
    settings: MachineSettings, machine: Entry, path: Path, devices: Mapping[str, Device], report: Report
) -> None:
    """Report a state from a count that is polled so seldom that each wait for the next poll would be a stop."""
    run_time_ns = settings.shortest_run_time_ns
    stopped_after_ns = None if run_time_ns is None else settings.stopped_after(run_time_ns)
    if stopped_after_ns is None:
        return
    polls = {tag.name: tag.poll_ns for device in devices.values() for tag in device.tags}
    slowest = max((polls[count.tag], count.tag) for count in settings.counted)
    if stopped_after_ns >= 2 * slowest[0]:
        return
    message = (
        f"a stop after {stopped_after_ns / NS_PER_S:g} s is found only where {slowest[1]}, polled each "
        f"{slowest[0] / NS_PER_S:g} s, is polled twice in that time; poll it faster, or write more run times"
    )
    state = (machine.value.mapping or {})["state"]
    place = (state.value.mapping or {})["from_count"].key.place
    report.add(Fault(place, message, (*path, "state", "from_count"), scope=scope_of(path)))


def _check_products(machine: Entry, path: Path, report: Report) -> None:
    """Report products that could be meant as a number or as text, and those that stand twice but for spaces."""
    seen: dict[str, Entry] = {}
    keys = ("product", "planned_run_time_per_item")
    for text, entry in _mapping(machine.value.mapping or {}, *keys).items():
        value, place = entry.key.value, entry.key.place
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = str(int(value) if value == value // 1 else value)
            if text != number:
                message = f"is the number {number}; write it so, or in quotes where the product is a text"
                report.add(Fault(place, message, (*path, *keys, text), text, scope=scope_of(path)))
        earlier = seen.setdefault(text.strip(), entry)
        if earlier is not entry:
            message = f"is the same product as {earlier.key.text!r} at {earlier.key.place}; remove one"
            report.add(Fault(place, message, (*path, *keys, text), text, scope=scope_of(path)))


def _check_planned_stops(settings: MachineSettings, machine: Entry, path: Path, report: Report) -> None:
    """Report planned stops that are no reasons, and above none, so that no stop could ever be one."""
    if settings.reason is None or not settings.reason.planned_stop:
        return
    names = [reason.split("/") for reason in settings.reason.reasons]
    known = {"/".join(parts[:length]) for parts in names for length in range(1, len(parts) + 1)}
    items = _mapping(machine.value.mapping or {}, "reason")["planned_stop"].value.value
    for index, planned in enumerate(settings.reason.planned_stop):
        if planned not in known and isinstance(items, list):
            message = "is no reason of map or tree, and above none; add it to tree, or write one of theirs"
            near = closest(planned, sorted(known))
            where = (*path, "reason", "planned_stop", index)
            report.add(
                Fault(items[index].place, message, where, planned, tuple(sorted(known)), near, scope=scope_of(path))
            )


def _check_stream(use: _Use, streams: Callable[[str], bool], report: Report) -> bool:
    """Whether the tag's device sends its readings by itself: of one that is asked, the same value would count again."""
    text = use.tag
    if streams(text):
        return True
    message = (
        f"{text} is read at each poll, and as an increment the same value would count each time; "
        "name a tag that its device sends by itself, such as a scanner's, or count its rises with kind: counter"
    )
    report.add(Fault(use.node.place, message, use.path, scope=scope_of(use.path)))
    return False


def _check_maps(machine: Entry, path: Path, report: Report) -> None:
    state = (machine.value.mapping or {}).get("state")
    mode = None if state is None else (state.value.mapping or {}).get("mode")
    _check_map(state, (*path, "state"), report)
    _check_map(mode, (*path, "state", "mode"), report)


def _check_map(source: Entry | None, path: Path, report: Report) -> None:
    """Report values of a map that one reading could match twice, such as 1 and 0x1, or 1 and true."""
    given = None if source is None else (source.value.mapping or {}).get("map")
    seen: dict[str, Entry] = {}
    for name, entry in ({} if given is None else given.value.mapping or {}).items():
        value = entry.key.value
        word = str(int(value)) if isinstance(value, bool | float) and value == int(value) else str(value)
        earlier = seen.setdefault(word, entry)
        if earlier is not entry:
            message = f"is the same value as {earlier.key.text!r} at {earlier.key.place}"
            where = (*path, "map", name)
            report.add(Fault(entry.key.place, message, where, scope=scope_of(path)))
