"""The devices of the configuration: validated by their drivers' models, then by the drivers, which open nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError

from edge_agent.config.document import Entry
from edge_agent.config.faults import Fault, Path, Report, closest, scope_of
from edge_agent.config.models import Name
from edge_agent.config.secrets import check_secrets
from edge_agent.config.validation import DRIVER_MISTAKES, driver_mistake, validated
from edge_agent.contract import ConfigError, Device, DeviceSettings, Driver, Streams, Tag
from edge_agent.registry import Registry

_NAME: TypeAdapter[str] = TypeAdapter(Name)
NAME_WORDS = "a name has letters, digits, _ and -, at most 64, and begins with a letter or digit"


def load_devices(named: dict[str, Entry], registry: Registry, report: Report) -> dict[str, Device]:
    """The sound devices by name, in the order of the document; the mistakes of the others are reported."""
    devices: dict[str, Device] = {}
    drivers: dict[str, type[Driver]] = {}
    for name, entry in named.items():
        path: Path = ("devices", name)
        check_name(entry, path, report)
        driver = _driver(entry, path, registry, report)
        if driver is None:
            continue
        device = _device(name, entry, driver, report)
        if device is not None and not report.stops(scope_of(path)):
            devices[name], drivers[name] = device, driver
    _construct(devices, drivers, named, report)
    return {name: device for name, device in devices.items() if not report.stops(f"devices.{name}")}


def check_name(entry: Entry, path: Path, report: Report) -> None:
    """Report a name that a device, machine or tag cannot have."""
    try:
        _NAME.validate_python(entry.key.text)
    except ValidationError:
        place, text = entry.key.place, entry.key.text or ""
        suggestion = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:64] or None
        report.add(Fault(place, NAME_WORDS, path, suggestion=suggestion, scope=scope_of(path)))


def tag_entries(device: Entry) -> dict[str, Entry]:
    """The tags of a device as they stand in the document; none where there are none."""
    tags = (device.value.mapping or {}).get("tags")
    return {} if tags is None else tags.value.mapping or {}


def streams(devices: Mapping[str, Device], registry: Registry, name: str) -> bool:
    """Whether a tag of a sound device comes by itself, or else is polled; opens nothing."""
    device = devices[name.partition(".")[0]]
    driver = registry.driver(device.settings.driver)([device])
    return isinstance(driver, Streams) and any(driver.streams(tag) for tag in device.tags if tag.name == name)


def _driver(entry: Entry, path: Path, registry: Registry, report: Report) -> type[Driver] | None:
    scope = scope_of(path)
    settings = entry.value.mapping
    if settings is None:
        report.add(Fault(entry.value.place, f"expected settings below this, not {entry.value.kind}", path, scope=scope))
        return None
    chosen = settings.get("driver")
    names = registry.names()
    if chosen is None:
        near = closest("driver", settings)
        message = "the key `driver` is missing" + (f"; is it the key {near!r}" if near else "")
        report.add(Fault(entry.key.place, message, path, allowed=names, scope=scope))
        return None
    path = (*path, "driver")
    place, name = chosen.value.place, chosen.value.text
    if name is None or name not in names:
        near = closest(name or "", names)
        report.add(Fault(place, "no such driver", path, name, names, near, scope=scope))
        return None
    try:
        return registry.driver(name)
    except ConfigError as error:
        report.add(Fault(place, str(error), path, scope=scope))
        return None


def _device(name: str, entry: Entry, driver: type[Driver], report: Report) -> Device | None:
    path: Path = ("devices", name)
    settings = validated(driver.Settings, entry, path, report, without=("tags",))
    if settings is not None:
        check_secrets(settings, entry.value, path, report)
    tags = _tags(name, entry, driver, settings, report)
    return None if settings is None else Device(name, settings, tuple(tags))


def _tags(
    device: str, entry: Entry, driver: type[Driver], settings: DeviceSettings | None, report: Report
) -> list[Tag]:
    path: Path = ("devices", device, "tags")
    scope = scope_of(path)
    given = (entry.value.mapping or {}).get("tags")
    if given is None or given.value.value in (None, {}):
        place = entry.key.place if given is None else given.key.place
        report.add(Fault(place, "a device needs `tags`: names, each with its address", path[:2], scope=scope))
        return []
    if given.value.mapping is None:
        message = f"expected names, each with its settings below it, not {given.value.kind}"
        report.add(Fault(given.value.place, message, path, scope=scope))
        return []
    tags: list[Tag] = []
    by_fold: dict[str, Entry] = {}
    for name, tag_entry in given.value.mapping.items():
        tag_path = (*path, name)
        check_name(tag_entry, tag_path, report)
        earlier = by_fold.setdefault(name.casefold(), tag_entry)
        if earlier is not tag_entry:
            message = f"differs from {earlier.key.text!r} at {earlier.key.place} only in case; choose another name"
            report.add(Fault(tag_entry.key.place, message, tag_path, scope=scope))
        tag = validated(driver.TagSettings, tag_entry, tag_path, report)
        if tag is not None and settings is not None:
            place = tag_entry.key.place
            tags.append(Tag(f"{device}.{name}", tag, tag.poll or settings.poll, f"{place.file}:{place.line}"))
    return tags


def _construct(
    devices: dict[str, Device], drivers: dict[str, type[Driver]], named: dict[str, Entry], report: Report
) -> None:
    """Construct the drivers, which opens nothing: of each device alone, then of each link.

    Where a link's devices do not agree, those that agree with the ones before them stay.
    """
    links: dict[tuple[type[Driver], str], list[Device]] = {}
    for name, device in devices.items():
        message, link = _trial(drivers[name], [device])
        if message is None:
            links.setdefault((drivers[name], link), []).append(device)
        else:
            _blame(device, message, named[name], report)
    for (driver, _), sharing in links.items():
        if len(sharing) == 1 or _trial(driver, sharing)[0] is None:
            continue
        agreed: list[Device] = []
        for device in sharing:
            message, _ = _trial(driver, [*agreed, device])
            if message is None:
                agreed.append(device)
            else:
                _blame(device, message, named[device.name], report)


def _trial(driver: type[Driver], devices: Sequence[Device]) -> tuple[str | None, str]:
    """What the driver has against these devices, or None; and the link of the last one."""
    try:
        driver(devices)
        return None, driver.link(devices[-1].settings)
    except (ConfigError, ValueError) as error:
        return str(error), ""
    except DRIVER_MISTAKES as error:
        return driver_mistake(error), ""


def _blame(device: Device, message: str, entry: Entry, report: Report) -> None:
    """Report the message at the tag of the device that it names first, else at the device."""
    path: Path = ("devices", device.name)
    place = entry.key.place
    for name, tag in tag_entries(entry).items():
        if re.search(rf"(?<![\w.-]){re.escape(device.name)}\.{re.escape(name)}(?![\w-])", message):
            path, place = (*path, "tags", name), tag.key.place
            message = message.removeprefix(f"{device.name}.{name}: ")
            break
    report.add(Fault(place, message.removeprefix(f"{device.name}: "), path, scope=scope_of(path)))
