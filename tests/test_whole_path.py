"""From a register in another process to a record that mosquitto_sub received; killed with -9 in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, needs_mosquitto

from edge_agent import control
from edge_agent.timestamps import parse

HERE = Path(__file__).parent
CONFIG = """
agent: {{name: gw1, enterprise: acme, site: lyon}}
mqtt: {{url: "mqtt://127.0.0.1:{broker}"}}
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:{server}
    poll: 250 ms
    tags: {{count: {{address: "holding:100", type: uint32}}, status: {{address: "holding:2"}}}}
machines:
  press:
    area: hall
    line: a
    state: {{tag: plc.status, map: {{1: producing}}}}
    counts: {{produced: {{tag: plc.count, max_rate: 1000 /s, rollover: 4294967296}}}}
    planned_run_time_per_item: 20 ms
    settle: 1 s
    summarize: [10 s]
"""


def until(condition: Callable[[], Any], timeout_s: float = 30, what: str = "") -> Any:
    """What the condition gives once it gives something."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.05)
    return found


class Server:
    """A Modbus server with a counter, in a process of its own."""

    def __init__(self, rate: int) -> None:
        command = [
            sys.executable,
            str(HERE / "modbus_server.py"),
            "--counter",
            "100",
            "--set",
            "2=1",
            "--rate",
            str(rate),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line().split()[1])

    def tell(self, command: str) -> int:
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return int(self._line().split()[1])

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Agent:
    """`edge-agent run` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"STATE_DIRECTORY": str(folder / "data")}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | self.environment
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "edge_agent", "run", str(self.folder / "config")]
            self._process = subprocess.Popen(command, stderr=log, env=environment)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self, number: signal.Signals) -> int:
        assert self._process
        self._process.send_signal(number)
        return self._process.wait(15)

    def status(self) -> dict[str, Any]:
        try:
            return next(control.ask(self.folder / "data" / "agent.sock", "status"), {})
        except control.ControlError:
            return {}

    def has_read(self) -> bool:
        return any(device["readings"] > 4 for device in self.status().get("devices", []))

    def close(self) -> None:
        if self._process and self.runs:
            self._process.kill()
            self._process.wait()


class Site:
    """Server, broker, mosquitto_sub and agent."""

    def __init__(self, folder: Path, stack: ExitStack, rate: int) -> None:
        self.server = Server(rate)
        stack.callback(self.server.close)
        self.broker = stack.enter_context(Mosquitto(folder))
        self._received = folder / "received"
        self._subscribers = 0
        self._subscriber: subprocess.Popen[bytes] | None = None
        stack.callback(self._unsubscribe)
        self.subscribe()
        (folder / "config").mkdir()
        (folder / "config" / "all.yaml").write_text(CONFIG.format(broker=self.broker.port, server=self.server.port))
        self.agent = Agent(folder)
        stack.callback(self.agent.close)

    def subscribe(self) -> None:
        """Start mosquitto_sub, and wait until it receives: one that reconnects by itself takes its time."""
        self._unsubscribe()
        self._subscribers += 1
        probe = f"edge/v1/probe/{self._subscribers}"
        port = ["-p", str(self.broker.port), "-V", "5", "-q", "1"]
        with self._received.open("ab") as file:
            self._subscriber = subprocess.Popen(["mosquitto_sub", *port, "-t", "edge/v1/#", "-F", "%p"], stdout=file)

        def heard() -> bool:
            subprocess.run(["mosquitto_pub", *port, "-t", probe, "-m", f'{{"probe": {self._subscribers}}}'], check=True)
            return f'"probe": {self._subscribers}' in self._received.read_text()

        until(heard, 10, "a subscriber that receives")

    def _unsubscribe(self) -> None:
        if self._subscriber is not None:
            self._subscriber.kill()
            self._subscriber.wait()

    def events(self) -> list[tuple[bytes, dict[str, Any]]]:
        lines = self._received.read_bytes().splitlines(keepends=True)
        return [(line, json.loads(line)) for line in lines if line.endswith(b"\n") and b'"specversion"' in line]

    def production(self) -> dict[str, dict[str, Any]]:
        """The truth of every window, by key."""
        latest: dict[str, dict[str, Any]] = {}
        for _, event in self.events():
            data = event["data"]
            if event["type"] == "edge.production.v1" and data["revision"] >= latest.get(data["key"], data)["revision"]:
                latest[data["key"]] = data
        return latest

    def produced(self) -> int:
        return sum(data["quantity"]["produced"] for data in self.production().values())

    def reconcile(self, began: int) -> int:
        """Stop the counter, which stood at `began`: every part is in the records, and one identity has one payload.

        The parts that were made.
        """
        made, frozen = self.server.tell("freeze") - began, time.time_ns()
        until(lambda: self.closed_after(frozen + 1_000_000_000), 25, "a window after the freeze")
        assert self.produced() == made
        payloads: dict[str, set[bytes]] = {}
        for line, event in self.events():
            payloads.setdefault(event["id"], set()).add(line)
        assert {len(each) for each in payloads.values()} == {1}, "one identity, one payload"
        return made

    def closed_after(self, moment_ns: int) -> bool:
        return any(parse(data["end"]) > moment_ns for data in self.production().values())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto_sub is not installed: apt install mosquitto-clients")
    with ExitStack() as stack:
        yield Site(tmp_path, stack, rate=50)


@needs_mosquitto
def test_agent_killed_in_the_middle_of_a_window_loses_no_part_and_doubles_none(site: Site) -> None:
    began = site.server.tell("freeze")
    site.agent.start()
    until(site.agent.has_read)
    time.sleep(1.0)  # the baseline is durable: a commit comes every half second
    site.server.tell("resume")
    time.sleep(max(0.0, 5 - time.time() % 10) + 1.0)
    site.agent.end(signal.SIGKILL)
    time.sleep(2.0)
    site.agent.start()
    until(site.agent.has_read)
    made = site.reconcile(began)
    unobserved = sum(data["quantity"]["unobserved"] for data in site.production().values())
    assert 0 < unobserved < made
    assert sum(data["completeness"]["missing_s"]["agent_down"] for data in site.production().values()) > 1.5
    assert site.agent.end(signal.SIGTERM) == 0
    until(lambda: site.events()[-1][1]["data"].get("status") == "offline")


@needs_mosquitto
def test_agent_whose_database_is_damaged_inside_goes_on_with_an_empty_one_in_a_new_epoch(site: Site) -> None:
    site.agent.start()
    until(site.agent.has_read)
    assert site.agent.end(signal.SIGTERM) == 0
    with (site.agent.folder / "data" / "edge-agent.db").open("r+b") as database:
        database.seek(4096)  # past the header: it opens, and fails at the first table
        database.write(b"\x5a" * 40_000)
    site.agent.start()
    until(site.agent.has_read)
    assert (site.agent.folder / "data" / "edge-agent.db.damaged-1").exists()
    assert site.agent.end(signal.SIGTERM) == 0
    until(lambda: site.events()[-1][1]["data"].get("status") == "offline")
    assert site.events()[-1][1]["epoch"] > site.events()[0][1]["epoch"]


@needs_mosquitto
def test_records_that_the_broker_has_not_accepted_come_after_a_restart_with_the_same_bytes(site: Site) -> None:
    site.agent.start()
    until(site.agent.has_read)
    site.broker.stop()
    config = ["--config", str(site.agent.folder / "config"), "--json"]
    environment = os.environ | {"STATE_DIRECTORY": str(site.agent.folder / "data")}

    def records(*more: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "edge_agent", "records", *config, *more]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in run.stdout.splitlines()]

    waiting = until(lambda: records("--waiting"), 25, "a record in the outbox")
    site.agent.end(signal.SIGKILL)
    assert [item["event"] for item in records("--waiting")[: len(waiting)]] == [item["event"] for item in waiting]
    site.broker.start()
    site.subscribe()
    site.agent.start()
    wanted = {item["event"]["id"]: item["event"] for item in waiting}
    until(lambda: wanted.keys() <= {event["id"] for _, event in site.events()}, 25, "the records at the subscriber")
    for _, event in site.events():
        assert wanted.get(event["id"], event) == event
    until(lambda: not records("--waiting"), 10, "an empty outbox")
    assert site.agent.end(signal.SIGTERM) == 0
