"""`edge-agent backtest`: recorded readings through the daemon's code. A folder in `cases/` is what once happened."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from agreement import agree
from typer.testing import CliRunner, Result

from edge_agent.cli import app
from edge_agent.contract import EdgeAgentError

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/readings.csv"))
KILLED = next(case for case in CASES if case.name == "agent_killed_while_the_machine_ran")
WHOLE = [case for case in CASES if (case / "expected.jsonl").exists()]
CHOSEN = [case for case in CASES if (case / "expected.json").exists()]
"""What is expected is every record of the case, or the fields that matter of the windows that matter."""
OF_REVISION = ("revision", "revised_because", "previous", "final", "revisable_until")
Records = list[dict[str, Any]]


def tried(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["backtest", *arguments], input=text)


def records(*arguments: str, text: str | None = None) -> Records:
    result = tried(*arguments, text=text)
    assert result.exit_code == 0, (result.output, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def case_records(case: Path, *options: str) -> Records:
    told = ("--entries", str(case / "entries.jsonl")) if (case / "entries.jsonl").exists() else ()
    return records(str(case / "config"), str(case / "readings.csv"), *told, *options)


def agrees(expected: Any, found: Any) -> bool:
    """Whether everything that was expected is there; fields may have been added since."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(name in found and agrees(value, found[name]) for name, value in expected.items())
    return bool(expected == found)


def truth(said: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last word on each key, without what only the way to it changes."""
    return {
        one["data"]["key"]: {name: value for name, value in one["data"].items() if name not in OF_REVISION}
        for one in said
    }


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_case_comes_out_as_expected(case: Path) -> None:
    expected = [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]
    found = case_records(case, "--revisions")
    assert [(one["type"], one["data"]["key"], one["data"]["revision"]) for one in found] == [
        (one["type"], one["data"]["key"], one["data"]["revision"]) for one in expected
    ]
    for wanted, one in zip(expected, found, strict=True):
        assert agrees(wanted, one), (wanted, one)


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_windows_of_a_case_have_what_is_expected_of_them_and_none_between_them(case: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())
    found = [one["data"] for one in case_records(case) if one["type"] == "production"]
    for size in sorted({window_of(one) for one in expected}):
        wanted = [one for one in expected if window_of(one) == size]
        first, last = wanted[0]["key"], wanted[-1]["key"]
        said = [one for one in found if window_of(one) == size and first <= one["key"] <= last]
        assert [one["key"] for one in said] == [one["key"] for one in wanted]
        for data, one in zip(said, wanted, strict=True):
            assert agrees(one, data), (one, data)


def test_each_case_says_what_is_expected_of_it() -> None:
    assert sorted([*WHOLE, *CHOSEN]) == CASES


def window_of(data: dict[str, Any]) -> str:
    return str(data["key"].split("/")[-2])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_records_of_a_case_agree_with_their_schemas(case: Path) -> None:
    for one in case_records(case, "--revisions"):
        agree(one["data"], one["type"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_last_revisions_are_sorted_and_the_same_truth_as_all_of_them(case: Path) -> None:
    last = case_records(case)
    keys = [one["data"]["key"] for one in last]
    assert keys == sorted(set(keys))
    assert truth(last) == truth(case_records(case, "--revisions"))


def test_windows_end_at_the_last_reading_and_until_extends_them() -> None:
    plain = case_records(KILLED)
    assert plain[-1]["data"]["start"] == "2026-11-23T12:04:00Z"
    assert plain[-1]["data"]["completeness"]["missing_s"]["agent_down"] == 10.0
    longer = case_records(KILLED, "--until", "2026-11-23T12:05:40Z")
    assert longer[-1]["data"]["start"] == "2026-11-23T12:05:00Z"
    assert longer[-1]["data"]["time_s"]["producing"] == 40.0
    assert tried(str(KILLED / "config"), str(KILLED / "readings.csv"), "--until", "2026-11-23T12:01:00Z").exit_code == 1


CHANGES = """tag,time,value,quality
plc.status,2026-11-23T12:00:00Z,1,good
plc.count,2026-11-23T12:00:00Z,0,good
plc.count,2026-11-23T12:04:00Z,240,good
plc.status,2026-11-23T12:09:59Z,2,good
"""


def test_value_holds_until_the_next_reading_with_hold_only() -> None:
    arguments = (str(KILLED / "config"), "-")
    held, stale = records(*arguments, "--hold", text=CHANGES), records(*arguments, text=CHANGES)
    producing = [sum(one["data"]["time_s"]["producing"] for one in said if one["type"] == "production") for said in
                 (held, stale)]  # fmt: skip
    assert producing == [599.0, 90.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plc.count,12:00,1,good", "stdin:2: column time: '12:00' is not a time such as"),
        ("plc.count,,1,good", "stdin:2: column time: '' is not a time such as"),
        ("plc.count,2026-11-23T12:00:00Z,1.5,good", "stdin:2: column value: '1.5' is not a whole number"),
        ("plc.count,2026-11-23T12:00:00Z,1,Good", "stdin:2: column quality: 'Good' is not good, uncertain or bad"),
        ("plc.count,2026-11-23T12:00:00Z,1,2,good", "stdin:2: 5 columns where the header has 4"),
        ("plc.count,2026-11-23T12:00:61Z,1,good", "stdin:2: column time: '2026-11-23T12:00:61Z' is not a time"),
        ("plc.cuont,2026-11-23T12:00:00Z,1,good", "no reading of a machine's tag: it has plc.cuont"),
    ],
)
def test_bad_row_is_named_with_line_column_and_cure(line: str, message: str) -> None:
    result = tried(str(KILLED / "config"), "-", text=f"tag,time,value,quality\n{line}\n")
    assert isinstance(result.exception, EdgeAgentError)
    assert message in str(result.exception)
    assert result.stdout == ""


def test_header_that_lacks_a_column_shows_the_right_one() -> None:
    result = tried(str(KILLED / "config"), "-", text="tag;time;value;quality\n")
    assert "tag,time,value,quality,cause,received" in str(result.exception)


def test_unknown_tag_is_said_once_with_what_was_probably_meant() -> None:
    text = CHANGES + "plc.cuont,2026-11-23T12:10:00Z,1,good\n" * 3
    result = tried(str(KILLED / "config"), "-", text=text)
    assert result.exit_code == 0
    assert result.stderr.count("plc.cuont") == 1
    assert "did you mean plc.count?" in result.stderr


def test_file_that_is_not_there_fails_and_says_so() -> None:
    result = tried(str(KILLED / "config"), "/nowhere/readings.csv")
    assert result.exit_code == 1
    assert "/nowhere/readings.csv: No such file" in str(result.exception)
