"""The demo as a newcomer runs it: real processes, an end by itself, and parts that agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from brokers import needs_mosquitto

from edge_agent.cli.demo.books import Books
from edge_agent.cli.demo.stage import Stage
from edge_agent.cli.demo.view import LiveView
from edge_agent.uplink.subscriber import Received

COMMAND = [sys.executable, "-m", "edge_agent", "demo"]


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("edge-agent-demo-")]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(folder)}


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50)])
def test_demo_fits_on_the_screen_with_its_figures(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", str(height))
    link = "rtu:///tmp/edge-agent-demo-12345678/lines/counter"
    device = {"device": "packing-counter", "driver": "modbus", "link": link, "connected": True, "since": 0}
    machine = {"machine": "packing-cell", "state": "planned_stop", "since": 0}
    uplink = {"protocol": "5", "connected": True, "accepted": 9, "in_flight": 0, "refused": 0}
    status = {
        "version": "0.1.0", "agent": "press-hall-gw1", "now": 99 * 10**9, "uplink": uplink,
        "devices": [device | {"readings": 1234}] * 4, "machines": [machine] * 3,
        "buffer": {"bytes": 1, "readings": 2, "received": 3, "waiting": 0},
    }  # fmt: skip
    times = {"producing": 10.0, "not_scheduled": 0.0, "planned_stop": 0.0, "unknown": 0.0}
    data = {
        "machine": "packing-cell", "window": "10s", "start": "2026-11-23T18:38:30Z", "revision": 1,
        "key": "k", "withdrawn": False,
        "quantity": {"produced": 10, "good": 10, "scrap": 0, "unobserved": 0}, "time_s": times,
        "definition": {"planned_run_time_per_item_s": 1}, "kpi": {"oee_index": 1.0}, "completeness": {"ratio": 1.0},
    }  # fmt: skip
    event = {"type": "edge.production.v1", "id": "press-hall-gw1:1:7", "epoch": 1, "data": data}
    books = Books()
    books.enter([Received("t", json.dumps(event).encode(), False)] * 12)
    with Stage(1, "amqtt") as stage, LiveView(stage) as view, view.console.capture() as captured:
        view.console.print(view.screen(status, books))
    lines = captured.get().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    for word in ("packing-counter", "connected", "1234 readings", "planned_stop", "observed 100.0%", "9 accepted"):
        assert word in captured.get(), word


@needs_mosquitto
def test_demo_ends_by_itself_and_every_machines_parts_agree(tmp_path: Path) -> None:
    run = subprocess.run(
        [*COMMAND, "--for", "25s", "--json"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    *events, last = [json.loads(line) for line in run.stdout.splitlines()]
    assert last["agrees"] is True
    assert set(last["reconciliation"]) == {"press-01", "oven", "packing-cell"}
    for name, parts in last["reconciliation"].items():
        assert parts["made"] == parts["received"] > 0, name
    assert {event["type"] for event in events} >= {"edge.production.v1", "edge.state.v1", "edge.status.v1"}
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_with_amqtt_says_so_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--broker", "amqtt"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout
        assert "amqtt" in demo.stdout.readline()
        for line in demo.stdout:
            if "make parts" in line:
                break
        time.sleep(1.0)
        demo.send_signal(number)
        said, errors = demo.communicate(timeout=40)
    assert demo.returncode == 0, errors
    assert said.endswith("everything is stopped\n")
    assert left_behind(tmp_path) == []
