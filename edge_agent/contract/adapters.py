"""Which adapter is behind the name of a serial port: a name may lead to another one after a replug."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract.errors import NotConnected

SYSFS = Path("/sys")
LOOK_AGAIN_S = 2.0
"""How often to look for an adapter that is not plugged in, or is the wrong one: it is back within 5 s of a replug."""
_BY_PATH = "/dev/serial/by-path/"


class Adapter(NamedTuple):
    """What the system knows of the hardware behind an open serial port."""

    model: str
    """USB vendor, product and interface, `0403:6001:00`; the device's path in sysfs where it is not on USB."""
    serial: str
    """The adapter's own serial number; empty where it has none."""
    socket: str
    """The USB socket into which it is plugged, `1-1.4`."""

    def is_another_than(self, earlier: Adapter) -> bool:
        """Whether it is, or may be, another one: adapters without serial numbers are told apart by their socket."""
        if (self.model, self.serial) != (earlier.model, earlier.serial):
            return True
        return not self.serial and self.socket != earlier.socket

    def __str__(self) -> str:
        where = f" in USB socket {self.socket}" if self.socket else ""
        return f"{self.model}, {f'serial number {self.serial}' if self.serial else 'without serial number'}{where}"


def adapter_of(descriptor: int) -> Adapter | None:
    """The adapter behind an open port; None where the system tells nothing, as of a pseudo-terminal."""
    device = os.fstat(descriptor).st_rdev
    try:
        path = (SYSFS / "dev" / "char" / f"{os.major(device)}:{os.minor(device)}").resolve(strict=True)
    except OSError:
        return None
    interface = ""
    for folder in path.parents:
        interface = interface or _text(folder / "bInterfaceNumber")
        if vendor := _text(folder / "idVendor"):
            model = f"{vendor}:{_text(folder / 'idProduct')}:{interface}"
            return Adapter(model, _text(folder / "serial"), folder.name)
    return Adapter(str(path), "", "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


class SameAdapter:
    """Holds the name of a serial port to the adapter that it led to first, for as long as the agent runs.

    A name below /dev/serial/by-path/ means a socket, and whatever is plugged into it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._first: Adapter | None = None

    def check(self, descriptor: int) -> None:
        """Nothing, where the open port is that of the first adapter.

        Raises:
            NotConnected: it is another one, or nobody can tell; the message has both, and the cure.
        """
        if self._path.startswith(_BY_PATH):
            return
        now = adapter_of(descriptor)
        if self._first is None:
            self._first = now
        elif now is None or now.is_another_than(self._first):
            raise NotConnected(
                f"{self._path} leads to another adapter than before: {now or 'one that the system tells nothing of'}; "
                f"before: {self._first}. Plug the old one in where it was, or, if this was meant, restart the agent; "
                "a name of `ls -l /dev/serial/by-path/` takes any adapter in one socket",
                retry_within_s=LOOK_AGAIN_S,
            )
