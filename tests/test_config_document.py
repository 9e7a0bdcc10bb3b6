"""YAML 1.2 text to nodes with places, and what is refused with words that help."""

from __future__ import annotations

import math

import pytest

from edge_agent.config.document import Node, compose, resolve
from edge_agent.config.faults import Fault
from edge_agent.config.validation import plain


def _compose(text: str) -> tuple[Node | None, list[str]]:
    faults: list[Fault] = []
    node = compose(text, "f.yaml", faults.append)
    return node, [str(fault) for fault in faults]


def _at(text: str, *path: str | int) -> Node:
    node, faults = _compose(text)
    assert node is not None
    assert faults == []
    for step in path:
        if isinstance(node.value, list):
            node = node.value[int(step)]
        else:
            assert isinstance(node.value, dict)
            node = node.value[str(step)].value
    return node


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("06:00", "06:00"), ("no", "no"), ("on", "on"), ("off", "off"), ("yes", "yes"), ("y", "y"), ("NO", "NO"),
        ("2026-12-25", "2026-12-25"), ("1_000", "1_000"), ("1e3", 1000.0), ("0x10", 16), ("0o17", 15), ("017", 17),
        ("-5", -5), ("+5", 5), (".5", 0.5), ("5.", 5.0), ("1.5e-3", 0.0015), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("tRUE", "tRUE"), ("1 s", "1 s"), ("-", "-"), (".", "."),
        ("0x", "0x"), ("0b1", "0b1"), ("1:30:00", "1:30:00"), ("٣", "٣"), ("9" * 40, int("9" * 40)),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_scalar_by_the_core_schema_has_the_value_that_people_mean(text: str, value: object) -> None:
    resolved = resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999"])
def test_scalar_that_is_not_finite_is_a_fault(text: str) -> None:
    resolved = resolve(text)
    assert isinstance(resolved, float)
    assert math.isnan(resolved)
    assert _compose(f"a:\n  b: {text}\n")[1] == ["f.yaml:2:6: error: a.b: must be a finite number"]


def test_quoted_scalar_stays_text() -> None:
    assert plain(_at("a: ['1', \"true\", '', \"06:00\"]\n", "a")) == ["1", "true", "", "06:00"]


def test_node_has_the_line_and_column_of_key_and_value() -> None:
    text = "# é\na:\n  bé: {c: [1,  two], 'd':   3}\n"
    assert _at(text, "a", "bé", "c", 1).place == ("f.yaml", 3, 16)
    entries = _at(text, "a", "bé").mapping
    assert entries is not None
    assert entries["d"].key.place == ("f.yaml", 3, 22)
    assert entries["d"].value.place == ("f.yaml", 3, 29)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("agent:\n\tname: x\n", "2:1", "replace the tab by spaces"),
        ("agent:\n  name:x\n  site: y\n", "3:7", "give the line above its ': '"),
        ("a: b: c\n", "1:5", "put text with a colon in quotes"),
        ("agent:\n    name: a\n  site: b\n", "3:3", "not indented like its neighbours"),
        ("a:\n- b\nc\n", "3:1", "`key: value`, with a space after the colon"),
        ("a: {b: 1\nc: 2\n", "2:2", "closing } is missing before this; it was opened at line 1, column 4"),
        ("a: [1, 2\nc: 2\n", "2:2", "closing ] is missing before this; it was opened at line 1, column 4"),
        ("a: 1\nb: \"x\nc: 2\n", "2:4", "the quote that opens here is never closed"),
        ("a: }\n", "1:4", "look for a bracket or comma too many"),
        ("a: @x\n", "1:4", "must be in quotes"),
        ("a: - b\n", "1:4", "on a line of its own"),
        ('a: "C:\\dev"\n', "1:8", "in single quotes it is an ordinary character"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', "2:1", "check quotes and escapes"),
        ('a: "\\ud800"\n', "1:4", "surrogate"),
        ("a: |x\n  b\n", "1:5", "begins on the next line"),
        ("a: *b\n", "1:4", "aliases (*name) are not supported"),
        ("a: &b c\n", "1:4", "anchors (&name) are not supported"),
        ("a: !!python/object:os.system c\n", "1:4", "tags (!name) are not supported"),
        ("a: !e!b c\n", "1:4", "begins with ! must be in quotes"),
        ("a: 1\n---\nb: 2\n", "2:1", "a second document"),
        ("%YAML 1.1\n---\na: 1\n", "2:1", "remove the line %YAML"),
        ("{a: 1}: 2\n", "1:1", "a key must be a word or a number"),
        ("a: 1\nb: \x07\n", "2:4", "a control character (code 7)"),
    ],
)  # fmt: skip
def test_text_that_cannot_be_read_is_a_fault_with_place_and_hint(text: str, place: str, words: str) -> None:
    _, faults = _compose(text)
    assert len(faults) == 1
    assert faults[0].startswith(f"f.yaml:{place}: error: ")
    assert words in faults[0]


@pytest.mark.parametrize("text", ["!hunter2 x", "*hunter2", "&hunter2 x", "!hunter2!x y", '"hunter2', "%hunter2"])
def test_password_that_is_no_yaml_is_not_shown(text: str) -> None:
    _, faults = _compose(f"mqtt:\n  password: {text}\n")
    assert len(faults) == 1
    assert "hunter2" not in faults[0]


@pytest.mark.parametrize(
    ("text", "first"), [("a: 1\n'a': 2\n", "1:1"), ("1: a\n0x1: b\n", "1:1"), ("{1: a, true: b}", "1:2")]
)
def test_key_used_twice_is_a_fault_with_both_places(text: str, first: str) -> None:
    _, faults = _compose(text)
    assert len(faults) == 1
    assert faults[0].endswith(f"this key is used twice; first at f.yaml:{first}")


def test_nesting_without_end_is_refused_at_once() -> None:
    _, faults = _compose("a: " + "[" * 200_000)
    assert len(faults) == 1
    assert "nested more than 24 levels deep" in faults[0]
    _, faults = _compose("".join("  " * level + "a:\n" for level in range(200)))
    assert "nested more than 24 levels deep" in faults[0]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "--- # nothing\n...\n"])
def test_empty_document_is_no_fault(text: str) -> None:
    node, faults = _compose(text)
    assert faults == []
    assert node is None or node.value is None
