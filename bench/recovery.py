"""How long an agent takes to read again after each kind of damage to its files."""

from __future__ import annotations

import json
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

from edge_agent import control
from edge_agent.store import Draft, Issued, Store

from .agent import configure, running_agent
from .damages import DAMAGES
from .figures import Figure
from .modbus import devices_yaml
from .processes import python, said, wait_for

READINGS, RECORDS = 1_000_000, 20_000
BAR_S = 10.0
ROUNDS_PER_S = 0.15
"""Three rounds of each kind in the 20 seconds that a benchmark takes by default."""
_GROUP = 10_000


def run(folder: Path, seconds: float, readings: int = READINGS, records: int = RECORDS) -> list[Figure]:
    """The slowest start of each kind, from that of the process until a device is read; and without damage."""
    with python("-m", "bench.peers.modbus_server", "1") as servers:
        ports = [int(each) for each in said(servers, "ports").split()]
        directory = configure(folder, "mqtt://127.0.0.1:1", devices=devices_yaml(ports, 10))
        whole = folder / "whole"
        _fill(whole, readings, records)
        chance = random.Random(1)
        rounds = max(1, round(seconds * ROUNDS_PER_S))
        plain_s = max(_start_s(directory, whole) for _ in range(rounds))
        figures = []
        for damage in DAMAGES:
            slowest = 0.0
            for _ in range(rounds):
                copy = folder / "copy"
                shutil.copytree(whole, copy)
                damage(copy, chance)
                slowest = max(slowest, _start_s(directory, copy))
                shutil.rmtree(copy)
            figures.append(Figure(f"Start after damage: {damage.__name__}", slowest, "s", bar=BAR_S))
    beside = f"of {readings:,} readings and {records:,} records, {rounds} times each"
    return [Figure("Start without damage, slowest", plain_s, "s", beside=beside), *figures]


def _start_s(directory: Path, files: Path) -> float:
    data = directory.parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(files, data)
    began = time.monotonic()
    with running_agent(directory) as agent:

        def reads() -> bool | None:
            status = None
            with suppress(control.ControlError):  # damage that is found late: it begins anew with another store
                status = agent.status_once_up()
            return (status and status["buffer"]["stored"] > 0) or None

        wait_for("a reading", reads)
        return time.monotonic() - began


def _fill(folder: Path, readings: int, records: int) -> None:
    """A store as a kill leaves it, with some write-ahead log."""

    def freeze(_: Draft, issued: Issued) -> bytes:
        return json.dumps(
            {"id": f"bench:{issued.epoch}:{issued.number}", "s": issued.sequence, "x": "y" * 900}
        ).encode()

    now = time.time_ns() - 3_600 * 1_000_000_000
    killed = folder.with_name("killed")
    with Store(killed, durable=False) as store:
        store.begin(now)
        tag = store.register([("plc0.r0", True)])["plc0.r0"]
        for first in range(0, readings, _GROUP):
            rows = [
                (tag, now + n * 1_000, n % 60_000, 0, None, None, 1, None, None) for n in range(first, first + _GROUP)
            ]
            store.append(rows, now)
        for _ in range(0, records, 1_000):
            with store.transaction():
                store.issue([Draft("job", "t/job", "s", {})] * 1_000, freeze, now)
        shutil.copytree(killed, folder)
