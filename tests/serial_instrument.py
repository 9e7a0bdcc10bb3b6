"""A scripted instrument on a pseudo-terminal, which can be unplugged and plugged in again."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.contract import Device, Tag
from edge_agent_serial import SerialDriver


def serial_device(url: str, tags: dict[str, dict[str, Any]], name: str = "scale", **settings: Any) -> Device:
    """A device of the serial driver, as the configuration makes it."""
    whole = SerialDriver.Settings.model_validate({"driver": "serial", "url": url, **settings})
    made = (
        Tag(f"{name}.{tag}", SerialDriver.TagSettings.model_validate(given), whole.poll) for tag, given in tags.items()
    )
    return Device(name, whole, tuple(made))


class Instrument:
    """The far end of a serial port at `path`. `script` gets each request line (with its end) and may `send`."""

    def __init__(self, path: Path, script: Callable[[bytes], None] | None = None) -> None:
        self.path = path
        self.script = script or (lambda request: None)
        self.requests: list[bytes] = []
        self._heard = b""
        self._near = self._far = -1

    def plug(self) -> None:
        """A new pseudo-terminal behind the same name."""
        self._far, self._near = os.openpty()
        tty.setraw(self._near)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._near))
        asyncio.get_running_loop().add_reader(self._far, self._readable)

    def unplug(self) -> None:
        """The port and its name vanish."""
        if self._far >= 0:
            asyncio.get_running_loop().remove_reader(self._far)
            os.close(self._far)
            os.close(self._near)
            self.path.unlink(missing_ok=True)
        self._near = self._far = -1

    def send(self, data: bytes) -> None:
        """What the instrument says."""
        os.write(self._far, data)

    def send_later(self, delay_s: float, data: bytes) -> None:
        """What it says after a while, unless it is unplugged by then."""
        asyncio.get_running_loop().call_later(delay_s, self._send_if_plugged, data)

    def _send_if_plugged(self, data: bytes) -> None:
        if self._far >= 0:
            self.send(data)

    def _readable(self) -> None:
        self._heard += os.read(self._far, 4096)
        while b"\n" in self._heard:
            request, _, self._heard = self._heard.partition(b"\n")
            self.requests.append(request + b"\n")
            self.script(request + b"\n")
