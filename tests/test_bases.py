"""How a configuration computes, kept as text: read again it is the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from floor import BY_TAG, SHIFTS, configured
from test_production import PRESS

from edge_agent import __version__, bases, record
from edge_agent.bases import Basis
from edge_agent.equipment import FromCount, IncrementRules, PulseRules, Rules, StatusMap
from edge_agent.equipment.rules import parse
from edge_agent.equipment.stops import ReasonRules
from edge_agent.equipment.work import WorkRules
from edge_agent.production import Machine
from edge_agent.shifts import Calendar, Shift
from edge_agent.summarizer.site import basis_of

CALENDAR = Calendar(
    "Europe/Paris",
    360,
    (Shift.of("night", "mon-fri", "22:00", "06:00", ["02:00-02:30"]),),
    frozenset({date(2026, 12, 25)}),
)
MACHINES = [
    PRESS,
    replace(PRESS, state=StatusMap("a.b", {1: "producing"}, StatusMap("a.mode", {"x": "setup", 2: "idle"}))),
    replace(PRESS, state=Rules((("down", parse("a.b > 3 and not (c.d == 1.5 or e.f <= -2)")), ("idle", parse("g.h"))))),
    replace(PRESS, state=FromCount((PulseRules("a.b", 4), IncrementRules("c.d", Fraction(1, 3))), 7, "e.f", {"A": 5})),
    replace(PRESS, goal=Fraction(22, 7), reasons=ReasonRules("a.b", {17: "x/y", "E": "z"}, ("q",), ("x",)),
            work=WorkRules("a.p", {"A": 3}, None, "a.j", "a.o", "a.q", {"lot": "a.l"})),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: type(machine.state).__name__)
def test_basis_that_is_read_again_is_the_one_that_was_written(machine: Machine) -> None:
    given = Basis({"press-01": machine}, CALENDAR)
    text = bases.write(given)
    assert bases.read(text) == given
    assert bases.write(bases.read(text)) == text


def test_basis_of_a_whole_configuration_is_the_one_that_was_written(tmp_path: Path) -> None:
    configuration = configured(tmp_path, BY_TAG + SHIFTS)
    given = basis_of(configuration, record.Publisher("gw1", "acme", "lyon", "edge/v1", __version__, "x"))
    assert bases.read(bases.write(given)) == given


def test_calendar_that_is_read_again_does_not_share_what_it_remembers() -> None:
    CALENDAR.shift_at(0)
    read = bases.read(bases.write(Basis({}, CALENDAR))).calendar
    assert read._days == {}
    assert read.shift_at(10**18) == CALENDAR.shift_at(10**18)


def test_basis_of_another_version_takes_defaults_and_leaves_what_it_does_not_know() -> None:
    given = json.loads(bases.write(Basis({"press-01": PRESS}, CALENDAR)))
    machine = given["of"][0][1]["of"][0][1]["of"]
    machine["of_tomorrow"] = 7
    del machine["goal"]
    assert bases.read(json.dumps(given)) == Basis({"press-01": PRESS}, CALENDAR)


@pytest.mark.parametrize(
    "text", ["", "{", "7", "{}", '{"is":"dict","of":[]}', '{"is":"Machine","of":{}}', '{"is":"Unheard","of":{}}', "[1]"]
)
def test_text_that_is_no_basis_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"basis|Expecting"):
        bases.read(text)
