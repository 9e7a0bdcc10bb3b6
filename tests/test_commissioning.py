"""The verbs of commissioning, as people type them: what is tried, shown, refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, free_port, needs_mosquitto
from test_cli import Folder, has_read, server, until

from edge_agent.cli.browse import tag_name
from edge_agent.cli.scan import fits
from edge_agent.cli.sniff import shown
from edge_agent.cli.target import place_of

__all__ = ["server"]  # the fixture


@pytest.fixture
def folder(tmp_path: Path, server: int) -> Iterator[Folder]:
    made = Folder(tmp_path, server)
    yield made
    made.close()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---------------------------------------------------------------------------------------------- check --connect


@needs_mosquitto
def test_check_connect_says_of_each_device_and_the_broker_that_it_works(folder: Folder, tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        text = (folder.config / "all.yaml").read_text()
        folder.write("\n".join(f'mqtt: {{url: "{broker.url}"}}' if line.startswith("mqtt:") else line
                               for line in text.splitlines()))  # fmt: skip
        run = folder.verb("check", str(folder.config), "--connect")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ok    plc: 3 of 3 tags in " in run.stdout
    assert f"ok    {broker.url}: MQTT 5, " in run.stdout


def test_check_connect_names_what_does_not_answer_and_what_to_check(folder: Folder) -> None:
    folder.write(
        f"devices:\n  gone: {{driver: modbus, url: tcp://127.0.0.1:{free_port()}, tags: {{a: {{address: 40001}}}}}}\n",
        "gone.yaml",
    )
    folder.change('address: "holding:3"', 'address: "holding:9000"')
    run = folder.verb("check", str(folder.config), "--connect")
    assert run.returncode == 1
    assert "FAIL  gone: connection refused by 127.0.0.1" in run.stdout
    assert "bad: level (" in run.stdout
    assert "all.yaml:13) illegal_data_address" in run.stdout
    assert "FAIL  mqtt://127.0.0.1:" in run.stdout


def test_check_connect_asks_the_running_agent_instead_of_taking_its_links(folder: Folder) -> None:
    folder.run_agent()
    until(lambda: has_read(folder), "readings")
    run = folder.verb("check", str(folder.config), "--connect", "--json")
    told = {one["name"]: one for one in lines(run.stdout)}
    assert told["plc"] == {"name": "plc", "works": True, "told": "connected, says the running agent"}
    assert run.returncode == 1, "the broker is not there"


# -------------------------------------------------------------------------------------------------------- watch


@pytest.mark.parametrize("agent", [False, True])
def test_watch_prints_each_change_with_or_without_a_running_agent(folder: Folder, agent: bool) -> None:
    if agent:
        folder.run_agent()
        until(lambda: has_read(folder), "readings")
    run = folder.ask("watch", "plc", "--every", "200 ms", "--for", "3 s", "--json")
    assert run.returncode == 0, run.stderr
    rows = lines(run.stdout)
    counts = [row["value"] for row in rows if row["tag"] == "plc.count"]
    assert len(counts) >= 3
    assert counts == sorted(counts)
    assert len([row for row in rows if row["tag"] == "plc.level"]) == 1, "it did not change"
    assert next(row for row in rows if row["tag"] == "plc.level")["value"] == 42.1


def test_read_says_where_a_bad_tag_stands(folder: Folder) -> None:
    folder.change('address: "holding:3"', 'address: "holding:9000"')
    run = folder.ask("read", "plc")
    assert run.returncode == 0
    (line,) = [line for line in run.stdout.splitlines() if "plc.level" in line]
    assert "bad" in line
    assert "illegal_data_address (" in line
    assert "all.yaml:13)" in line


def test_status_shows_which_tag_of_a_device_that_answers_is_bad(folder: Folder) -> None:
    folder.change('address: "holding:3"', 'address: "holding:9000"')
    folder.run_agent()
    until(lambda: has_read(folder), "readings")
    assert "plc.level (" in folder.ask("status").stdout


@pytest.mark.parametrize("verb", ["watch", "read"])
def test_device_that_is_not_configured_is_named_with_those_that_are(folder: Folder, verb: str) -> None:
    run = folder.ask(verb, "pcl")
    assert run.returncode == 78
    assert "no usable device 'pcl'; there are: plc" in run.stderr


# -------------------------------------------------------------------------------------------- what a verb is given


def test_target_that_is_neither_url_nor_device_is_named_with_the_devices(folder: Folder) -> None:
    run = folder.ask("scan", "modbus", "pcl")
    assert run.returncode == 78
    assert "'pcl' is no URL and no device of the configuration; there are: plc" in run.stderr


def test_settings_that_are_typed_have_the_faults_and_cures_of_a_file(folder: Folder) -> None:
    run = folder.ask("scan", "modbus", "tcp://127.0.0.1:1", "--set", "timeot=1 s", "--set", "max_read=999")
    assert run.returncode == 78
    assert "did you mean 'timeout'" in run.stderr
    assert "max_read" in run.stderr
    assert "command line" not in run.stderr


@pytest.mark.parametrize("verb", [("scan", "modbus"), ("decode",)])
def test_link_that_a_running_agent_holds_is_refused(folder: Folder, server: int, verb: tuple[str, ...]) -> None:
    folder.run_agent()
    until(lambda: has_read(folder), "readings")
    address = ("holding:0",) if verb == ("decode",) else ()
    run = folder.ask(*verb, f"tcp://127.0.0.1:{server}", *address)
    assert run.returncode == 1
    assert "the agent gw1 reads plc over tcp://127.0.0.1" in run.stderr
    assert "edge-agent watch plc" in run.stderr


def test_place_of_a_url_is_the_same_however_the_port_is_called(tmp_path: Path) -> None:
    real = tmp_path / "ttyUSB0"
    real.touch()
    name = tmp_path / "by-id"
    name.symlink_to(real)
    assert place_of(f"rtu://{name}?baud=9600") == place_of(str(name)) == place_of(str(real)) == os.fspath(real)
    assert place_of("tcp://PLC-1:502") == place_of("rtu+tcp://plc-1:502/") != place_of("tcp://plc-1:503")
    assert place_of("opc.tcp://plc:4840/a as agent") == "plc:4840"


# ------------------------------------------------------------------------------------------------------ showing


@pytest.mark.parametrize(
    ("value", "expect", "how"),
    [
        (21.4, 21.4, "as it is"),
        (21.4321, 21.4, "as it is"),
        (21.5, 21.4, None),
        (214, 21.4, "scale: 0.1"),
        (21400, 21.4, "scale: 0.001"),
        (7, 70.0, "scale: 10"),
        (0, 0, "as it is"),
        (3, 0, None),
        (True, 1, None),
        (None, 1, None),
        ("21.4", 21.4, None),
        (21.4, None, None),
    ],
)
def test_fits_marks_what_a_display_would_show(value: Any, expect: float | None, how: str | None) -> None:
    assert fits(value, expect) == how


def test_tag_names_are_short_allowed_and_unique() -> None:
    taken: set[str] = set()
    assert tag_name(["Oven 1", "Zone1.Temp"], taken) == "zone1_temp"
    assert tag_name(["Oven 2", "Zone1.Temp"], taken) == "oven_2_zone1_temp"
    assert tag_name(["Oven 2", "Zone1.Temp"], taken) == "oven_2_zone1_temp_2"
    assert tag_name(["Öfen", "°C"], taken) == "c"
    assert len(tag_name(["x" * 100], taken)) <= 64
    assert tag_name(["°"], taken) == "tag"


def test_bytes_of_a_line_are_shown_as_they_are_written_in_yaml() -> None:
    assert shown(b"\x02S S 1.0 g\r\n") == r"\x02S S 1.0 g\r\n"


def test_sniff_of_a_port_that_is_not_there_says_so(folder: Folder) -> None:
    began = time.monotonic()
    run = folder.ask("sniff", "/dev/serial/by-id/no-such-port", "--for", "1 s")
    assert run.returncode in (1, 78)
    assert run.stderr
    assert time.monotonic() - began < 15
