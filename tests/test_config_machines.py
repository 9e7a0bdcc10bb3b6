"""Machines and sections: what they draw on must be there, and what cannot be computed is said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from config_driver import AGENT, DEVICE, MACHINE, REGISTRY, lines, loaded

from edge_agent.config import computed_windows, load

EXAMPLE = Path(__file__).parent / "cases" / "design_example"
STATE = "{tag: press.status, map: {1: producing, 2: down}}"
OTHER = DEVICE.replace("press", "oven").replace("//1", "//2").replace("{address: 1}", "{address: 1, scale: 10}")
OTHER += "      every: {address: 3, store: every}\n"


def _machine(line: str) -> str:
    return MACHINE + f"    {line}\n"


def _state(text: str) -> str:
    return MACHINE.replace(STATE, text)


def _counts(text: str) -> str:
    return MACHINE.replace("produced: {tag: press.count, max_rate: 2 /s}", text)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (MACHINE.replace("press.count", "press.cuont"), "6:30", "has no such tag; found 'press.cuont'"),
        (MACHINE.replace("press.count", "press.cuont"), "6:30", "did you mean 'press.count'?"),
        (MACHINE.replace("press.status", "pres.status"), "5:18", "there is no device 'pres'; found 'pres.status'"),
        (MACHINE.replace("press.status", "pres.status"), "5:18", "did you mean 'press.status'?"),
        (MACHINE.replace("press.status", "press"), "5:18", "expected a tag as device.tag; found 'press'"),
        (MACHINE.replace("press.count", "oven.count"), "6:30", "has a scale at d.yaml:12:27, and a state or a count"),
        (MACHINE.replace("press.count", "dead.count"), "6:30", "'dead', which is disabled: e.yaml:2:3: the key `url`"),
        (_machine("process: {t: {tag: dead.count}}"), "7:24", "depends on the device 'dead', which is disabled"),
        (_machine("process: {t: {tag: no.such}}"), "7:24", "there is no device 'no'"),
        (MACHINE.replace("{1: producing", "{1: producing, 1.0: down"), "5:52", "used twice; first at m.yaml:5:38"),
        (MACHINE.replace("{1: producing", '{1: producing, "1": down'), "5:52", "this key is used twice"),
        (MACHINE.replace("{1: producing", '{1: producing, "0x1": down, 0x1: down'), "5:65", "this key is used twice"),
        (MACHINE.replace("2: down", "2: stopped"), "5:55", "allowed: producing, delay, down, setup"),
        (MACHINE.replace("2: down", "2: stopped"), "5:55", "did you mean 'down'?"),
        (MACHINE.replace(", max_rate: 2 /s", ""), "6:14", "counts.produced: a counter needs max_rate, such as 2 /s"),
        (
            MACHINE.replace(", max_rate: 2 /s", "") + "    product: {tag: press.status}\n", "6:14",
            "or the machine or its products planned_run_time_per_item",
        ),
        (MACHINE.replace("2 /s", "2"), "6:53", "a rate is a number per s, min or h, such as 2 /s"),
        (MACHINE.replace("produced", "producd"), "6:14", "did you mean 'produced'?"),
        (_state("{when: {down: 'press.x'}}"), "5:26", "state.when.down: the device 'press' has no such tag"),
        (_state("{when: {down: press.status > 1 and pres.count}}"), "5:26", "did you mean 'press.count'?"),
        (_state("{when: {down: dead.status}}"), "5:26", "'dead', which is disabled"),
        (_state("{when: {down: 'press.status >> 1'}}"), "5:26", "at character 15: expected a tag or a number"),
        (_state("{when: {down: status}}"), "5:26", "at character 1: 'status' is no tag: write device.tag"),
        (_state("{when: {running: press.status}}"), "5:20", "did you mean 'producing'?"),
        (_state("{when: {}}"), "5:13", "needs 1 or more"),
        (_state("{from_count: {}}"), "5:13", "the key `stopped_after` is missing"),
        (_state("{from_count: {stopped_after: 0}}"), "5:41", "must be more than 0"),
        (_state("{from_count: {stopped_after: 3}}"), "5:13", "planned_run_time_per_item, such as 2.4 s, or its"),
        (
            _state("{from_count: {stopped_after: 3}}") + "    planned_run_time_per_item: 500 ms\n", "5:13",
            "a stop after 1.5 s is found only where press.count, polled each 1 s, is polled twice in that time",
        ),
        (
            _state("{from_count: {stopped_after: 3}}") + "    planned_run_time_per_item: 1 s\n"
            "    product: {planned_run_time_per_item: {A100: 500 ms, B200: 2 s}}\n", "5:13",
            "a stop after 1.5 s is found only where press.count, polled each 1 s, is polled twice in that time",
        ),
        (_state("{tag: press.status, map: packmal}"), "5:37", "did you mean 'packml'?"),
        (_state("{tag: press.status, map: packml, mode: {tag: press.mode, map: packml}}"), "5:57", "has no such tag"),
        (_state("{tag: press.status, map: packml, mode: {tag: oven.count, map: packml}}"), "5:57", "has a scale at"),
        (
            _state("{tag: press.status, map: packml, mode: {tag: press.count, map: {1: producing}}}"), "5:79",
            "did you mean 'production'?",
        ),
        (_state("{tag: press.status, map: {}, mode: {tag: press.count, map: {1: idle, 1.0: down}}}"), "5:81", "twice"),
        (_state("{when: {down: press.status}, mode: {tag: press.count, map: packml}}"), "5:41", "belongs to a status"),
        (_state("{when: {down: press.status}, from_count: {stopped_after: 3}}"), "5:5", "give exactly one of"),
        (_counts("produced: {tag: press.count, kind: pulse, reset: drop}"), "6:56", "only a counter has it; remove it"),
        (_counts("produced: {tag: press.count, kind: pulse, max_rate: 1 /s}"), "6:56", "a pulse has none"),
        (_counts("produced: {tag: press.count, kind: increment}"), "6:30", "add store: every to the tag at d.yaml:6:7"),
        (_counts("produced: {tag: oven.every, kind: increment}"), "6:30", "read at each poll, and as an increment the"),
        (_counts("produced: [{tag: press.count, kind: pulse}, {tag: press.status}]"), "6:58", "needs max_rate"),
        (_counts("produced: [{tag: press.count, kind: pulse}, {tag: press.count, kind: pulse}]"), "6:59", "twice"),
        (_counts("produced: {tag: press.count, kind: pulse}, scrap: {tag: press.count, kind: pulse}"), "6:65", "twice"),
        (_counts("produced: {tag: press.count, kind: pulse, reason: short}"), "6:56", "only scrap and rework"),
        (_counts("produced: [{tag: oven.count, kind: pulse}]"), "6:31", "has a scale at d.yaml:12:27"),
        (_counts("produced: [{tag: press.count, kind: plse}]"), "6:50", "did you mean 'pulse'?"),
        (_counts("produced: {tag: press.count, rolover: 5}"), "6:43", "did you mean 'rollover'?"),
        (_counts("produced: []"), "6:24", "give one count, or a list of some"),
        (_counts("produced: press.count"), "6:24", "expected keys with values below this"),
        (_counts("produced: {kind: pulse}"), "6:14", "the key `tag` is missing"),
        (_machine("summarize: [1 min, 7 min]"), "7:24", "not a window; found '7 min'; allowed: 10s, 15s"),
        (_machine("summarize: [1 min, shift, day]"), "7:24", "add them under calendar.shifts"),
        (_machine("short_stop: 60"), "7:17", "a duration is a number and its unit"),
        (_machine("goal: 3600"), "7:11", "a rate is a number per s, min or h, such as 2 /s"),
        (_machine("reason: {planned_stop: [break]}"), "7:5", "give tag with map, for the PLC's alarm code, or tree"),
        (_machine("reason: {map: {1: jam}, tree: [jam]}"), "7:14", "reason.map: belongs to a tag, such as"),
        (_machine("reason: {tag: press.count, tree: [jam]}"), "7:14", "reason.tag: belongs to a map of its values"),
        (_machine("reason: {tag: press.count, map: {}}"), "7:32", "needs 1 or more"),
        (_machine("reason: {tag: press.cuont, map: {1: jam}}"), "7:19", "did you mean 'press.count'?"),
        (_machine("reason: {tag: dead.count, map: {1: jam}}"), "7:19", "'dead', which is disabled"),
        (_machine("reason: {tag: oven.count, map: {1: jam}}"), "7:19", "12:27, and a reason needs the raw value"),
        (_machine("reason: {tag: press.count, map: {1: jam, 0x1: fire}}"), "7:46", "used twice; first at m.yaml:7:38"),
        (_machine("reason: {tag: press.count, map: {1: jam, '1': fire}}"), "7:46", "this key is used twice"),
        (_machine("reason: {tag: press.count, map: {1: unclassified}}"), "7:41", "choose another name, such as other"),
        (_machine("reason: {tree: [jam, Unclassified/jam]}"), "7:26", "is what a stop without a reason is called"),
        (_machine("reason: {tree: [jam//feed]}"), "7:21", "none of them is empty; found 'jam//feed'"),
        (_machine("reason: {tree: ['']}"), "7:21", "is empty; a reason is names separated by /, such as hydraulics"),
        (_machine('reason: {tree: ["a\\tb"]}'), "7:21", "text on one line, without control characters; remove them"),
        (_machine(f"reason: {{tree: [{'a' * 201}]}}"), "7:21", "a reason has at most 200 characters, this one 201"),
        (_machine("reason: {tree: jam}"), "7:20", "expected a list such as [a, b]"),
        (_machine("reason: {tree: [jam], planed_stop: [jam]}"), "7:27", "did you mean 'planned_stop'?"),
        (
            _machine("reason: {tag: press.count, map: {1: feed/jam}, tree: [fire], planned_stop: [fire, feed/jams]}"),
            "7:87",
            "is no reason of map or tree, and above none; add it to tree, or write one of theirs; found 'feed/jams'; "
            "allowed: feed, feed/jam, fire; did you mean 'feed/jam'?",
        ),
        (_machine("reason: {tree: [feed/jam], planned_stop: [jam, fee]}"), "7:52", "did you mean 'feed'?"),
        (_machine("reason: {tree: [feed/jam], planned_stop: [jam, fee]}"), "7:47", "planned_stop[0]: is no reason of"),
        (
            _counts("scrap: {tag: press.count, kind: pulse, reason: a/ }, good: {tag: oven.every, kind: pulse}"),
            "6:61",
            "none of them is empty; found 'a/'",
        ),
        (_machine("product: {}"), "7:5", "give the tag that says the product, or planned_run_time_per_item by product"),
        (_machine("product: {tag: oven.count}"), "7:20", "has a scale at d.yaml:12:27, and a product needs the raw"),
        (_machine("product: {tag: press.cuont}"), "7:20", "did you mean 'press.count'?"),
        (_machine("product: {planned_run_time_per_item: {A: 0 s}}"), "7:46", "must be more than zero"),
        (_machine("product: {planned_run_time_per_item: {A: 3}}"), "7:46", "a duration is a number and its unit"),
        (_machine("product: {planned_run_time_per_item: {'': 3 s}}"), "7:43", "the name is not empty"),
        (
            _machine("product: {planned_run_time_per_item: {007: 3 s}}"), "7:43",
            "is the number 7; write it so, or in quotes where the product is a text; found '007'",
        ),
        (_machine("product: {planned_run_time_per_item: {1: 3 s, 1e3: 3 s}}"), "7:51", "is the number 1000; write it"),
        (_machine("product: {planned_run_time_per_item: {0x10: 3 s}}"), "7:43", "is the number 16; write it so"),
        (
            _machine("product: {planned_run_time_per_item: {A: 3 s, ' A': 3 s}}"), "7:51",
            "is the same product as 'A' at m.yaml:7:43; remove one",
        ),
        (_machine("product: {run_time: 3 s}"), "7:15", "allowed: planned_run_time_per_item, tag"),
        (_machine("job: {operation: press.count}"), "7:5", "the key `tag` is missing: The order, as text or number"),
        (_machine("job: {tag: oven.count}"), "7:16", "has a scale at d.yaml:12:27, and a job needs the raw value"),
        (_machine("job: {tag: press.count, operation: no.such}"), "7:40", "job.operation: there is no device 'no'"),
        (_machine("job: {tag: press.count, planned_quantity: oven.count}"), "7:47", "and a job needs the raw value"),
        (_machine("job: {tag: press.count, fields: {batch: press.btch}}"), "7:45", "job.fields.batch: the device"),
        (_machine("job: {tag: press.count, fields: {no batch: press.count}}"), "7:38", "a name has letters, digits"),
        (_machine("job: {tag: press.count, order: press.count}"), "7:29", "this key is not known; allowed: fields"),
        (MACHINE.replace("press-01", "press 01"), "2:3", "did you mean 'press-01'?"),
    ],
)  # fmt: skip
def test_mistake_in_a_machine_is_a_fault_at_its_place_and_disables_it(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    sound = MACHINE.replace("press-01", "sound")
    dead = DEVICE.replace("press", "dead").replace("url", "ulr").replace("//1", "//3")
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE + OTHER.replace("devices:\n", ""), e=dead, m=text, s=sound)
    assert list(configuration.machines) == ["sound"]
    assert sorted(configuration.disabled)[0] == "devices.dead"
    assert len(configuration.disabled) == 2
    assert not configuration.fatal
    found = [line for line in lines(configuration) if line.startswith(f"m.yaml:{place}: error: machines.")]
    assert any(words in line for line in found), lines(configuration)


def test_rule_may_use_a_tag_with_a_scale(tmp_path: Path) -> None:
    text = _state("{when: {producing: oven.count > 1.5, down: true}}")
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE + OTHER.replace("devices:\n", ""), m=text)
    assert lines(configuration) == []
    assert configuration.machines["press-01"].state.when == {"producing": "oven.count > 1.5", "down": "true"}


def test_named_map_is_the_map(tmp_path: Path) -> None:
    text = _state("{tag: press.status, map: packml-tmc, mode: {tag: press.count, map: machinery}}")
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE, m=text)
    state = configuration.machines["press-01"].state
    assert state.map is not None
    assert state.mode is not None
    assert (state.map[4], state.map["Execute"], state.mode.map[1]) == ("producing", "producing", "planned_stop")


def test_what_is_not_computed_yet_is_a_warning_at_its_place(tmp_path: Path) -> None:
    text = _machine("goal: 1400 /h\n    process: {t: {tag: press.count}}")
    assert lines(loaded(tmp_path, agent=AGENT, d=DEVICE, m=text)) == [
        "m.yaml:8:5: warning: machines.press-01.process: comes with a later version; it is accepted and not used yet",
    ]


def test_windows_of_jobs_need_no_settings_and_are_none_of_the_calendar(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE, m=_machine("summarize: [1 min, job, 1 h, day, 1min]"))
    assert lines(configuration) == []
    machine = configuration.machines["press-01"]
    assert computed_windows(machine) == ("1min", "1h", "day")
    assert "job" in machine.summarize


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: {from: 06:00, to: 14:00}\n    b: {from: 13:59, to: 22:00}", "4:5", "overlaps the shift 'a' at c.yaml:3:5"),
        ("a: {from: 06:00, to: 14:00}\n    b: {from: 14:00, to: 06:00}", "", ""),
        ("a: {days: sun, from: 22:00, to: 06:00}\n    b: {days: mon, from: 05:00, to: 09:00}", "4:5", "overlaps the"),
        ("a: {days: mon-fri, from: 06:00, to: 06:00}\n    b: {days: sat-sun, from: 06:00, to: 06:00}", "", ""),
        ("off: {from: 06:00, to: 14:00}", "3:5", "'off' is the name of the time outside all shifts"),
        ("a: {days: mon-wed-fri, from: 06:00, to: 07:00}", "3:15", "or mon, wed, sat; found 'mon-wed-fri'"),
        ("a: {from: 22:00, to: 06:00, breaks: [02:00-02:15, 05:50-06:10]}", "3:55", "[1]: lies outside the shift"),
        ("a: {from: 06:00, to: 14:00, breaks: [09:00-09:15, 09:10-09:20]}", "3:55", "overlaps the break 09:00-09:15"),
        ("a: {from: 06:00, to: 24:00}", "3:26", "expected a time of day such as \"06:00\"; found '24:00'"),
    ],
)  # fmt: skip
def test_shifts_are_checked_against_each_other(tmp_path: Path, text: str, place: str, words: str) -> None:
    configuration = loaded(tmp_path, agent=AGENT, c=f"calendar:\n  shifts:\n    {text}\n")
    found = lines(configuration)
    assert [line.partition(": error: ")[0] for line in found] == ([f"c.yaml:{place}"] if place else [])
    assert all(words in line for line in found)
    assert configuration.fatal == bool(place)


def test_closed_days_are_dates_of_this_century_and_stand_once(tmp_path: Path) -> None:
    text = "calendar:\n  closed: [2026-12-25, 20261226, 26.12.2026, 0]\n"
    assert [line.partition(";")[0] for line in lines(loaded(tmp_path, agent=AGENT, c=text))] == [
        "c.yaml:2:24: error: calendar.closed[1]: expected a date such as 2026-12-25",
        "c.yaml:2:34: error: calendar.closed[2]: expected a date such as 2026-12-25",
    ]
    text = "calendar:\n  closed: [2026-12-25, 2026-12-25, 0]\n"
    assert [line.partition(";")[0] for line in lines(loaded(tmp_path, agent=AGENT, c=text))] == [
        "c.yaml:2:24: warning: calendar.closed[1]: is closed already",
        "c.yaml:2:36: error: calendar.closed[2]: expected a date such as 2026-12-25",
    ]


@pytest.mark.parametrize(
    ("setting", "place", "words"),
    [
        ("ca: /no/such.pem", "2:35", "mqtt.ca: there is no file '/no/such.pem'"),
        ("certificate: /no/such.pem", "2:1", "mqtt: certificate and key belong together: give both or neither"),
        ("version: 5", "", ""),
        ("version: 3.1.1", "", ""),
    ],
)
def test_broker_settings_are_checked_with_what_they_name(tmp_path: Path, setting: str, place: str, words: str) -> None:
    found = lines(loaded(tmp_path, agent=AGENT.replace("localhost}", f"localhost, {setting}}}")))
    assert [line.partition(": error: ")[0] for line in found] == ([f"agent.yaml:{place}"] if place else [])
    assert all(words in line for line in found)


@pytest.mark.parametrize(
    "url", ["mqtt://", "http://host", "mqtt://host:0", "mqtt://host:99999", "mqtt://host:x", "mqtt://[::1", "host:1883"]
)
def test_url_that_is_no_broker_is_a_fault(tmp_path: Path, url: str) -> None:
    (line,) = lines(loaded(tmp_path, agent=AGENT.replace("mqtt://localhost", f'"{url}"')))
    assert line.startswith("agent.yaml:2:13: error: mqtt.url: ")


def test_document_is_the_same_for_the_same_meaning_and_its_hash_follows_it(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = loaded(tmp_path / "one", a=AGENT, d=DEVICE, m=MACHINE)
    two = loaded(
        tmp_path / "two", all=MACHINE + "# moved\n" + DEVICE.replace("{address: 1}", "{ 'address': 1 }") + AGENT
    )
    assert one.document == two.document
    assert one.hash == two.hash
    assert re.fullmatch("sha256:[0-9a-f]{64}", one.hash)
    assert json.loads(one.document)["machines"]["press-01"]["state"]["map"] == {"1": "producing", "2": "down"}
    changed = loaded(tmp_path / "one", d=DEVICE.replace("address: 1", "address: 3"))
    assert changed.hash != one.hash


def test_tags_are_named_by_device_and_polled_as_configured(tmp_path: Path) -> None:
    text = DEVICE.replace("url:", "poll: 2 s\n    url:").replace("{address: 2}", "{address: 2, poll: 100 ms}")
    (device,) = loaded(tmp_path, agent=AGENT, d=text).devices.values()
    assert [(tag.name, tag.short_name, tag.poll_ns) for tag in device.tags] == [
        ("press.count", "count", 2_000_000_000),
        ("press.status", "status", 100_000_000),
    ]


def test_example_of_the_design_loads_with_the_expected_warnings_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    for name in ("ca.pem", "gw1.pem", "gw1.key"):
        (tmp_path / name).touch(mode=0o600)
    for path in EXAMPLE.glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("/etc/edge-agent/tls", str(tmp_path))
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    configuration = load(tmp_path)
    assert configuration.errors == ()
    assert [".".join(map(str, fault.where)) for fault in configuration.warnings] == [
        "mqtt.password",
        "machines.press-01.process",
    ]
    assert list(configuration.devices) == ["press-01-plc", "oven-plc", "scale-3"]
    assert len(configuration.devices["press-01-plc"].tags) == 9
    assert list(configuration.machines) == ["press-01"]


def test_only_the_drivers_that_are_asked_for_are_imported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AGENT)
    code = (
        "import sys; from pathlib import Path; from edge_agent.config import load;"
        f"assert not load(Path({str(tmp_path)!r})).faults;"
        "bad = {'edge_agent_modbus', 'asyncua', 'pymodbus', 'serial', 'rich', 'typer', 'paho'} & set(sys.modules);"
        "sys.exit(', '.join(bad) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plant_of_twenty_devices_loads_quickly(tmp_path: Path) -> None:
    for number in range(20):
        tags = "".join(f"      t{tag}: {{address: {tag}, unit: Cel, deadband: 0.5}}\n" for tag in range(10))
        head = DEVICE[: DEVICE.index("      count:")].replace("press", f"d{number}").replace("//1", f"//{number}")
        (tmp_path / f"d{number}.yaml").write_text(head + tags)
    loaded(tmp_path, agent=AGENT)
    began = time.process_time()
    configuration = load(tmp_path, REGISTRY)
    spent = time.process_time() - began
    assert configuration.faults == ()
    assert len(configuration.devices) == 20
    assert spent < 0.5  # measured: 0.06 s; the rest is room for a slow machine
