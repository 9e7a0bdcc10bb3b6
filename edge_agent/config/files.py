"""The files of a configuration: found, read, and merged into one document."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.config.document import Entry, Node, compose
from edge_agent.config.faults import Fault, Place, Report, closest, scope_of

MAX_FILE_BYTES = 4_000_000
"""Room for some 50,000 tags in one file."""
MAX_TOTAL_BYTES = 32_000_000
MAX_FILES = 5_000

SECTIONS = ("agent", "buffer", "mqtt", "calendar")
"""Each stands in one file."""
BY_NAME = ("devices", "machines")
"""These merge by name across files."""


@dataclass(slots=True)
class Merged:
    """The document that all files make together."""

    sections: dict[str, Entry] = field(default_factory=dict)
    by_name: dict[str, dict[str, Entry]] = field(default_factory=lambda: {name: {} for name in BY_NAME})


def read(directory: Path, report: Report) -> Merged:
    """All files of a directory (or the one file), merged; what cannot be read is reported.

    Files and folders that begin with `.` or `_` are left out; a folder or file that is linked twice is read once.
    """
    merged = Merged()

    def unreadable(fault: Fault) -> None:
        report.unreadable = True
        report.add(fault)

    total = 0
    count = 0
    for path in _find(directory, unreadable):
        count += 1
        text = _text(path, unreadable)
        total += len(text or "")
        if count > MAX_FILES or total > MAX_TOTAL_BYTES:
            unreadable(Fault(Place(str(directory)), "too many or too large files; is this the configuration's folder?"))
            break
        known = len(report.faults)
        top = None if text is None else compose(text, str(path), report.add)
        if top is not None:
            _merge(top, merged, report)
        elif len(report.faults) > known:
            report.unreadable = True
    if count == 0 and not report.faults:
        unreadable(
            Fault(
                Place(str(directory)),
                "there is no *.yaml file here; name another folder, or begin with a copy of the example, config/",
            )
        )
    return merged


def _find(directory: Path, report: Callable[[Fault], None]) -> Iterator[Path]:
    try:
        mode = directory.stat().st_mode
    except (OSError, ValueError) as error:
        reason = "there is no such folder" if isinstance(error, FileNotFoundError) else _reason(error)
        report(Fault(Place(str(directory)), f"{reason}; name the folder of the configuration, such as /etc/edge-agent"))
        return
    if not stat.S_ISDIR(mode):
        if _named_well(directory, report):
            yield directory
        return
    seen: set[tuple[int, int]] = set()
    yield from _below(directory, seen, report)


def _below(folder: Path, seen: set[tuple[int, int]], report: Callable[[Fault], None]) -> Iterator[Path]:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        report(Fault(Place(str(folder)), f"this folder cannot be read: {_reason(error)}"))
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _below(path, seen, report)
        elif path.suffix.lower() in (".yaml", ".yml") and _named_well(path, report) and _is_new(path, seen):
            yield path


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = path.stat()
    except OSError:
        return True
    new = (status.st_dev, status.st_ino) not in seen
    seen.add((status.st_dev, status.st_ino))
    return new


def _named_well(path: Path, report: Callable[[Fault], None]) -> bool:
    if path.suffix == ".yaml":
        return True
    report(Fault(Place(str(path)), f"this file is not read; rename it to {path.with_suffix('.yaml').name}"))
    return False


def _text(path: Path, report: Callable[[Fault], None]) -> str | None:
    try:
        # Not blocking, so that a pipe with a file's name does not hold the agent's start for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                report(Fault(Place(str(path)), "this is not an ordinary file; remove it from the configuration"))
                return None
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        report(Fault(Place(str(path)), f"this file cannot be read: {_reason(error)}"))
        return None
    if len(data) > MAX_FILE_BYTES:
        report(Fault(Place(str(path)), f"this file is larger than {MAX_FILE_BYTES // 1_000_000} MB; split it"))
        return None
    return _decoded(data, path, report)


def _decoded(data: bytes, path: Path, report: Callable[[Fault], None]) -> str | None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        report(Fault(Place(str(path)), "this file is UTF-16; save it as UTF-8"))
        return None
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        place = Place(str(path), before.count("\n") + 1, len(before) - before.rfind("\n"))
        report(Fault(place, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"))
        return None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else "this is no path"


def _merge(top: Node, merged: Merged, report: Report) -> None:
    if top.mapping is None:
        report.unreadable = True
        report.add(Fault(top.place, f"a file begins with a key such as `devices:` or `agent:`, not with {top.kind}"))
        return
    for name, entry in top.mapping.items():
        if name in BY_NAME:
            _merge_names(name, entry, merged.by_name[name], report)
        elif name not in SECTIONS:
            known = (*SECTIONS, *BY_NAME)
            report.add(
                Fault(
                    entry.key.place,
                    "this key is not known",
                    where=(name,),
                    allowed=known,
                    suggestion=closest(name, known),
                )
            )
        elif (earlier := merged.sections.setdefault(name, entry)) is not entry:
            report.add(
                Fault(entry.key.place, f"stands in one file only; it is also at {earlier.key.place}", where=(name,))
            )


def _merge_names(section: str, entry: Entry, into: dict[str, Entry], report: Report) -> None:
    if entry.value.mapping is None:
        report.add(
            Fault(
                entry.value.place,
                f"expected names, each with its settings below it, not {entry.value.kind}",
                where=(section,),
            )
        )
        return
    by_fold = {name.casefold(): other for name, other in into.items()}
    for name, named in entry.value.mapping.items():
        earlier = by_fold.get(name.casefold())
        if earlier is None:
            into[name] = by_fold[name.casefold()] = named
            continue
        same = "this name" if earlier.key.text == name else f"this name (as {earlier.key.text!r}, and case is ignored)"
        into.setdefault(name, named)
        report.add(
            Fault(
                named.key.place,
                f"{same} is used twice; first at {earlier.key.place}",
                where=(section, name),
                scope=scope_of((section, name)),
            )
        )
