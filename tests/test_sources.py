"""Where a machine's state comes from: a status with its mode, the named maps, and the count of items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.equipment import LABELS, STATES, CounterRules, CountRules, IncrementRules, PulseRules, Row, Timeline
from edge_agent.equipment.named_maps import MODE_MAPS, PRODUCTION, STATE_MAPS
from edge_agent.equipment.rules import parse
from edge_agent.equipment.sources import FromCount, Rules, StateSource, StatusMap, Unmapped
from edge_agent.metrics import Definition
from edge_agent.production import (
    COUNTER_LOOKBACK_READINGS,
    Machine,
    WindowData,
    compute,
    lookahead_ns,
    lookback_ns,
    unsettled_since_ns,
)
from edge_agent.shifts import Calendar

S = 1_000_000_000
END, KNOWN, HOLD = 60, 55, 20
STATUS = StatusMap("plc.status", {1: "producing", 2: "delay"})
MODED = StatusMap(
    "plc.status",
    {1: "producing", 2: "delay"},
    StatusMap("plc.mode", {1: "producing", 2: "planned_stop", 3: "setup"}),
)


def row(second: int, value: Any, quality: int = 0, cause: str | None = None) -> Row:
    return (second * S, value, quality, cause)


def over(
    source: StateSource, rows: Mapping[str, Sequence[Row]], offline: str = "unknown", hold: int = HOLD
) -> Timeline:
    holds = dict.fromkeys(source.tags, hold * S)
    return source.timeline(rows, holds, (0, END * S), KNOWN * S, offline)


def words(timeline: Timeline) -> list[tuple[str, int]]:
    """Each run of one label, with the second at which it begins."""
    found: list[tuple[str, int]] = []
    for label, start in zip(timeline.labels.tolist(), timeline.edges.tolist(), strict=False):
        if not found or found[-1][0] != LABELS[label]:
            found.append((LABELS[label], start // S))
    return found


# ------------------------------------------------------------------------------------------- status and mode


def test_mode_overrides_the_status_unless_it_is_production() -> None:
    rows = {
        "plc.status": [row(0, 1), row(10, 2), row(20, 1)],
        "plc.mode": [row(0, 1), row(15, 2), row(25, 3), row(30, 1)],
    }
    assert words(over(MODED, rows))[:5] == [
        ("producing", 0), ("delay", 10), ("planned_stop", 15), ("setup", 25), ("producing", 30),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (row(5, 9), "unmapped_state"),
        (row(5, None, 2, "agent_down"), "agent_down"),
        (row(5, None, 2, "X"), "bad_quality"),
    ],
)
def test_mode_that_is_unknown_makes_the_state_unknown(mode: Row, expected: str) -> None:
    rows = {"plc.status": [row(0, 1)], "plc.mode": [row(0, 1), mode]}
    assert words(over(MODED, rows))[:2] == [("producing", 0), (expected, 5)]


def test_mode_that_is_known_needs_no_status() -> None:
    rows = {"plc.status": [row(0, None, 2, "bad_quality")], "plc.mode": [row(0, 2), row(5, 1)]}
    assert words(over(MODED, rows))[:2] == [("planned_stop", 0), ("bad_quality", 5)]


def test_mode_of_a_device_that_went_offline_is_what_the_machine_says() -> None:
    rows = {"plc.status": [row(0, 1)], "plc.mode": [row(0, 1), row(5, None, 2, "device_offline")]}
    assert words(over(MODED, rows, offline="down"))[:2] == [("producing", 0), ("down", 5)]


def test_mode_that_is_uncertain_makes_the_state_uncertain() -> None:
    rows = {"plc.status": [row(0, 1, 1), row(4, 1)], "plc.mode": [row(0, 2), row(2, 1), row(6, 1, 1), row(8, 1)]}
    found = over(MODED, rows)
    doubtful = [
        second for second in range(12) if found.uncertain[np.searchsorted(found.edges, second * S, "right") - 1]
    ]
    assert doubtful == [2, 3, 6, 7], "until 2 the mode decides, and it is good"


def test_values_that_no_map_knows_are_named_with_their_map() -> None:
    rows = {
        "plc.status": [row(0, 7), row(10, 1), row(20, 8), row(21, 8), row(22, None, 2, "agent_down")],
        "plc.mode": [row(0, 1), row(20, 9), row(40, 10)],
    }
    assert MODED.unmapped(rows, 15 * S, 30 * S) == (
        Unmapped("map", "plc.status", 8),
        Unmapped("mode.map", "plc.mode", 9),
    )
    assert STATUS.unmapped(rows, 0, 5 * S) == (Unmapped("map", "plc.status", 7),)
    assert STATUS.tags == ("plc.status",)
    assert MODED.tags == ("plc.status", "plc.mode")
    assert STATUS.undecided(rows, {}, 5 * S) is None


# ------------------------------------------------------------------------------------------------ named maps


@pytest.mark.parametrize(
    ("name", "words_in_order"),
    [
        # Clearing, Stopped, Starting, Idle, Suspended, Execute, Stopping, Aborting, Aborted, Holding, Held, Unholding,
        # Suspending, Unsuspending, Resetting, Completing, Complete: OPC 30050 counts from 1.
        ("packml", "- down down idle idle delay producing down down down delay delay delay delay delay idle producing "
            "idle"),
        # Stopped, Resetting, Idle, Starting, Execute, Completing, Complete, Aborting, Aborted, Stopping, Clearing,
        # Suspending, Suspended, Unsuspending, Holding, Held, Unholding: OPC 30060 counts from 0.
        ("packml-tmc", "down idle idle idle producing producing idle down down down down delay delay delay delay delay "
            "delay"),
        ("machinery", "idle down delay producing"),
    ],
)  # fmt: skip
def test_named_map_has_the_numbers_of_its_standard(name: str, words_in_order: str) -> None:
    expected = {number: word for number, word in enumerate(words_in_order.split()) if word != "-"}
    assert {key: word for key, word in STATE_MAPS[name].items() if isinstance(key, int)} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("packml", {1: PRODUCTION, 2: "planned_stop", 3: "setup"}),
        (
            "packml-tmc",
            {1: PRODUCTION, 2: "planned_stop", 3: "setup", 4: "setup", 5: "planned_stop", 6: "setup", 7: "setup"},
        ),
        ("machinery", {0: PRODUCTION, 1: "planned_stop", 2: "setup", 3: PRODUCTION}),
    ],
)
def test_named_mode_map_has_the_numbers_of_its_standard(name: str, expected: dict[int, str]) -> None:
    assert {key: word for key, word in MODE_MAPS[name].items() if isinstance(key, int)} == expected


def test_named_maps_know_the_names_that_the_standards_give() -> None:
    assert STATE_MAPS.keys() == MODE_MAPS.keys()
    assert {STATE_MAPS[name]["Execute"] for name in ("packml", "packml-tmc")} == {"producing"}
    assert STATE_MAPS["packml"][5] == STATE_MAPS["packml-tmc"][12] == STATE_MAPS["packml"]["Suspended"] == "delay"
    assert STATE_MAPS["machinery"]["Executing"] == "producing"
    for known in STATE_MAPS.values():
        assert set(known.values()) <= set(STATES) - {"short_stop", "unknown"}
        texts = [word for key, word in known.items() if isinstance(key, str)]
        assert sorted(texts) == sorted(word for key, word in known.items() if isinstance(key, int))


# -------------------------------------------------------------------------------------------------- from count


COUNTER = CounterRules("plc.count", None)
FIVE = FromCount((COUNTER,), 5 * S)


def counted(*pairs: tuple[int, int]) -> dict[str, list[Row]]:
    return {"plc.count": [row(second, value) for second, value in pairs]}


def test_count_is_producing_while_items_come_and_delay_from_the_last_one() -> None:
    rows = counted((0, 10), (3, 11), (6, 12), (11, 13), (20, 14), (25, 15), (40, 15))
    assert words(over(FIVE, rows)) == [("producing", 0), ("delay", 11), ("producing", 20), ("delay", 25), ("stale", 55)]


def test_count_that_begins_to_be_seen_is_producing_only_with_an_item_near() -> None:
    in_time, too_late = counted((2, 10), (7, 11), (9, 12)), counted((2, 10), (8, 11), (9, 12))
    assert words(over(FIVE, in_time))[:3] == [("not_started", 0), ("producing", 2), ("delay", 9)]
    assert words(over(FIVE, too_late))[:3] == [("not_started", 0), ("delay", 2), ("producing", 8)]
    assert words(over(FIVE, counted((2, 10))))[:3] == [("not_started", 0), ("delay", 2), ("stale", 22)]


def test_count_that_is_lost_is_unknown_and_the_item_before_still_counts() -> None:
    rows = counted((0, 10), (3, 11), (12, 13), (14, 14))
    rows["plc.count"].insert(2, row(6, None, 2, "device_offline"))
    assert words(over(FIVE, rows))[:4] == [("producing", 0), ("device_offline", 6), ("producing", 12), ("delay", 14)]
    assert words(over(FIVE, rows, offline="idle"))[:3] == [("producing", 0), ("idle", 6), ("producing", 12)]
    rows["plc.count"][2] = row(6, 10.5)
    assert words(over(FIVE, rows))[1] == ("bad_quality", 6)


def test_count_that_falls_or_is_held_makes_no_item() -> None:
    believed = FromCount((CounterRules("plc.count", Fraction(1)),), 5 * S)
    rows = counted((0, 10), (2, 11), (4, 5_000), (6, 10), (20, 11), (23, 12))
    assert words(over(believed, rows))[:3] == [("producing", 0), ("delay", 2), ("producing", 20)]


def test_count_of_any_kind_says_when_items_come() -> None:
    kinds: list[tuple[CountRules, list[Row]]] = [
        (PulseRules("plc.count"), [row(0, 0), row(3, 1), row(4, 0), row(12, 1), row(13, 0), row(15, 1)]),
        (IncrementRules("plc.count"), [row(0, 0), row(3, 2), row(12, 1), row(15, 4)]),
    ]
    for rules, rows in kinds:
        found = words(over(FromCount((rules,), 5 * S), {"plc.count": rows}))
        assert found[:3] == [("producing", 0), ("delay", 3), ("producing", 12)]


def test_several_counts_are_producing_when_one_of_them_moves_and_unknown_when_one_is() -> None:
    both = FromCount((COUNTER, CounterRules("plc.other", None)), 5 * S)
    rows = counted((0, 1), (3, 2), (10, 3))
    rows["plc.other"] = [row(0, 1), row(7, 2), row(12, None, 2, "agent_down")]
    assert words(over(both, rows))[:2] == [("producing", 0), ("agent_down", 12)]


def test_count_is_undecided_until_the_next_item_can_be_late() -> None:
    rows, holds = counted((0, 10), (3, 11), (6, 12)), {"plc.count": HOLD * S}
    assert FIVE.undecided(rows, holds, 8 * S) == (6 * S, 11 * S + 1)
    assert FIVE.undecided(rows, holds, 11 * S) == (6 * S, 11 * S + 1)
    assert FIVE.undecided(rows, holds, 11 * S + 1) is None
    assert FIVE.undecided(counted((0, 10)), holds, 2 * S) == (0, 5 * S + 1), "an item at 5 s makes it producing"
    assert FIVE.undecided({}, holds, 2 * S) is None
    lost = {"plc.count": [row(0, 10), row(3, 11), row(4, None, 2, "agent_down"), row(6, 11)]}
    assert FIVE.undecided(lost, holds, 5 * S) is None
    assert FIVE.undecided(lost, holds, 7 * S) == (6 * S, 11 * S + 1)


def naive(rows: Sequence[Row], second: int) -> str:
    """The state at an instant, from what lies around it."""
    hole = {}
    for at in range(END):
        before = [found for found in rows if found[0] <= at * S]
        if at >= KNOWN:
            hole[at] = "stale"
        elif not before:
            hole[at] = "not_started"
        elif before[-1][2] == 2:
            hole[at] = str(before[-1][3])
        elif at - before[-1][0] // S >= HOLD:
            hole[at] = "stale"
    if second in hole:
        return hole[second]
    good = [found for found in rows if found[2] != 2 and found[0] < KNOWN * S]
    items = {after[0] // S for before, after in pairwise(good) if isinstance(after[1], int) and after[1] != before[1]}
    start = second
    while start not in items and start and start - 1 not in hole:
        start -= 1
    end = second + 1
    while end not in items and end < END and end not in hole:
        end += 1
    return "producing" if end - start <= 5 and (start in items or end in items) else "delay"


readings = st.lists(
    st.tuples(st.integers(0, END), st.sampled_from([0, 1, 1, 2, None])), max_size=25, unique_by=lambda pair: pair[0]
)


@settings(max_examples=200, deadline=None)
@given(readings)
def test_count_over_spans_equals_the_state_at_each_instant(moves: list[tuple[int, int | None]]) -> None:
    rows, count = [], 100
    for second, move in sorted(moves, key=lambda pair: pair[0]):
        count += move or 0
        rows.append(row(second, None, 2, "agent_down") if move is None else row(second, count))
    found = over(FIVE, {"plc.count": rows})
    assert (np.diff(found.edges) > 0).all()
    for second in range(END):
        span = int(np.searchsorted(found.edges, second * S, "right")) - 1
        assert LABELS[found.labels[span]] == naive(rows, second), f"at {second} s"


# ------------------------------------------------------------------------------- windows from any of the sources


RULES = Rules((("producing", parse("plc.count >= 103 and not plc.other == 2")), ("down", parse("plc.other"))))


def machine_of(source: StateSource) -> Machine:
    counts = {"produced": (COUNTER,)}
    return Machine("m", "e/s/a/l/m", source, dict.fromkeys(source.tags, HOLD * S), counts, Definition(S, 7 * S))


def stored(rows: Sequence[Row], since_ns: int, until_ns: int) -> list[Row]:
    """What the store gives for a range: with what holds at its start, and eight good readings before it."""
    before = [place for place, found in enumerate(rows) if found[0] < since_ns]
    good = [place for place in before if rows[place][2] < 2]
    first = min([*before[-1:], *good[-COUNTER_LOOKBACK_READINGS:]], default=0)
    return [found for found in rows[first:] if found[0] < until_ns]


def window(machine: Machine, rows: Mapping[str, Sequence[Row]], bounds: tuple[int, int], known: int) -> WindowData:
    return compute(machine, Calendar(), rows, [(bounds[0] * S, bounds[1] * S)], known)[0]


Moves = list[tuple[int, int | None]]


def rising(moves: Moves) -> list[Row]:
    found, count = [], 100
    for second, move in sorted(moves, key=lambda pair: pair[0]):
        count += move or 0
        found.append(row(second, None, 2, "agent_down") if move is None else row(second, count))
    return found


@pytest.mark.parametrize("source", [FIVE, RULES, MODED], ids=["count", "rules", "mode"])
@settings(max_examples=100, deadline=None)
@given(readings, readings, st.integers(0, 50), st.integers(1, 10))
def test_window_from_the_rows_that_it_asks_for_equals_the_window_from_all(
    source: StateSource,
    count: list[tuple[int, int | None]],
    other: list[tuple[int, int | None]],
    start: int,
    length: int,
) -> None:
    machine, bounds = machine_of(source), (start, start + length)
    second = [row(at, move, 2 if move is None else 0, "agent_down") for at, move in sorted(other, key=lambda at: at[0])]
    rows = {"plc.count": rising(count), "plc.other": second, "plc.status": second, "plc.mode": second[::2]}
    known = min(60 * S, bounds[1] * S + lookahead_ns(machine))
    asked = {tag: stored(own, start * S - lookback_ns(machine), known) for tag, own in rows.items()}
    assert window(machine, asked, bounds, known) == window(machine, rows, bounds, 60 * S)


@settings(max_examples=150, deadline=None)
@given(readings, st.integers(0, 50), st.integers(1, 10), st.integers(0, 20))
def test_window_that_is_settled_never_changes(moves: Moves, start: int, length: int, later: int) -> None:
    machine, bounds = machine_of(FIVE), (start, start + length)
    rows, known = {"plc.count": rising(moves)}, (bounds[1] + later) * S
    first, last = window(machine, rows, bounds, known), window(machine, rows, bounds, 200 * S)
    since = unsettled_since_ns(machine, rows, known)
    assert first.settled == (since is None or since >= bounds[1] * S)
    if first.settled:
        assert first.times_ns == last.times_ns


def test_stop_before_an_item_is_unsettled_while_the_next_one_may_be_late() -> None:
    machine = machine_of(FIVE)
    rows = {"plc.count": rising([(8, 0), (9, 1), (10, 1), (16, 1), (30, 1)])}
    early, late = (window(machine, rows, (10, 16), known * S) for known in (18, 40))
    assert early.times_ns["short_stop"] == 6 * S
    assert not early.settled
    assert unsettled_since_ns(machine, rows, 18 * S) == 10 * S
    assert late.times_ns["delay"] == 6 * S, "it went on to 30"
    assert late.settled


def test_stop_of_two_late_items_is_one_stop_also_from_few_rows() -> None:
    machine = replace(machine_of(FIVE), hold_ns={"plc.count": S})
    items = (5, 20, 26, 28)
    count = [(q * S // 4, 100 + sum(q >= 4 * item for item in items), 0, None) for q in range(30 * 4)]
    known = 27 * S + lookahead_ns(machine)
    found = window(machine, {"plc.count": stored(count, 25 * S - lookback_ns(machine), known)}, (25, 27), known)
    assert {state: ns // S for state, ns in found.times_ns.items() if ns} == {"delay": 1, "producing": 1}
