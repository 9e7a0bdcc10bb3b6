"""The real agent in its own process, as `edge-agent run` starts it, with a configuration made for a benchmark."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

from edge_agent import control

from .processes import Failed, cpu_s, memory_mb, process, wait_for

_AGENT = """
agent: {{name: bench, enterprise: acme, site: lyon, data: {data}}}
mqtt: {{url: "{broker}"}}
"""


@dataclass(frozen=True)
class Moment:
    """What an agent has done up to a moment."""

    cpu_s: float
    received: int
    stored: int
    skipped: int


class RunningAgent:
    """An agent that runs."""

    def __init__(self, running: Popen[str], data: Path, log: Path) -> None:
        self.pid = running.pid
        self.data = data
        self._running = running
        self._log = log

    def status(self) -> dict[str, Any]:
        """What `edge-agent status --json` prints.

        Raises:
            Failed: the agent has ended.
        """
        if self._running.poll() is not None:
            raise Failed(f"the agent has ended: {self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = next(control.ask(self.data / "agent.sock", "status"))
        return answer

    def status_once_up(self) -> dict[str, Any] | None:
        """The status, or None while the agent does not listen yet."""
        try:
            return self.status()
        except control.NoAgent:
            return None

    def moment(self) -> Moment:
        """The CPU time and the readings up to now, without the cost of asking."""
        status = self.status()
        skipped = sum(device["skipped"] for device in status["devices"])
        return Moment(cpu_s(self.pid), status["buffer"]["received"], status["buffer"]["stored"], skipped)

    def wait_until_connected(self, devices: int) -> None:
        """Return once so many devices are connected."""

        def all_connected() -> bool | None:
            status = self.status_once_up()
            return (status and sum(device["connected"] for device in status["devices"]) >= devices) or None

        wait_for(f"{devices} connected devices", all_connected)

    def memory_mb(self) -> tuple[float, float]:
        """What it has in memory, and the most it ever had."""
        return memory_mb(self.pid, "VmRSS"), memory_mb(self.pid, "VmHWM")


def configure(folder: Path, broker: str, **files: str) -> Path:
    """A configuration directory below the folder, with the data folder beside it."""
    directory = folder / "config"
    directory.mkdir()
    data = folder / "data"
    (directory / "agent.yaml").write_text(_AGENT.format(data=data, broker=broker))
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


@contextmanager
def running_agent(directory: Path) -> Iterator[RunningAgent]:
    """`edge-agent run` on a configuration that `configure` made."""
    log = directory.parent / "agent.log"
    command = Path(sys.executable).with_name("edge-agent")
    with process(str(command), "run", str(directory), log=log) as running:
        yield RunningAgent(running, directory.parent / "data", log)


def stored_times(data: Path, after_id: int = 0) -> list[int]:
    """When each stored reading was received, in order of arrival, in ns; only after the agent has ended."""
    with closing(sqlite3.connect(data / "edge-agent.db")) as db:
        sql = "SELECT coalesce(received, time) FROM reading WHERE id > ? ORDER BY id"
        return [row[0] for row in db.execute(sql, (after_id,))]
