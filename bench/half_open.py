"""How soon the running agent finds that a server is gone without a word: frozen, its connections open and silent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

from .agent import RunningAgent, configure, running_agent
from .figures import Figure
from .modbus import devices_yaml
from .opcua import device_yaml
from .processes import broker, python, said, wait_for

POLLS_BAR, SECONDS_BAR = 3.0, 30.0
LIMIT_S = 60.0


def run(folder: Path, seconds: float) -> list[Figure]:
    """For Modbus in polls of a second, for OPC UA in seconds, both with the defaults of their devices."""
    polls = _found_after(
        folder / "modbus",
        ("-m", "bench.peers.modbus_server", "1"),
        lambda server: devices_yaml([int(said(server, "ports"))], 10),
    )
    silent_s = _found_after(
        folder / "opcua",
        ("tests/opcua_server.py", "--items", "5", "--interval", "0.5"),
        lambda server: device_yaml(said(server, "endpoint"), 5, 1.0),
    )
    return [
        Figure("Half-open, Modbus link found lost after", polls, "polls", bar=POLLS_BAR),
        Figure("Half-open, OPC UA link found lost after", silent_s, "s", bar=SECONDS_BAR),
    ]


def _found_after(folder: Path, command: tuple[str, ...], devices: Callable[[Popen[str]], str]) -> float:
    """Seconds from the freeze of a server until the agent says that its device is lost."""
    folder.mkdir()
    with python(*command) as server, broker(folder) as url:
        with running_agent(configure(folder, url, devices=devices(server))) as agent:
            agent.wait_until_connected(1)
            time.sleep(3)
            os.kill(server.pid, signal.SIGSTOP)
            began = time.monotonic()
            wait_for("the loss", lambda: _lost(agent), LIMIT_S)
            took = time.monotonic() - began
        os.kill(server.pid, signal.SIGCONT)
    return took


def _lost(agent: RunningAgent) -> bool | None:
    return True if not agent.status()["devices"][0]["connected"] else None
