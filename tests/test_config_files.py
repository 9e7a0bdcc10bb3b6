"""The files of a configuration: which are read, how they merge, and what cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from config_driver import AGENT, DEVICE, MACHINE, REGISTRY, lines, loaded

from edge_agent.config import load
from edge_agent.config.files import MAX_FILE_BYTES

OTHER = DEVICE.replace("press", "oven").replace("bench://1", "bench://2")


def test_files_in_any_folder_merge_by_name(tmp_path: Path) -> None:
    (tmp_path / "devices" / "deep").mkdir(parents=True)
    (tmp_path / "devices" / "deep" / "oven.yaml").write_text(OTHER)
    configuration = loaded(tmp_path, agent=AGENT, press=DEVICE, machine=MACHINE)
    assert configuration.faults == ()
    assert list(configuration.devices) == ["oven", "press"]
    assert list(configuration.machines) == ["press-01"]
    assert configuration.agent is not None
    assert configuration.agent.name == "gw1"
    assert not configuration.fatal


def test_hidden_and_underlined_and_foreign_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "_old").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("_old/a.yaml", ".git/b.yml", ".c.yaml", "_d.yml", "e.txt", "f.yaml.bak", "g.yaml~"):
        (tmp_path / name).write_text("{")
    assert loaded(tmp_path, agent=AGENT).faults == ()


@pytest.mark.parametrize(("name", "better"), [("press.yml", "press.yaml"), ("PRESS.YAML", "PRESS.yaml")])
def test_file_with_the_wrong_ending_is_an_error_that_says_to_rename_it(tmp_path: Path, name: str, better: str) -> None:
    (tmp_path / name).write_text(DEVICE)
    configuration = loaded(tmp_path, agent=AGENT)
    assert lines(configuration) == [f"{name}: error: this file is not read; rename it to {better}"]
    assert configuration.fatal


def test_links_are_followed_but_never_round_and_round(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "agent.yaml").write_text(AGENT)
    (outside / "back").symlink_to(inside)
    (inside / "linked").symlink_to(outside)
    (inside / "twice.yaml").symlink_to(outside / "agent.yaml")
    configuration = load(inside, REGISTRY)
    assert configuration.faults == ()
    assert configuration.agent is not None


def test_single_file_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(AGENT + DEVICE + MACHINE)
    assert list(load(path, REGISTRY).machines) == ["press-01"]
    assert load(path, REGISTRY).faults == ()


def test_missing_folder_is_one_fault_with_the_cure(tmp_path: Path) -> None:
    configuration = load(tmp_path / "none", REGISTRY)
    (line,) = map(str, configuration.faults)
    assert line.startswith(f"{tmp_path}/none: error: there is no such folder; name the folder of the configuration")
    assert configuration.fatal


def test_empty_folder_is_one_fault_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    (fault,) = load(tmp_path, REGISTRY).faults
    assert str(fault).startswith(f"{tmp_path}: error: there is no *.yaml file here; name another folder")


def test_missing_sections_are_named_with_what_to_write(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, press=DEVICE)
    assert [fault.where for fault in configuration.errors] == [("agent",), ("mqtt",)]
    assert "add `agent:` with name, enterprise and site" in str(configuration.errors[0])
    assert "records have nowhere to go; add `mqtt:`" in str(configuration.errors[1])
    assert configuration.fatal


@pytest.mark.parametrize(
    ("data", "place", "words"),
    [
        (b"agent: {name: \xfc}", "x.yaml:1:15", "byte 0xfc is not UTF-8; save the file as UTF-8"),
        (b"a: 1\n\xc3\xa9: \xe9", "x.yaml:2:4", "byte 0xe9 is not UTF-8"),
        (AGENT.encode("utf-16"), "x.yaml", "this file is UTF-16; save it as UTF-8"),
        (b"# " + b"x" * MAX_FILE_BYTES, "x.yaml", "this file is larger than 4 MB; split it"),
        (b"- agent\n", "x.yaml:1:1", "a file begins with a key such as `devices:` or `agent:`, not with a list"),
        (b"agent\n", "x.yaml:1:1", "not with a single value"),
    ],
)  # fmt: skip
def test_file_that_cannot_be_read_is_one_fault_and_stops_the_agent(
    tmp_path: Path, data: bytes, place: str, words: str
) -> None:
    (tmp_path / "x.yaml").write_bytes(data)
    configuration = load(tmp_path, REGISTRY)
    (line,) = lines(configuration)  # what seems to be missing may stand in that file
    assert line.startswith(f"{place}: error: ")
    assert words in line
    assert configuration.fatal


def test_file_of_another_kind_or_gone_is_a_fault_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    assert lines(load(tmp_path, REGISTRY)) == [
        "gone.yaml: error: this file cannot be read: no such file or directory",
        "pipe.yaml: error: this is not an ordinary file; remove it from the configuration",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch(mode=0)
    assert lines(load(tmp_path, REGISTRY)) == ["a.yaml: error: this file cannot be read: permission denied"]


def test_mark_of_byte_order_and_line_ends_of_windows_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + (AGENT + DEVICE).replace("\n", "\r\n").encode())
    (tmp_path / "empty.yaml").touch()
    configuration = load(tmp_path, REGISTRY)
    assert configuration.faults == ()
    assert configuration.devices["press"].settings.url == "bench://1"


def test_unknown_section_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE.replace("devices", "devcies"))
    assert lines(configuration) == [
        "d.yaml:1:1: error: devcies: this key is not known; allowed: agent, buffer, mqtt, calendar, devices, machines; "
        "did you mean 'devices'?"
    ]
    assert configuration.fatal


def test_section_in_two_files_is_an_error_with_both_places(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, a=AGENT, b="agent: {name: b, enterprise: acme, site: lyon}\n")
    assert lines(configuration) == ["b.yaml:1:1: error: agent: stands in one file only; it is also at a.yaml:1:1"]


def test_device_named_twice_is_an_error_with_both_places_and_disabled(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, a=AGENT, b=DEVICE, c="\n" + DEVICE, d=OTHER)
    assert lines(configuration) == ["c.yaml:3:3: error: devices.press: this name is used twice; first at b.yaml:2:3"]
    assert list(configuration.devices) == ["oven"]
    assert list(configuration.disabled) == ["devices.press"]
    assert not configuration.fatal


def test_name_that_differs_only_in_case_is_an_error_with_both_places(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, a=AGENT, b=DEVICE, c=DEVICE.replace("press", "Press"))
    assert lines(configuration) == [
        "c.yaml:2:3: error: devices.Press: this name (as 'press', and case is ignored) is used twice; "
        "first at b.yaml:2:3"
    ]
    assert list(configuration.devices) == ["press"]


def test_names_that_are_no_mapping_are_an_error(tmp_path: Path) -> None:
    (line,) = lines(loaded(tmp_path, a=AGENT, b="devices:\n  - press\n"))
    assert line == "b.yaml:2:3: error: devices: expected names, each with its settings below it, not a list"


def test_syntax_error_in_one_file_hides_no_fault_of_another(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, a="agent: {", b=DEVICE.replace("url", "ulr"), m=MACHINE)
    texts = lines(configuration)
    assert texts[0].startswith("a.yaml:")
    assert any("did you mean 'url'?" in text for text in texts)
    assert configuration.fatal
