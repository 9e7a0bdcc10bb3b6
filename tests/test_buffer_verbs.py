"""`edge-agent buffer show`, `check` and `salvage`, with an agent that runs and without."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_damage import filled
from test_whole_path import Agent, until

from bench.damages import torn_page, value_flipped
from edge_agent.store import Store

CONFIG = """
agent: {name: gw1, enterprise: acme, site: lyon}
mqtt: {url: "mqtt://127.0.0.1:1"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "all.yaml").write_text(CONFIG)
    filled(tmp_path / "data")
    return tmp_path


def told(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON and the text of a verb."""
    answers: list[subprocess.CompletedProcess[str]] = []
    config = [] if arguments[0] == "salvage" else ["--config", str(folder / "config")]
    for more in (["--json"], []):
        again = [each.replace("{}", str(len(answers))) for each in arguments]
        command = [sys.executable, "-m", "edge_agent", "buffer", *again, *config, *more]
        environment = os.environ | {"STATE_DIRECTORY": str(folder / "data")}
        answers.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=False))
    assert answers[0].returncode == answers[1].returncode, answers
    return answers[0].returncode, json.loads(answers[0].stdout), answers[1].stdout


def test_buffer_show_tells_what_there_is(folder: Path) -> None:
    code, found, text = told(folder, "show")
    assert (code, found["readings"], found["waiting"], found["epoch"]) == (0, 3_000, 260, 1)
    assert "260 records wait" in text
    (folder / "data" / "edge-agent.db.damaged-1").write_bytes(b"x")
    assert "kept aside: edge-agent.db.damaged-1" in told(folder, "show")[2]


def test_buffer_check_finds_a_record_that_the_disk_has_altered(folder: Path) -> None:
    code, found, _ = told(folder, "check")
    assert (code, found) == (0, {"sqlite": "ok", "records": 360, "altered": 0, "finished": True, "sound": True})
    value_flipped(folder / "data", random.Random(1))
    code, found, text = told(folder, "check")
    assert (code, found["sqlite"], found["altered"]) == (1, "ok", 1)
    assert "1 of them altered on the disk" in text


def test_buffer_check_finds_a_torn_page_and_salvage_reads_the_rest(folder: Path) -> None:
    torn_page(folder / "data", random.Random(3))
    code, found, text = told(folder, "check")
    assert (code, found["sound"]) == (1, False)
    assert "keeps the file aside" in text
    damaged = folder / "data" / "edge-agent.db"
    before = damaged.read_bytes()
    code, found, text = told(folder, "salvage", str(damaged), str(folder / "salvaged{}"))
    assert code == 0
    assert found["rows"]["reading"] > 2_000
    assert "of reading" in text
    assert damaged.read_bytes() == before
    with Store(folder / "salvaged0", create=False) as store:
        assert store.readings.count() > 2_000


def test_buffer_salvage_writes_over_nothing(folder: Path) -> None:
    command = [sys.executable, "-m", "edge_agent", "buffer", "salvage"]
    for more, cure in (
        ([str(folder / "none"), str(folder / "new")], "there is no such file"),
        ([str(folder / "data" / "edge-agent.db"), str(folder / "data")], "give a new folder"),
    ):
        run = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert run.returncode == 1
        assert cure in run.stderr


def test_buffer_of_an_agent_that_runs_is_asked_of_it(folder: Path) -> None:
    agent = Agent(folder)
    agent.start()
    try:
        until(lambda: agent.status(), 20)
        code, found, _ = told(folder, "show")
        assert (code, found["epoch"]) == (0, 1)
        code, found, _ = told(folder, "check", "--seconds", "5")
        assert (code, found["sound"], found["finished"]) == (0, True, True)
        assert agent.end(signal.SIGTERM) == 0
    finally:
        agent.close()
