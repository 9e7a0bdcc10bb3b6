"""How long a gateway waits from the start of the agent to its first reading."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from statistics import median

from .agent import configure, running_agent, stored_times
from .figures import Figure
from .processes import ROOT, broker, python, said, wait_for

STARTS = 5
BAR_S = 1.5


def run(folder: Path, _seconds: float, starts: int = STARTS) -> list[Figure]:
    """The press of the example configuration: from the start of the process to its first reading, and to its row."""
    with python("-m", "bench.peers.modbus_server", "1") as server, broker(folder) as url:
        port = said(server, "ports")
        read_s, durable_s = zip(*(_start(folder / str(n), url, port) for n in range(starts)), strict=True)
    return [
        Figure("Start to first reading", median(read_s), "s", bar=BAR_S),
        Figure("Start to first durable row", median(durable_s), "s"),
    ]


def _start(folder: Path, url: str, port: str) -> tuple[float, float]:
    folder.mkdir()
    directory = configure(folder, url)
    for part in ("devices", "machines"):
        (directory / part).mkdir()
        shutil.copy(ROOT / "config" / part / "press-01.yaml", directory / part)
    device = directory / "devices" / "press-01.yaml"
    device.write_text(re.sub(r"tcp://127\.0\.0\.1:\d+", f"tcp://127.0.0.1:{port}", device.read_text()))
    began_ns = time.time_ns()
    with running_agent(directory) as agent:

        def stored() -> int | None:
            status = agent.status_once_up()
            return time.time_ns() if status and status["buffer"]["stored"] else None

        durable_ns = wait_for("the first durable reading", stored)
    return (stored_times(folder / "data")[0] - began_ns) / 1e9, (durable_ns - began_ns) / 1e9
