"""A machine's settings as people write them, to the rules of the arithmetic."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from fakes import S

from edge_agent.config import Configuration, load
from edge_agent.equipment import CounterRules, FromCount, IncrementRules, PulseRules, Rules, StateSource, StatusMap
from edge_agent.equipment.named_maps import MODE_MAPS, PRODUCTION
from edge_agent.equipment.rules import parse
from edge_agent.machines import calendar_of, summarized, tags_of

CONFIG = """
agent: {name: gw1, enterprise: acme, site: lyon, timezone: Europe/Paris}
mqtt: {url: "mqtt://127.0.0.1:1"}
calendar:
  production_day_starts: "06:00"
  shifts: {early: {days: mon-fri, from: "06:00", to: "14:00", breaks: ["09:00-09:15"]}}
  closed: [2026-12-25]
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:1
    tags:
      count: {address: "holding:0", type: uint32, poll: 5 s}
      scrap: {address: "holding:4"}
      status: {address: "holding:2"}
machines:
  press:
    area: hall
    line: a
    state: {tag: plc.status, map: {1: producing}}
    counts:
      produced: {tag: plc.count, rollover: 4294967296, items_per_count: 4, reset: drop}
      scrap: {tag: plc.scrap, max_rate: 30 /min}
    planned_run_time_per_item: 1500 ms
    short_stop: 10 s
    settle: 2 s
    setup_counts_as: outside_planned_time
    when_offline: down
    summarize: [10 s, shift, 1 h]
"""


MACHINERY = {
    key: "producing" if word == PRODUCTION else word for key, word in MODE_MAPS["machinery"].items()
}  # fmt: skip


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    (tmp_path / "all.yaml").write_text(CONFIG)
    return load(tmp_path)


def test_machine_holds_each_tag_for_the_refresh_and_three_of_its_polls(configuration: Configuration) -> None:
    polls = {tag.name: tag.poll_ns for tag in configuration.devices["plc"].tags}
    made = summarized("press", configuration.machines["press"], "acme/lyon/hall/a/press", polls, 60 * S)
    assert made.machine.hold_ns == {"plc.status": 63 * S, "plc.count": 75 * S, "plc.scrap": 63 * S}
    assert tags_of(made.settings) == made.machine.tags == ("plc.status", "plc.count", "plc.scrap")
    assert (made.windows, made.settle_ns) == (("10s", "shift", "1h"), 2 * S)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            "{tag: plc.status, map: {1: producing}, mode: {tag: plc.mode, map: machinery}}",
            StatusMap("plc.status", {1: "producing"}, StatusMap("plc.mode", MACHINERY)),
        ),
        (
            "{when: {down: plc.mode, producing: plc.status > 5}}",
            Rules((("down", parse("plc.mode")), ("producing", parse("plc.status > 5")))),
        ),
        (
            "{from_count: {stopped_after: 2.5}}",
            FromCount((CounterRules("plc.count", Fraction(2), 2**32, "drop", 4),), 15 * S),
        ),
    ],
)
def test_machine_has_its_source_of_state_and_watches_its_tags(
    tmp_path: Path, state: str, expected: StateSource
) -> None:
    text = CONFIG.replace("{tag: plc.status, map: {1: producing}}", state)
    (tmp_path / "all.yaml").write_text(
        text.replace("      status:", '      mode: {address: "holding:3"}\n      status:')
    )
    configuration = load(tmp_path)
    polls = {tag.name: tag.poll_ns for tag in configuration.devices["plc"].tags}
    made = summarized("press", configuration.machines["press"], "s", polls, 60 * S)
    assert made.machine.state == expected
    assert set(expected.tags) <= set(tags_of(made.settings))
    assert set(tags_of(made.settings)) == set(made.machine.tags) == set(made.machine.hold_ns)


def test_machine_carries_every_choice_of_its_settings(configuration: Configuration) -> None:
    polls = {tag.name: tag.poll_ns for tag in configuration.devices["plc"].tags}
    machine = summarized("press", configuration.machines["press"], "s", polls, 60 * S).machine
    (produced,), (scrap,) = machine.counts["produced"], machine.counts["scrap"]
    assert isinstance(produced, CounterRules)
    assert isinstance(scrap, CounterRules)
    assert produced.max_rate == Fraction(2), "three times the planned rate, where none is given"
    assert (produced.rollover, produced.items_per_count, produced.reset) == (2**32, 4, "drop")
    assert (scrap.max_rate, scrap.rollover, scrap.items_per_count, scrap.reset) == (Fraction(1, 2), None, 1, "count")
    definition = machine.definition
    assert (definition.planned_run_time_ns, definition.short_stop_ns) == (3 * S // 2, 10 * S)
    assert (definition.setup_counts_as, definition.idle_counts_as) == ("outside_planned_time", "availability_loss")
    assert definition.when_offline == "down"


COUNTED = """
devices:
  scanner:
    driver: serial
    url: socket://127.0.0.1:1
    frame: {end: "\\n"}
    pattern: '(?P<pieces>\\d+)'
    tags: {pieces: {address: pieces, type: int, store: every}}
machines:
  packer:
    area: hall
    line: a
    state: {tag: plc.status, map: {1: producing}}
    counts:
      good: [{tag: scanner.pieces, kind: increment, max_rate: 100 /s}, {tag: plc.count, items_per_count: 2}]
      scrap: [{tag: plc.scrap, kind: pulse, items_per_count: 3, reason: surface/burr}]
    planned_run_time_per_item: 1500 ms
"""


def test_machine_has_every_kind_of_count_and_silence_of_an_increment_is_no_gap(
    tmp_path: Path, configuration: Configuration
) -> None:
    (tmp_path / "counted.yaml").write_text(COUNTED)
    configuration = load(tmp_path)
    assert configuration.errors == ()
    polls = {tag.name: tag.poll_ns for device in configuration.devices.values() for tag in device.tags}
    machine = summarized("packer", configuration.machines["packer"], "s", polls, 60 * S).machine
    assert machine.counts == {
        "good": (
            IncrementRules("scanner.pieces", Fraction(100)),
            CounterRules("plc.count", Fraction(2), items_per_count=2),
        ),
        "scrap": (PulseRules("plc.scrap", 3, "surface/burr"),),
    }
    assert machine.hold_ns == {"plc.status": 63 * S, "scanner.pieces": None, "plc.count": 75 * S, "plc.scrap": 63 * S}


def test_calendar_has_the_shifts_the_breaks_and_the_closed_days(configuration: Configuration) -> None:
    calendar = calendar_of(configuration.calendar, "Europe/Paris")
    assert calendar.closed == {date(2026, 12, 25)}
    assert (calendar.zone, calendar.production_day_starts_min) == ("Europe/Paris", 360)
    (early,) = calendar.shifts
    assert (early.name, early.days, early.start_min, early.end_min) == ("early", frozenset(range(5)), 360, 840)
    assert early.breaks == ((540, 555),)
