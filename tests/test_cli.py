"""The verbs as people use them: in a process of their own, with their exit codes, messages and output."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import typer
from brokers import free_port

from edge_agent import __version__, control
from edge_agent.cli.common import parse_time
from edge_agent.timestamps import parse

HERE = Path(__file__).parent
CONFIG = """
agent: {{name: gw1, enterprise: acme, site: lyon}}
mqtt: {{url: "mqtt://127.0.0.1:{broker}"}}
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:{server}
    poll: 200 ms
    timeout: 300 ms
    tags:
      count: {{address: "holding:100", type: uint32}}
      status: {{address: "holding:2"}}
      level: {{address: "holding:3", scale: 0.1, unit: "%"}}
machines:
  press:
    area: hall
    line: a
    state: {{tag: plc.status, map: {{1: producing}}}}
    counts: {{produced: {{tag: plc.count, max_rate: 1000 /s}}}}
    settle: 0 s
    summarize: [10 s]
"""


class Folder:
    """A configuration and a data folder, with the verbs run on them."""

    def __init__(self, path: Path, server: int) -> None:
        self.config = path / "config"
        self.config.mkdir()
        self.data = path / "data"
        self.write(CONFIG.format(broker=free_port(), server=server))
        self.environment = os.environ | {"STATE_DIRECTORY": str(self.data), "NO_COLOR": "1", "COLUMNS": "120"}
        self._agents: list[subprocess.Popen[str]] = []

    def write(self, text: str, name: str = "all.yaml") -> None:
        (self.config / name).write_text(text)

    def change(self, old: str, new: str) -> None:
        text = (self.config / "all.yaml").read_text()
        assert old in text
        self.write(text.replace(old, new))

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge_agent", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=False)

    def ask(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.verb(verb, *arguments, "--config", str(self.config))

    def lines(self, verb: str, *arguments: str) -> list[dict[str, Any]]:
        run = self.ask(verb, *arguments, "--json")
        assert run.returncode == 0, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()]

    def run_agent(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edge_agent", "run", str(self.config)]
        agent = subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)
        self._agents.append(agent)
        return agent

    def status(self) -> dict[str, Any]:
        try:
            return next(control.ask(self.data / "agent.sock", "status"), {})
        except control.ControlError:
            return {}

    def close(self) -> None:
        for agent in self._agents:
            agent.kill()
            agent.wait()
            if agent.stderr:
                agent.stderr.close()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    command = [sys.executable, str(HERE / "modbus_server.py"), "--counter", "100", "--set", "2=1", "--set", "3=421"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield int(process.stdout.readline().split()[1])
    process.kill()
    process.communicate()


@pytest.fixture
def folder(tmp_path: Path, server: int) -> Iterator[Folder]:
    made = Folder(tmp_path, server)
    yield made
    made.close()


def until(condition: Callable[[], Any], what: str, timeout_s: float = 15) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return found


def has_read(folder: Folder) -> bool:
    return any(device["readings"] > 6 for device in folder.status().get("devices", []))


# ------------------------------------------------------------------------------------------------ checking


def test_check_of_a_sound_configuration_is_good(folder: Folder) -> None:
    run = folder.verb("check", str(folder.config))
    assert (run.returncode, run.stderr) == (0, "")
    assert "1 devices, 1 machines; 0 errors" in run.stdout


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("scale: 0.1", "skale: 0.1", "did you mean 'scale'"),
        ("driver: modbus", "driver: modbuss", "did you mean 'modbus'"),
        ('address: "holding:3"', 'address: "holding:70000"', "all.yaml:13:24"),
        ('address: "holding:3"', "address: 3", "coil:"),
        ("tag: plc.count", "tag: plc.cuont", "did you mean 'plc.count'"),
        ("poll: 200 ms", "poll: 200", "500 ms, 1 s"),
        ("machines:\n", "devices:\n", "devices"),
    ],
)
def test_check_names_the_place_and_the_cure(folder: Folder, old: str, new: str, says: str) -> None:
    folder.change(old, new)
    run = folder.verb("check", str(folder.config))
    assert run.returncode == 78
    assert says in run.stdout
    assert "all.yaml:" in run.stdout


def test_check_of_a_directory_that_is_not_there_says_so(folder: Folder) -> None:
    run = folder.verb("check", str(folder.config / "nothing"))
    assert run.returncode == 78
    assert "nothing" in run.stdout


def test_check_finds_a_name_that_is_used_twice_and_shows_both_places(folder: Folder) -> None:
    folder.write("devices:\n  PLC: {driver: modbus, url: tcp://127.0.0.1, tags: {}}\n", "second.yaml")
    run = folder.verb("check", str(folder.config))
    assert run.returncode == 78
    assert "second.yaml:2:3" in run.stdout
    assert "all.yaml:" in run.stdout


def test_check_prints_each_fault_as_json(folder: Folder) -> None:
    folder.change("scale: 0.1", "skale: 0.1")
    run = folder.verb("check", str(folder.config), "--json")
    (fault,) = [json.loads(line) for line in run.stdout.splitlines() if "skale" in line]
    assert fault["suggestion"] == "scale"
    assert fault["severity"] == "error"


# ------------------------------------------------------------------------------------------------- running


def test_run_with_an_unreadable_configuration_exits_78(folder: Folder) -> None:
    folder.change("enterprise: acme", "enterprise acme: [")
    run = folder.verb("run", str(folder.config))
    assert run.returncode == 78
    assert "all.yaml:" in run.stderr


@pytest.mark.parametrize("section", ["buffer: {refresh: 60}", "calendar: {production_day_starts: 6}", "spare: {}"])
def test_run_with_a_fault_outside_of_devices_and_machines_exits_78(folder: Folder, section: str) -> None:
    folder.write(section + "\n", "b.yaml")
    run = folder.verb("run", str(folder.config))
    assert run.returncode == 78
    assert "b.yaml:1:" in run.stderr
    assert not folder.data.exists()


def test_run_disables_what_is_wrong_and_runs_the_rest(folder: Folder) -> None:
    folder.write(
        "devices:\n  bad-plc: {driver: modbus, url: tcp://127.0.0.1, tags: {a: {address: 'holding:99999'}}}\n", "b.yaml"
    )
    folder.run_agent()
    until(lambda: has_read(folder), "readings of the sound device")
    assert list(folder.status()["disabled"]) == ["devices.bad-plc"]
    assert "misconfigured" in folder.ask("status").stdout


def test_run_of_a_second_agent_on_the_same_data_is_refused(folder: Folder) -> None:
    first = folder.run_agent()
    until(lambda: has_read(folder), "readings")
    second = folder.verb("run", str(folder.config))
    assert second.returncode == 1
    assert f"process {first.pid}" in second.stderr
    assert "agent.data" in second.stderr
    assert first.poll() is None


def test_run_with_a_file_that_is_no_database_keeps_it_and_goes_on(folder: Folder) -> None:
    folder.data.mkdir()
    (folder.data / "edge-agent.db").write_text("this is not a database, " * 500)
    agent = folder.run_agent()
    until(lambda: has_read(folder), "readings")
    agent.terminate()
    _, said = agent.communicate()
    assert agent.returncode == 0
    assert "kept as edge-agent.db.damaged-1" in said
    assert (folder.data / "edge-agent.db.damaged-1").read_text().startswith("this is not")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_in_good_order_on_a_signal(folder: Folder, number: signal.Signals) -> None:
    agent = folder.run_agent()
    until(lambda: has_read(folder), "readings")
    agent.send_signal(number)
    _, said = agent.communicate(timeout=15)
    assert agent.returncode == 0
    assert said.rstrip().endswith("stopped")
    assert not (folder.data / "agent.sock").exists()


def test_run_says_once_what_to_check_when_device_and_broker_do_not_answer(folder: Folder) -> None:
    text = (folder.config / "all.yaml").read_text()
    folder.write(text.replace(text.split("url: tcp://127.0.0.1:")[1].split("\n")[0], str(free_port())))
    agent = folder.run_agent()
    until(lambda: any(device["error"] for device in folder.status().get("devices", [])), "an error of the device")
    time.sleep(2.0)
    (device,) = folder.status()["devices"]
    assert "refused" in device["error"]
    agent.terminate()
    _, said = agent.communicate()
    assert len([line for line in said.splitlines() if "plc: lost" in line]) == 1
    assert len([line for line in said.splitlines() if "edge_agent.uplink" in line]) == 1, said


# ---------------------------------------------------------------------------------------------- inspecting


def test_verbs_ask_the_running_agent_and_afterwards_its_files(folder: Folder) -> None:
    agent = folder.run_agent()
    until(lambda: has_read(folder), "readings")
    until(lambda: folder.lines("records"), "a record")
    live = folder.lines("readings", "--tag", "plc.level")
    assert {item["value"] for item in live if item["quality"] == "good"} == {42.1}
    agent.terminate()
    agent.communicate()
    assert folder.lines("readings", "--tag", "plc.level")[: len(live)] == live
    (record, *_) = folder.lines("records", "--type", "production")
    assert record["event"]["type"] == "edge.production.v1"
    assert record["topic"] == "edge/v1/acme/lyon/hall/a/press/production/10s"
    assert folder.ask("records").stdout.startswith("id ")
    rows = list(csv.DictReader(folder.ask("readings", "--since", "1 h").stdout.splitlines()))
    assert {row["tag"] for row in rows} == {"plc.count", "plc.status", "plc.level"}
    assert list(rows[0]) == ["tag", "time", "value", "quality", "cause", "received"]
    assert folder.lines("readings", "--until", "1 h") == []
    run = folder.ask("status")
    assert run.returncode == 1
    assert "start it: edge-agent run" in run.stderr


def test_status_shows_devices_machines_buffer_and_uplink(folder: Folder) -> None:
    folder.run_agent()
    until(lambda: has_read(folder), "readings")
    shown = folder.ask("status").stdout
    for word in ("plc", "connected", "press", "buffer", "uplink", "not connected"):
        assert word in shown
    assert folder.lines("status")[0]["agent"] == "gw1"


def test_read_sweeps_a_device_with_and_without_an_agent(folder: Folder) -> None:
    alone = {row["tag"]: row for row in folder.lines("read", "plc")}
    assert (alone["plc.level"]["raw"], alone["plc.level"]["value"]) == (421, 42.1)
    folder.run_agent()
    until(lambda: has_read(folder), "readings")
    through = {row["tag"]: row for row in folder.lines("read", "plc")}
    assert (through["plc.level"]["raw"], through["plc.level"]["value"]) == (421, 42.1)
    assert through["plc.level"]["age_s"] < 5
    assert "plc.level" in folder.ask("read", "plc").stdout


def test_read_of_an_unknown_or_silent_device_says_what_to_do(folder: Folder) -> None:
    run = folder.ask("read", "plcc")
    assert run.returncode == 78
    assert "plc" in run.stderr
    text = (folder.config / "all.yaml").read_text()
    folder.write(text.replace(text.split("url: tcp://127.0.0.1:")[1].split("\n")[0], str(free_port())))
    run = folder.ask("read", "plc")
    assert run.returncode == 1
    assert "refused" in run.stderr


def test_listing_of_a_tag_or_type_that_there_is_not_says_so(folder: Folder) -> None:
    folder.run_agent()
    until(lambda: has_read(folder), "readings")
    assert "did you mean plc.level?" in folder.ask("readings", "--tag", "plc.leval").stderr
    assert folder.ask("readings", "--tag", "plc.level").stderr == ""
    assert folder.ask("records", "--type", "produktion").returncode == 2


def test_listing_without_a_store_says_that_no_agent_has_run(folder: Folder) -> None:
    run = folder.ask("readings")
    assert run.returncode == 1
    assert "no agent has run" in run.stderr


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--until", "25:00"]])
def test_time_that_is_none_is_a_usage_error(folder: Folder, arguments: list[str]) -> None:
    run = folder.ask("readings", *arguments)
    assert run.returncode == 2
    assert "2 h" in run.stderr.replace("\n", " ")


def test_version_and_drivers_tell_what_is_installed(folder: Folder) -> None:
    assert json.loads(folder.verb("version", "--json").stdout)["edge-agent"] == __version__
    drivers = [json.loads(line)["driver"] for line in folder.verb("drivers", "--json").stdout.splitlines()]
    assert drivers == ["modbus", "opcua", "serial"]
    assert folder.verb("nonsense").returncode == 2


def test_every_verb_has_help_with_an_example() -> None:
    from typer.testing import CliRunner

    from edge_agent.cli import app

    for command in app.registered_commands:
        assert command.callback
        shown = CliRunner().invoke(app, [command.callback.__name__, "--help"])
        assert shown.exit_code == 0
        assert "edge-agent " in shown.stdout, command.callback.__name__


@pytest.mark.parametrize(
    ("text", "ahead", "local"),
    [
        ("2026-11-23T07:00:00Z", False, "2026-11-23T08:00:00+01:00"),
        ("2026-11-23 08:00", False, "2026-11-23T08:00:00+01:00"),
        ("2026-07-01T08:00:30", False, "2026-07-01T08:00:30+02:00"),
        ("2026-11-23", False, "2026-11-23T00:00:00+01:00"),
    ],
)
def test_time_without_an_offset_is_in_the_zone_of_the_agent(text: str, ahead: bool, local: str) -> None:
    assert parse_time(text, "Europe/Paris", ahead) == parse(local)


def test_time_of_day_is_the_last_that_was_or_todays() -> None:
    zone = ZoneInfo("Asia/Tokyo")
    now = datetime.now(zone)
    for minutes in (-61, 61):
        moment = (now + timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        text = f"{moment:%H:%M}"
        was, is_today = parse_time(text, "Asia/Tokyo"), parse_time(text, "Asia/Tokyo", ahead=True)
        assert was is not None
        assert is_today is not None
        assert datetime.fromtimestamp(was // 10**9, zone).strftime("%H:%M") == text
        assert 0 <= now.timestamp() - was / 1e9 < 86_400 + 60
        assert datetime.fromtimestamp(is_today // 10**9, zone).date() == now.date()


@pytest.mark.parametrize("text", ["25:00", "yesterday", "2026-13-01", "14.05"])
def test_time_that_is_none_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="14:05"):
        parse_time(text, "Europe/Paris")
