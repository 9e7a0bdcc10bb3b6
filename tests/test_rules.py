"""State from rules on tags: the grammar, Kleene's logic, and spans against an evaluator that goes second by second."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.equipment import LABELS, Row, Timeline
from edge_agent.equipment.rules import Signal, parse, tags_of
from edge_agent.equipment.sources import Rules

S = 1_000_000_000
END = 40
KNOWN_UNTIL = 35
HOLD = 8
TAGS = ("a.x", "a.y", "b.z")
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def says(text: str, **values: float | None) -> bool | None:
    """What a rule says of these values of the device `a`; None is unknown."""
    rule = parse(text)
    signals = {
        f"a.{tag}": Signal(np.array([0.0 if value is None else value]), np.array([value is not None]))
        for tag, value in values.items()
    }
    true, known = rule.over(signals, 1)
    assert known[0] or not true[0]
    return bool(true[0]) if known[0] else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.x > 5 and not a.y", True),
        ("a.x>5 and a.y", False),
        ("a.x", True),
        ("a.y", False),
        ("not not a.x", True),
        ("a.x == 7 and (a.y or a.x >= 7)", True),
        ("a.y or a.y and a.x", False),
        ("a.x or a.y and a.y", True),
        ("not a.y == 1", True),
        ("7 <= a.x", True),
        ("-1 < a.y", True),
        ("a.x != 7e0", False),
        ("a.y == false", True),
        ("true", True),
        ("1.5 < 1.25", False),
    ],
)
def test_rule_of_known_values_is_true_or_false(text: str, expected: bool) -> None:
    assert says(text, x=7, y=0) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.u", None),
        ("not a.u", None),
        ("a.u == a.u", None),
        ("a.u > 1 and a.y", False),
        ("a.u > 1 and a.x", None),
        ("a.u or a.x", True),
        ("a.u or a.y", None),
        ("not (a.u and a.y)", True),
    ],
)
def test_rule_of_an_unknown_value_follows_kleene(text: str, expected: bool | None) -> None:
    assert says(text, x=7, y=0, u=None) is expected


def test_rule_knows_its_tags_once_and_in_order() -> None:
    first, second = parse("b.z > 1 or not (a.x and b.z)"), parse("a.y != 0")
    assert first.tags == ("b.z", "a.x")
    assert tags_of([first, second]) == ("b.z", "a.x", "a.y")
    assert parse("press-01-plc.spindle_2 > 50").tags == ("press-01-plc.spindle_2",)


@pytest.mark.parametrize(
    ("text", "place", "says_what"),
    [
        ("", None, "an empty rule"),
        ("   ", None, "an empty rule"),
        ("plc.x >", 8, "expected a tag or a number, found the end"),
        ("plc.x > 5 plc.y", 11, "expected and, or, or the end, found 'plc.y'"),
        ("plc.x > 5 and or plc.y", 15, "expected a tag or a number, found 'or'"),
        ("(plc.x > 5", 11, "expected a closing parenthesis, found the end"),
        ("plc.x > 5)", 10, "expected and, or, or the end, found ')'"),
        ("1 < plc.x < 3", 11, "expected and, or, or the end, found '<'"),
        ("spindle > 50", 1, "'spindle' is no tag: write device.tag"),
        ("plc.x + 1 > 5", 7, "'+' has no place in a rule"),
        ("plc.x = 5", 7, "'=' has no place in a rule"),
        ("plc.x > 5 && plc.y", 11, "'&' has no place in a rule"),
        ("__import__('os')", 12, '"\'" has no place in a rule'),
        ("plc.x.y > 1", 6, "'.' has no place in a rule"),
        ("plc.x == 'on'", 10, '"\'" has no place in a rule'),
        ("(" * 40 + "plc.x" + ")" * 40, None, "at most 32 levels deep"),
        ("not " * 5_000 + "plc.x", None, "at most 32 levels deep"),
    ],
)
def test_text_that_is_no_rule_is_refused_at_its_character(text: str, place: int | None, says_what: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says_what)) as refused:
        parse(text)
    assert ("at character" in str(refused.value)) == (place is not None)
    if place is not None:
        assert f"at character {place}: " in str(refused.value)


@given(st.text(alphabet="ab.xy01 ()<>=!-andornt\n'", max_size=30))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    with suppress(ValueError):
        rule = parse(text)
        assert parse(f"({text})") == rule
        assert set(rule.tags) <= set(re.findall(r"[\w-]+\.[\w-]+", text))


# ---------------------------------------------------------------------------------------- spans of state


def row(second: int, value: Any, quality: int = 0, cause: str | None = None) -> Row:
    return (second * S, value, quality, cause)


def over(rules: Mapping[str, str], rows: Mapping[str, Sequence[Row]], offline: str = "unknown") -> Timeline:
    source = Rules(tuple((word, parse(text)) for word, text in rules.items()))
    holds = dict.fromkeys(TAGS, HOLD * S)
    return source.timeline(rows, holds, (0, END * S), KNOWN_UNTIL * S, offline)


def words(timeline: Timeline) -> list[tuple[str, int]]:
    """Each run of one label, with the second at which it begins."""
    found: list[tuple[str, int]] = []
    for label, start in zip(timeline.labels.tolist(), timeline.edges.tolist(), strict=False):
        if not found or found[-1][0] != LABELS[label]:
            found.append((LABELS[label], start // S))
    return found


DRIVE = {"producing": "a.x > 50 and not b.z", "down": "b.z"}


def test_state_is_that_of_the_first_rule_that_is_true_else_delay() -> None:
    rows = {
        "a.x": [row(0, 60.0), row(5, 10), row(10, 80), row(15, 80)],
        "b.z": [row(0, False), row(7, True), row(12, False)],
    }
    assert words(over(DRIVE, rows))[:4] == [("producing", 0), ("delay", 5), ("down", 7), ("producing", 12)]
    both = {"idle": "a.x > 5", "producing": "a.x > 50"}
    assert words(over(both, {"a.x": [row(0, 60.0)]})) == [("idle", 0), ("stale", 8)]


@pytest.mark.parametrize(
    ("value", "quality", "cause", "expected"),
    [
        (None, 2, "device_offline", "device_offline"),
        (None, 2, "agent_down", "agent_down"),
        (None, 2, "BadSensorFailure", "bad_quality"),
        ("fast", 0, None, "bad_quality"),
        (b"\x01", 0, None, "bad_quality"),
        (float("nan"), 0, None, "bad_quality"),
        (float("inf"), 0, None, "bad_quality"),
    ],
)
def test_state_without_a_usable_number_is_unknown_with_the_cause(
    value: Any, quality: int, cause: str | None, expected: str
) -> None:
    rows = {"a.x": [row(0, 60), row(4, value, quality, cause), row(6, 60)], "b.z": [row(0, 0), row(6, 0)]}
    assert words(over(DRIVE, rows)) == [("producing", 0), (expected, 4), ("producing", 6), ("stale", 14)]


def test_state_that_does_not_need_the_unknown_is_known() -> None:
    rows = {"a.x": [row(0, None, 2, "device_offline")], "b.z": [row(0, 1)]}
    assert words(over(DRIVE, rows))[:2] == [("down", 0), ("device_offline", 8)]


def test_state_takes_the_cause_of_the_first_tag_in_the_rule() -> None:
    rows = {"a.x": [row(0, None, 2, "agent_down")], "b.z": [row(0, None, 2, "device_offline")]}
    assert words(over({"producing": "b.z and a.x"}, rows)) == [("device_offline", 0), ("stale", KNOWN_UNTIL)]
    assert words(over({"producing": "a.x and b.z"}, rows)) == [("agent_down", 0), ("stale", KNOWN_UNTIL)]
    assert words(over({"producing": "a.x"}, {})) == [("not_started", 0), ("stale", KNOWN_UNTIL)]


def test_state_of_a_device_that_went_offline_is_what_the_machine_says() -> None:
    rows = {"a.x": [row(0, 60), row(4, None, 2, "device_offline")], "b.z": [row(0, 0)]}
    found = over(DRIVE, rows, offline="idle")
    assert words(found)[:2] == [("producing", 0), ("idle", 4)]


def test_state_is_uncertain_where_a_tag_that_was_asked_is() -> None:
    rules = {"down": "b.z", "producing": "a.x > 50"}
    rows = {"a.x": [row(0, 60, 1), row(6, 60)], "b.z": [row(0, 1), row(3, 0)]}
    found = over(rules, rows)
    doubtful = [second for second in range(8) if found.uncertain[np.searchsorted(found.edges, second * S, "right") - 1]]
    assert doubtful == [3, 4, 5], "until 3 the first rule is true and nobody asks a.x"


class Naive:
    """Rules as nested tuples, their text, and what they say of one instant."""

    @staticmethod
    def text(node: Any) -> str:
        kind, *parts = node
        if kind == "not":
            return f"not ({Naive.text(parts[0])})"
        if kind in ("and", "or"):
            return f"({Naive.text(parts[0])}) {kind} ({Naive.text(parts[1])})"
        return f"{parts[0]} {kind} {parts[1]}"

    @staticmethod
    def tags(node: Any) -> list[str]:
        _, *parts = node
        found = []
        for part in parts:
            found += Naive.tags(part) if isinstance(part, tuple) else [part] if isinstance(part, str) else []
        return found

    @staticmethod
    def says(node: Any, values: Mapping[str, float | None]) -> bool | None:
        kind, *parts = node
        if kind in COMPARE:
            left, right = (values[part] if isinstance(part, str) else part for part in parts)
            return None if left is None or right is None else bool(COMPARE[kind](left, right))
        answers = [Naive.says(part, values) for part in parts]
        if kind == "not":
            return None if answers[0] is None else not answers[0]
        decisive: bool = kind == "or"
        if decisive in answers:
            return decisive
        return None if None in answers else not decisive


def in_force(rows: Sequence[Row], second: int) -> tuple[float | None, str | None, bool]:
    """The number of a tag at an instant, or why it has none, and whether it is uncertain."""
    if second >= KNOWN_UNTIL:
        return None, "stale", False
    before = [found for found in rows if found[0] <= second * S]
    if not before:
        return None, "not_started", False
    time, value, quality, cause = before[-1]
    if quality == 2:
        return None, cause, False
    if (second * S - time) >= HOLD * S:
        return None, "stale", False
    if not isinstance(value, int | float):
        return None, "bad_quality", quality == 1
    return value, None, quality == 1


def naive(rules: Sequence[tuple[str, Any]], rows: Mapping[str, Sequence[Row]], second: int) -> tuple[str, bool]:
    heard = {tag: in_force(rows[tag], second) for tag in TAGS}
    doubt = False
    for word, node in rules:
        answer = Naive.says(node, {tag: value for tag, (value, _, _) in heard.items()})
        doubt |= any(heard[tag][2] for tag in Naive.tags(node))
        if answer is None:
            cause = next(heard[tag][1] for tag in Naive.tags(node) if heard[tag][0] is None)
            return str(cause), False
        if answer:
            return word, doubt
    return "delay", doubt


operands = st.one_of(st.sampled_from(TAGS), st.integers(-1, 3))
nodes = st.recursive(
    st.tuples(st.sampled_from(list(COMPARE)), operands, operands),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=5,
)  # fmt: skip
tag_rows = st.lists(
    st.tuples(
        st.integers(0, END),
        st.one_of(
            st.integers(-1, 3).map(lambda value: (value, 0, None)),
            st.sampled_from([(1, 1, None), (True, 0, None), (0.5, 0, None), ("text", 0, None)]),
            st.sampled_from(["device_offline", "agent_down", "bad_quality"]).map(lambda cause: (None, 2, cause)),
        ),
    ),
    max_size=8,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: [row(second, *rest) for second, rest in sorted(pairs, key=lambda pair: pair[0])])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["producing", "down", "idle", "delay"]), nodes), min_size=1, max_size=3),
    st.fixed_dictionaries(dict.fromkeys(TAGS, tag_rows)),
)
def test_state_over_spans_equals_the_state_at_each_instant(
    rules: list[tuple[str, Any]], rows: dict[str, list[Row]]
) -> None:
    source = Rules(tuple((word, parse(Naive.text(node))) for word, node in rules))
    found = source.timeline(rows, dict.fromkeys(TAGS, HOLD * S), (0, END * S), KNOWN_UNTIL * S, "unknown")
    assert (found.edges[0], found.edges[-1]) == (0, END * S)
    assert (np.diff(found.edges) > 0).all()
    for second in range(END):
        span = int(np.searchsorted(found.edges, second * S, "right")) - 1
        told = LABELS[found.labels[span]], bool(found.uncertain[span])
        assert told == naive(rules, rows, second), f"at {second} s"
