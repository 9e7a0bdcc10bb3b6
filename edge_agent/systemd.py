"""What the service manager wants to hear: ready, stopping, a line of status, and that the watchdog may sleep on."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send lines such as `READY=1` to systemd; nothing happens outside of its units. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to_systemd:
        to_systemd.sendto("\n".join(lines).encode(), address)


def watchdog_interval_s() -> float | None:
    """How often to send WATCHDOG=1, in seconds: half of what the unit allows; None without a watchdog for us."""
    allowed, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not allowed or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000
