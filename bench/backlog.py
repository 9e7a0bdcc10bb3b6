"""A backlog of records after an outage: how fast it goes, in how much memory, how long live records take meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path

from edge_agent.store import Draft, Issued, Store

from .agent import configure, running_agent
from .figures import Figure
from .modbus import devices_yaml
from .processes import MOSQUITTO, Failed, broker, python, said
from .records import _MACHINE, SETTLE_S, WINDOW_S, _delays, _subscriber

RECORDS_PER_S = 10_000
"""So many wait for each second that is measured: twice the bar."""
TOPIC = "edge/v1/acme/lyon/hall/a/old/job"
BAR_PER_S, BAR_S = 5_000, 2.0
_GROUP = 1_000


def run(folder: Path, seconds: float, records: int | None = None) -> list[Figure]:
    """Records a second at the broker, the agent's memory, and the worst delay of live records in that time."""
    if MOSQUITTO is None:
        raise Failed("mosquitto is not installed: apt install mosquitto")
    count = records or round(RECORDS_PER_S * seconds)
    with python("-m", "bench.peers.modbus_server", "1") as servers, broker(folder) as url:
        ports = [int(port) for port in said(servers, "ports").split()]
        plcs = devices_yaml(ports).replace("tags: {\n", 'tags: {\n    status: {address: "input:0"},\n')
        machine = "machines:\n" + _MACHINE.format(n=0, settle=SETTLE_S, window=WINDOW_S)
        directory = configure(folder, url, devices=plcs, machines=machine)
        _fill(folder / "data", count)
        with _subscriber(url) as received, running_agent(directory) as agent:
            agent.wait_until_connected(1)
            began, first = time.monotonic(), agent.status()["uplink"]["accepted"]
            most = 0.0
            while agent.status()["buffer"]["waiting"] > 10:
                most = max(most, agent.memory_mb()[0])
                time.sleep(0.2)
            took_s = time.monotonic() - began
            accepted = agent.status()["uplink"]["accepted"] - first
            windows = max(1, int(took_s / WINDOW_S))
            delays = sorted(_delays(received, windows, 2 * WINDOW_S))
    return [
        Figure(f"Backlog of {count}, records accepted per second (bar: {BAR_PER_S} or more)", accepted / took_s, "1/s"),
        Figure("Backlog, most resident memory", most, "MB"),
        Figure("Backlog, worst delay of a live record meanwhile", delays[-1], "s", bar=BAR_S),
    ]


def _fill(folder: Path, count: int) -> None:
    """A store in which so many records wait, as an outage leaves them."""

    def freeze(_: Draft, issued: Issued) -> bytes:
        made = {"specversion": "1.0", "id": f"bench:{issued.epoch}:{issued.number}", "data": {"filling": "x" * 700}}
        return json.dumps(made).encode()

    now = time.time_ns()
    with Store(folder, durable=False) as store:
        store.begin(now)
        for _ in range(0, count, _GROUP):
            with store.transaction():
                store.issue([Draft("job", TOPIC, "acme/lyon/hall/a/old", {})] * _GROUP, freeze, now)
