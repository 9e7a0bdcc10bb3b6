"""How long after its settle time a closed window's record is at a subscriber, under the Modbus benchmark's load."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.timestamps import parse

from .agent import configure, running_agent
from .figures import Figure
from .modbus import DEVICES, devices_yaml
from .processes import MOSQUITTO, Failed, broker, python, said

WINDOW_S, SETTLE_S = 10, 1
BAR_S = 2.0
_MACHINE = """  m{n}:
    area: hall
    line: a
    state: {{tag: plc{n}.status, map: {{1: producing}}}}
    counts: {{produced: {{tag: plc{n}.r0, rollover: 65536, max_rate: 1000 /s}}}}
    settle: {settle} s
    summarize: [{window} s]
"""


def run(folder: Path, seconds: float, devices: int = DEVICES) -> list[Figure]:
    """The worst delay of the records of one machine at each device, over the windows that end within the time."""
    if MOSQUITTO is None:
        raise Failed("mosquitto is not installed: apt install mosquitto")
    windows = max(1, round(seconds / WINDOW_S))
    with python("-m", "bench.peers.modbus_server", str(devices)) as servers, broker(folder) as url:
        ports = [int(port) for port in said(servers, "ports").split()]
        plcs = devices_yaml(ports).replace("tags: {\n", 'tags: {\n    status: {address: "input:0"},\n')
        machines = [_MACHINE.format(n=n, settle=SETTLE_S, window=WINDOW_S) for n in range(devices)]
        directory = configure(folder, url, devices=plcs, machines="machines:\n" + "".join(machines))
        with _subscriber(url) as received, running_agent(directory):
            delays = sorted(_delays(received, windows * devices, (windows + 2) * WINDOW_S + SETTLE_S + 10))
    return [
        Figure(f"Records, worst delay of {len(delays)} after settling", delays[-1], "s", bar=BAR_S),
        Figure("Records, median delay after settling", delays[len(delays) // 2], "s"),
    ]


def _delays(received: queue.Queue[tuple[int, bytes]], count: int, limit_s: float) -> Iterator[float]:
    deadline = time.monotonic() + limit_s
    for _ in range(count):
        try:
            came_ns, payload = received.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise Failed(f"of {count} records some did not come within {limit_s:g} s") from None
        yield (came_ns - parse(json.loads(payload)["data"]["end"])) / 1e9 - SETTLE_S


@contextmanager
def _subscriber(url: str) -> Iterator[queue.Queue[tuple[int, bytes]]]:
    """Every production record with the time of its receipt in ns."""
    received: queue.Queue[tuple[int, bytes]] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = lambda _client, _userdata, message: received.put((time.time_ns(), bytes(message.payload)))
    client.on_connect = lambda client, *_: client.subscribe("+/+/+/+/+/+/+/production/#", 1)
    client.connect("127.0.0.1", urlsplit(url).port or 1883)
    client.loop_start()
    try:
        yield received
    finally:
        client.disconnect()
        client.loop_stop()
