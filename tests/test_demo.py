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

COMMAND = [sys.executable, "-m", "edge_agent", "demo"]


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("edge-agent-demo-")]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(folder)}


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
