"""A broker that is away while readings go on, and a kill -9 in the middle of it: what is lost, what comes twice."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from .agent import RunningAgent, configure, running_agent
from .figures import Figure
from .modbus import DEVICES, devices_yaml
from .processes import MOSQUITTO, Failed, process, python, said, wait_for
from .records import _MACHINE, SETTLE_S, WINDOW_S

BEFORE_S = 5.0
AWAY = 3
"""The broker is away for so many times the seconds that are measured: a minute by default."""
_BROKER = """listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
max_queued_messages 1000000
"""


def run(folder: Path, seconds: float, devices: int = DEVICES) -> list[Figure]:
    """What was committed and is not there, and what of the records is missing, altered or twice at a subscriber."""
    if MOSQUITTO is None:
        raise Failed("mosquitto is not installed: apt install mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    user = "user root\n" * (os.geteuid() == 0)
    (folder / "mosquitto.conf").write_text(_BROKER.format(port=port, folder=folder) + user)
    with ExitStack() as stack:
        servers = stack.enter_context(python("-m", "bench.peers.modbus_server", str(devices)))
        ports = [int(each) for each in said(servers, "ports").split()]
        plcs = devices_yaml(ports).replace("tags: {\n", 'tags: {\n    status: {address: "input:0"},\n')
        machines = [_MACHINE.format(n=n, settle=SETTLE_S, window=WINDOW_S) for n in range(devices)]
        url = f"mqtt://127.0.0.1:{port}"
        directory = configure(folder, url, devices=plcs, machines="machines:\n" + "".join(machines))
        with running_agent(directory) as agent:
            with _broker(folder, port), _subscribed(folder, port):
                agent.wait_until_connected(devices)
                time.sleep(BEFORE_S)
            killed = _away_and_killed(agent, seconds * AWAY / 2)
        began = time.monotonic()
        with running_agent(directory) as agent:
            agent.wait_until_connected(devices)
            start_s = time.monotonic() - began
            time.sleep(seconds * AWAY / 2)
            with _broker(folder, port), _subscribed(folder, port):
                wait_for("an empty outbox", lambda: _is_empty(agent), 60)
                time.sleep(2.0)
                found = _verified(folder, directory)
            resident = agent.memory_mb()[1]
    lost, twice, rows = _rows(folder / "data", killed)
    return [
        Figure("Outage, readings stored per second", killed["per_second"], "1/s"),
        Figure(f"Outage, committed readings lost at the kill, of {killed['stored']:,}", lost, "rows", bar=0),
        Figure(f"Outage, readings twice, of {rows:,}", twice, "rows", bar=0),
        Figure(f"Outage, records missing or altered, of {found['received']:,}", found["wrong"], "records", bar=0),
        Figure("Outage, records that came again with the same bytes", found["doubled"], "records"),
        Figure("Outage, start after the kill until all devices are read", start_s, "s"),
        Figure("Outage, most memory ever", resident, "MB"),
    ]


def _away_and_killed(agent: RunningAgent, seconds: float) -> dict[str, Any]:
    """Watch what is durable for so long, then kill the agent; what it had said last."""
    before, began = agent.status()["buffer"], time.monotonic()
    wait_for("no broker", lambda: None if agent.status()["uplink"]["connected"] else True)
    time.sleep(seconds)
    buffer = agent.status()["buffer"]
    os.kill(agent.pid, 9)
    per_second = (buffer["stored"] - before["stored"]) / (time.monotonic() - began)
    return {"stored": buffer["stored"], "committed": buffer["committed"], "per_second": per_second}


def _is_empty(agent: RunningAgent) -> bool | None:
    status = agent.status()
    return (status["uplink"]["connected"] and status["buffer"]["waiting"] == 0) or None


@contextmanager
def _broker(folder: Path, port: int) -> Iterator[None]:
    def connected() -> bool:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    with process(str(MOSQUITTO), "-c", str(folder / "mosquitto.conf")):
        wait_for("mosquitto", connected)
        yield


@contextmanager
def _subscribed(folder: Path, port: int) -> Iterator[None]:
    """mosquitto_sub with a session that the broker keeps, writing to a file."""
    with (folder / "capture").open("ab") as file:
        command = ["mosquitto_sub", "-p", str(port), "-V", "5", "-q", "1", "-i", "capture", "-c", "-x", "3600",
                   "-t", "edge/v1/#", "-F", "%p"]  # fmt: skip
        subscriber = subprocess.Popen(command, stdout=file)
        try:
            time.sleep(1.0)
            yield
        finally:
            subscriber.terminate()
            subscriber.wait()


def _verified(folder: Path, directory: Path) -> dict[str, int]:
    """What `edge-agent verify` says of the capture."""
    edge_agent = str(Path(sys.executable).with_name("edge-agent"))
    command = [edge_agent, "verify", str(folder / "capture"), "--config", str(directory), "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return {
        "received": told["received"],
        "wrong": sum(told[what] for what in ("missing", "altered", "unlike", "waiting", "unreadable")),
        "doubled": told["doubled"],
    }


def _rows(data: Path, killed: dict[str, Any]) -> tuple[int, int, int]:
    """Committed rows that are gone, rows that are there twice, and all rows."""
    with closing(sqlite3.connect(data / "edge-agent.db")) as db:
        sql = "SELECT count(*) FROM reading WHERE coalesce(received, time) <= ?"
        kept = db.execute(sql, (killed["committed"],)).fetchone()[0]
        rows, distinct = db.execute(
            "SELECT sum(n), count(*) FROM (SELECT count(*) AS n FROM reading GROUP BY tag, time)"
        ).fetchone()
    return max(0, killed["stored"] - kept), rows - distinct, rows
